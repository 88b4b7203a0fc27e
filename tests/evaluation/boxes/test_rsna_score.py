"""The RSNA 2018 score against a plain loop, and by hand."""

from functools import partial

import numpy as np
import pytest

from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from tests.evaluation.boxes.simulated import boxes_of_image, one_lesion, overlap
from tests.evaluation.boxes.simulated import simulate as simulate_images

CUTS = [0.1, 0.35, 0.6]
simulate = partial(simulate_images, n_images=16)


def rsna_by_hand(boxes, truth, images, cut):
    """Compute the score as the evaluation page of the challenge defines it."""
    scores = []
    for image in images:
        predicted, score = boxes_of_image(boxes, image)
        called = [predicted[k] for k in np.argsort(-score, kind="stable") if score[k] >= cut]
        lesions, _ = boxes_of_image(truth, image)
        if not len(called) and not len(lesions):
            continue
        value = 0.0
        for t in range(40, 80, 5):
            free = list(range(len(lesions)))
            hits = 0
            for box in called:
                near = [(overlap(box, lesions[k]), k) for k in free]
                near = [pair for pair in near if pair[0] > t / 100]
                if near:
                    free.remove(max(near)[1])
                    hits += 1
            value += hits / (len(called) + len(lesions) - hits) / 8
        scores.append(value)
    return float(np.mean(scores)) if scores else None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 1])  # rounded: many equal scores
def test_rsna_score_equals_a_plain_loop(seed, decimals):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    pairs = pair_boxes(boxes, truth, ids)
    weights = np.ones((1, len(ids)), int)
    expected = [rsna_by_hand(boxes, truth, ids, cut) for cut in CUTS]
    ours = WeightedRsnaScore(pairs, np.arange(len(ids)), len(ids), CUTS)(weights)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    assert 0 <= min(expected) < max(expected) < 1


def test_rsna_score_under_weights_is_that_of_repeated_images():
    boxes, truth, ids = simulate(7, n_images=12)
    pairs = pair_boxes(boxes, truth, ids)
    weights = next(Resamples(len(ids), 4, seed=2).chunks())
    scores = WeightedRsnaScore(pairs, np.arange(len(ids)), len(ids), [0.35])(weights)[:, 0]
    for row, score in zip(weights, scores, strict=True):
        repeated = ids.repeat(row)
        assert score == pytest.approx(rsna_by_hand(boxes, truth, repeated, 0.35), abs=1e-12)


def rsna(pairs, weights=((1, 1),)):
    return WeightedRsnaScore(pairs, np.arange(2), 2, [0.5])(np.array(weights))[0, 0]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([("a", 5.0, 0.9)], 2 / 8),  # IoU 0.5 is a hit at 0.40 and 0.45, at 0.50 it is none
        ([("a", 10.0, 0.9), ("b", 10.0, 0.4)], 1),  # nothing is called on b: it is left out
        ([("a", 10.0, 0.9), ("a", 9.0, 0.8)], 1 / 2),  # a second mark on the lesion is false
        ([("a", 10.0, 0.8), ("b", 10.0, 0.9)], 1 / 2),
        ([("a", 10.0, 0.8), ("b", 10.0, 0.8)], 1 / 2),
        ([], 0),
    ],
)
def test_rsna_score_of_hand_counted_marks(marks, expected):
    assert rsna(one_lesion(*marks)) == pytest.approx(expected)


def test_rsna_score_without_lesions_and_boxes_is_undefined():
    assert np.isnan(rsna(one_lesion(), [[0, 1]]))
