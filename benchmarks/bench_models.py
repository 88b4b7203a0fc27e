"""Benchmark of the detector: training and inference against torchvision's own reference code.

Both sides are the same network with the same weights, on the same pictures and boxes. The peer
does what torchvision's ``references/detection`` does: float32 pictures in lists, through
torchvision's transform, model and losses. Ours is the step that `cxr train` runs, without
Lightning's loop around it, and the forward that `cxr predict` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torchvision.models import resnet18, resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.bench_networks import (
    LEARNING_RATE,
    autocast,
    image_rows,
    our_step,
    stack_pictures,
)
from benchmarks.bench_rows import Row
from benchmarks.bench_setting import Setting
from detection.backbone import group_norm
from detection.dataset import LesionBatch
from detection.model import build_retinanet, training_losses
from detection.retinanet import LesionRetinaNet
from scripts.runtime import choose_device, choose_precision, tune_cpu
from training.optimisation import Optimisation

_LARGE = 10_000  # boxes: torchvision keeps 300 in all, ours 100 for each finding


@dataclass(frozen=True)
class _Size:
    backbone: str
    fpn_channels: int
    head: str
    side: int
    batch: int

    @property
    def name(self) -> str:
        return (
            f"RetinaNet {self.head}, {self.backbone}, {self.fpn_channels} channels, {self.side} px,"
            f" batch {self.batch}"
        )


_QUICK = (_Size("resnet18", 32, "v2", 96, 2),)
_SIZES = (_Size("resnet18", 64, "v2", 256, 8), _Size("resnet50", 256, "v2", 512, 2))


def rows(setting: Setting) -> Iterator[Row]:
    """Measure the rows of this module, one after the other."""
    tune_cpu()
    device = choose_device()
    for size in _QUICK if setting.quick else _SIZES:
        yield from _training_rows(setting, size, device)
        yield from _inference_rows(setting, size, device)


def _training_rows(setting: Setting, size: _Size, device: str) -> Iterator[Row]:
    """One optimiser step, pictures in main memory to updated weights."""
    precision = choose_precision("auto", cast("Any", device))
    ours, peer = _twins(size, setting.seed, device)
    batch = _batch(setting, size)
    how = Optimisation(optimiser="sgd", learning_rate=LEARNING_RATE)
    timings = setting.meter.compare(
        {
            "ours": our_step(ours, training_losses, batch, device, precision, how),
            "torchvision": _peer_step(peer, batch, device),
        }
    )
    note = (
        f"training step: ours {precision} and channels_last, torchvision fp32 and contiguous, as "
        "its references/detection; live batch norm, all layers learn, SGD; without the loop of "
        "Lightning"
    )
    title = f"training step on {device}, {size.name}: ours against torchvision's reference"
    yield from image_rows(timings, [("ours", "torchvision")], title, note)


def _inference_rows(setting: Setting, size: _Size, device: str) -> Iterator[Row]:
    """Boxes of a batch: pictures in main memory to boxes in main memory."""
    ours, peer = _twins(size, setting.seed, device)
    pictures = _batch(setting, size).images
    candidates: dict[str, Callable[[], float]] = {
        precision: partial(_our_boxes, ours.eval(), pictures, device, precision)
        for precision in ("fp32", "bf16")
    }
    candidates["torchvision"] = partial(_peer_boxes, peer.eval(), pictures, device)
    pairs = [(precision, "torchvision") for precision in ("fp32", "bf16")]
    title = f"inference on {device} in {{ours}}, {size.name}: ours against {{peer}} fp32"
    note = "inference keeps boxes from a score of 0.001 on; the weights are random"
    yield from image_rows(setting.meter.compare(candidates), pairs, title, note)


def _twins(size: _Size, seed: int, device: str) -> tuple[LesionRetinaNet, RetinaNet]:
    """Our network, and torchvision's own with the same weights and anchors."""
    torch.manual_seed(seed)
    ours = build_retinanet(
        backbone=cast("Any", size.backbone),
        head=cast("Any", size.head),
        norm="batch",
        fpn_channels=size.fpn_channels,
        head_convs=4,
        image_size=size.side,
    )
    peer = _torchvision_twin(ours, size)
    peer.load_state_dict(ours.state_dict())
    ours.to(device).to(memory_format=torch.channels_last)
    return ours, peer.to(device)


def _torchvision_twin(ours: LesionRetinaNet, size: _Size) -> RetinaNet:
    """The network as torchvision's ``retinanet_resnet50_fpn_v2`` is put together."""
    body = {"resnet18": resnet18, "resnet50": resnet50}[size.backbone](weights=None)
    deepest = body.fc.in_features
    pyramid = BackboneWithFPN(
        body,
        {"layer2": "0", "layer3": "1", "layer4": "2"},
        [deepest // 4, deepest // 2, deepest],
        size.fpn_channels,
        extra_blocks=LastLevelP6P7(deepest, size.fpn_channels),
    )
    anchors = AnchorGenerator(ours.anchor_generator.sizes, ours.anchor_generator.aspect_ratios)
    head = RetinaNetHead(
        size.fpn_channels,
        anchors.num_anchors_per_location()[0],
        2,
        norm_layer=group_norm,  # as torchvision's at 256 channels; fewer groups below
    )
    head.regression_head._loss_type = "giou"
    mean, std = [ours.preprocess.mean] * 3, [ours.preprocess.std] * 3
    return RetinaNet(
        pyramid,
        2,
        min_size=size.side,
        max_size=size.side,
        image_mean=mean,
        image_std=std,
        anchor_generator=anchors,
        head=head,
        score_thresh=ours.score_thresh,
        nms_thresh=ours.nms_thresh,
        detections_per_img=_LARGE,
        topk_candidates=ours.topk_candidates,
    )


def _batch(setting: Setting, size: _Size) -> LesionBatch:
    """Real pictures with up to two boxes each, drawn from the seed."""
    rng = np.random.default_rng(setting.seed)
    boxes = []
    for number in range(size.batch):
        corner = rng.uniform(0, 0.5, size=(number % 3, 2)) * size.side
        sides = rng.uniform(0.1, 0.5, size=corner.shape) * size.side
        boxes.append(torch.from_numpy(np.hstack([corner, corner + sides]).astype(np.float32)))
    labels = [torch.ones(len(b), dtype=torch.int64) for b in boxes]
    names = [str(number) for number in range(size.batch)]
    pixels = stack_pictures(setting, size.batch, size.side)
    return LesionBatch(names, pixels, boxes, labels)


def _peer_step(model: RetinaNet, batch: LesionBatch, device: str) -> Callable[[], float]:
    optimiser = torch.optim.SGD(
        model.train().parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4
    )
    pictures = _as_floats(batch.images)

    def step() -> float:
        images = [picture.to(device) for picture in pictures]
        targets = [
            {"boxes": boxes.to(device), "labels": labels.to(device)}
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses = model(images, targets)
        total = sum(loss for loss in losses.values())
        total.item()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        return float(len(batch))

    return step


def _as_floats(images: torch.Tensor) -> list[torch.Tensor]:
    """Pictures as torchvision's data sets give them: float32 (3, S, S) in [0, 1]."""
    return [picture.repeat(3, 1, 1).float() / 255 for picture in images]


def _our_boxes(model: LesionRetinaNet, images: torch.Tensor, device: str, precision: str) -> float:
    with torch.inference_mode(), autocast(device, precision):
        found = model(images.to(device))
    for image in found:
        cast("dict[str, torch.Tensor]", image)["boxes"].cpu()
    return float(len(images))


def _peer_boxes(model: RetinaNet, images: torch.Tensor, device: str) -> float:
    with torch.inference_mode():
        found = model([picture.to(device) for picture in _as_floats(images)])
    for image in found:
        image["boxes"].cpu()
    return float(len(images))
