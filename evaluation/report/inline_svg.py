"""Charts as inline SVG in the page's own font and colours."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import cache

import matplotlib as mpl
from matplotlib.figure import Figure

from cxr_compare.evaluation.overlays.shapes import SYSTEM_COLOURS, system_colour
from cxr_compare.evaluation.report.chart import Chart
from cxr_compare.evaluation.report.chart_drawing import (
    DASHED,
    INK,
    LINE,
    PAPER,
    QUIET,
    WRITING_SVG,
    dash,
    draw_charts,
    marker_style,
)

_THEME = {
    **{colour.lower(): f"var(--s{place})" for place, colour in enumerate(SYSTEM_COLOURS)},
    INK.lower(): "var(--ink)",
    QUIET.lower(): "var(--quiet)",
    LINE.lower(): "var(--line)",
    PAPER.lower(): "var(--paper)",
}


_SVG = "{http://www.w3.org/2000/svg}"


_HREF = "{http://www.w3.org/1999/xlink}href"


def to_svg(chart: Chart) -> str:
    """Return a chart as an SVG element that takes its colours from the style sheet of the page.

    The label of each marked point is its ``<title>``.

    Args:
        chart: The chart to write.

    Returns:
        An ``svg`` element as text.
    """
    labels = {
        f"curve-{number}-point-{position}": point.label
        for number, curve in enumerate(chart.curves)
        for position, point in enumerate(curve.points)
    }
    attributes = {
        "role": "img",
        "aria-label": chart.description,
        "data-chart": chart.key,
    }
    return _inline(draw_charts(chart), chart.key, attributes, labels)


def legend_sample(
    key: str, position: int | None = None, marker: str = "", *, dashed: bool = False
) -> str:
    """Return a small sample of a system's line or of a marker as SVG, for a legend.

    Args:
        key: Text with which ids inside the SVG begin, unique on the page, such as ``roc``.
        position: Index of the system in the comparison, from 0, which decides colour and dash
            pattern; None for a marker in the colour of text.
        marker: Shape of the marker as matplotlib calls it, such as ``o``; empty for a line.
        dashed: True for the thin, dashed line of a baseline.

    Returns:
        An ``svg`` element as text.

    Example:
        >>> legend_sample("roc", 0).startswith("<svg")
        True
    """
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{key}-", _sample(position, marker, dashed))


@cache
def _sample(position: int | None, marker: str, dashed: bool) -> str:
    width = 16 if marker else 36
    figure = Figure(figsize=(width / 72, 16 / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, 16))
    axes.set_axis_off()
    if marker:
        colour = INK if position is None else system_colour(position)
        axes.plot([8], [8], **marker_style(marker, colour), clip_on=False)
    elif position is not None:
        axes.plot(
            [1, 35],
            [8, 8],
            color=system_colour(position),
            linestyle=DASHED if dashed else dash(position),
            linewidth=1.4 if dashed else 2.2,
            dash_capstyle="butt",
        )
    attributes = {"aria-hidden": "true", "width": str(width), "height": "16"}
    key = f"legend-{position}-{marker}{'-dashed' if dashed else ''}"
    return _inline(figure, key, attributes)


def _inline(
    figure: Figure, key: str, attributes: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> str:
    """Write a figure as an SVG element for the page, without fonts and dates, with unique ids.

    Args:
        figure: The figure to write.
        key: Prefix of the ids, different for each figure of a page.
        attributes: Attributes of the SVG element.
        labels: Titles of points, by their gid.

    Returns:
        An ``svg`` element as text.
    """
    figure.patch.set_visible(False)
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with WRITING_SVG, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(written, format="svg", metadata=nothing)
    tree = ET.fromstring(written.getvalue())  # noqa: S314 - matplotlib's own text
    root = ET.Element("svg", {"viewBox": tree.attrib["viewBox"], **attributes})
    root.extend(element for child in tree for element in _plain_elements(child, labels or {}))
    return ET.tostring(root, encoding="unicode")


def _plain_elements(node: ET.Element, labels: Mapping[str, str]) -> list[ET.Element]:
    """Return an element without name space; groups are dissolved except labelled points."""
    tag = node.tag.removeprefix(_SVG)
    inner = [element for child in node for element in _plain_elements(child, labels)]
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
    """Return an attribute's value with the page's font and colours and at most two decimals."""
    if name == "style":
        value = re.sub(r"font-family:[^;]*;? ?|stroke-dashoffset: 0; ", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda match: _THEME.get(match[0], match[0]), value)
    if name == "d":
        value = re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(value.split()))
    if name in ("d", "x", "y", "transform"):
        return re.sub(
            r"-?\d+\.\d+", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value
        )
    return value
