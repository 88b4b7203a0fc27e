"""Faults of boxes."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.box_checks import check_boxes


def one_box(x1: float, y1: float, x2: float, y2: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": ["a"], "finding": "mass", "reader": "reference"}
        | {"x1": [x1], "y1": [y1], "x2": [x2], "y2": [y2]}
    )


@pytest.mark.parametrize(
    ("boxes", "state", "expected"),
    [
        (one_box(10, 10, 50, 50), "present", []),
        (one_box(0, 0, 100, 50), "present", []),  # to the very edge
        (one_box(10, 10, 100.5, 50), "present", ["box_outside"]),
        (one_box(-1, 10, 50, 50), "present", ["box_outside"]),
        (one_box(10, 10, 10, 50), "present", ["box_empty"]),
        (one_box(10, np.nan, 50, 50), "present", ["box_not_finite"]),
        (one_box(10, 10, 10.9, 50), "present", ["box_tiny"]),
        (one_box(0, 0, 99, 99), "present", ["box_huge"]),
        (one_box(10, 10, 50, 50), "absent", ["box_on_negative"]),
        (pd.concat([one_box(1, 1, 50, 50)] * 2), "present", ["box_repeated"]),
        (one_box(1, 1, 50, 50).iloc[:0], "present", ["box_missing"]),
    ],
)
def test_every_fault_of_a_box_has_a_name(boxes, state, expected):
    images = pd.DataFrame({"image_id": ["a"], "width": [100], "height": [100]})
    findings = boxes.iloc[:0][["image_id", "finding", "reader"]].copy()
    findings.loc[0] = ["a", "mass", "reference"]
    coverage = findings.assign(coverage="all")
    problems = check_boxes(boxes, images, findings.assign(state=state), coverage)
    assert [problem.check for problem in problems] == expected


def test_a_positive_that_nobody_boxed_is_a_warning_where_others_are_boxed():
    boxes = one_box(10, 10, 50, 50)
    images = pd.DataFrame({"image_id": ["a", "b"], "width": 100, "height": 100})
    keys = pd.DataFrame({"image_id": ["a", "b"], "finding": "mass", "reader": "reference"})
    coverage = keys.iloc[:1].assign(coverage="all")
    states = keys.assign(state="present")
    (problem,) = check_boxes(boxes, images, states, coverage)
    assert (problem.check, problem.severity, problem.examples) == (
        "positive_without_box",
        "warning",
        ("b",),
    )
    of_a_reader = one_box(10, 10, 50, 50).assign(image_id="b", reader="anna")
    (problem,) = check_boxes(pd.concat([boxes, of_a_reader]), images, states, coverage)
    assert (problem.check, problem.examples) == ("box_disputed", ("b",))


@pytest.mark.parametrize(("shift", "expected"), [(1.0, ["box_repeated"]), (4.0, [])])
def test_boxes_that_overlap_almost_wholly_are_one_lesion(shift, expected):
    boxes = pd.concat([one_box(10, 10, 60, 60), one_box(10 + shift, 10, 60 + shift, 60)])
    others = boxes.assign(image_id="b", finding=["mass", "nodule"])  # two findings may coincide
    images = pd.DataFrame({"image_id": ["a", "b"], "width": 100, "height": 100})
    both = pd.concat([boxes, others])
    findings = both[["image_id", "finding", "reader"]].drop_duplicates().assign(state="present")
    problems = check_boxes(both, images, findings, findings.assign(coverage="all"))
    assert [p.check for p in problems] == expected
    assert all(p.examples == ("a",) for p in problems)
