"""With the same settings ours is torchvision's RetinaNet: losses bit for bit, boxes to rounding.

Same weights and images, float32, three findings, COCO's anchors, our thresholds, images of the
model's size, so that torchvision's transform is an identity. Ours differs on purpose in what
follows; the tests at the end show each.

- Class 0. torchvision counts background as a class and returns it where it scores; ours never
  does. Training drives its scores to nothing in both, and the weights here have it there.
- The limits. torchvision keeps 300 boxes an image, ours 100 a finding, so that one finding cannot
  crowd out another; and ours takes 1,000 candidates a level *for each finding*.
- The threshold. torchvision keeps a score above it, ours one that reaches it, as everywhere here.
- The pixels. torchvision takes mean and deviation off each colour in [0, 1]; ours off the one grey
  value in [0, 255], once, in `Preprocess`. Both nets get ours here; else they agree to rounding.
- A NaN. torchvision returns no boxes, which reads as "nothing found"; ours returns None.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import (
    RetinaNet,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.detection.detector import LesionBatch, build_targets, training_losses
from cxr_compare.detection.frames import CANDIDATES_PER_LEVEL, MAX_PER_FINDING, MIN_SCORE, NMS_IOU
from cxr_compare.detection.model import build_detector

CLASSES = 4  # with background
COCO_ANCHORS = (32, 64, 128, 256, 512)
PUBLISHED = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}
NORMS = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d}


def torchvision_small(version: str, norm: str, **settings: object) -> RetinaNet:
    """`retinanet_resnet50_fpn` or `_v2` line by line, on a ResNet-18."""
    body = resnet18(weights=None, norm_layer=NORMS[norm])
    top = LastLevelP6P7(256 if version == "v1" else 512, 256)
    pyramid = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=top)
    if version == "v1":
        return RetinaNet(pyramid, CLASSES, **settings)
    anchors = _default_anchorgen()
    groups = partial(nn.GroupNorm, 32)
    head = RetinaNetHead(256, anchors.num_anchors_per_location()[0], CLASSES, norm_layer=groups)
    head.regression_head._loss_type = "giou"
    return RetinaNet(pyramid, CLASSES, anchor_generator=anchors, head=head, **settings)


def transform_settings(size: int) -> dict[str, object]:
    """Neither resize nor normalise: the images are at model size, and normalised before."""
    plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    return {"min_size": size, "max_size": size, **plain}


def limit_as_ours(model: RetinaNet, n_findings: int) -> None:
    """Give torchvision's postprocessing our thresholds, but for the boxes of each finding."""
    # It compares with `>`; here a score of exactly 0.001 counts.
    model.score_thresh = float(np.nextafter(np.float32(MIN_SCORE), np.float32(0)))
    model.nms_thresh = NMS_IOU
    model.topk_candidates = CANDIDATES_PER_LEVEL * n_findings
    model.detections_per_img = 5 * model.topk_candidates


def build_pair(version: str, *, backbone: str, norm: str, size: int, seed: int):
    """Our model and torchvision's, with one set of weights and one set of thresholds."""
    torch.manual_seed(seed)
    ours = build_detector(
        "retinanet",
        backbone=backbone,
        head=version,
        norm=norm,
        n_findings=CLASSES - 1,
        image_size=size,
        anchor_sizes=COCO_ANCHORS,
    )
    with pytest.MonkeyPatch.context() as patch:  # draws no values that ours replace below
        for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        if backbone == "resnet18":
            theirs = torchvision_small(version, norm, **transform_settings(size))
        else:
            none = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
            theirs = PUBLISHED[version](**none, **transform_settings(size))
    with torch.no_grad():  # scores spread widely, but for background's: so they are after training
        logits = ours.head.classification_head.cls_logits
        logits.weight.normal_(std=0.05)
        logits.bias.uniform_(-3.5, -3.0)
        logits.weight.view(9, CLASSES, -1)[:, 0] = 0.0
        logits.bias.view(9, CLASSES)[:, 0] = -50.0
        ours.head.regression_head.bbox_reg.weight.normal_(std=0.02)
    limit_as_ours(theirs, CLASSES - 1)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def draw_batch(size: int, count: int, seed: int) -> LesionBatch:
    """Noise with boxes of all classes; the second image has none."""
    rng = np.random.default_rng(seed)
    boxes, labels = [], []
    for image in range(count):
        n = 0 if image == 1 else int(rng.integers(1, 6))
        sides = rng.uniform(8, size / 2, (n, 2))
        corner = rng.uniform(0, size - sides)
        boxes.append(torch.from_numpy(np.concatenate([corner, corner + sides], 1)).float())
        labels.append(torch.from_numpy(rng.integers(1, CLASSES, n)))
    pixels = rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8)
    return LesionBatch([str(i) for i in range(count)], torch.from_numpy(pixels), boxes, labels)


def as_torchvision(boxes: Boxes) -> dict[str, torch.Tensor]:
    """An image's boxes as torchvision gives them."""
    values = (boxes.corners, boxes.scores, boxes.labels)
    return dict(zip(("boxes", "scores", "labels"), map(torch.from_numpy, values), strict=True))


def require_same_boxes(actual, reference) -> None:
    """Ours are the first hundred of each finding, torchvision keeps all; both to rounding.

    Each has a partner: two that score alike to rounding may change places.
    """
    actual = as_torchvision(actual)
    for label in range(1, CLASSES):
        same_label, same = actual["labels"] == label, reference["labels"] == label
        scores, expected = actual["scores"][same_label], reference["scores"][same][:MAX_PER_FINDING]
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
        boxes, others = actual["boxes"][same_label], reference["boxes"][same][:MAX_PER_FINDING]
        apart = (boxes[:, None] - others).abs().amax(2)
        alike = (apart <= 1e-3) & ((scores[:, None] - expected).abs() <= 1e-6)
        assert alike.any(0).all()
        assert alike.any(1).all()


def require_equal(ours, theirs, batch: LesionBatch) -> list[dict[str, torch.Tensor]]:
    """Losses, gradients and statistics are the same bits, boxes but for rounding; gives those."""
    pixels = list(ours.preprocess.normalise(batch.images).expand(-1, 3, -1, -1))
    expected = theirs.train()(pixels, build_targets(batch, CLASSES - 1))
    got = training_losses(ours.train(), batch)
    assert {k: v.item() for k, v in got.items()} == {k: v.item() for k, v in expected.items()}
    sum(got.values()).backward()
    sum(expected.values()).backward()
    peers = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        assert torch.equal(value.grad, peers[name].grad), name
    with torch.no_grad():
        actual, reference = ours.eval()(batch.images), theirs.eval()(pixels)
    for image, peer in zip(actual, reference, strict=True):
        assert len(peer["boxes"]) > 0
        require_same_boxes(image, peer)
    return actual


@pytest.mark.parametrize(
    ("version", "norm", "size", "count", "seed"),
    [("v1", "frozen", 160, 2, 1), ("v2", "batch", 128, 2, 0)],
)
def test_losses_gradients_and_boxes_are_torchvisions(version, norm, size, count, seed):
    ours, theirs = build_pair(version, backbone="resnet18", norm=norm, size=size, seed=seed)
    actual = require_equal(ours, theirs, draw_batch(size, count, seed))
    most = max(np.bincount(image.labels).max() for image in actual)
    assert most == MAX_PER_FINDING  # the limit was at work


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("size", "seed"), [(96, 0), pytest.param(160, 1, marks=pytest.mark.long)])
def test_the_published_resnet50_models_are_ours_bit_for_bit(version, size, seed):
    ours, theirs = build_pair(version, backbone="resnet50", norm="batch", size=size, seed=seed)
    require_equal(ours, theirs, draw_batch(size, 2, seed))


def test_the_mean_over_many_images_is_torchvisions_too():
    # A sum of nine terms has an order; torch.mean's is another than torchvision's.
    ours, theirs = build_pair("v2", backbone="resnet18", norm="frozen", size=32, seed=2)
    require_equal(ours, theirs, draw_batch(32, 9, 2))


def test_a_batch_without_any_box_has_torchvisions_losses():
    ours, theirs = build_pair("v2", backbone="resnet18", norm="frozen", size=64, seed=3)
    batch = draw_batch(64, 3, 3)
    empty = LesionBatch(
        batch.image_ids,
        batch.images,
        [b[:0] for b in batch.boxes],
        [label[:0] for label in batch.labels],
    )
    require_equal(ours, theirs, empty)


def test_background_is_left_out_where_torchvision_returns_it():
    ours, theirs = build_pair("v1", backbone="resnet18", norm="frozen", size=64, seed=4)
    for model in (ours, theirs):
        model.head.classification_head.cls_logits.bias.data.view(9, CLASSES)[:, 0] = 2.0
    # Limits that do not bind: background would take places under them.
    theirs.topk_candidates = theirs.detections_per_img = 1_000_000
    batch = draw_batch(64, 1, 4)
    pixels = list(ours.preprocess.normalise(batch.images).expand(-1, 3, -1, -1))
    with torch.no_grad():
        actual, reference = ours.eval()(batch.images)[0], theirs.eval()(pixels)[0]
    assert (reference["labels"] == 0).any()
    assert (actual.labels > 0).all()
    require_same_boxes(actual, reference)


def test_normalising_where_torchvision_does_differs_by_rounding_only():
    ours, theirs = build_pair("v2", backbone="resnet18", norm="frozen", size=64, seed=5)
    theirs.transform.image_mean = [ours.preprocess.mean] * 3
    theirs.transform.image_std = [ours.preprocess.std] * 3
    batch = draw_batch(64, 2, 5)
    pixels = list((batch.images.float() / 255).expand(-1, 3, -1, -1))
    expected = theirs.train()(pixels, build_targets(batch, CLASSES - 1))
    got = training_losses(ours.train(), batch)
    for name, value in got.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-4)
