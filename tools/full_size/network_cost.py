"""Cost of one image: operations of a training step, and of a prediction."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch

from cxr_compare.classification.dataset import LabelBatch
from cxr_compare.classification.loss import training_losses as classifier_losses
from cxr_compare.classification.model import build_classifier
from cxr_compare.configs.settings import Config, ProbeConfig
from cxr_compare.data_prep.augment.augment import build_augmentation
from cxr_compare.detection.detector import LesionBatch
from cxr_compare.detection.detector import training_losses as detector_losses
from cxr_compare.detection.model import build_detector
from cxr_compare.training.cost import count_flops, count_parameters

_COUNTED = 2  # images of the counted batch
_AUGMENTED = 40  # images whose augmentation is timed


@dataclass(frozen=True)
class NetworkCost:
    """Cost of one image in a network.

    Attributes:
        forward: Operations of a prediction, FLOP.
        step: Operations of a training step, forward and backward, FLOP; 0 for a probe.
        parameters: Number of parameters.
        read_seconds: Processor time in which one training image is augmented, s; 0 without
            augmentation.
    """

    forward: float
    step: float
    parameters: int
    read_seconds: float


def count_cost(config: Config) -> NetworkCost:
    """Build the network of a configuration with random weights, and count what one image costs.

    PyTorch's ``FlopCounterMode`` counts the convolutions and matrix products. The augmentation is
    timed as processor time, on noise.

    Args:
        config: Complete training configuration.

    Returns:
        Operations, parameters and processor time.
    """
    size = int(config.data.image_size or 0)
    is_detector = config.kind == "detector"
    build = build_detector if is_detector else build_classifier
    settings = config.model.model_dump(exclude={"weights", "trainable", "features"})
    model = build(n_findings=1, image_size=size, weights=None, **settings)
    forward = count_flops(model, size)
    parameters = count_parameters(model).total
    if isinstance(config, ProbeConfig):
        return NetworkCost(forward, 0.0, parameters, 0.0)
    trainable = config.model.trainable
    if trainable is None:
        trainable = 3 if is_detector and config.model.weights in ("coco", "imagenet") else "all"
    model.freeze_for_epoch(trainable)
    model.train()
    images = torch.zeros(_COUNTED, 1, size, size, dtype=torch.uint8)
    names = [str(number) for number in range(_COUNTED)]
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        if is_detector:
            box = torch.tensor([[0.3, 0.4, 0.5, 0.7]]) * size
            ones = torch.ones(1, dtype=torch.int64)
            batch = LesionBatch(names, images, [box] * _COUNTED, [ones] * _COUNTED)
            losses = detector_losses(model, batch)
        else:
            losses = classifier_losses(model, LabelBatch(names, images, torch.ones(_COUNTED, 1)))
        torch.stack([*losses.values()]).sum().backward()
    step = counter.get_total_flops() / _COUNTED
    return NetworkCost(forward, step, parameters, _augmentation_seconds(config, size))


def _augmentation_seconds(config: Config, size: int) -> float:
    """Time the augmentation of an image, in seconds of one processor."""
    augmentation = build_augmentation(**config.augmentation.model_dump(exclude={"mosaic"}))
    if augmentation is None:
        return 0.0
    pixels = np.random.default_rng(0).integers(256, size=(size, size)).astype(np.uint8)
    boxes = np.zeros((0, 4), dtype=np.float32)
    augmentation.apply(pixels, boxes, 0)
    began = time.process_time()
    for number in range(_AUGMENTED):
        augmentation.apply(pixels, boxes, number)
    return (time.process_time() - began) / _AUGMENTED
