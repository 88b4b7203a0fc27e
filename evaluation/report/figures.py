"""The report's charts as PNG files, for slides and papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.boxes.froc import FROC_RATES, RATE_WORDS
from evaluation.compare.intervals import find_interval
from evaluation.metrics.words import number, policy_words
from evaluation.report.charts import operating_points, policies_of
from evaluation.report.place_charts import steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evaluation.compare.comparison import Comparison

PAPER_COLOURS = ("#D55E00", "#0072B2", "#CC79A7", "#009E73")
"""Okabe and Ito's colours that stand on white, in the order of the systems."""

_LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_MARKERS = ("o", "^", "s", "D", "v", "P")
_DPI = 200


def save_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``roc.png``, ``precision_recall.png``, ``confusion.png`` and ``froc.png``.

    The third where there are decisions, the last where a system has boxes.

    Args:
        comparison: What ``cxr compare`` found.
        folder: An existing folder.

    Returns:
        The files written.
    """
    files = [folder / "roc.png", folder / "precision_recall.png"]
    _save(_curves(comparison, "fpr", "tpr", "auroc"), files[0])
    _save(_curves(comparison, "recall", "precision", "average_precision"), files[1])
    if policies_of(comparison):
        files.append(folder / "confusion.png")
        _save(_confusion(comparison), files[-1])
    if any(
        len(each.froc["iou"]["sensitivity"]) for each in comparison.systems.values() if each.froc
    ):
        files.append(folder / "froc.png")
        _save(_froc(comparison), files[-1])
    return files


def _curves(comparison: Comparison, x: str, y: str, metric: str) -> Figure:
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    policies = policies_of(comparison)
    for position, (name, result) in enumerate(comparison.systems.items()):
        curve = result.curve
        if not curve:
            continue
        colour = PAPER_COLOURS[position % len(PAPER_COLOURS)]
        score = find_interval(comparison.metrics, name, metric)
        label = f"{name} {number(score.estimate)}"
        label += f" ({score.ends})" if score.bounded else ""
        line = _line(position)
        axes.plot(curve[x], curve[y], color=colour, linestyle=line, linewidth=1.6, label=label)
        for policy, rates in operating_points(result).items():
            place = (rates["fpr" if x == "fpr" else "tpr"], rates["tpr" if x == "fpr" else y])
            marker = _MARKERS[policies.index(policy) % len(_MARKERS)]
            axes.plot(*place, **_marker_look(marker, colour))
    _dress(axes, x)
    for position, policy in enumerate(policies):
        marker = _MARKERS[position % len(_MARKERS)]
        look = _marker_look(marker, "#555555")
        axes.plot([], [], **look, label=f"threshold: {policy_words(policy)}")
    axes.legend(fontsize=7.5, frameon=False, loc="lower right" if x == "fpr" else "lower left")
    return figure


def _line(position: int) -> Any:
    """A dash that no other system of the same colour has, for the first sixteen."""
    return _LINES[(position + position // len(PAPER_COLOURS)) % len(_LINES)]


def _marker_look(marker: str, colour: str) -> dict[str, Any]:
    """A ring stays visible around another marker at the same place; the rest are filled."""
    if marker == "o":
        return {"marker": "o", "linestyle": "", "color": colour, "fillstyle": "none",
                "markersize": 11, "markeredgewidth": 1.6}  # fmt: skip
    return {"marker": marker, "linestyle": "", "color": colour, "markeredgecolor": "white",
            "markersize": 7}  # fmt: skip


def _dress(axes: Axes, x: str) -> None:
    """Set limits, titles and a quiet grid."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    if x == "fpr":
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
        axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
    else:
        axes.set(xlabel="Sensitivity (recall)", ylabel="Precision")
    axes.grid(color="#E3E3E3", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _froc(comparison: Comparison) -> Figure:
    """Steps of the overlap's curves, on the rates that the figures are given at."""
    figure = Figure(figsize=(4.6, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for position, (name, result) in enumerate(comparison.systems.items()):
        curve = result.froc.get("iou")
        if curve is None:
            continue
        score = find_interval(comparison.metrics, name, "froc_mean")
        label = f"{name} {number(score.estimate)}" + (f" ({score.ends})" if score.bounded else "")
        colour = PAPER_COLOURS[position % len(PAPER_COLOURS)]
        line = _line(position)
        axes.step(
            *steps(curve), where="post", label=label, color=colour, linestyle=line, linewidth=1.6
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(FROC_RATES, RATE_WORDS)
    axes.set(xlim=(FROC_RATES[0], FROC_RATES[-1]), ylim=(-0.01, 1.01))
    axes.set(xlabel="False marks an image", ylabel="Sensitivity per lesion")
    axes.grid(color="#E3E3E3", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", title="FROC, mean",
                title_fontsize=7.5)  # fmt: skip
    return figure


def _confusion(comparison: Comparison) -> Figure:
    policies = policies_of(comparison)
    names = comparison.names
    figure = Figure(figsize=(2.5 * len(policies), 2.4 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(policies), squeeze=False)
    for row, name in zip(grid, names, strict=True):
        for axes, policy in zip(row, policies, strict=True):
            counts = comparison.systems[name].confusion.get(policy)
            axes.set_title(f"{name}\n{policy_words(policy)}", fontsize=8)
            _matrix(axes, counts)
    return figure


def _matrix(axes: Axes, counts: dict[str, int] | None) -> None:
    """Draw one two by two table; right decisions are tinted, and each cell carries its count."""
    if not counts:
        axes.axis("off")
        axes.text(0.5, 0.5, "no threshold", ha="center", va="center", fontsize=8)
        return
    cells = [[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]]
    axes.imshow([[1, 0], [0, 1]], cmap="Blues", vmin=0, vmax=4)
    for row, columns in enumerate(cells):
        for column, count in enumerate(columns):
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=11)
    axes.set_xticks([0, 1], ["called\npositive", "called\nnegative"], fontsize=7)
    axes.set_yticks([0, 1], ["positive", "negative"], fontsize=7)
    axes.spines[:].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI)
