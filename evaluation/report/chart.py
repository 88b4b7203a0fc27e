"""Content of a chart in data units: axes, curves, points and guides."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats

_QUARTERS = tuple((tick, str(tick)) for tick in (0.0, 0.25, 0.5, 0.75, 1.0))


# Lengths are in pixels of the page at a width of 340, which are points on paper.
_LEFT = 50.0


_TOP = 12.0


BELOW = 44.0


_RIGHT = 12.0


_PLOT_WIDTH = 278.0


_PLOT_HEIGHT = 264.0


_NAMED_WIDTH = 184.0


_NAMES_WIDTH = 146.0


_NAMED_HEIGHT = 236.0


NAME_HEIGHT = 14.0


@dataclass(frozen=True)
class Axis:
    """Axis of a chart: its title with the unit, its ticks and its limits.

    Attributes:
        title: Title with the unit.
        ticks: Value and text of each tick; by default 0, 0.25, 0.5, 0.75 and 1.
        low: Value at the lower end of the axis.
        high: Value at the upper end of the axis.
        scale: ``linear`` or ``log``.

    Example:
        >>> Axis("Sensitivity").low, Axis("Images", low=10, high=100, scale="log").scale
        (0.0, 'log')
    """

    title: str
    ticks: tuple[tuple[float, str], ...] = _QUARTERS
    low: float = 0.0
    high: float = 1.0
    scale: Literal["linear", "log"] = "linear"

    @classmethod
    def log(cls, title: str, low: float, high: float) -> Axis:
        """Make a logarithmic axis with ticks at 1, 2 and 5 times the powers of ten.

        An axis that spans more than two decades has ticks at powers of ten only. If fewer than two
        ticks would lie on the axis, its limits are widened to ticks.

        Args:
            title: Title of the axis, with the unit, such as ``Time per image (ms)``.
            low: Value at the lower end, above 0.
            high: Value at the upper end, above ``low``.

        Returns:
            The axis with its ticks and their texts.

        Example:
            >>> [text for _, text in Axis.log("Images", 40.0, 2500.0).ticks]
            ['50', '100', '200', '500', '1,000', '2,000']
        """
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low <= 100 else (1,)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) < 2:  # the axis then begins and ends at a tick
            low = max(t for t in ticks if t <= low)
            high = min(t for t in ticks if t >= high)
            shown = [tick for tick in ticks if low <= tick <= high]
        labels = (f"{t:,.0f}" if t >= 1 else f"{t:.6f}".rstrip("0") for t in shown)
        return cls(title, tuple(zip(shown, labels, strict=True)), low, high, "log")


@dataclass(frozen=True)
class Point:
    """Marked point of a chart.

    Attributes:
        x: Position along the x axis, in the unit of the axis.
        y: Position along the y axis, in the unit of the axis.
        label: Text that a page shows for the point, such as ``best F1``.
        marker: Shape of the marker as matplotlib calls it, such as ``o``; ``.`` is a plain dot.

    Example:
        >>> Point(0.1, 0.9, "best F1", marker="o").label
        'best F1'
    """

    x: float
    y: float
    label: str
    marker: str = "."


@dataclass(frozen=True)
class Curve:
    """Curve of one system (detector or classifier) in a chart, with its marked points.

    Attributes:
        name: Name of the system.
        position: Index of the system in the comparison, from 0; it decides colour and dash pattern.
        x: Positions of the curve's points along the x axis, shape ``(N,)``.
        y: Positions of the curve's points along the y axis, shape ``(N,)``.
        points: Points with a marker, such as the chosen thresholds.
        faint: True for a thin, pale line.
        dashed: True for a thin, dashed line, such as that of a baseline.
        solid: True for a solid line; False for the dash pattern of the system.
        in_steps: True if the curve is constant from each point to the next and then jumps.
        figure: Value that the legend shows after the name, such as an AUROC with its interval; may
            be empty.
        band: Confidence band around the curve: arrays of x, lower end of y and upper end of y; None
            without a band.

    Example:
        >>> Curve("RetinaNet", 0, np.array([0.0, 1.0]), np.array([0.0, 1.0])).points
        ()
    """

    name: str
    position: int
    x: Floats
    y: Floats
    points: tuple[Point, ...] = ()
    faint: bool = False
    dashed: bool = False
    solid: bool = False
    in_steps: bool = False
    figure: str = ""
    band: tuple[Floats, Floats, Floats] | None = None

    @classmethod
    def from_points(
        cls,
        name: str,
        position: int,
        points: Iterable[Point],
        ends: Iterable[tuple[float | None, float | None]],
        **options: Any,
    ) -> Curve:
        """Make a curve that consists of single points, each with a vertical line as its interval.

        Args:
            name: Name of the system.
            position: Index of the system in the comparison, from 0; it decides the colour.
            points: The points to mark.
            ends: Lower and upper end of y for each point, in the same order; ``(None, None)`` for
                no interval.
            **options: Further fields of the curve, such as ``figure="0.91"``.

        Returns:
            The curve, whose line consists of the vertical lines.
        """
        marked = tuple(points)
        x = np.repeat([point.x for point in marked], 3)
        y = np.array([(*pair, None) for pair in ends], dtype=np.float64).ravel()
        return cls(name, position, x, y, marked, solid=True, **options)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Content of a chart, independent of how it is drawn.

    Attributes:
        key: Short name of the chart, such as ``roc``; ids on the web page begin with it.
        title: Title of the chart.
        x: Horizontal axis.
        y: Vertical axis.
        curves: Curve of each system (detector or classifier); empty for an empty chart.
        description: Sentence that says what the chart shows, for readers who cannot see it.
        guides: Dotted lines for orientation, each as x and y values, such as the diagonal of a ROC
            chart.
        guide_label: Text in the legend for the dotted lines; empty for none.
        note: Text below the chart; may be empty.
        names_beside: True if each system is a single point whose name is written at the right.

    Example:
        >>> chart = Chart(
        ...     key="roc",
        ...     title="ROC",
        ...     x=Axis("1 - specificity"),
        ...     y=Axis("Sensitivity"),
        ...     curves=(),
        ...     description="A chart without a curve.",
        ... )
        >>> chart.y.high
        1.0
    """

    key: str
    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    description: str
    guides: tuple[tuple[npt.ArrayLike, npt.ArrayLike], ...] = ()
    guide_label: str = ""
    note: str = ""
    names_beside: bool = False

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the area between the axes, in px of the page."""
        if self.names_beside:
            height = max(_NAMED_HEIGHT, NAME_HEIGHT * len(self.curves))
            return _LEFT, _TOP, _NAMED_WIDTH, height
        return _LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the whole chart with titles and names, in px of the page."""
        left, top, width, height = self.frame
        return left + width + (_NAMES_WIDTH if self.names_beside else _RIGHT), top + height + BELOW
