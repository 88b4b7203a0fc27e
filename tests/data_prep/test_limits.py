"""Limits of size, depth and number of names of files that describe labels."""

import json

import numpy as np
import pytest
from cxr_compare.data_prep.contracts.limits import MAX_DEPTH, MAX_NAMES, MAX_YAML_BYTES
from PIL import Image

import cxr_compare

MANY = [f"class {number}" for number in range(MAX_NAMES + 1)]
DEEP = MAX_DEPTH + 1


def aliases(levels):
    """A few lines that stand for 9 ** levels names."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels + 1)]
    return "\n".join([*lines, f"names: *a{levels}"])


def coco(categories=("mass",), **shared):
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
            "categories": [{"id": n, "name": name} for n, name in enumerate(categories)],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 2, 9, 9]}],
            **shared,
        }
    )


def voc(*names, inside=""):
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    lesions = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
    return f"<annotation><filename>a.png</filename>{lesions}{inside}</annotation>"


def written(folder, **files):
    """Write two images and label files into a folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(folder / name)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data_yaml", aliases(4)),
        ("data_yaml", "names: [mass]\nx: " + "[" * DEEP + "]" * DEEP),
        ("data_yaml", "names: [[" + "x, " * 9_000 + "x]]"),
        ("data_yaml", "names: [mass]\n#" + "x" * MAX_YAML_BYTES),
        ("data_yaml", json.dumps({"names": MANY})),
        ("classes_txt", "\n".join(MANY)),
        ("labels_json", coco(MANY)),
        ("a_xml", voc("mass", inside="<x>" * DEEP + "</x>" * DEEP)),
    ],
)
def test_what_is_beyond_a_limit_is_one_short_line_that_names_the_file(tmp_path, name, text):
    is_yolo = name in ("data_yaml", "classes_txt")
    labels = {"a_txt": "0 0.5 0.5 0.2 0.2\n"} if is_yolo else {}
    source = written(tmp_path / "source", **labels, **{name: text})
    with pytest.raises(cxr_compare.InputError) as caught:
        cxr_compare.prepare(source, tmp_path / "out", format="yolo" if is_yolo else None)
    message = str(caught.value)
    assert f"{name.partition('_')[0]}." in message
    assert len(message) < 300 + len(str(tmp_path))
    assert "\n" not in message


def test_names_are_limited_where_each_stands_beside_its_box(tmp_path):
    source = written(tmp_path / "source", a_xml=voc(*MANY))
    with pytest.raises(cxr_compare.InputError, match=str(source)):
        cxr_compare.prepare(source, tmp_path / "out")


def test_annotations_are_not_limited_as_names_are(tmp_path):
    boxes = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 0, "bbox": [11, 12, 5 + n % 3, 9]}
        for n in range(MAX_NAMES + 1)
    ]
    source = written(tmp_path / "source", labels_json=coco(annotations=boxes))
    data = cxr_compare.prepare(source, tmp_path / "out")
    assert len(data.boxes) == 6  # of both images, each box once
