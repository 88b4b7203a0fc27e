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
        ticks: Value and text of each tick.
        low: Smallest value that is shown.
        high: Largest value that is shown.
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
            title: Title of the axis, with the unit.
            low: Lower limit, above 0.
            high: Upper limit.

        Returns:
            Axis with texts at its ticks.

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
    """Marked point in data units, with its label and matplotlib's name of its marker.

    Attributes:
        x: Position along the x axis, in data units.
        y: Position along the y axis, in data units.
        label: Text beside the point.
        marker: Shape of the marker, as matplotlib calls it.

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
    """Curve of one system in data units, with its marked points.

    Attributes:
        name: Name of the system.
        position: Position of the system among all systems, from 0, which decides colour and dash.
        x: Positions of the points along the x axis.
        y: Positions of the points along the y axis.
        points: Points that are marked.
        faint: True for a thin, pale line.
        solid: True for a solid line instead of the dash of the position.
        in_steps: True if the curve is constant from each point up to the next.
        figure: Text of the system's figure in the legend, such as an AUROC.
        band: Band around the curve: x, lower end and upper end of the interval of y; None without a
            band.

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
        """Make a curve of single points with vertical lines as intervals.

        Args:
            name: Name of the system.
            position: Position of the system among all systems, from 0.
            points: The points.
            ends: Lower and upper end of the interval of each point; None for no interval.
            **options: Further fields of the curve.

        Returns:
            Curve whose line consists of the intervals.
        """
        marked = tuple(points)
        x = np.repeat([point.x for point in marked], 3)
        y = np.array([(*pair, None) for pair in ends], dtype=np.float64).ravel()
        return cls(name, position, x, y, marked, solid=True, **options)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Content of a chart in data units, with a description for readers who cannot see it.

    Attributes:
        key: Prefix of ids on the page.
        title: Title of the chart.
        x: Horizontal axis.
        y: Vertical axis.
        curves: Curve of each system.
        description: Sentence that says what the chart shows, for readers who cannot see it.
        guides: Dotted lines, each as x and y values.
        guide_label: Text in the legend for the dotted lines.
        note: Text below the chart.
        names_beside: True if each system is one point, whose name is at the right.

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
        """Left, top, width and height of the plotting area, in pixels."""
        if self.names_beside:
            height = max(_NAMED_HEIGHT, NAME_HEIGHT * len(self.curves))
            return _LEFT, _TOP, _NAMED_WIDTH, height
        return _LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the whole chart, in pixels."""
        left, top, width, height = self.frame
        return left + width + (_NAMES_WIDTH if self.names_beside else _RIGHT), top + height + BELOW
