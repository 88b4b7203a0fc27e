"""The figures of a paper: PNG, PDF and SVG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox
from PIL import Image

from cxr_compare.evaluation.overlays.shapes import system_colour
from cxr_compare.evaluation.report.chart import Chart
from cxr_compare.evaluation.report.chart_drawing import (
    INK,
    LINE,
    QUIET,
    WRITING_SVG,
    draw_with_legend,
)
from cxr_compare.evaluation.report.forest import ForestPart

_DPI = 200  # resolution of PNG files


_PLATE_INCHES = 17 / 2.54


_PLATE_DPI = 300  # smallest resolution of the plate of cases


_UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a matplotlib figure as PNG, PDF and SVG files.

    The files contain no date, so that equal figures give equal files.

    Args:
        figure: The figure to write.
        path: Path whose suffix is replaced by ``.png``, ``.pdf`` and ``.svg``.

    Returns:
        Paths of the PNG, PDF and SVG files.
    """
    written = []
    box = _edges(figure)
    with WRITING_SVG, mpl.rc_context({"svg.hashsalt": "figure", "pdf.fonttype": 42}):
        for kind, undated in _UNDATED.items():
            to = path.with_suffix(f".{kind}")
            figure.savefig(
                to, format=kind, dpi=_DPI, facecolor="white", bbox_inches=box, metadata=undated
            )
            written.append(to)
    return written


def _edges(figure: Figure) -> Bbox:
    """Lay a figure out and return its tight bounding box with a margin, in inches.

    With ``bbox_inches="tight"`` matplotlib would do both again for each file.
    """
    figure.set_dpi(_DPI)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    margin: float = mpl.rcParams["savefig.pad_inches"]
    return figure.get_tightbbox().padded(margin)


_FILES = {"roc": "roc", "pr": "precision_recall", "froc-iou": "froc", "calibration": "calibration"}


def save_figures(
    folder: Path,
    *,
    forest: Sequence[ForestPart],
    charts: Sequence[Chart],
    markers: Sequence[tuple[str, str]],
    confusion: Sequence[Sequence[tuple[str, Mapping[str, int] | None]]],
) -> None:
    """Write the figures for a paper as PNG, PDF and SVG.

    Args:
        folder: Folder for the files, which must exist.
        forest: Parts of the forest plot (values of the systems with intervals, and differences of
            the systems); empty for no such plot.
        charts: Charts of the report; ROC, precision-recall, FROC and calibration charts are
            written.
        markers: Shape of the marker (as matplotlib calls it) and text of each rule by which
            thresholds were chosen.
        confusion: Title and counts ``tp``, ``fp``, ``tn``, ``fn`` of each confusion matrix: one row
            for each system, one column for each rule; counts are None without a threshold.
    """
    figures = {}
    if forest:
        figures["forest"] = _draw_forest(forest)
    for chart in charts:
        name = _FILES.get(chart.key)
        if name is None:
            continue
        used = {point.marker for curve in chart.curves for point in curve.points}
        shown = [(marker, text) for marker, text in markers if marker in used]
        figures[name] = draw_with_legend(chart, shown)
    if confusion[0]:
        figures["confusion"] = draw_confusion(confusion)
    for name, figure in figures.items():
        save_figure(figure, folder / name)


def save_plate(folder: Path, cases: Sequence[Path]) -> None:
    """Write a figure of example images one below the other as PNG.

    The figure has at least 300 dpi and is at most 17 cm wide.

    Args:
        folder: Folder for the file ``cases.png``, which must exist.
        cases: Image files of drawn examples, at least one.
    """
    images = [Image.open(case) for case in cases]
    width = max(image.width for image in images)
    plate = Image.new("RGB", (width, sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        plate.paste(image, (0, top))
        top += image.height
    dpi = max(_PLATE_DPI, plate.width / _PLATE_INCHES)
    plate.save(folder / "cases.png", dpi=(dpi, dpi), compress_level=3)


def _draw_forest(parts: Sequence[ForestPart]) -> Figure:
    """Draw each part on an axis; a hollow dot marks a difference whose interval includes 0."""
    heights = [len(part.rows) + 1.6 for part in parts]
    figure = Figure(figsize=(7.2, 0.3 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for axes, part in zip(grid, parts, strict=True):
        for height, row in enumerate(part.rows):
            is_difference = row.position is None
            colour = INK if row.position is None else system_colour(row.position)
            fill = "none" if is_difference and not row.whisker.decided else "full"
            ends = [row.whisker.low, row.whisker.high]
            axes.plot(ends, [height, height], color=colour, linewidth=1.6)
            axes.plot(row.whisker.dot, height, "o", color=colour, fillstyle=fill, markersize=7)
            mark = "†" if row.cell.corrected else ""
            text = f"{row.cell}{mark} {row.cell.note}".rstrip()
            axes.text(102, height, text, va="center", fontsize=9)
        axes.set_title(part.title, loc="left", fontsize=9, color=QUIET)
        axes.set_xticks(*zip(*part.ticks, strict=True), fontsize=8)
        axes.set_yticks(range(len(part.rows)), [row.name for row in part.rows], fontsize=9)
        axes.set(xlim=(0, 100), ylim=(len(part.rows) - 0.5, -0.5))
        axes.grid(axis="x", color=LINE)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def draw_confusion(rows: Sequence[Sequence[tuple[str, Mapping[str, int] | None]]]) -> Figure:
    """Draw confusion matrices: one row for each system, one column for each rule for thresholds.

    Args:
        rows: Title and counts ``tp``, ``fp``, ``tn``, ``fn`` of each matrix, row by row; counts are
            None without a threshold.

    Returns:
        Figure with the matrices in a grid.
    """
    size = 2.5 * max(map(len, rows)), 2.4 * len(rows)
    # The padding, in inches, keeps the labels below a matrix clear of the title of the next.
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.12))
    grid = figure.subplots(len(rows), max(map(len, rows)), squeeze=False)
    for line, matrices in zip(grid, rows, strict=True):
        for axes, (title, counts) in zip(line, matrices, strict=True):
            axes.set_title(title, fontsize=8)
            _draw_matrix(axes, counts)
    return figure


def _draw_matrix(axes: Axes, counts: Mapping[str, int] | None) -> None:
    """Draw a confusion matrix with counts and shares of the row; correct decisions are tinted."""
    if not counts:
        axes.axis("off")
        axes.text(0.5, 0.5, "no threshold", ha="center", va="center", fontsize=8)
        return
    axes.imshow([[1, 0], [0, 1]], cmap="Blues", vmin=0, vmax=4)
    for row, keys in enumerate((("tp", "fn"), ("fp", "tn"))):
        whole = max(sum(counts[key] for key in keys), 1)
        for column, key in enumerate(keys):
            text = f"{counts[key]:,}\n{100 * counts[key] / whole:.1f} %"
            axes.text(column, row, text, ha="center", va="center", fontsize=9)
    axes.set_xticks([0, 1], ["called\npositive", "called\nnegative"], fontsize=7)
    axes.set_yticks([0, 1], ["positive", "negative"], fontsize=7)
    axes.spines[:].set_visible(False)
