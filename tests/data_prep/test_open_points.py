"""Tests of doubts: found by values, asked at once, and settled by an answer."""

import ast
import json
import shlex

import pytest
from PIL import Image

import cxr_compare
from tests.adapters import sources
from tests.adapters.commands import cxr
from tests.cases import write_file
from tests.data_prep.every_line import followed

IMAGES = [f"i{n:02}.png" for n in range(12)]


def repeated(*words):
    """One word an image, in turn."""
    return [words[n % len(words)] for n in range(len(IMAGES))]


def single(**columns):
    return {"file": IMAGES, **columns}


def grid(labels=("opacity", "effusion"), **columns):
    """A row for every label of every image."""
    rows = [(image, label) for image in IMAGES for label in labels]
    files, names = zip(*rows, strict=True)
    of = {
        name: [words[n % len(words)] for n in range(len(rows))] for name, words in columns.items()
    }
    return {"file": list(files), "finding": list(names), **of}


def some_filled(*columns, box=(3, 5, 30, 40)):
    """Columns of numbers on every second image."""
    rows = [[edge + n for edge in box] if n % 2 == 0 else [""] * 4 for n in range(len(IMAGES))]
    return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))


MASS = {"label": repeated("mass", "normal")}
ASKED = {
    "words of a state in German": (
        grid(status=["bestätigt", "bestätigt", "ausgeschlossen"]),
        ["state=status", "means:bestätigt=present", "means:ausgeschlossen=absent"],
        {"opacity": (8, 4), "effusion": (8, 4)},
    ),
    "two probabilities": (
        grid(p=["0.05", "0.95", "0.95", "0.05"]),
        ["state=p", "means:0.05=absent", "means:0.95=present"],
        {"opacity": (6, 6), "effusion": (6, 6)},
    ),
    "three words of a grade in French": (
        grid(grade=["aucun", "léger", "sévère", "aucun", "aucun"]),
        ["state=grade", "means:aucun=absent", "means:léger=present", "means:sévère=present"],
        {"opacity": (5, 7), "effusion": (5, 7)},
    ),
    "what a review says": (
        grid(review=["accepted", "rejected", "accepted"]),
        ["state=review", "means:accepted=present", "means:rejected=absent"],
        {"opacity": (8, 4), "effusion": (8, 4)},
    ),
    "1 for what is denied": (
        grid(ruled_out=["1", "0", "0"]),
        ["negated=ruled_out"],
        {"opacity": (8, 4), "effusion": (8, 4)},
    ),
    "all labels of a grid are present": (
        grid(comment=["a", "b"]),
        ["state=", "unused=comment"],
        {"opacity": (12, 0), "effusion": (12, 0)},
    ),
    "words that differ between the rows of an image": (
        {
            "file": [*IMAGES, *IMAGES[:6]],
            "label": ["mass"] * 12 + ["nodule"] * 6,
            "said": ["sure"] * 9 + ["denied"] * 6 + ["sure"] * 3,
        },
        ["state=said", "means:sure=present", "means:denied=absent"],
        {"mass": (9, 3), "nodule": (3, 3)},
    ),
    "a word for normal in Czech": (
        single(label=repeated("zápal", "v normě")),
        ["means:v normě=normal"],
        {"zapal": (6, 6)},
    ),
    "a word for normal among three in Polish": (
        single(label=repeated("guz", "odma", "bez zmian")),
        ["means:bez zmian=normal"],
        {"guz": (4, 8), "odma": (4, 8)},
    ),
    "two classes without a name": (
        single(label=repeated("class_a", "class_b")),
        ["means:class_a=normal"],
        {"class_b": (6, 6)},
    ),
    "two strange words that are both findings": (
        single(label=repeated("guz", "odma")),
        ["means:guz=finding", "means:odma=finding"],
        {"guz": (6, 6), "odma": (6, 6)},
    ),
    "numbers of which the other one is the disease": (
        single(label=repeated("1", "0"), naam=repeated("gezond", "tbc")),
        ["label=naam", "means:gezond=normal"],
        {"tbc": (6, 6)},
    ),
    "three numbered classes with their words": (
        single(label=repeated("0", "1", "2"), text=repeated("normal", "mass", "edema")),
        ["label=text"],
        {"mass": (4, 8), "edema": (4, 8)},
    ),
    "corners under names in Dutch": (
        single(**MASS, **some_filled("li", "bo", "re", "on")),
        ["unused=li", "unused=bo", "unused=re", "unused=on"],
        {"mass": (6, 6)},
    ),
    "a second box under other names": (
        single(**MASS, **some_filled("xmin", "ymin", "xmax", "ymax"), **some_filled(*"qrst")),
        ["unused=q", "unused=r", "unused=s", "unused=t"],
        {"mass": (6, 6)},
    ),
    "two columns of patients": (
        single(**MASS, patient=repeated("a", "b", "c"), PatientID=repeated("x", "y")),
        ["patient=PatientID"],
        {"mass": (6, 6)},
    ),
    "two passes that contradict each other": (
        {
            "file": [*IMAGES, *IMAGES],
            "label": [*repeated("mass", "normal"), *repeated("mass", "normal", "normal")],
            "pass": ["first"] * 12 + ["second"] * 12,
        },
        ["reader=pass"],
        {"mass": (2, 4)},
    ),
    "views under a name of no list": (
        single(**MASS, how=repeated("frontal", "frontal", "lateral")),
        ["view=how"],
        {"mass": (4, 4)},
    ),
    "a label that may list two": (
        single(label=repeated("mass", "nodule", "mass/nodule", "normal")),
        ["means:mass/nodule=mass|nodule"],
        {"mass": (6, 6), "nodule": (6, 6)},
    ),
    "a list of which one label stands alone": (
        single(label=repeated("mass", "mass+zápal", "normal")),
        ["means:mass+zápal=Mass|Zápal"],
        {"mass": (8, 4), "zapal": (4, 8)},
    ),
    "a list by a word of any language": (
        single(label=repeated("mass", "zápal a mass", "normal")),
        ["means:zápal a mass=mass|zapal"],
        {"mass": (8, 4), "zapal": (4, 8)},
    ),
    "a kind of another label behind a sign": (
        single(label=repeated("pneumonia", "pneumonia/viral", "normal")),
        ["means:pneumonia/viral=finding"],
        {"pneumonia": (4, 8), "pneumonia_viral": (4, 8)},
    ),
    "a column that says of some images that they are not normal": (
        single(normal=repeated("ja", "nein", "nein")),
        ["finding:abnormal=normal", "means:ja=absent", "means:nein=present"],
        {"abnormal": (8, 4)},
    ),
    "a label in doubt": (
        single(label=repeated("mass", "mass ?", "normal")),
        ["means:mass ?=uncertain mass"],
        {"mass": (4, 4)},
    ),
}
READ = {
    "facts of the images": (
        single(**MASS, hospital=repeated("A", "B"), scanner=repeated("X", "X", "Y")),
        {"mass": (6, 6)},
    ),
    "a comment": (single(**MASS, comment=repeated("ok", "blurred", "")), {"mass": (6, 6)}),
    "four measures of each image": (
        single(**MASS, kg=[*range(60, 72)], cm=[170, 160] * 6, age=[*range(40, 52)], dose=[7] * 12),
        {"mass": (6, 6)},
    ),
    "two known findings": (
        single(label=repeated("mass", "edema")),
        {"mass": (6, 6), "edema": (6, 6)},
    ),
    "labels whose names hold another": (
        single(label=repeated("pneumonia", "bacterial pneumonia", "pneumonia (viral)", "normal")),
        {"pneumonia": (3, 9), "bacterial_pneumonia": (3, 9), "pneumonia_viral": (3, 9)},
    ),
    "parts of known findings": (
        single(label=repeated("left effusion", "right effusion")),
        {"left_effusion": (6, 6), "right_effusion": (6, 6)},
    ),
    "numbers whose words say the same": (
        single(mass=repeated("1", "0"), text=repeated("mass", "no mass")),
        {"mass": (6, 6)},
    ),
    "words that do not go with the numbers": (
        single(mass=repeated("1", "0"), text=repeated("north", "south", "west")),
        {"mass": (6, 6)},
    ),
    "one patient under two names of columns": (
        single(**MASS, patient=repeated("a", "b"), PatientID=repeated("a", "b")),
        {"mass": (6, 6)},
    ),
    "patients of sites with numbers of their own": (
        single(**MASS, patient=[*range(12)], site=["A"] * 6 + ["B"] * 6),
        {"mass": (6, 6)},
    ),
    "rows that name what is there": (
        {
            "file": [*IMAGES, *IMAGES[:3]],
            "label": ["mass"] * 12 + ["edema"] * 3,
            "nr": [*range(15)],
        },
        {"mass": (12, 0), "edema": (3, 9)},
    ),
}


def read(folder, columns, answers=()):
    """Counts of present and absent by finding, or the line of the refusal; and the patients."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    write_file(folder, "labels.csv", "\n".join([*lines, ""]))
    for image in IMAGES:
        write_file(folder, f"images/{image}", {"image": [64, 64]})
    options = {"columns": tuple(answers)}
    kind, found = sources.read(folder / "images", "table", [folder / "labels.csv"], options)
    if kind == "refused":
        return found, 0
    states = [of for images in [found["states"]["reference"]] for of in images.values()]
    names = {name for of in states for name in of}
    counts = {
        name: tuple(sum(of.get(name) == state for of in states) for state in (1, 0))
        for name in names
    }
    return counts, len({facts[1] for facts in found["images"].values()})


def draw(folder):
    """Give each image a picture of its own."""
    for n, image in enumerate(IMAGES):
        Image.linear_gradient("L").resize((64, 64)).rotate(30 * n).save(folder / image)


@pytest.mark.parametrize("name", ASKED)
def test_what_is_open_is_asked_and_an_answer_decides_what_is_present(name, tmp_path):
    columns, answers, expected = ASKED[name]
    line, _ = read(tmp_path, columns)
    assert isinstance(line, str), line
    first = answers[0].partition("=")[0] if answers[0].startswith("means:") else answers[0]
    assert first in line, line
    assert read(tmp_path, columns, answers)[0] == expected


@pytest.mark.parametrize("name", READ)
def test_a_table_without_a_doubt_is_read_without_a_question(name, tmp_path):
    columns, expected = READ[name]
    assert read(tmp_path, columns)[0] == expected


def test_patients_whom_each_site_counts_anew_are_told_apart_by_both(tmp_path):
    columns = {
        "file": [f"i{n:02}.png" for n in range(20)],
        "label": ["mass", "normal"] * 10,
        "patient": [*range(1, 11)] * 2,
        "site": ["A"] * 10 + ["B"] * 10,
    }
    for image in columns["file"]:
        write_file(tmp_path, f"images/{image}", {"image": [64, 64]})
    line, _ = read(tmp_path, columns)
    assert "patient=site+patient" in line
    assert "20 patients" in line
    assert "10 patients" in line
    assert read(tmp_path, columns, ["patient=site+patient"])[1] == 20
    columns["patient"][:2] = ["", ""]  # whom nobody knows are not one person of their site
    assert read(tmp_path, columns, ["patient=site+patient"])[1] == 19  # 18, and unknown


def test_columns_that_may_name_unknown_patients_are_named_by_their_values(tmp_path):
    columns = single(
        **MASS,
        Fallnummer=[*range(20, 30), 20, 21],
        copy_of_file=IMAGES,
        share=[n / 8 for n in range(12)],
        site=repeated("A", "B"),
        comment=[f"seen by reader {n} twice" for n in range(12)],
    )
    read(tmp_path, columns)  # writes the files
    folder, table = tmp_path / "images", tmp_path / "labels.csv"
    notes = sources.shown_lines(folder, "table", [table])
    ways = [note.partition("--columns ")[2] for note in notes if "--columns" in note]
    assert ways == ["patient=Fallnummer"]
    counts, n_patients = read(tmp_path, columns, ways)
    assert (counts, n_patients) == ({"mass": (6, 6)}, 10)


def test_all_that_is_open_is_asked_at_once_with_what_each_answer_does(tmp_path):
    columns = single(
        label=repeated("zápal", "v normě"), how=repeated("frontal", "frontal", "lateral")
    )
    line, _ = read(tmp_path, columns)
    assert line.startswith("2 points are open")
    assert "means:v normě=normal' (zapal 6 present, 6 absent; i00 shows zapal" in line
    assert "view=how" in line
    assert "--columns '[1],[2]'" in line
    refused, _ = read(tmp_path, columns, ["[1]", "[2]"])
    assert isinstance(refused, str)


def test_no_cell_of_a_column_that_is_not_read_is_shown_beside_headers(tmp_path):
    for n in range(12):
        element = {"dicom": {"SOPInstanceUID": f"1.2.{n}", "PatientID": f"p{n}"}}
        write_file(tmp_path, f"tree/{n}.dcm", element)
    rows = [(n, label) for n in range(12) for label in ("opacity", "effusion")]
    said = ("miller", "smith", "smith")
    lines = [f"1.2.{n},{label},{said[at % 3]}" for at, (n, label) in enumerate(rows)]
    write_file(tmp_path, "labels.csv", "\n".join(["SOPInstanceUID,label,said", *lines, ""]))
    kind, line = sources.read(tmp_path / "tree", "dicom", [tmp_path / "labels.csv"], {})
    assert kind == "refused"
    assert "'said'" in line
    assert "smith" not in line
    assert "miller" not in line


def test_a_refusal_is_lines_for_a_shell_arguments_for_python_and_data_for_programs(
    tmp_path, capsys, monkeypatch
):
    read(tmp_path, ASKED["what a review says"][0])  # writes the files
    draw(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    assert cxr("prepare", "labels.csv", "images", "out") == 2
    first, *ways = capsys.readouterr().err.partition("cxr: ")[2].splitlines()
    assert first.endswith(
        "'review' (accepted 16, 1 other): which column says whether one is present?"
    )
    (way,) = [line for line in ways if "'rejected' says" in line]
    option = shlex.split(way.partition(", add ")[2])[:2]
    assert option[0] == "--columns"
    status = cxr("prepare", "labels.csv", "images", "out", *option, "--without-pictures")
    assert status == 0, capsys.readouterr().err
    with pytest.raises(cxr_compare.InputError) as refused:
        cxr_compare.prepare("labels.csv", "images", "again")
    text = str(refused.value)
    assert "\n" not in text
    given = ast.literal_eval(text[text.index("columns=") + len("columns=") :].partition(" (")[0])
    assert cxr_compare.prepare("labels.csv", "images", "again", columns=given).targets
    capsys.readouterr()
    assert cxr("prepare", "labels.csv", "images", "third", "--json") == 2
    (point,) = json.loads(capsys.readouterr().out)["refused"]
    assert given in [way["options"].get("columns") for way in point["remedies"]]


@pytest.mark.parametrize("label", ["Zápal, otok", "Zápal,otok"])
def test_an_answer_on_labels_with_a_comma_is_read_as_it_is_pasted(label, tmp_path, capsys):
    read(tmp_path, single(label=repeated("Zápal", f'"{label}"', "v normě")))  # writes the files
    draw(tmp_path / "images")
    pasted = f"means:v normě=normal,means:{label}=Zápal|Otok"
    where = [tmp_path / "labels.csv", tmp_path / "images", tmp_path / "out"]
    status = cxr("prepare", *where, "--columns", pasted, "--without-pictures")
    lines = capsys.readouterr()
    assert status == 0, lines.err
    counts = [line.split()[:3] for line in lines.out.splitlines()]
    assert ["zapal", "8", "4"] in counts
    assert ["otok", "4", "8"] in counts


def test_an_answer_that_leads_back_is_not_offered(tmp_path):
    columns = single(label=repeated("zápal", "v normě"))
    line, _ = read(tmp_path, columns, ["label=label"])
    assert "label=label" not in line
    assert line.count("add --columns") == 3


def test_folders_of_two_strange_classes_are_asked_about(tmp_path):
    for n in range(8):
        write_file(tmp_path, f"set/{'terve' if n % 2 else 'haige'}/{n}.png", {"image": [64, 64]})
    kind, line = sources.read(tmp_path / "set", "folders", [], {})
    assert kind == "refused"
    assert "means:terve=normal" in line
    kind, found = sources.read(
        tmp_path / "set", "folders", [], {"columns": ("means:terve=normal",)}
    )
    assert kind == "read"
    assert list(found["targets"]) == ["haige"]


@pytest.mark.parametrize(
    "limit", [30, pytest.param(None, marks=pytest.mark.release)], ids=["a draw", "all"]
)
def test_answers_to_a_column_without_a_name_lead_to_what_it_holds(limit):
    """No answer leads back to its question, and hardly any refusal lacks the right one."""
    counts, lines = followed(limit)
    assert counts["refused"] >= 10
    assert counts["circles"] == 0, lines
    assert counts["right"] >= 0.8 * counts["refused"], lines
