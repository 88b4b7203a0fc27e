"""Series are matched by their index in every public function, never by accident of their order."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError, metrics

RNG = np.random.default_rng(0)
Y = pd.Series(RNG.integers(0, 2, 80))
S = pd.Series(np.clip(0.4 * Y + 0.6 * RNG.random(80), 0, 1))
PATIENTS = pd.Series(np.arange(80) // 2)

FUNCTIONS = {
    "auroc": lambda y, s, p: metrics.auroc(y, s),
    "average_precision": lambda y, s, p: metrics.average_precision(y, s),
    "classification_metrics": lambda y, s, p: metrics.classification_metrics(y, s, 0.5),
    "confusion_counts": lambda y, s, p: metrics.confusion_counts(y, s, 0.5),
    "net_benefit": lambda y, s, p: metrics.net_benefit(y, s, 0.4),
    "auroc_difference": lambda y, s, p: metrics.auroc_difference(y, s, s, p).estimate,
    "estimate": lambda y, s, p: metrics.estimate("auroc", y, s, patients=p),
    "compare": lambda y, s, p: (
        cxr_compare.compare({"A": s}, truth=y, patients=p, replicates=100)
        .to_frame()
        .set_index("metric")
        .estimate["auroc"]
    ),
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def test_rows_in_another_order_give_the_same_figure(function):
    expected = function(Y, S, PATIENTS)
    assert function(Y, S[::-1], PATIENTS) == expected  # also a RangeIndex
    assert function(Y, S.sample(frac=1, random_state=1), PATIENTS[::-1]) == expected
    ids = [f"image {number}" for number in range(80)]
    y, s, patients = (series.set_axis(ids) for series in (Y, S, PATIENTS))
    assert function(y, s[::-1], patients.sample(frac=1, random_state=2)) == expected


@pytest.mark.parametrize("rows", [slice(40, None), slice(None, None, 2)])
def test_other_rows_are_refused(function, rows):
    with pytest.raises(InputError):
        function(Y[:40], S[rows], PATIENTS[:40])


def test_a_reversed_series_beside_an_array_is_refused(function):
    assert function(Y.to_numpy(), S, PATIENTS) == function(Y, S, PATIENTS)
    with pytest.raises(InputError):
        function(Y.to_numpy(), S[::-1], PATIENTS)


def test_patients_of_other_rows_are_refused():
    with pytest.raises(InputError, match="patients"):
        cxr_compare.compare({"A": S}, truth=Y, patients=PATIENTS.set_axis(range(100, 180)))


@pytest.mark.parametrize(
    "truth",
    [
        Y.to_numpy()[:, None],
        dict(enumerate(Y)),
        Y.set_axis(pd.MultiIndex.from_product([range(8), range(10)])),
    ],
    ids=["two dimensions", "dict", "MultiIndex"],
)
def test_truth_of_another_shape_is_refused_by_name(truth):
    with pytest.raises(InputError, match=r"^truth: "):
        cxr_compare.compare({"A": S}, truth=truth)


@pytest.mark.parametrize(
    "scores",
    [np.ma.masked_less(S.to_numpy(), 0.1), S.to_numpy() + 1j, S + 1j],
    ids=["masked", "complex", "complex Series"],
)
def test_scores_that_are_no_real_numbers_are_refused_by_name(scores):
    with pytest.raises(InputError, match=r"^A: "):
        cxr_compare.compare({"A": scores}, truth=Y)


def test_a_list_of_series_is_several_seeds_of_one_system():
    seeds = [S, np.clip(S + 0.05, 0, 1).to_numpy(), S[::-1]]
    result = cxr_compare.compare({"A": seeds, "B": [S**2, S**3, 1 - S]}, truth=Y, replicates=100)
    assert "3 training seeds" in str(result)
    frame = result.to_frame()
    auroc = frame[(frame.metric == "auroc") & (frame.system == "A")]
    assert auroc.estimate.item() == pytest.approx(metrics.auroc(Y, S))
