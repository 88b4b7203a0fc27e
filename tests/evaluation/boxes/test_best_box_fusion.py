"""Fusion of best boxes against its definition, written as the plainest loop, and by hand."""

import numpy as np
import pytest

from data_prep.contracts.errors import InputError
from evaluation.boxes.fusion import best_box_fusion, nms
from evaluation.boxes.iou import box_iou


def simulate(seed, n_groups=6, most=40, n_models=3):
    """Crowded boxes in the unit square: many overlap; groups of unlike size, rows mixed."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(n_groups) * 3, rng.integers(1, most, n_groups)))
    centre = rng.uniform(0.3, 0.7, (len(groups), 2))
    half = rng.uniform(0.08, 0.25, (len(groups), 2))
    scores = rng.uniform(0.01, 1.0, len(groups))
    models = rng.integers(0, n_models, len(groups))
    return np.hstack([centre - half, centre + half]), scores, groups, models


def by_definition(corners, scores, models, weights, iou_threshold):
    """One group: rows of score and corners, in the order in which their leaders are found."""
    weighed = scores * np.array(weights)[models]
    left = list(np.argsort(-weighed, kind="stable"))
    rows = []
    while left:
        leader = left[0]
        overlap = box_iou(corners[[leader] * len(left)], corners[left])
        near = [box for box, iou in zip(left, overlap, strict=True) if iou > iou_threshold]
        best = {}
        for box in near:  # by falling score
            best.setdefault(models[box], box)
        chosen = list(best.values())
        total = weighed[chosen].sum()
        rows.append([total / sum(weights), *(weighed[chosen] @ corners[chosen] / total)])
        left = [box for box in left if box not in near]
    return np.array(rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_threshold", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [2.0, 1.0, 0.5]])
def test_each_group_is_fused_as_defined(seed, iou_threshold, weights):
    corners, scores, groups, models = simulate(seed)
    boxes, fused, of = best_box_fusion(
        corners, scores, groups, models=models, weights=weights, iou_threshold=iou_threshold
    )
    assert 0 < len(fused) < len(scores)
    assert set(of) == set(groups)
    for group in np.unique(groups):
        mine = groups == group
        expected = by_definition(corners[mine], scores[mine], models[mine], weights, iou_threshold)
        expected = expected[np.argsort(-expected[:, 0], kind="stable")]
        found = np.column_stack([fused[of == group], boxes[of == group]])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_one_model_alone_is_non_maximum_suppression():
    corners, scores, groups, models = simulate(7, n_models=1)
    boxes, fused, _ = best_box_fusion(corners, scores, groups, models=models, weights=[1.0])
    kept = nms(corners, scores, groups, iou_threshold=0.5)
    assert 0 < kept.sum() < len(kept)
    order = np.lexsort((-scores[kept], groups[kept]))
    np.testing.assert_allclose(fused, scores[kept][order], rtol=1e-12)
    np.testing.assert_allclose(boxes, corners[kept][order], rtol=1e-12)


def test_faint_boxes_of_a_model_beside_its_best_change_nothing():
    corners = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    alone = best_box_fusion(
        corners, np.array([0.8, 0.6]), np.zeros(2, int), models=np.array([0, 1]), weights=[1, 1]
    )
    beside = np.vstack([corners, [[0.0, 0, 10, 8], [1, 0, 10, 10]]])
    crowded = best_box_fusion(
        beside, np.array([0.8, 0.6, 0.1, 0.05]), np.zeros(4, int),
        models=np.array([0, 1, 1, 0]), weights=[1, 1],
    )  # fmt: skip
    for one, other in zip(alone, crowded, strict=True):
        np.testing.assert_array_equal(one, other)
    assert alone[1] == pytest.approx([0.7])


def test_what_one_model_of_two_sees_has_half_its_score():
    boxes, score, _ = best_box_fusion(
        np.array([[0.0, 0, 4, 4], [8, 8, 9, 9]]), np.array([0.6, 0.4]), np.zeros(2, int),
        models=np.array([0, 1]), weights=[1, 1],
    )  # fmt: skip
    assert score == pytest.approx([0.3, 0.2])
    np.testing.assert_allclose(boxes, [[0, 0, 4, 4], [8, 8, 9, 9]])


def test_nothing_and_boxes_without_area_or_score_come_through():
    none = best_box_fusion(
        np.empty((0, 4)), np.empty(0), np.empty(0, int), models=np.empty(0, int), weights=[1]
    )
    assert [len(part) for part in none] == [0, 0, 0]
    boxes, score, _ = best_box_fusion(
        np.array([[1.0, 1, 1, 5], [0, 0, 2, 2]]), np.array([0.5, 0.0]), np.array([0, 1]),
        models=np.zeros(2, int), weights=[1],
    )  # fmt: skip
    np.testing.assert_allclose(boxes, [[1, 1, 1, 5], [0, 0, 2, 2]])
    assert score == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize(
    ("weights", "message"), [([1.0], "2 models but 1 weights"), ([1.0, 0.0], "number above 0")]
)
def test_a_missing_or_empty_weight_is_refused(weights, message):
    with pytest.raises(InputError, match=message):
        best_box_fusion(
            np.zeros((2, 4)), np.ones(2), np.zeros(2, int), models=np.array([0, 1]), weights=weights
        )
