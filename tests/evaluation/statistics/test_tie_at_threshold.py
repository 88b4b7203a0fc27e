"""A score at the threshold is positive: the rule, and every loop that sorts in its place."""

import numpy as np
import pandas as pd
import pytest

from evaluation.boxes.box_metrics import WeightedRsnaScore
from evaluation.boxes.matching import pair_boxes
from evaluation.metrics.image_metrics import confusion_counts, net_benefit
from evaluation.statistics.ranking import is_positive

Y_TRUE = np.array([0, 1, 0, 1, 1])
SCORES = np.array([0.2, 0.2, 0.4, 0.4, 0.8])
TIES = (0.2, 0.4, 0.8)


def by_the_rule(threshold):
    called = is_positive(SCORES, threshold)
    return int((called & (Y_TRUE == 1)).sum()), int((called & (Y_TRUE == 0)).sum())


def test_the_tie_is_positive():
    assert is_positive(SCORES, 0.4).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("threshold", TIES)
def test_counts_and_net_benefit_at_a_score_are_by_the_rule(threshold):
    counts = confusion_counts(Y_TRUE, SCORES, threshold)
    tp, fp = by_the_rule(threshold)
    assert (counts["tp"], counts["fp"]) == (tp, fp)
    expected = (tp - fp * threshold / (1 - threshold)) / len(SCORES)
    assert net_benefit(Y_TRUE, SCORES, threshold) == pytest.approx(expected)


@pytest.mark.parametrize("cut", TIES)
def test_boxes_of_the_rsna_score_are_called_by_the_rule(cut):
    corners = {"x1": 0.0, "y1": 0.0, "x2": 9.0, "y2": 9.0}
    ids = pd.Index(list("abcde"))
    boxes = pd.DataFrame({"image_id": ids, **corners, "score": SCORES})
    truth = pd.DataFrame({"image_id": ids[Y_TRUE == 1], **corners})
    each, once = np.arange(5), np.ones((1, 5), dtype=int)
    found = WeightedRsnaScore(pair_boxes(boxes, truth, ids), each, 5, TIES)(once)[0]
    tp, fp = by_the_rule(cut)
    # An image scores 1 where its lesion is called, 0 where it is missed or called for nothing.
    assert found[TIES.index(cut)] == pytest.approx(tp / (Y_TRUE.sum() + fp))
