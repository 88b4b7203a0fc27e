"""The vectorised bootstrap equals a plain loop, and patients are drawn whole."""

import threading

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle
from threadpoolctl import threadpool_info

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.statistics.bootstrap import (
    Resamples,
    cluster_bootstrap,
    cluster_index,
    per_cluster,
)
from cxr_compare.evaluation.statistics.ranking import RankedScores

THRESHOLD = 0.6


def test_every_replicate_equals_a_plain_loop_over_scikit_learn(clustered_scores):
    y_true, y_score, (patients, n_patients) = clustered_scores
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


def test_repeating_every_image_of_a_patient_does_not_narrow_the_interval(clustered_scores):
    # The known mistake: a bootstrap by image takes copies for new evidence.
    y_true, y_score, (patients, n_patients) = clustered_scores
    resamples = Resamples(n_patients, 200, seed=1)
    once = RankedScores(y_true, y_score, patients)
    copies = RankedScores(np.tile(y_true, 5), np.tile(y_score, 5), np.tile(patients, 5))
    single = cluster_bootstrap(lambda w: once.figures(w), resamples)["auroc"]
    fivefold = cluster_bootstrap(lambda w: copies.figures(w), resamples)["auroc"]
    np.testing.assert_allclose(single, fivefold, atol=1e-12)


def test_a_bootstrap_steps_its_progress_by_replicates(clustered_scores):
    _, _, (_, n_patients) = clustered_scores
    steps = []
    cluster_bootstrap(lambda w: {"n": w.sum(axis=1)}, Resamples(n_patients, 70), steps.append)
    assert sum(steps) == 70


def test_chunks_that_end_in_another_order_are_put_back_in_theirs(monkeypatch):
    resamples = Resamples(10, 12, seed=4)
    monkeypatch.setattr("cxr_compare.evaluation.statistics.bootstrap.thread_count", lambda: 1)
    alone = cluster_bootstrap(lambda w: {"first": w[:, 0].astype(float)}, resamples)["first"]
    monkeypatch.setattr("cxr_compare.evaluation.statistics.bootstrap.thread_count", lambda: 2)
    chunk_numbers = iter(range(12))
    second_ended = threading.Event()

    def first_chunk_ends_last(weights):
        if next(chunk_numbers) == 0:
            assert second_ended.wait(timeout=60)  # so two are under way at once
        else:
            second_ended.set()
        return {"first": weights[:, 0].astype(float)}

    assert cluster_bootstrap(first_chunk_ends_last, resamples)["first"].tolist() == alone.tolist()


def test_an_error_in_a_chunk_is_raised():
    def broken(weights):
        raise InputError("no figure")

    with pytest.raises(InputError, match="no figure"):
        cluster_bootstrap(broken, Resamples(10, 12))


def test_counts_of_other_images_are_refused():
    with pytest.raises(InputError, match="2 images"):
        per_cluster([[1], [2]], np.array([0]), 1)


def test_frames_of_pandas_strings_are_clusters_too():
    index, n = cluster_index(pd.Series(["x", "y", "x"]))
    assert (index.tolist(), n) == ([0, 1, 0], 2)


def test_matrix_products_have_one_thread_beside_the_threads_of_the_bootstrap():
    def threads(weights):
        counts = [library["num_threads"] for library in blas()]
        return {"most": np.full(len(weights), float(max(counts, default=1)))}

    def blas():
        return [library for library in threadpool_info() if library["user_api"] == "blas"]

    before = blas()
    found = cluster_bootstrap(threads, Resamples(3, 5))
    assert found["most"].tolist() == [1.0] * 5
    assert blas() == before
