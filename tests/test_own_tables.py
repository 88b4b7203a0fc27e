"""Labels of the user's tables: where each came from, and what only follows from others."""

import pytest

from tests.adapters import sources
from tests.test_conformance_sources import outcome, write_file

R = "reference"


def labels(folder, *tables, images="abcd", **options):
    """Read tables beside images of 64 x 64 px."""
    for name in images:
        write_file(folder / "images" / f"{name}.png", {"image": [64, 64]})
    for number, text in enumerate(tables):
        write_file(folder / f"{number}.csv", text)
    paths = [folder / f"{number}.csv" for number in range(len(tables))]
    return sources.labels(folder / "images", paths, **options)


def test_a_label_says_who_gave_it(tmp_path):
    text = "file,label,reader\na.png,mass,R1\na.png,mass,R2\nb.png,normal,R1\n"
    origins = labels(tmp_path, text)["origins"]
    assert origins["a", "mass", "R1"] == "reader"
    assert origins["a", "mass", R] == "consensus"
    assert set(labels(tmp_path, "file,label\na.png,mass\n")["origins"].values()) == {"unknown"}


@pytest.mark.parametrize(
    ("rows", "implied"),
    [
        ("a.png,mass b.png,normal c.png,nodule d.png,mass", 5),
        ("a.png,mass b.png,normal c.png,nodule d.png,mass a.png,unknown", 4),
        ("a.png,mass b.png,normal b.png,nodule c.png,nodule", 2),  # b is left out
    ],
)
def test_labels_that_only_follow_are_counted(tmp_path, rows, implied):
    text = "\n".join(["file,label", *rows.split(), ""])
    assert labels(tmp_path, text)["implied"] == implied


def test_spellings_that_a_target_joins_are_one_finding(tmp_path):
    text = (
        "file,label,x1,y1,x2,y2\na.png,mass,1,1,5,5\nb.png,masss,2,2,6,6\nc.png,edema,,,,\n"
        "d.png,normal,,,,\n"
    )
    found = labels(tmp_path, text, target={"mass": ["mass", "masss"]})
    assert found["targets"] == ["edema", "mass"]
    assert found["boxed"] == [["a", "mass"], ["b", "mass"]]
    of_mass = {
        image: state for (image, name, _), state in found["states"].items() if name == "mass"
    }
    assert of_mass == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert found["implied"] == 5  # mass on c and d, edema on a, b and d
    group = labels(tmp_path, text, target={"any": ["mass", "edema"]})
    assert group["targets"] == ["any", "edema", "mass", "masss"]


PNEUMONIA = "file,label\na.png,pneumonia\nb.png,pneumonia\nc.png,edema\nd.png,normal\n"


@pytest.mark.parametrize(
    ("boxed", "target", "pairs"),
    [
        ("opacity opacity", None, [("pneumonia", "opacity")]),
        ("opacity opacity", {"pneumonia": ["pneumonia", "opacity"]}, []),
        ("opacity opacity", {"any": ["pneumonia", "opacity"]}, []),
        ("pneumonia pneumonia", None, []),
        ("opacity nodule", None, []),  # either may be of pneumonia, or both
        ("pneumonia opacity", None, []),  # pneumonia has boxes of its own
    ],
)
def test_two_names_of_one_thing_are_said_until_a_target_joins_them(tmp_path, boxed, target, pairs):
    first, second = boxed.split()
    boxes = f"file,x1,y1,x2,y2,label\na.png,1,1,5,5,{first}\nb.png,2,2,6,6,{second}\n"
    notes = labels(tmp_path, PNEUMONIA, boxes, target=target)["second_names"]
    assert len(notes) == len(pairs)
    for note, (labelled, drawn) in zip(notes, pairs, strict=True):
        assert f"--target {labelled}={labelled},{drawn}" in note


@pytest.mark.parametrize(
    "head",
    [
        "Film,Befund,Patient,Geschlecht,Alter",
        "Fichier,Résultat,Patient,Sexe,Âge",
        "Archivo,Hallazgo,Paciente,Sexo,Edad",
        "Bestand,Bevinding,Patiënt,Geslacht,Leeftijd",
    ],
)
def test_columns_are_recognised_in_other_languages(tmp_path, head):
    text = f"{head}\na.png,Mass,p1,M,60\nb.png,normal,p2,F,50\n"
    found = read(tmp_path, text)
    assert found["states"] == {R: {"a": {"mass": 1}, "b": {"mass": 0}}}
    assert [found["images"][image][1] for image in "ab"] == ["set:p1", "set:p2"]
    assert [found["images"][image][6:] for image in "ab"] == [["M", 60], ["F", 50]]


def read(folder, text):
    files = {f"{name}.png": {"image": [64, 64]} for name in "ab"} | {"labels.csv": text}
    kind, found = outcome({"format": "table", "labels": ["labels.csv"], "files": files}, folder)
    assert kind == "read", found
    return found


@pytest.mark.parametrize(
    ("letters", "sexes"),
    [("vm", [None, None]), ("hm", ["M", None]), ("hf", ["M", "F"]), ("mw", ["M", "F"])],
)
def test_a_letter_for_man_in_one_language_and_woman_in_another_is_unknown(tmp_path, letters, sexes):
    one, other = letters
    found = read(tmp_path, f"file,label,sex\na.png,mass,{one}\nb.png,normal,{other.upper()}\n")
    assert [found["images"][image][6] for image in "ab"] == sexes


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("bbox", "[10, 20, 30, 40]"),
        ("Bounding Box", "10 20 30 40"),
        ("PredictionString", "opacity 0.9 10 20 30 40"),
        ("coords", "((10, 20, 30, 40), (1, 2, 3, 4))"),
    ],
)
def test_a_box_as_text_is_asked_about_by_its_line(tmp_path, column, cell):
    text = f'file,label,{column}\nb.png,normal,\na.png,mass,"{cell}"\n'
    files = {"a.png": {"image": [64, 64]}, "labels.csv": text}
    kind, line = outcome({"format": "table", "labels": ["labels.csv"], "files": files}, tmp_path)
    assert kind == "refused"
    assert "line 3" in line
    assert column in line


def test_tables_of_nih_mean_what_the_format_nih_says(shared_data):
    nih = shared_data / "nih"
    tables = [nih / "Data_Entry_2017_v2020.csv", nih / "BBox_List_2017.csv"]
    _, of_tables = sources.read(nih / "images", "table", tables, {})
    _, of_format = sources.read(nih, "nih", [], {})
    stated = of_format["states"][R]
    for image, states in of_tables["states"][R].items():
        assert states.items() <= stated[image].items()
    assert sum(map(len, of_tables["states"][R].values())) > 200
    assert of_tables["boxes"] == of_format["boxes"]


@pytest.mark.release
def test_the_label_file_of_rsna_means_what_the_format_rsna_says(shared_data):
    rsna = shared_data / "rsna"
    images, table = rsna / "stage_2_train_images", rsna / "stage_2_train_labels.csv"
    _, of_table = sources.read(images, "table", [table], {})
    _, of_format = sources.read(rsna, "rsna", [], {})
    for name in ("states", "boxes", "boxed"):
        assert of_table[name] == of_format[name]
