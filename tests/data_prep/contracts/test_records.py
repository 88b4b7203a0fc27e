"""JSON files are held to the model of their kind; an error names key, rule and value."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cxr_compare.data_prep.contracts.records import RECORDS, record_error

DECISION: dict[str, Any] = {
    "target": "opacity",
    "chosen_on": {"content_id": "c"},
    "tried": [],
    "reduction": None,
    "calibration": {"method": "platt", "slope": 1.0, "intercept": 0},
    "map_scale": [0.0, 2.5],
    "policies": {
        "max_f1": {"threshold": 0.5, "reason": None, "validation": {"f1": 0.8, "ppv": None}}
    },
    "validation": {"auroc": 0.9},
}
NEAR: dict[str, Any] = {
    "key": "k", "pixels": None, "candidates": 2, "undecided": 0, "complete": True,
    "pairs": [["a", "b", 3, "none", None]],
}  # fmt: skip
PROBLEM: dict[str, Any] = {
    "check": "leak", "severity": "error", "message": "m", "count": 1, "examples": [], "advice": "a",
}  # fmt: skip


def test_what_the_program_writes_is_as_its_model_says():
    assert record_error("decision", DECISION) is None
    assert record_error("near_duplicates", NEAR) is None
    assert record_error("audit", {"problems": [PROBLEM], "checked": {}}) is None
    assert record_error("decision", {**DECISION, "a key of a later version": [1]}) is None


def test_a_kind_without_a_model_may_hold_any_keys():
    assert record_error("folds", {"anything": [1, {}]}) is None


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("policies", "max_f1", "threshold"), "0.5", ("policies.max_f1.threshold", "'0.5'")),
        (("policies", "max_f1", "threshold"), True, ("policies.max_f1.threshold", "True")),
        (("policies",), [], ("policies", "[]")),
        (("map_scale",), [1.0], ("map_scale", "number of values")),
        (("map_scale", 1), None, ("map_scale[1]", "None")),
        (("target",), 3, ("target", "'3'")),
        (("calibration", "slope"), "steep", ("calibration.slope", "'steep'")),
        (("calibration", "method"), "isotonic", ("calibration", "lacks 'scores'")),
        (("box_cut",), float("inf"), ("number",)),
        (("validation", "auroc"), 10**400, ("number",)),
    ],
)
def test_a_broken_value_is_named_with_its_position(place, value, named):
    content = copy.deepcopy(DECISION)
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    error = record_error("decision", content)
    assert error is not None
    assert "\n" not in error
    for words in named:
        assert words in error


def test_a_whole_number_is_no_number_with_a_point_and_no_truth_value():
    for value in (2.5, True, "2", None):
        error = record_error("near_duplicates", {**NEAR, "candidates": value})
        assert error is not None
        assert "candidates" in error


def test_a_word_that_is_none_of_a_key_s_words_is_named_with_them():
    error = record_error("audit", {"problems": [{**PROBLEM, "severity": "bad"}], "checked": {}})
    assert error is not None
    assert all(
        word in error for word in ("problems[0].severity", "error", "warning", "info", "bad")
    )


def test_a_key_that_may_be_absent_may_not_be_null_unless_its_type_says_so():
    assert record_error("run", {}) is None
    assert record_error("run", {"findings": None}) is not None
    assert record_error("predictions", {"data_set": None}) is None


@pytest.mark.parametrize("kind", sorted(RECORDS))
def test_a_file_that_holds_no_object_is_refused(kind):
    for value in ([], "text", None, 3):
        assert record_error(kind, value) is not None
