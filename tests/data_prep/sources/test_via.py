"""The reader of the VGG Image Annotator: JSON projects, JSON and CSV exports."""

import csv
import io
import json
import math

import pytest
from cxr_compare.data_prep.contracts.errors import InputError

from tests.data_prep.sources.answers import edges, reader, reasons, states, write_files

read = reader("via")
RECT = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 40}
OPACITY = {"label": "opacity"}


def entry(name, *regions, **of_file):
    shapes = [{"shape_attributes": shape, "region_attributes": names} for shape, names in regions]
    return {"filename": name, "size": 7, "regions": shapes, "file_attributes": of_file}


def as_project(*entries):
    return json.dumps({"_via_settings": {}, "_via_img_metadata": keyed(*entries)})


def keyed(*entries):
    return {f"{item['filename']}7": item for item in entries}


def as_table(*entries):
    columns = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow([*columns.split(",")[:-1], "region_attributes"])
    for item in entries:
        head = [item["filename"], 7, json.dumps(item["file_attributes"]), len(item["regions"])]
        for number, region in enumerate(item["regions"]):
            shape, names = region["shape_attributes"], region["region_attributes"]
            writer.writerow([*head, number, json.dumps(shape), json.dumps(names)])
        if not item["regions"]:
            writer.writerow([*head, 0, "{}", "{}"])
    return written.getvalue()


def folder_of(tmp_path, *entries, name="via.json", text=None):
    images = {item["filename"]: "" for item in entries}
    return write_files(tmp_path, {name: text or as_project(*entries), **images})


ENTRIES = (entry("a.png", (RECT, OPACITY)), entry("b.png"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("via.json", as_project(*ENTRIES)),
        ("export.json", json.dumps(keyed(*ENTRIES))),
        ("export.csv", as_table(*ENTRIES)),
        ("export.csv", "#" + as_table(*ENTRIES)),  # of the first version
    ],
)
def test_every_export_gives_the_same_data_set(tmp_path, name, text):
    tables = read(folder_of(tmp_path, *ENTRIES, name=name, text=text))
    assert edges(tables) == [[10, 20, 40, 60]]
    assert states(tables) == {("a", "opacity"): "present", ("b", "opacity"): "absent"}


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"name": "circle", "cx": 50, "cy": 40, "r": 5}, [45, 35, 55, 45]),
        ({"name": "ellipse", "cx": 50, "cy": 40, "rx": 9, "ry": 5}, [41, 35, 59, 45]),
        (
            {"name": "ellipse", "cx": 50, "cy": 40, "rx": 9, "ry": 5, "theta": math.pi / 2},
            [45, 31, 55, 49],
        ),
        (
            {"name": "polygon", "all_points_x": [5, 30, 20], "all_points_y": [25, 40, 10]},
            [5, 10, 30, 40],
        ),
    ],
)
def test_a_shape_gives_the_box_around_it(tmp_path, shape, box):
    folder = folder_of(tmp_path, entry("a.png", (shape, OPACITY)), entry("b.png"))
    assert edges(read(folder)) == [pytest.approx(box)]


@pytest.mark.parametrize(
    "region",
    [
        ({"name": "point", "cx": 5, "cy": 5}, OPACITY),
        ({"name": "polyline", "all_points_x": [1, 5], "all_points_y": [1, 5]}, OPACITY),
        (RECT, {"label": ""}),
        (RECT, {"label": "undefined"}),
        (RECT, {}),
        ({}, OPACITY),
    ],
)
def test_a_region_that_is_not_understood_leaves_its_image_out(tmp_path, region):
    folder = folder_of(tmp_path, ENTRIES[0], entry("c.png", region))
    tables = read(folder)
    assert states(tables) == {("a", "opacity"): "present"}
    assert list(reasons(tables)) == ["c.png"]


def test_a_label_of_the_file_counts_and_a_file_without_one_is_unknown(tmp_path):
    folder = folder_of(
        tmp_path,
        entry("a.png", (RECT, {"type": {"opacity": True, "mass": False}}), label="", sex="F"),
        entry("b.png", label="normal", sex="M"),
        entry("c.png", label=""),
        entry("d.png", label="opacity"),
    )
    tables = read(folder)
    assert states(tables) == {
        ("a", "opacity"): "present",
        ("b", "opacity"): "absent",
        ("d", "opacity"): "present",
    }
    assert tables.images.set_index("image_id")["sex"].dropna().to_dict() == {"a": "F", "b": "M"}


def test_two_attributes_of_regions_are_asked_about(tmp_path):
    folder = folder_of(tmp_path, entry("a.png", (RECT, {"kind": "opacity", "side": "left"})))
    with pytest.raises(InputError, match="kind, side"):
        read(folder)
