"""Style of every chart of our pages and files, and the writing of a chart as SVG and PDF.

matplotlib is imported when something is drawn: pages import this module for their texts, too.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

from markupsafe import Markup

from cxr_compare.evaluation.overlays.shapes import SYSTEM_COLOURS, system_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#000000"
QUIET = "#59636E"
LINE = "#D9DCD8"
PAPER = "#FFFFFF"
_PAGE_COLOURS = {
    INK: "currentColor",
    QUIET: "var(--quiet)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
}
"""Colours of files, and those of pages, which also have a dark theme."""
MARKERS = ("o", "^", "s", "D", "v", "P")
"""Markers of the rules for thresholds, in their order; ``"."`` is a plain dot."""
GUIDE: dict[str, Any] = {
    "color": QUIET,
    "linewidth": 1.2,
    "linestyle": (0, (1, 2.5)),
    "zorder": 1.5,
}
"""Keywords with which matplotlib draws a line of orientation."""
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
# Lengths are in points. A chart is about as wide as the page of a phone is in px, so that its text
# keeps its size there.
_LEFT, _TOP, _WIDTH, _RIGHT, _BELOW = 50.0, 34.0, 278.0, 12.0, 44.0
PLOT_HEIGHT = 264.0
"""Height of the plot of a chart in points; one with many rows is higher."""
_FONT = 12
_LEGEND_FONT = 10.5
_LEGEND_LETTERS = 48  # longest line of a legend


@dataclass(frozen=True)
class ShownChart:
    """A chart of an HTML page, with the text below it and a description for who cannot see it."""

    figure: Figure
    note: str = ""
    description: str = ""

    @property
    def alt(self) -> str:
        """Text in the place of the chart: its title, its legend and its description."""
        return ". ".join(filter(None, (alt_text(self.figure), self.description)))

    @cached_property
    def file(self) -> bytes:
        """The chart as an SVG file, black on white."""
        return svg_bytes(self.figure)

    @property
    def svg(self) -> Markup:
        """The chart as an SVG element of a page, in the colours of the page."""
        return page_svg(self.file, self.alt)


def new_chart(
    title: str, x_title: str, y_title: str, *, plot_height: float = PLOT_HEIGHT
) -> tuple[Figure, Axes]:
    """Return an empty figure in our style and its plot; `add_legend` completes it.

    Titles of axes include the unit. The height of the plot is in points.
    """
    from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure

    width = _LEFT + _WIDTH + _RIGHT
    height = _TOP + plot_height + _BELOW
    figure = NotebookFigure(figsize=(width / 72, height / 72), dpi=72)
    frame = _LEFT / width, _BELOW / height, _WIDTH / width, plot_height / height
    axes = figure.add_axes(frame)
    axes.set_title(
        title,
        loc="left",
        x=12 / _WIDTH - _LEFT / _WIDTH,
        fontsize=13,
        fontweight="bold",
        color=INK,
        pad=10,
    )
    axes.set_xlabel(x_title, fontsize=_FONT, color=INK)
    axes.set_ylabel(y_title, fontsize=_FONT, color=INK)
    axes.xaxis.set_label_coords(0.5, -25 / plot_height)
    axes.yaxis.set_label_coords(-(_LEFT - 12) / _WIDTH, 0.5)
    style_axes(axes)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """Give a plot our grid and ticks, without a frame."""
    axes.tick_params(which="both", length=0, labelsize=_FONT, labelcolor=QUIET, pad=6)
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)


def share_axis(axes: Axes, which: str) -> None:
    """Let the axis ``x`` or ``y`` of a plot go from 0 to 1, with a tick at each quarter."""
    quarters = [0, 0.25, 0.5, 0.75, 1]
    labels = [f"{quarter:g}" for quarter in quarters]
    axes.set(**{f"{which}lim": (0, 1), f"{which}ticks": quarters, f"{which}ticklabels": labels})


def line_style(position: int) -> dict[str, Any]:
    """Return the keywords with which matplotlib draws the line of one of the compared systems.

    The position of the system is counted from 0. Nine systems can be told apart without their
    colours, by their dashes.
    """
    dashes = _DASHES[(position + position // len(SYSTEM_COLOURS)) % len(_DASHES)]
    return {
        "color": system_colour(position),
        "linestyle": dashes,
        "linewidth": 2.2,
        "dash_capstyle": "butt",
        "solid_capstyle": "butt",
    }


def marker_style(marker: str, colour: str) -> dict[str, Any]:
    """Return the keywords with which matplotlib draws a marker in a colour, ``#RRGGBB``.

    The marker is named as in matplotlib; ``.`` is a plain dot. The marker ``o`` is a wide ring, so
    that it stays visible around another marker.
    """
    style: dict[str, Any] = {
        "linestyle": "",
        "color": colour,
        "marker": "o" if marker == "." else marker,
    }
    style |= {"clip_on": False, "zorder": 3}
    if marker == "o":
        return style | {"fillstyle": "none", "markersize": 13, "markeredgewidth": 1.8}
    size = {".": 7.5, "s": 9, "D": 8.5}.get(marker, 11)
    return style | {"markersize": size, "markeredgecolor": PAPER, "markeredgewidth": 1.2}


def draw_line(axes: Axes, x: Any, y: Any, **style: Any) -> None:
    """Draw a line that is clipped slightly outside the plot, so that it keeps its width there."""
    from matplotlib.transforms import Bbox, TransformedBbox

    (line,) = axes.plot(x, y, **style)
    line.set_clip_box(TransformedBbox(Bbox([[-0.01, -0.01], [1.01, 1.01]]), axes.transAxes))


def draw_band(axes: Axes, x: Any, low: Any, high: Any, position: int) -> None:
    """Fill the band between two lines in the colour of one of the compared systems."""
    axes.fill_between(x, low, high, color=system_colour(position), alpha=0.15, linewidth=0)


def add_legend(axes: Axes, title: str = "") -> None:
    """Write a legend of everything that has a label below the plot, and enlarge the figure for it.

    Markers are smaller there than in the plot. A label is shown as it is, also if matplotlib would
    read it as a formula or hide it.
    """
    drawn = [line for line in axes.lines if not str(line.get_label()).startswith("_child")]
    if drawn:
        legend = axes.legend(
            drawn,
            [" "] * len(drawn),
            title=" " if title else None,
            fontsize=_LEGEND_FONT,
            title_fontsize=_LEGEND_FONT,
            markerscale=0.7,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(-(_LEFT - 12) / _WIDTH, -_BELOW / axes.bbox.height),
            alignment="left",
            handlelength=3.2,
            borderaxespad=0,
            borderpad=0,
        )
        for text, line in zip(legend.get_texts(), drawn, strict=True):
            text.set_parse_math(False)
            text.set_text(textwrap.fill(str(line.get_label()), _LEGEND_LETTERS))
        legend.get_title().set_text(textwrap.fill(title, _LEGEND_LETTERS))
    _enlarge(axes)


def _enlarge(axes: Axes) -> None:
    """Enlarge a figure until the legend and the titles of its plot lie inside.

    The plot keeps its size. Without this, ``savefig`` cuts off what lies outside.
    """
    figure = cast("Figure", axes.figure)
    width, height = figure.bbox.size
    drawn = axes.get_tightbbox()
    plot = axes.bbox
    if drawn is None:
        return
    drawn = drawn.padded(6)
    left, below = max(0.0, -drawn.x0), max(0.0, -drawn.y0)
    wider = width + left + max(0.0, drawn.x1 - width)
    higher = height + below + max(0.0, drawn.y1 - height)
    frame = (plot.x0 + left, plot.y0 + below, plot.width, plot.height)
    position = frame[0] / wider, frame[1] / higher, frame[2] / wider, frame[3] / higher
    figure.set_size_inches(wider / figure.dpi, higher / figure.dpi)
    axes.set_position(position)


def alt_text(figure: Figure) -> str:
    """Return the texts of a chart in one line, for readers who cannot see it."""
    texts = []
    for axes in figure.axes:
        texts.append(axes.get_title(loc="left") or axes.get_title())
        legend = axes.get_legend()
        shown = [] if legend is None else [legend.get_title(), *legend.get_texts()]
        texts += [text.get_text() for text in (*shown, *axes.texts)]
    return ". ".join(" ".join(text.split()) for text in texts if text.strip())


def save_pages(figures: Iterable[Figure], path: Path) -> None:
    """Write figures as the pages of one PDF file, so that its fonts are embedded once."""
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages

    from cxr_compare.evaluation.overlays.notebook_figure import SAVED

    with (
        mpl.rc_context(SAVED),
        PdfPages(path, metadata={"CreationDate": None}) as pages,
    ):
        for figure in figures:
            pages.savefig(figure, facecolor=PAPER)


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as an SVG file without a date, whose text is text."""
    return _written(figure, "svg", dict.fromkeys(("Date", "Creator", "Format", "Type")))


def _written(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    import matplotlib as mpl

    written = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "chart"}):
        figure.savefig(written, format=kind, facecolor=PAPER, metadata=metadata)
    return written.getvalue()


def page_svg(file: bytes, alt: str) -> Markup:
    """Return an SVG file of matplotlib as an element of a page, transparent and in its colours.

    Only ids that the drawing refers to stay, under names that no other chart of the page has. `alt`
    is the text in the place of the chart.
    """
    root = ElementTree.fromstring(file)  # noqa: S314 - our own file
    key = hashlib.sha256(file).hexdigest()[:8]
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        is_ground = element.get("id") == "patch_1"  # the first patch of a figure is its ground
        if is_ground or element.tag in ("metadata", "style"):
            parents[element].remove(element)
            continue
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            if name != "id" or element.tag in ("clipPath", "path"):
                element.set(name.rpartition("}")[2], _of_page(name, value, key))
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"viewBox": box, "role": "img", "aria-label": alt, "fill": "currentColor"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - escaped there


def _of_page(name: str, value: str, key: str) -> str:
    """Return the value of an attribute of an SVG file as it stands in a page."""
    if name == "id":
        return f"{key}-{value}"
    if name == "style":
        for colour, of_page in _PAGE_COLOURS.items():
            value = value.replace(colour.lower(), of_page)
        return value
    return re.sub(r"^(url\(#|#)", rf"\g<1>{key}-", value)


def wrapped(text: str, letters: int, lines: int = 2) -> str:
    """Break a name into lines of at most so many letters; a name that is longer is shortened."""
    parts: Sequence[str] = textwrap.wrap(text, letters)
    if len(parts) <= lines:
        return "\n".join(parts)
    return "\n".join([*parts[: lines - 1], f"{parts[lines - 1][: letters - 8]}…{text[-7:]}"])
