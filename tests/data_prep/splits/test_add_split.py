"""Splits of a data set: what is balanced, what stays together, and that none is overwritten."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates
from cxr_compare.data_prep.formats.source import empty_roles
from cxr_compare.data_prep.splits.add_split import add_splits
from cxr_compare.data_prep.splits.draw_split import draw_split, image_links
from cxr_compare.data_prep.splits.role_counts import role_lines
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.splits.strata import image_classes, image_strata
from cxr_compare.data_prep.store.dataset import DataSet
from tests.scripts.small_sets import table_set


def make_set(folder: Path, n_patients: int = 60) -> DataSet:
    """Two images a patient of two findings and two views; every third patient is ill."""
    numbers = np.arange(2 * n_patients)
    states = {"mass": (numbers // 2 % 3 == 0).astype(int), "edema": (numbers % 10 == 0).astype(int)}
    ids = [f"i{n:03d}" for n in numbers]
    patients = [f"{n // 2:03d}" for n in numbers]
    view = ["PA", "AP"] * n_patients
    return DataSet.open(table_set(folder, ids, states, patient_id=patients, view=view))


def test_the_class_is_the_sources_own_and_else_the_rarest_finding():
    findings = pd.DataFrame(
        {
            "image_id": ["a", "a", "b", "c", "d", "d"],
            "finding": ["mass", "edema", "mass", "mass", "mass", "edema"],
            "reader": ["reference"] * 5 + ["another"],
            "state": ["present", "present", "present", "absent", "uncertain", "present"],
        }
    )
    images = pd.DataFrame({"image_id": list("abcd")})
    classes = image_classes(images, findings)
    assert classes.fillna("unknown").tolist() == ["edema", "mass", "absent", "unknown"]
    own = image_classes(images.assign(x_class=["x", None, "y", None]), findings)
    assert own.fillna("unknown").tolist() == ["x", "mass", "y", "unknown"]


def test_strata_that_tell_nothing_are_left_out(tmp_path):
    tables = make_set(tmp_path, 10)
    strata = image_strata(tables.images, tables.findings)
    assert list(strata.columns) == ["class", "view", "present: edema", "present: mass"]
    one = tables.findings[tables.findings["finding"] == "mass"]
    both = tables.images.assign(x_set=["a", "b"] * 10, view="PA")
    assert list(image_strata(both, one).columns) == ["class", "x_set"]


def test_the_split_says_how_it_was_drawn_and_needs_no_decoded_image(tmp_path):
    tables = make_set(tmp_path)
    rule = SplitRule(val=0.25, test=0.25, seed=4)
    split, how = draw_split(tables.images, tables.findings, empty_roles(), rule)
    assert how["rule"] == asdict(rule)
    assert how["balanced"] == ["class", "view", "present: edema", "present: mass"]
    assert split["role"].value_counts().to_dict() == {"train": 60, "val": 30, "test": 30}


def test_roles_of_the_source_are_followed_and_unused_images_stay_unused(tmp_path):
    tables = make_set(tmp_path)
    ids = tables.images["image_id"]
    unused = pd.DataFrame({"image_id": ids[:10], "role": "unused"})
    split, _ = draw_split(tables.images, tables.findings, unused, SplitRule())
    assert set(split["role"][:10]) == {"unused"}
    assert set(split["role"][10:]) == {"train", "val", "test"}
    given = pd.DataFrame({"image_id": ids, "role": ["train"] * 80 + ["test"] * 40})
    split, how = draw_split(tables.images, tables.findings, given, SplitRule())
    assert set(split["role"][80:]) == {"test"}
    assert set(split["role"][:80]) == {"train", "val"}
    assert how["n_images_unused"] == 0


def test_a_hash_that_gives_a_role_to_nobody_is_noted(tmp_path):
    tables = make_set(tmp_path, 2)
    rule = SplitRule(val=0.01, test=0.01, method="hash")
    _, how = draw_split(tables.images, tables.findings, empty_roles(), rule)
    (note,) = how["notes"]
    assert "test and val" in note


def test_equal_images_and_near_ones_are_linked():
    rng = np.random.default_rng(3)
    hashes = [rng.bytes(32) for _ in range(4)]
    near = bytes([hashes[0][0] ^ 3, *hashes[0][1:]])  # two bits of 256 differ
    decode = pd.DataFrame(
        {
            "image_id": list("abcde"),
            "pixel_sha256": ["1", "2", "2", "3", "4"],
            "perceptual_hash": [
                h.hex() for h in (hashes[0], hashes[1], hashes[1], near, hashes[3])
            ],
        }
    )
    links = image_links(decode, find_near_duplicates(decode))
    assert links is not None
    assert (links["a"] == links["d"], links["b"] == links["c"]) == (True, True)
    assert links.nunique() == 3
    old = decode.drop(columns="perceptual_hash")
    plain = image_links(old, find_near_duplicates(old))
    assert plain is not None
    assert plain.nunique() == 4


def test_folds_that_test_cover_every_image_once(tmp_path):
    dataset = make_set(tmp_path)
    made = add_splits(dataset, "cv", SplitRule(folds=4), test_folds=True)
    assert list(made) == ["cv-0", "cv-1", "cv-2", "cv-3"]
    again = DataSet.open(dataset.folder)
    for role in ("test", "val"):
        ids = [i for name in made for i in again.image_ids(role, name)]
        assert sorted(ids) == sorted(again.images["image_id"])
    assert made["cv-2"]["roles"]["test"]["positive for mass"] == 10
    with pytest.raises(InputError, match="needs 3 folds"):
        add_splits(dataset, "two", SplitRule(folds=2), test_folds=True)


def test_another_validation_set_beside_the_same_test_set(tmp_path):
    dataset = make_set(tmp_path)
    add_splits(dataset, "again", SplitRule(val=0.25, seed=7), keep_test_of="default")
    again = DataSet.open(dataset.folder)
    assert again.image_ids("test", "again").equals(again.image_ids("test"))
    assert not again.image_ids("val", "again").equals(again.image_ids("val"))
    assert len(again.image_ids("val", "again")) == 24  # a quarter of 48 patients, two images each
    made = add_splits(dataset, "cv", SplitRule(folds=3), keep_test_of="default", each_fold=True)
    tested = {tuple(DataSet.open(dataset.folder).image_ids("test", name)) for name in made}
    assert tested == {tuple(again.image_ids("test"))}
    with pytest.raises(InputError, match="has no split 'official'"):
        add_splits(dataset, "x", SplitRule(), keep_test_of="official")


def test_a_file_becomes_a_split_and_its_folds_several(tmp_path):
    dataset = make_set(tmp_path)
    patients = dataset.images["patient_id"].drop_duplicates()
    table = pd.DataFrame({"patient_id": patients, "role": "train", "fold": range(60)})
    table["fold"] %= 3
    table.to_csv(tmp_path / "folds.csv", index=False)
    add_splits(dataset, "mine", SplitRule(), file=tmp_path / "folds.csv")
    made = add_splits(
        dataset, "cv", SplitRule(folds=3), file=tmp_path / "folds.csv", test_folds=True
    )
    again = DataSet.open(dataset.folder)
    assert set(again.ids["split_ids"]) == {"default", "mine", *made}
    assert again.image_ids("test", "cv-0").tolist()[:2] == ["i000", "i001"]
    how = read_json(dataset.folder / "splits" / "mine.json", "split")["how"]
    assert how["file"] == "folds.csv"
    with pytest.raises(InputError, match="has 3 folds, asked for 5"):
        add_splits(dataset, "five", SplitRule(), file=tmp_path / "folds.csv", each_fold=True)


def test_no_split_is_overwritten_and_no_name_leaves_the_folder(tmp_path):
    dataset = make_set(tmp_path)
    add_splits(dataset, "one", SplitRule(seed=1))
    with pytest.raises(InputError, match="'one' is there"):
        add_splits(dataset, "one", SplitRule(seed=2))
    with pytest.raises(InputError, match="use letters"):
        add_splits(dataset, "../one", SplitRule())


def test_many_targets_get_lines_of_their_own():
    few = {"images": 8, "patients": 4, "positive for a": 1}
    many = {**few, "positive for b": 2, "positive for c": 0, "positive for d": 3}
    assert role_lines({"train": few}) == ["  train  8 images, 4 patients, 1 positive for a"]
    lines = role_lines({"train": many, "val": many, "unused": {**many, "images": 0}})
    assert lines[:2] == ["  train  8 images, 4 patients", "  val    8 images, 4 patients"]
    assert lines[-1] == "  positive for d: 3 train, 3 val"
