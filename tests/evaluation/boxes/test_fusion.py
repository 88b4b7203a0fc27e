"""Fusion of boxes against ensemble-boxes, and by hand."""

import numpy as np
import pytest

from data_prep.contracts.errors import InputError
from evaluation.boxes.fusion import best_box_fusion, nms, scale_boxes, soft_nms, weighted_box_fusion
from evaluation.boxes.iou import box_iou

oracle_nms = pytest.importorskip("ensemble_boxes.ensemble_boxes_nms")
oracle_wbf = pytest.importorskip("ensemble_boxes.ensemble_boxes_wbf")


def simulate(seed, n_groups=6, most=40, decimals=None):
    """Crowded boxes in the unit square: many overlap; groups of unlike size, rows mixed."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(n_groups) * 3, rng.integers(1, most, n_groups)))
    centre = rng.uniform(0.3, 0.7, (len(groups), 2))
    half = rng.uniform(0.08, 0.25, (len(groups), 2))
    scores = rng.uniform(0.01, 1.0, len(groups))
    if decimals is not None:
        scores = scores.round(decimals)
    return np.hstack([centre - half, centre + half]), scores, groups


def as_rows(corners, scores):
    """Rows in an order that does not depend on ties."""
    rows = np.column_stack([scores, corners])
    return rows[np.lexsort(rows.round(9).T)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iou_threshold", [0.1, 0.3, 0.6])
def test_nms_keeps_what_the_oracle_keeps(seed, iou_threshold):
    corners, scores, groups = simulate(seed)
    kept = nms(corners, scores, groups, iou_threshold=iou_threshold)
    assert 0 < kept.sum() < len(kept)
    for group in np.unique(groups):
        mine = groups == group
        # Not compiled: that takes numba longer than all calls together.
        oracle = oracle_nms.nms_float_fast.py_func
        expected = oracle(corners[mine], scores[mine], iou_threshold)
        assert set(np.flatnonzero(kept[mine])) == set(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("method", "code"), [("linear", 1), ("gaussian", 2)])
def test_soft_nms_lowers_scores_as_the_oracle_does(seed, method, code):
    corners, scores, groups = simulate(seed)
    lowered = soft_nms(
        corners, scores, groups, method=method, iou_threshold=0.4, sigma=0.3, min_score=0.02
    )
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        theirs = scores[mine].copy()  # the oracle lowers its argument, in its own order
        kept = oracle_nms.cpu_soft_nms_float(corners[mine], theirs, 0.4, 0.3, 0.02, code)
        expected = np.zeros(len(mine))
        expected[kept] = theirs[theirs > 0.02]
        np.testing.assert_allclose(lowered[mine], expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("confidence", ["avg", "max"])
@pytest.mark.parametrize("weights", [None, [2.0, 1.0, 0.5]])
def test_weighted_box_fusion_equals_the_oracle(seed, confidence, weights):
    corners, scores, groups = simulate(seed)
    models = np.random.default_rng(seed).integers(0, 3, len(scores))
    models[:3] = [0, 1, 2]
    fused = weighted_box_fusion(
        corners, scores, groups, models=models, weights=weights, iou_threshold=0.5,
        min_score=0.05, confidence=confidence,
    )  # fmt: skip
    assert len(fused[0]) < (scores >= 0.05).sum()
    for group in np.unique(groups):
        mine = [(groups == group) & (models == model) for model in range(3)]
        boxes, expected, _ = oracle_wbf.weighted_boxes_fusion(
            [corners[m] for m in mine], [scores[m] for m in mine],
            [np.zeros(m.sum()) for m in mine], weights=weights, iou_thr=0.5, skip_box_thr=0.05,
            conf_type=confidence,
        )  # fmt: skip
        ours = fused[2] == group
        assert (np.diff(fused[1][ours]) <= 0).all()
        np.testing.assert_allclose(
            as_rows(fused[0][ours], fused[1][ours]),
            as_rows(boxes, np.minimum(expected, 1.0)),  # the oracle's scores can pass 1
            atol=1e-6,
        )


def test_equal_scores_and_equal_boxes_agree_with_the_oracle():
    # Three models that say the same: every score is tied.
    far = np.column_stack([np.arange(5) * 0.2, np.zeros(5), np.arange(5) * 0.2 + 0.1, np.ones(5)])
    thrice, equal = np.tile(far, (3, 1)), np.full(15, 0.5)
    models = np.repeat([0, 1, 2], 5)
    box, score, _ = weighted_box_fusion(thrice, equal, np.zeros(15, int), models=models)
    theirs = oracle_wbf.weighted_boxes_fusion([far] * 3, [equal[:5]] * 3, [np.zeros(5)] * 3)
    np.testing.assert_allclose(as_rows(box, score), as_rows(*theirs[:2]), atol=1e-6)
    kept = nms(thrice, equal, np.zeros(15, int), iou_threshold=0.5)
    assert np.flatnonzero(kept).tolist() == [0, 1, 2, 3, 4]  # the earlier row among equals
    lowered = soft_nms(thrice, equal, np.zeros(15, int), method="linear", iou_threshold=0.5)
    assert lowered.tolist() == [0.5] * 5 + [0.0] * 10


def test_groups_never_meet_and_their_order_does_not_matter():
    corners, scores, groups = simulate(8)
    for fuse in (
        lambda c, s, g: nms(c, s, g, iou_threshold=0.3).astype(float),
        lambda c, s, g: soft_nms(c, s, g),
    ):
        together = fuse(corners, scores, groups)
        for group in np.unique(groups):
            mine = groups == group
            np.testing.assert_array_equal(
                together[mine], fuse(corners[mine], scores[mine], groups[mine])
            )
        order = np.random.default_rng(0).permutation(len(scores))
        np.testing.assert_array_equal(
            together[order], fuse(corners[order], scores[order], groups[order])
        )


def test_more_groups_than_one_table_holds(monkeypatch):
    corners, scores, groups = simulate(9, n_groups=20, most=8)
    whole = weighted_box_fusion(corners, scores, groups)
    monkeypatch.setattr("evaluation.boxes.fusion._ROWS_AT_ONCE", 3)
    for part, again in zip(whole, weighted_box_fusion(corners, scores, groups), strict=True):
        np.testing.assert_array_equal(part, again)


def test_no_box_is_no_box():
    none, empty = np.empty((0, 4)), np.empty(0)
    groups = np.empty(0, dtype=np.int64)
    assert nms(none, empty, groups, iou_threshold=0.5).shape == (0,)
    assert soft_nms(none, empty, groups).shape == (0,)
    assert [len(part) for part in weighted_box_fusion(none, empty, groups)] == [0, 0, 0]
    faint = weighted_box_fusion(
        np.array([[0.0, 0, 1, 1]]), np.array([0.1]), np.zeros(1, int), min_score=0.5
    )
    assert faint[0].shape == (0, 4)


def test_a_fused_score_never_passes_one():
    same = np.tile([[0.0, 0, 1, 1]], (2, 1))
    _, score, _ = weighted_box_fusion(
        same, np.array([1.0, 1.0]), np.zeros(2, int), models=np.array([0, 0]), weights=[2.0, 1.0]
    )
    assert score.tolist() == [1.0]


@pytest.mark.parametrize(("weights", "told"), [([1.0], "2 models but 1"), ([1.0, 0.0], "above 0")])
def test_wrong_weights_are_refused(weights, told):
    boxes = np.array([[0.0, 0, 1, 1]] * 2)
    with pytest.raises(InputError, match=told):
        weighted_box_fusion(
            boxes, np.ones(2), np.zeros(2, int), models=np.array([0, 1]), weights=weights
        )


def test_boxes_scale_about_their_centre_and_stay_in_the_image():
    corners = np.array([[0.0, 10, 20, 30], [90, 40, 100, 60]])
    limits = np.array([[100.0, 50], [np.nan, np.nan]])
    assert scale_boxes(corners, 0.5, limits).tolist() == [[5, 15, 15, 25], [92.5, 45, 97.5, 55]]
    assert scale_boxes(corners, 2.0, limits).tolist() == [[0, 0, 30, 40], [85, 30, 105, 70]]
    assert scale_boxes(corners, 1.0) is corners


def simulate_two_systems(seed, n_groups=6, most=40, n_models=3):
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
    corners, scores, groups, models = simulate_two_systems(seed)
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
    corners, scores, groups, models = simulate_two_systems(7, n_models=1)
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
