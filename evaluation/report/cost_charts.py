"""Cost against accuracy as a picture: a point a system, its interval, its name beside the plot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.compare.intervals import Interval, find_interval
from evaluation.metrics.words import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.compare.comparison import Comparison

LEFT, TOP, WIDTH, LABELS = 52.0, 12.0, 218.0, 158.0
"""The plot area, and the room for names at its right, in view box units."""

FRAME = {"left": LEFT, "top": TOP, "right": LEFT + WIDTH, "width": LEFT + WIDTH + LABELS}
"""The same as edges, for the template."""

_LEAST_HEIGHT, _LINE, _AIR = 236.0, 14.0, 10.0
_LONGEST = 21  # letters of a name beside the plot
_QUANTITIES = (
    ("flops", "FLOPs an image", 1e9, "billion"),
    ("latency_ms", "Time an image", 1.0, "ms"),
)
_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class CostPoint:
    """A system: where, its interval's ends (y), and where its name stands."""

    name: str
    position: int
    x: float
    y: float
    low: float
    high: float
    label: str
    label_y: float
    words: str


@dataclass(frozen=True)
class CostChart:
    """A figure against a cost on a logarithmic axis.

    Args:
        key: Short name for ids and files.
        title: Its name.
        x_title: The cost with its unit.
        y_title: The figure.
        points: One per system whose cost and figure are known.
        x_ticks: Place and text.
        y_ticks: Likewise.
        height: Of the plot area.
        description: The chart in words, for those who cannot see it.
        left_out: Which systems are not drawn, and why; empty where all are.
        values: Per point the cost and the figure, for other drawings.
    """

    key: str
    title: str
    x_title: str
    y_title: str
    points: tuple[CostPoint, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    height: float
    description: str
    left_out: str
    values: tuple[tuple[float, Interval], ...]

    @property
    def bottom(self) -> float:
        """Lower edge of the plot area."""
        return TOP + self.height


def cost_charts(comparison: Comparison) -> list[CostChart]:
    """Return the primary figure against FLOPs and against time.

    A chart needs two systems whose cost is known. Times that were taken on different devices are
    not drawn beside each other.
    """
    asked = comparison.protocol
    figures = {
        name: find_interval(comparison.metrics, name, asked.metric, asked.policy)
        for name in comparison.systems
    }
    devices = {each.cost.get("latency_device") for each in comparison.systems.values()} - {None}
    charts = []
    for key, title, unit, word in _QUANTITIES:
        if key == "latency_ms" and len(devices) > 1:
            continue
        costs = {
            name: float(value) / unit
            for name, result in comparison.systems.items()
            if (value := result.cost.get(key)) and figures[name].known
        }
        if len(costs) > 1:
            charts.append(_chart(key, title, word, asked.title, costs, figures))
    return charts


def _chart(
    key: str,
    title: str,
    word: str,
    y_title: str,
    costs: dict[str, float],
    figures: dict[str, Interval],
) -> CostChart:
    """Place all that is drawn."""
    height = max(_LEAST_HEIGHT, _LINE * len(costs))
    x_marks = _log_marks(min(costs.values()), max(costs.values()))
    ends = [
        end
        for name in costs
        for each in [figures[name]]
        for end in ((each.low, each.high) if each.bounded else (each.estimate,))
    ]
    y_marks = _marks(min(ends), max(ends))

    def across(value: float) -> float:
        share = math.log(value / x_marks[0]) / math.log(x_marks[-1] / x_marks[0])
        return round(LEFT + share * WIDTH, 1)

    def down(value: float) -> float:
        return round(TOP + (1 - (value - y_marks[0]) / (y_marks[-1] - y_marks[0])) * height, 1)

    labels = _spread([down(figures[name].estimate) for name in costs], TOP, TOP + height)
    order = list(figures)
    told = {name: f"{name}: {number(figures[name].estimate)} at {cost:.3g} {word}"
            for name, cost in costs.items()}  # fmt: skip
    points = tuple(
        CostPoint(
            name,
            order.index(name),
            across(cost),
            down(figures[name].estimate),
            down(figures[name].low if figures[name].bounded else figures[name].estimate),
            down(figures[name].high if figures[name].bounded else figures[name].estimate),
            name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…",
            label,
            told[name],
        )
        for (name, cost), label in zip(costs.items(), labels, strict=True)
    )
    absent = [f"{name} ({number(figures[name].estimate)})" for name in order if name not in costs]
    left_out = f"Not drawn, since its cost or figure is unknown: {', '.join(absent)}."
    return CostChart(
        key=f"cost-{key.removesuffix('_ms')}",
        title=f"{y_title} against {title[0].lower() if key != 'flops' else title[0]}{title[1:]}",
        x_title=f"{title} ({word})",
        y_title=y_title,
        points=points,
        x_ticks=tuple((across(mark), f"{mark:,g}") for mark in _few(x_marks)),
        y_ticks=tuple((down(mark), f"{mark:.3f}".rstrip("0").ljust(4, "0")) for mark in y_marks),
        height=height,
        description=f"{y_title} against {title}. {'; '.join(told.values())}.",
        left_out=left_out if absent else "",
        values=tuple((cost, figures[name]) for name, cost in costs.items()),
    )


def _log_marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten, from below the least to above the greatest.

    Example:
        >>> _log_marks(0.3, 4.2)
        [0.2, 0.5, 1.0, 2.0, 5.0]
    """
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    marks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    first = max(place for place, mark in enumerate(marks) if mark <= low / 1.05)
    last = min(place for place, mark in enumerate(marks) if mark >= high * 1.05)
    return marks[first : last + 1]


def _few(marks: Sequence[float]) -> list[float]:
    """Powers of ten alone where the marks would stand too close."""
    if len(marks) <= 6:
        return list(marks)
    tens = [mark for mark in marks if math.isclose(math.log10(mark) % 1, 0, abs_tol=1e-9)]
    return tens if len(tens) > 1 else [marks[0], *tens, marks[-1]]


def _marks(low: float, high: float) -> list[float]:
    """Round figures from below the least to above the greatest, three to seven of them.

    Example:
        >>> _marks(0.871, 0.962)
        [0.86, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98]
    """
    step = next((step for step in _STEPS if (high - low) / step <= 5), _STEPS[-1])
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 2)
    if high <= 1 < last * step:
        first, last = first - round(last - 1 / step), round(1 / step)
    return [round(number * step, 4) for number in range(first, last + 1)]


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Move labels apart, as little as need be, in the order of what they name.

    Example:
        >>> _spread([50.0, 52.0, 100.0], 0.0, 100.0)
        [50.0, 64.0, 96.0]
    """
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    lowest, placed = bottom - _LINE / 2 + 3.0, list(wanted)
    at = top - _LINE
    for place in order:
        at = placed[place] = max(wanted[place], at + _LINE)
    at = lowest + _LINE
    for place in reversed(order):
        at = placed[place] = min(placed[place], at - _LINE)
    return [round(each, 1) for each in placed]
