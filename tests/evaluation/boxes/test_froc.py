"""FROC against a plain loop, and by hand."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.boxes.froc import FROC_RATES, WeightedFroc, froc_curve
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from tests.evaluation.boxes.simulated import boxes_of_image, is_hit, one_lesion
from tests.evaluation.boxes.simulated import simulate as simulate_images

simulate = partial(simulate_images, n_images=16)


def froc_points_by_hand(boxes, truth, images, how):
    """Return false marks per image and the share of lesions hit, with every score as threshold."""
    points = [(0.0, 0.0)]
    n_lesions = sum(len(boxes_of_image(truth, image)[0]) for image in images)
    images_hits = []
    for image in images:
        marks, score = boxes_of_image(boxes, image)
        lesions, _ = boxes_of_image(truth, image)
        near = np.array([[is_hit(mark, box, how) for box in lesions] for mark in marks], dtype=bool)
        images_hits.append((near.reshape(len(marks), len(lesions)), score))
    for threshold in np.unique(boxes["score"])[::-1]:
        called = [near[score >= threshold] for near, score in images_hits]
        hits = sum(near.any(axis=0).sum() for near in called)
        false = sum((~near.any(axis=1)).sum() for near in called)
        points.append((false / len(images), hits / n_lesions))
    return points


def froc_by_hand(boxes, truth, images, how="iou"):
    """Return the mean sensitivity, and that at each rate: the highest at or below the rate."""
    points = froc_points_by_hand(boxes, truth, images, how)
    at_rates = [max(s for f, s in points if f <= rate) for rate in FROC_RATES]
    return [np.mean(at_rates), *at_rates]


@pytest.mark.parametrize("how", ["iou", "centre"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 1])  # rounded: many equal scores
def test_froc_at_each_rate_and_its_curve_equal_a_plain_loop(seed, decimals, how):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    pairs = pair_boxes(boxes, truth, ids)
    froc = WeightedFroc(find_lesions(pairs, HIT_RULES[how]), np.arange(len(ids)), len(ids))
    ours = froc.figures(np.ones((1, len(ids)), int))[0]
    np.testing.assert_allclose(ours, froc_by_hand(boxes, truth, ids, how), atol=1e-12)
    assert len(ours) == 1 + len(FROC_RATES)
    curve = froc_curve(find_lesions(pairs, HIT_RULES[how]))
    curve_points = list(zip(*curve, strict=True))
    points = froc_points_by_hand(boxes, truth, ids, how)
    for rate in (*FROC_RATES, 0.3, 3.3):  # the same step everywhere, from fewer points
        expected = max(s for f, s in points if f <= rate)
        assert max(s for f, s in curve_points if f <= rate) == pytest.approx(expected)
    assert curve_points[-1] == pytest.approx(points[-1])


@pytest.mark.parametrize("how", ["iou", "centre"])
def test_froc_under_weights_is_that_of_repeated_images(how):
    boxes, truth, ids = simulate(7, n_images=12)
    hits = find_lesions(pair_boxes(boxes, truth, ids), HIT_RULES[how])
    weights = next(Resamples(len(ids), 4, seed=2).chunks())
    figures = WeightedFroc(hits, np.arange(len(ids)), len(ids)).figures(weights)
    for row, ours in zip(weights, figures, strict=True):
        expected = froc_by_hand(boxes, truth, ids.repeat(row), how)
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def froc(pairs, weights=((1, 1),), how="iou"):
    froc = WeightedFroc(find_lesions(pairs, HIT_RULES[how]), np.arange(2), 2)
    return froc.figures(np.array(weights))[0, 0]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([("a", 5.0, 0.9)], 1),
        ([("a", 10.0, 0.9), ("b", 10.0, 0.4)], 1),
        ([("a", 10.0, 0.9), ("a", 9.0, 0.8)], 1),  # a second mark on the lesion is not false
        # One false mark on two images is a rate of 0.5: within 1/2 to 8, not within 1/8 and 1/4.
        ([("a", 10.0, 0.8), ("b", 10.0, 0.9)], 5 / 7),
        ([("a", 10.0, 0.8), ("b", 10.0, 0.8)], 5 / 7),
        ([], 0),
    ],
)
def test_froc_of_hand_counted_marks(marks, expected):
    assert froc(one_lesion(*marks)) == pytest.approx(expected)


def test_second_mark_on_a_lesion_is_not_false():
    # The known mistake: duplicates counted twice. As a false mark it would be 1/2 an image, and
    # the second lesion would be missed at 1/8 and 1/4.
    true = pd.DataFrame({"image_id": ["a", "b"], "x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0})
    marks = true.iloc[[0, 0, 1]].assign(score=[0.9, 0.8, 0.7])
    assert froc(pair_boxes(marks, true, pd.Index(["a", "b"]))) == 1


def test_sensitivity_at_every_rate_is_reported():
    pairs = one_lesion(("b", 10.0, 0.9), ("a", 10.0, 0.8))
    at_rates = WeightedFroc(find_lesions(pairs), np.arange(2), 2).figures(np.ones((1, 2), int))[0]
    named = dict(zip(family("froc_iou"), at_rates, strict=True))
    assert named["froc_at_1_4"] == 0
    assert named["froc_at_1_2"] == named["froc_at_8"] == 1


@pytest.mark.parametrize(
    ("x2", "by_iou", "by_centre"),
    [
        (1.5, 0.0, 1.0),  # too small to overlap by 0.2, its centre on the lesion
        (20.0, 1.0, 1.0),  # its centre on the lesion's border counts
        (24.0, 1.0, 0.0),  # overlaps enough, its centre beside the lesion
    ],
)
def test_hits_by_centre_and_by_overlap_differ(x2, by_iou, by_centre):
    pairs = one_lesion(("a", x2, 0.9))
    assert (froc(pairs), froc(pairs, how="centre")) == (by_iou, by_centre)


def test_froc_without_lesions_is_undefined():
    assert np.isnan(froc(one_lesion(), [[0, 1]]))
