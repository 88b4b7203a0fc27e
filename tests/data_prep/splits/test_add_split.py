"""Splits of a data set: what is balanced, what stays together, and that none is overwritten."""

import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.splits.stored_splits import add_splits

from cxr_compare.data_prep.dataset import DataSet
from tests.data_prep.splits.small_data_set import make_set
from tests.stored_json import stored_json


def test_folds_that_test_cover_every_image_once(tmp_path):
    dataset = make_set(tmp_path)
    made = add_splits(dataset, "cv", SplitRule(folds=4), test_folds=True)
    assert list(made) == ["cv-0", "cv-1", "cv-2", "cv-3"]
    again = DataSet.open(dataset.folder)
    for role in ("test", "val"):
        ids = [i for name in made for i in again.image_ids(role, name)]
        assert sorted(ids) == sorted(again.images["image_id"])
    assert made["cv-2"]["roles"]["test"]["positive for mass"] == 10
    with pytest.raises(InputError, match=r"\b3 are needed"):
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
    with pytest.raises(InputError, match="'official'"):
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
    assert set(again.ids.split_ids) == {"default", "mine", *made}
    assert again.image_ids("test", "cv-0").tolist()[:2] == ["i000", "i001"]
    how = stored_json(dataset.folder / "splits" / "mine.json")["how"]
    assert how["file"] == "folds.csv"
    with pytest.raises(InputError, match=r"\b3 folds.*\b5\b"):
        add_splits(dataset, "five", SplitRule(), file=tmp_path / "folds.csv", each_fold=True)


def test_no_split_is_overwritten_and_no_name_leaves_the_folder(tmp_path):
    dataset = make_set(tmp_path)
    add_splits(dataset, "one", SplitRule(seed=1))
    with pytest.raises(InputError, match="'one'"):
        add_splits(dataset, "one", SplitRule(seed=2))
    with pytest.raises(InputError, match="use letters"):
        add_splits(dataset, "../one", SplitRule())
