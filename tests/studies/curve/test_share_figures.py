"""Figures of systems trained on shares: against the comparison of the same predictions."""

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.thresholds import POLICIES
from cxr_compare.studies.curve.curve_study import CURVE_METRICS
from cxr_compare.studies.curve.share_figures import EvaluatedRun, evaluate_shares
from tests.compared import compare_predictions


@pytest.fixture
def evaluated(test_set, predict):
    """A detector, and two seeds of a classifier, evaluated on one split."""
    systems = {
        "boxes": predict("D", "boxes", seed=1),
        "scores 0": predict("A", seed=2, maps=True),
        "scores 1": predict("B", seed=3, maps=True),
    }
    runs = {name: [EvaluatedRun("default", "default", each)] for name, each in systems.items()}
    return systems, evaluate_shares(runs, test_set, replicates=400)


def test_figures_and_intervals_are_those_of_the_comparison(test_set, evaluated):
    systems, found = evaluated
    compared = compare_predictions(systems, test_set, replicates=100).figures
    for metric in CURVE_METRICS:
        policy = POLICIES[0] if metric == "localised_sensitivity" else ""
        for place, name in enumerate(found.systems):
            figure = compared.get(name, metric, policy).estimate
            assert found.figures[metric].values[place] == pytest.approx(figure, nan_ok=True)
    known = compared.get("boxes", "auroc")
    of_boxes = found.estimate("auroc", ["boxes"])
    ends = of_boxes.ci_low, of_boxes.ci_high
    assert ends == pytest.approx((known.ci_low, known.ci_high), abs=0.02)  # 400 resamples


def test_a_group_is_the_mean_of_its_seeds_and_two_groups_their_difference(evaluated) -> None:
    _, found = evaluated
    one = found.estimate("auroc", ["boxes"], ["scores 0"])
    two = found.estimate("auroc", ["scores 0", "scores 1"])
    values = found.figures["auroc"].values
    assert one.estimate == pytest.approx(values[0] - values[1])
    assert two.estimate == pytest.approx((values[1] + values[2]) / 2)


def test_a_figure_that_a_system_lacks_has_a_reason_and_no_covariance(test_set, predict) -> None:
    runs = {"plain": [EvaluatedRun("default", "default", predict("A", seed=2))]}
    found = evaluate_shares(runs, test_set, replicates=200)
    froc = found.figures["froc_mean"]
    assert np.isnan(froc.values).all()
    assert "neither boxes" in froc.reasons["plain"] or "no boxes" in froc.reasons["plain"]


def test_a_system_without_a_run_of_a_split_is_refused(test_set, predict) -> None:
    one = predict("A", seed=2)
    other = predict("B", seed=3)
    runs = {
        "A": [EvaluatedRun("default", "default", one)],
        "B": [EvaluatedRun("cv", "cv", other)],
    }
    with pytest.raises(InputError, match="has no run of split"):
        evaluate_shares(runs, test_set)
