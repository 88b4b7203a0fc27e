"""Folders of images and labels in every format: the tables that they mean, or one line."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

import cxr_compare
from tests.adapters import sources
from tests.advised import assert_leads_on, options_after
from tests.cases import CONFORMANCE, ORIENTATION, load, write_file
from tests.data_prep.label_files import meanings

FORMATS_PAGE = Path(__file__).parents[2] / "docs/formats.md"
FILES = sorted(
    str(path.relative_to(CONFORMANCE)) for path in CONFORMANCE.glob("inputs/sources/*.json")
)
N_FACTS = 8


def written_case(case, folder):
    """Write the files of a case: their folder, the paths of its tables, and its options."""
    folder = folder / "set"  # its name stands before the patients
    folder.mkdir()
    for name, content in case["files"].items():
        if name.endswith("/"):
            (folder / name).mkdir(parents=True)
        else:
            write_file(folder, name, content)
    return folder, *arguments(case, folder)


def arguments(case, folder):
    """Paths of the tables of a case, and its options."""
    options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in case.get("options", {}).items()
    }
    return [folder / name for name in case.get("labels", [])], options


def outcome(case, folder):
    """Write the files of a case and read them: the table, or a line without the folder's path."""
    return reading(case, written_case(case, folder)[0])


def reading(case, folder):
    """Read the files of a case, which are written."""
    labels, options = arguments(case, folder)
    kind, found = sources.read(folder / case.get("root", "."), case["format"], labels, options)
    return kind, found.replace(str(folder), "") if kind == "refused" else found


def boxes_of_table(folder, rows, images, columns=(), **options):
    """Boxes of images in a table of corners, or the line of the refusal."""
    lines = ["file,label,xmin,ymin,xmax,ymax"]
    lines += [f"{name},mass,{','.join(map(repr, box))}" for name, box in rows]
    case = {
        "format": "table",
        "files": {"labels.csv": "\n".join([*lines, ""]), **images},
        "labels": ["labels.csv"],
        "options": {"columns": list(columns), **options},
    }
    kind, found = outcome(case, folder)
    return found if kind == "refused" else {row[0]: row[3:] for row in found["boxes"]}


def drawn_images(case):
    """Size of each image file of a case, as it is seen, by its path below the folder of images."""
    root = case.get("root", ".")
    sizes = {}
    for name, content in case["files"].items():
        if isinstance(content, dict) and content.keys() & {"image", "dicom"}:
            path = name if root == "." else str(Path(name).relative_to(root))
            size = content.get("image", [64, 64])
            sizes[path] = size[::-1] if content.get("turned", 1) > 4 else size
    return sizes


def covered(states, boxes):
    """Every box, and every absence of a finding that has a box on some image."""
    rows = {tuple(box[:3]) for box in boxes}
    findings = {finding for _, finding, _ in rows}
    for reader, images in states.items():
        for image, of_image in images.items():
            rows |= {
                (image, finding, reader)
                for finding, state in of_image.items()
                if state == 0 and finding in findings
            }
    return [[*row, "all"] for row in rows]


def complete(case):
    """The expected table of a case with all that the format leaves out."""
    expected = {"states": {}, "boxes": [], "left_out": [], "roles": {}, "split": {}}
    expected |= case["expect"]
    expected["boxes"] = sorted(expected["boxes"])
    expected.setdefault("boxed", covered(expected["states"], expected["boxes"]))
    expected["boxed"] = sorted(expected["boxed"])
    expected["left_out"] = sorted(expected["left_out"])
    if "images" not in expected:
        kept = [path for path in drawn_images(case) if path not in expected["left_out"]]
        expected["images"] = {Path(path).stem: [path] for path in kept}
    expected["images"] = {
        image: facts + [None] * (N_FACTS - len(facts))
        for image, facts in expected["images"].items()
    }
    findings = {
        finding
        for images in expected["states"].values()
        for states in images.values()
        for finding in states
    }
    expected.setdefault("targets", {finding: [finding] for finding in findings})
    unknown = [image for image, facts in expected["images"].items() if facts[1] is None]
    unused = {image for image, role in expected["split"].items() if role == "unused"}
    expected.setdefault("warned", bool(set(unknown) - unused))
    return expected


def without_sizes_of_files(images, sizes):
    """A stated size that is the image file's own says nothing."""
    return {
        image: [*facts[:3], None, None, *facts[5:]] if facts[3:5] == sizes.get(facts[0]) else facts
        for image, facts in images.items()
    }


def again(case, call, folder):
    """The outcome of a case, whose files are written, with other options."""
    options = {name: value for name, value in call.items() if name != "format"}
    return reading({**case, "format": call["format"], "options": options}, folder / "set")


@pytest.mark.parametrize("case", [*load(*FILES), *meanings()])
def test_a_folder_means_what_its_case_says(case, tmp_path):
    kind, found = outcome(case, tmp_path)
    if "refused" in case:
        assert kind == "refused", found
        assert "\n" not in found
        assert [part for part in case["refused"] if part not in found] == []
        assert [part for part in case.get("unsaid", []) if part in found] == []
        return
    assert kind == "read", found
    found["images"] = without_sizes_of_files(found["images"], drawn_images(case))
    expected = complete(case)
    for name, value in expected.items():
        assert found[name] == value, name


@pytest.mark.release
@pytest.mark.parametrize(
    "case", [each for each in [*load(*FILES), *meanings()] if "refused" in each.values[0]]
)
def test_what_a_refusal_advises_leads_on(case, tmp_path):
    _, line = outcome(case, tmp_path)
    call = {"format": case["format"], **case.get("options", {})}
    assert_leads_on(line, call, lambda call: again(case, call, tmp_path), options_after)


@pytest.mark.parametrize("unit", ["px", "share", "percent", "thousandth"])
@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
def test_boxes_in_every_form_and_unit_are_read_as_the_user_says(form, unit, tmp_path):
    random = np.random.default_rng(97)
    width, height = 400, 300
    corners = {}
    for name in "abcdefghijkl":
        x1, y1 = random.uniform(0, [300, 200])
        sides = random.uniform(10, 100, 2)
        corners[name] = np.array([x1, y1, x1 + sides[0], y1 + sides[1]])
    scale = {"px": None, "share": 1, "percent": 100, "thousandth": 1000}[unit]
    written = {}
    for name, (x1, y1, x2, y2) in corners.items():
        numbers = {
            "xyxy": (x1, y1, x2, y2),
            "xywh": (x1, y1, x2 - x1, y2 - y1),
            "cxcywh": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
        }[form]
        if scale:
            numbers = np.array(numbers) / [width, height, width, height] * scale
        written[name] = [float(number) for number in numbers]
    rows = [(f"{name}.png", numbers) for name, numbers in written.items()]
    images = {f"{name}.png": {"image": [width, height]} for name in corners}
    answer = [f"box_form={form}", f"box_unit={unit}"]
    found = boxes_of_table(tmp_path, rows, images, answer)
    assert found.keys() == corners.keys()
    for name, box in found.items():
        np.testing.assert_allclose(box, corners[name], rtol=0, atol=0.001)
    if unit in ("share", "percent"):  # never read as px without a question
        (tmp_path / "unasked").mkdir()
        found = boxes_of_table(tmp_path / "unasked", rows, images)
        if unit == "percent" or form != "xyxy":
            assert isinstance(found, str), found
        else:
            np.testing.assert_allclose(found["a"], corners["a"], rtol=0, atol=0.001)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_raw_boxes_turn_as_pillow_turns_the_pixels(orientation, tmp_path):
    pixels = np.zeros((71, 61), np.uint8)
    pixels[20:45, 10:22] = 255
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    ys, xs = np.nonzero(np.asarray(ImageOps.exif_transpose(image)))
    lesion = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    images = {"a.png": {"image": [61, 71], "turned": orientation}}
    found = boxes_of_table(tmp_path, [("a.png", [10, 20, 22, 45])], images, raw_boxes=True)
    assert found == {"a": lesion}


def test_the_order_of_rows_changes_no_reference(tmp_path):
    rows = ["a,mass,R1,10,10,30,30", "a,mass,R2,12,10,32,30", "a,mass,R3,14,10,34,30"]
    rows += ["b,mass,R1,1,1,9,9", "b,mass,R3,40,40,60,60", "b,normal,R2,,,,"]
    tables = []
    for number, order in enumerate([rows, rows[::-1], rows[1::2] + rows[::2]]):
        head = "image_id,label,reader,x1,y1,x2,y2"
        case = {
            "format": "table",
            "files": {"labels.csv": "\n".join([head, *order, ""])}
            | {f"{name}.png": {"image": [64, 64]} for name in "ab"},
            "labels": ["labels.csv"],
        }
        (tmp_path / str(number)).mkdir()
        tables.append(outcome(case, tmp_path / str(number)))
    assert tables[0][0] == "read"
    assert tables[0] == tables[1] == tables[2]


def test_a_prepared_set_cuts_boxes_at_the_border_and_leaves_out_images_that_it_cannot_use(tmp_path):
    """3 px or 1 % of a side is a slip of the mouse; more makes the image unknown."""
    rows = [f"a.png,mass,{n},10,{n + 30},40" for n in range(10)]
    rows += ["b.png,mass,150,60,202,101", "c.png,mass,150,60,204,90", "d.png,normal,,,,"]
    rows += ["damaged.png,mass,10,10,40,40"]
    write_file(tmp_path, "labels.csv", "\n".join(["file,label,xmin,ymin,xmax,ymax", *rows, ""]))
    for name in "abcd":
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").resize((200, 100)).save(path)
    write_file(tmp_path, "images/damaged.png", "no image")
    made = cxr_compare.prepare(
        tmp_path / "labels.csv", tmp_path / "images", tmp_path / "set", size=64, workers=0
    )
    boxes = made.boxes.set_index("image_id")[["x1", "y1", "x2", "y2"]]
    assert boxes.loc["b"].tolist() == [150, 60, 200, 100]
    assert sorted(made.images["image_id"]) == ["a", "b", "d"]
    assert sorted(set(made.findings["image_id"])) == ["a", "b", "d"]


# Labels of the user's tables


def labels(folder, *tables, images="abcd", **options):
    """Read tables beside images of 64 x 64 px."""
    for name in images:
        write_file(folder, f"images/{name}.png", {"image": [64, 64]})
    for number, text in enumerate(tables):
        write_file(folder, f"{number}.csv", text)
    paths = [folder / f"{number}.csv" for number in range(len(tables))]
    return sources.labels(folder / "images", paths, **options)


def test_a_label_says_who_gave_it(tmp_path):
    text = "file,label,reader\na.png,mass,R1\na.png,mass,R2\nb.png,normal,R1\n"
    origins = labels(tmp_path, text)["origins"]
    assert origins["a", "mass", "R1"] == "reader"
    assert origins["a", "mass", "reference"] == "consensus"
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


@pytest.mark.parametrize("others", [[], ["tuberculosis"]], ids=len)
def test_boxes_beside_folders_of_classes_are_asked_of_what_they_are(tmp_path, others):
    classes = ["normal", "pneumonia", *others]
    images = {f"x/{name}/{name}{n}.png": {"image": [40, 40]} for name in classes for n in (1, 2)}
    table = "file,left,top,right,bottom\npneumonia1.png,4,5,20,30\n"
    case = {
        "format": "table",
        "root": "x",
        "labels": ["b.csv"],
        "files": {"b.csv": table, **images},
    }
    kind, line = outcome(case, tmp_path)
    assert kind == "refused"
    assert "--class-names NAME" in line


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


@pytest.mark.parametrize(
    "head",
    [
        "Fichier,Résultat,Patient,Sexe,Âge",
        "Archivo,Hallazgo,Paciente,Sexo,Edad",
    ],
)
def test_columns_are_recognised_in_other_languages(tmp_path, head):
    text = f"{head}\na.png,Mass,p1,M,60\nb.png,normal,p2,F,50\n"
    found = read(tmp_path, text)
    assert found["states"] == {"reference": {"a": {"mass": 1}, "b": {"mass": 0}}}
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


# Formats and trees of DICOM files


def test_help_and_pages_name_every_format():
    known, options = sources.known_formats()
    text = " ".join(cxr_compare.prepare.__doc__.partition("format: ")[2].split())
    names = text.partition(": ")[2].partition(".")[0].replace(" or ", ", ").split(",")
    assert {name.strip() for name in names} == set(known)
    page = FORMATS_PAGE.read_text(encoding="utf-8")
    for name, (title, folder, of_format) in known.items():
        assert f"\n## {name}\n" in page
        assert f"[`{name}`](#{name})" in page
        assert title
        assert folder
        assert set(of_format) <= set(options)


def test_no_format_fits_a_folder_without_files(tmp_path):
    (tmp_path / "images").mkdir()
    assert sources.fitting(tmp_path) == []
    assert sources.fitting(tmp_path / "missing") == []


def write_radiograph(folder, name, **elements):
    write_file(folder, name, {"dicom": elements})


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path):
    """Each image is listed once, and a folder linked from outside may link to another."""
    for name in ("set/.kept/d.png", "store/normal/a.png", "store/normal/b.png", "far/mass/c.png"):
        write_file(tmp_path, name, {"image": [64, 64]})
    links = {
        "set/normal": "store/normal",
        "store/normal/more": "far",
        "far/back": "store",
        "far/self": "far/mass",
        "set/mass": "set/.kept",
        "set/up": ".",
        "far/down": "set",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(tmp_path / target, target_is_directory=True)
    _, found = sources.read(tmp_path / "set", "folders", [], {})
    paths = sorted(facts[0] for facts in found["images"].values())
    assert paths == ["mass/d.png", "normal/a.png", "normal/b.png", "normal/more/mass/c.png"]


def test_no_line_about_a_dicom_tree_quotes_a_cell_which_may_name_a_person(tmp_path):
    for name in ("a", "b"):
        write_radiograph(tmp_path / "tree", name, SOPInstanceUID=f"1.2.{ord(name)}")
    table = tmp_path / "labels.csv"
    table.write_text("file,label,x_note\na,mass,Miller\nb,normal,Smith\nJones,mass,\n")
    lines = " ".join(sources.shown_lines(tmp_path / "tree", "dicom", [table]))
    assert "x_note" in lines
    assert "1 of 3" in lines  # rows without an image are counted
    for cell in ("Miller", "Smith", "Jones", "normal"):
        assert cell not in lines


def test_every_file_of_a_dicom_tree_is_looked_at_and_a_pipe_is_not_waited_for(tmp_path):
    write_radiograph(tmp_path, "deep/er/IM000001", SOPInstanceUID="1.2.3")
    write_radiograph(tmp_path, "b.png", SOPInstanceUID="1.2.4")
    (tmp_path / "notes.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.dcm")
    kind, found = sources.read(tmp_path, "dicom", [], {})
    assert kind == "read"
    assert {facts[0] for facts in found["images"].values()} == {"b.png", "deep/er/IM000001"}
    assert found["left_out"] == ["notes.txt", "pipe.dcm"]


def test_damaged_headers_in_a_dicom_tree_are_left_out_and_never_an_exception(tmp_path):
    write_radiograph(tmp_path, "whole", SOPInstanceUID="1.2.3", PatientAge="045Y")
    whole = (tmp_path / "whole").read_bytes()[:900]
    rng = np.random.default_rng(11)
    for number in range(300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(128, len(damaged), size=1 + number % 8)
        damaged[places] = rng.integers(0, 256, len(places))
        (tmp_path / f"{number}").write_bytes(damaged[: rng.integers(100, 901)].tobytes())
    kind, found = sources.read(tmp_path, "dicom", [], {})
    assert kind == "read"
    assert len(found["images"]) + len(found["left_out"]) == 301
    assert len(found["left_out"]) > 100


# Public sets


@pytest.mark.release
def test_tables_of_nih_mean_what_the_format_nih_says(shared_data):
    nih = shared_data / "nih"
    tables = [nih / "Data_Entry_2017_v2020.csv", nih / "BBox_List_2017.csv"]
    _, of_tables = sources.read(nih / "images", "table", tables, {})
    _, of_format = sources.read(nih, "nih", [], {})
    stated = of_format["states"]["reference"]
    for image, states in of_tables["states"]["reference"].items():
        assert states.items() <= stated[image].items()
    assert sum(map(len, of_tables["states"]["reference"].values())) > 200
    assert of_tables["boxes"] == of_format["boxes"]


@pytest.mark.release
def test_the_label_file_of_rsna_means_what_the_format_rsna_says(shared_data):
    rsna = shared_data / "rsna"
    images, table = rsna / "stage_2_train_images", rsna / "stage_2_train_labels.csv"
    _, of_table = sources.read(images, "table", [table], {})
    _, of_format = sources.read(rsna, "rsna", [], {})
    for name in ("states", "boxes", "boxed"):
        assert of_table[name] == of_format[name]


@pytest.mark.release
@pytest.mark.parametrize(
    ("name", "images", "patients", "present", "boxes"),
    [("rsna", 26_684, 11_439, 6_012, 9_555), ("nih", 112_120, 30_805, 81_176, 984)],
)
def test_the_public_tables_have_their_published_numbers(
    name, images, patients, present, boxes, shared_data
):
    kind, found = sources.read(shared_data / "reference_csv", name, [], {})
    assert kind == "read"
    assert len(found["images"]) == images
    assert len({facts[1] for facts in found["images"].values()}) == patients
    states = [s for of in found["states"]["reference"].values() for s in of.values()]
    assert states.count(1) == present
    assert len(found["boxes"]) == boxes
    assert found["left_out"] == []


RECORDS = json.loads((Path(__file__).parents[1] / "cases/record.json").read_text())["cases"]


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: case.get("name") or case["case"][0])
def test_a_reader_records_what_it_took_each_column_and_class_for(case, tmp_path):
    """A person's name is in no cell of the record, and each line that is shown is in it."""
    expected = case["rows"]
    if "case" in case:
        file, name = case["case"]
        listed = json.loads((CONFORMANCE / "inputs/sources" / file).read_text())["cases"]
        (case,) = (each for each in listed if each["name"] == name)
    folder, labels, options = written_case(case, tmp_path)
    rows, shown = sources.record(folder / case.get("root", "."), case["format"], labels, options)
    assert [row for row in rows if row[0] != "line"] == expected
    assert [row[4] for row in rows if row[0] == "line"] == shown


def test_no_cell_of_a_column_that_is_not_read_is_shown(tmp_path):
    """It may name a person, whatever the column is called."""
    columns = {
        "context": ["affirmed"] * 12 + ["denied"] * 10 + ["doubted"] * 2,
        "ward": ["lena"] * 22 + ["paul", ""],
        "read_for": ["Anna Weber"] * 12 + ["Weber^Paul"] * 12,
        "comment": ["the lung is clear today"] * 12 + ["seen"] * 12,
        "reader": ["weber"] * 24,
        "labeller": ["weber"] * 12 + ["maier"] * 12,
        "own": [f"word{number}" for number in range(24)],
    }
    rows = pd.DataFrame({"image": range(24), "patient": range(24), "mass": [1, 0] * 12, **columns})
    rows = pd.concat([rows, rows.iloc[:1].assign(image=24, context="doubted")])
    rows.to_csv(tmp_path / "truth.csv", index=False)
    found = sources.record_of_truth(tmp_path / "truth.csv")
    cells = {row[2]: row[4] for row in found if row[0] == "column" and row[3] == "unused"}
    assert cells == {
        "context": "3 different",
        "ward": "2 different",
        "read_for": "2 different",
        "comment": "2 different",
        "labeller": "2 different",
        "own": "24 different",
    }


def test_a_truth_of_a_comparison_is_recorded_as_a_source_is(tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("image,mass,ward\na,1,East\nb,0,West\n")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x1,y1,x2,y2\na,10,20,30,40\n")
    columns = [row[1:] for row in sources.record_of_truth(table, boxes) if row[0] == "column"]
    assert columns == [
        ["truth.csv", "image", "file", "2 different", 2, 2],
        ["truth.csv", "mass", "finding", "1 = present (1), 0 = absent (1)", 2, 2],
        ["truth.csv", "ward", "unused", "2 different", 2, 2],
        ["boxes.csv", "image", "file", "1 different", 1, 1],
        *(
            ["boxes.csv", name, role, cells, 1, 1]
            for name, role, cells in (
                ("x1", "xmin", "10"),
                ("y1", "ymin", "20"),
                ("x2", "xmax", "30"),
                ("y2", "ymax", "40"),
            )
        ),
    ]
    frame = pd.DataFrame({"mass": [1, 0]}, ["a", "b"])
    rows = sources.record_of_truth(frame)
    assert ["column", "truth", "mass", "finding", "1 = present (1), 0 = absent (1)", 2, 2] in rows


def test_images_that_a_row_of_several_may_name_are_not_called_free_of_findings(tmp_path):
    """Such a row may call them positive: the folder is to be written, and most rows are read."""
    for name in ("p1/a.png", "p1/b.png", "p1/c.png", "p2/c.png", "alone.png"):
        write_file(tmp_path, f"images/{name}", {"image": [64, 64]})
    write_file(tmp_path, "labels.csv", "file,mass\np1/a.png,1\np1/b.png,0\nc.png,1\n")
    table = tmp_path / "labels.csv"
    notes = sources.shown_lines(tmp_path / "images", "table", [table])
    assert [note.split()[0] for note in notes if "show" in note] == ["1"]
    assert any("c.png" in note and "as in p1/c.png" in note for note in notes)
    table.write_text("file,mass\np1/a.png,1\nc.png,1\nc.png,1\n")
    kind, line = sources.read(tmp_path / "images", "table", [table], {})
    assert kind == "refused"
    assert "as in p1/c.png" in line


def test_copies_of_a_common_size_come_before_numbers_up_to_1000(tmp_path):
    """Boxes of 1024 px on images of 512 px are within 1000, too, where each would be 2.4 % off."""
    rows = [(f"{n}.png", (100 + 40 * n, 200, 560 + 40 * n, 900)) for n in range(10)]
    line = boxes_of_table(tmp_path, rows, {name: {"image": [512, 512]} for name, _ in rows})
    copies = line.partition("resized copies")[2].partition("box_unit=thousandth")[0]
    assert "1024 x 1024" in copies
    assert "2.4%" in copies
