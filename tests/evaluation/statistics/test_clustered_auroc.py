"""AUROC with images in patients, against its definition as plain loops."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from cxr_compare.evaluation.statistics.clustered_auroc import (
    AurocParts,
    auroc_difference,
    auroc_over_seeds,
    auroc_parts,
    auroc_parts_of_levels,
)
from cxr_compare.evaluation.statistics.clustered_variance import satterthwaite_freedom


def draw_images(seed, patients=40, decimals=1):
    """Simulate images whose scores are alike within a patient, with ties."""
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, patients, 3 * patients))
    truth = rng.random(len(owner)) < np.array([0.2, 0.8])[owner % 2]
    person = rng.normal(0, 1, patients)[owner]
    scores = [truth + person + rng.normal(0, 1, len(owner)) for _ in range(2)]
    return truth, [column.round(decimals) for column in scores], owner


def variance_as_written(truth, first, second, owner):
    """Compute the covariance by Obuchowski 1997, equations 4 to 8; a variance if both are one."""
    m, n = int(truth.sum()), int((~truth).sum())

    def components(scores):
        wins = scores[truth][:, None] - scores[~truth][None, :]
        psi = (wins > 0) + 0.5 * (wins == 0)
        theta = psi.mean()
        x = dict.fromkeys(set(owner), 0.0)
        y = dict.fromkeys(set(owner), 0.0)
        for value, p in zip(psi.mean(axis=1), owner[truth], strict=True):
            x[p] += value - theta
        for value, p in zip(psi.mean(axis=0), owner[~truth], strict=True):
            y[p] += value - theta
        return x, y

    (x1, y1), (x2, y2) = components(first), components(second)
    i10, i01, i = len(set(owner[truth])), len(set(owner[~truth])), len(set(owner))
    s10 = i10 / ((i10 - 1) * m) * sum(x1[p] * x2[p] for p in x1)
    s01 = i01 / ((i01 - 1) * n) * sum(y1[p] * y2[p] for p in y1)
    s11 = i / (i - 1) * sum(x1[p] * y2[p] + x2[p] * y1[p] for p in x1)
    return s10 / m + s01 / n + s11 / (m * n)


@pytest.mark.parametrize("seed", range(4))
def test_with_equal_shares_the_variance_is_the_formula_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    owner, truth = np.repeat(np.arange(60), 4), np.tile([True, False, False, True], 60)
    first, second = (
        (truth + rng.normal(0, 1, 60)[owner] + rng.normal(0, 1, 240)).round(1) for _ in range(2)
    )
    parts = [auroc_parts(truth, scores, owner, 60) for scores in (first, second)]
    alone = [variance_as_written(truth, s, s, owner) for s in (first, second)]
    both = variance_as_written(truth, first, second, owner)
    assert parts[0].variance == pytest.approx(alone[0], rel=1e-10)
    assert parts[0].contributions @ parts[1].contributions == pytest.approx(both, rel=1e-10)
    assert (parts[0] - parts[1]).variance == pytest.approx(sum(alone) - 2 * both, rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_with_unequal_shares_the_variance_is_that_of_leaving_each_patient_out(seed):
    truth, (scores, _), owner = draw_images(seed)
    big = owner < 6  # six of 40 patients have four times as many images
    truth, scores, owner = (np.r_[v, np.repeat(v[big], 3)] for v in (truth, scores, owner))
    scores += np.random.default_rng(seed).normal(0, 0.5, len(scores))
    left = [roc_auc_score(truth[owner != p], scores[owner != p]) for p in np.unique(owner)]
    jackknife = (len(left) - 1) * np.var(left)
    variance = auroc_parts(truth, scores, owner, 40).variance
    assert variance == pytest.approx(jackknife, rel=0.08)
    assert variance > variance_as_written(truth, scores, scores, owner)


def test_the_freedom_is_that_of_the_effective_patients_of_the_rarer_class():
    # Four positive patients of 60: by hand (1/4 + 1/56)^2 / (1 / (16 x 3) + 1 / (3136 x 55)).
    truth = np.arange(60) < 4
    scores = np.random.default_rng(1).normal(size=60) + truth
    parts = auroc_parts(truth, scores, np.arange(60), 60)
    by_hand = (1 / 4 + 1 / 56) ** 2 / (1 / (16 * 3) + 1 / (56**2 * 55))
    assert parts.freedom == pytest.approx(min(by_hand, satterthwaite_freedom(parts.contributions)))
    assert parts.freedom < 4 == parts.effective_patients
    # One patient with 100 of 159 images is worth little more than itself.
    owner = np.r_[np.zeros(100, int), np.arange(1, 60)]
    truth = np.r_[np.arange(100) < 50, np.arange(59) < 20]
    whole = auroc_parts(truth, np.random.default_rng(2).normal(size=159), owner, 60)
    assert whole.effective_patients == pytest.approx(70**2 / (50**2 + 20))
    assert whole.freedom < 2.5


def test_independent_images_give_delong():
    truth, (first, second), _ = draw_images(7)
    gap = auroc_difference(truth, first, second)
    m, n = truth.sum(), (~truth).sum()
    components = []
    for scores in (first, second):
        wins = scores[truth][:, None] - scores[~truth][None, :]
        psi = (wins > 0) + 0.5 * (wins == 0)
        components.append((psi.mean(axis=1), psi.mean(axis=0), psi.mean()))
    over_positive = np.var(components[0][0] - components[1][0], ddof=1) / m
    over_negative = np.var(components[0][1] - components[1][1], ddof=1) / n
    error = np.sqrt(over_positive + over_negative)
    assert gap.estimate == pytest.approx(components[0][2] - components[1][2])
    assert gap.error == pytest.approx(error, rel=1e-10)
    assert gap.p_value == pytest.approx(2 * norm.sf(abs(gap.estimate) / error))


def test_ignoring_patients_narrows_the_interval_of_a_difference():
    # The known mistake: p by image. Each patient's image is there five times.
    truth, (first, second), _ = draw_images(3, patients=30, decimals=6)
    owner = np.arange(len(truth))
    copies = [np.repeat(values, 5) for values in (truth, first, second)]
    once = auroc_difference(truth, first, second, owner)
    by_image = auroc_difference(*copies)
    by_patient = auroc_difference(*copies, np.repeat(owner, 5))
    assert by_image.p_value < once.p_value
    assert by_image.error == pytest.approx(once.error / np.sqrt(5), rel=0.02)
    # Copies of an image are no new patients.
    assert by_patient.estimate == pytest.approx(once.estimate)
    assert by_patient.error == pytest.approx(once.error, rel=1e-3)


def test_with_folds_only_images_of_one_fold_are_compared():
    truth, (scores, _), owner = draw_images(5)
    folds = owner % 3
    wins = 0.0
    pairs = 0
    for fold in range(3):
        inside = folds == fold
        gaps = scores[inside & truth][:, None] - scores[inside & ~truth][None, :]
        wins += (gaps > 0).sum() + 0.5 * (gaps == 0).sum()
        pairs += gaps.size
    parts = auroc_parts(truth, scores, owner, 40, folds=folds)
    assert parts.value == pytest.approx(wins / pairs)
    # Shifting the scores of a fold changes nothing: each fold has a scale of its own.
    shifted = auroc_parts(truth, scores + 100 * folds, owner, 40, folds=folds)
    assert shifted.estimate().interval_at(0.95) == pytest.approx(parts.estimate().interval_at(0.95))
    whole = auroc_parts(truth, scores, owner, 40, folds=np.zeros(len(truth), int))
    assert whole.variance == auroc_parts(truth, scores, owner, 40).variance


@pytest.mark.parametrize("seed", range(3))
def test_scores_given_by_level_give_the_same_parts_as_scores_given_by_image(seed):
    truth, _, owner = draw_images(seed)
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 6, len(truth))
    level_scores = rng.integers(0, 4, (3, 7)).astype(float)  # with ties; level 6 has no image
    folds = owner % 3
    by_level = auroc_parts_of_levels(truth, levels, level_scores, owner, 40, folds=folds)
    by_image = auroc_parts(truth, level_scores[folds, levels], owner, 40, folds=folds)
    assert by_level.value == by_image.value
    np.testing.assert_array_equal(by_level.contributions, by_image.contributions)
    np.testing.assert_array_equal(by_level.images, by_image.images)
    assert by_level.trials == by_image.trials


def test_levels_without_a_fold_of_both_classes_have_no_auroc():
    folds = np.array([0, 0, 1, 1])
    scores = np.zeros((2, 1))
    args = (np.zeros(4, int), scores, np.arange(4), 4)
    assert auroc_parts_of_levels([1, 1, 0, 0], *args, folds=folds) is None


def test_without_a_fold_of_both_classes_there_is_no_auroc():
    truth = np.array([True, True, False, False])
    assert auroc_parts(truth, np.arange(4.0), np.arange(4), 4, folds=np.array([0, 0, 1, 1])) is None


def test_the_interval_is_that_of_a_bootstrap_over_patients():
    rng = np.random.default_rng(4)
    patient = np.repeat(np.arange(150), rng.integers(1, 9, 150))
    illness = rng.random(150)[patient]
    positive = rng.random(len(patient)) < illness
    scores = rng.normal(size=150)[patient] + illness
    found = auroc_parts(positive, scores, patient, 150).estimate()
    rows = [np.flatnonzero(patient == p) for p in range(150)]
    drawn = []
    for _ in range(400):
        sample = np.concatenate([rows[p] for p in rng.integers(0, 150, 150)])
        drawn.append(roc_auc_score(positive[sample], scores[sample]))
    assert found.interval_at(0.95) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)
    alone = auroc_parts(positive, scores, np.arange(len(patient)), len(patient)).estimate()
    assert np.diff(found.interval_at(0.95)) > 1.5 * np.diff(alone.interval_at(0.95))


def test_an_auroc_with_ties_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    positive, scores = rng.random(500) < 0.3, rng.integers(0, 9, 500)
    found = auroc_parts(positive, scores, np.arange(500), 500)
    assert found.value == pytest.approx(roc_auc_score(positive, scores))


@pytest.mark.parametrize("levels", [1, 3, 1_000])
def test_each_image_contributes_the_pairs_that_it_wins(levels):
    rng = np.random.default_rng(levels)
    positive = rng.random(60) < 0.4
    scores = rng.integers(0, levels, 60)
    found = auroc_parts(positive, scores, np.arange(60), 60)
    won = (scores[positive][:, None] > scores[~positive]) + 0.5 * (
        scores[positive][:, None] == scores[~positive]
    )
    excess = won - won.mean()
    assert found.value == won.mean()
    assert found.of_positive[positive] == pytest.approx(excess.sum(axis=1) / won.size)
    assert found.of_negative[~positive] == pytest.approx(excess.sum(axis=0) / won.size)


def test_classes_wholly_apart_have_the_exact_interval_of_pairs_of_patients():
    truth = np.arange(40) < 8
    for scores, value in ((1.0 * truth, 1.0), (-1.0 * truth, 0.0)):
        found = auroc_parts(truth, scores, np.arange(40), 40).estimate()
        exact = binomtest(int(8 * value), 8).proportion_ci(method="exact")
        assert (found.estimate, found.exact) == (value, True)
        assert found.interval_at(0.95) == pytest.approx((exact.low, exact.high))
    # Every image twice, and both classes in each patient: four pairs, and not sixteen.
    owner, truth = np.repeat(np.arange(8), 4), np.tile([True, False, True, False], 8)
    found = auroc_parts(truth, 1.0 * truth, owner, 8).estimate()
    assert found.interval_at(0.95)[0] == pytest.approx(0.025 ** (1 / 4))
    assert auroc_parts([1, 1], [0.1, 0.2], np.arange(2), 2) is None


def test_an_auroc_just_below_1_is_as_sure_as_one_of_exactly_1():
    truth = np.arange(60) >= 30
    scores = np.arange(60.0)
    whole = auroc_parts(truth, scores, np.arange(60), 60).estimate()
    scores[29] = 39.5  # one negative above ten positives
    nearly = auroc_parts(truth, scores, np.arange(60), 60).estimate()
    assert (
        whole.interval_at(0.95)[0] - 0.05 < nearly.interval_at(0.95)[0] < whole.interval_at(0.95)[0]
    )
    assert nearly.estimate < nearly.interval_at(0.95)[1] < 1


def test_a_system_against_itself_differs_by_nothing_and_gets_no_p_value():
    truth, (scores, _), owner = draw_images(1)
    gap = auroc_difference(truth, scores, scores, owner)
    assert (gap.estimate, gap.interval_at(0.95), gap.p_value) == (0.0, None, None)


def test_one_patient_of_a_class_gives_no_interval():
    parts = auroc_parts([0, 0, 1], [0.1, 0.5, 0.4], np.array([0, 1, 2]), 3)
    assert parts.estimate().interval_at(0.95) is None
    assert parts.variance is None
    assert parts.estimate().note


def test_seeds_widen_an_interval_by_what_they_differ():
    truth, (first, second), owner = draw_images(2)
    parts = [auroc_parts(truth, scores, owner, 40) for scores in (first + 2 * truth, second)]
    mean = AurocParts.mean(parts)
    found = auroc_over_seeds(parts)
    assert found.estimate == mean.value == pytest.approx(np.mean([part.value for part in parts]))
    # Var between seeds / 2, and the covariance of two seeds over patients.
    between = np.var([part.value for part in parts], ddof=1) / 2
    shared = parts[0].contributions @ parts[1].contributions
    assert found.error**2 == pytest.approx(between + shared)
    assert found.freedom < mean.freedom
    assert found.interval_at(0.95)[0] < mean.estimate().interval_at(0.95)[0]
    assert auroc_over_seeds(parts[:1]) == parts[0].estimate()
