"""Two figures of a training: its curves, and an example batch with its boxes."""

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

from data_prep.contracts.folders import atomic_path
from training.loggers import metrics_of

_TRAIN, _VAL, _BOX = "#0072b2", "#d55e00", "#ffd92f"  # told apart by colour-blind eyes too
_LINES = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def draw_curves(
    history: Sequence[dict[str, Any]], path: Path, *, monitor: str, best_epoch: int
) -> None:
    """Draw losses and metrics by epoch as a PNG, the kept epoch marked."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    losses, metrics = figure.subplots(1, 2)
    marker = "o" if len(history) == 1 else ""  # one point makes no line
    for name, label, colour in (
        ("train_loss", "training", _TRAIN),
        ("val_loss", "validation", _VAL),
    ):
        losses.plot(epochs, [r[name] for r in history], color=colour, label=label, marker=marker)
    losses.set_ylim(bottom=0)
    _finish(losses, "Loss", best_epoch)
    for name, colour in zip(metrics_of(history[0]), _LINES, strict=False):
        bold = 2.2 if name == monitor else 1.2
        values = [row[name] for row in history]
        metrics.plot(epochs, values, color=colour, label=name, lw=bold, marker=marker)
    metrics.set_ylim(-0.02, 1.02)
    _finish(metrics, "Validation metrics", best_epoch)
    _save(figure, path)


def _finish(axes: Axes, title: str, best_epoch: int) -> None:
    axes.axvline(best_epoch, color="0.4", lw=1, ls=":", label=f"kept: epoch {best_epoch}")
    axes.set_title(title, loc="left")
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def draw_batch(
    images: np.ndarray,
    captions: Sequence[str],
    path: Path,
    *,
    boxes: Sequence[np.ndarray] | None = None,
    limit: int = 16,
) -> None:
    """Draw a batch as the model gets it, up to a limit: augmented, in store pixels, with its boxes.

    Of images, uint8 ``(B, S, S)``, a caption each, drawn above it and not in it, and per image
    ``xyxy`` in store px, ``(N, 4)``; None for a classifier.
    """
    shown = min(len(images), limit)
    columns = min(4, shown)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(2.8 * columns, 3.05 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for row, axes in zip(range(shown), grid, strict=False):
        # Continuous edges: pixel i covers i to i + 1, as box coordinates do.
        height, width = images[row].shape
        axes.imshow(images[row], cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
        axes.set_title(captions[row], fontsize=8)
        for x1, y1, x2, y2 in () if boxes is None else boxes[row]:
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=_BOX, lw=1.5))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
