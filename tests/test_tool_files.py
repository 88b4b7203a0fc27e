"""Label files of tools: whatever stands in them, an image with a mark is never a negative."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cxr_compare
from tests.adapters import sources

RECTANGLE = {
    "type": "rectanglelabels",
    "original_width": 100,
    "original_height": 80,
    "value": {"x": 35, "y": 25, "width": 30, "height": 50, "rectanglelabels": ["mass"]},
}
SIZE = "<size><width>100</width><height>80</height></size>"
OBJECT = (
    "<object><name>mass</name><bndbox><xmin>35</xmin><ymin>20</ymin><xmax>65</xmax>"
    "<ymax>60</ymax></bndbox></object>"
)
COCO = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 80} for n in range(12)],
    "annotations": [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [35, 20, 30, 40]} for n in range(12)
    ],
    "categories": [{"id": 1, "name": "mass"}],
}
SHAPE = {"label": "mass", "points": [[35, 20], [65, 60]], "shape_type": "rectangle"}
# A label file of one image or of all; each draws one box on every image.
FILES = {
    "coco": {"a.json": json.dumps(COCO)},
    "yolo": {"data.yaml": "names: [mass]\n"} | {f"{n}.txt": "0 .5 .5 .3 .5" for n in range(12)},
    "voc": {f"{n}.xml": f"<annotation>{SIZE}{OBJECT}</annotation>" for n in range(12)},
    "labelme": {
        f"{n}.json": json.dumps({"imagePath": f"{n}.png", "shapes": [SHAPE]}) for n in range(12)
    },
    "cvat": {
        "a.xml": "<annotations>"
        + "".join(
            f'<image name="{n}.png" width="100" height="80">'
            '<box label="mass" xtl="35" ytl="20" xbr="65" ybr="60"/></image>'
            for n in range(12)
        )
        + "</annotations>"
    },
    "label-studio": {
        "a.json": json.dumps(
            [
                {
                    "data": {"image": f"{n}.png"},
                    "annotations": [
                        {"completed_by": 1, "ground_truth": True, "result": [RECTANGLE]}
                    ],
                }
                for n in range(12)
            ]
        )
    },
}
KEYS = ["bbox", "segmentation", "iscrowd", "attributes", "name", "supercategory", "width"]
CELLS = st.one_of(st.none(), st.floats(), st.text(max_size=4), st.integers(-9, 10**30))
JUNK = st.recursive(
    CELLS | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        Image.new("L", (100, 80)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def read(images, tmp_path_factory):
    """Read label files of a format beside the 12 images."""

    def read(kind, files):
        folder = tmp_path_factory.mktemp("set")
        for image in images.iterdir():
            (folder / image.name).hardlink_to(image)
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return sources.read(folder, kind, (), {})

    return read


def negatives(found):
    states = found[1]["states"].get("reference", {}) if found[0] == "read" else {}
    return {image for image, of_image in states.items() if of_image.get("mass") == 0}


@pytest.mark.parametrize("kind", FILES)
def test_the_same_box_is_read_from_the_files_of_every_tool(kind, read):
    found = read(kind, FILES[kind])
    assert found[0] == "read", found
    corners = [row[3:] for row in found[1]["boxes"] if row[2] == "reference"]
    np.testing.assert_allclose(corners, [[35, 20, 65, 60]] * 12, atol=0.001)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.one_of(st.none(), st.lists(CELLS, max_size=5), st.text(max_size=5)))
def test_no_bbox_of_coco_makes_its_image_a_negative(read, bbox):
    first, *others = COCO["annotations"]
    content = {**COCO, "annotations": [{**first, "bbox": bbox}, *others]}
    assert negatives(read("coco", {"a.json": json.dumps(content)})) == set()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.sampled_from(["images", "annotations", "categories"]), JUNK, st.integers(0, 2))
def test_any_entry_of_coco_is_read_or_refused_in_one_line(read, key, junk, way):
    good = COCO[key]
    changed = [junk, [*good, junk], [good[0] | dict.fromkeys(KEYS, junk), *good[1:]]][way]
    found = read("coco", {"a.json": json.dumps({**COCO, key: changed})})
    assert found[0] == "read" or "\n" not in found[1]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.text("0123456789.-e nai\t/", min_size=1, max_size=40).filter(str.strip))
def test_whatever_a_line_of_yolo_says_its_image_is_no_negative(read, line):
    found = read("yolo", {**FILES["yolo"], "0.txt": line})
    assert "0" not in negatives(found)
    for row in found[1]["boxes"] if found[0] == "read" else ():
        assert -3 <= row[3] < row[5] <= 103
        assert -3 <= row[4] < row[6] <= 83


@pytest.mark.parametrize("kind", ["voc", "labelme", "cvat", "label-studio"])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_gives_tables_or_one_line(read, kind, data):
    name, text = next(iter(FILES[kind].items()))
    content = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = data.draw(st.integers(0, len(content)))
    found = read(kind, {**FILES[kind], name: bytes(content[:whole])})
    assert found[0] == "read" or "\n" not in found[1]


def test_images_that_exif_turns_are_counted_for_the_user(tmp_path):
    for name, turned in (("a", 3), ("b", 1)):
        image = Image.linear_gradient("L").resize((100, 80))
        image.getexif()[0x0112] = turned
        image.save(tmp_path / f"{name}.png", exif=image.getexif())
        (tmp_path / f"{name}.txt").write_text("0 .5 .5 .3 .5\n")
    (tmp_path / "data.yaml").write_text("names: [mass]\n")
    made = cxr_compare.prepare(tmp_path, tmp_path / "set", size=64, workers=0)
    assert [note[:8] for note in made.info.notes if "--raw-boxes" in note] == ["1 image "]


def test_yolo_files_of_the_field_hold_the_boxes_of_the_table_beside_them(shared_data):
    folder = shared_data / "nih_mass_boxes"
    assert "yolo" in sources.fitting(folder)
    _, found = sources.read(folder, "yolo", (), {"class_names": ("Mass", "Nodule")})
    table = pd.read_csv(folder / "annotations.csv")
    table["label"] = table["label"].str.lower()
    table["image"] = table["image_file"].str[:-4]
    expected = table[["image", "label", "xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist()
    boxes = sorted(row[:2] + row[3:] for row in found["boxes"])
    assert len(boxes) == 117 == len(expected)
    for box, row in zip(boxes, sorted(expected), strict=True):
        assert box[:2] == row[:2]
        np.testing.assert_allclose(box[2:], row[2:], atol=0.002)
