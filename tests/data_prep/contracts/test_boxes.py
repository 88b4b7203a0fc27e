"""The one overlap and the one suppression, against torchvision, pycocotools and ensemble-boxes."""

import numpy as np
import pandas as pd
import pytest
import torch
from pycocotools.mask import iou as coco_iou
from torchvision.ops import batched_nms
from torchvision.ops import box_iou as torch_iou

from cxr_compare.data_prep.contracts.boxes import Boxes, box_iou
from cxr_compare.detection.frames import suppress_boxes

oracle_nms = pytest.importorskip("ensemble_boxes.ensemble_boxes_nms")


def crowded(seed, n_labels=6, most=200):
    """Boxes in the unit square, many of which overlap; labels of unlike size, rows mixed."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_labels) * 3, rng.integers(1, most, n_labels)))
    centre = rng.uniform(0.3, 0.7, (len(labels), 2))
    half = rng.uniform(0.08, 0.25, (len(labels), 2))
    scores = rng.uniform(0.01, 1.0, len(labels))
    return Boxes(np.hstack([centre - half, centre + half]), scores, labels)


def test_overlap_is_torchvisions_and_pycocotools():
    corners = crowded(0).corners[:50]
    found = box_iou(corners[:, None], corners)
    theirs = torch_iou(torch.from_numpy(corners), torch.from_numpy(corners)).numpy()
    np.testing.assert_allclose(found, theirs, rtol=1e-12)
    sides = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    np.testing.assert_allclose(found, coco_iou(sides, sides, [0] * 50), rtol=1e-12)


def test_overlap_counted_by_hand():
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 1, 1], [5, 5, 6, 6], [0, 0, 2, 1]])
    assert box_iou(boxes, boxes[0]).tolist() == [1.0, 0.0, 0.0, 0.5]
    assert box_iou(boxes[1], boxes[1]) == 0.0  # without area nothing is shared


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iou_threshold", [0.1, 0.3, 0.6])
def test_suppression_keeps_what_both_oracles_keep(seed, iou_threshold):
    boxes = crowded(seed)
    kept = suppress_boxes(boxes, iou_threshold)
    assert 0 < len(kept) < len(boxes)
    tensors = [torch.from_numpy(array) for array in (boxes.corners, boxes.scores, boxes.labels)]
    assert set(kept) == set(batched_nms(*tensors, iou_threshold).tolist())
    for label in np.unique(boxes.labels):
        mine = np.flatnonzero(boxes.labels == label)
        # Not compiled: that takes numba longer than all calls together.
        oracle = oracle_nms.nms_float_fast.py_func
        expected = oracle(boxes.corners[mine], boxes.scores[mine], iou_threshold)
        assert set(kept[boxes.labels[kept] == label]) == set(mine[expected])


def test_the_most_of_a_label_are_its_surest():
    boxes = crowded(4)
    every, few = suppress_boxes(boxes, 0.6), suppress_boxes(boxes, 0.6, most_per_label=3)
    for label in np.unique(boxes.labels):
        whole = every[boxes.labels[every] == label]
        assert (np.diff(boxes.scores[whole]) <= 0).all()
        assert few[boxes.labels[few] == label].tolist() == whole[:3].tolist()


def test_of_equal_scores_the_earlier_row_is_kept_and_order_does_not_matter_else():
    same = Boxes(np.tile([[0.0, 0, 1, 1]], (70, 1)), np.full(70, 0.5), np.zeros(70, int))
    assert suppress_boxes(same, 0.5).tolist() == [0]
    boxes = crowded(5)
    order = np.random.default_rng(0).permutation(len(boxes))
    assert order[suppress_boxes(boxes[order], 0.3)].tolist() == suppress_boxes(boxes, 0.3).tolist()


def test_no_box_is_no_box():
    assert len(suppress_boxes(crowded(0)[:0], 0.5)) == 0


def test_a_table_survives_the_record():
    corners = {"x1": [0.0, 1.5], "y1": [0.0, 2.0], "x2": [4.0, 9.0], "y2": [2.0, 3.0]}
    table = pd.DataFrame({"image_id": ["a", "b"], "finding": "x", **corners, "score": [0.5, 0.25]})
    boxes = Boxes.from_table(table, np.array([7, 8]))
    assert boxes[1:].labels.tolist() == [8]
    pd.testing.assert_frame_equal(boxes.to_table(["a", "b"], ["x", "x"]), table)
