"""Tests of the guard of tables: what is in doubt is asked at once, and settled by an answer."""

import json
import re
import shlex

import pytest
from PIL import Image

import cxr_compare
from tests.adapters import sources
from tests.adapters.commands import cxr
from tests.cases import write_file

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


BOXES = [repeated(edge, edge, "") for edge in (3, 5, 30, 40)]
MASS = {"label": repeated("mass", "normal")}
ASKED = {
    "a column of no finding among columns of one 1 in each row": (
        single(all_fine=repeated(1, 0, 0), guz=repeated(0, 1, 0), odma=repeated(0, 0, 1)),
        ["no_finding=all_fine", "finding=guz", "finding=odma"],
        {"guz": (4, 8), "odma": (4, 8)},
    ),
    "a lone column of what is normal": (
        single(all_fine=repeated(1, 0, 0)),
        ["finding:abnormal=all_fine", "means:1=absent", "means:0=present"],
        {"abnormal": (8, 4)},
    ),
    "a target that is the same in all rows of a class": (
        single(target=repeated(1, 0, 0), **{"class": repeated("opacity", "normal", "other")}),
        ["finding=target", "unused=class"],
        {"target": (4, 8)},
    ),
    "a label and its corrected spelling": (
        single(label=[*repeated("guz", "bez")[:10], "gus", "bez"], fixed=repeated("guz", "bez")),
        ["label=fixed", "means:bez=normal"],
        {"guz": (6, 6)},
    ),
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
        ["patient=patient"],
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
    "patients who count the rows": (
        single(**MASS, patient=[*range(1, 13)]),
        {"mass": (6, 6)},
    ),
    "a box beside the finding that is true in its row": (
        single(
            mass=repeated(True, False, False),
            edema=repeated(False, True, False),
            **dict(zip(("x1", "y1", "x2", "y2"), BOXES, strict=True)),
        ),
        {"mass": (4, 8), "edema": (4, 8)},
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


def read(folder, columns, answers=(), people=None, pattern=None):
    """Counts of present and absent by finding, or the line of the refusal; and the patients."""
    columns = columns if people is None else {**columns, "patient": people}
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    write_file(folder, "labels.csv", "\n".join([*lines, ""]))
    for image in IMAGES if people is None else columns["file"]:
        write_file(folder, f"images/{image}", {"image": [64, 64]})
    options = {"columns": tuple(answers), "patient_pattern": pattern}
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


# Names of the images and patients of tables in which each patient has the images that are his.
NAMED = {
    "img{n:03}": "H{n:03}",
    "img_{n:03}": "{n}",
    "CHNCXR_{n:04}_0": "{n}",
    "MCUCXR_{n:04}_1": "mc{n}",
    "JPCLN{n:03}": "J{n}",
    "train_{n}_{n:02}": "T{n:05}",
    "{n:08}_000": "{n}",
    "{h}": "v{n}",
    "{h}-{n}": "a{n}",
    "IM-{n:04}-0001": "P{n}",
    "COVID-{n}": "c{n}",
    "person{n}_virus_{n}": "k{n}",
    "2020-{n:02}-03": "d{n}",
    "chest {n}": "ch{n}",
    "site_a_{n}": "A{n}",
    "{m:03}_{n}": "p{m}",
    "p{m}-v{n}": "p{m}",
    "CXR{m}_1_IM-{n:04}": "{m}",
    "train/p{m}/v{n}": "p{m}",
    "p{m}/study1/view{n}_frontal": "p{m}",
}


@pytest.mark.parametrize("name", NAMED)
def test_true_patients_are_read_without_a_question_or_a_warning(name, tmp_path):
    rows = [{"n": n, "m": n // 2, "h": f"{n * 7919 % 65521:x}"} for n in range(24)]
    files = [f"{name.format_map(row)}.png" for row in rows]
    people = [NAMED[name].format_map(row) for row in rows]
    line, n_patients = read(
        tmp_path, {"file": files, "label": repeated("mass", "normal") * 2}, (), people
    )
    assert isinstance(line, dict), line
    assert n_patients == len(set(people))


@pytest.mark.parametrize(
    ("answers", "pattern", "n_patients"),
    [
        (["patient=patient"], None, 24),
        (["patient="], "(.+)[_-]", 12),
        (["patient="], None, 1),  # unknown
    ],
)
def test_patients_of_one_image_whose_names_are_in_pairs_are_asked_about(
    answers, pattern, n_patients, tmp_path
):
    files = [f"p{n // 2}_{n % 2}.png" for n in range(24)]
    columns = {"file": files, "label": repeated("mass", "normal") * 2}
    people = [f"A{71 * n % 997}" for n in range(24)]
    line, _ = read(tmp_path, columns, (), people)
    assert "p0_0.png and p0_1.png" in line
    assert answers[0] in line
    assert read(tmp_path, columns, answers, people, pattern)[1] == n_patients


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


def test_all_that_is_open_is_asked_at_once(tmp_path):
    columns = single(
        **MASS, status=repeated("1", "0", "0"), how=repeated("frontal", "frontal", "lateral")
    )
    line, _ = read(tmp_path, columns)
    assert line.startswith("2 points are open")
    assert "state=status" in line
    assert "view=how" in line
    assert "--columns '[1],[2]'" in line
    assert isinstance(read(tmp_path, columns, ["[1]", "[2]"])[0], str)


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
    assert first.endswith("'review' (2 different) is not read: what does it say?")
    (way,) = [line for line in ways if "says in words" in line]
    assert "state=review" in way
    answer = "state=review,means:accepted=present,means:rejected=absent"
    option = ["--columns", answer]
    status = cxr("prepare", "labels.csv", "images", "out", *option, "--without-pictures")
    assert status == 0, capsys.readouterr().err
    with pytest.raises(cxr_compare.InputError) as refused:
        cxr_compare.prepare("labels.csv", "images", "again")
    text = str(refused.value)
    assert "\n" not in text
    given = {"label": "review"}
    assert f"columns={given}" in text
    answers = {"state": "review", "means:accepted": "present", "means:rejected": "absent"}
    assert cxr_compare.prepare("labels.csv", "images", "again", columns=answers).targets
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


@pytest.mark.parametrize("name", ASKED)
def test_each_answer_that_is_printed_is_understood_when_it_is_pasted(name, tmp_path):
    columns, _, _ = ASKED[name]
    line, _ = read(tmp_path, columns)
    printed = re.findall(r"add --columns (\'[^\']+\'|\S+?)(?:;|$)", line)
    for answer in printed:
        (text,) = shlex.split(answer)
        if "COLUMN" not in text and "NAME" not in text:
            again, _ = read(tmp_path, columns, pairs_in(text))
            assert again != line, text


def pairs_in(text):
    """The answers that a text with commas gives."""
    return re.split(r",(?=[a-z_]+[:=])", text)
