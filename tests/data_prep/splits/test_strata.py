"""Strata of a split."""

import pandas as pd

from cxr_compare.data_prep.splits.strata import image_classes, image_strata
from tests.data_prep.splits.small_data_set import make_set


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
