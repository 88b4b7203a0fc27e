"""The fit of a probe: features of a frozen encoder, and a last layer that scikit-learn fits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from cxr_compare.classification.inference import compute_features
from cxr_compare.classification.loss import sigmoid_scores
from cxr_compare.classification.model import build_classifier, start_from
from cxr_compare.classification.probe import FittedLayer, LabelledFeatures, fit_layer
from cxr_compare.configs.settings import ProbeConfig
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.data_prep.work.background_threads import read_ahead
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.networks.cost import count_parameters, describe_device
from cxr_compare.networks.model_files import save_model
from cxr_compare.training.classifier import (
    ScoredBatch,
    labelled_images,
    score_metrics,
    start_channels,
)
from cxr_compare.training.datasets import ImageLabelDataset, collate_labels
from cxr_compare.training.hardware import Hardware
from cxr_compare.training.plots import draw_penalties
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.task import ModelTask


class ProbeTask(ModelTask):
    """All that the fit of a probe needs: images, labels and network.

    A probe is a classifier on the features of a frozen network, of which only the last layer is
    fitted.

    Args:
        config: Configuration of the probe.
        dataset: Data set with images and labels.
        target: Finding, or group of findings, that is learned.
        store: Pixel store: the images of the data set, resized to squares.
    """

    def __init__(
        self, config: ProbeConfig, dataset: DataSet, target: Target, store: PixelStore
    ) -> None:
        super().__init__(config, target)
        labels, ids = labelled_images(dataset, target, config.data.split)
        self.train = ImageLabelDataset(store, ids["train"], labels, self.findings)
        self.val = ImageLabelDataset(store, ids["val"], labels, self.findings)
        self.positive = (self.train.targets == 1).any(axis=1)
        self._patients = dataset.images.set_index("image_id")["patient_id"]
        self.model = self._build_model(
            build_classifier, start_from, config, store.size, **start_channels(self.start)
        )

    def compute(
        self, images: ImageLabelDataset, batch_size: int, hardware: Hardware, advance: Any
    ) -> LabelledFeatures:
        """Compute the pooled features of images, with the encoder in evaluation mode.

        Args:
            images: Training or validation images.
            batch_size: Number of images that are computed together.
            hardware: Device and number format.
            advance: Function that is called with the number of images of each batch.

        Returns:
            The features with labels and patients, in the order of the images.

        Raises:
            InputError: A feature is not finite; the message names the image.
        """
        samples = (
            collate_labels(
                [images[row] for row in range(start, min(start + batch_size, len(images)))]
            )
            for start in range(0, len(images), batch_size)
        )
        batches = read_ahead((batch.image_ids, batch.images) for batch in samples)
        parts = []
        for features in compute_features(
            self.model,
            batches,
            device=hardware.device,
            precision="bf16" if hardware.precision == "bf16" else "fp32",
        ):
            parts.append(features)
            advance(len(features))
        patients = self._patients.reindex(images.image_ids).astype(str).tolist()
        return LabelledFeatures(np.concatenate(parts), images.targets, patients)


def complete_probe(
    settings: ProbeConfig, task: ProbeTask, run: RunFolder, hardware: Hardware, progress: Progress
) -> None:
    """Fit the last layer of a classifier of frozen features (a probe), and complete its run folder.

    Args:
        settings: Configuration of the training, from its TOML file.
        task: Images, labels and network of the probe.
        run: The folder of the fit (run folder), which is complete afterwards.
        hardware: Device and number format.
        progress: Shows messages and the progress.

    Raises:
        InputError: A feature is not finite.
    """
    began = time.perf_counter()
    processor_began = time.process_time()
    training = settings.training
    model = task.model
    n_images = len(task.train) + len(task.val)
    progress.say(
        f"{settings.name}: {counted(len(task.train), 'training image')} "
        f"({int(task.positive.sum())} positive), {counted(len(task.val), 'validation image')}; "
        f"{hardware.precision} on {hardware.device}"
    )
    model.to(hardware.device).to(memory_format=torch.channels_last)
    with progress.track("Computing features", n_images) as advance:
        train, validation = (
            task.compute(images, training.batch_size, hardware, advance)
            for images in (task.train, task.val)
        )
    seconds_features = time.perf_counter() - began
    layer = fit_layer(train, validation, training.penalties)
    _load_layer(model.classifier, layer)
    for number in layer.constant:
        progress.say(
            f"note: all known training labels of {task.findings[number]} are equal, so every "
            "image gets the same score for it"
        )
    figures = _figures(model.classifier.cpu(), validation)
    kept = {task.findings[trial.finding]: trial for trial in layer.trials if trial.kept}
    for finding, trial in kept.items():
        progress.say(_kept_line(finding, trial.penalty, trial.val_loss, training.penalties))
    seconds = time.perf_counter() - began
    rows = [
        {**asdict(trial), "finding": task.findings[trial.finding], "kept": int(trial.kept)}
        for trial in layer.trials
    ]
    run.write_history(rows)
    draw_penalties(rows, run.folder / "curves.png")
    save_model(model.cpu(), run.folder)
    model.preprocess.write(run.folder / "preprocess.json")
    losses = [trial.val_loss for trial in kept.values() if not math.isnan(trial.val_loss)]
    val_loss = float(np.mean(losses)) if losses else None
    parameters = count_parameters(model)
    run.complete(
        monitor=training.monitor,
        best_value=val_loss,
        best_figures=figures,
        penalties={finding: trial.penalty for finding, trial in kept.items()},
        n_train=len(task.train),
        n_val=len(task.val),
        pretrained=settings.model.weights,
        parameters=parameters.total,
        trainable_parameters=sum(p.numel() for p in model.classifier.parameters()),
        precision=hardware.precision,
        cpu_settings={"threads": torch.get_num_threads(), "workers": 0},
        device=hardware.device,
        devices=1,
        device_name=describe_device(torch.device(hardware.device)),
        seconds=round(seconds, 1),
        seconds_training=round(seconds, 1),
        seconds_features=round(seconds_features, 1),
        processor_seconds=round(time.process_time() - processor_began, 1),
    )


def _load_layer(layer: nn.Linear, fitted: FittedLayer) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.weight))
        layer.bias.copy_(torch.from_numpy(fitted.bias))


def _figures(layer: nn.Linear, validation: LabelledFeatures) -> dict[str, float | None]:
    """Compute AUROC and average precision of the validation images with the layer as stored."""
    with torch.inference_mode():
        scores = sigmoid_scores(layer(torch.from_numpy(validation.features))).numpy()
    figures = score_metrics([ScoredBatch(scores, validation.targets)])
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _kept_line(finding: str, penalty: float, val_loss: float, penalties: Sequence[float]) -> str:
    """Return the line that the user sees about the penalty of a finding."""
    loss = "unknown" if math.isnan(val_loss) else f"{val_loss:.3f}"
    line = f"{finding}: penalty {penalty:g} kept, loss {loss} of the validation patients"
    if len(penalties) > 1 and penalty in (min(penalties), max(penalties)):
        end = "smallest" if penalty == min(penalties) else "largest"
        line += f"; it is the {end} of training.penalties"
    return line
