"""Statistics of images that come in patients, against plain loops, scikit-learn and scipy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t
from sklearn import metrics as oracle
from sklearn.metrics import roc_auc_score

from cxr_compare import metrics
from tests.adapters import figures as product
from tests.adapters.figures import (
    RankedScores,
    Resamples,
    RunningRows,
    SegmentSums,
    auroc_parts,
    bootstrap_p_value,
    class_inflation,
    cluster_bootstrap,
    cluster_index,
    holm_corrected,
    lower_for_bias,
    margin_interval,
    per_cluster,
    percentile_interval,
    rates,
    satterthwaite_freedom,
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
    ranked = RankedScores(y_true == 1, y_score, patients)

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


def test_each_end_of_the_interval_for_a_margin_has_the_variance_of_that_end():
    rng = np.random.default_rng(12)
    moved = []
    for number in range(40):
        count = int(rng.integers(30, 120))
        label = rng.random(count) < rng.uniform(0.2, 0.6)
        owner = np.arange(count) // rng.integers(1, 4)
        skills = rng.uniform(0.2, 3.5, 2)
        scores = [np.round(rng.normal(skill * label), 1 + number % 2) for skill in skills]
        first, second = (auroc_parts(label, values, owner, owner.max() + 1) for values in scores)
        images = pd.DataFrame({"label": 1 * label, "patient_id": owner})
        expected = rebuild.margin_ends(*(images.assign(score=values) for values in scores))
        ends = margin_interval(first, second)
        assert ends == pytest.approx(expected, abs=1e-9)
        turned = margin_interval(second, first)
        assert turned == pytest.approx((-ends[1], -ends[0]), abs=1e-9)
        plain = (first - second).estimate().interval_at(0.95)
        assert ends[0] <= plain[0] < plain[1] <= ends[1]
        moved += [ends[0] < plain[0] - 1e-6, ends[1] > plain[1] + 1e-6]
    assert 20 < sum(moved) < 75
    same = auroc_parts(label, scores[0], owner, owner.max() + 1)
    assert margin_interval(same, same) is None


def test_one_patient_of_a_class_gives_no_interval():
    parts = auroc_parts([0, 0, 1], [0.1, 0.5, 0.4], np.array([0, 1, 2]), 3)
    assert parts.estimate().interval_at(0.95) is None
    assert parts.variance is None
    assert parts.estimate().note


def test_a_variance_is_inflated_if_all_patients_of_a_class_happen_to_have_few_images():
    # Effective patients: 2 of the class; 20^2 / (5 x 1 + 15^2) of all, of whom a third is expected.
    of_class, images = np.array([1.0, 1, 0, 0, 0, 0]), np.array([1.0, 1, 1, 1, 1, 15])
    assert class_inflation(of_class, images) == pytest.approx(2 / (400 / 230 / 3))
    # Effective patients 4^2 / (1 + 1 + 4) and 12^2 / (1 + 1 + 4 + 64), share 3/4; one has no image.
    of_class, images = np.array([1.0, 1, 2, 0, 0]), np.array([1.0, 1, 2, 8, 0])
    assert class_inflation(of_class, images) == pytest.approx((16 / 6) / (3 / 4 * 144 / 70))


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
