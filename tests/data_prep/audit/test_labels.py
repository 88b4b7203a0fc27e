"""Faults of boxes, prevalence by group, shortcuts."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.audit.labels import check_boxes, check_shortcuts, count_prevalence

from cxr_compare.evaluation.inputs.file_facts import measure_shortcuts


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


@pytest.fixture
def images() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "patient_id": list("ppqrst"),
            "view": ["AP", "AP", "PA", None, "LL", "PA"],
            "sex": ["F", "F", "M", "M", None, None],
            "age_years": [3.0, 17.9, 18.0, 155.0, np.nan, -1.0],
            "source": "s",
            "width": pd.array([10, 10, 20, 30, None, 10], dtype="Int64"),
            "height": pd.array([10, 10, 20, 30, None, 10], dtype="Int64"),
            "spacing_col_mm": [40.0, None, None, None, None, 30.0],
        }
    )


LABELS = pd.DataFrame({"mass": [1, 0, 1, np.nan, 0, 0]}, index=list("abcdef"))


def rows_of(rows: pd.DataFrame, by: str) -> dict[str, tuple]:
    return {
        row["value"]: (row["n_images"], row["n_patients"], row["n_known"], row["n_positive"])
        for row in rows.to_dict("records")
        if row["by"] == by
    }


def test_every_image_is_counted_once_in_each_group(images):
    split = pd.DataFrame({"image_id": list("abcdef"), "role": ["train"] * 4 + ["test"] * 2})
    rows = count_prevalence(images, LABELS, {"default": split})
    assert rows_of(rows, "all") == {"all images": (6, 5, 5, 2)}
    assert rows_of(rows, "view") == {
        "AP": (2, 1, 2, 1),
        "LL": (1, 1, 1, 0),
        "PA": (2, 2, 2, 1),
        "missing": (1, 1, 0, 0),
    }
    assert list(rows_of(rows, "role in split default")) == ["train", "test"]
    for by in set(rows["by"]):
        assert sum(counts[0] for counts in rows_of(rows, by).values()) == 6


def test_ages_fall_into_their_bands_in_order(images):
    rows = rows_of(count_prevalence(images, LABELS, {}), "age")
    assert list(rows) == ["0 to 4", "5 to 17", "18 to 39", "impossible", "missing"]
    assert rows["impossible"][0] == 2


def test_a_share_of_nothing_is_missing_and_not_zero(images):
    (row,) = [
        r
        for r in count_prevalence(images, LABELS, {}).to_dict("records")
        if r["value"] == "missing" and r["by"] == "view"
    ]
    assert np.isnan(row["prevalence"])
    assert np.isnan(row["ci_low"])


def test_more_than_twenty_values_leave_an_other(images):
    many = pd.concat([images] * 10, ignore_index=True)
    many = many.assign(image_id=[str(n) for n in range(60)], source=[f"s{n}" for n in range(60)])
    labels = pd.DataFrame({"mass": 1.0}, index=many["image_id"])
    rows = rows_of(count_prevalence(many, labels, {}), "source")
    assert (len(rows), rows["other"][0]) == (21, 40)


def image_table(n, **columns):
    ids = [str(number) for number in range(n)]
    return pd.DataFrame({"image_id": ids, "patient_id": ids, **columns})


def test_shortcuts_of_the_file_are_warnings_and_of_the_person_notes():
    n = 400
    positive = np.arange(n) % 2 == 0
    images = image_table(n, view=np.where(positive | (np.arange(n) % 5 == 0), "AP", "PA"))
    decode = images[["image_id"]].assign(bits=np.where(positive, 8, 12), mean_grey=100.0)
    labels = pd.DataFrame({"mass": positive.astype(float)}, index=images["image_id"])
    problems = check_shortcuts(measure_shortcuts(images, decode, labels))
    assert [(p.check, p.severity) for p in problems] == [
        ("shortcut_person", "info"),
        ("shortcut_file", "warning"),
        ("shortcut_together", "info"),
    ]
    for text in ("bits", "'mass'", "1.000"):
        assert text in problems[1].message


N = 400


def test_strong_border_is_reported_with_advice():
    row = {
        "target": "mass",
        "fact": "outer tenth of the image",
        "kind": "border",
        "auroc": 0.83,
        "ci_low": 0.8,
        "ci_high": 0.85,
        "n_images": N,
        "n_positive": 200,
        "n_known": N,
    }
    problem = check_shortcuts([row])[0]
    assert (problem.check, problem.severity) == ("shortcut_border", "info")
    assert "outer tenth of the image" in problem.message
    assert "'mass'" in problem.message
    assert problem.advice
