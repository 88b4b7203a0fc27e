"""Boxes in every form and unit: read as the user answers, and else equal or refused."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from tests.adapters import sources

WHOLE = {"px": None, "share": 1, "percent": 100, "thousandth": 1000}
WRITTEN = list(itertools.product(["xyxy", "xywh", "cxcywh"], WHOLE))
# How formats read boxes, and whether their columns name the four numbers.
READ_AS = {
    "COCO": ("xywh", "px", False),
    "YOLO": ("cxcywh", "share", True),
    "VOC": ("xyxy", "px", False),
    "table of corners": ("xyxy", "px", True),
    "table of sides": ("xywh", "px", True),
    "table of centres": ("cxcywh", "px", True),
    "table of shares": ("xyxy", "share", True),
    "table of sides in shares": ("xywh", "share", True),
}


def drawn(seed, shortest, longest):
    """Corners of 40 lesions of 5 to 40 % of the sides, and the sizes of their images."""
    random = np.random.default_rng(seed)
    sizes = random.integers(shortest, longest, (40, 2)).astype(float)
    sides = random.uniform(0.05, 0.4, (40, 2)) * sizes
    start = random.uniform(0, 1, (40, 2)) * (sizes - sides)
    return np.hstack([start, start + sides]), sizes


def written(corners, sizes, form, unit):
    first, second = corners[:, :2], corners[:, 2:]
    numbers = {
        "xyxy": [first, second],
        "xywh": [first, second - first],
        "cxcywh": [(first + second) / 2, second - first],
    }[form]
    scale = WHOLE[unit]
    return np.hstack(numbers) * (1 if scale is None else scale / np.hstack([sizes, sizes]))


@pytest.mark.parametrize(("form", "unit"), WRITTEN)
def test_a_box_that_is_read_as_it_was_written_is_itself(form, unit):
    for seed in range(5):
        corners, sizes = drawn(seed, 150, 4000)
        read = sources.check_boxes(
            written(corners, sizes, form, unit), sizes, form, unit, False, True
        )
        np.testing.assert_allclose(read, corners, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reader", READ_AS)
@pytest.mark.parametrize(("form", "unit"), WRITTEN)
def test_a_box_in_a_form_that_nobody_stated_is_itself_or_refused(reader, form, unit):
    """Numbers to 1000 may be px of an image of 1,000 to 4,000 px, too: no reader can tell them."""
    sides = (4000, 8000) if unit == "thousandth" else (400, 2000)
    for seed in range(5):
        corners, sizes = drawn(seed, *sides)
        read = sources.check_boxes(written(corners, sizes, form, unit), sizes, *READ_AS[reader])
        if (form, unit) == READ_AS[reader][:2]:
            assert not isinstance(read, str), read
        if not isinstance(read, str):
            kept = ~np.isnan(read).any(axis=1)
            assert kept.mean() > 0.9
            np.testing.assert_allclose(read[kept], corners[kept], rtol=0, atol=1e-6)


def folder_of_images(folder, seed):
    """A folder of 24 images: their paths, a box in px of each, and their sizes."""
    random = np.random.default_rng(seed)
    sizes = random.integers(80, 240, (24, 2)).astype(float)
    sides = random.uniform(0.1, 0.4, (24, 2)) * sizes
    start = random.uniform(0, 1, (24, 2)) * (sizes - sides)
    paths = [f"i{n:02d}.png" for n in range(24)]
    for path, (width, height) in zip(paths, sizes.astype(int), strict=True):
        Image.new("L", (int(width), int(height))).save(folder / path)
    return paths, np.hstack([start, start + sides]), sizes


def write_coco(folder, paths, numbers, stated):
    sides = stated.astype(int).tolist()
    images = [
        {"id": n, "file_name": path, **dict(zip(("width", "height"), sides[n], strict=False))}
        for n, path in enumerate(paths)
    ]
    marks = [{"image_id": n, "category_id": 1, "bbox": box} for n, box in enumerate(numbers)]
    content = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "Mass"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return "coco", []


def write_table(folder, paths, numbers, stated):
    sizes = ",image_width,image_height" if stated.size else ""
    rows = [
        ",".join(map(str, [path, "mass", *box, *sides]))
        for path, box, sides in zip(paths, numbers, stated.astype(int).tolist(), strict=True)
    ]
    table = folder / "labels.csv"
    table.write_text("\n".join([f"file,label,x,y,width,height{sizes}", *rows]))
    return "table", [table]


def require_same(read, paths, corners):
    assert isinstance(read, dict), read
    assert list(read) == paths
    np.testing.assert_allclose(list(read.values()), corners, rtol=0, atol=1e-6)


@pytest.mark.parametrize("write", [write_coco, write_table])
@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("scale", [0.5, 1, 2, 3.7, 8])
def test_boxes_of_a_stated_size_are_those_of_the_file_or_refused(write, form, scale, tmp_path):
    paths, corners, sizes = folder_of_images(tmp_path, int(scale * 10))
    labelled = np.round(sizes * scale)
    numbers = written(corners * np.tile(labelled / sizes, 2), labelled, form, "px").tolist()
    name, tables = write(tmp_path, paths, numbers, labelled)
    read = sources.boxes_of(tmp_path, name, tables, [])
    if form == "xywh":
        require_same(read, paths, corners)
    else:
        assert isinstance(read, str)
        answered = sources.boxes_of(tmp_path, name, tables, [f"box_form={form}"])
        require_same(answered, paths, corners)


@pytest.mark.parametrize("write", [write_coco, write_table])
@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("scale", [1.5, 2, 3.7, 8])
def test_boxes_of_a_larger_image_that_nobody_states_are_refused(write, form, scale, tmp_path):
    paths, corners, sizes = folder_of_images(tmp_path, int(scale * 10))
    numbers = written(corners * scale, sizes, form, "px").tolist()
    name, tables = write(tmp_path, paths, numbers, np.zeros((len(paths), 0)))
    for answer in ([], [f"box_form={form}"]):
        assert isinstance(sources.boxes_of(tmp_path, name, tables, answer), str)


@pytest.mark.parametrize("write", [write_coco, write_table])
@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
def test_boxes_that_fit_the_file_alone_are_not_scaled_from_its_stated_size(write, form, tmp_path):
    paths, corners, sizes = folder_of_images(tmp_path, 5)
    numbers = written(corners, sizes, form, "px").tolist()
    name, tables = write(tmp_path, paths, numbers, np.round(sizes / 2))
    for answer in ([], [f"box_form={form}"]):
        assert isinstance(sources.boxes_of(tmp_path, name, tables, answer), str)
    name, tables = write(tmp_path, paths, numbers, np.zeros((len(paths), 0)))
    require_same(sources.boxes_of(tmp_path, name, tables, [f"box_form={form}"]), paths, corners)


def test_another_form_in_px_is_asked_about_before_per_cent():
    corners, _ = drawn(3, 90, 100)
    question = sources.check_boxes(corners, np.full((40, 2), 1000.0), "xywh", "px", False)
    assert isinstance(question, str)
    assert 0 < question.index("box_form=xyxy") < question.index("box_unit=percent")
