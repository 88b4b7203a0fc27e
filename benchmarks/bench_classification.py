"""Benchmark of the classifier: training and inference against a plain torchvision loop.

Both sides are the same network with the same weights, on the same pictures and labels. The peer
is what one would write with torchvision: its network, float32 pictures that are normalised
beforehand (which is not timed), binary cross entropy, AdamW. Ours is the step that `cxr train`
runs, without Lightning's loop around it, and the forward that `cxr predict` runs, from the pixel
store's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, densenet121

from benchmarks.bench_networks import (
    LEARNING_RATE,
    autocast,
    image_rows,
    our_step,
    stack_pictures,
)
from benchmarks.bench_rows import Row
from benchmarks.bench_setting import Setting
from classification.dataset import LabelBatch
from classification.loss import scores_of, training_losses
from classification.model import ImageClassifier, build_chexnet
from classification.saliency import explain
from scripts.runtime import choose_device, tune_cpu
from training.optimisation import Optimisation

_DECAY, _CLIP = 1e-4, 1.0
_PRECISIONS = ("fp32", "bf16")
_PAIRS = (
    ("ours fp32", "torchvision fp32"),
    ("ours bf16", "torchvision fp32"),
    ("ours bf16", "torchvision bf16"),
)


@dataclass(frozen=True)
class Size:
    """Side of the pictures, px, and how many are taken at once."""

    side: int
    batch: int

    @property
    def name(self) -> str:
        """In words."""
        return f"DenseNet121, {self.side} px, batch {self.batch}"


_QUICK = (Size(64, 2),)
SIZES = (Size(128, 16), Size(224, 32))


def rows(setting: Setting) -> Iterator[Row]:
    """Measure the rows of this module, one after the other."""
    tune_cpu()
    device = choose_device()
    for size in _QUICK if setting.quick else SIZES:
        batch = _batch(setting, size)
        yield from _training_rows(setting, size, batch, device)
        yield from _inference_rows(setting, size, batch.images, device)


def _training_rows(setting: Setting, size: Size, batch: LabelBatch, device: str) -> Iterator[Row]:
    """One optimiser step, pictures in main memory to updated weights."""
    candidates: dict[str, Callable[[], float]] = {}
    for precision in _PRECISIONS:
        ours, peer = twins(size, setting.seed, device)
        candidates[f"ours {precision}"] = training_step(ours, batch, device, precision)
        candidates[f"torchvision {precision}"] = _peer_step(
            peer, as_floats(ours, batch.images), batch.targets, device, precision
        )
    title = f"training step on {device}, {size.name}: {{ours}} against {{peer}}"
    note = (
        "classifier: ours in channels_last, torchvision contiguous; live batch norm, all layers "
        "learn, AdamW; without the loop of Lightning; both under the same settings of malloc"
    )
    yield from image_rows(setting.meter.compare(candidates), _PAIRS, title, note)


def _inference_rows(setting: Setting, size: Size, images: Tensor, device: str) -> Iterator[Row]:
    """Pictures in main memory to scores in main memory; ours makes its maps, too."""
    ours, peer = twins(size, setting.seed, device)
    floats = as_floats(ours, images)
    candidates: dict[str, Callable[[], float]] = {}
    for precision in _PRECISIONS:
        candidates[f"ours {precision}"] = scoring(ours, images, device, precision)
        candidates[f"torchvision {precision}"] = partial(
            _peer_scores, peer.eval(), floats, device, precision
        )
    title = f"inference on {device}, {size.name}: {{ours}} against {{peer}}"
    note = "classifier's inference: ours includes the activation maps, torchvision's has none"
    yield from image_rows(setting.meter.compare(candidates), _PAIRS, title, note)


def twins(size: Size, seed: int, device: str) -> tuple[ImageClassifier, DenseNet]:
    """Our network as `cxr train` and `cxr predict` hold it, and torchvision's of equal weights."""
    torch.manual_seed(seed)
    ours = build_chexnet(image_size=size.side)
    peer = densenet121(weights=None, num_classes=1)
    peer.features.load_state_dict(ours.trunk.state_dict())
    peer.classifier.load_state_dict(ours.classifier.state_dict())
    ours.to(device).to(memory_format=torch.channels_last)
    return ours, peer.to(device)


def as_floats(model: ImageClassifier, images: Tensor) -> Tensor:
    """Pictures as a loader of torchvision's gives them: normalised float32 (B, 3, S, S)."""
    return model.preprocess.normalise(images).expand(-1, 3, -1, -1).contiguous()


def training_step(
    model: ImageClassifier, batch: LabelBatch, device: str, precision: str
) -> Callable[[], float]:
    """Our step with AdamW."""
    how = Optimisation(learning_rate=LEARNING_RATE, weight_decay=_DECAY, clip=_CLIP)
    return our_step(model, training_losses, batch, device, precision, how)


def scoring(
    model: ImageClassifier, images: Tensor, device: str, precision: str
) -> Callable[[], float]:
    """Scores and maps of a batch, as `classification.inference.predict_scores` finds them."""
    model.eval()

    def score() -> float:
        with autocast(device, precision):
            found = explain(model, images.to(device), "cam")
            scores = scores_of(found.logits)
        scores.cpu(), found.maps.cpu()
        return float(len(images))

    return score


def _batch(setting: Setting, size: Size) -> LabelBatch:
    """Real pictures with labels drawn from the seed."""
    return labelled(stack_pictures(setting, size.batch, size.side), setting.seed)


def labelled(images: Tensor, seed: int) -> LabelBatch:
    """Pictures with labels drawn from a seed."""
    drawn = np.random.default_rng(seed).integers(2, size=(len(images), 1))
    names = [str(number) for number in range(len(images))]
    return LabelBatch(names, images, torch.from_numpy(drawn.astype(np.float32)))


def _peer_step(
    model: DenseNet, images: Tensor, targets: Tensor, device: str, precision: str
) -> Callable[[], float]:
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=LEARNING_RATE, weight_decay=_DECAY)
    loss_of = nn.BCEWithLogitsLoss()

    def step() -> float:
        pictures, labels = images.to(device), targets.to(device)
        with autocast(device, precision):
            loss = loss_of(model(pictures), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()
        return float(len(images))

    return step


def _peer_scores(model: DenseNet, images: Tensor, device: str, precision: str) -> float:
    with torch.inference_mode(), autocast(device, precision):
        scores = model(images.to(device)).sigmoid()
    scores.cpu()
    return float(len(images))
