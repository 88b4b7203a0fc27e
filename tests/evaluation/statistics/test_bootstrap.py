"""The vectorised bootstrap equals a plain loop, and patients are drawn whole."""

import threading

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from data_prep.contracts.errors import InputError
from evaluation.metrics.image_metrics import rates
from evaluation.statistics.bootstrap import (
    NO_WIDTH,
    Resamples,
    cluster_bootstrap,
    cluster_index,
    per_cluster,
    percentile_interval,
)
from evaluation.statistics.calibration_error import CalibrationFigures
from evaluation.statistics.ranking import RankedScores

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


def test_the_same_seed_gives_the_same_resamples_however_they_are_chunked(monkeypatch):
    whole = np.concatenate(list(Resamples(11, 50, seed=5).chunks()))
    monkeypatch.setattr("evaluation.statistics.bootstrap._CHUNK_CELLS", 40)
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
    monkeypatch.setattr("evaluation.statistics.bootstrap._CHUNK_CELLS", 40)
    resamples = Resamples(10, 12, seed=4)
    monkeypatch.setattr("evaluation.statistics.bootstrap.cpu_count", lambda: 1)
    alone = cluster_bootstrap(lambda w: {"first": w[:, 0].astype(float)}, resamples)["first"]
    monkeypatch.setattr("evaluation.statistics.bootstrap.cpu_count", lambda: 2)
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
    assert "Brier score" in found.note
    kept = cluster_bootstrap(figures.figures, Resamples(n, 400))["brier"]
    assert percentile_interval(kept, estimate=float(figures.figures()["brier"][0])).bounded
