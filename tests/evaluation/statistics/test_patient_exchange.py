"""Permutation tests that exchange whole patients."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import permutation_test
from sklearn.metrics import roc_auc_score

from cxr_compare.evaluation.statistics.patient_exchange import ExchangedPatients


def test_exchanged_patients_leave_both_groups_the_images_of_each_class_that_they_have():
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(60), rng.integers(1, 3, 60))
    truth = rng.random(len(patients)) < 0.4
    inside = patients < 12
    both = patients >= 50  # with three images, one of them inside
    patients = np.r_[patients[~both], np.repeat(np.arange(50, 60), 3)]
    truth = np.r_[truth[~both], np.tile([True, True, False], 10)]
    inside = np.r_[inside[~both], np.tile([True, False, False], 10)]
    both = patients >= 50
    drawn = ExchangedPatients(inside, truth, patients).draw(200, rng)
    for images in (truth, ~truth, both & truth, both & ~truth):
        assert (drawn[:, images].sum(axis=1) == inside[images].sum()).all()
    assert (drawn != inside).any(axis=0)[~both].mean() > 0.9
    whole = [patients == patient for patient in range(50)]
    assert all((drawn[:, images] == drawn[:, images][:, :1]).all() for images in whole)


def test_a_permutation_p_is_the_share_of_all_exchanges_at_least_as_extreme():
    values, inside = np.array([0.1, 0.2, 0.4, 0.5, 0.7, 0.8, 1.1, 1.4]), np.arange(8) % 3 == 1
    exact = permutation_test(
        (values[inside], values[~inside]),
        lambda a, b: abs(a.mean() - b.mean()),
        alternative="greater",
    )
    exchanged = ExchangedPatients(inside, np.ones(8, dtype=bool), np.arange(8))
    gaps = {
        "A": [partial(exchanged.share_gap, values)],
        "B": [partial(exchanged.share_gap, weight * values) for weight in (2, 0)],
        "C": [lambda drawn: np.full(drawn.n, np.nan)],
        # An exchange that has no difference counts as a large one.
        "D": [lambda drawn: np.full(drawn.n, 1.0 if drawn.n == 1 else np.nan)],
    }
    p_values = exchanged.p_values(gaps)
    assert p_values["A"] == p_values["B"] == pytest.approx(exact.pvalue, abs=0.05)
    assert np.isnan(p_values["C"])
    assert p_values["D"] == p_values["A - B"] == 1.0


def test_the_gap_of_both_sides_is_theirs_in_every_exchange():
    rng = np.random.default_rng(3)
    patients = rng.integers(0, 80, 200)
    y_true, inside = rng.random(200) < 0.3, (patients < 15) ^ (rng.random(200) < 0.1)
    scores = rng.normal(y_true, 1).round(1)  # with ties
    exchanged = ExchangedPatients(inside, y_true, patients)
    drawn = exchanged.draw(50, np.random.default_rng(0))
    exchanges = exchanged.draw_exchanges(50, np.random.default_rng(0))
    by_hand = {
        "auroc": [
            roc_auc_score(y_true[group], scores[group])
            - roc_auc_score(y_true[~group], scores[~group])
            for group in drawn
        ],
        "mean": [scores[group].mean() - scores[~group].mean() for group in drawn],
    }
    assert exchanged.auroc_gap(scores)(exchanges) == pytest.approx(by_hand["auroc"])
    assert exchanged.share_gap(scores, exchanges) == pytest.approx(by_hand["mean"])
