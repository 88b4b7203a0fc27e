"""What the report says of a system beside its figures."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.compare.compare import compare_systems
from evaluation.compare.estimates import Estimates
from evaluation.compare.intervals import EXACT_METHOD
from evaluation.decisions.decision import TuningOptions
from evaluation.decisions.tuning import tune
from evaluation.report.methods import _decision_rows, _IntervalFacts, _meanings
from evaluation.report.page import sentence
from evaluation.report.result_tables import cost_rows


def as_table(rows):
    return {row[0]: list(row[1:]) for row in rows}


def test_an_ensemble_shows_its_cost_against_the_first_system(comparison):
    cost = {"parameters": 64_400_000, "flops": None, "latency_ms": 392.0, "made_of": "A + B"}
    comparison.systems["CheXNet"] = replace(comparison.systems["CheXNet"], cost=cost)
    table = as_table(cost_rows(comparison))
    assert table["Made of"] == ["one model", "A + B"]
    assert table["Parameters"] == ["32.2 million", "64.4 million (2.0 times)"]
    assert table["Time per image"] == ["196.0 ms", "392.0 ms (2.0 times)"]


def test_what_was_asked_of_validation_is_told_with_what_it_was_chosen_by(predict, test_set):
    detector, classifier = predict("A", "boxes", seed=1), predict("B", seed=2)
    for system, options in (
        (detector, TuningOptions(calibration="choose", reductions=("max", "top_k"), refer=0.1)),
        (classifier, TuningOptions(calibration="isotonic")),
    ):
        decision = tune(system, test_set, options=options)
        system.write_decision("opacity", decision.to_dict())
    systems = {"A": detector, "B": classifier}
    comparison = compare_systems(systems, test_set, replicates=100)
    table = as_table(_decision_rows(comparison))
    cut = comparison.provenance["systems"]["A"]["decision"]["box_cut"]
    assert table["Boxes"] == [f"called from score {cut:g} in the RSNA score", "no boxes"]
    assert table["Settings tried"][0] == "2 ways from boxes to an image score"
    assert "held-out log loss: as it is" in table["Probability"][0]
    assert "order is kept, scores on one level are tied" in table["Probability"][1]
    assert table["Referred to a reader"] == [
        "the most doubtful 10 % of validation at most, by nearness to the threshold; cuts chosen "
        "on validation",
        "none",
    ]


def test_a_further_policy_is_judged_beside_the_stored_ones(predict, test_set, judged_set):
    tuned, untuned = predict("A", seed=1), predict("B", seed=2)
    decision = tune(tuned, test_set, policies=("youden",))
    tuned.write_decision("opacity", decision.to_dict())
    comparison = compare_systems(
        {"A": tuned, "B": untuned}, test_set, replicates=100,
        extra_policies=("threshold=0.3", "cost:5/1"),
    )  # fmt: skip
    assert list(comparison.systems["A"].thresholds) == ["youden", "threshold=0.3", "cost:5/1"]
    assert comparison.systems["A"].thresholds["threshold=0.3"] == 0.3
    assert {"max_f1", "threshold=0.3", "cost:5/1"} <= set(comparison.systems["B"].thresholds)
    expected = (comparison.decisions["score"] >= 0.3).tolist()
    assert comparison.decisions["decision_threshold=0.3"].tolist() == expected


OBUCHOWSKI = "Obuchowski 1997, clustered by patient"


def test_a_measure_that_no_system_has_is_not_explained(comparison):
    assert "AP50" in dict(_meanings(comparison))
    metrics = comparison.metrics.copy()
    metrics.loc[metrics["metric"] == "ap50", "estimate"] = np.nan
    assert "AP50" not in dict(
        _meanings(replace(comparison, estimates=Estimates.from_table(metrics)))
    )


@pytest.mark.parametrize(
    ("policy", "parts"),
    [
        ("max_f1", ("highest F1", "several equally good ones the highest")),
        ("youden", ("Youden's J = sensitivity + specificity − 1", "equally good ones the highest")),
        ("cost:10/1", ("least expected cost", "costs 10 times", "that of validation",
                       "equally good ones the highest")),
        ("cost:10/4@0.05", ("costs 2.5 times", "a prevalence of 0.05")),
        ("threshold=0.3", ("Declared by the user", "no image chose it")),
        ("sensitivity>=0.95", ("The highest threshold that reaches a sensitivity of 0.95",)),
        ("specificity>=0.90", ("The lowest threshold that reaches a specificity of 0.9",)),
    ],
)  # fmt: skip
def test_each_policy_says_its_rule_and_what_decides_between_equals(comparison, policy, parts):
    for each in comparison.systems.values():
        each.confusion.clear()
    comparison.systems["CheXNet"].confusion[policy] = {"tp": 4, "fp": 1, "tn": 5, "fn": 2}
    (told,) = [text for name, text in _meanings(comparison) if name.startswith("Threshold for")]
    for part in parts:
        assert part in told


def with_ways(comparison, auroc, paired=None, others=None):
    metrics = comparison.metrics.copy()
    single = metrics["system"].isin(comparison.names)
    of = metrics["metric"] == "auroc"
    metrics.loc[of & single, "ci_method"] = auroc
    metrics.loc[of & ~single, "ci_method"] = paired or auroc
    if others is not None:
        metrics.loc[~of, "ci_method"] = others
    return replace(comparison, estimates=Estimates.from_table(metrics))


def test_an_interval_is_explained_as_it_was_made(comparison):
    bootstrap = "patient-cluster bootstrap percentile, 2000 resamples"
    made = with_ways(comparison, f"{OBUCHOWSKI} (on the logit)", OBUCHOWSKI, bootstrap)
    told = dict(_meanings(made))
    assert "Obuchowski (1997)" in told["95 % interval"]
    assert "logit" in told["95 % interval"]
    assert "resampled with replacement" in told["95 % interval"]
    assert "Obuchowski's variance of the difference" in told["Paired difference"]
    assert "same resampled patients" in told["Paired difference"]


def test_uncertainty_names_what_was_used_and_nothing_else(comparison):
    made = with_ways(comparison, OBUCHOWSKI, others=EXACT_METHOD)
    told = sentence("uncertainty", _IntervalFacts.of(made))
    assert "Obuchowski (1997)" in told
    assert "Clopper-Pearson" in told
    assert "bootstrap" not in told
    assert "McNemar" not in told  # no tests were made
    assert "Holm" not in told
