"""Charts of a learning-curve study: a metric against images and against annotation time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.study_page import (
    add_legend,
    draw_band,
    line_style,
    log_axis,
    marker_style,
    new_chart,
)
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.studies.curve import curve_sentences
from cxr_compare.studies.curve.curve_study import KINDS, MAIN, CurveStudy, Kind, SizePoint
from cxr_compare.studies.curve.learning_curve import LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS: Mapping[Kind, str] = {"detector": "s", "classifier": ".", "mixed": "D"}


_CROSSING = 3  # position whose colour marks the crossing; no model has this position


_STEPS = 24


_APART: Mapping[Kind, float] = {"detector": 1.0, "classifier": 1 / 1.03, "mixed": 1.03}
"""Factor by which a model's points are shifted, so that points of equal size stay visible."""


def curve_chart(study: CurveStudy, metric: str) -> Figure:
    """Draw learning curves: a metric, which a model must have, against annotated training images.

    There is one point for each model and size, with its 95 % interval, and the fitted curves.
    """
    drawn = drawn_models(study, metric)
    title = metric_title(metric)
    has_mixed = any(model["kind"] == "mixed" for model in drawn)
    figure, axes = new_chart(
        f"{title} against annotated images", curve_sentences.chart_axis(has_mixed), title
    )
    for model in drawn:
        _draw_model(axes, model)
    _draw_crossing(axes, study, metric)
    values = [_across(model, point) for model in drawn for point in model["points"]]
    values += [x for model in drawn if model["line"] for x in model["line"]["images"]]
    log_axis(axes, "x", min(values) / 1.15, max(values) * 1.15)
    _figure_axis(axes, drawn)
    add_legend(axes, _overlap(study, metric))
    return figure


def _overlap(study: CurveStudy, metric: str) -> str:
    """Return a note if the intervals of all models overlap at every size, else an empty text."""
    ends: dict[float, list[Interval]] = {}
    for point in study.points:
        if (figure := point.figures.get(metric)) is not None and figure.interval.bounded:
            ends.setdefault(point.share, []).append(figure.interval)
    apart = [
        max(interval.ci_low for interval in intervals)
        > min(interval.ci_high for interval in intervals)
        for intervals in ends.values()
    ]
    if any(apart) or max(map(len, ends.values()), default=1) == 1:
        return ""
    return curve_sentences.OVERLAP


def _draw_crossing(axes: Axes, study: CurveStudy, metric: str) -> None:
    """Draw a crossing that is shown, with its interval, at the height at which the curves cross."""
    where = study.crossing(metric)
    if where is None or not where.shown or where.effort is None or where.interval is None:
        return
    curve = study.fitted(metric, MAIN[0])
    if curve is None:
        return
    height = float(curve.at(where.effort).values[0])
    colour = line_style(_CROSSING)["color"]
    axes.plot(where.interval, [height, height], color=colour, linewidth=2.2)
    label = curve_sentences.CROSSING_POINT
    axes.plot([where.effort], [height], **marker_style("P", colour), label=label)


def drawn_models(study: CurveStudy, metric: str) -> list[dict[str, Any]]:
    """Collect the points and the fitted curve of each model, to draw them on the result page.

    One dictionary for each model that has the metric, with the keys ``kind`` (such as
    ``detector``), ``name``, ``position`` (number of the model's colour, from 0), ``points`` (one
    for each size) and ``line`` (parameters of the curve; None without a fitted curve).
    """
    drawn = []
    for model in study.models:
        points = [p for p in study.sizes(model.kind) if metric in p.figures]
        if not points:
            continue
        fit = study.fitted(metric, model.kind)
        drawn.append(
            {
                "kind": model.kind,
                "name": f"{KINDS[model.kind]}: {model.name}",
                "position": list(KINDS).index(model.kind),
                "points": [_point(point, metric) for point in points],
                "line": None if fit is None else _line(fit),
            }
        )
    return drawn


def _point(point: SizePoint, metric: str) -> dict[str, Any]:
    figure = point.figures[metric].interval
    ends = [figure.ci_low, figure.ci_high] if figure.bounded else [figure.estimate] * 2
    return {
        "grown": point.n_grown,
        "figure": figure.estimate,
        "ends": ends,
    }


def _line(curve: LearningCurve) -> dict[str, Any]:
    """Return a fitted curve from the fewest to the most measured images."""
    images = np.geomspace(curve.amounts[0], curve.amounts[-1], _STEPS)
    band = curve.at(images)
    rows = np.round(np.stack([images, band.values, band.low, band.high]), 5).tolist()
    return dict(zip(("images", "figure", "low", "high"), rows, strict=True))


def _across(model: Mapping[str, Any], point: Mapping[str, Any]) -> float:
    """Return where a point is drawn; models are a little apart."""
    return float(point["grown"] * _APART[model["kind"]])


def _draw_model(axes: Axes, model: Mapping[str, Any]) -> None:
    """Draw the fit within the measured range, and the points with their intervals."""
    position = model["position"]
    colour = line_style(position)["color"]
    marker = marker_style(_MARKERS[model["kind"]], colour)
    if (line := model["line"]) is not None:
        draw_band(axes, line["images"], line["low"], line["high"], position)
        axes.plot(line["images"], line["figure"], color=colour, linewidth=2.2)
    for point in model["points"]:
        across = _across(model, point)
        axes.plot([across, across], point["ends"], color=colour, linewidth=1)
        axes.plot([across], [point["figure"]], **marker)
    with_line = marker | ({"linestyle": "-", "linewidth": 2.2} if line is not None else {})
    axes.plot([], [], **with_line, label=model["name"])


def _figure_axis(axes: Axes, drawn: Iterable[Mapping[str, Any]]) -> None:
    """Let the y axis of a plot lie around every interval and fitted curve."""
    ends: list[float] = []
    for model in drawn:
        ends += [end for point in model["points"] for end in (point["figure"], *point["ends"])]
        ends += model["line"]["figure"] if model["line"] else []
    low = max(0.0, min(ends))
    high = min(1.0, max(ends))
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 1.0) if (high - low) / s <= 6)
    first = round(np.floor(low / step))
    last = round(np.ceil(high / step))
    ticks = [round(n * step, 2) for n in range(first, max(last, first + 1) + 1)]
    axes.set(ylim=(ticks[0], ticks[-1]))
    axes.set_yticks(ticks, [f"{tick:.{2 if step < 0.1 else 1}f}" for tick in ticks])
