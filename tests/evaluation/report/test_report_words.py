"""What the report says of its figures: only of those that it has, and as they were made."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.compare.figures import Figures
from evaluation.compare.metrics_table import EXACT_METHOD
from evaluation.report.facts import IntervalFacts, meanings
from evaluation.report.templates import sentence

OBUCHOWSKI = "Obuchowski 1997, clustered by patient"


def test_a_measure_that_no_system_has_is_not_explained(comparison):
    assert "AP50" in dict(meanings(comparison))
    metrics = comparison.metrics.copy()
    metrics.loc[metrics["metric"] == "ap50", "estimate"] = np.nan
    assert "AP50" not in dict(meanings(replace(comparison, figures=Figures.from_table(metrics))))


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
    (told,) = [text for name, text in meanings(comparison) if name.startswith("Threshold for")]
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
    return replace(comparison, figures=Figures.from_table(metrics))


def test_an_interval_is_explained_as_it_was_made(comparison):
    bootstrap = "patient-cluster bootstrap percentile, 2000 resamples"
    made = with_ways(comparison, f"{OBUCHOWSKI} (on the logit)", OBUCHOWSKI, bootstrap)
    told = dict(meanings(made))
    assert "Obuchowski (1997)" in told["95 % interval"]
    assert "logit" in told["95 % interval"]
    assert "resampled with replacement" in told["95 % interval"]
    assert "Obuchowski's variance of the difference" in told["Paired difference"]
    assert "same resampled patients" in told["Paired difference"]


def test_uncertainty_names_what_was_used_and_nothing_else(comparison):
    made = with_ways(comparison, OBUCHOWSKI, others=EXACT_METHOD)
    told = sentence("uncertainty", IntervalFacts.of(made))
    assert "Obuchowski (1997)" in told
    assert "Clopper-Pearson" in told
    assert "bootstrap" not in told
    assert "McNemar" not in told  # no tests were made
    assert "Holm" not in told
