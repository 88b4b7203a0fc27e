"""Folders of images and labels in every format: the tables that they mean, or one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare
from tests.adapters import sources
from tests.advised import assert_leads_on, options_after
from tests.cases import CONFORMANCE, load, write_file
from tests.data_prep.label_files import meanings

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


# Formats and trees of DICOM files


def write_radiograph(folder, name, **elements):
    write_file(folder, name, {"dicom": elements})


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


# Public sets


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
def test_a_reader_records_facts_and_each_line_that_it_shows(case, tmp_path):
    expected = case["rows"]
    if "case" in case:
        file, name = case["case"]
        listed = json.loads((CONFORMANCE / "inputs/sources" / file).read_text())["cases"]
        (case,) = (each for each in listed if each["name"] == name)
    folder, labels, options = written_case(case, tmp_path)
    rows, shown = sources.record(folder / case.get("root", "."), case["format"], labels, options)
    assert [row for row in rows if row[0]] == expected
    assert [row[1] for row in rows if not row[0]] == shown


def test_a_column_that_is_not_read_is_shown_by_how_many_of_its_cells_differ(tmp_path):
    """None of its words is shown, which may be somebody."""
    columns = {"read_for": ["Anna Weber", "Weber^Paul"], "ward": ["lena", ""], "comment": ["", ""]}
    rows = {"file": ["a.png", "b.png"], "label": ["mass", "normal"], **columns}
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    for name in "ab":
        write_file(tmp_path, f"images/{name}.png", {"image": [64, 64]})
    lines = sources.shown_lines(tmp_path / "images", "table", [tmp_path / "labels.csv"])
    assert "labels.csv: not read: 'read_for' (2 different), 'ward' (1 different)" in lines
    assert not any(name in line for line in lines for name in ("Weber", "lena"))
