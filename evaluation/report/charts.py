"""Charts of a result, drawn from its tables by matplotlib."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS, RATES, metric_title
from cxr_compare.evaluation.overlays.colours import system_mark
from cxr_compare.evaluation.policies import threshold_text
from cxr_compare.evaluation.report.cells import shown_text
from cxr_compare.evaluation.report.tables import (
    difference_name,
    outcome,
    shown_claims,
)
from cxr_compare.evaluation.statistics.clustered_auroc import CHANCE
from cxr_compare.evaluation.statistics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from cxr_compare.evaluation.report.result import Result

# matplotlib is imported where something is drawn.

QUIET = "#7A848E"
"""Grey that is seen on white and on black."""
_INK = "#010203"
"""Colour of text that becomes black in a file, and that of the text on a page."""
_GROUND = "#fdfcfb"
"""Colour of the ground that becomes white in a file, and none on a page."""
_INKS = (
    "text.color",
    "axes.labelcolor",
    "axes.titlecolor",
    "xtick.color",
    "ytick.color",
    "axes.edgecolor",
)
_DASHES = (
    "-",
    "--",
    ":",
    "-.",
    (0, (8, 2)),
    (0, (2, 3)),
    (0, (5, 1, 1, 1)),
    (0, (1, 4)),
    (0, (9, 4)),
)
_MARKERS = "o^sDvP"
MOST_COLOURED = 4
"""Systems up to which all curves have colours; of more the best and the reference have."""
_LETTERS = 12.6
"""Size of letters in a file, so that they have 12 px on the narrowest screen."""
_LEGEND_WIDTH = 50
"""Characters of a row of the legend of several findings, with 6 for each mark."""
_MOST_LINES = 6
"""Differences that the forest chart shows; of more the table has all."""


class _Chart(NamedTuple):
    """Title of a chart, its axes, and how its rows in the table of curves are drawn.

    Attributes:
        metric: Metric in the legend, behind the words `before`.
        limits: Ends of both axes; None for those of the values.
        ticks: Of a logarithmic x axis that ends at the first and last, by label; marks outside are
            cut off.
        guide: What the line of no system is; empty if the legend leaves it out.
        marker: Mark at each point of a curve.
        is_stepped: True if a curve keeps its value up to the next point.
        draw: Function that draws it into axes; None for curves.
        draw_panels: Function that draws it into a figure of several panels.
        is_made: Whether a result has the chart; None if its rows say so.
    """

    title: str
    x: str = ""
    y: str = ""
    metric: str = ""
    before: str = ""
    limits: tuple[float, float] | None = None
    ticks: Mapping[str, float] = {}
    guide: str = ""
    marker: str | None = None
    is_stepped: bool = False
    draw: Callable[[Axes, pd.DataFrame, Result], None] | None = None
    draw_panels: Callable[[FigureBase, pd.DataFrame, Result], None] | None = None
    is_made: Callable[[Result], bool] | None = None


class _Line(NamedTuple):
    """A line of the forest chart: a figure or a difference, and how its mark is filled."""

    name: str
    interval: Interval
    colour: str
    filling: str


def chart_names(result: Result) -> list[str]:
    """Return the names of the charts that a result has, in the order of the page."""
    drawn = set(result.curves["chart"])
    names = [
        name
        for name, chart in _CHARTS.items()
        if (name in drawn if chart.is_made is None else chart.is_made(result))
    ]
    if result.answer.box_figures:  # the curves of boxes of detectors come first
        names.sort(key=lambda name: name not in ("forest", "froc", "box_pr"))
    return names


def _primary(result: Result) -> pd.DataFrame:
    """Return the rows of the primary figure of each shown system that has it, highest first."""
    rows = result.primary_rows.dropna(subset="estimate").set_index("first", drop=False)
    return rows.loc[[name for name in result.shown if name in rows.index]]


def draw(name: str, result: Result, axes: Axes | None = None) -> Figure:
    """Draw one chart of `chart_names`, with its title and its legend; into axes if given."""
    from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure

    chart = _CHARTS[name]
    rows = result.curves[result.curves["chart"] == name]
    if axes is not None:
        parent_figure: Any = axes.figure
        if chart.draw_panels is not None:
            axes.set_axis_off()
            chart.draw_panels(parent_figure.add_subfigure(axes.get_subplotspec()), rows, result)
        else:
            _draw_one(axes, chart, rows, result)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False, fontsize="small")
        return parent_figure
    figure = NotebookFigure(figsize=(5, 4.4), dpi=72, layout="constrained")
    if chart.draw_panels is not None:
        chart.draw_panels(figure, rows, result)
        return figure
    _draw_one(figure.subplots(), chart, rows, result)
    if any(axes.get_legend_handles_labels()[0] for axes in figure.axes):
        _add_legend(figure)
    return figure


def _draw_one(axes: Axes, chart: _Chart, rows: pd.DataFrame, result: Result) -> None:
    """Draw a chart that has one panel."""
    _style(axes)
    axes.set_title(chart.title, loc="left", fontweight="bold")
    axes.set(xlabel=chart.x, ylabel=chart.y)
    if chart.draw is not None:
        chart.draw(axes, rows, result)
    else:
        _draw_curves(axes, chart, rows, result)


def _add_legend(figure: FigureBase) -> None:
    """Add a legend below the axes, which keep their height."""
    legend = figure.legend(loc="outside lower left", frameon=False, alignment="left")
    lines = 0
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        lines += len(text.get_text().splitlines())
        if handle is not None:
            text.set_gid(handle.get_gid() and f"{handle.get_gid()}-name")
    _resize(figure, 5, 3.3 + 0.21 * lines + 0.09 * len(legend.get_texts()))


def _resize(figure: FigureBase, width: float, height: float) -> None:
    """Set the size of a figure of its own, in inches; a part of another one keeps its size."""
    from matplotlib.figure import Figure

    if isinstance(figure, Figure):
        figure.set_size_inches(width, height)


def _drawn(result: Result) -> list[tuple[int, str, str]]:
    """Return the shown systems: the row of each, its name, and its colour."""
    return [
        (row, name, system_mark(result.systems.index(name)).colour)
        for row, name in enumerate(result.shown)
    ]


def _draw_curves(axes: Axes, chart: _Chart, rows: pd.DataFrame, result: Result) -> None:
    """Draw one line for each system, with its points at chosen thresholds."""
    if chart.limits is not None:
        axes.set(xlim=chart.limits, ylim=chart.limits)
    if chart.ticks:
        tick_positions = [*chart.ticks.values()]
        axes.set(xscale="log", xlim=(tick_positions[0], tick_positions[-1]))
        axes.set_xticks(tick_positions, [*chart.ticks])
        axes.minorticks_off()
    for position, system, colour in _drawn(result):
        system_rows = rows[rows["system"] == system]
        style: dict[str, Any] = {"color": colour, "linestyle": _DASHES[position % len(_DASHES)]}
        is_behind = len(result.shown) > MOST_COLOURED and position and system != result.systems[0]
        if is_behind:
            style = {"color": QUIET, "linewidth": 0.9, "alpha": 0.7}
        style["gid"] = f"{chart.metric}-of-{result.systems.index(system)}"
        style |= {"drawstyle": "steps-post"} if chart.is_stepped else {}
        curve = system_rows[system_rows["kind"] == "curve"]
        if curve.empty:
            points = system_rows[system_rows["kind"] == "points"]
            label = _plain(f"{system}: boxes without scores") if len(points) else None
            axes.plot(points["x"], points["y"], "X", color=colour, label=label)
            continue
        label = _label(result, system, chart)
        marker = "D" if len(curve) == 1 else chart.marker
        axes.plot(curve["x"], curve["y"], **style, marker=marker, label=label)
        baseline_rows = system_rows[system_rows["kind"] == "image-blind"]
        if len(baseline_rows):
            baseline = image_blind_name(system)
            text = _label(result, baseline, chart, f"{system}, always the same places")
            baseline_style = style | {"alpha": 0.4, "gid": None, "label": text}
            axes.plot(baseline_rows["x"], baseline_rows["y"], **baseline_style)
        for policy_position, policy in enumerate(result.policies):
            points = system_rows[
                (system_rows["kind"] == "points") & (system_rows["policy"] == policy)
            ]
            if points.empty:  # without a clip it would count as a mark at the edge of the figure
                continue
            marker = _MARKERS[policy_position % len(_MARKERS)]
            point_style = {"color": style["color"], "markeredgecolor": "white", "zorder": 3}
            point_style["clip_on"] = bool(chart.ticks)  # other axes would cut a mark at their end
            axes.plot(points["x"], points["y"], marker, **point_style)
    guide_rows = rows[rows["system"] == ""]
    if len(guide_rows):
        axes.plot(
            guide_rows["x"], guide_rows["y"], color=QUIET, linewidth=0.8, label=chart.guide or None
        )
    for policy_position, policy in enumerate(
        result.policies if (rows["kind"] == "points").any() else ()
    ):
        if (rows["policy"] == policy).any():
            text = threshold_text(policy).removeprefix("the ")
            axes.plot([], [], _MARKERS[policy_position % len(_MARKERS)], color=QUIET, label=text)


def _label(result: Result, system: str, chart: _Chart, display_name: str = "") -> str:
    """Return a name, or what is shown for it, with its figure and interval if they are known."""
    rows = result.of_systems
    is_figure = (
        (rows["first"] == system) & (rows["metric"] == chart.metric) & (rows["policy"] == "")
    )
    rows = rows[is_figure].dropna(subset="estimate")
    text = display_name or system
    if len(rows):
        text += f": {chart.before}{shown_text(Interval.from_row(rows.iloc[0]))}"
    return _plain(textwrap.fill(text, 42))


def _plain(text: str) -> str:
    """Return a text that matplotlib shows as it is: no formula, and no label that it hides."""
    text = text.replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def _draw_scores(axes: Axes, rows: pd.DataFrame, result: Result) -> None:
    """Draw the scores of positive images upwards and of negative ones downwards, by system."""
    axes.set(xlim=(0, 1))
    drawn_systems = [drawn for drawn in _drawn(result) if (rows["system"] == drawn[1]).any()]
    axes.set_yticks(
        [-position for position, *_ in drawn_systems],
        [_plain(name) for _, name, _ in drawn_systems],
    )
    for position, system, colour in drawn_systems:
        system_rows = rows[rows["system"] == system]
        tallest = system_rows["y"].max()
        for kind, side, ink in (("positive", 1, colour), ("negative", -1, QUIET)):
            bars = system_rows[system_rows["kind"] == kind]
            heights = side * 0.4 * bars["y"] / tallest
            axes.bar(bars["x"], heights, 0.045, -position, color=ink, zorder=2)


def _style(axes: Axes) -> None:
    axes.grid(color=QUIET, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _forest_label(line: _Line) -> str:
    """Return the name of a line over its value."""
    return _plain(f"{textwrap.fill(line.name, 24)}\n{shown_text(line.interval)}")


def _draw_forest(figure: FigureBase, _rows: pd.DataFrame, result: Result) -> None:
    """Draw the primary figure of each system with its interval, and below it the differences.

    The mark of a difference that is shown is filled. One that is not tested is left out, and so are
    those of a joint system, of which only all together show something.
    """
    from matplotlib import rcParams

    rows = _primary(result)
    figures = [
        _Line(name, Interval.from_row(row), system_mark(result.systems.index(name)).colour, "full")
        for name, row in zip(rows["first"], rows.to_dict("records"), strict=True)
    ]
    differences = []
    for claim in shown_claims(result):
        if not {claim.first, claim.second} <= {*result.shown}:
            continue
        is_primary = [claim.metric, claim.policy] == list(result.answer.primary)
        claim_outcome = outcome(claim, result.answer)
        if is_primary and claim.family == "answer" and claim_outcome != "untested":
            filling = "full" if claim_outcome == "shown" else "none"
            colour = rcParams["text.color"]
            differences.append(_Line(difference_name(claim), claim, colour, filling))
    parts = [part for part in (figures, differences) if len(part) > 0]
    parts = parts[:1] if len(differences) > _MOST_LINES else parts
    labels = [[_forest_label(line) for line in part] for part in parts]
    heights = [sum(0.23 * label.count("\n") + 0.28 for label in part) + 0.5 for part in labels]
    _resize(figure, 5.2, sum(heights) + 0.2)
    plots = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for part, names, axes in zip(parts, labels, plots, strict=True):
        _style(axes)
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        for position, (_, interval, colour, filling) in enumerate(part):
            axes.plot(
                [interval.ci_low, interval.ci_high], [position, position], color=colour, lw=1.8
            )
            axes.plot(
                interval.estimate, position, "o", color=colour, fillstyle=filling, markersize=7
            )
        axes.margins(x=0.1)
        axes.locator_params(axis="x", nbins=4)
        axes.set_yticks(range(len(part)), names)
        axes.set_ylim(len(part) - 0.4, -0.6)
    title = f"{result.answer.primary_title} with 95 % interval"
    plots[0].set_title(title, loc="left", fontsize="medium")
    if len(parts) > 1 or not figures:
        plots[-1].axvline(0, color=QUIET, linestyle=":")
        plots[-1].set_title("Differences", loc="left", fontsize="medium")


_CHARTS = {
    "forest": _Chart(
        "Figures and differences",
        draw_panels=_draw_forest,
        is_made=lambda result: not _primary(result).empty,
    ),
    "roc": _Chart(
        "ROC curve",
        "1 − specificity",
        "Sensitivity",
        "auroc",
        "AUROC ",
        limits=(0, 1),
        guide="chance",
    ),
    "froc": _Chart(
        "FROC curve",
        "False positives per image",
        "Lesions found (IoU of 0.2)",
        "froc_mean",
        "mean ",
        limits=(0, 1),
        ticks={name.replace("_", "/"): rate for name, rate in RATES.items()},
        is_stepped=True,
    ),
    "box_pr": _Chart(
        "Precision-recall curve of boxes",
        "Lesions found (IoU of 0.5)",
        "Precision of boxes",
        "ap50",
        "AP50 ",
        limits=(0, 1),
    ),
    "scores": _Chart("Scores by class", "Score", "positive ↑, negative ↓", draw=_draw_scores),
    "pr": _Chart(
        "Precision-recall curve of images",
        "Sensitivity",
        "Precision",
        "average_precision",
        limits=(0, 1),
        guide="chance",
    ),
    "calibration": _Chart(
        "Calibration",
        "Expected share of positives",
        "Observed share",
        "brier",
        "Brier score ",
        limits=(0, 1),
        guide="perfect calibration",
        marker="D",
    ),
}
"""Charts in the order of the page."""
PANELS = tuple(name for name, chart in _CHARTS.items() if chart.draw_panels is not None)
"""Charts of several panels, which no given axes can hold."""


def chart_svg(result: Result, name: str) -> tuple[bytes, str]:
    """Draw a chart once; return it as a file, and as an element of the page."""
    return drawn_once(lambda: draw(name, result), name, _CHARTS[name].title)


def draw_findings(
    rows: pd.DataFrame, systems: Sequence[str], noun: str, metric: str = "auroc"
) -> Figure:
    """Draw a figure of each system on each finding, or class, as the `noun` says.

    `rows` have an `Interval` for each finding and system; the findings come in falling order of the
    best system.
    """
    from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure

    best = rows[[*systems]].map(lambda cell: cell.estimate).max(axis="columns")
    order = best.sort_values(ascending=False, kind="stable").index
    step = 0.6 / len(systems)
    height = len(rows) * (0.16 + 0.12 * len(systems)) + 0.9 + 0.2 * len(systems)
    figure = NotebookFigure(figsize=(5.2, height), dpi=72, layout="constrained")
    axes = figure.subplots()
    _style(axes)
    title = f"{metric_title(metric)} of each {noun} with 95 % interval"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize="medium")
    for position, system in enumerate(systems):
        mark = system_mark(position)
        cells = rows.loc[order, system]
        y_positions = np.arange(len(order)) + (position - (len(systems) - 1) / 2) * step
        axes.hlines(
            y_positions,
            [cell.ci_low for cell in cells],
            [cell.ci_high for cell in cells],
            color=mark.colour,
        )
        values = [cell.estimate for cell in cells]
        axes.plot(values, y_positions, mark.marker, color=mark.colour, label=_plain(system))
    if METRICS[metric].interval == "ranks":
        axes.axvline(CHANCE, color=QUIET, linestyle=":", label="chance")
    axes.set_yticks(range(len(order)), [_plain(str(name)) for name in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    longest = max(map(len, [*systems, "chance"]))
    n_columns = max(1, _LEGEND_WIDTH // (longest + 6))
    figure.legend(loc="outside lower left", frameon=False, ncols=n_columns)
    return figure


def draw_confusion(confusion: Mapping[str, pd.DataFrame], systems: Sequence[str]) -> Figure:
    """Draw how many images of each class, a row, each system calls which one, one below another."""
    from matplotlib.colors import LinearSegmentedColormap

    from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure

    n_rows = max(len(cells) for cells in confusion.values())
    height = len(confusion) * (0.42 * n_rows + 1.3)
    figure = NotebookFigure(figsize=(5.2, height), dpi=72, layout="constrained")
    panels = figure.subplots(len(confusion), squeeze=False)[:, 0]
    for (system, cells), axes in zip(confusion.items(), panels, strict=True):
        colour = system_mark(systems.index(system)).colour
        counts = cells.to_numpy()
        shares = counts / counts.sum(axis=1, keepdims=True)
        shades = LinearSegmentedColormap.from_list("", [f"{colour}00", f"{colour}80"])
        axes.pcolormesh(shares, cmap=shades, vmin=0, vmax=1, edgecolor=QUIET, linewidth=0.5)
        for (row, column), count in np.ndenumerate(counts):
            text = f"{count:,} ({shares[row, column]:.0%})"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize="small")
        names = [textwrap.fill(_plain(str(name)), 14) for name in cells.columns]
        axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize="small")
        axes.set_yticks(np.arange(len(cells)) + 0.5, names[: len(cells)], fontsize="small")
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(_plain(system), loc="left", fontweight="bold", fontsize="medium")
        axes.set(ylabel="class", xlabel="called")
    return figure


def drawn_once(drawing: Callable[[], Figure], name: str, title: str) -> tuple[bytes, str]:
    """Return a drawing as a file on white, and as an element of the page."""
    svg = svg_text(drawing, name)
    file = svg.replace(_INK, "#000000").replace(_GROUND, "#ffffff")
    return file.encode(), page_element(svg, title)


def svg_text(drawing: Callable[[], Figure], name: str) -> str:
    """Return a figure that a function draws as SVG without a date, for `page_element`.

    `name` makes the ids in it its own.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    from cxr_compare.evaluation.overlays.notebook_figure import SAVED

    settings: Any = dict.fromkeys(_INKS, _INK)
    settings |= dict.fromkeys(("figure.facecolor", "axes.facecolor"), _GROUND)
    settings |= {**SAVED, "font.family": "sans-serif", "svg.hashsalt": name}
    settings |= {"font.size": _LETTERS, "axes.titlesize": "medium"}
    settings |= {"axes.titley": 1.0}  # else looked for at each drawing
    drawn = io.BytesIO()
    with mpl.rc_context(settings):
        canvas = FigureCanvasSVG(drawing())  # `savefig` draws twice
        canvas.print_svg(drawn, metadata=dict.fromkeys(("Date", "Creator")))
    return drawn.getvalue().decode()


def page_element(svg: str, title: str) -> str:
    """Return an SVG of `svg_text` as an element in the colours of a page's theme.

    `title` is what a screen reader says.
    """
    text = svg[svg.index("<svg") :].replace(_INK, "currentColor").replace(_GROUND, "none")
    text = re.sub(r' width="[^"]*" height="[^"]*"', "", text, count=1)  # of the chart itself
    text = text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    text = re.sub(r' id="[a-zA-Z.]+[\w.]*_\d+"', "", text)  # which are the same in all charts
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(
        r"font: ([\d.]+px|bold [\d.]+px|700 [\d.]+px) [^;\"]*", r"font: \1 var(--sans)", text
    )
