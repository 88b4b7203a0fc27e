"""Charts drawn by matplotlib: inline SVG in the colours of the page, and PNG files."""

from __future__ import annotations

import io
import math
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure
from cxr_compare.evaluation.overlays.shapes import SYSTEM_COLOURS, system_colour
from cxr_compare.evaluation.report.page import ForestPart, sentence
from cxr_compare.evaluation.statistics.ranking import Floats

_MARKER_WORDS = {
    "o": "Circle",
    "^": "Triangle",
    "s": "Square",
    "D": "Diamond",
    "v": "Triangle (v)",
    "P": "Plus",
}
MARKERS = tuple(_MARKER_WORDS)
"""Markers of the policies, in their order; ``"."`` is a plain dot."""

_INK = "#1A2027"
_QUIET = "#59636E"
_LINE = "#D9DCD8"
_PAPER = "#FFFFFF"
_THEME = {
    **{colour.lower(): f"var(--s{place})" for place, colour in enumerate(SYSTEM_COLOURS)},
    _INK.lower(): "var(--ink)",
    _QUIET.lower(): "var(--quiet)",
    _LINE.lower(): "var(--line)",
    _PAPER.lower(): "var(--paper)",
}
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))
_QUARTERS = tuple((tick, str(tick)) for tick in (0.0, 0.25, 0.5, 0.75, 1.0))
_DPI = 200  # of PNG files
_PLATE_INCHES = 17 / 2.54
_PLATE_DPI = 300  # a plate is as wide, or as fine
_UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_WRITING_SVG = threading.Lock()  # the settings below are global to matplotlib

# In pixels of the page at a width of 340, which are points on paper.
_LEFT = 50.0
_TOP = 12.0
_BELOW = 44.0
_RIGHT = 12.0
_PLOT_WIDTH = 278.0
_PLOT_HEIGHT = 264.0
_NAMED_WIDTH = 184.0
_NAMES_WIDTH = 146.0
_NAMED_HEIGHT = 236.0
_NAME_HEIGHT = 14.0
_LONGEST_NAME = 21


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: its title with the unit, where the grid lies and what stands there."""

    title: str
    ticks: tuple[tuple[float, str], ...] = _QUARTERS
    low: float = 0.0
    high: float = 1.0
    scale: Literal["linear", "log"] = "linear"

    @classmethod
    def log(cls, title: str, low: float, high: float) -> Axis:
        """A logarithmic axis with ticks at 1, 2 and 5 times the powers of ten, fewer over many.

        Example:
            >>> [words for _, words in Axis.log("Images", 40.0, 2500.0).ticks]
            ['50', '100', '200', '500', '1,000', '2,000']
        """
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low <= 100 else (1,)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) < 2:  # then it begins and ends at a tick
            low = max(t for t in ticks if t <= low)
            high = min(t for t in ticks if t >= high)
            shown = [tick for tick in ticks if low <= tick <= high]
        words = (f"{t:,.0f}" if t >= 1 else f"{t:.6f}".rstrip("0") for t in shown)
        return cls(title, tuple(zip(shown, words, strict=True)), low, high, "log")


@dataclass(frozen=True)
class Point:
    """A marked point: where, its words, and its marker as matplotlib names it."""

    x: float
    y: float
    label: str
    marker: str = "."


@dataclass(frozen=True)
class Curve:
    """One system's curve in data units, and its points."""

    name: str
    position: int  # of the system among all; gives colour and dash
    x: Floats
    y: Floats
    points: tuple[Point, ...] = ()
    faint: bool = False
    solid: bool = False  # in place of the dash of its position
    in_steps: bool = False  # level from each point up to the next
    figure: str = ""  # in words, for the legend
    band: tuple[Floats, Floats, Floats] | None = None  # x, and the interval of y there

    @classmethod
    def of_points(
        cls,
        name: str,
        position: int,
        points: Iterable[Point],
        ends: Iterable[tuple[float | None, float | None]],
        **options: Any,
    ) -> Curve:
        """Points with their intervals as upright lines; one without ends has none."""
        held = tuple(points)
        x = np.repeat([point.x for point in held], 3)
        y = np.array([(*pair, None) for pair in ends], dtype=np.float64).ravel()
        return cls(name, position, x, y, held, solid=True, **options)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a chart shows, in data units; its description is for those who cannot see it."""

    key: str  # for ids
    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    description: str
    guides: tuple[tuple[npt.ArrayLike, npt.ArrayLike], ...] = ()  # dotted lines: x, y
    guide_label: str = ""
    note: str = ""  # below the chart
    names_beside: bool = False  # each system is a point with an interval, named at the right

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the plot, in pixels."""
        if self.names_beside:
            height = max(_NAMED_HEIGHT, _NAME_HEIGHT * len(self.curves))
            return _LEFT, _TOP, _NAMED_WIDTH, height
        return _LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the whole, in pixels."""
        left, top, width, height = self.frame
        return left + width + (_NAMES_WIDTH if self.names_beside else _RIGHT), top + height + _BELOW


def _draw(*charts: Chart) -> Figure:
    """Draw charts of one height side by side; one without a curve says so.

    The artist of the second curve has the gid ``curve-1``, of its first point ``curve-1-point-0``.
    """
    width = sum(chart.size[0] for chart in charts)
    height = charts[0].size[1]
    figure = NotebookFigure(figsize=(width / 72, height / 72))
    start = 0.0
    for chart in charts:
        left, top, wide, high = chart.frame
        place = (start + left) / width, 1 - (top + high) / height, wide / width, high / height
        _draw_plot(figure.add_axes(place), chart)
        start += chart.size[0]
    return figure


def _draw_plot(axes: Axes, chart: Chart) -> None:
    _dress(axes, chart)
    if not chart.curves:
        axes.text(0.5, 0.5, "Nothing to draw", ha="center", color=_QUIET, transform=axes.transAxes)
    for x, y in chart.guides:
        axes.plot(x, y, color=_QUIET, linewidth=1.2, linestyle=(0, (1, 2.5)))
    for curve in chart.curves:
        if curve.band is not None:
            at, lower, upper = curve.band
            edge = np.concatenate([at, at[::-1]]), np.concatenate([lower, upper[::-1]])
            axes.fill(*edge, color=system_colour(curve.position), alpha=0.15, linewidth=0)
    for number, curve in enumerate(chart.curves):
        _draw_curve(axes, chart, curve, f"curve-{number}")
    for number, curve in enumerate(chart.curves):
        for place, point in enumerate(curve.points):
            style = _marker_style(point.marker, system_colour(curve.position))
            gid = f"curve-{number}-point-{place}"
            axes.plot([point.x], [point.y], **style, clip_on=False, gid=gid, zorder=3)
    if chart.names_beside:
        _name_points(axes, chart)


def _dress(axes: Axes, chart: Chart) -> None:
    """Set limits, titles, ticks and a quiet grid."""
    axes.set(xscale=chart.x.scale, yscale=chart.y.scale)
    for axis, spec in ((axes.xaxis, chart.x), (axes.yaxis, chart.y)):
        axis.set_ticks([tick for tick, _ in spec.ticks], [words for _, words in spec.ticks])
        axis.set_label_text(spec.title, fontsize=12, color=_INK)
    axes.minorticks_off()
    axes.set(xlim=(chart.x.low, chart.x.high), ylim=(chart.y.low, chart.y.high))
    left, _, _, high = chart.frame
    axes.xaxis.set_label_coords(0.5, -25 / high)
    axes.yaxis.set_label_coords(-(left - 12) / chart.frame[2], 0.5)
    axes.tick_params(length=0, labelsize=12, labelcolor=_QUIET, pad=6)
    axes.grid(color=_LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)


def _draw_curve(axes: Axes, chart: Chart, curve: Curve, gid: str) -> None:
    """Draw a line, cut a little outside the plot: along a border it keeps its width."""
    (line,) = axes.plot(
        curve.x,
        curve.y,
        gid=gid,
        color=system_colour(curve.position),
        linewidth=1 if curve.faint else 2.2,
        linestyle="-" if curve.solid or chart.names_beside else _dash(curve.position),
        drawstyle="steps-post" if curve.in_steps else "default",
        dash_capstyle="butt",
        solid_capstyle="butt",
    )
    line.set_clip_box(TransformedBbox(Bbox([[-0.01, -0.01], [1.01, 1.01]]), axes.transAxes))


def _dash(position: int) -> Any:
    """A dash that no other system of the same colour has, for the first sixteen."""
    return _DASHES[(position + position // len(SYSTEM_COLOURS)) % len(_DASHES)]


def _marker_style(marker: str, colour: str) -> dict[str, Any]:
    """A ring stays visible around another marker at the same place; the rest are filled."""
    style = {"linestyle": "", "color": colour, "marker": "o" if marker == "." else marker}
    if marker == "o":
        return style | {"fillstyle": "none", "markersize": 13, "markeredgewidth": 1.8}
    size = {".": 7.5, "s": 9, "D": 8.5}.get(marker, 11)
    return style | {"markersize": size, "markeredgecolor": _PAPER, "markeredgewidth": 1.2}


def _name_points(axes: Axes, chart: Chart) -> None:
    """Write each system's name at the right, moved apart, with a line from its point."""
    _, _, width, height = chart.frame
    scale = height / (chart.y.high - chart.y.low)
    wanted = [(curve.points[0].y - chart.y.low) * scale for curve in chart.curves]
    for curve, row in zip(chart.curves, _spread(wanted, 0, height), strict=True):
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
            color=_INK,
            fontsize=11,
            textcoords="axes points",
            va="center",
            arrowprops=line,
            annotation_clip=False,
        )


def _spread(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Move labels apart, as little as need be and in their order: rows between two ends, in pixels.

    Example:
        >>> _spread([50.0, 52.0, 100.0], 0.0, 100.0)
        [38.0, 52.0, 100.0]
    """
    placed = list(wanted)
    at = high + _NAME_HEIGHT
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for place in reversed(order):
        at = placed[place] = min(wanted[place], at - _NAME_HEIGHT)
    at = low - _NAME_HEIGHT
    for place in order:
        at = placed[place] = max(placed[place], at + _NAME_HEIGHT)
    return placed


def to_svg(chart: Chart) -> str:
    """Return a chart as an inline SVG element that takes its colours from the page.

    Its ``data-frame`` says where the plot lies: left, top, width and height. Each point carries
    its words as ``<title>``.
    """
    labels = {
        f"curve-{number}-point-{place}": point.label
        for number, curve in enumerate(chart.curves)
        for place, point in enumerate(curve.points)
    }
    frame = " ".join(f"{end:g}" for end in chart.frame)
    attributes = {
        "role": "img",
        "aria-label": chart.description,
        "data-chart": chart.key,
        "data-frame": frame,
    }
    return _inline(_draw(chart), chart.key, attributes, labels)


def legend_sample(key: str, position: int | None = None, marker: str = "") -> str:
    """Return a system's line or marker, or a policy's marker, as SVG; ids begin with the key."""
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{key}-", _sample(position, marker))


@cache
def _sample(position: int | None, marker: str) -> str:
    width = 16 if marker else 36
    figure = Figure(figsize=(width / 72, 16 / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, 16))
    axes.set_axis_off()
    if marker:
        colour = _INK if position is None else system_colour(position)
        axes.plot([8], [8], **_marker_style(marker, colour), clip_on=False)
    elif position is not None:
        axes.plot(
            [1, 35],
            [8, 8],
            color=system_colour(position),
            linestyle=_dash(position),
            linewidth=2.2,
            dash_capstyle="butt",
        )
    attributes = {"aria-hidden": "true", "width": str(width), "height": "16"}
    return _inline(figure, f"legend-{position}-{marker}", attributes)


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure and all that stands beside its plot as PNG, PDF and SVG; return the files.

    The files hold no date, so that equal figures are equal files.
    """
    written = []
    with _WRITING_SVG, mpl.rc_context({"svg.hashsalt": "figure", "pdf.fonttype": 42}):
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
            marked = [f"{_MARKER_WORDS[each]}: {words}." for each, words in shown]
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


def draw_with_legend(chart: Chart, markers: Sequence[tuple[str, str]], *beside: Chart) -> Figure:
    """Draw a chart with a legend of systems and markers below, for a file that stands alone.

    Other charts of the same systems can stand beside it.
    """
    figure = _draw(chart, *beside)
    axes = figure.axes[0]
    lines = {line.get_gid(): line for line in axes.lines}
    for number, curve in enumerate(chart.curves):
        lines[f"curve-{number}"].set_label(f"{curve.name} {curve.figure}".rstrip())
    for marker, words in markers:
        axes.plot([], [], **_marker_style(marker, _QUIET) | {"markersize": 7}, label=words)
    if chart.curves:
        below = 0, -_BELOW / chart.frame[3]
        axes.legend(
            fontsize=9,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=below,
            alignment="left",
            handlelength=3.2,
        )
    return figure


def _draw_forest(parts: Sequence[ForestPart]) -> Figure:
    """Draw figures with their intervals, each part on an axis of its own; hollow: not shown."""
    heights = [len(rows) + 1.6 for _, rows, _ in parts]
    figure = Figure(figsize=(7.2, 0.3 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, rows, ticks) in zip(grid, parts, strict=True):
        for row, (_, position, cell, whisker) in enumerate(rows):
            colour = _INK if position is None else system_colour(position)
            fill = "full" if position is not None or whisker.decided else "none"
            axes.plot([whisker.low, whisker.high], [row, row], color=colour, linewidth=1.6)
            axes.plot(whisker.dot, row, "o", color=colour, fillstyle=fill, markersize=7)
            axes.text(102, row, f"{cell} {cell.note}".rstrip(), va="center", fontsize=9)
        axes.set_title(title, loc="left", fontsize=9, color=_QUIET)
        axes.set_xticks(*zip(*ticks, strict=True), fontsize=8)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=9)
        axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="x", color=_LINE)
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


def _inline(
    figure: Figure, key: str, attributes: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> str:
    """Write a figure as an SVG element for the page: no fonts, ids of its own, no dates.

    ``key`` differs for each figure of a page, so that no id repeats; ``labels`` are titles by gid.
    """
    figure.patch.set_visible(False)
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _WRITING_SVG, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(written, format="svg", metadata=nothing)
    tree = ET.fromstring(written.getvalue())  # noqa: S314 - matplotlib's own text
    root = ET.Element("svg", {"viewBox": tree.attrib["viewBox"], **attributes})
    root.extend(each for child in tree for each in _plain(child, labels or {}))
    return ET.tostring(root, encoding="unicode")


def _plain(node: ET.Element, labels: Mapping[str, str]) -> list[ET.Element]:
    """A node without names of its own: groups go but for labelled points, which get a title."""
    tag = node.tag.removeprefix(_SVG)
    inner = [each for child in node for each in _plain(child, labels)]
    if tag in ("style", "metadata") or (tag == "defs" and not inner):
        return []
    label = labels.get(node.get("id", "")) if tag == "g" else None
    if tag == "g" and label is None and "clip-path" not in node.attrib:
        return inner
    plain = ET.Element(tag)
    for name, value in node.items():
        if not (tag == "g" and name == "id") and not value.startswith("rotate(-0 "):
            plain.set("href" if name == _HREF else name, _tidy(name, value))
    plain.text = node.text if tag == "text" else None
    if label is not None:
        ET.SubElement(plain, "title").text = label
    plain.extend(inner)
    return [plain]


def _tidy(name: str, value: str) -> str:
    """An attribute in the page's font and colours, with two decimals at most."""
    if name == "style":
        value = re.sub(r"font-family:[^;]*;? ?|stroke-dashoffset: 0; ", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda found: _THEME.get(found[0], found[0]), value)
    if name == "d":
        value = re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(value.split()))
    if name in ("d", "x", "y", "transform"):
        return re.sub(
            r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value
        )
    return value
