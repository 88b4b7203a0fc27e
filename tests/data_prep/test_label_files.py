"""Label files: what `export` writes reads back, and whatever tools write makes no negative."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

import cxr_compare
from cxr_compare import InputError
from tests.adapters import sources, splits
from tests.adapters.sets import data_page_only_if, prepare_tables
from tests.small_dicom import chest

BOX = [10.0, 20.0, 40.5, 60.0]
WHOLE = [0.0, 0.0, 100.0, 80.0]
# Image, finding: state and boxes; what is not here is unknown. Only a and b are known whole.
LABELS = {
    ("a", "mass"): ("present", [BOX, WHOLE]),
    ("a", "nodule"): ("absent", []),
    ("b", "mass"): ("absent", []),
    ("b", "nodule"): ("absent", []),
    ("c", "mass"): ("uncertain", []),
    ("c", "nodule"): ("absent", []),
    ("d", "mass"): ("absent", []),
    ("e", "mass"): ("present", []),
    ("e", "nodule"): ("absent", []),
}
ROLES = {"a": "train", "b": "val", "c": "test", "d": "test", "e": "test"}


def write_set(folder, labels, roles=None):
    """A data set of images of 100 x 80 px with these labels."""
    source = folder / "source"
    source.mkdir()
    ids = list(dict.fromkeys(image_id for image_id, _ in labels))
    for number in range(len(ids)):
        Image.fromarray(chest(number, 80, 100)).save(source / f"p{number}.png")
    images = pd.DataFrame({"image_id": ids, "patient_id": [f"t{n}" for n in range(len(ids))]})
    images = images.assign(path=[f"p{number}.png" for number in range(len(ids))])
    if roles:
        images["split"] = images["image_id"].map(roles)
    images.to_csv(source / "images.csv", index=False)
    rows = [(*key, state) for key, (state, _) in labels.items() if state]
    table = pd.DataFrame(rows, columns=["image_id", "finding", "state"])
    table.to_csv(source / "labels.csv", index=False)
    boxes = [(*key, *box) for key, (_, drawn) in labels.items() for box in drawn]
    if boxes:
        table = pd.DataFrame(boxes, columns=["image_id", "finding", "x1", "y1", "x2", "y2"])
        table.to_csv(source / "boxes.csv", index=False)
    return prepare_tables(source, folder / "set").folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("labels"), LABELS, ROLES)


def read_back(out, format):  # noqa: A002
    """States by image and finding, and boxes, of the files of an export."""
    outcome, table = sources.read(out, format, (), {})
    assert outcome == "read", table
    states = table["states"]["reference"]
    return states, [[box[0], box[1], *box[3:]] for box in table["boxes"]], table["roles"]


def prepared(folder, out):
    """States by image and finding, and boxes, of a data set that is made of a folder."""
    with data_page_only_if(False):
        data = cxr_compare.prepare(folder, out, workers=0)
    rows = data.findings[["image_id", "finding", "state"]].itertuples(index=False, name=None)
    boxes = data.boxes[["image_id", "finding", "x1", "y1", "x2", "y2"]].round(6)
    return {(image, name): state for image, name, state in rows}, sorted(boxes.to_numpy().tolist())


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_what_is_certain_reads_back_and_nothing_else(data, tmp_path, kind):
    out = tmp_path / "out"
    summary = cxr_compare.export(data, out, format=kind, images="png")
    states, boxes, _ = read_back(out, kind)
    assert states == {"a": {"mass": 1, "nodule": 0}, "b": {"mass": 0, "nodule": 0}}
    assert boxes == [["a", "mass", *WHOLE], ["a", "mass", *BOX]]
    assert (summary.n_images, summary.n_boxes, summary.n_left_out) == (2, 2, 3)
    assert not [path for path in out.rglob("*") if path.stem in "cde"]


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_what_is_written_is_prepared_again_with_equal_labels_and_boxes(data, tmp_path, kind):
    cxr_compare.export(data, tmp_path / "out", format=kind, images="png")
    states, boxes = prepared(tmp_path / "out", tmp_path / "again")
    assert states == {key: state for key, (state, _) in LABELS.items() if key[0] in "ab"}
    assert boxes == [["a", "mass", *WHOLE], ["a", "mass", *BOX]]


def test_pycocotools_loads_what_is_written(data, tmp_path, capsys):
    cxr_compare.export(data, tmp_path / "out", format="coco")
    loaded = COCO(tmp_path / "out" / "annotations" / "instances.json")
    assert sorted(image["file_name"] for image in loaded.imgs.values()) == ["p0.png", "p1.png"]
    (mass,) = loaded.getCatIds(catNms=["mass"])
    boxes = [loaded.anns[number]["bbox"] for number in loaded.getAnnIds(catIds=[mass])]
    assert sorted(boxes) == [[0.0, 0.0, 100.0, 80.0], [10.0, 20.0, 30.5, 40.0]]
    assert {annotation["area"] for annotation in loaded.anns.values()} == {8000.0, 1220.0}
    assert not (tmp_path / "out" / "images").exists()


@pytest.mark.parametrize(
    "labels",
    [
        {("a", "mass"): ("uncertain", [])},
        {("a", "mass"): ("present", []), ("b", "nodule"): ("present", [BOX])},
        {("a", "ma\x01ss"): ("absent", [])},
    ],
    ids=["doubt alone", "each image unknown for one finding", "control character"],
)
def test_what_no_file_can_hold_is_refused(tmp_path, labels):
    data = write_set(tmp_path, labels)
    with pytest.raises(InputError, match="set"):
        cxr_compare.export(data, tmp_path / "out", format="coco")
    assert not (tmp_path / "out").exists()


def test_the_folder_appears_whole_or_not_at_all(tmp_path):
    data = write_set(tmp_path, LABELS)
    out = tmp_path / "out"
    changed = tmp_path / "source" / "p1.png"
    stored = changed.read_bytes()
    Image.new("L", (90, 80)).save(changed)
    with pytest.raises(InputError, match=r"p1\.png"):  # another image than when it was prepared
        cxr_compare.export(data, out, format="yolo")
    assert not out.exists()
    changed.write_bytes(stored)
    out.mkdir()
    cxr_compare.export(data, out, format="yolo")  # an empty folder is as good as none
    with pytest.raises(InputError, match="out"):
        cxr_compare.export(data, out, format="yolo")


def drawn_labels(seed):
    """Labels of images with odd names: each finding in one of six states."""
    rng = np.random.default_rng(seed)
    states = [(None, 0), ("absent", 0), ("absent", 0), ("uncertain", 0), ("present", 0)]
    states += [("present", 1), ("present", 3)]
    labels = {}
    for key in product(["a", "b.c", "Ünï", "x y", "d/1", "e,f", '"q"', "<&>"], ("mass", "nodule")):
        state, count = states[rng.integers(len(states))]
        boxes = []
        for number in range(count):
            x, y = rng.uniform([25 * number, 0], [25 * number + 20, 60])
            boxes.append([x, y, x + rng.uniform(3, 20), y + rng.uniform(3, 20)])
        labels[key] = (state, boxes)
    return labels | {("a", "mass"): ("present", [BOX]), ("a", "nodule"): ("absent", [])}


@pytest.mark.parametrize(("kind", "seed"), [("coco", 0), ("yolo", 1), ("yolo", 2)])
def test_whatever_is_written_reads_back(tmp_path, kind, seed):
    folder, labels = tmp_path, drawn_labels(seed)
    data = write_set(folder, labels)
    cxr_compare.export(data, folder / "out", format=kind, images="png")
    states, boxes, _ = read_back(folder / "out", kind)
    ids = list(dict.fromkeys(name for name, _ in labels))
    certain = [
        name
        for name in ids
        if all(
            labels[name, finding][0] == "absent" or labels[name, finding][1]
            for finding in ("mass", "nodule")
        )
    ]
    stems = dict(zip(certain, splits.file_names(certain), strict=True))
    expected = {
        stems[name]: {
            finding: int(labels[name, finding][0] == "present") for finding in ("mass", "nodule")
        }
        for name in certain
    }
    assert states == expected
    drawn = [
        [stems[name], finding, *box]
        for (name, finding), (_, of_key) in labels.items()
        if name in certain
        for box in of_key
    ]
    assert [box[:2] for box in boxes] == [box[:2] for box in sorted(drawn)]
    edges = [np.array([box[2:] for box in rows]) for rows in (boxes, sorted(drawn))]
    np.testing.assert_allclose(*edges, atol=1e-3)


# Files of tools: each draws one box on every one of 12 images

SIZE = "<size><width>100</width><height>80</height></size>"
OBJECT = (
    "<object><name>mass</name><bndbox><xmin>35</xmin><ymin>20</ymin><xmax>65</xmax>"
    "<ymax>60</ymax></bndbox></object>"
)
COCO_FILE = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 80} for n in range(12)],
    "annotations": [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [35, 20, 30, 40]} for n in range(12)
    ],
    "categories": [{"id": 1, "name": "mass"}],
}
# A label file of one image or of all; each draws one box on every image.
FILES = {
    "coco": {"a.json": json.dumps(COCO_FILE)},
    "yolo": {"data.yaml": "names: [mass]\n"} | {f"{n}.txt": "0 .5 .5 .3 .5" for n in range(12)},
    "voc": {f"{n}.xml": f"<annotation>{SIZE}{OBJECT}</annotation>" for n in range(12)},
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


@pytest.mark.parametrize("kind", FILES)
def test_the_same_box_is_read_from_the_files_of_every_tool(kind, read):
    found = read(kind, FILES[kind])
    assert found[0] == "read", found
    corners = [row[3:] for row in found[1]["boxes"] if row[2] == "reference"]
    np.testing.assert_allclose(corners, [[35, 20, 65, 60]] * 12, atol=0.001)


def negatives(found):
    states = found[1]["states"].get("reference", {}) if found[0] == "read" else {}
    return {image for image, of_image in states.items() if of_image.get("mass") == 0}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.one_of(st.none(), st.lists(CELLS, max_size=5), st.text(max_size=5)))
def test_no_bbox_of_coco_makes_its_image_a_negative(read, bbox):
    first, *others = COCO_FILE["annotations"]
    content = {**COCO_FILE, "annotations": [{**first, "bbox": bbox}, *others]}
    assert negatives(read("coco", {"a.json": json.dumps(content)})) == set()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.sampled_from(["images", "annotations", "categories"]), JUNK, st.integers(0, 2))
def test_any_entry_of_coco_is_read_or_refused_in_one_line(read, key, junk, way):
    good = COCO_FILE[key]
    changed = [junk, [*good, junk], [good[0] | dict.fromkeys(KEYS, junk), *good[1:]]][way]
    found = read("coco", {"a.json": json.dumps({**COCO_FILE, key: changed})})
    assert found[0] == "read" or "\n" not in found[1]


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.text("0123456789.-e nai\t/", min_size=1, max_size=40).filter(str.strip))
def test_whatever_a_line_of_yolo_says_its_image_is_no_negative(read, line):
    found = read("yolo", {**FILES["yolo"], "0.txt": line})
    assert "0" not in negatives(found)
    for row in found[1]["boxes"] if found[0] == "read" else ():
        assert -3 <= row[3] < row[5] <= 103
        assert -3 <= row[4] < row[6] <= 83


@pytest.mark.parametrize("kind", ["voc", "coco"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_gives_tables_or_one_line(read, kind, data):
    name, text = next(iter(FILES[kind].items()))
    content = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = data.draw(st.integers(0, len(content)))
    found = read(kind, {**FILES[kind], name: bytes(content[:whole])})
    assert found[0] == "read" or "\n" not in found[1]
