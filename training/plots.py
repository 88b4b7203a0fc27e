"""Figures of a run folder: the curves of a training, and an example batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.training.run_folder import metrics_of

_MOST_IMAGES = 16  # images of an example batch
# Colours that colour-blind eyes can tell apart.
_TRAIN_COLOUR = "#0072b2"
_VAL_COLOUR = "#d55e00"
_BOX_COLOUR = "#ffd92f"
_METRIC_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def draw_curves(
    history: Sequence[dict[str, Any]], path: Path, *, monitor: str, best_epoch: int
) -> None:
    """Draw losses and metrics by epoch as a PNG file, in which the best epoch is marked.

    `history` has the rows of ``metrics.csv``; the line of `monitor`, by which the best epoch was
    chosen, is bold.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    losses, metrics = figure.subplots(1, 2)
    marker = "o" if len(history) == 1 else ""  # one point makes no line
    for name, label, colour in (
        ("train_loss", "training", _TRAIN_COLOUR),
        ("val_loss", "validation", _VAL_COLOUR),
    ):
        values = [row[name] for row in history]
        losses.plot(epochs, values, color=colour, label=label, marker=marker)
    losses.set_ylim(bottom=0)
    _finish_axes(losses, "Loss", best_epoch)
    for name, colour in zip(metrics_of(history[0]), _METRIC_COLOURS, strict=False):
        width = 2.2 if name == monitor else 1.2
        values = [row[name] for row in history]
        metrics.plot(epochs, values, color=colour, label=name, lw=width, marker=marker)
    metrics.set_ylim(-0.02, 1.02)
    _finish_axes(metrics, "Validation metrics", best_epoch)
    save_figure(figure, path)


def _finish_axes(axes: Axes, title: str, best_epoch: int) -> None:
    axes.axvline(best_epoch, color="0.4", lw=1, ls=":", label=f"kept: epoch {best_epoch}")
    axes.set_title(title, loc="left")
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def draw_penalties(trials: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the losses of the fits of a probe against their regularisation, as a PNG file.

    A probe is a classifier on frozen features, whose last layer is fitted with several weights of
    the penalty on large coefficients. The penalty that was kept is marked.

    `trials` are the rows of the probe's ``metrics.csv``, one for each finding and penalty:
    ``finding``, ``penalty``, ``train_loss``, ``val_loss``, and ``kept`` (1 for the kept penalty,
    else 0).
    """
    findings = list(dict.fromkeys(trial["finding"] for trial in trials))
    columns = min(4, len(findings))
    rows = math.ceil(len(findings) / columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(findings) :]:
        axes.set_axis_off()
    for finding, axes in zip(findings, grid, strict=False):
        of_finding = [trial for trial in trials if trial["finding"] == finding]
        penalties = [trial["penalty"] for trial in of_finding]
        marker = "o" if len(of_finding) == 1 else ""  # one point makes no line
        for name, label, colour in (
            ("train_loss", "training images", _TRAIN_COLOUR),
            ("val_loss", "validation patients", _VAL_COLOUR),
        ):
            losses = [trial[name] for trial in of_finding]
            axes.plot(penalties, losses, color=colour, label=label, marker=marker)
        kept = next(trial["penalty"] for trial in of_finding if trial["kept"])
        axes.axvline(kept, color="0.4", lw=1, ls=":", label=f"kept: {kept:g}")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_title(f"Loss, {finding.replace('_', ' ')}", loc="left")
        axes.set_xlabel("Penalty")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    save_figure(figure, path)


def draw_training_batch(batch: Any, findings: Sequence[str], path: Path) -> None:
    """Draw a training batch as the model reads it, with its boxes or its labels.

    It is a `LesionBatch`, or a `LabelBatch` with ``targets`` in the order of `findings`.
    """
    images = batch.images[:, 0].cpu().numpy()
    boxes = getattr(batch, "boxes", None)
    if boxes is not None:
        captions = [
            f"{image_id[:16]}: {counted(len(rows), 'box') if len(rows) else 'no lesion'}"
            for image_id, rows in zip(batch.image_ids, boxes, strict=True)
        ]
        draw_batch(images, captions, path, boxes=[rows.cpu().numpy() for rows in boxes])
        return
    states = {1.0: "present", 0.0: "absent"}
    captions = []
    for image_id, targets in zip(batch.image_ids, batch.targets.tolist(), strict=True):
        labels = [
            f"{finding} {states.get(target, 'unknown')}"
            for finding, target in zip(findings, targets, strict=False)
        ]
        captions.append(f"{image_id[:12]}: {', '.join(labels[:2])}")
    draw_batch(images, captions, path)


def draw_batch(
    images: np.ndarray,
    captions: Sequence[str],
    path: Path,
    *,
    boxes: Sequence[np.ndarray] | None = None,
) -> None:
    """Draw at most 16 images of a training batch as the model reads them, with their boxes.

    Images are uint8 ``(B, S, S)``. A caption is drawn above each. `boxes` are ``(N, 4)`` xyxy in px
    of the resized square image; None for a classifier.
    """
    n_images = min(len(images), _MOST_IMAGES)
    columns = min(4, n_images)
    rows = math.ceil(n_images / columns)
    figure = Figure(figsize=(2.8 * columns, 3.05 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for row, axes in zip(range(n_images), grid, strict=False):
        # Continuous edges: pixel i covers i to i + 1, as box coordinates do.
        height, width = images[row].shape
        axes.imshow(images[row], cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
        axes.set_title(captions[row], fontsize=8)
        for x1, y1, x2, y2 in () if boxes is None else boxes[row]:
            corner = (x1, y1)
            box = Rectangle(corner, x2 - x1, y2 - y1, fill=False, ec=_BOX_COLOUR, lw=1.5)
            axes.add_patch(box)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, which appears only when it is complete."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
