"""Figures at a matched operating point, on the ROC curve of every resample."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics as oracle

from cxr_compare.evaluation.statistics.bootstrap import (
    Resamples,
)
from cxr_compare.evaluation.statistics.ranking import RankedScores


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
def test_matched_figures_lie_on_the_roc_curve_of_every_resample(clustered_scores, level):
    y_true, y_score, (patients, n_patients) = clustered_scores
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
