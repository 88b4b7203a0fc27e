"""Thresholds with a guarantee: against exhaustive search, other programs and counts by hand."""

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.systems.stored_predictions import (
    checked_decision,
    compare_predictions,
    tune_predictions,
)
from cxr_compare.hospital.guarantee.guarantees import read_guarantee


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sensitivity>=1.2@0.9", "the sensitivity must lie between 0 and 1, got '1.2'"),
        ("specificity>=0@0.9", "the specificity must lie between 0 and 1, got '0'"),
        ("sensitivity>=0.9@0", "the confidence after @ must lie between 0 and 1, got '0'"),
        ("sensitivity>=0.9@", "the confidence after @ must lie between 0 and 1, got ''"),
        ("sensitivity>=.9.1@0.9", "got '.9.1'"),
        ("ppv>=0.4,prevalence=1@0.9", "the prevalence must lie between 0 and 1"),
        ("false_positives_per_image<=9@0.9", "must lie between 0 and 5, got '9'"),
        ("ppv>=0.4@0.9", "use sensitivity>=F@C"),
        ("sensitivity>=0.9&@0.9", "use sensitivity>=F@C"),
        ("max_f1@0.9", "use sensitivity>=F@C"),
        ("sensitivity>=0.9&sensitivity>=0.8@0.9", "two different ones joined by &"),
    ],
)
def test_a_guarantee_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(InputError, match=f"guarantee '.*': .*{says}"):
        read_guarantee(text)


def test_other_policies_are_no_guarantees():
    assert read_guarantee("sensitivity>=0.90") is read_guarantee("cost:5/1@0.1") is None


def test_a_guarantee_is_stored_and_derived_again_with_a_fixed_threshold(predict, test_set):
    text = "sensitivity>=0.50@0.90"
    system, other = predict("A", seed=1, skill=3.0), predict("B", "boxes", seed=2)
    decision = tune_predictions(system, test_set, policies=("max_f1", text))
    threshold = decision.thresholds[text].threshold
    assert threshold is not None
    system.write_decision("opacity", decision.to_dict())
    assert Decision.from_dict(system.decision("opacity")) == decision
    assert checked_decision("A", system, test_set, ())[0] == decision
    counted = "false_positives_per_image<=1@0.9"
    by_patient = tune_predictions(system, test_set, policies=(text, counted), unit="patient")
    assert "by image" in by_patient.thresholds[counted].reason
    found = compare_predictions({"A": system, "B": other}, test_set, replicates=60)
    rows = found.metrics.query(
        "system == 'A' and metric == 'recall' and subgroup == 'all'"
    ).set_index("policy")
    assert "refitted" in rows.loc["max_f1", "ci_method"]
    assert "refitted" not in rows.loc[text, "ci_method"]
    assert rows.loc[text, "ci_low"] < rows.loc[text, "estimate"]


def test_images_that_the_system_learned_from_guarantee_nothing(predict, test_set, monkeypatch):
    system = predict("A", seed=1, skill=3.0)
    seen = test_set.seen_by(system, test_set.image_ids("val")[:0])
    monkeypatch.setattr(type(seen), "all_ids", ["i000"])
    reason = tune_predictions(system, test_set, policies=("sensitivity>=0.50@0.90",)).thresholds
    assert "learned from patients of 1 validation images" in str(reason)
