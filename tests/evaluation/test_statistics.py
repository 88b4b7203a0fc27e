"""Statistics of images that come in patients, against plain loops, scikit-learn and scipy."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, nct, norm, t
from sklearn import metrics as oracle
from sklearn.metrics import roc_auc_score

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import figures as product
from tests.adapters.figures import (
    ClusteredEstimate,
    RankedScores,
    Resamples,
    RunningRows,
    SegmentSums,
    ShareParts,
    auroc_parts,
    bootstrap_p_value,
    class_inflation,
    cluster_bootstrap,
    cluster_index,
    effective_patients,
    expanded_level,
    function_of_counts,
    holm_corrected,
    lower_for_bias,
    mean_interval,
    patient_folds,
    per_cluster,
    percentile_interval,
    rates,
    satterthwaite_freedom,
    smallest_detectable,
    without_leverage,
)
from tests.oracles import rebuild


@pytest.fixture(scope="module")
def clustered_scores():
    """Labels and tied scores of 90 images, and the index of their 30 patients."""
    rng = np.random.default_rng(7)
    patients = rng.integers(0, 30, 90)
    y_true = (rng.random(90) < 0.3).astype(int)
    y_score = np.round(np.clip(rng.normal(0.4 + 0.2 * y_true, 0.2), 0, 1), 2)
    return y_true, y_score, cluster_index([f"p{p:02d}" for p in patients])


THRESHOLD = 0.6


def test_every_replicate_equals_a_plain_loop_over_scikit_learn(clustered_scores):
    y_true, y_score, (patients, n_patients) = clustered_scores
    resamples = Resamples(n_patients, n_replicates=30, seed=3)
    called = y_score >= THRESHOLD
    cells = [called & (y_true == 1), called & (y_true == 0), ~called & (y_true == 0),
             ~called & (y_true == 1)]  # fmt: skip
    counts = per_cluster(np.column_stack(cells), patients, n_patients)
    ranked = RankedScores(y_true, y_score, patients)

    def statistic(weights):
        tp, fp, tn, fn = (weights @ counts).T
        return {**ranked.figures(weights), **rates(tp, fp, tn, fn)}

    fast = cluster_bootstrap(statistic, resamples)
    for row, weights in enumerate(np.concatenate(list(resamples.chunks()))):
        chosen = np.repeat(np.arange(len(y_true)), weights[patients])
        truth, score = y_true[chosen], y_score[chosen]
        call = score >= THRESHOLD
        slow = {
            "auroc": oracle.roc_auc_score(truth, score),
            "average_precision": oracle.average_precision_score(truth, score),
            "accuracy": oracle.accuracy_score(truth, call),
            "precision": oracle.precision_score(truth, call),
            "recall": oracle.recall_score(truth, call),
            "specificity": oracle.recall_score(truth, call, pos_label=0),
            "f1": oracle.f1_score(truth, call),
        }
        for name, value in slow.items():
            assert fast[name][row] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize(("stream", "seed"), [(0, 5), (1, [5, 1])])
def test_resamples_are_those_of_docs_metrics(stream, seed):
    found = np.concatenate([*Resamples(11, 50, seed=5, stream=stream).chunks()])
    np.testing.assert_array_equal(found, rebuild.resamples(11, 50, seed))


def test_resamples_do_not_depend_on_the_order_of_the_images():
    patients = np.array(["c", "a", "b", "a"])
    index, n = cluster_index(patients)
    shuffled, _ = cluster_index(patients[::-1])
    assert n == 3
    assert index.tolist() == shuffled[::-1].tolist()


def test_an_error_in_a_chunk_is_raised():
    def broken(weights):
        raise InputError("no figure")

    with pytest.raises(InputError):
        cluster_bootstrap(broken, Resamples(10, 12))


def test_counts_of_other_images_are_refused():
    with pytest.raises(InputError, match="2"):
        per_cluster([[1], [2]], np.array([0]), 1)


def test_frames_of_pandas_strings_are_clusters_too():
    index, n = cluster_index(pd.Series(["x", "y", "x"]))
    assert (index.tolist(), n) == ([0, 1, 0], 2)


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


def test_with_one_image_each_a_difference_has_the_freedom_of_the_numbers_of_patients():
    # 6 positive patients of 24: by hand (1/6 + 1/18)^2 / (1 / (36 x 5) + 1 / (324 x 17)).
    by_hand = (1 / 6 + 1 / 18) ** 2 / (1 / (36 * 5) + 1 / (324 * 17))
    truth, owner = np.arange(24) < 6, np.arange(24)
    rng = np.random.default_rng(6)
    scores = [np.where(np.arange(24) == 0, -5.0, rng.normal(size=24) + truth) for _ in range(2)]
    first, second = (auroc_parts(truth, values, owner, 24) for values in scores)
    spread = satterthwaite_freedom((first - second).contributions)
    assert spread < by_hand
    assert (first - second).freedom == pytest.approx(by_hand)
    assert first.freedom == pytest.approx(satterthwaite_freedom(first.contributions))
    # The seventh negative patient has two images.
    owner, truth = np.r_[owner, 12], np.r_[truth, False]
    first, second = (auroc_parts(truth, np.r_[values, 0.0], owner, 24) for values in scores)
    gap = first - second
    assert gap.freedom == pytest.approx(satterthwaite_freedom(gap.contributions))


def test_independent_images_give_delong():
    truth, (first, second), _ = draw_images(7)
    gap = metrics.auroc_difference(truth, first, second)
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


def test_without_a_fold_of_both_classes_there_is_no_auroc():
    truth = np.array([True, True, False, False])
    assert auroc_parts(truth, np.arange(4.0), np.arange(4), 4, folds=np.array([0, 0, 1, 1])) is None


@pytest.mark.release
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


def test_classes_wholly_apart_have_the_exact_interval_of_pairs_with_missed_ones_at_chance():
    truth = np.arange(40) < 8
    for scores, value in ((1.0 * truth, 1.0), (-1.0 * truth, 0.0)):
        found = auroc_parts(truth, scores, np.arange(40), 40).estimate()
        exact = binomtest(int(8 * value), 8).proportion_ci(method="exact")
        assert (found.estimate, found.exact) == (value, True)
        halved = (0.5 + exact.low / 2, 1.0) if value else (0.0, exact.high / 2)
        assert found.interval_at(0.95) == pytest.approx(halved)
    # Every image twice, and both classes in each patient: four pairs, and not sixteen.
    owner, truth = np.repeat(np.arange(8), 4), np.tile([True, False, True, False], 8)
    found = auroc_parts(truth, 1.0 * truth, owner, 8).estimate()
    assert found.interval_at(0.95)[0] == pytest.approx(0.5 + 0.025 ** (1 / 4) / 2)
    assert auroc_parts([1, 1], [0.1, 0.2], np.arange(2), 2) is None


@pytest.mark.parametrize(
    ("positive", "negative", "better"),
    [(2, 2, False), (3, 3, False), (2, 8, True), (5, 1000, True)],
)
def test_images_that_are_wholly_apart_are_better_than_chance_if_guesses_rarely_are(
    positive, negative, better
):
    count = positive + negative
    truth = np.arange(count) < positive
    found = auroc_parts(truth, 1.0 * truth, np.arange(count), count).estimate()
    assert (found.ci_low > 0.5) == better == (1 / comb(count, positive) < 0.025)


def test_an_auroc_just_below_1_is_as_sure_as_one_of_exactly_1():
    truth = np.arange(60) >= 30
    scores = np.arange(60.0)
    whole = auroc_parts(truth, scores, np.arange(60), 60).estimate()
    scores[29] = 39.5  # one negative above ten positives
    nearly = auroc_parts(truth, scores, np.arange(60), 60).estimate()
    assert (
        whole.interval_at(0.95)[0] - 0.1 < nearly.interval_at(0.95)[0] < whole.interval_at(0.95)[0]
    )
    assert nearly.estimate < nearly.interval_at(0.95)[1] < 1


def test_an_auroc_is_limited_as_if_missed_images_ranked_at_chance_only_if_all_rank_above_half():
    rng = np.random.default_rng(7)
    shares = []
    for few in rng.integers(3, 13, 60):
        truth = np.arange(90) < few
        scores = np.round(rng.normal(1.4 * truth), 1)
        owner = np.arange(90) // (1 + few % 2)
        for turned in (1, -1):  # the scores, and the labels below: the rarer class is negative
            for labels in (truth, ~truth):
                found = auroc_parts(labels, turned * scores, owner, 90).estimate()
                images = pd.DataFrame({"label": 1 * labels, "score": turned * scores})
                expected = rebuild.auroc(images.assign(patient_id=owner))
                assert (found.estimate, *found.interval_at(0.95)) == pytest.approx(expected)
                shares.append(found.missed)
    assert 40 < shares.count(0.5) < 200
    assert shares.count(0.0) == len(shares) - shares.count(0.5)


@pytest.mark.parametrize(("lowest", "better"), [(0.55, True), (0.45, False)])
def test_five_positive_images_above_half_of_the_others_are_better_than_chance(lowest, better):
    negative = (np.arange(150) + 0.5) / 150
    positive = [lowest, 0.81, 0.9, 0.97, 0.99]
    labels = np.repeat([0, 1], [150, 5])
    scores = np.append(negative, positive)
    result = cxr_compare.compare({"A": scores}, truth=labels, replicates=100)
    (row,) = result.figures.query("metric == 'auroc'").to_dict("records")
    assert row["estimate"] > 0.82
    assert (row["ci_low"] > 0.5) == better
    assert any("better than chance" in text for text in result.cautions) != better


def test_the_interval_of_a_rare_finding_does_not_rest_on_the_ranks_of_its_few_images():
    truth = np.arange(400) < 6
    scores = np.random.default_rng(2).normal(size=400)
    scores[truth] = np.quantile(scores[~truth], [0.88, 0.89, 0.9, 0.9, 0.91, 0.92])
    found = metrics.estimate("auroc", truth, scores)
    low, high = rebuild.newcombe(found.estimate, 6, 394)
    assert found.ci_low == pytest.approx(low)
    assert found.ci_high == pytest.approx(high)
    by_ranks = auroc_parts(truth, scores, np.arange(400), 400).variance ** 0.5
    assert found.estimate - found.ci_low > 2 * t.ppf(0.975, 5) * by_ranks
    opposite = metrics.estimate("auroc", truth, -scores)
    assert (1 - opposite.ci_high, 1 - opposite.ci_low) == pytest.approx((low, high))


def test_copies_of_images_make_no_auroc_surer_and_more_patients_do():
    truth, patient = np.arange(60) < 6, np.arange(60)
    scores = np.random.default_rng(12).normal(size=60)
    scores[truth] = np.quantile(scores[~truth], 0.7) + np.arange(6) / 100

    def ends(patients):
        copies = len(patients) // 60
        images = np.tile(truth, copies), np.tile(scores, copies)
        return [*metrics.estimate("auroc", *images, patients)[["ci_low", "ci_high"]]]

    alone = ends(patient)
    assert alone == pytest.approx(rebuild.newcombe(roc_auc_score(truth, scores), 6, 54))
    assert ends(np.tile(patient, 3)) == pytest.approx(alone)
    assert np.diff(ends(np.arange(180))) < 0.8 * np.diff(alone)


def test_a_system_against_itself_differs_by_nothing_and_gets_no_p_value():
    truth, (scores, _), owner = draw_images(1)
    gap = metrics.auroc_difference(truth, scores, scores, owner)
    assert (gap.estimate, gap.interval_at(0.95), gap.p_value) == (0.0, None, None)


def test_an_interval_of_a_difference_reaches_no_further_than_1():
    labels, scores = [0, 0, 0, 1, 1, 1], np.array([1, 2, 4, 3, 5, 6.0])
    for sign in (1, -1):
        gap = metrics.auroc_difference(labels, sign * scores, -sign * scores)
        low, high = gap.interval_at(0.99)
        assert max(-low, high) == 1.0
        assert abs(low + high) < 2


def test_one_patient_of_a_class_gives_no_interval():
    parts = auroc_parts([0, 0, 1], [0.1, 0.5, 0.4], np.array([0, 1, 2]), 3)
    assert parts.estimate().interval_at(0.95) is None
    assert parts.variance is None
    assert parts.estimate().note


def drawn_hits(seed, n_patients=60, most=5):
    """Hits of images that resemble those of the same patient: hits and images by patient."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, most + 1, n_patients).astype(float)
    share = rng.beta(3, 1.5, n_patients)
    return rng.binomial(images.astype(int), share).astype(float), images


def test_with_one_image_each_the_variance_is_that_of_a_share():
    hits = np.r_[np.ones(30), np.zeros(10)]
    estimate = ShareParts.from_sums(hits, np.ones(40)).estimate()
    assert estimate.estimate == 0.75
    assert estimate.error**2 == pytest.approx(0.75 * 0.25 / 39)
    exact = binomtest(30, 40).proportion_ci(method="exact")
    assert exact.low <= estimate.ci_low < 0.75 < estimate.ci_high <= exact.high


def test_contributions_are_deviations_corrected_for_leverage():
    hits, images = drawn_hits(1)
    parts = ShareParts.from_sums(hits, images)
    expected = without_leverage((hits - parts.value * images) / images.sum(), images)
    np.testing.assert_allclose(parts.contributions, expected, atol=1e-12)


def test_copies_of_images_and_patients_without_images_change_nothing():
    hits, images = drawn_hits(2)
    once = ShareParts.from_sums(hits, images).estimate()
    several = ShareParts.from_sums(7 * hits, 7 * images).estimate()
    absent = ShareParts.from_sums(np.r_[hits, 0, 0], np.r_[images, 0, 0]).estimate()
    for other in (several, absent):
        assert (other.ci_low, other.ci_high) == pytest.approx((once.ci_low, once.ci_high))


@pytest.mark.release
def test_the_error_is_that_of_a_bootstrap_of_patients():
    hits, images = drawn_hits(3, n_patients=200)
    replicates = cluster_bootstrap(lambda w: {"x": (w @ hits) / (w @ images)}, Resamples(200, 2000))
    found = ShareParts.from_sums(hits, images).estimate()
    assert found.error == pytest.approx(np.std(replicates["x"]), rel=0.06)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_0_or_1_is_exact_with_the_effective_patients(share):
    images = np.array([1.0, 1.0, 1.0, 3.0])
    estimate = ShareParts.from_sums(share * images, images).estimate()
    trials = 36 / 12
    ends = (0.0, 1 - 0.025 ** (1 / trials)) if share == 0 else (0.025 ** (1 / trials), 1.0)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx(ends)


def test_a_class_without_an_error_still_adds_to_the_interval():
    kinds = np.eye(4)  # patients of one image: tp, fp, tn, fn
    few = np.repeat(kinds[[0, 2, 1]], [3, 80, 20], axis=0)  # three positives, all found
    many = np.repeat(kinds[[0, 2, 1]], [100, 80, 20], axis=0)
    wide, narrow = (
        product.interval_of_counts(counts, "balanced_accuracy", 0.9) for counts in (few, many)
    )
    assert wide["ci_high"] - wide["ci_low"] > 2 * (narrow["ci_high"] - narrow["ci_low"])
    assert wide["ci_low"] < 0.8


def test_the_interval_of_a_mean_of_shares_has_those_of_the_shares_and_their_correlation():
    rng = np.random.default_rng(4)
    images = rng.integers(0, 4, (40, 3)).astype(float)
    hits = rng.binomial(images.astype(int), rng.random((40, 1)))  # patients differ: correlated
    shares = [ShareParts.from_sums(*each) for each in zip(hits.T, images.T, strict=True)]
    found = mean_interval(shares)
    q = np.array([each.contributions for each in shares])
    norms = np.sqrt((q**2).sum(axis=1))
    assert q[0] @ q[1] > 0.2 * norms[0] * norms[1]
    for sign, end in ((-1, found.ci_low), (1, found.ci_high)):
        gaps = [
            sign * (each.estimate().interval_at(0.95)[sign > 0] - each.value) for each in shares
        ]
        squared = sum(
            gaps[i] * gaps[j] * (q[i] @ q[j]) / (norms[i] * norms[j])
            for i in range(3)
            for j in range(3)
        )
        assert end == pytest.approx(np.mean([s.value for s in shares]) + sign * squared**0.5 / 3)
    one = ShareParts.from_sums(np.array([1.0, 0]), np.array([2.0, 0]))
    assert not mean_interval([shares[0], one]).bounded  # a share of one patient has none
    assert mean_interval([shares[0], one]).note


def test_one_patient_of_a_class_gives_no_interval_of_counts():
    counts = np.repeat(np.eye(4)[[0, 2, 1]], [1, 8, 2], axis=0)
    estimate = function_of_counts(lambda sums: sums[..., 0] / sums.sum(axis=-1), counts)
    assert not estimate.has_interval
    assert estimate.note


def test_f1_has_the_interval_of_the_share_that_it_follows_from():
    y_true = np.r_[np.ones(20), np.zeros(30)].astype(int)
    scores = np.r_[np.full(15, 0.9), np.full(5, 0.1), np.full(6, 0.9), np.full(24, 0.1)]
    found = metrics.estimate("f1", y_true, scores, threshold=0.5)
    jaccard = ShareParts.from_sums(np.r_[np.ones(15), np.zeros(11)], np.ones(26)).estimate()
    ends = [2 * end / (1 + end) for end in (jaccard.ci_low, jaccard.ci_high)]
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(ends))


def drawn_decisions(patients, images, share):
    """Labels and scores of images, the patient of each, all images of a patient of one class."""
    rng = np.random.default_rng(9)
    owner = np.repeat(np.arange(patients), images)
    truth = (np.arange(patients) < share * patients)[owner].astype(int)
    return truth, (0.6 * truth + rng.random(len(owner))) / 1.6, owner


def test_accuracy_of_several_images_a_patient_has_the_wider_of_two_intervals():
    truth, scores, owner = drawn_decisions(60, np.arange(60) % 7 + 1, 0.2)
    found = metrics.estimate("accuracy", truth, scores, owner, threshold=0.45)
    right = (scores >= 0.45) == truth
    hits, images = (np.bincount(owner, weights) for weights in (right, None))
    as_share = ShareParts.from_sums(hits, images.astype(float)).estimate()
    outcomes = [right & (truth == 1), ~right & (truth == 0), right & (truth == 0)]
    counts = per_cluster(np.column_stack([*outcomes, ~right & (truth == 1)]), owner, 60)
    of_counts = function_of_counts(lambda c: (c[..., 0] + c[..., 2]) / c.sum(-1), counts)
    assert of_counts.ci_low < as_share.ci_low
    assert of_counts.ci_high < as_share.ci_high
    assert (found.ci_low, found.ci_high) == pytest.approx((of_counts.ci_low, as_share.ci_high))


@pytest.mark.parametrize(("images", "share"), [(1, 0.2), (4, 0.0)])
def test_accuracy_is_a_share_with_one_image_a_patient_or_one_class(images, share):
    truth, scores, owner = drawn_decisions(60, images, share)
    found = metrics.estimate("accuracy", truth, scores, owner, threshold=0.45)
    hits = np.bincount(owner, (scores >= 0.45) == truth)
    as_share = ShareParts.from_sums(hits, np.full(60, float(images))).estimate()
    assert (found.ci_low, found.ci_high) == pytest.approx((as_share.ci_low, as_share.ci_high))


def test_one_image_each_inflates_no_variance():
    assert class_inflation(np.array([1.0, 0, 0, 1]), np.ones(4)) == 1
    assert class_inflation(np.r_[np.ones(7), np.zeros(42)], np.ones(49)) == pytest.approx(1)
    assert class_inflation(np.zeros(4), np.ones(4)) == 1


def test_a_variance_is_inflated_if_all_patients_of_a_class_happen_to_have_few_images():
    # Effective patients: 2 of the class; 20^2 / (5 x 1 + 15^2) of all, of whom a third is expected.
    of_class, images = np.array([1.0, 1, 0, 0, 0, 0]), np.array([1.0, 1, 1, 1, 1, 15])
    assert class_inflation(of_class, images) == pytest.approx(2 / (400 / 230 / 3))
    # Effective patients 4^2 / (1 + 1 + 4) and 12^2 / (1 + 1 + 4 + 64), share 3/4; one has no image.
    of_class, images = np.array([1.0, 1, 2, 0, 0]), np.array([1.0, 1, 2, 8, 0])
    assert class_inflation(of_class, images) == pytest.approx((16 / 6) / (3 / 4 * 144 / 70))


def test_a_variance_is_inflated_less_if_patients_have_images_of_both_classes():
    # Of the class 1 of 1, 1 of 1, 1 of 2 and 1 of 8 images, so 4 effective patients and a share of
    # 2.625 / 4; effective are 12^2 / (1 + 1 + 4 + 64) patients, and 70 / 4 is the mean square.
    # With one such patient more, all of the class, the patient of an image of the class has
    # (4 + 17.5) / (1 + 1 + 2 + 8 + 17.5) of the images in the class.
    of_class, images = np.ones(4), np.array([1.0, 1, 2, 8])
    expected = 2.625 / 4 * (144 / 70) / (21.5 / 29.5)
    assert class_inflation(of_class, images) == pytest.approx(4 / expected)
    # Six of ten images of each of many patients: hardly more alike than by chance.
    of_class, images = np.full(100, 6.0), np.full(100, 10.0)
    assert class_inflation(of_class, images) == pytest.approx(1.01, abs=0.01)


@pytest.mark.release
def test_few_patients_of_a_class_are_expected_to_be_as_unequal_as_all_patients():
    rng = np.random.default_rng(8)
    images = np.ceil(rng.pareto(1.2, 100_000)).clip(1, 60)
    positive = np.where(rng.random(len(images)) < 0.05, images, 0.0)
    expected = effective_patients(positive) / len(images)
    ratios = []
    for _ in range(200):
        drawn_patients = rng.integers(len(images), size=300)
        of_class, of_all = positive[drawn_patients], images[drawn_patients]
        ratio = effective_patients(of_class) / (300 * expected)
        ratios.append((ratio, ratio / class_inflation(of_class, of_all)))
    found, corrected = np.array(ratios).T
    assert np.mean(found) > 2  # samples look more even than the population
    assert np.mean(corrected) < 1.2


def test_an_inflated_variance_widens_the_interval_of_a_share():
    hits, images = drawn_hits(3)
    plain = ShareParts.from_sums(hits, images).estimate()
    wide = ShareParts.from_sums(hits, images, 2.0).estimate()
    assert wide.estimate == plain.estimate
    assert wide.error == pytest.approx(np.sqrt(2) * plain.error)
    assert wide.ci_low < plain.ci_low
    assert plain.ci_high < wide.ci_high


def test_an_inflated_variance_widens_the_interval_of_a_function_of_counts():
    counts = np.repeat(np.eye(4), [9, 4, 20, 3], axis=0)
    plain, wide = (
        function_of_counts(lambda sums: (sums[..., 0] + sums[..., 2]) / sums.sum(-1), counts, w)
        for w in (1.0, 2.0)
    )
    assert wide.estimate == plain.estimate
    assert wide.error == pytest.approx(np.sqrt(2) * plain.error)


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


def test_a_patient_has_one_fold_which_the_order_of_the_names_decides():
    named = patient_folds(np.array(["q", "x", "p", "q"]))
    assert named.tolist() == patient_folds(np.array(["2", "3", "1", "2"])).tolist() == [1, 2, 0, 1]
    counts = np.bincount(patient_folds(np.array([f"p{n}" for n in range(5000)])))
    assert counts.tolist() == [1000] * 5


def test_holm_steps_down_and_skips_what_could_not_be_tested():
    assert holm_corrected([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm_corrected([0.9, 0.8]) == [1.0, 1.0]
    assert holm_corrected([]) == []


def test_undefined_replicates_are_left_out_counted_or_forbid_an_interval():
    few = np.append(np.linspace(0, 1, 99), np.nan)
    assert percentile_interval(few).bounded
    assert "1 of 100" in percentile_interval(few).note
    many = np.append(np.linspace(0, 1, 50), np.full(50, np.nan))
    interval = percentile_interval(many)
    assert not interval.bounded
    assert "50 of 100" in interval.note


def test_a_figure_that_no_resample_moves_gets_no_interval():
    interval = percentile_interval(np.ones(200))  # as a sensitivity of 1 has on any resample
    assert not interval.bounded
    assert interval.unmoved
    assert interval.note


@pytest.mark.release
def test_expanded_percentiles_cover_a_mean_of_few_patients_as_often_as_of_many():
    rng = np.random.default_rng(11)
    values = rng.normal(size=(1500, 12))
    weights = np.concatenate(list(Resamples(12, 800).chunks())) / 12
    means = values @ weights.T
    covered = {
        level: np.mean(
            [
                found.ci_low <= 0 <= found.ci_high
                for found in (percentile_interval(row, level) for row in means)
            ]
        )
        for level in (0.95, expanded_level(0.95, 12))
    }
    plain, expanded = covered.values()
    assert plain < 0.92
    assert 0.93 <= expanded <= 0.97


@pytest.mark.parametrize(
    ("peak", "crowd"),  # 16 bits hold 4,095 boxes of weight 16
    [(1, 3), (16, 4095), (16, 4096), (17, 4095), (1, 70_000), (30_000, 70_000)],
)
def test_sums_are_those_of_a_plain_loop_however_large(peak, crowd):
    rng = np.random.default_rng(crowd)
    segment = np.append(np.zeros(crowd, dtype=int), rng.integers(0, 5, 200))
    clusters = rng.integers(0, 7, len(segment))
    weights = rng.integers(0, peak + 1, (3, 7))
    expected = np.zeros((3, 6))
    for row in range(3):
        np.add.at(expected[row], segment, weights[row, clusters])
    assert SegmentSums(segment, clusters, 6, 7)(weights).tolist() == expected.tolist()


def test_without_boxes_and_without_segments_sums_are_empty():
    none = np.array([], dtype=int)
    assert SegmentSums(none, none, 2, 1)(np.ones((1, 1), int)).tolist() == [[0, 0]]
    assert SegmentSums(none, none, 0, 1)(np.ones((2, 1), int)).shape == (2, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(0, 6), st.randoms(use_true_random=False))
def test_each_row_is_searched_as_if_alone(n_rows, length, random):
    counts = np.array([[random.randint(0, 3) for _ in range(length)] for _ in range(n_rows)])
    counts = counts.reshape(n_rows, length)
    rows, sums = RunningRows(counts), np.cumsum(counts, axis=1)
    assert rows.sums.tolist() == sums.tolist()
    sought = np.array([[random.randint(0, 20) for _ in range(5)] for _ in range(n_rows)])
    for side in ("left", "right"):
        expected = [np.searchsorted(sums[k], sought[k], side).tolist() for k in range(n_rows)]
        assert rows.search(sought, side).tolist() == expected


def test_an_interval_that_would_exclude_its_figure_is_none_and_says_where_it_lies():
    found = percentile_interval(np.linspace(5, 6, 100), estimate=0.5)
    assert not found.bounded
    assert "5.025 to 5.975" in found.note


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 17), (16, 17)])
def test_exact_intervals_of_a_share_are_those_of_scipy(hits, trials):
    theirs = binomtest(hits, trials).proportion_ci(method="exact")
    ours = product.Interval.from_share(hits / trials, trials)
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(theirs), abs=1e-12)


def test_a_bootstrap_p_value_counts_both_sides_and_never_reaches_0():
    assert bootstrap_p_value(np.full(1999, 0.1), None) == pytest.approx(2 / 2000)
    mixed = np.r_[np.full(95, 0.1), np.full(4, -0.1)]
    assert bootstrap_p_value(mixed, None) == pytest.approx(0.1)
    assert bootstrap_p_value(np.r_[np.full(50, 0.0), np.full(49, 1.0)], None) == 1.0
    # On normal replicates it is the normal p-value; for few patients Student's t, and wider.
    drawn = np.random.default_rng(0).normal(2.0, 1.0, 200_000)
    assert bootstrap_p_value(drawn, None) == pytest.approx(0.0455, abs=0.002)
    z = norm.isf(bootstrap_p_value(drawn, None) / 2) * np.sqrt(11 / 12)
    assert bootstrap_p_value(drawn, 12) == pytest.approx(2 * t.sf(z, 11))


@pytest.mark.parametrize("shift", [0.03, -0.03])
def test_the_lower_end_of_a_precision_leaves_out_twice_the_bias_of_its_replicates(shift):
    drawn = np.random.default_rng(5).normal(0.5 + shift, 0.05, 500)
    ends, bias = np.quantile(drawn, [0.025, 0.975]), drawn.mean() - 0.5
    found = lower_for_bias(np.append(drawn, np.nan), 0.5)
    expected = ends[0] - 2 * max(bias, 0), ends[1]
    assert np.nanquantile(found, [0.025, 0.975]) == pytest.approx(expected)
    assert np.isnan(found).sum() == 1
    assert lower_for_bias(np.array([0.0, 0.1, 0.9, 0.9]), 0.1).min() == 0
