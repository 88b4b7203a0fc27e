"""The machine's peak speed, and the training step of both networks against torchvision's own step.

Both sides have the same weights, images, boxes and labels. The step of torchvision's detector does
what ``references/detection`` does: float32 images in lists, torchvision's transform, model and
losses. The step of the classifier takes float32 images that are normalised beforehand (which is not
timed), binary cross entropy and AdamW. Our step is the one that `cxr train` runs, without
Lightning's loop around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, densenet121, resnet18, resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.bench import Row, Setting
from benchmarks.worker import Candidate, Run
from cxr_compare.classification.loss import LabelBatch
from cxr_compare.classification.loss import training_losses as classifier_losses
from cxr_compare.classification.model import ImageClassifier, build_classifier
from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.store.preprocess import letterbox
from cxr_compare.detection.backbone import group_norm
from cxr_compare.detection.detector import LesionBatch
from cxr_compare.detection.detector import training_losses as detector_losses
from cxr_compare.detection.frames import CANDIDATES_PER_LEVEL, MIN_SCORE, NMS_IOU
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.networks.cost import count_flops
from cxr_compare.scripts.runtime import choose_device
from cxr_compare.training.launch import has_bf16_instructions
from cxr_compare.training.optim import build_optimiser

_LEARNING_RATE = 1e-5  # small: weights that run away would change what a step costs
_LARGE = 10_000  # boxes: torchvision keeps 300 in all, ours 100 for each finding
_PRECISIONS = ("fp32", "bf16")


class Size(NamedTuple):
    """Size of the images and of the network.

    `side` is in px. `fpn_channels` are those of a detector's feature pyramid; 0 for a classifier.
    """

    side: int
    batch: int
    backbone: str = "DenseNet121"
    fpn_channels: int = 0

    def __str__(self) -> str:
        network = f"RetinaNet v2, {self.backbone}, {self.fpn_channels} channels"
        name = network if self.fpn_channels else self.backbone
        return f"{name}, {self.side} px, batch {self.batch}"


QUICK_DETECTOR = Size(96, 2, "resnet18", 32)
QUICK_CLASSIFIER = Size(64, 2)
_DETECTOR = Size(512, 2, "resnet50", 256)
_CLASSIFIER = Size(224, 16)
_PASSES = 3  # of a training step: forward, and backward by images and by weights
# shape, side, bytes
_CONVOLVED = (16, 256, 56)
_MULTIPLIED = 2048
_COPIED = 1 << 28


def sizes(setting: Setting) -> dict[str, Size]:
    """Return the sizes at which each network is measured."""
    quick = {"detector": QUICK_DETECTOR, "classifier": QUICK_CLASSIFIER}
    return quick if setting.quick else {"detector": _DETECTOR, "classifier": _CLASSIFIER}


def peak_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure the peak speed of the machine: convolutions, matrix products and memory copies."""
    device = choose_device()
    kinds = [("3x3 convolution", name) for name in _PRECISIONS]
    kinds += [("matrix product", name) for name in _PRECISIONS] + [("copy of memory", "")]
    candidates = {
        f"{kind} {name}".strip(): Candidate.from_setup(
            peak, kind=kind, precision=name, device=device, small=setting.quick
        )
        for kind, name in kinds
    }
    rows = [
        Row("peak", "GFLOP/s" if name else "GB/s", candidate)
        for candidate, (_, name) in zip(candidates, kinds, strict=True)
    ]
    for (_, name), row in zip(kinds, setting.meter.measure(candidates, rows), strict=True):
        if row["ours"]:
            known = setting.meter.peaks.get(name or "copy", 0.0)
            setting.meter.peaks[name or "copy"] = max(known, 1e9 * row["ours"])
        yield row


def peak(kind: str, precision: str, device: str, small: bool) -> Run:
    """Set up work of one kind that reaches the peak speed of the machine.

    `kind` is ``copy of memory``, ``matrix product`` or ``3x3 convolution``. The work returns
    thousand millions of operations or of bytes.
    """
    number = torch.bfloat16 if precision == "bf16" else torch.float32
    if kind == "copy of memory":
        source = torch.ones((_COPIED >> 8 if small else _COPIED) // 4, device=device)
        target = torch.empty_like(source)
        amount = 2 * source.numel() * source.element_size()  # read and written
        work = partial(target.copy_, source)
    elif kind == "matrix product":
        side = _MULTIPLIED // 16 if small else _MULTIPLIED
        factor = torch.randn(side, side, device=device).to(number)
        amount = 2 * side**3
        work = partial(torch.mm, factor, factor)
    else:
        batch, channels, side = (1, 16, 14) if small else _CONVOLVED
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, number)
        images = torch.randn(batch, channels, side, side, device=device).to(number)
        shaped = images.to(memory_format=torch.channels_last)
        amount = 2 * 9 * channels**2 * side**2 * batch
        work = partial(layer.to(memory_format=torch.channels_last), shaped)

    def run() -> float:
        with torch.inference_mode():
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        return amount / 1e9

    return run


def training_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows of one optimiser step of both networks, against torchvision's reference."""
    device = choose_device()
    note = (
        "training: ours is the step of `cxr train` without Lightning's loop, in channels_last; "
        "torchvision is contiguous fp32 as its references/detection; live batch norm, all layers "
        "learn; SGD for the detector, AdamW for the classifier; the share of the peak takes "
        f"{_PASSES} times the operations of the forward pass"
    )
    peer = "torchvision fp32"
    for kind, size in sizes(setting).items():
        arguments: dict[str, Any] = {
            "kind": kind,
            "size": size,
            "device": device,
            "seed": setting.seed,
        }
        arguments["images"] = stacked_images(setting, size)
        candidates = {peer: Candidate.from_setup(training_step, precision="", **arguments)}
        rows = []
        for name in precisions(device):
            ours = f"ours {name}"
            candidates[ours] = Candidate.from_setup(
                training_step, tuned=True, precision=name, **arguments
            )
            bound = name, _PASSES * flops(kind, size)
            work = f"training step on {device}, {size}"
            rows.append(Row(work, "images/s", ours, peer, bound=bound, note=note))
        yield from setting.meter.measure(candidates, rows)


def precisions(device: str) -> tuple[str, ...]:
    """Return the precisions that the processor has instructions for."""
    return _PRECISIONS if device == "cuda" or has_bf16_instructions() else _PRECISIONS[:1]


def training_step(
    kind: str, size: Sequence[Any], images: str, device: str, seed: int, precision: str
) -> Run:
    """Set up our training step in a precision, or torchvision's step.

    `images` is their file. The seed is that of weights, boxes and labels. The precision is empty
    for torchvision's step.
    """
    shape = Size(*size)
    pixels = torch.from_numpy(np.load(images))
    if kind == "detector":
        batch = boxed(pixels, seed)
        ours, peer = detector_twins(shape, seed, device)
        if precision:
            return detector_step(ours, batch, device, precision)
        return _peer_detector_step(peer, batch, device)
    labels = labelled(pixels, seed)
    learner, reference = classifier_twins(shape, seed, device)
    if precision:
        return classifier_step(learner, labels, device, precision)
    floats = classifier_floats(learner, pixels)
    return _peer_classifier_step(reference, floats, labels.targets, device)


def flops(kind: str, size: Size) -> float:
    """Count the floating-point operations of the forward pass of one image."""
    twins = detector_twins if kind == "detector" else classifier_twins
    return float(count_flops(twins(size, 0, "cpu")[0], size.side))


def stacked_images(setting: Setting, size: Size) -> str:
    """Write images as the pixel store has them into a file, repeated if there are few.

    They are uint8 ``(B, 1, S, S)``.
    """
    paths = setting.images[: size.batch]
    read = [letterbox(read_image(path).pixels, size.side)[0] for path in paths]
    stacked = np.stack([read[n % len(read)] for n in range(size.batch)])[:, None]
    path = setting.scratch / f"{size.side}x{size.batch}.npy"
    np.save(path, stacked)
    return str(path)


def _autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def _our_step(
    model: nn.Module,
    losses_of: Callable[[Any, Any], dict[str, Tensor]],
    batch: Any,
    device: str,
    precision: str,
    how: TrainingSettings,
) -> Run:
    """Return the step that `cxr train` runs, from images in main memory to updated weights."""
    optimiser = build_optimiser(model.train(), how)

    def step() -> float:
        moved = batch.to(device)
        with _autocast(device, precision):
            losses = losses_of(model, moved)
        optimiser.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), how.clip or float("inf"))
        optimiser.step()
        norm.item()  # waits for the step
        return float(len(batch))

    return step


def detector_twins(size: Size, seed: int, device: str) -> tuple[LesionRetinaNet, RetinaNet]:
    """Build our detector, and torchvision's with the same weights and anchors."""
    torch.manual_seed(seed)
    ours: Any = build_detector(
        "retinanet",
        n_findings=1,
        backbone=size.backbone,
        head="v2",
        norm="batch",
        fpn_channels=size.fpn_channels,
        head_convs=4,
        image_size=size.side,
    )
    # This is how torchvision builds ``retinanet_resnet50_fpn_v2``.
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
    n_anchors = anchors.num_anchors_per_location()[0]
    # Group norm as torchvision's at 256 channels; fewer groups below.
    head = RetinaNetHead(size.fpn_channels, n_anchors, 2, norm_layer=group_norm)
    head.regression_head._loss_type = "giou"
    peer = RetinaNet(
        pyramid,
        2,
        min_size=size.side,
        max_size=size.side,
        image_mean=[ours.preprocess.mean] * 3,
        image_std=[ours.preprocess.std] * 3,
        anchor_generator=anchors,
        head=head,
        score_thresh=float(np.nextafter(np.float32(MIN_SCORE), np.float32(0))),
        nms_thresh=NMS_IOU,
        detections_per_img=_LARGE,
        topk_candidates=CANDIDATES_PER_LEVEL,
    )
    peer.load_state_dict(ours.state_dict())
    ours.to(device).to(memory_format=torch.channels_last)
    return ours, peer.to(device)


def boxed(images: Tensor, seed: int) -> LesionBatch:
    """Draw up to two boxes on each image, uint8 ``(B, 1, S, S)``."""
    rng = np.random.default_rng(seed)
    side = images.shape[-1]
    boxes = []
    for number in range(len(images)):
        corner = rng.uniform(0, 0.5, size=(number % 3, 2)) * side
        extent = rng.uniform(0.1, 0.5, size=corner.shape) * side
        boxes.append(torch.from_numpy(np.hstack([corner, corner + extent]).astype(np.float32)))
    labels = [torch.ones(len(b), dtype=torch.int64) for b in boxes]
    return LesionBatch([str(number) for number in range(len(images))], images, boxes, labels)


def detector_floats(images: Tensor, device: str = "cpu") -> list[Tensor]:
    """Convert images, uint8 ``(B, 1, S, S)``, to float32 ``(3, S, S)`` in [0, 1] each."""
    return [(image.repeat(3, 1, 1).float() / 255).to(device) for image in images]


def _peer_detector_step(model: RetinaNet, batch: LesionBatch, device: str) -> Run:
    floats = detector_floats(batch.images)
    parameters = model.train().parameters()
    optimiser = torch.optim.SGD(parameters, lr=_LEARNING_RATE, momentum=0.9, weight_decay=1e-4)

    def loss_of() -> Tensor:
        images = [image.to(device) for image in floats]
        targets = [
            {"boxes": boxes.to(device), "labels": labels.to(device)}
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        loss = torch.stack([*model(images, targets).values()]).sum()
        loss.item()  # the reference looks whether it is finite
        return loss

    return partial(_peer_step, optimiser, loss_of, len(batch))


def _peer_step(
    optimiser: torch.optim.Optimizer, loss_of: Callable[[], Tensor], n_images: int
) -> float:
    loss = loss_of()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    loss.item()
    return float(n_images)


def classifier_twins(size: Size, seed: int, device: str) -> tuple[ImageClassifier, DenseNet]:
    """Build our classifier as `cxr train` uses it, and torchvision's with the same weights."""
    torch.manual_seed(seed)
    ours = build_classifier("densenet121", image_size=size.side)
    peer = densenet121(weights=None, num_classes=1)
    peer.features.load_state_dict(ours.trunk.state_dict())
    peer.classifier.load_state_dict(ours.classifier.state_dict())
    ours.to(device).to(memory_format=torch.channels_last)
    return ours, peer.to(device)


def labelled(images: Tensor, seed: int) -> LabelBatch:
    """Draw a label for each image, uint8 ``(B, 1, S, S)``."""
    drawn = np.random.default_rng(seed).integers(2, size=(len(images), 1))
    names = [str(number) for number in range(len(images))]
    return LabelBatch(names, images, torch.from_numpy(drawn.astype(np.float32)))


def classifier_floats(model: ImageClassifier, images: Tensor) -> Tensor:
    """Convert images to the form of a loader of torchvision, normalised float32 ``(B, 3, S, S)``.

    `images` are uint8 ``(B, 1, S, S)``.
    """
    return model.preprocess.normalise(images).expand(-1, 3, -1, -1).contiguous()


def classifier_step(model: ImageClassifier, batch: LabelBatch, device: str, precision: str) -> Run:
    """Set up our training step of the classifier with AdamW."""
    how = TrainingSettings(
        epochs=1,
        batch_size=len(batch.images),
        learning_rate=_LEARNING_RATE,
        weight_decay=1e-4,
        clip=1.0,
        monitor="val_loss",
    )
    return _our_step(model, classifier_losses, batch, device, precision, how)


def detector_step(model: LesionRetinaNet, batch: LesionBatch, device: str, precision: str) -> Run:
    """Set up our training step of the detector with SGD."""
    how = TrainingSettings(
        epochs=1,
        batch_size=len(batch.images),
        optimiser="sgd",
        learning_rate=_LEARNING_RATE,
        monitor="val_loss",
    )
    return _our_step(model, detector_losses, batch, device, precision, how)


def _peer_classifier_step(model: DenseNet, floats: Tensor, targets: Tensor, device: str) -> Run:
    parameters = model.train().parameters()
    criterion = nn.BCEWithLogitsLoss()
    optimiser = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=1e-4)

    def loss_of() -> Tensor:
        images = floats.to(device)
        labels = targets.to(device)
        return criterion(model(images), labels)

    return partial(_peer_step, optimiser, loss_of, len(floats))


BLOCKS = {"machine": (peak_rows,), "training": (training_rows,)}
