"""A figure of the user's own has the value, interval and p of the program's that it equals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import cxr_compare
from cxr_compare import metrics
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.own_metric import register_metric
from cxr_compare.evaluation.metrics.registry import METRICS

RANDOM = np.random.default_rng(5)
LABELS = RANDOM.integers(0, 2, 90)
SCORES = {
    name: np.clip(LABELS * shift + RANDOM.random(90) * 0.7, 0, 1)
    for name, shift in (("A", 0.3), ("B", 0.1))
}
PATIENTS = np.arange(90) // 2


def ap_sklearn(labels, scores):
    """Average precision, by scikit-learn."""
    return average_precision_score(labels, scores)


def undefined(labels, scores):
    return None


def failing(labels, scores):
    raise ZeroDivisionError("no weight")


def auroc(labels, scores):
    return 0.5


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


@pytest.mark.parametrize("metric", [ap_sklearn, f"{__name__}:ap_sklearn"])
def test_a_single_figure_has_the_interval_of_the_programs(metric):
    own, theirs = (
        metrics.estimate(name, LABELS, SCORES["A"], patients=PATIENTS, replicates=200)
        for name in (metric, "average_precision")
    )
    assert own.metric == "ap_sklearn"
    assert own.estimate == pytest.approx(theirs.estimate)
    assert (own.ci_low, own.ci_high) == pytest.approx((theirs.ci_low, theirs.ci_high))


@pytest.mark.parametrize("metric", [ap_sklearn, f"{__name__}:ap_sklearn"])
def test_a_comparison_refuses_it(metric):
    with pytest.raises(InputError, match=r"metrics: .*ap_sklearn"):
        cxr_compare.compare(SCORES, truth=LABELS, metrics=["auroc", metric])


def test_a_comparison_that_does_not_name_it_does_without():
    register_metric(f"{__name__}:failing")
    result = cxr_compare.compare(SCORES, truth=LABELS, replicates=200)
    assert "failing" not in set(result.to_frame()["metric"])


def test_a_figure_that_is_undefined_says_so():
    found = metrics.estimate(undefined, LABELS, SCORES["A"], replicates=2)
    assert found.estimate is None
    assert found.note


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (failing, "metric failing: ZeroDivisionError: no weight"),
        (auroc, "already"),
        (lambda labels, scores: 0.5, "there is no metric"),
        ("nowhere:figure", "nowhere cannot be imported"),
        ("json:__name__", "no function"),
    ],
)
def test_a_figure_that_is_none_is_refused_in_one_line(metric, message):
    with pytest.raises(InputError, match=message):
        metrics.estimate(metric, LABELS, SCORES["A"])
