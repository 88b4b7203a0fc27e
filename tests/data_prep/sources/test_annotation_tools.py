"""CVAT's XML and Label Studio's JSON, as their layouts are published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import SourceTables
from PIL import Image

from cxr_compare.scripts.commands.prepare import prepare
from tests.data_prep.sources.answers import edges, reader, reasons, states, states_of, write_files

read_cvat = reader("cvat")
read_label_studio = reader("label-studio")
BOX = '<box label="Mass" source="manual" xtl="10.00" ytl="20.00" xbr="40.50" ybr="60.00"{}>{}</box>'


def cvat(*images: str) -> str:
    """A file of CVAT: images a, b, ... of 200 x 100 px with what is in each."""
    listed = "".join(
        f'<image id="{n}" name="{name}.png" width="200" height="100">{inside}</image>'
        for n, (name, inside) in enumerate(zip("abcd", images, strict=False))
    )
    return f"<annotations><version>1.1</version><meta></meta>{listed}</annotations>"


def result(kind: str, **value: Any) -> dict[str, Any]:
    """What Label Studio's annotator marked on an image of 200 x 100 px, in percent."""
    sized = {"original_width": 200, "original_height": 100, "from_name": "c", "to_name": "image"}
    return {"type": kind, **sized, "value": value}


MARKED = result("rectanglelabels", x=5, y=20, width=15.25, height=40, rectanglelabels=["Mass"])


def task(name: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {
        "data": {"image": f"/data/upload/3/0a1b2c3d-{name}.png", **data},
        "annotations": list(annotations),
        "predictions": [{"result": [MARKED]}],
    }


def by(who: Any, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"completed_by": who, "result": list(results), **more}


def folder_of(root: Path, **files: str) -> Path:
    for name in "abcd":
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((100, 200), np.uint8)).save(root / "images" / f"{name}.png")
    return write_files(root, {name.replace("__", "."): text for name, text in files.items()})


def from_cvat(root: Path, *images: str, **options: Any) -> SourceTables:
    return read_cvat(folder_of(root, annotations__xml=cvat(*images)), **options)


def from_tasks(root: Path, *tasks: dict[str, Any], **options: Any) -> SourceTables:
    return read_label_studio(folder_of(root, tasks__json=json.dumps(tasks)), **options)


def test_an_image_of_cvat_is_free_of_every_label_that_it_has_no_mark_of(tmp_path):
    marks = (BOX.format("", ""), '<tag label="Nodule"></tag>', "", '<tag label="unknown"></tag>')
    tables = from_cvat(tmp_path, *marks)
    assert edges(tables) == [[10.0, 20.0, 40.5, 60.0]]
    assert states_of(tables, "a") == {"mass": "present", "nodule": "absent"}
    assert states_of(tables, "b") == {"mass": "absent", "nodule": "present"}
    assert states_of(tables, "c") == {"mass": "absent", "nodule": "absent"}
    assert states_of(tables, "d") == {}
    assert tables.images[["width", "height"]].to_numpy().tolist() == [[200, 100]] * 4


def test_attributes_of_cvat_name_readers(tmp_path):
    said = '<attribute name="reader">{}</attribute><attribute name="edge">soft</attribute>'
    mass = BOX.format("", said.format("R1")), f'<tag label="normal">{said.format("R2")}</tag>'
    tables = from_cvat(tmp_path, "".join(mass), reference="any")
    assert states(tables, "R1") == {("a", "mass"): "present"}
    assert states(tables, "R2") == {("a", "mass"): "absent"}
    assert states(tables) == {("a", "mass"): "present"}


SHAPES = {
    "polygon": ('<polygon label="m" points="10.5,20;40,20;40,60.5"/>', [10.5, 20, 40, 60.5]),
    "line": ('<polyline label="m" points="10,20;40,60"/>', [10, 20, 40, 60]),
    "mask": (
        '<mask label="m" rle="3" left="10" top="20" width="30" height="40"/>',
        [10, 20, 40, 60],
    ),
    "ellipse": ('<ellipse label="m" cx="50" cy="40" rx="20" ry="10"/>', [30, 30, 70, 50]),
    "ellipse turned": (
        '<ellipse label="m" cx="50" cy="40" rx="20" ry="10" rotation="90.00"/>',
        [40, 20, 60, 60],
    ),
    "box turned": (
        '<box label="m" xtl="40" ytl="40" xbr="60" ybr="60" rotation="45"/>',
        [35.8579, 35.8579, 64.1421, 64.1421],
    ),
    "beyond": ('<polygon label="m" points="-5,20;240,20;40,60"/>', [0, 20, 200, 60]),
}


@pytest.mark.parametrize(("shape", "box"), SHAPES.values(), ids=SHAPES)
def test_other_shapes_of_cvat_get_the_box_around_them_with_a_note(tmp_path, shape, box):
    tables = from_cvat(tmp_path, shape)
    assert edges(tables) == [pytest.approx(box, abs=1e-3)]
    assert any("1 shape has no upright box" in note for note in tables.notes), tables.notes


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (BOX.format("", "").replace("10.00", "-9"), "box outside the image"),
        ('<polygon label="Mass" points="1,2;3"/>', "box with a missing or infinite number"),
        (BOX.format("", "") + '<tag label="normal"/>', "'no finding' beside a finding"),
    ],
)
def test_a_box_that_cannot_be_right_rules_out_its_image_alone(tmp_path, shape, reason):
    tables = from_cvat(tmp_path, shape, BOX.format("", ""))
    assert list(reasons(tables)) == ["images/a.png"]
    assert reasons(tables)["images/a.png"].startswith(reason)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cvat("<cuboid label='m'/>"), r"annotations\.xml: a\.png: shape 1: a <cuboid> has no box"),
        (cvat(), "no image can be used"),
        ("<annotation/>", "is <annotation>, not <annotations>; give --format voc"),
        ('<!DOCTYPE x [<!ENTITY y "z">]><annotations/>', "a document type or entities"),
        ("<annotations>", "not readable as XML"),
    ],
)
def test_a_wrong_file_of_cvat_is_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_cvat(folder_of(tmp_path, annotations__xml=content))


def test_two_files_of_cvat_on_one_image_are_two_readers_or_refused(tmp_path):
    mass = BOX.format("", "")
    files = {"smith/annotations.xml": cvat(mass), "jones/annotations.xml": cvat("", mass)}
    write_files(folder_of(tmp_path), files)
    with pytest.raises(InputError, match=r"such as 'images/a\.png'.*--columns reader=TABLE"):
        read_cvat(tmp_path)
    tables = read_cvat(tmp_path, columns=("reader=TABLE",))
    assert states(tables, "smith") == {("a", "mass"): "present"}
    assert states(tables, "jones") == {("a", "mass"): "absent", ("b", "mass"): "present"}
    assert states(tables)["a", "mass"] == "uncertain"


def test_annotations_of_label_studio_are_readers_and_predictions_say_nothing(tmp_path):
    tables = from_tasks(
        tmp_path,
        task("a", by(7, MARKED), by({"id": 8, "email": "x"}), patient_id="p1"),
        task("b", by(7), by(8, was_cancelled=True)),
        task("c"),
        task("d", by(7, result("choices", choices=["Nodule"])), by(8), by(9, ground_truth=True)),
        reference="any",
    )
    assert edges(tables) == [[10.0, 20.0, 40.5, 60.0]] * 2
    assert states(tables, "7") == {
        ("a", "mass"): "present",
        ("a", "nodule"): "absent",
        ("b", "mass"): "absent",
        ("b", "nodule"): "absent",
        ("d", "mass"): "absent",
        ("d", "nodule"): "present",
    }
    assert set(states(tables, "8").values()) == {"absent"}
    assert states_of(tables, "a") == {"mass": "present", "nodule": "absent"}
    assert states_of(tables, "c") == {}  # nobody looked: its prediction is no label
    assert states_of(tables, "d") == {"mass": "absent", "nodule": "absent"}  # the ground truth
    patients = tables.images.set_index("image_id")["patient_id"]
    assert patients["a"].endswith(":p1")


BOX_WITHOUT_CLASS = {"x": 60, "y": 20, "width": 10, "height": 40}


@pytest.mark.parametrize(
    "mark",
    [
        result("rectanglelabels", **BOX_WITHOUT_CLASS, rectanglelabels=[]),
        result("rectangle", **BOX_WITHOUT_CLASS),
        result("keypoint", x=5, y=20, width=1),
        result("textarea", text=["big mass left"]),
        result("choices", choices=[]),
    ],
    ids=["no class", "rectangle", "key point", "text", "nothing chosen"],
)
def test_an_image_with_a_mark_that_says_nothing_is_not_negative(tmp_path, mark):
    tables = from_tasks(
        tmp_path, task("a", by(7, MARKED)), task("b", by(7, mark)), task("c", by(7))
    )
    assert states_of(tables, "b") == {}
    assert states_of(tables, "c") == {"mass": "absent"}
    assert list(reasons(tables)) == (["images/b.png"] if "x" in mark["value"] else [])


def test_further_results_of_a_region_with_a_class_leave_nothing_unknown(tmp_path):
    marked = {**MARKED, "id": "r1"}
    parts = (
        {**result("rectangle", **BOX_WITHOUT_CLASS), "id": "r1"},
        {**result("choices", **BOX_WITHOUT_CLASS, choices=["sharp"]), "id": "r1"},
        {"type": "relation", "from_id": "r1", "to_id": "r1"},
        result("textarea", text=["typical"]),
    )
    nodule = result("choices", choices=["Nodule"])
    tables = from_tasks(tmp_path, task("a", by(7, marked, *parts)), task("b", by(7, nodule)))
    assert states_of(tables, "a") == {"mass": "present", "nodule": "absent"}
    assert not any("marks that say nothing" in note for note in tables.notes)


@pytest.mark.parametrize("points", [None, [1, 2, 3], [[1, 2], [3]], "ab"])
def test_points_that_are_no_pairs_rule_out_their_image_alone(tmp_path, points):
    polygon = result("polygonlabels", points=points, polygonlabels=["Mass"])
    tables = from_tasks(tmp_path, task("a", by(7, MARKED)), task("b", by(7, polygon)))
    assert reasons(tables) == {"images/b.png": "box with a missing or infinite number"}


def test_a_rotation_that_is_no_angle_rules_out_its_image(tmp_path):
    turned = {**MARKED, "value": {**MARKED["value"], "rotation": 1e300}}
    tables = from_tasks(tmp_path, task("a", by(7, MARKED)), task("b", by(7, turned)))
    assert list(reasons(tables)) == ["images/b.png"]
    box = BOX.format(' rotation="1e308"', "")
    (tmp_path / "cvat").mkdir()
    assert list(reasons(from_cvat(tmp_path / "cvat", BOX.format("", ""), box))) == ["images/b.png"]


def test_a_shape_on_a_turned_view_is_read_on_the_unturned_image(tmp_path):
    turned = {**MARKED, "image_rotation": 90}
    upright = from_tasks(tmp_path, task("a", by(7, MARKED)))
    tables = from_tasks(tmp_path, task("a", by(7, turned)))
    pd.testing.assert_frame_equal(tables.boxes, upright.boxes)


def test_a_second_annotation_of_one_annotator_is_kept_apart(tmp_path):
    tables = from_tasks(tmp_path, task("a", by(7, MARKED), by(7)), reference="all")
    assert states(tables, "7'") == {("a", "mass"): "absent"}


@pytest.mark.parametrize(
    ("marked", "box"),
    [
        (
            result(
                "rectanglelabels",
                x=50,
                y=50,
                width=10,
                height=20,
                rotation=90,
                rectanglelabels=["m"],
            ),
            [80, 50, 100, 70],
        ),
        (
            result("ellipselabels", x=50, y=50, radiusX=10, radiusY=10, ellipselabels=["m"]),
            [80, 40, 120, 60],
        ),
        (
            result("polygonlabels", points=[[5, 10], [20, 10], [20, 60]], polygonlabels=["m"]),
            [10, 10, 40, 60],
        ),
        (result("labels", x=5, y=20, width=15, height=40, labels=["m"]), [10, 20, 40, 60]),
    ],
)
def test_shapes_of_label_studio_are_px_turned_about_their_corner(tmp_path, marked, box):
    tables = from_tasks(tmp_path, task("a", by(7, marked)), reference="reader:7")
    assert edges(tables)[0] == pytest.approx(box, abs=1e-3)


def test_a_choice_between_yes_and_no_is_a_column(tmp_path):
    def asked(word: str) -> dict[str, Any]:
        return by(7, {**result("choices", choices=[word]), "from_name": "pneumonia"}, MARKED)

    tables = from_tasks(tmp_path, task("a", asked("Yes")), task("b", asked("no")))
    assert states(tables)["a", "pneumonia"] == "present"
    assert states(tables)["b", "pneumonia"] == "absent"
    assert states(tables)["b", "mass"] == "present"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, r"tasks\.json: task 1: is no object with data; export from Label Studio"),
        ([{"image": "a.png"}], "task 1: is no object with data"),
        (
            [task("a"), {"data": {"image": "b.png"}, "annotations": 3}],
            "task 2: annotations and their results must",
        ),
        ([task("a", by(7, result("brushlabels", brushlabels=["m"], rle=[1])))], "brushlabels has"),
        ([task("a", by(7, result("choices", choices="m")))], "choices is no list of names"),
        ([], "label-studio"),
    ],
)
def test_a_wrong_file_of_label_studio_is_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_label_studio(folder_of(tmp_path, tasks__json=json.dumps(content)))


def flat(name: str, annotation: Any, *marks: dict[str, Any], **data: Any) -> dict[str, Any]:
    """A task of JSON-MIN, whose marks stand beside its data."""
    task = {"id": 1, "image": f"/data/upload/1/0a1b2c3d-{name}.png", "annotation_id": annotation}
    sized = [{**mark, "original_width": 200, "original_height": 100} for mark in marks]
    return {**task, "annotator": 7, "lead_time": 1.0, **({"label": sized} if marks else {}), **data}


FLAT = [
    flat("a", 1, {**MARKED["value"], "rotation": 0}, patient="p1"),
    flat("b", 2, patient="p1"),
    flat("c", None, patient="p2"),
]


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_flat_exports_of_label_studio_are_read_like_the_full_one(tmp_path, suffix):
    path = folder_of(tmp_path) / f"project.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(FLAT))
    else:
        cells = pd.DataFrame(FLAT).astype(object)
        cells["label"] = cells["label"].map(lambda v: json.dumps(v) if isinstance(v, list) else "")
        cells.to_csv(path, index=False)
    tables = read_label_studio(tmp_path / "images", labels=(path,))
    assert edges(tables)[0] == [10.0, 20.0, 40.5, 60.0]
    assert states(tables) == {("a", "mass"): "present", ("b", "mass"): "absent"}
    patients = tables.images.set_index("image_id")["patient_id"]
    assert patients["a"] == patients["b"] != patients["c"]


def test_an_uploaded_file_keeps_the_digits_before_its_name(tmp_path):
    write_files(tmp_path, {"tasks.json": json.dumps([task("a", by(7, MARKED)), task("b", by(7))])})
    write_files(tmp_path, dict.fromkeys(("i/0a1b2c3d-a.png", "i/0a1b2c3d-b.png"), ""))
    assert states(read_label_studio(tmp_path))["0a1b2c3d-a", "mass"] == "present"


@pytest.mark.parametrize("signs", [(-1, 1), (1, -1), (-1, -1)])
def test_a_rectangle_from_any_corner_is_sorted_and_counted(tmp_path, signs):
    value = dict(MARKED["value"])
    for (start, side), sign in zip((("x", "width"), ("y", "height")), signs, strict=True):
        if sign < 0:
            value[start], value[side] = value[start] + value[side], -value[side]
    marked = {**MARKED, "value": value}
    tables = from_tasks(tmp_path, *(task(name, by(7, marked)) for name in "abcd"))
    assert edges(tables) == [[10.0, 20.0, 40.5, 60.0]] * 8
    assert any(note.startswith("4 boxes were drawn from another corner") for note in tables.notes)


@pytest.mark.parametrize("name", ["annotations.xml", "tasks.json"])
def test_a_file_before_the_folder_of_images_says_its_format(tmp_path, name):
    text = cvat(*[BOX.format("", ""), ""] * 2)
    tasks = [task(image, by(7, *([MARKED] * (image in "ac")))) for image in "abcd"]
    folder_of(tmp_path)
    (tmp_path / name).write_text(text if name.endswith("xml") else json.dumps(tasks))
    dataset = prepare(tmp_path / name, tmp_path / "images", tmp_path / "set", workers=1)
    assert dataset.boxes[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[10, 20, 40.5, 60]] * 2
    (tmp_path / name).write_text("{")
    with pytest.raises(InputError, match=f"{name}: "):
        prepare(tmp_path / name, tmp_path / "images", tmp_path / "no")
    assert not (tmp_path / "no").exists()
