"""Strata of a split, and parts with equal shares of each."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.splits.balance import balanced_parts, image_classes, image_strata

from tests.data_prep.splits.small_data_set import make_set


@pytest.mark.parametrize("seed", range(5))
def test_each_part_of_a_small_set_has_its_share_of_a_rare_stratum(seed):
    """Nine positive images of 30, for 20 folds: fewer than there are folds."""
    ids = pd.Index([f"i{number:02d}" for number in range(30)], name="image_id")
    group = pd.Series([f"p{number % 20}" for number in range(30)], index=ids)
    positive = pd.Series(np.arange(30) % 10 < 3, index=ids)
    shares = np.array([0.7, 0.15, 0.15])
    free = np.full(len(ids), -1)
    part = balanced_parts(group, positive.to_frame("positive"), shares, seed, free)
    assert np.bincount(part[positive], minlength=3).min() >= 1


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


def test_of_two_equally_rare_findings_the_first_by_name_is_the_class():
    images = pd.DataFrame({"image_id": ["a", "b"]})
    findings = pd.DataFrame({"image_id": ["a", "a", "b"], "finding": ["mass", "edema", "mass"]})
    labels = findings.assign(reader="reference", state="present")
    assert image_classes(images, labels).tolist() == ["edema", "mass"]
    equal = labels.iloc[:2]
    assert image_classes(images, equal).fillna("unknown").tolist() == ["edema", "unknown"]


def test_strata_that_tell_nothing_are_left_out(tmp_path):
    tables = make_set(tmp_path, 10)
    strata = image_strata(tables.images, tables.findings)
    assert list(strata.columns) == ["class", "view", "present: edema", "present: mass"]
    one = tables.findings[tables.findings["finding"] == "mass"]
    both = tables.images.assign(x_set=["a", "b"] * 10, view="PA")
    assert list(image_strata(both, one).columns) == ["class", "x_set"]
