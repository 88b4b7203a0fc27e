"""Folds of a split as validation and test sets."""

import pandas as pd
from cxr_compare.data_prep.splits.stored_splits import fold_as_test, fold_split

from tests.data_prep.splits.simulated_images import drawn_split, make_large


def test_each_learning_patient_validates_in_exactly_one_fold():
    images, strata = make_large(200)
    split = drawn_split(images, strata, folds=5, seed=3)
    roles = pd.concat([fold_split(split, fold)["role"] for fold in range(5)], axis=1)
    in_test = split["role"] == "test"
    assert ((roles == "val").sum(axis=1) == (~in_test)).all()
    assert (roles[in_test] == "test").all(axis=None)


def test_over_all_folds_each_image_is_tested_once_and_validated_once():
    images, strata = make_large(150)
    split = drawn_split(images, strata, val=0, test=0, folds=4, seed=3)
    roles = pd.concat([fold_as_test(split, fold, 4)["role"] for fold in range(4)], axis=1)
    for role, times in (("test", 1), ("val", 1), ("train", 2)):
        assert ((roles == role).sum(axis=1) == times).all()
