"""The rank test of an AUROC of 0.5 by patient."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from cxr_compare import compare
from cxr_compare.evaluation.statistics import rank_test
from cxr_compare.evaluation.statistics.rank_test import chance_p_value
from cxr_compare.evaluation.verdict.claims import against_chance


def drawn(seed, n_patients, most=1, effect=0.0, prevalence=0.3):
    """Labels, scores and patients; the label is that of the patient, the images resemble."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(n_patients), rng.integers(1, most + 1, n_patients))
    sick = rng.random(n_patients) < prevalence
    scores = effect * sick + rng.normal(size=n_patients)
    return sick[owners], scores[owners] + 0.3 * rng.normal(size=len(owners)), owners


@pytest.mark.parametrize("seed", range(3))
def test_with_one_image_each_it_is_the_rank_sum_test(seed):
    y_true, scores, owners = drawn(seed, 40, effect=0.7)
    exact = mannwhitneyu(scores[y_true], scores[~y_true], method="exact").pvalue
    found = chance_p_value(y_true, [scores], owners, 40, permutations=19999)
    assert found == pytest.approx(exact, rel=0.1, abs=0.003)


def test_the_order_of_the_scores_alone_counts_and_both_directions_are_found():
    y_true, scores, owners = drawn(1, 60, most=4, effect=2.0)
    p_value = chance_p_value(y_true, [scores], owners, 60)
    assert p_value == chance_p_value(y_true, [np.exp(scores)], owners, 60)
    assert p_value == pytest.approx(chance_p_value(y_true, [-scores], owners, 60), abs=0.005)
    assert p_value < 0.01


def test_copies_of_images_are_no_evidence():
    y_true, scores, owners = drawn(3, 40, effect=0.6)
    once = chance_p_value(y_true, [scores], owners, 40)
    many = chance_p_value(*(np.repeat(y_true, 9), [np.repeat(scores, 9)]), np.repeat(owners, 9), 40)
    assert many == pytest.approx(once)


def test_equal_systems_are_rarely_said_to_be_better_than_chance():
    p_values = []
    for seed in range(300):
        y_true, scores, owners = drawn(seed, 30, most=6)
        p_values.append(chance_p_value(y_true, [scores], owners, 30, permutations=199))
    known = [p_value for p_value in p_values if p_value is not None]
    assert 0.01 < np.mean(np.array(known) < 0.05) < 0.09


def test_one_patient_of_a_class_gives_no_test():
    y_true = np.array([True, True, False, False])
    assert chance_p_value(y_true, [np.arange(4.0)], np.array([0, 0, 1, 2]), 3) is None
    assert chance_p_value(y_true, [np.ones(4)], np.arange(4), 4) == 1.0


def test_eleven_against_twenty_nine_patients_with_an_auroc_of_0_831_are_better_than_chance():
    # Shown by the rank sum (p 0.0015), although the cautious interval of the AUROC includes 0.5.
    y_true = np.arange(40) < 11
    scores = np.r_[np.array([29, 29, 29, 28, 28, 27, 26, 25, 20, 16, 8]) + 0.5, np.arange(1, 30)]
    auroc = np.mean(scores[y_true][:, None] > scores[~y_true])
    assert auroc == pytest.approx(0.831, abs=0.001)
    result = compare({"B": scores / 40}, truth=y_true * 1.0, replicates=100)
    figure = result.compared.comparison.figures.get("B", "auroc")
    assert against_chance(figure) == "above"
    assert "better than chance" not in str(result)


@pytest.mark.parametrize("labels", ["by patient", "by image"])
def test_many_patients_get_the_p_value_of_their_permutations(labels, monkeypatch):
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(2100), rng.integers(1, 4, 2100))
    y_true = (rng.random(2100) < 0.3)[patients]
    if labels == "by image":
        y_true &= rng.random(len(patients)) < 0.8
    scores = rng.normal(size=len(patients)) + 0.05 * y_true
    by_normal = chance_p_value(y_true, [scores], patients, 2100)
    monkeypatch.setattr(rank_test, "MANY_PATIENTS", 10_000)
    assert chance_p_value(y_true, [scores], patients, 2100) == pytest.approx(by_normal, abs=0.04)
