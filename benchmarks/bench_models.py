"""Both networks: training and inference against the same network in torchvision's own way.

The peers have the same weights, images, boxes and labels. The detector's does what torchvision's
``references/detection`` does: float32 images in lists, torchvision's transform, model and losses.
The classifier's takes float32 images that are normalised beforehand (which is not timed), binary
cross entropy and AdamW. Ours is the step that `cxr train` runs, without Lightning's loop around
it, and the forward that `cxr predict` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, densenet121, resnet18, resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.bench import Row, Run, Setting
from classification.dataset import LabelBatch
from classification.loss import scores_of
from classification.loss import training_losses as classifier_losses
from classification.model import ImageClassifier, build_chexnet
from classification.saliency import saliency_maps
from data_prep.images.image import read_image
from data_prep.store.preprocess import letterbox
from detection.backbone import group_norm
from detection.dataset import LesionBatch
from detection.model import build_retinanet
from detection.model import training_losses as detector_losses
from detection.retinanet import LesionRetinaNet
from scripts.runtime import choose_device, choose_precision, tune_cpu
from training.loop import read_losses
from training.optimisation import FitSettings, build_optimiser

_LEARNING_RATE = 1e-5  # small: weights that run away would change what a step costs
_LARGE = 10_000  # boxes: torchvision keeps 300 in all, ours 100 for each finding
_PRECISIONS = ("fp32", "bf16")
_PAIRED = ("fp32", "bf16", "bf16"), ("fp32", "fp32", "bf16")  # ours with torchvision's


class Size(NamedTuple):
    """Side of the images, px, how many are taken at once, and the network's width."""

    side: int
    batch: int
    backbone: str = "DenseNet121"
    fpn_channels: int = 0

    def __str__(self) -> str:
        network = f"RetinaNet v2, {self.backbone}, {self.fpn_channels} channels"
        name = network if self.fpn_channels else self.backbone
        return f"{name}, {self.side} px, batch {self.batch}"


QUICK_DETECTOR = Size(96, 2, "resnet18", 32)
_DETECTORS = (Size(256, 8, "resnet18", 64), Size(512, 2, "resnet50", 256))
QUICK_CLASSIFIER = Size(64, 2)
_CLASSIFIERS = (Size(128, 16), Size(224, 32))


def detection_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure the detector: one optimiser step, then boxes, main memory to main memory."""
    tune_cpu()
    device, seed = choose_device(), setting.seed
    precision = choose_precision("auto", cast("Any", device))
    learning = (
        f"training step: ours {precision} and channels_last, torchvision fp32 and contiguous, "
        "as its references/detection; live batch norm, all layers learn, SGD; without the "
        "loop of Lightning"
    )
    inferring = "inference keeps boxes from a score of 0.001 on; the weights are random"
    for size in (QUICK_DETECTOR,) if setting.quick else _DETECTORS:
        batch = boxed(_stack_images(setting, size), seed)
        ours, peer = detector_twins(size, seed, device)
        runs = {
            "ours": detector_step(ours, batch, device, precision),
            "torchvision": _peer_detector_step(peer, batch, device),
        }
        title = f"training step on {device}, {size}: ours against torchvision's reference"
        yield from _image_rows(setting, runs, [("ours", "torchvision")], title, learning)
        ours, peer = detector_twins(size, seed, device)
        given, floats = partial(batch.images.to, device), partial(detector_floats, batch.images)
        runs = {name: partial(_boxes, ours.eval(), given, device, name) for name in _PRECISIONS}
        runs["torchvision"] = partial(_boxes, peer.eval(), partial(floats, device), device)
        title = f"inference on {device} in {{ours}}, {size}: ours against {{peer}} fp32"
        pairs = [(name, "torchvision") for name in _PRECISIONS]
        yield from _image_rows(setting, runs, pairs, title, inferring)


def classification_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure the classifier: one optimiser step, then scores; ours makes its maps, too."""
    tune_cpu()
    device, seed = choose_device(), setting.seed
    pairs = [(f"ours {a}", f"torchvision {b}") for a, b in zip(*_PAIRED, strict=True)]
    learning = (
        "classifier: ours in channels_last, torchvision contiguous; live batch norm, all "
        "layers learn, AdamW; without the loop of Lightning; both under the same settings of "
        "malloc"
    )
    inferring = "classifier's inference: ours includes the activation maps, torchvision's has none"
    for size in (QUICK_CLASSIFIER,) if setting.quick else _CLASSIFIERS:
        batch = labelled(_stack_images(setting, size), seed)
        steps: dict[str, Run] = {}
        scores: dict[str, Run] = {}
        ours, peer = classifier_twins(size, seed, device)
        floats = classifier_floats(ours, batch.images)
        for name in _PRECISIONS:
            scores[f"ours {name}"] = partial(_our_scores, ours.eval(), batch.images, device, name)
            scores[f"torchvision {name}"] = partial(_peer_scores, peer.eval(), floats, device, name)
            learner, reference = classifier_twins(size, seed, device)
            steps[f"ours {name}"] = classifier_step(learner, batch, device, name)
            steps[f"torchvision {name}"] = _peer_classifier_step(
                reference, floats, batch.targets, device, name
            )
        title = f"training step on {device}, {size}: {{ours}} against {{peer}}"
        yield from _image_rows(setting, steps, pairs, title, learning)
        title = f"inference on {device}, {size}: {{ours}} against {{peer}}"
        yield from _image_rows(setting, scores, pairs, title, inferring)


def _image_rows(
    setting: Setting, runs: dict[str, Run], pairs: list[tuple[str, str]], title: str, note: str
) -> Iterator[dict[str, Any]]:
    """Images a second of pairs of candidates, whose names fill the title."""
    rows = [
        Row(title.format(ours=ours, peer=peer), "images/s", ours, peer, note=note)
        for ours, peer in pairs
    ]
    return setting.meter.measure(runs, rows)


def _stack_images(setting: Setting, size: Size) -> Tensor:
    """Images as the pixel store has them, uint8 (B, 1, S, S), repeated where there are fewer."""
    paths = setting.images[: size.batch]
    read = [letterbox(read_image(path).pixels, size.side)[0] for path in paths]
    return torch.from_numpy(np.stack([read[n % len(read)] for n in range(size.batch)]))[:, None]


def _autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def _our_step(
    model: nn.Module,
    losses_of: Callable[[Any, Any], dict[str, Tensor]],
    batch: Any,
    device: str,
    precision: str,
    how: FitSettings,
) -> Run:
    """The step that `cxr train` runs, images in main memory to updated weights."""
    optimiser = build_optimiser(model.train(), how)

    def step() -> float:
        moved = batch.to(device)
        with _autocast(device, precision):
            losses = losses_of(model, moved)
        read_losses(losses)
        optimiser.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), how.clip or float("inf"))
        optimiser.step()
        norm.item()  # finite or not?
        return float(len(batch))

    return step


def detector_twins(size: Size, seed: int, device: str) -> tuple[LesionRetinaNet, RetinaNet]:
    """Our network, and torchvision's own with the same weights and anchors."""
    torch.manual_seed(seed)
    ours = build_retinanet(
        backbone=cast("Any", size.backbone),
        head="v2",
        norm="batch",
        fpn_channels=size.fpn_channels,
        head_convs=4,
        image_size=size.side,
    )
    # As torchvision's ``retinanet_resnet50_fpn_v2`` is put together.
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
        score_thresh=ours.score_thresh,
        nms_thresh=ours.nms_thresh,
        detections_per_img=_LARGE,
        topk_candidates=ours.topk_candidates,
    )
    peer.load_state_dict(ours.state_dict())
    ours.to(device).to(memory_format=torch.channels_last)
    return ours, peer.to(device)


def boxed(images: Tensor, seed: int) -> LesionBatch:
    """Images with up to two boxes each, drawn from a seed."""
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
    """Images as torchvision's data sets give them, float32 (3, S, S) in [0, 1], on a device."""
    return [(image.repeat(3, 1, 1).float() / 255).to(device) for image in images]


def _peer_detector_step(model: RetinaNet, batch: LesionBatch, device: str) -> Run:
    floats, parameters = detector_floats(batch.images), model.train().parameters()
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


def _boxes(
    model: nn.Module, images: Callable[[], object], device: str, precision: str = "fp32"
) -> float:
    with torch.inference_mode(), _autocast(device, precision):
        found = model(images())
    for image in found:
        image["boxes"].cpu()
    return float(len(found))


def classifier_twins(size: Size, seed: int, device: str) -> tuple[ImageClassifier, DenseNet]:
    """Our network as `cxr train` and `cxr predict` hold it, and torchvision's of equal weights."""
    torch.manual_seed(seed)
    ours = build_chexnet(image_size=size.side)
    peer = densenet121(weights=None, num_classes=1)
    peer.features.load_state_dict(ours.trunk.state_dict())
    peer.classifier.load_state_dict(ours.classifier.state_dict())
    ours.to(device).to(memory_format=torch.channels_last)
    return ours, peer.to(device)


def labelled(images: Tensor, seed: int) -> LabelBatch:
    """Images with labels drawn from a seed."""
    drawn = np.random.default_rng(seed).integers(2, size=(len(images), 1))
    names = [str(number) for number in range(len(images))]
    return LabelBatch(names, images, torch.from_numpy(drawn.astype(np.float32)))


def classifier_floats(model: ImageClassifier, images: Tensor) -> Tensor:
    """Images as a loader of torchvision's gives them: normalised float32 (B, 3, S, S)."""
    return model.preprocess.normalise(images).expand(-1, 3, -1, -1).contiguous()


def classifier_step(model: ImageClassifier, batch: LabelBatch, device: str, precision: str) -> Run:
    """Our step with AdamW."""
    how = FitSettings(learning_rate=_LEARNING_RATE, weight_decay=1e-4, clip=1.0)
    return _our_step(model, classifier_losses, batch, device, precision, how)


def detector_step(model: LesionRetinaNet, batch: LesionBatch, device: str, precision: str) -> Run:
    """Our step with SGD."""
    how = FitSettings(optimiser="sgd", learning_rate=_LEARNING_RATE)
    return _our_step(model, detector_losses, batch, device, precision, how)


def _peer_classifier_step(
    model: DenseNet, floats: Tensor, targets: Tensor, device: str, precision: str
) -> Run:
    parameters, criterion = model.train().parameters(), nn.BCEWithLogitsLoss()
    optimiser = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=1e-4)

    def loss_of() -> Tensor:
        images, labels = floats.to(device), targets.to(device)
        with _autocast(device, precision):
            return criterion(model(images), labels)

    return partial(_peer_step, optimiser, loss_of, len(floats))


def _our_scores(model: ImageClassifier, images: Tensor, device: str, precision: str) -> float:
    """Scores and maps of a batch, as `classification.inference.predict_scores` finds them."""
    with _autocast(device, precision):
        found = saliency_maps(model, images.to(device), "cam")
        scores = scores_of(found.logits)
    scores.cpu(), found.maps.cpu()
    return float(len(images))


def _peer_scores(model: DenseNet, floats: Tensor, device: str, precision: str) -> float:
    with torch.inference_mode(), _autocast(device, precision):
        model(floats.to(device)).sigmoid().cpu()
    return float(len(floats))
