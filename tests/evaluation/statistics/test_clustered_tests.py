"""AUROC with images grouped in patients, held against its definition written out."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import binomtest, chi2, nct, norm, permutation_test, t, ttest_ind
from sklearn.metrics import roc_auc_score

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.holm import holm
from cxr_compare.evaluation.statistics.clustered_auroc import (
    AurocParts,
    auroc_difference,
    auroc_over_seeds,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.clustered_estimate import (
    ClusteredEstimate,
    smallest_detectable,
)
from cxr_compare.evaluation.statistics.clustered_share import design_effects, exact_share
from cxr_compare.evaluation.statistics.clustered_variance import satterthwaite_freedom
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.statistics.mcnemar import (
    clustered_mcnemar,
    exact_mcnemar,
    mcnemar_test,
)
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds
from cxr_compare.evaluation.statistics.patient_exchange import ExchangedPatients


def draw(seed, patients=40, decimals=1):
    """Images of patients who resemble themselves, with ties."""
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, patients, 3 * patients))
    truth = rng.random(len(owner)) < np.array([0.2, 0.8])[owner % 2]
    person = rng.normal(0, 1, patients)[owner]
    scores = [truth + person + rng.normal(0, 1, len(owner)) for _ in range(2)]
    return truth, [each.round(decimals) for each in scores], owner


def variance_as_written(truth, first, second, owner):
    """Obuchowski 1997, equations 4 to 8, patient by patient; ``first is second``: a variance."""
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
    truth, (scores, _), owner = draw(seed)
    big = owner < 6  # six of 40 patients have four times as many images
    truth, scores, owner = (np.r_[v, np.repeat(v[big], 3)] for v in (truth, scores, owner))
    scores += np.random.default_rng(seed).normal(0, 0.5, len(scores))
    left = [roc_auc_score(truth[owner != p], scores[owner != p]) for p in np.unique(owner)]
    jackknife = (len(left) - 1) * np.var(left)
    found = auroc_parts(truth, scores, owner, 40).variance
    assert found == pytest.approx(jackknife, rel=0.08)
    assert found > variance_as_written(truth, scores, scores, owner)


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
    truth, (first, second), _ = draw(7)
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
    assert gap.value == pytest.approx(components[0][2] - components[1][2])
    assert gap.error == pytest.approx(error, rel=1e-10)
    assert gap.p_value == pytest.approx(2 * norm.sf(abs(gap.value) / error))


def test_ignoring_patients_makes_the_same_difference_look_surer():
    # The known mistake: p by image. Each patient's image is there five times.
    truth, (first, second), _ = draw(3, patients=30, decimals=6)
    owner = np.arange(len(truth))
    copies = [np.repeat(each, 5) for each in (truth, first, second)]
    once = auroc_difference(truth, first, second, owner)
    by_image = auroc_difference(*copies)
    by_patient = auroc_difference(*copies, np.repeat(owner, 5))
    assert by_image.p_value < once.p_value
    assert by_image.error == pytest.approx(once.error / np.sqrt(5), rel=0.02)
    # Copies of an image are no new patients.
    assert by_patient.value == pytest.approx(once.value)
    assert by_patient.error == pytest.approx(once.error, rel=1e-3)


def test_with_folds_only_images_of_one_fold_are_compared():
    truth, (scores, _), owner = draw(5)
    folds = owner % 3
    wins, pairs = 0.0, 0
    for fold in range(3):
        of = folds == fold
        gaps = scores[of & truth][:, None] - scores[of & ~truth][None, :]
        wins, pairs = wins + (gaps > 0).sum() + 0.5 * (gaps == 0).sum(), pairs + gaps.size
    parts = auroc_parts(truth, scores, owner, 40, folds=folds)
    assert parts.value == pytest.approx(wins / pairs)
    # Shifting the scores of a fold changes nothing: each fold has a scale of its own.
    shifted = auroc_parts(truth, scores + 100 * folds, owner, 40, folds=folds)
    assert shifted.estimate().interval == pytest.approx(parts.estimate().interval)
    whole = auroc_parts(truth, scores, owner, 40, folds=np.zeros(len(truth), int))
    assert whole.variance == auroc_parts(truth, scores, owner, 40).variance


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
    assert found.interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)
    alone = auroc_parts(positive, scores, np.arange(len(patient)), len(patient)).estimate()
    assert np.diff(found.interval) > 1.5 * np.diff(alone.interval)


def test_an_auroc_with_ties_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    positive, scores = rng.random(500) < 0.3, rng.integers(0, 9, 500)
    found = auroc_parts(positive, scores, np.arange(500), 500)
    assert found.value == pytest.approx(roc_auc_score(positive, scores))


def test_classes_wholly_apart_have_the_exact_interval_of_pairs_of_patients():
    truth = np.arange(40) < 8
    for scores, value in ((1.0 * truth, 1.0), (-1.0 * truth, 0.0)):
        found = auroc_parts(truth, scores, np.arange(40), 40).estimate()
        exact = binomtest(int(8 * value), 8).proportion_ci(method="exact")
        assert (found.value, found.exact) == (value, True)
        assert found.interval == pytest.approx((exact.low, exact.high))
    # Every image twice, and both classes in each patient: four pairs, and not sixteen.
    owner, truth = np.repeat(np.arange(8), 4), np.tile([True, False, True, False], 8)
    found = auroc_parts(truth, 1.0 * truth, owner, 8).estimate()
    assert found.interval[0] == pytest.approx(0.025 ** (1 / 4))
    assert auroc_parts([1, 1], [0.1, 0.2], np.arange(2), 2) is None


def test_an_auroc_just_below_1_is_as_sure_as_one_of_exactly_1():
    truth = np.arange(60) >= 30
    scores = np.arange(60.0)
    whole = auroc_parts(truth, scores, np.arange(60), 60).estimate()
    scores[29] = 39.5  # one negative above ten positives
    nearly = auroc_parts(truth, scores, np.arange(60), 60).estimate()
    assert whole.interval[0] - 0.05 < nearly.interval[0] < whole.interval[0]
    assert nearly.value < nearly.interval[1] < 1


def test_a_system_against_itself_differs_by_nothing_and_gets_no_p_value():
    truth, (scores, _), owner = draw(1)
    gap = auroc_difference(truth, scores, scores, owner)
    assert (gap.value, gap.interval, gap.p_value) == (0.0, None, None)


def test_one_patient_of_a_class_gives_no_interval():
    parts = auroc_parts([0, 0, 1], [0.1, 0.5, 0.4], np.array([0, 1, 2]), 3)
    assert parts.estimate().interval is None
    assert parts.variance is None
    assert "fewer than two patients" in parts.estimate().note


def test_seeds_widen_an_interval_by_what_they_differ():
    truth, (first, second), owner = draw(2)
    parts = [auroc_parts(truth, scores, owner, 40) for scores in (first + 2 * truth, second)]
    mean, found = AurocParts.mean(parts), auroc_over_seeds(parts)
    assert found.value == mean.value == pytest.approx(np.mean([each.value for each in parts]))
    # Var between seeds / 2, and the covariance of two seeds over patients.
    between = np.var([each.value for each in parts], ddof=1) / 2
    shared = parts[0].contributions @ parts[1].contributions
    assert found.error**2 == pytest.approx(between + shared)
    assert found.freedom < mean.freedom
    assert found.interval[0] < mean.estimate().interval[0]
    assert auroc_over_seeds(parts[:1]) == parts[0].estimate()


def test_the_freedom_of_seeds_alone_is_that_of_a_t_test():
    values = [0.70, 0.76, 0.79], [0.80, 0.81, 0.88]
    found = estimate_over_seeds(values, np.zeros((6, 6)), 99)
    welch = ttest_ind(*values, equal_var=False)
    assert found.p_value == pytest.approx(welch.pvalue)
    assert found.freedom == pytest.approx(welch.df)


def test_seeds_closer_together_than_patients_allow_do_not_narrow_an_interval():
    covariance = np.diag([4e-4] * 4) + 1e-4
    close = estimate_over_seeds([[0.80, 0.80], [0.85, 0.85]], covariance, 50)
    # Two means of two seeds: (Var - Cov2) / 2 each, and no covariance is left between systems.
    assert close.error**2 == pytest.approx(4e-4)


def test_the_smallest_detectable_difference_has_the_power_it_names():
    error = 0.02
    reach = smallest_detectable(error)
    beyond = norm.isf(0.025) * error
    assert norm.sf((beyond - reach) / error) == pytest.approx(0.8)
    assert ClusteredEstimate(0.0, error).detectable == reach
    # With few patients the test is t: its noncentral distribution gives the power.
    few = ClusteredEstimate(0.0, error, freedom=6.0).detectable
    assert nct.sf(t.isf(0.025, 6), 6, few / error) == pytest.approx(0.8, abs=0.02)
    assert ClusteredEstimate(0.0, 0.3, freedom=2.0).detectable is None  # not even a gap of 1


@pytest.mark.parametrize(("first_only", "second_only"), [(6, 0), (9, 4), (5, 5), (121, 59)])
def test_the_exact_test_is_that_of_its_oracles(first_only, second_only):
    p_value = exact_mcnemar(first_only, second_only)
    n = first_only + second_only
    assert p_value == pytest.approx(binomtest(first_only, n, 0.5).pvalue)
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    table = [[10, first_only], [second_only, 20]]
    assert p_value == pytest.approx(tables.mcnemar(table, exact=True).pvalue)


def test_with_one_image_a_patient_it_is_mcnemar_with_the_sample_variance():
    right = np.array([[1, 0]] * 21 + [[0, 1]] * 9 + [[1, 1]] * 170)
    test = mcnemar_test(right[:, 0], right[:, 1], np.arange(200))
    statistic = (21 - 9) ** 2 / (21 + 9) * 199 / 200
    assert test.p_value == pytest.approx(chi2.sf(statistic, 1))
    assert (test.first_only, test.second_only, test.n_images) == (21, 9, 200)


def test_clusters_counted_by_hand():
    # Patient a: two images only the first gets right; b: one each way; c: one only the second.
    first = [1, 1, 1, 0, 0, 1]
    second = [0, 0, 0, 1, 1, 1]
    test = mcnemar_test(first, second, ["a", "a", "b", "b", "c", "c"])
    # d = 2, 0, -1: (sum d)^2 / sum d^2 x (K - 1) / K = 1 / 5 x 2 / 3
    assert test.p_value == pytest.approx(chi2.sf(1 / 5 * 2 / 3, 1))
    assert test.difference.value == pytest.approx(1 / 6)
    # Around D = 1 / 6: (2 - 1/3)^2 + (0 - 1/3)^2 + (-1 - 1/3)^2 = 42 / 9; x 3 / 2 / 36
    assert test.difference.error == pytest.approx(np.sqrt(42 / 9 * 3 / 2 / 36))
    assert test.p_exact == pytest.approx(1.0)


def test_copies_of_a_patients_images_change_nothing_by_patient_but_all_by_image():
    rng = np.random.default_rng(4)
    first, second = rng.random(120) < 0.8, rng.random(120) < 0.7
    owner = np.arange(120)
    once = mcnemar_test(first, second, owner)
    thrice = mcnemar_test(np.repeat(first, 3), np.repeat(second, 3), np.repeat(owner, 3))
    assert thrice.p_value == pytest.approx(once.p_value)
    assert thrice.p_exact < once.p_exact


def test_a_patient_without_an_image_of_the_class_does_not_count():
    gap = np.array([1.0, 0, 1, 1]), np.array([0.0, 1, 0, 0])
    one = clustered_mcnemar(*gap, np.array([0, 1, 2, 3]), 4)
    other = clustered_mcnemar(*gap, np.array([0, 1, 2, 5]), 9)
    assert one == other


def test_equal_decisions_have_no_interval_and_no_clustered_p_value():
    right = np.array([1, 0, 1, 1])
    test = mcnemar_test(right, right, np.arange(4))
    assert (test.p_value, test.difference.interval, test.p_exact) == (None, None, 1.0)


def test_seeds_make_a_difference_less_sure():
    rng = np.random.default_rng(8)
    first, second = (rng.random(300) < 0.85).astype(float), (rng.random(300) < 0.7).astype(float)
    owner = np.arange(300)
    without = clustered_mcnemar(first, second, owner, 300)
    worse = first * (rng.random(300) < 0.9)
    with_seeds = clustered_mcnemar(np.stack([first, worse]), second, owner, 300)
    assert with_seeds.p_value > without.p_value
    assert with_seeds.p_exact is None


def test_holm_steps_down_and_skips_what_could_not_be_tested():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_exchanged_patients_leave_both_groups_the_images_of_each_class_that_they_have():
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(60), rng.integers(1, 3, 60))
    truth = rng.random(len(patients)) < 0.4
    inside = patients < 12
    both = patients >= 50  # with three images, one of them inside
    patients = np.r_[patients[~both], np.repeat(np.arange(50, 60), 3)]
    truth, inside = (np.r_[of[~both], np.tile(more, 10)] for of, more in (
        (truth, [True, True, False]), (inside, [True, False, False])
    ))  # fmt: skip
    both = patients >= 50
    drawn = ExchangedPatients(inside, truth, patients).draw(200, rng)
    for images in (truth, ~truth, both & truth, both & ~truth):
        assert (drawn[:, images].sum(axis=1) == inside[images].sum()).all()
    assert (drawn != inside).any(axis=0)[~both].mean() > 0.9
    whole = [patients == patient for patient in range(50)]
    assert all((drawn[:, of] == drawn[:, of][:, :1]).all() for of in whole)


def test_a_permutation_p_is_the_share_of_all_exchanges_at_least_as_extreme():
    values, inside = np.array([0.1, 0.2, 0.4, 0.5, 0.7, 0.8, 1.1, 1.4]), np.arange(8) % 3 == 1
    exact = permutation_test(
        (values[inside], values[~inside]), lambda a, b: abs(a.mean() - b.mean()),
        alternative="greater",
    )  # fmt: skip
    exchanged = ExchangedPatients(inside, np.ones(8, dtype=bool), np.arange(8))
    gaps = {
        "A": [partial(exchanged.share_gap, values)],
        "B": [partial(exchanged.share_gap, weight * values) for weight in (2, 0)],
        "C": [lambda drawn: np.full(drawn.n, np.nan)],
        # An exchange that has no difference counts as a large one.
        "D": [lambda drawn: np.full(drawn.n, 1.0 if drawn.n == 1 else np.nan)],
    }
    found = exchanged.p_values(gaps)
    assert found["A"] == found["B"] == pytest.approx(exact.pvalue, abs=0.05)
    assert np.isnan(found["C"])
    assert found["D"] == found["A - B"] == 1.0


def test_the_gap_of_both_sides_is_theirs_in_every_exchange():
    rng = np.random.default_rng(3)
    patients = rng.integers(0, 80, 200)
    y_true, inside = rng.random(200) < 0.3, (patients < 15) ^ (rng.random(200) < 0.1)
    scores = rng.normal(y_true, 1).round(1)  # with ties
    exchanged = ExchangedPatients(inside, y_true, patients)
    drawn = exchanged.draw(50, np.random.default_rng(0))
    exchanges = exchanged._draw(50, np.random.default_rng(0))
    by_hand = {
        "auroc": [
            roc_auc_score(y_true[of], scores[of]) - roc_auc_score(y_true[~of], scores[~of])
            for of in drawn
        ],
        "mean": [scores[of].mean() - scores[~of].mean() for of in drawn],
    }
    assert exchanged.auroc_gap(scores)(exchanges) == pytest.approx(by_hand["auroc"])
    assert exchanged.share_gap(scores, exchanges) == pytest.approx(by_hand["mean"])


def test_decisions_of_other_images_are_refused():
    with pytest.raises(InputError, match="one decision a system and image"):
        mcnemar_test([1, 0], [1, 0, 1], ["a", "b"])


def test_a_share_of_single_images_has_clopper_and_pearsons_interval():
    hits = np.array([1.0] * 17 + [0.0] * 3)
    known = binomtest(17, 20).proportion_ci(0.95, "exact")
    assert exact_share(hits, np.ones(20)) == pytest.approx((known.low, known.high))
    # Patients without an image of the class do not count.
    with_others = exact_share(np.append(hits, [0, 0]), np.append(np.ones(20), [0, 0]))
    assert with_others == exact_share(hits, np.ones(20))


def test_images_of_a_patient_that_agree_say_as_much_as_one_and_others_as_themselves():
    rng = np.random.default_rng(3)
    right = (rng.random(100) < 0.8).astype(float)
    alone = exact_share(right, np.ones(100))
    agreeing = exact_share(3 * right, np.full(100, 3.0))
    assert agreeing[0] == pytest.approx(alone[0], abs=0.03)
    assert agreeing[0] <= alone[0]
    assert agreeing[1] >= alone[1] - 0.005
    mixed = exact_share(np.full(100, 2.4), np.full(100, 3.0))
    independent = binomtest(240, 300).proportion_ci(0.95, "exact")
    assert mixed == pytest.approx((independent.low, independent.high))  # never narrower than that
    assert mixed[1] - mixed[0] < agreeing[1] - agreeing[0]


def test_a_patient_with_many_images_who_is_right_does_not_hide_how_alike_others_are():
    hits, images = np.array([3.0] * 32 + [0.0] * 8 + [30.0]), np.array([3.0] * 40 + [30.0])
    effective = images.sum() ** 2 / (images**2).sum()
    alike = Interval.from_share(hits.sum() / images.sum(), effective)
    assert exact_share(hits, images)[0] <= alike.low
    assert design_effects(hits[None, :40], images[:40]) == pytest.approx(3)  # alike throughout
    assert design_effects(np.full((1, 40), 2.0), images[:40]) == 1
    assert design_effects(np.array([[5.0]]), np.array([9.0])) >= 1  # a single patient


def test_a_share_of_one_in_patients_with_several_images_leaves_room_below():
    low, high = exact_share(np.array([2.0, 3.0, 1.0, 4.0]), np.array([2.0, 3.0, 1.0, 4.0]))
    assert high == 1.0
    assert low < binomtest(4, 4).proportion_ci(0.95, "exact").low + 0.05
