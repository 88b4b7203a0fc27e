"""The vectorised bootstrap equals a plain loop, and patients are drawn whole."""

import threading
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn import metrics as oracle
from sklearn.metrics import roc_curve

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.calibration_figures import CalibrationFigures
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.statistics.bands import roc_band, share_band
from cxr_compare.evaluation.statistics.bootstrap import (
    Resamples,
    cluster_bootstrap,
    cluster_index,
    per_cluster,
)
from cxr_compare.evaluation.statistics.intervals import (
    NO_WIDTH,
    Interval,
    expanded_level,
    percentile_interval,
)
from cxr_compare.evaluation.statistics.ranking import RankedScores
from cxr_compare.evaluation.statistics.running_sums import RunningRows, SegmentSums

THRESHOLD = 0.6


@pytest.fixture(scope="module")
def clustered():
    """90 images of 30 patients, scores with ties."""
    rng = np.random.default_rng(7)
    patients = rng.integers(0, 30, 90)
    y_true = (rng.random(90) < 0.3).astype(int)
    y_score = np.round(np.clip(rng.normal(0.4 + 0.2 * y_true, 0.2), 0, 1), 2)
    return y_true, y_score, cluster_index([f"p{p:02d}" for p in patients])


def test_every_replicate_equals_a_plain_loop_over_scikit_learn(clustered):
    y_true, y_score, (patients, n_patients) = clustered
    resamples = Resamples(n_patients, n_replicates=120, seed=3)
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


def roc_by_hand(truth, score):
    """Points of the ROC curve, one per distinct score, by counting at each."""
    cuts = [np.inf, *np.unique(score)[::-1]]
    fpr = [float((score[~truth] >= cut).mean()) for cut in cuts]
    tpr = [float((score[truth] >= cut).mean()) for cut in cuts]
    return np.array(fpr), np.array(tpr)


def best_on_roc(truth, score, level):
    """Brute force: highest TPR and lowest FPR of points and of crossings of its line segments."""
    fpr, tpr = roc_by_hand(truth, score)
    recall = [t for f, t in zip(fpr, tpr, strict=True) if f <= 1 - level + 1e-9]
    false = [f for f, t in zip(fpr, tpr, strict=True) if t >= level - 1e-9]
    for (f0, f1), (t0, t1) in zip(pairwise(fpr), pairwise(tpr), strict=True):
        if f0 < 1 - level < f1:
            recall.append(t0 + (1 - level - f0) / (f1 - f0) * (t1 - t0))
        if t0 < level < t1:
            false.append(f0 + (level - t0) / (t1 - t0) * (f1 - f0))
    return {"recall": max(recall), "specificity": 1 - min(false)}


@pytest.mark.parametrize("level", [0.0, 0.5, 0.7, 0.9, 0.95, 1.0])
def test_matched_figures_lie_on_the_roc_curve_of_every_resample(clustered, level):
    y_true, y_score, (patients, n_patients) = clustered
    weights = np.concatenate(list(Resamples(n_patients, 12, seed=8).chunks()))
    weights[0] = 1
    found = RankedScores(y_true, y_score, patients).sums(weights).matched(level)
    for row, of_patient in enumerate(weights):
        chosen = np.repeat(np.arange(len(y_true)), of_patient[patients])
        truth, score = y_true[chosen] == 1, y_score[chosen]
        for name, value in best_on_roc(truth, score, level).items():
            assert found[name][row] == pytest.approx(value, abs=1e-9), (name, row)
        fpr, tpr, _ = oracle.roc_curve(truth, score, drop_intermediate=False)
        if not np.isclose(fpr, 1 - level, atol=1e-9).any():  # else the curve may rise there
            assert found["recall"][row] == pytest.approx(np.interp(1 - level, fpr, tpr))


def test_a_matched_figure_needs_both_classes_and_no_threshold_of_validation():
    found = RankedScores([1, 1], [0.2, 0.4]).sums(np.ones((2, 2), dtype=int)).matched(0.9)
    assert np.isnan(found["recall"]).all()
    # Ten negatives at a specificity of 0.90 allow one false positive, whole.
    scores = [0.95, *np.arange(10) / 10, 0.85]
    labels = [1, *[0] * 10, 1]
    exact = RankedScores(labels, scores).sums(np.ones((1, 12), dtype=int)).matched(0.9)
    assert exact["recall"].tolist() == [1.0]


def test_the_same_seed_gives_the_same_resamples_however_they_are_chunked(monkeypatch):
    whole = np.concatenate(list(Resamples(11, 50, seed=5).chunks()))
    monkeypatch.setattr("cxr_compare.evaluation.statistics.bootstrap._CHUNK_CELLS", 40)
    pieces = list(Resamples(11, 50, seed=5).chunks())
    assert len(pieces) > 10
    np.testing.assert_array_equal(whole, np.concatenate(pieces))
    assert (whole.sum(axis=1) == 11).all()
    assert not np.array_equal(whole, np.concatenate(list(Resamples(11, 50, seed=6).chunks())))


def test_resamples_do_not_depend_on_the_order_of_the_images():
    patients = np.array(["c", "a", "b", "a"])
    index, n = cluster_index(patients)
    shuffled, _ = cluster_index(patients[::-1])
    assert n == 3
    assert index.tolist() == shuffled[::-1].tolist()


def test_repeating_every_image_of_a_patient_does_not_narrow_the_interval(clustered):
    # The known mistake: a bootstrap by image takes copies for new evidence.
    y_true, y_score, (patients, n_patients) = clustered
    resamples = Resamples(n_patients, 200, seed=1)
    once = RankedScores(y_true, y_score, patients)
    copies = RankedScores(np.tile(y_true, 5), np.tile(y_score, 5), np.tile(patients, 5))
    single = cluster_bootstrap(lambda w: once.figures(w), resamples)["auroc"]
    fivefold = cluster_bootstrap(lambda w: copies.figures(w), resamples)["auroc"]
    np.testing.assert_allclose(single, fivefold, atol=1e-12)


def test_undefined_replicates_are_left_out_counted_or_forbid_an_interval():
    few = np.append(np.linspace(0, 1, 99), np.nan)
    assert percentile_interval(few).note == "undefined in 1 of 100 resamples, left out"
    many = np.append(np.linspace(0, 1, 50), np.full(50, np.nan))
    interval = percentile_interval(many)
    assert not interval.bounded
    assert interval.note == "undefined in 50 of 100 resamples"


def test_a_figure_that_no_resample_moves_gets_no_interval():
    interval = percentile_interval(np.ones(200))  # as a sensitivity of 1 has on any resample
    assert (interval.bounded, interval.note) == (False, NO_WIDTH)


def test_a_bootstrap_steps_its_progress_by_replicates(clustered):
    _, _, (_, n_patients) = clustered
    steps = []
    cluster_bootstrap(lambda w: {"n": w.sum(axis=1)}, Resamples(n_patients, 70), steps.append)
    assert sum(steps) == 70


def test_chunks_that_end_in_another_order_are_put_back_in_theirs(monkeypatch):
    monkeypatch.setattr("cxr_compare.evaluation.statistics.bootstrap._CHUNK_CELLS", 40)
    resamples = Resamples(10, 12, seed=4)
    monkeypatch.setattr("cxr_compare.evaluation.statistics.bootstrap._thread_count", lambda: 1)
    alone = cluster_bootstrap(lambda w: {"first": w[:, 0].astype(float)}, resamples)["first"]
    monkeypatch.setattr("cxr_compare.evaluation.statistics.bootstrap._thread_count", lambda: 2)
    begun, second_ended = iter(range(3)), threading.Event()

    def first_chunk_ends_last(weights):
        if next(begun) == 0:
            assert second_ended.wait(timeout=60)  # so two are under way at once
        else:
            second_ended.set()
        return {"first": weights[:, 0].astype(float)}

    assert cluster_bootstrap(first_chunk_ends_last, resamples)["first"].tolist() == alone.tolist()


def test_a_failure_in_a_chunk_is_heard():
    def broken(weights):
        raise InputError("no figure")

    with pytest.raises(InputError, match="no figure"):
        cluster_bootstrap(broken, Resamples(10, 12))


def test_counts_of_other_images_are_refused():
    with pytest.raises(InputError, match="values of 2 images"):
        per_cluster([[1], [2]], np.array([0]), 1)


@pytest.mark.slow
def test_intervals_cover_the_truth_on_clustered_data():
    """AUROC of clustered normal scores: coverage near 95 % over 200 simulated test sets."""
    rng = np.random.default_rng(0)
    n_patients, per_patient, shift = 120, 3, 1.0
    # Total variance 1 + 0.5: AUROC = Phi(shift / sqrt(2 * 1.5)) between images of two patients.
    truth = 0.7181485691746134
    covered = 0
    for _ in range(200):
        patient_effect = np.repeat(rng.normal(0, np.sqrt(0.5), n_patients), per_patient)
        sick = np.repeat(rng.random(n_patients) < 0.4, per_patient)
        score = patient_effect + rng.normal(0, 1, n_patients * per_patient) + shift * sick
        patients = np.repeat(np.arange(n_patients), per_patient)
        ranked = RankedScores(sick, score, patients)
        drawn = cluster_bootstrap(ranked.figures, Resamples(n_patients, 500, seed=1))
        interval = percentile_interval(drawn["auroc"])
        covered += interval.low <= truth <= interval.high
    assert 0.91 <= covered / 200 <= 0.985


def test_frames_of_pandas_strings_are_clusters_too():
    index, n = cluster_index(pd.Series(["x", "y", "x"]))
    assert (index.tolist(), n) == ([0, 1, 0], 2)


def test_a_figure_that_resampling_itself_shifts_has_no_interval_and_says_why():
    """Expected calibration error near 0: every resample adds noise to the gaps of its bins."""
    rng = np.random.default_rng(1)
    n = 4000
    p = rng.uniform(0.02, 0.98, n)
    # As well calibrated as can be: the labels of each tenth sum to what it expects.
    truth = np.zeros(n)
    order = np.argsort(p)
    truth[order[np.flatnonzero(np.diff(np.floor(np.r_[0.0, np.cumsum(p[order])])) > 0)]] = 1
    figures = CalibrationFigures(truth, p, np.arange(n))
    drawn = cluster_bootstrap(figures.figures, Resamples(n, 400))["ece"]
    estimate = float(figures.figures()["ece"][0])
    plain = percentile_interval(drawn)
    assert plain.low > estimate  # what the reader would have been shown
    found = percentile_interval(drawn, estimate=estimate)
    assert not found.bounded
    assert f"{plain.low:.3f} to {plain.high:.3f}" in found.note
    kept = cluster_bootstrap(figures.figures, Resamples(n, 400))["brier"]
    assert percentile_interval(kept, estimate=float(figures.figures()["brier"][0])).bounded


def test_expanded_percentiles_cover_a_mean_of_few_patients_as_often_as_of_many():
    rng = np.random.default_rng(11)
    values = rng.normal(size=(1500, 12))
    weights = np.concatenate(list(Resamples(12, 800).chunks())) / 12
    means = values @ weights.T
    covered = {
        level: np.mean(
            [
                found.low <= 0 <= found.high
                for found in (percentile_interval(each, level) for each in means)
            ]
        )
        for level in (0.95, expanded_level(0.95, 12))
    }
    plain, expanded = covered.values()
    assert plain < 0.92
    assert 0.93 <= expanded <= 0.97


def test_roc_band_is_the_middle_of_scikit_learns_curves_of_the_same_resamples():
    rng = np.random.default_rng(3)
    patients = rng.integers(0, 25, 60)
    labels = rng.random(60) < 0.4
    scores = np.round(labels + rng.normal(0, 1, 60), 1)  # with ties
    at = np.linspace(0, 1, 11)
    of, count = cluster_index(patients)
    curves = []
    for weights in np.concatenate(list(Resamples(count, 40, 7).chunks())):
        kept = weights[of] > 0
        false, true, _ = roc_curve(labels[kept], scores[kept], sample_weight=weights[of][kept],
                                   drop_intermediate=False)  # fmt: skip
        curves.append(np.interp(at, false, true))
    low, high = roc_band(labels, scores, patients, at, resamples=40, seed=7)
    assert low == pytest.approx(np.quantile(curves, 0.025, axis=0))
    assert high == pytest.approx(np.quantile(curves, 0.975, axis=0))


def test_scores_that_are_all_equal_have_the_diagonal_as_band():
    at = np.linspace(0, 1, 5)
    low, high = roc_band([1, 0, 1, 0], [0.5] * 4, list("abcd"), at)
    assert low == pytest.approx(at)
    assert high == pytest.approx(at)


def test_share_of_independent_images_has_the_band_of_a_binomial():
    labels = np.arange(100) < 30
    groups = np.zeros(100, dtype=int)
    low, high = share_band(labels, groups, np.arange(100), resamples=4000)
    assert low[0] == pytest.approx(binom.ppf(0.025, 100, 0.3) / 100, abs=0.015)
    assert high[0] == pytest.approx(binom.ppf(0.975, 100, 0.3) / 100, abs=0.015)
    # Ten images of each patient with one label: as few draws as patients.
    wide_low, wide_high = share_band(labels, groups, np.arange(100) // 10, resamples=4000)
    assert wide_high[0] - wide_low[0] > 2.5 * (high[0] - low[0])


@pytest.mark.parametrize(("label", "copies"), [(0, 1), (1, 1), (0, 3)])
def test_a_share_of_0_or_1_has_the_exact_band_of_its_patients(label, copies):
    patients = np.repeat(np.arange(56), copies)
    groups = np.zeros(len(patients), dtype=int)
    low, high = share_band(np.full(len(patients), label), groups, patients)
    exact = binomtest(56 * label, 56).proportion_ci(method="exact")
    assert (low[0], high[0]) == pytest.approx(tuple(exact))


def test_the_interval_of_a_difference_follows_from_both():
    # Newcombe 1998, table II, method 10, 56/70 against 48/80: the squares of both reaches add up.
    wilson = [binomtest(*counts).proportion_ci(method="wilson") for counts in ((56, 70), (48, 80))]
    first, second = (Interval(*of) for of in ((0.8, *wilson[0]), (0.6, *wilson[1])))
    gap = first.minus(second)
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert first.minus(second, 0.5).low > gap.low  # what moves together differs less
    assert not first.minus(Interval(0.6)).bounded
    assert first.minus(first, 1.0).note == NO_WIDTH


def test_a_p_value_is_below_a_twentieth_where_the_interval_leaves_0_out():
    assert Interval(0.2, 0.0, 0.5).p_value == pytest.approx(0.05)
    assert Interval(-0.2, -0.3, -0.1).p_value < 0.001
    assert Interval(0.2, -0.1, 0.3).p_value > 0.05
    assert Interval(0.2).p_value is None


@pytest.mark.parametrize("peak", [1, 16, 17, 30_000])  # 16 bits hold 4,095 boxes of weight 16
@pytest.mark.parametrize("crowd", [3, 4095, 4096, 70_000])
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
