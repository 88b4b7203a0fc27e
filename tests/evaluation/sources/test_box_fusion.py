"""Fusion of boxes against its definition, and by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.ops import batched_nms

from cxr_compare.data_prep.contracts.boxes import Boxes, box_iou
from cxr_compare.evaluation.sources.box_fusion import BoxGroups, best_box_fusion


def simulate(seed, n_labels=6, most=40, n_models=3):
    """Crowded boxes in the unit square: many overlap; labels of unlike size, rows mixed."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_labels) * 3, rng.integers(1, most, n_labels)))
    centre = rng.uniform(0.3, 0.7, (len(labels), 2))
    half = rng.uniform(0.08, 0.25, (len(labels), 2))
    scores = rng.uniform(0.01, 1.0, len(labels))
    models = rng.integers(0, n_models, len(labels))
    models[:n_models] = np.arange(n_models)
    return Boxes(np.hstack([centre - half, centre + half]), scores, labels), models


def boxes_of(corners, scores, labels=None):
    labels = np.zeros(len(scores), int) if labels is None else np.array(labels)
    return Boxes(np.array(corners, dtype=float).reshape(-1, 4), np.array(scores, float), labels)


def assert_equal(one, other):
    for name in ("corners", "scores", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_more_labels_than_one_table_holds(monkeypatch):
    boxes, _ = simulate(9, n_labels=20, most=8)
    one = {"models": np.zeros(len(boxes), int), "n_models": 1}
    whole = best_box_fusion(boxes, **one)
    monkeypatch.setattr("cxr_compare.evaluation.sources.box_fusion._ROWS_AT_ONCE", 3)
    assert_equal(best_box_fusion(boxes, **one), whole)


def by_definition(boxes, models, n_models):
    """One label: rows of score and corners, in the order in which their leaders are found."""
    left = list(np.argsort(-boxes.scores, kind="stable"))
    rows = []
    while left:
        overlap = box_iou(boxes.corners[left[0]], boxes.corners[left])
        near = [box for box, iou in zip(left, overlap, strict=True) if iou > 0.5]
        best = {}
        for box in near:  # by falling score
            best.setdefault(models[box], box)
        chosen = list(best.values())
        total = boxes.scores[chosen].sum()
        mean = boxes.scores[chosen] @ boxes.corners[chosen] / total
        rows.append([total / n_models, *mean])
        left = [box for box in left if box not in near]
    return np.array(rows)


@pytest.mark.parametrize("seed", range(3))
def test_each_label_is_fused_as_defined(seed):
    boxes, models = simulate(seed)
    fused = best_box_fusion(boxes, models=models, n_models=3)
    assert 0 < len(fused) < len(boxes)
    assert set(fused.labels) == set(boxes.labels)
    for label in np.unique(boxes.labels):
        mine = boxes.labels == label
        expected = by_definition(boxes[mine], models[mine], 3)
        expected = expected[np.argsort(-expected[:, 0], kind="stable")]
        ours = fused[fused.labels == label]
        found = np.column_stack([ours.scores, ours.corners])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_one_model_alone_is_non_maximum_suppression():
    boxes, models = simulate(7, n_models=1)
    fused = best_box_fusion(boxes, models=models, n_models=1)
    tensors = [torch.from_numpy(array) for array in (boxes.corners, boxes.scores, boxes.labels)]
    kept = boxes[batched_nms(*tensors, 0.5).numpy()]
    fused = fused[np.argsort(-fused.scores)]
    assert 0 < len(kept) < len(boxes)
    np.testing.assert_allclose(fused.scores, kept.scores, rtol=1e-12)
    np.testing.assert_allclose(fused.corners, kept.corners, rtol=1e-12)


def test_boxes_without_area_or_score_come_through():
    boxes = boxes_of([[1, 1, 1, 5], [0, 0, 2, 2]], [0.5, 0.0], [0, 1])
    fused = best_box_fusion(boxes, models=np.zeros(2, int), n_models=1)
    np.testing.assert_allclose(fused.corners, boxes.corners)
    assert fused.scores == pytest.approx([0.5, 0.0])


def test_findings_and_images_never_meet_and_boxes_keep_to_their_image():
    rows = [("a", "x", 0, 90, 0.9), ("a", "y", 0, 90, 0.8), ("b", "x", 0, 90, 0.7)]
    frame = pd.DataFrame(rows, columns=["image_id", "finding", "x1", "x2", "score"])
    frame = frame.astype({"x1": float, "x2": float}).assign(y1=0.0, y2=10.0)
    sizes = pd.DataFrame({"image_id": ["b", "a"], "width": [60, pd.NA], "height": [10, pd.NA]})
    mixed = frame.sample(frac=1, random_state=0)
    groups = BoxGroups.from_table(mixed)
    stored = Boxes.from_table(mixed, groups.labels)
    fused = best_box_fusion(stored, models=np.zeros(3, int), n_models=1)
    table = groups.to_table(fused, sizes.astype({"width": "Int64"}))
    found = table.sort_values("score", ascending=False)
    assert list(zip(found["image_id"], found["finding"], strict=True)) == [
        ("a", "x"), ("a", "y"), ("b", "x")
    ]  # fmt: skip
    assert found["x2"].tolist() == [90, 90, 60]
