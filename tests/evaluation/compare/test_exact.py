"""Exact intervals at 0 and 1 against scipy; patients, not images, are trials."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from data_prep.contracts.errors import InputError
from evaluation.compare.metrics_table import EXACT_METHOD, clopper_pearson, figures_of
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.thresholds import ThresholdChoice
from evaluation.metrics.evaluation_set import EvaluationSet
from evaluation.metrics.registry import family
from evaluation.statistics.bootstrap import NO_WIDTH, Resamples, cluster_bootstrap


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 17), (16, 17)])
def test_intervals_are_those_of_scipy(hits, trials):
    ours = clopper_pearson(hits, trials)
    theirs = binomtest(hits, trials).proportion_ci(method="exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_no_trial_is_refused():
    with pytest.raises(InputError, match="0 hits of 0 trials"):
        clopper_pearson(0, 0)


def table(scores, copies=1):
    """Ten patients, five of them sick, each with so many images; the threshold is 0.5."""
    sick = np.repeat(np.arange(10) < 5, copies)
    ids = pd.Index([f"i{number:03d}" for number in range(len(sick))])
    judged = EvaluationSet(
        image_ids=ids,
        y_true=sick,
        patients=np.repeat(np.arange(10), copies),
        n_patients=10,
        boxes_trusted=np.zeros(len(sick), dtype=bool),
        truth=pd.DataFrame(columns=["image_id", "x1", "y1", "x2", "y2"]),
    )
    card = Scorecard(
        judged,
        pd.Series(np.repeat(scores, copies), index=ids),
        {"max_f1": ThresholdChoice("max_f1", 0.5)},
    )
    resamples = Resamples(10, 300, seed=1)
    drawn = cluster_bootstrap(
        lambda w: {("A", f): v for f, v in card(w).items() if f.metric not in family("counts")},
        resamples,
    )
    found = figures_of("sick", {"A": card}, drawn, resamples).table()
    return found[found["policy"] == "max_f1"].set_index("metric")


ONE_MISSED = [0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.1, 0.3, 0.2, 0.4]


@pytest.mark.parametrize("copies", [1, 7])
def test_a_proportion_of_one_gets_the_exact_interval_of_its_patients(copies):
    found = table(ONE_MISSED, copies)
    for metric, patients in (("specificity", 5), ("precision", 4)):
        row = found.loc[metric]
        assert row["estimate"] == 1.0
        assert row["ci_method"] == EXACT_METHOD
        exact = binomtest(patients, patients).proportion_ci(method="exact")
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(exact), abs=1e-12)
        assert row["note"] == ""


def test_a_proportion_of_zero_likewise_and_others_keep_the_bootstrap():
    found = table([0.1] * 5 + [0.9] + [0.2] * 4)
    row = found.loc["recall"]
    assert (row["estimate"], row["ci_low"]) == (0.0, 0.0)
    assert row["ci_high"] == pytest.approx(1 - 0.025 ** (1 / 5))
    assert "bootstrap" in found.loc["specificity", "ci_method"]


def test_what_is_no_proportion_still_says_that_its_width_is_unknown():
    found = table([0.9] * 5 + [0.1] * 5)
    row = found.loc["f1"]
    assert (row["estimate"], row["ci_method"], row["note"]) == (1.0, "", NO_WIDTH)
    assert found.loc["accuracy", "ci_low"] == pytest.approx(0.025 ** (1 / 10))
