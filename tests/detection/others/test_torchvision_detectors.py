"""FCOS, SSDLite and Faster R-CNN are torchvision's: losses and boxes of the same weights.

Where ours differ on purpose, torchvision's is set or asked likewise: losses are means over the
images, each as torchvision's of that image alone; background is no detection; 100 boxes a finding.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _mobilenet_extractor

from cxr_compare.detection.detector import (
    Detector,
    build_targets,
    training_losses,
    validation_losses,
)
from cxr_compare.detection.frames import MAX_PER_FINDING, NMS_IOU
from cxr_compare.detection.model import build_detector
from tests.detection.test_parity import as_torchvision, draw_batch, transform_settings

SIZE = 128
CLASSES = 4  # with background
SMALL = {
    "fcos": {"backbone": "resnet18", "fpn_channels": 32, "head_convs": 2},
    "ssdlite": {"backbone": "mobilenet_v3_small"},
    "faster_rcnn": {"backbone": "resnet18", "fpn_channels": 16, "box_channels": 32},
}


def build(architecture: str, **settings: object) -> Detector:
    """Ours, random, with boxes and scores that differ from place to place."""
    torch.manual_seed(0)
    small = {**SMALL[architecture], "n_findings": CLASSES - 1, "image_size": SIZE}
    model = build_detector(architecture, **{**small, **settings})
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(part in name for part in ("cls_", "bbox_", "predictor", "_head.module_list")):
                value += 0.05 * torch.randn(value.shape)
            if name.endswith("bbox_reg.bias"):
                value += 4.0  # of FCOS: boxes without a side overlap by 0 / 0
    return model


def peer_of(model: Any, architecture: str) -> nn.Module:
    """torchvision's, with our layers' weights, thresholds and pixels."""
    limits = {"score_thresh": 0.001, "nms_thresh": NMS_IOU, "detections_per_img": 10_000}
    plain = transform_settings(SIZE)
    if architecture == "fcos":
        return FCOS(
            model.backbone, CLASSES, head=model.head, topk_candidates=10_000, **limits, **plain
        )
    if architecture == "faster_rcnn":
        peer = FasterRCNN(
            model.backbone,
            CLASSES,
            rpn_anchor_generator=model.rpn.anchor_generator,
            box_roi_pool=model.roi_heads.box_roi_pool,
            **{f"box_{name}": value for name, value in limits.items()},
            **plain,
        )
        peer.rpn.head, peer.roi_heads.box_head = model.rpn.head, model.roi_heads.box_head
        peer.roi_heads.box_predictor = model.roi_heads.box_predictor
        return peer
    body = _mobilenet_extractor(mobilenet_v3_small(), 6, nn.BatchNorm2d)
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    head = SSDLiteHead(model.backbone.channels, [6] * 6, CLASSES, nn.BatchNorm2d)
    means = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    peer = SSD(
        body, anchors, (SIZE, SIZE), CLASSES, head=head, topk_candidates=10_000, **limits, **means
    )
    peer.backbone, peer.head = model.backbone, model.head
    return peer


@pytest.mark.parametrize("architecture", SMALL)
def test_losses_and_boxes_are_torchvisions(architecture):
    model = build(architecture, norm="group")
    peer, batch = peer_of(model, architecture), draw_batch(SIZE, 3, 1)
    targets = build_targets(batch, CLASSES - 1)
    pixels = list(model.pixels(batch.images))
    torch.manual_seed(7)
    got = training_losses(model.train(), batch)
    torch.manual_seed(7)
    if architecture == "faster_rcnn":  # it draws for all images, first of anchors, then of boxes
        expected = [peer.train()(pixels, targets)]
    else:
        alone = [
            peer.train()([image], [target]) for image, target in zip(pixels, targets, strict=True)
        ]
        if architecture == "ssdlite":  # torchvision learns nothing of the image without boxes
            assert alone[1]["classification"] == 0
            logits = model.run(batch.images).outputs["cls_logits"][1]
            mistakes = nn.functional.cross_entropy(
                logits, torch.zeros(len(logits), dtype=torch.int64), reduction="none"
            )
            alone[1]["classification"] = mistakes.topk(3).values.sum()
        expected = alone
    totals = [sum(losses.values()).item() for losses in expected]
    assert sum(got.values()).item() == pytest.approx(np.mean(totals), rel=1e-3)

    with torch.no_grad():
        actual, reference = model.eval()(batch.images), peer.eval()(pixels)
    for image, other in zip(map(as_torchvision, actual), reference, strict=True):
        for label in range(1, CLASSES):
            same_label, same = image["labels"] == label, other["labels"] == label
            scores = other["scores"][same][:MAX_PER_FINDING]
            assert len(scores) > 5
            torch.testing.assert_close(image["scores"][same_label], scores, rtol=1e-4, atol=1e-5)
            apart = (image["boxes"][same_label][:, None] - other["boxes"][same]).abs().amax(2)
            assert (apart.amin(1) < 1e-2).all()


def test_fcos_learns_the_same_boxes_and_gradients_as_torchvision_image_by_image():
    model = build("fcos", norm="group").train()
    batch = draw_batch(SIZE, 4, 1)
    targets = build_targets(batch, CLASSES - 1)
    assert min(len(target["boxes"]) for target in targets) == 0  # an image without a box, too
    passed = model.run(batch.images)
    expected = [
        model.compute_loss(
            [target],
            {name: output[row : row + 1] for name, output in passed.outputs.items()},
            passed.anchors[:1],
            passed.level_sizes,
        )
        for row, target in enumerate(targets)
    ]
    got = model.losses(passed, targets)
    assert got.keys() == expected[0].keys()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for name, loss in got.items():
        mean = torch.stack([losses[name] for losses in expected]).mean()
        torch.testing.assert_close(loss, mean, rtol=1e-6, atol=1e-7)
        ours, theirs = (
            torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            for value in (loss, mean)
        )
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine is None) == (other is None)
            if mine is not None:
                torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", SMALL)
def test_only_the_image_whose_output_is_not_finite_fails(architecture):
    model = build(architecture, norm="group").eval()
    images = draw_batch(SIZE, 2, 4).images
    with torch.no_grad():
        passed = model.run(images)
        part = passed.objectness if architecture == "faster_rcnn" else passed.outputs["cls_logits"]
        part[1, 3] = torch.inf
        boxes = model.detections(passed)
    assert len(boxes[0]) > 0
    assert boxes[1] is None


@pytest.mark.parametrize("architecture", SMALL)
def test_images_fail_and_losses_show_it_where_every_output_is_nan(architecture):
    model = build(architecture, norm="group")
    for weights in model.parameters():
        nn.init.constant_(weights, torch.nan)
    losses, boxes = validation_losses(model, draw_batch(SIZE, 2, 4))
    assert boxes == [None, None]
    assert all(loss.isnan() for loss in losses.values())


def test_one_image_of_one_pixel_maps_can_be_learned_from():
    losses = training_losses(build("ssdlite", norm="batch", image_size=96), draw_batch(96, 1, 5))
    assert all(loss.isfinite() for loss in losses.values())
