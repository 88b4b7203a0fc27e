"""The run folder of a probe, which `classification.probe` fits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from cxr_compare.classification.loss import sigmoid_scores
from cxr_compare.classification.probe import (
    LabelledFeatures,
    compute_labelled_features,
    fit_layer,
    load_layer,
)
from cxr_compare.configs.settings import ProbeConfig
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.networks.cost import count_parameters, describe_device
from cxr_compare.networks.model_files import save_model
from cxr_compare.training.image_data import usable_images
from cxr_compare.training.module import score_figures
from cxr_compare.training.plots import draw_penalties
from cxr_compare.training.run_folder import RunFolder, is_ended
from cxr_compare.training.train import open_data, start_run
from cxr_compare.training.weights import build_model, require_published_weights


def train_probe(
    settings: ProbeConfig,
    data: Path,
    out: Path,
    *,
    progress: Progress,
    despite_audit: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> RunFolder:
    """Fit the last layer of a classifier of frozen features (a probe), and write its run folder.

    The run is complete. Raises InputError if the configuration, the data or the folder do not allow
    it (such as an error of the audit, without `despite_audit`), or a feature is not finite.
    """
    run = RunFolder(out)
    dataset = open_data(settings, data, run)
    target = dataset.target(settings.data.target, option="--set data.target=NAME")
    images = usable_images(settings, dataset, target)
    if is_ended(settings, dataset, run, progress):
        return run
    require_published_weights(settings)
    model, start = build_model(settings, target.any_of, progress)
    training = settings.training
    with ExitStack() as stack:
        stack.enter_context(folder_lock(out))
        if RunFolder.started_in(out) is None:
            start_run(
                settings,
                dataset,
                run,
                images.ids,
                start,
                progress,
                despite_audit,
                training.precision,
            )
        store = dataset.make_store(settings.data.image_size, progress)
        progress.say(f"{settings.name}: {images}; {training.precision} on {device}")
        began = time.perf_counter()
        model.to(device).to(memory_format=torch.channels_last)
        patients = dataset.images.set_index("image_id")["patient_id"].astype(str)
        features = {}
        n_images = sum(len(ids) for ids in images.ids.values())
        with progress.track("Computing features", n_images) as advance:
            for role, ids in images.ids.items():
                features[role] = compute_labelled_features(
                    model,
                    store,
                    images.annotations.reindex(ids),
                    patients.reindex(ids).tolist(),
                    batch_size=training.batch_size,
                    device=device,
                    precision=training.precision,
                    advance=advance,
                )
        seconds_features = time.perf_counter() - began
        layer = fit_layer(features["train"], features["val"], training.penalties)
        load_layer(model, layer)
        findings = target.any_of
        for number in layer.constant:
            progress.say(
                f"note: all known training labels of {findings[number]} are equal, so every image "
                "gets the same score for it"
            )
        kept = {findings[trial.finding]: trial for trial in layer.trials if trial.kept}
        for finding, trial in kept.items():
            progress.say(_kept_line(finding, trial.penalty, trial.val_loss, training.penalties))
        seconds = time.perf_counter() - began
        rows = [
            {**asdict(trial), "finding": findings[trial.finding], "kept": int(trial.kept)}
            for trial in layer.trials
        ]
        run.write_history(rows)
        draw_penalties(rows, out / "curves.png")
        save_model(model.cpu(), out)
        model.preprocess.write(out / "preprocess.json")
        losses = [trial.val_loss for trial in kept.values() if not math.isnan(trial.val_loss)]
        parameters = count_parameters(model)
        run.complete(
            monitor=training.monitor,
            best_value=float(np.mean(losses)) if losses else None,
            best_figures=_figures(model.classifier, features["val"]),
            penalties={finding: trial.penalty for finding, trial in kept.items()},
            **images.counts(),
            pretrained=settings.model.weights,
            parameters=parameters.total,
            trainable_parameters=count_parameters(model.classifier).total,
            precision=training.precision,
            cpu_settings={"threads": torch.get_num_threads(), "workers": 0},
            device=device,
            devices=1,
            device_name=describe_device(torch.device(device)),
            seconds=round(seconds, 1),
            seconds_training=round(seconds, 1),
            seconds_features=round(seconds_features, 1),
        )
    return run


def _figures(layer: nn.Linear, validation: LabelledFeatures) -> dict[str, float | None]:
    """Compute AUROC and average precision of the validation images with the layer as stored."""
    with torch.inference_mode():
        scores = sigmoid_scores(layer(torch.from_numpy(validation.features))).numpy()
    figures = score_figures(scores, validation.targets)
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _kept_line(finding: str, penalty: float, val_loss: float, penalties: Sequence[float]) -> str:
    """Return the line that the user sees about the penalty of a finding."""
    loss = "unknown" if math.isnan(val_loss) else f"{val_loss:.3f}"
    line = f"{finding}: penalty {penalty:g} kept, loss {loss} of the validation patients"
    if len(penalties) > 1 and penalty in (min(penalties), max(penalties)):
        end = "smallest" if penalty == min(penalties) else "largest"
        line += f"; it is the {end} of training.penalties"
    return line
