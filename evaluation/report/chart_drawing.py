"""Charts drawn by matplotlib."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, TransformedBbox

from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure
from cxr_compare.evaluation.overlays.shapes import SYSTEM_COLOURS, system_colour
from cxr_compare.evaluation.report.chart import BELOW, NAME_HEIGHT, Chart, Curve

MARKERS = ("o", "^", "s", "D", "v", "P")
"""Markers of the policies, in their order; ``"."`` is a plain dot."""


INK = "#1A2027"


QUIET = "#59636E"


LINE = "#D9DCD8"


PAPER = "#FFFFFF"


DASHED = (0, (6, 4))
"""Line style of a baseline."""
_DASHES = (
    "-",
    (0, (4, 2)),
    (0, (1, 1.5)),
    (0, (4, 1.5, 1, 1.5)),
    (0, (8, 2)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)),
    (0, (2, 3)),
    (0, (8, 1.5, 2, 1.5)),
    (0, (1, 4)),
)


WRITING_SVG = threading.Lock()  # the settings below are global to matplotlib


_LONGEST_NAME = 21


def draw_charts(*charts: Chart) -> Figure:
    """Draw charts side by side with matplotlib.

    A chart without a curve shows the text "Nothing to draw". For programs that read the SVG file,
    the line of the second curve has the id ``curve-1``, and its first point has the id
    ``curve-1-point-0``.

    Args:
        *charts: Charts to draw, from left to right; at least one. The first decides the height.

    Returns:
        Figure with one plot for each chart.
    """
    width = sum(chart.size[0] for chart in charts)
    height = charts[0].size[1]
    figure = NotebookFigure(figsize=(width / 72, height / 72))
    start = 0.0
    for chart in charts:
        left, top, wide, high = chart.frame
        rectangle = (start + left) / width, 1 - (top + high) / height, wide / width, high / height
        _draw_plot(figure.add_axes(rectangle), chart)
        start += chart.size[0]
    return figure


def _draw_plot(axes: Axes, chart: Chart) -> None:
    _dress(axes, chart)
    if not chart.curves:
        axes.text(0.5, 0.5, "Nothing to draw", ha="center", color=QUIET, transform=axes.transAxes)
    for x, y in chart.guides:
        axes.plot(x, y, color=QUIET, linewidth=1.2, linestyle=(0, (1, 2.5)))
    for curve in chart.curves:
        if curve.band is not None:
            at, lower, upper = curve.band
            edge = np.concatenate([at, at[::-1]]), np.concatenate([lower, upper[::-1]])
            axes.fill(*edge, color=system_colour(curve.position), alpha=0.15, linewidth=0)
    for number, curve in enumerate(chart.curves):
        _draw_curve(axes, chart, curve, f"curve-{number}")
    for number, curve in enumerate(chart.curves):
        for position, point in enumerate(curve.points):
            style = marker_style(point.marker, system_colour(curve.position))
            gid = f"curve-{number}-point-{position}"
            axes.plot([point.x], [point.y], **style, clip_on=False, gid=gid, zorder=3)
    if chart.names_beside:
        _name_points(axes, chart)


def _dress(axes: Axes, chart: Chart) -> None:
    """Set limits, titles and ticks, and draw a pale grid."""
    axes.set(xscale=chart.x.scale, yscale=chart.y.scale)
    for axis, spec in ((axes.xaxis, chart.x), (axes.yaxis, chart.y)):
        axis.set_ticks([tick for tick, _ in spec.ticks], [label for _, label in spec.ticks])
        axis.set_label_text(spec.title, fontsize=12, color=INK)
    axes.minorticks_off()
    axes.set(xlim=(chart.x.low, chart.x.high), ylim=(chart.y.low, chart.y.high))
    left, _, _, high = chart.frame
    axes.xaxis.set_label_coords(0.5, -25 / high)
    axes.yaxis.set_label_coords(-(left - 12) / chart.frame[2], 0.5)
    axes.tick_params(length=0, labelsize=12, labelcolor=QUIET, pad=6)
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)


def _draw_curve(axes: Axes, chart: Chart, curve: Curve, gid: str) -> None:
    """Draw a curve, clipped slightly outside the plot so that it keeps its width at a border."""
    (line,) = axes.plot(
        curve.x,
        curve.y,
        gid=gid,
        color=system_colour(curve.position),
        linewidth=1 if curve.faint else 1.4 if curve.dashed else 2.2,
        linestyle=_linestyle(chart, curve),
        drawstyle="steps-post" if curve.in_steps else "default",
        dash_capstyle="butt",
        solid_capstyle="butt",
    )
    line.set_clip_box(TransformedBbox(Bbox([[-0.01, -0.01], [1.01, 1.01]]), axes.transAxes))


def _linestyle(chart: Chart, curve: Curve) -> Any:
    if curve.dashed:
        return DASHED
    return "-" if curve.solid or chart.names_beside else dash(curve.position)


def dash(position: int) -> Any:
    """Return the dash pattern of one of the compared systems.

    Nine systems can be told apart without their colours.

    Args:
        position: Index of the system in the comparison, from 0.

    Returns:
        Line style of matplotlib, such as ``"-"`` or ``(0, (4, 2))``.
    """
    return _DASHES[(position + position // len(SYSTEM_COLOURS)) % len(_DASHES)]


def marker_style(marker: str, colour: str) -> dict[str, Any]:
    """Return the keywords with which matplotlib draws a marker.

    The marker ``o`` is a wide ring, so that it stays visible around another marker.

    Args:
        marker: Shape of the marker as matplotlib calls it, such as ``s``; ``.`` is a plain dot.
        colour: Colour of the marker, ``#RRGGBB``.

    Returns:
        Keywords of matplotlib's ``plot``, such as ``{"linestyle": "", "marker": "s", ...}``.
    """
    style = {"linestyle": "", "color": colour, "marker": "o" if marker == "." else marker}
    if marker == "o":
        return style | {"fillstyle": "none", "markersize": 13, "markeredgewidth": 1.8}
    size = {".": 7.5, "s": 9, "D": 8.5}.get(marker, 11)
    return style | {"markersize": size, "markeredgecolor": PAPER, "markeredgewidth": 1.2}


def _name_points(axes: Axes, chart: Chart) -> None:
    """Write each system's name at the right of the plot, with a line from its point."""
    _, _, width, height = chart.frame
    scale = height / (chart.y.high - chart.y.low)
    heights = [(curve.points[0].y - chart.y.low) * scale for curve in chart.curves]
    for curve, row in zip(chart.curves, _spread(heights, 0, height), strict=True):
        name = curve.name
        line = {
            "arrowstyle": "-",
            "color": system_colour(curve.position),
            "linewidth": 0.9,
            "alpha": 0.75,
            "shrinkA": 0,
            "shrinkB": 0,
            "relpos": (0, 0.5),
        }
        axes.annotate(
            name if len(name) <= _LONGEST_NAME else f"{name[:12]}…{name[-8:]}",
            (curve.points[0].x, curve.points[0].y),
            (width + 11, row),
            color=INK,
            fontsize=11,
            textcoords="axes points",
            va="center",
            arrowprops=line,
            annotation_clip=False,
        )


def _spread(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Move labels apart as little as needed, without a change of their order.

    Args:
        heights: Wanted heights of the labels, px.
        low: Smallest allowed height, px.
        high: Largest allowed height, px.

    Returns:
        Height of each label, px.

    Example:
        >>> _spread([50.0, 52.0, 100.0], 0.0, 100.0)
        [38.0, 52.0, 100.0]
    """
    placed = list(heights)
    at = high + NAME_HEIGHT
    order = sorted(range(len(heights)), key=lambda position: heights[position])
    for position in reversed(order):
        at = placed[position] = min(heights[position], at - NAME_HEIGHT)
    at = low - NAME_HEIGHT
    for position in order:
        at = placed[position] = max(placed[position], at + NAME_HEIGHT)
    return placed


def draw_with_legend(chart: Chart, markers: Sequence[tuple[str, str]]) -> Figure:
    """Draw a chart with a legend of systems and markers below it, for a separate file.

    Args:
        chart: The chart whose curves and markers the legend explains.
        markers: Shape of a marker (as matplotlib calls it) and its text, for each marker to
            explain.

    Returns:
        Figure with the chart above the legend.
    """
    figure = draw_charts(chart)
    axes = figure.axes[0]
    lines = {line.get_gid(): line for line in axes.lines}
    for number, curve in enumerate(chart.curves):
        lines[f"curve-{number}"].set_label(f"{curve.name} {curve.figure}".rstrip())
    for marker, text in markers:
        axes.plot([], [], **marker_style(marker, QUIET) | {"markersize": 7}, label=text)
    if chart.curves:
        below = 0, -BELOW / chart.frame[3]
        axes.legend(
            fontsize=9,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=below,
            alignment="left",
            handlelength=3.2,
        )
        _enlarge(figure, axes)
    return figure


def _enlarge(figure: Figure, axes: Axes) -> None:
    """Enlarge a figure until the legend and the titles of its plot lie inside.

    The plot keeps its size. Without this, ``savefig`` cuts off what lies outside.
    """
    width, height = figure.bbox.size
    drawn = axes.get_tightbbox()
    plot = axes.bbox
    if drawn is None:
        return
    drawn = drawn.padded(4)
    left, below = max(0.0, -drawn.x0), max(0.0, -drawn.y0)
    wider = width + left + max(0.0, drawn.x1 - width)
    higher = height + below + max(0.0, drawn.y1 - height)
    frame = (plot.x0 + left, plot.y0 + below, plot.width, plot.height)
    position = tuple(np.divide(frame, (wider, higher, wider, higher)))
    figure.set_size_inches(wider / figure.dpi, higher / figure.dpi)
    axes.set_position(position)
