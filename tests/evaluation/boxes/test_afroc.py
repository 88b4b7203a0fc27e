"""AFROC against every pair of a lesion and a normal image."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.afroc import WeightedAfroc
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from tests.evaluation.boxes.simulated import is_hit, one_lesion
from tests.evaluation.boxes.simulated import simulate as simulate_images

simulate = partial(simulate_images, n_images=16)


def afroc_by_hand(boxes, truth, images, how="iou", weighted=True):
    """Compute the area by Chakraborty and Zhai 2016: psi of every lesion and normal image."""
    lesions, normals = [], []
    for image in images:
        marks = boxes[boxes["image_id"] == image]
        true = truth[truth["image_id"] == image][EDGES].to_numpy()
        best, highest_false = [-np.inf] * len(true), -np.inf
        for _, mark in marks.iterrows():
            near = [is_hit(mark[EDGES].to_numpy(float), lesion, how) for lesion in true]
            best = [max(b, mark["score"]) if hit else b for b, hit in zip(best, near, strict=True)]
            if not any(near):
                highest_false = max(highest_false, mark["score"])
        if len(true):
            share = 1 / len(true) if weighted else 1
            lesions += [(one, share) for one in best]
        else:
            normals.append(highest_false)
    psi = [
        share * (1.0 if normal < one else 0.5 if normal == one else 0.0)
        for normal in normals
        for one, share in lesions
    ]
    return sum(psi) / (len(normals) * sum(share for _, share in lesions))


@pytest.mark.parametrize("how", ["iou", "centre"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 1])  # rounded: many equal scores
def test_afroc_equals_every_pair_of_lesion_and_normal_image(seed, decimals, how):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    hits = find_lesions(pair_boxes(boxes, truth, ids), HIT_RULES[how])
    images = np.arange(len(ids))
    ones = np.ones(len(hits.best))
    areas = {
        True: WeightedAfroc.shared(hits, images),
        False: WeightedAfroc(hits, ones, images),
    }
    for weighted, area in areas.items():
        expected = afroc_by_hand(boxes, truth, ids, how, weighted)
        assert area(np.ones((1, len(ids)), int))[0] == pytest.approx(expected, abs=1e-12)


def test_afroc_under_weights_is_that_of_repeated_images():
    boxes, truth, ids = simulate(7, n_images=12)
    hits = find_lesions(pair_boxes(boxes, truth, ids))
    weights = next(Resamples(len(ids), 4, seed=2).chunks())
    ours = WeightedAfroc.shared(hits, np.arange(len(ids)))(weights)
    for row, one in zip(weights, ours, strict=True):
        repeated = list(ids.repeat(row))
        assert one == pytest.approx(afroc_by_hand(boxes, truth, repeated), abs=1e-12)


def test_an_image_with_many_lesions_weighs_as_one_with_a_single_lesion():
    """One of three lesions is hit, and the only one of another image: 2/3 weighted, 1/2 not."""
    x1 = np.array([0.0, 20.0, 40.0, 0.0])
    true = pd.DataFrame({"image_id": list("aaab"), "x1": x1, "y1": 0.0, "x2": x1 + 10, "y2": 10.0})
    marks = true.iloc[[0, 3]].assign(score=0.9)
    hits = find_lesions(pair_boxes(marks, true, pd.Index(["a", "b", "c"])))
    once = np.ones((1, 3), int)
    images = np.arange(3)
    # A lesion that nobody found is a tie with the normal image that nobody marked.
    assert WeightedAfroc.shared(hits, images)(once)[0] == pytest.approx((1 / 3 + 2 / 6 + 1) / 2)
    assert WeightedAfroc(hits, np.ones(4), images)(once)[0] == pytest.approx((2 + 2 * 0.5) / 4)


def test_afroc_without_lesions_or_without_normal_images_is_undefined():
    hits = find_lesions(one_lesion(("a", 10.0, 0.9)))
    area = WeightedAfroc.shared(hits, np.arange(2))(np.array([[0, 1], [1, 0], [1, 1]]))
    assert [np.isnan(one) for one in area] == [True, True, False]
