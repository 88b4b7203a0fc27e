"""The charts of a learning-curve study: a figure against images, and against hours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from evaluation.metrics.registry import metric_title
from evaluation.report.plot import Axis, Chart, Curve, Point
from evaluation.report.table import figure_words
from evaluation.statistics.learning_curve import LearningCurve
from evaluation.studies.curve_results import (
    EXTRAPOLATED,
    KINDS,
    MAIN,
    CurveStudy,
    Kind,
    SizePoint,
    Times,
)

MARKERS: Mapping[Kind, str] = {"detector": "s", "classifier": ".", "mixed": "D"}
_MARKER_WORDS = {"s": "squares", ".": "dots", "D": "diamonds"}
_CROSSING = 3  # its colour, which no arm has
_CROSSING_MARKER = "P"
_STEPS = 24
_APART: Mapping[Kind, float] = {"detector": 1.0, "classifier": 1 / 1.03, "mixed": 1.03}
"""Arms with as many images are drawn a little apart, else one hides the other."""


def draw(study: CurveStudy, metric: str, times: Times | None = None) -> Chart:
    """A metric against annotated images, or against hours of annotation.

    Solid lines are fitted within what was measured, dashed ones are extrapolated.
    """
    drawn, unit = drawn_arms(study, metric), "images" if times is None else "hours"
    curves = [curve for arm in drawn for curve in _curves(arm, times)]
    values = [x for curve in curves for x in curve.x if np.isfinite(x)]
    title = metric_title(metric)
    across = "Annotated images" if times is None else "Annotation time, hours"
    if times is None and any(arm["kind"] == "mixed" for arm in drawn):
        across += f" ({KINDS['mixed']}: with boxes)"
    return Chart(
        key=f"{metric.replace('_', '-')}-{unit}",
        title=f"{title} against {'annotated images' if times is None else 'annotation time'}",
        x=log_axis(across, values),
        y=figure_axis(drawn, metric),
        curves=(*curves, *_crossing(study, metric, times)),
        description=f"{title} against {unit} of annotation; the table below holds the figures.",
    )


def _crossing(study: CurveStudy, metric: str, times: Times | None) -> Iterator[Curve]:
    """A crossing that is shown, with its interval, at the height where the curves cross."""
    found = study.crossing(metric, times)
    if found is None or not found.shown or found.effort is None or found.interval is None:
        return
    curve, cost = study.fitted(metric, MAIN[0]), study.seconds_per_image(MAIN[0], times)
    if curve is None:
        return
    scale = 1 if times is None else 3600
    height = float(curve.at(found.effort / cost).values[0])
    x = np.array(found.interval) / scale
    point = Point(found.effort / scale, height, "where the fitted curves cross", _CROSSING_MARKER)
    yield Curve("crossing with interval", _CROSSING, x, np.full(2, height), (point,), dashed=False)


def drawn_arms(study: CurveStudy, metric: str) -> list[dict[str, Any]]:
    """What the charts of a metric are drawn from, for JSON: of each arm its points and its fit."""
    found = []
    for arm in study.arms:
        points = [p for p in study.sizes(arm.kind) if metric in p.figures]
        if not points:
            continue
        fit = study.fitted(metric, arm.kind)
        found.append(
            {
                "kind": arm.kind,
                "position": list(KINDS).index(arm.kind),
                "boxes": study.boxes_per_image(arm.kind),
                "points": [_point(point, metric) for point in points],
                "line": None if fit is None else _line(fit),
            }
        )
    return found


def _point(point: SizePoint, metric: str) -> dict[str, Any]:
    figure = point.figures[metric].interval
    words = (
        f"{KINDS[point.kind]} with {point.n_images:,.0f} images and {point.n_boxes:,.0f} boxes: "
        f"{metric_title(metric)} {figure_words(figure)}"
    )
    ends = [figure.low, figure.high] if figure.bounded else [figure.estimate] * 2
    return {"images": point.n_images, "boxes": point.n_boxes, "grown": point.n_grown,
            "figure": figure.estimate, "ends": ends, "words": words}  # fmt: skip


def _line(curve: LearningCurve) -> dict[str, Any]:
    """A fitted curve from the fewest images that were measured to twice the most."""
    first, last = curve.amounts[0], curve.amounts[-1]
    beyond = np.geomspace(last, EXTRAPOLATED * last, _STEPS // 3)[1:]
    images = np.concatenate([np.geomspace(first, last, _STEPS), beyond])
    band = curve.at(images)
    rows = np.round(np.stack([images, band.values, band.low, band.high]), 5).tolist()
    return {**dict(zip(("images", "figure", "low", "high"), rows, strict=True)),
            "measured": _STEPS}  # fmt: skip


def _curves(arm: Mapping[str, Any], times: Times | None) -> Iterator[Curve]:
    """The fit within what was measured, the rest of it, and the points with their intervals."""
    kind, position, points = arm["kind"], arm["position"], arm["points"]
    name = f"{KINDS[kind]}, {_MARKER_WORDS[MARKERS[kind]]}"
    if (line := arm["line"]) is not None:
        counts = line["images"]
        x = np.array([n if times is None else times.hours(n, n * arm["boxes"]) for n in counts])
        y, end = np.array(line["figure"]), line["measured"]
        band = x, np.array(line["low"]), np.array(line["high"])
        yield Curve("", position, x[end - 1 :], y[end - 1 :], dashed=True)
        yield Curve(name, position, x[:end], y[:end], dashed=False, band=band)
        name = ""
    at = [
        each["grown"] * _APART[kind]
        if times is None
        else times.hours(each["images"], each["boxes"])
        for each in points
    ]
    x = np.repeat(at, 3)
    x[2::3] = np.nan
    y = np.array([value for each in points for value in (*each["ends"], np.nan)])
    marks = tuple(
        Point(place, each["figure"], each["words"], MARKERS[kind])
        for place, each in zip(at, points, strict=True)
    )
    yield Curve(name, position, x, y, marks, faint=True, dashed=False)


def figure_axis(drawn: Iterable[Mapping[str, Any]], metric: str) -> Axis:
    """The axis of a metric, the same in both charts: around every interval and fitted curve."""
    ends: list[float] = []
    for arm in drawn:
        ends += [end for each in arm["points"] for end in (each["figure"], *each["ends"])]
        ends += arm["line"]["figure"] if arm["line"] else []
    low, high = max(0.0, min(ends)), min(1.0, max(ends))
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 1.0) if (high - low) / s <= 6)
    first, last = round(np.floor(low / step)), round(np.ceil(high / step))
    ticks = [round(n * step, 2) for n in range(first, max(last, first + 1) + 1)]
    words = tuple((tick, f"{tick:.{2 if step < 0.1 else 1}f}") for tick in ticks)
    return Axis(metric_title(metric), words, ticks[0], ticks[-1])


def log_axis(title: str, values: Iterable[float]) -> Axis:
    """An axis around some numbers above 0; ticks at 1, 2 and 5 times the powers of ten."""
    held = list(values)
    low, high = min(held) / 1.15, max(held) * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low <= 100 else (1,)
    every = [step * 10.0**decade for decade in decades for step in steps]
    ticks = tuple((tick, _tick(tick)) for tick in every if low <= tick <= high)
    return Axis(title, ticks, low, high, "log")


def _tick(value: float) -> str:
    """A tick in words.

    Example:
        >>> _tick(0.05), _tick(2.0), _tick(2000.0)
        ('0.05', '2', '2,000')
    """
    return f"{value:,.0f}" if value >= 1 else f"{value:.6f}".rstrip("0")
