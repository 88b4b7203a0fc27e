"""`export` of labels: COCO and YOLO read back as they were, and no doubt becomes a negative."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torchvision
import yaml
from PIL import Image
from pycocotools.coco import COCO

import cxr_compare
from cxr_compare import InputError
from tests.adapters import sources, splits
from tests.adapters.sets import prepare_tables
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


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_what_is_certain_reads_back_and_nothing_else(data, tmp_path, kind):
    out = tmp_path / "out"
    summary = cxr_compare.export(data, out, format=kind, images="png")
    states, boxes, _ = read_back(out, kind)
    assert states == {"a": {"mass": 1, "nodule": 0}, "b": {"mass": 0, "nodule": 0}}
    assert boxes == [["a", "mass", *WHOLE], ["a", "mass", *BOX]]
    assert (summary.n_images, summary.n_boxes, summary.n_left_out) == (2, 2, 3)
    assert not [path for path in out.rglob("*") if path.stem in "cde"]


def test_pycocotools_loads_what_is_written(data, tmp_path, capsys):
    cxr_compare.export(data, tmp_path / "out", format="coco")
    loaded = COCO(tmp_path / "out" / "annotations" / "instances.json")
    assert sorted(image["file_name"] for image in loaded.imgs.values()) == ["p0.png", "p1.png"]
    (mass,) = loaded.getCatIds(catNms=["mass"])
    boxes = [loaded.anns[number]["bbox"] for number in loaded.getAnnIds(catIds=[mass])]
    assert sorted(boxes) == [[0.0, 0.0, 100.0, 80.0], [10.0, 20.0, 30.5, 40.0]]
    assert {annotation["area"] for annotation in loaded.anns.values()} == {8000.0, 1220.0}
    assert not (tmp_path / "out" / "images").exists()


def test_of_a_split_each_role_has_files_that_torchvision_loads(data, tmp_path, capsys):
    out = tmp_path / "out"
    cxr_compare.export(data, out, format="coco", split="default", images="png")
    found = {}
    for path in (out / "annotations").iterdir():
        coco = torchvision.datasets.CocoDetection(out / "images", path)
        found[path.name] = (len(coco), sum(len(annotations) for _, annotations in coco))
        assert {image.size for image, _ in coco} == {(100, 80)}
    assert found == {"instances_train.json": (1, 2), "instances_val.json": (1, 0)}


def test_yolo_gets_images_and_their_folders_by_role(data, tmp_path):
    out = tmp_path / "out"
    cxr_compare.export(data, out, format="yolo", split="default")
    described = yaml.safe_load((out / "data.yaml").read_text())
    assert described == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "mass", 1: "nodule"},
    }
    assert (out / "labels/val/b.txt").read_text() == ""
    (shown,) = (out / "images/train").iterdir()
    stored = cxr_compare.DataSet.open(data).read_original("a")
    np.testing.assert_array_equal(np.asarray(Image.open(shown)), stored)


def test_a_target_narrows_what_goes_out(data, tmp_path):
    cxr_compare.export(data, tmp_path / "out", format="yolo", target="mass")
    states, _, _ = read_back(tmp_path / "out", "yolo")
    assert states == {"a": {"mass": 1}, "b": {"mass": 0}, "d": {"mass": 0}}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"format": "pascal"}, "pascal"),
        ({"images": "some"}, "some"),
        ({"split": "no"}, "'no'"),
        ({"target": "no"}, "'no'"),
        ({"target": "nodule", "split": "official"}, "official"),
    ],
    ids=str,
)
def test_a_name_of_nothing_is_refused_and_leaves_nothing(data, tmp_path, options, named):
    with pytest.raises(InputError, match=named):
        cxr_compare.export(data, tmp_path / "out", **{"format": "coco", **options})
    assert list(tmp_path.iterdir()) == []


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


def test_ids_become_file_names_that_differ_in_any_case():
    ids = ["b/1", "b_1", "B_1", "..", "x" * 300, "ok", "-x", "é", "b_1_2"]
    stems = splits.file_names(ids)
    assert len({stem.lower() for stem in stems}) == len(ids)
    assert all(stem and "/" not in stem and stem[0] not in ".-" for stem in stems)
    assert max(map(len, stems)) < 200
    assert [stems[1], stems[5], stems[7], stems[8]] == ["b_1", "ok", "é", "b_1_2"]


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["coco", "yolo"])
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


def test_the_command_says_what_was_left_out(data, tmp_path, capsys):
    from tests.adapters.commands import cxr

    assert cxr("export", data, tmp_path / "out", "--format", "coco", "--target", "mass") == 0
    shown = capsys.readouterr().out
    assert "2 images were left out" in shown
    assert json.loads((tmp_path / "out/annotations/instances.json").read_text())["images"]
