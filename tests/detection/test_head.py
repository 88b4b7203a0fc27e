"""The box loss is the one asked for, as published, and finite where boxes collapse."""

import math

import numpy as np
import pytest
import torch

from cxr_compare.detection.detector import training_losses
from cxr_compare.detection.retinanet import SMOOTH_L1_BETA, box_loss

LOSSES = ("l1", "smooth_l1", "giou", "diou", "ciou")


def pair_loss(box: list[float], truth: list[float], loss: str) -> float:
    """A loss of one decoded box, from the papers' formulas and math alone."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = box, truth
    shared = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    iou = shared / union
    width, height = max(x2, u2) - min(x1, u1), max(y2, v2) - min(y1, v1)
    if loss == "giou":
        return 1 - iou + (width * height - union) / (width * height)
    away = ((x1 + x2 - u1 - u2) ** 2 + (y1 + y2 - v1 - v2) ** 2) / 4
    diou = 1 - iou + away / (width**2 + height**2)
    if loss == "diou":
        return diou
    angle = math.atan((u2 - u1) / (v2 - v1)) - math.atan((x2 - x1) / (y2 - y1))
    shape = 4 / math.pi**2 * angle**2
    return diou + shape * shape / (1 - iou + shape)


def expected_loss(offsets: np.ndarray, anchors: np.ndarray, boxes: np.ndarray, loss: str) -> float:
    """Sum over pairs; offsets as in Faster R-CNN."""
    total = 0.0
    for offset, anchor, truth in zip(offsets, anchors, boxes, strict=True):
        side, middle = anchor[2:] - anchor[:2], (anchor[2:] + anchor[:2]) / 2
        if loss in ("l1", "smooth_l1"):
            losses = np.append(
                ((truth[2:] + truth[:2]) / 2 - middle) / side,
                np.log((truth[2:] - truth[:2]) / side),
            )
            off = np.abs(offset - losses)
            if loss == "smooth_l1":
                beta = SMOOTH_L1_BETA
                off = np.where(off < beta, off**2 / (2 * beta), off - beta / 2)
            total += off.sum()
        else:
            centre, size = middle + offset[:2] * side, np.exp(offset[2:]) * side
            box = [*(centre - size / 2), *(centre + size / 2)]
            total += pair_loss(box, list(truth), loss)
    return total


@pytest.mark.parametrize("loss", LOSSES)
def test_box_losses_are_the_published_ones(loss):
    rng = np.random.default_rng(0)
    corner, sides = rng.uniform(0, 50, (12, 2)), rng.uniform(8, 40, (12, 2))
    anchors = np.concatenate([corner, corner + sides], axis=1)
    boxes = anchors + rng.normal(0, 3, (12, 4))
    offsets = rng.normal(0, 0.2, (12, 4))
    offsets[:2, 0] = 5.0  # far off: no overlap at all
    value = box_loss(loss, *map(torch.from_numpy, (offsets, anchors, boxes)))
    expected = expected_loss(offsets, anchors, boxes, loss)
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("version", "loss"), [("v1", "l1"), ("v2", "giou")])
def test_auto_is_the_default_loss_of_the_head_version(version, loss, build_small):
    assert build_small(head=version, box_loss="auto").head.box_loss == loss
    assert build_small(head=version, box_loss="ciou").head.box_loss == "ciou"


@pytest.mark.parametrize("loss", ["auto", "l1", "ciou"])
def test_every_box_loss_trains_batches_with_and_without_boxes(loss, build_small, batch):
    model = build_small(box_loss=loss)
    bare = [torch.zeros(0, 4)] * len(batch), [torch.zeros(0, dtype=torch.int64)] * len(batch)
    for lesions, labels in ((batch.boxes, batch.labels), bare):
        losses = training_losses(model, type(batch)(batch.image_ids, batch.images, lesions, labels))
        assert (losses["bbox_regression"].item() > 0) is (lesions is batch.boxes)
        model.zero_grad()
        sum(losses.values()).backward()
        gradient = model.head.regression_head.bbox_reg.weight.grad
        assert gradient.isfinite().all()
        assert bool(gradient.any()) is (lesions is batch.boxes)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("extreme", [-200.0, 200.0])
def test_a_collapsed_or_exploded_box_has_a_finite_gradient(loss, extreme):
    offsets = torch.tensor([[0.0, 0.0, 0.0, extreme], [0.0, 0.0, extreme, 0.0]])
    offsets.requires_grad_()
    anchors = torch.tensor([[16.0, 16.0, 48.0, 48.0]] * 2)
    boxes = torch.tensor([[10.0, 20.0, 40.0, 50.0]] * 2)
    value = box_loss(loss, offsets, anchors, boxes)
    value.backward()
    assert value.isfinite()
    assert offsets.grad.isfinite().all()
