"""The figures of a paper: PNG, PDF and SVG files with their captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.evaluation.overlays.shapes import system_colour
from cxr_compare.evaluation.report.chart import Chart
from cxr_compare.evaluation.report.chart_drawing import (
    INK,
    LINE,
    MARKER_WORDS,
    QUIET,
    WRITING_SVG,
    draw_with_legend,
)
from cxr_compare.evaluation.report.table import ForestPart
from cxr_compare.evaluation.report.templates import sentence

_DPI = 200  # of PNG files


_PLATE_INCHES = 17 / 2.54


_PLATE_DPI = 300  # a plate is as wide, or as fine


_UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure and all that stands beside its plot as PNG, PDF and SVG; return the files.

    The files hold no date, so that equal figures are equal files.
    """
    written = []
    with WRITING_SVG, mpl.rc_context({"svg.hashsalt": "figure", "pdf.fonttype": 42}):
        for kind, undated in _UNDATED.items():
            to = path.with_suffix(f".{kind}")
            figure.savefig(
                to, format=kind, dpi=_DPI, facecolor="white", bbox_inches="tight", metadata=undated
            )
            written.append(to)
    return written


_FILES = {"roc": "roc", "pr": "precision_recall", "froc-iou": "froc", "calibration": "calibration"}


def save_figures(
    folder: Path,
    about: str,
    *,
    forest: Sequence[ForestPart],
    charts: Sequence[Chart],
    markers: Sequence[tuple[str, str]],
    confusion: Sequence[Sequence[tuple[str, Mapping[str, int] | None]]],
    cases: Sequence[Path],
    maps: Sequence[str] = (),
) -> None:
    """Write the figures of a paper as PNG, PDF and SVG, each with its caption.

    `about` says of all what was evaluated; `cases` are images of a plate, a PNG file of at least
    300 dpi alone, and `maps` says of each system with maps what is drawn of them.
    """
    figures = {"forest": _draw_forest(forest)} if forest else {}
    notes = {}
    for chart in charts:
        if name := _FILES.get(chart.key):
            used = {point.marker for curve in chart.curves for point in curve.points}
            shown = [each for each in markers if each[0] in used]
            figures[name] = draw_with_legend(chart, shown)
            dotted = [f"Dotted: {chart.guide_label}."] if chart.guide_label else []
            marked = [f"{MARKER_WORDS[each]}: {words}." for each, words in shown]
            notes[name] = " ".join([*dotted, *marked, chart.note])
    if confusion[0]:
        figures["confusion"] = _draw_confusion(confusion)
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    if cases:
        rows = [Image.open(path) for path in cases]
        plate = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
        for at, row in enumerate(rows):
            plate.paste(row, (0, sum(above.height for above in rows[:at])))
        dpi = max(_PLATE_DPI, plate.width / _PLATE_INCHES)
        plate.save(folder / "cases.png", dpi=(dpi, dpi))
        notes["cases"] = " ".join(f"{words[0].upper()}{words[1:]}." for words in maps)
    for name in [*figures, *(["cases"] if cases else [])]:
        caption = sentence("caption", name, about, notes.get(name, ""))
        write_text(folder / f"{name}.txt", f"{caption}\n")


def _draw_forest(parts: Sequence[ForestPart]) -> Figure:
    """Draw figures with their intervals, each part on an axis of its own; hollow: not shown."""
    heights = [len(rows) + 1.6 for _, rows, _ in parts]
    figure = Figure(figsize=(7.2, 0.3 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, rows, ticks) in zip(grid, parts, strict=True):
        for row, (_, position, cell, whisker) in enumerate(rows):
            colour = INK if position is None else system_colour(position)
            fill = "full" if position is not None or whisker.decided else "none"
            axes.plot([whisker.low, whisker.high], [row, row], color=colour, linewidth=1.6)
            axes.plot(whisker.dot, row, "o", color=colour, fillstyle=fill, markersize=7)
            axes.text(102, row, f"{cell} {cell.note}".rstrip(), va="center", fontsize=9)
        axes.set_title(title, loc="left", fontsize=9, color=QUIET)
        axes.set_xticks(*zip(*ticks, strict=True), fontsize=8)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=9)
        axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="x", color=LINE)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def _draw_confusion(rows: Sequence[Sequence[tuple[str, Mapping[str, int] | None]]]) -> Figure:
    """Draw titled matrices: a row a system, a column a policy; None where there is no threshold."""
    size = 2.5 * max(map(len, rows)), 2.4 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), max(map(len, rows)), squeeze=False)
    for line, matrices in zip(grid, rows, strict=True):
        for axes, (title, counts) in zip(line, matrices, strict=True):
            axes.set_title(title, fontsize=8)
            _draw_matrix(axes, counts)
    return figure


def _draw_matrix(axes: Axes, counts: Mapping[str, int] | None) -> None:
    """Draw one two by two table: counts, and what share of its row each is; right ones tinted."""
    if not counts:
        axes.axis("off")
        axes.text(0.5, 0.5, "no threshold", ha="center", va="center", fontsize=8)
        return
    axes.imshow([[1, 0], [0, 1]], cmap="Blues", vmin=0, vmax=4)
    for row, keys in enumerate((("tp", "fn"), ("fp", "tn"))):
        whole = max(sum(counts[key] for key in keys), 1)
        for column, key in enumerate(keys):
            words = f"{counts[key]:,}\n{100 * counts[key] / whole:.1f} %"
            axes.text(column, row, words, ha="center", va="center", fontsize=9)
    axes.set_xticks([0, 1], ["called\npositive", "called\nnegative"], fontsize=7)
    axes.set_yticks([0, 1], ["positive", "negative"], fontsize=7)
    axes.spines[:].set_visible(False)
