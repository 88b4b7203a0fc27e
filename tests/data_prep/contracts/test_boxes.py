"""The overlap of boxes, against torchvision and pycocotools."""

import numpy as np
import pandas as pd
import torch
from cxr_compare.data_prep.contracts.boxes import Boxes, box_iou
from pycocotools.mask import iou as coco_iou
from torchvision.ops import box_iou as torch_iou


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


def test_a_table_survives_the_record():
    corners = {"x1": [0.0, 1.5], "y1": [0.0, 2.0], "x2": [4.0, 9.0], "y2": [2.0, 3.0]}
    table = pd.DataFrame({"image_id": ["a", "b"], "finding": "x", **corners, "score": [0.5, 0.25]})
    boxes = Boxes.from_table(table, np.array([7, 8]))
    assert boxes[1:].labels.tolist() == [8]
    pd.testing.assert_frame_equal(boxes.to_table(["a", "b"], ["x", "x"]), table)
