"""Figures corrected for a known error of the reference, against the error-free figures."""

import numpy as np
import pytest

from cxr_compare.evaluation.statistics.clustered_auroc import auroc_difference
from cxr_compare.studies.wrong_labels.reference_error import (
    ReferenceAccuracy,
    corrected_auroc,
    corrected_auroc_difference,
    corrected_rates,
)

PERFECT = ReferenceAccuracy(1.0, 1.0)


def study(seed=0, n=400):
    """Labels, scores of two systems and patients of two images each."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    first = 1.5 * truth + rng.normal(size=n)
    second = 0.8 * truth + rng.normal(size=n)
    return truth, first, second, np.arange(n) // 2


def with_exact_errors(groups):
    """Images of (disease, score) groups whose labels have exactly a sensitivity and specificity.

    Of the diseased images of each score nine tenths are labelled positive, of the healthy ones one
    fifth.
    """
    disease, score, label = [], [], []
    for diseased, value, count in groups:
        positive = count * 9 // 10 if diseased else count // 5
        disease += [diseased] * count
        score += [value] * count
        label += [1] * positive + [0] * (count - positive)
    return np.array(disease), np.array(score, float), np.array(label)


GROUPS = [(1, 3, 60), (1, 2, 30), (1, 1, 10), (0, 3, 20), (0, 2, 60), (0, 1, 220)]


def test_perfect_labels_leave_every_figure_and_interval_as_it_is():
    truth, first, second, patients = study()
    plain = auroc_difference(truth, first, second, patients)
    corrected = corrected_auroc_difference(truth, first, second, PERFECT, patients)
    assert corrected.estimate == pytest.approx(plain.estimate, abs=1e-12)
    assert corrected.error == pytest.approx(plain.error, rel=1e-9)
    rates = corrected_rates(truth, first > 1, PERFECT, patients)
    assert rates["recall"].estimate == pytest.approx((first > 1)[truth].mean())
    assert rates["specificity"].estimate == pytest.approx((first <= 1)[~truth].mean())


def test_correction_recovers_the_figures_against_the_disease_where_the_errors_are_exact():
    disease, score, label = with_exact_errors(GROUPS)
    reference = ReferenceAccuracy(sensitivity=0.9, specificity=0.8)
    true_auroc = corrected_auroc(disease, score, PERFECT).estimate
    assert corrected_auroc(label, score, PERFECT).estimate < true_auroc - 0.1
    assert corrected_auroc(label, score, reference).estimate == pytest.approx(true_auroc, abs=1e-12)
    rates = corrected_rates(label, score >= 2, reference)
    assert rates["recall"].estimate == pytest.approx(0.9)
    assert rates["specificity"].estimate == pytest.approx(220 / 300)
    assert reference.prevalence(label.mean()) == pytest.approx(disease.mean())


def test_difference_is_that_of_the_corrected_aurocs():
    truth, first, second, patients = study()
    reference = ReferenceAccuracy(0.95, 0.9)
    gap = corrected_auroc_difference(truth, first, second, reference, patients)
    alone = [corrected_auroc(truth, s, reference, patients).estimate for s in (first, second)]
    assert gap.estimate == pytest.approx(alone[0] - alone[1])
    back = corrected_auroc_difference(truth, second, first, reference, patients)
    assert back.error == pytest.approx(gap.error)


def test_images_of_one_patient_widen_the_interval():
    truth, first, _, _ = study(n=200)
    copied = np.repeat(np.arange(200), 3)
    reference = ReferenceAccuracy(0.95, 0.95)
    together = corrected_auroc(truth[copied], first[copied], reference, copied)
    single = corrected_auroc(truth, first, reference)
    assert together.estimate == pytest.approx(single.estimate)
    assert together.error == pytest.approx(single.error, rel=0.02)
    rates = corrected_rates(truth[copied], first[copied] > 1, reference, copied)
    of_single = corrected_rates(truth, first > 1, reference)
    assert rates["recall"].error == pytest.approx(of_single["recall"].error, rel=0.02)


def test_error_that_the_labels_cannot_have_gives_no_figure_and_says_why():
    truth, first, second, patients = study()
    reference = ReferenceAccuracy(sensitivity=0.99, specificity=0.6)
    for estimate in (
        corrected_auroc(truth, first, reference, patients),
        corrected_auroc_difference(truth, first, second, reference, patients),
        corrected_rates(truth, first > 1, reference, patients)["recall"],
    ):
        assert np.isnan(estimate.estimate)
        assert not estimate.has_interval
        assert "40.0%" in estimate.note


def test_one_class_has_no_corrected_auroc():
    assert corrected_auroc(np.ones(5), np.arange(5.0), ReferenceAccuracy(0.9, 0.9)) is None


def test_both_forms_of_the_error_are_read():
    assert ReferenceAccuracy.from_text("0") == PERFECT
    assert ReferenceAccuracy.from_text("sensitivity=0.95,specificity=0.98") == ReferenceAccuracy(
        0.95, 0.98
    )
