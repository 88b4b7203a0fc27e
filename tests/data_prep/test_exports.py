"""Exports of label files: what is written is prepared again with equal tables."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare
from cxr_compare import InputError
from tests.adapters.sets import EDGES, data_page_only_if, prepare_tables

COUNT = 24
WITHOUT_TEST = ["train"] * 12 + ["val"] * 12
WITH_TEST = ["train"] * 10 + ["val"] * 7 + ["test"] * 7


def made_set(folder, boxed, bare=(), *, unknown=False, roles=WITH_TEST, healthy=""):
    """A data set of images, whose findings are `boxed`, or `bare` of boxes.

    In the `healthy` role nothing is found.
    """
    draw = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    ids = [f"i{number:02d}" for number in range(COUNT)]
    for name in ids:
        pixels = draw.integers(0, 255, (40, 50), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{name}.png")
    paths = [f"images/{name}.png" for name in ids]
    images = pd.DataFrame({"image_id": ids, "patient_id": ids, "path": paths, "split": roles})
    images.to_csv(folder / "images.csv", index=False)
    labels, boxes = [], []
    for finding in (*boxed, *bare):
        for number, name in enumerate(ids):
            state = "present" if draw.random() < 0.5 else "absent"
            state = "uncertain" if unknown and number % 7 == 3 else state
            state = "absent" if roles[number] == healthy else state
            labels.append((name, finding, state))
            for _ in range(draw.integers(1, 3) if state == "present" and finding in boxed else 0):
                first, sides = draw.uniform(0, 20, 2), draw.uniform(5, 19, 2)
                boxes.append((name, finding, *first, *(first + sides)))
    table = pd.DataFrame(labels, columns=["image_id", "finding", "state"])
    table.to_csv(folder / "labels.csv", index=False)
    pd.DataFrame(boxes, columns=["image_id", "finding", *EDGES]).to_csv(
        folder / "boxes.csv", index=False
    )
    return prepare_tables(folder, folder / "data")


@pytest.fixture(scope="module")
def set_of(tmp_path_factory):
    """`made_set` of what a test needs, which tests share and do not change."""
    made = {}

    def once(boxed, bare=(), **options):
        key = repr((boxed, list(bare), options))
        if key not in made:
            made[key] = made_set(tmp_path_factory.mktemp("set") / "set", boxed, bare, **options)
        return made[key]

    return once


def rows(table, names, columns):
    """Rows of a table for some images, in one order."""
    table = table.loc[table["image_id"].isin(names), ["image_id", *columns]]
    return table.sort_values(["image_id", *columns], ignore_index=True)


SETS = {
    "two findings": {"boxed": ["mass", "nodule"], "roles": WITHOUT_TEST},
    "unknown labels and a finding without boxes": {
        "boxed": ["mass", "nodule"],
        "bare": ["edema"],
        "unknown": True,
    },
    "nothing to validate": {"boxed": ["mass"], "healthy": "val"},
}


@pytest.mark.parametrize("kind", ["coco", "yolo"])
@pytest.mark.parametrize("split", [None, "default"])
@pytest.mark.parametrize("name", SETS)
def test_an_export_is_read_again_with_equal_tables(tmp_path, set_of, kind, split, name):
    data = set_of(**SETS[name])
    healthy = SETS[name].get("healthy")
    out = tmp_path / "out"
    if kind == "coco" and split is not None and healthy:  # a file without a box says nothing
        with pytest.raises(InputError, match=healthy):
            cxr_compare.export(data, out, format=kind, split=split)
        assert not out.exists()
        return
    summary = cxr_compare.export(data, out, format=kind, split=split, images="png")
    with data_page_only_if(False):
        again = cxr_compare.prepare(out, tmp_path / "again", format=kind, workers=0)
    names = {name.rsplit("/")[-1] for name in again.images["image_id"]}
    assert len(names) == len(again.images) == summary.n_images
    assert summary.n_images + summary.n_left_out == COUNT
    states = ["finding", "state"]
    pd.testing.assert_frame_equal(
        rows(again.findings, names, states), rows(data.findings, names, states)
    )
    boxes = ["finding", *EDGES]
    pd.testing.assert_frame_equal(rows(again.boxes, names, boxes), rows(data.boxes, names, boxes))
    if split is not None:
        of_roles = [rows(each, names, ["role"]) for each in (again.split("official"), data.split())]
        pd.testing.assert_frame_equal(*of_roles)


UNSAYABLE = {"boxed": ["mass", "possible_mass", "no_mass", "unknown"]}


@pytest.mark.parametrize("kind", ["coco", "yolo"])
@pytest.mark.parametrize("split", [None, "default"])
@pytest.mark.parametrize(
    ("findings", "target", "named"),
    [
        ({"boxed": [], "bare": ["edema", "mass"], "unknown": True}, None, "boxes"),
        (SETS["unknown labels and a finding without boxes"], "edema", "boxes"),
        (UNSAYABLE, None, "no_mass"),
        (UNSAYABLE, "possible_mass", "possible_mass"),
        (UNSAYABLE, "no_mass", "no_mass"),
        (UNSAYABLE, "unknown", "unknown"),
    ],
)
def test_what_a_file_of_boxes_cannot_say_is_refused_before_it_is_written(
    tmp_path, set_of, kind, split, findings, target, named
):
    data = set_of(**findings)
    with pytest.raises(InputError, match=named) as refused:
        cxr_compare.export(data, tmp_path / "out", format=kind, split=split, target=target)
    assert "\n" not in str(refused.value)
    assert [*tmp_path.iterdir()] == []


def test_an_export_that_was_stopped_leaves_no_image_to_the_next(tmp_path, set_of):
    data = set_of(**SETS["two findings"])
    left = tmp_path / ".out-0123abcd.tmp" / "images"
    left.mkdir(parents=True)
    (left / "of-another-set.png").write_bytes(b"")
    cxr_compare.export(data, tmp_path / "out", format="coco", images="none")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["annotations"]
