"""The labelme reader: what a shape's box is, and which images it says nothing about."""

import json

import pytest
from cxr_compare.data_prep.contracts.errors import InputError

from tests.data_prep.sources.answers import (
    edges,
    reader,
    reasons,
    roles,
    states,
    states_of,
    write_files,
)

read = reader("labelme")
RECTANGLE = [[10, 20], [40, 60]]


def shape(points, kind="rectangle", label="opacity"):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}


def labelme(*shapes, flags=(), image="a.png", **more):
    content = {"version": "5.4.1", "flags": dict(flags), "shapes": list(shapes)}
    content |= {"imagePath": image, "imageData": None, "imageHeight": 80, "imageWidth": 100}
    return json.dumps(content | more)


def folder_of(tmp_path, **files):
    """Write a.json, b.json ... beside images of their names."""
    contents = {f"{name}.json": text for name, text in files.items() if text is not None}
    return write_files(tmp_path, {**contents, **{f"{name}.png": "" for name in files}})


@pytest.mark.parametrize(
    ("points", "kind", "box"),
    [
        ([[40, 60], [10, 20]], "rectangle", [10, 20, 40, 60]),
        ([[10, 20], [40, 20], [40, 60], [10, 60]], "rectangle", [10, 20, 40, 60]),
        ([[20, 10], [30, 40], [5, 25]], "polygon", [5, 10, 30, 40]),
        ([[50, 40], [53, 44]], "circle", [45, 35, 55, 45]),
        ([[96, 40], [99, 44]], "circle", [91, 35, 100, 45]),  # the image is 100 px wide
        ([[10, 20], [40, 60]], "mask", [10, 20, 40, 60]),
        ([[20, 10], [30, 20], [20, 30], [10, 20]], "rotation", [10, 10, 30, 30]),
    ],
)
def test_a_shape_gives_the_box_around_it(tmp_path, points, kind, box):
    folder = folder_of(tmp_path, a=labelme(shape(points, kind)), b=labelme(image="b.png"))
    tables = read(folder)
    assert edges(tables) == [box]
    assert states(tables) == {("a", "opacity"): "present", ("b", "opacity"): "absent"}


@pytest.mark.parametrize(
    "wrong",
    [
        shape([[1, 2], [3, 4]], "line"),
        shape([[1, 2], [1, 9]]),  # no width
        shape([[1, 2], ["x", 9]]),
        shape([1, 2, 3, 4]),
        shape(RECTANGLE, label=""),
        shape(RECTANGLE[:1]),
        "no object",
    ],
)
def test_a_shape_that_cannot_be_read_makes_its_image_unknown(tmp_path, wrong):
    good = labelme(shape(RECTANGLE), image="b.png")
    folder = folder_of(tmp_path, a=labelme(shape(RECTANGLE), wrong), b=good)
    tables = read(folder)
    assert list(reasons(tables)) == ["a.png"]
    assert states(tables) == {("b", "opacity"): "present"}


def test_an_image_without_a_file_or_with_a_broken_one_is_unknown(tmp_path):
    cut = labelme(image="c.png")[:-30]
    folder = folder_of(tmp_path, a=labelme(shape(RECTANGLE)), b=None, c=cut)
    tables = read(folder)
    assert states(tables) == {("a", "opacity"): "present"}
    assert tables.split.to_dict("records") == [{"image_id": "b", "role": "unused"}]
    assert list(reasons(tables)) == ["c.png"]


def test_image_path_of_another_machine_and_folder_finds_the_image(tmp_path):
    files = {
        "train/labels/x1.json": labelme(shape(RECTANGLE), image="..\\images\\a.png"),
        "train/images/a.png": "",
        "test/labels/b.json": labelme(image="C:\\data\\b.png"),
        "test/images/b.png": "",
    }
    tables = read(write_files(tmp_path, files))
    assert states(tables) == {("a", "opacity"): "present", ("b", "opacity"): "absent"}
    assert roles(tables) == {"a": "train", "b": "test"}


def test_flags_are_labels_of_the_image_or_make_it_unknown(tmp_path):
    boxed = labelme(shape(RECTANGLE), flags={"normal": False, "opacity": False})
    folder = folder_of(
        tmp_path,
        a=boxed,
        b=labelme(image="b.png", flags={"normal": True}),
        c=labelme(image="c.png", flags={"opacity": True}),  # present, but nobody knows where
        d=labelme(image="d.png", flags={"bad film": True}),
        e=labelme(shape(RECTANGLE), image="e.png", flags={"normal": True}),
        f=labelme(image="f.png", flags={"pneumonia": True}),
    )
    tables = read(folder)
    assert states_of(tables, "a") == {"opacity": "present"}
    assert states_of(tables, "b") == {"opacity": "absent"}
    assert states_of(tables, "c") == {"opacity": "present"}
    assert "d" not in set(tables.findings["image_id"])
    assert list(reasons(tables)) == ["e.png"]
    assert states_of(tables, "f") == {"opacity": "absent", "pneumonia": "present"}
    assert any("bad film" in note for note in tables.notes)
    coverage = tables.box_coverage.set_index("image_id")["coverage"]
    assert coverage["c"] == "some"
    understood = read(folder, columns=("unused=bad film",))
    assert states_of(understood, "d") == {"opacity": "absent"}
    with pytest.raises(InputError, match="unused=blurred"):
        read(folder, columns=("unused=blurred",))


def test_a_table_beside_the_files_gives_labels_and_patients(tmp_path):
    """Images without a JSON are labelled by the table, and its patients count."""
    folder = folder_of(
        tmp_path / "xrays",
        a=labelme(shape(RECTANGLE, label="Opacity")),
        b=None,
        c=None,
        d=labelme(shape(RECTANGLE, label="Opacity"), image="d.png"),
    )
    table = tmp_path / "labels.csv"
    table.write_text("File name,Patient ID,Opacity\na.png,P1,yes\nb.png,P1,no\nc,P2,yes\nd,P2,no\n")
    tables = read(folder, labels=(table,))
    assert edges(tables) == [[10, 20, 40, 60]]
    assert states(tables) == {
        ("a", "opacity"): "present",
        ("b", "opacity"): "absent",
        ("c", "opacity"): "present",  # for a classifier; nobody has drawn the lesion
    }
    assert tables.images.set_index("image_id")["patient_id"].str[-2:].to_dict() == {
        "a": "P1",
        "b": "P1",
        "c": "P2",
    }
    assert set(tables.box_coverage["image_id"]) == {"a", "b"}
    assert set(reasons(tables)) == {"d.png"}  # the box says present, the table absent
