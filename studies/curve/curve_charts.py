"""Charts of a learning-curve study: a metric against images and against annotation time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.study_page import Axis, Chart, Curve, Point, figure_text
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.studies.curve import curve_sentences
from cxr_compare.studies.curve.curve_study import KINDS, MAIN, CurveStudy, Kind, SizePoint
from cxr_compare.studies.curve.learning_curve import LearningCurve

MARKERS: Mapping[Kind, str] = {"detector": "s", "classifier": ".", "mixed": "D"}
"""Matplotlib's marker of each model."""


_MARKER_WORDS = {"s": "squares", ".": "dots", "D": "diamonds"}


_CROSSING = 3  # position whose colour marks the crossing; no model has this position


_CROSSING_MARKER = "P"


_STEPS = 24


_APART: Mapping[Kind, float] = {"detector": 1.0, "classifier": 1 / 1.03, "mixed": 1.03}
"""Factor by which a model's points are shifted, so that points of equal size stay visible."""


def curve_chart(study: CurveStudy, metric: str) -> Chart:
    """Draw learning curves: a metric against annotated training images.

    Args:
        study: Result of a learning-curve study: performance of models that were trained on growing
            shares of the training data.
        metric: Short name of the metric, such as ``auroc``; at least one model must have it.

    Returns:
        The chart, with one point for each model and size, the 95 % intervals and the fitted curves.

    Example:
        >>> from cxr_compare.studies.curve.curve_study import CurveModel, SizeFigure
        >>> figure = SizeFigure(Interval(0.8, 0.7, 0.9))
        >>> point = SizePoint("detector", 1.0, 100, 40, 100, 30, {"auroc": figure})
        >>> model = CurveModel("detector", "RetinaNet")
        >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [model], [point])
        >>> curve_chart(study, "auroc").key
        'auroc-images'
    """
    drawn = drawn_models(study, metric)
    curves = [curve for model in drawn for curve in _curves(model)]
    values = [x for curve in curves for x in curve.x if np.isfinite(x)]
    title = metric_title(metric)
    has_mixed = any(model["kind"] == "mixed" for model in drawn)
    across = curve_sentences.chart_axis(has_mixed)
    return Chart(
        key=f"{metric.replace('_', '-')}-images",
        title=f"{title} against annotated images",
        x=Axis.log(across, min(values) / 1.15, max(values) * 1.15),
        y=_figure_axis(drawn, metric),
        curves=(*curves, *_crossing(study, metric)),
        description=f"{title} against annotated images; the table below has the figures.",
        note=_overlap(study, metric),
    )


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


def _crossing(study: CurveStudy, metric: str) -> Iterator[Curve]:
    """Draw a crossing that is shown, with its interval, at the height at which the curves cross."""
    where = study.crossing(metric)
    if where is None or not where.shown or where.effort is None or where.interval is None:
        return
    curve = study.fitted(metric, MAIN[0])
    if curve is None:
        return
    height = float(curve.at(where.effort).values[0])
    x = np.array(where.interval)
    point = Point(where.effort, height, curve_sentences.CROSSING_POINT, _CROSSING_MARKER)
    yield Curve("crossing with interval", _CROSSING, x, np.full(2, height), (point,), solid=True)


def drawn_models(study: CurveStudy, metric: str) -> list[dict[str, Any]]:
    """Collect the points and the fitted curve of each model, to draw them on the result page.

    Args:
        study: Result of a learning-curve study: performance of models that were trained on growing
            shares of the training data.
        metric: Short name of the metric, such as ``auroc``.

    Returns:
        One dictionary for each model that has the metric, with the keys ``kind`` (such as
        ``detector``), ``position`` (number of the model's colour, from 0), ``points`` (one for
        each size) and ``line`` (parameters of the curve; None without a fitted curve).

    Example:
        >>> from cxr_compare.studies.curve.curve_study import CurveModel, SizeFigure
        >>> figure = SizeFigure(Interval(0.8, 0.7, 0.9))
        >>> point = SizePoint("detector", 1.0, 100, 40, 100, 30, {"auroc": figure})
        >>> model = CurveModel("detector", "RetinaNet")
        >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [model], [point])
        >>> drawn_models(study, "auroc")[0]["points"][0]["figure"]
        0.8
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
                "position": list(KINDS).index(model.kind),
                "points": [_point(point, metric) for point in points],
                "line": None if fit is None else _line(fit),
            }
        )
    return drawn


def _point(point: SizePoint, metric: str) -> dict[str, Any]:
    figure = point.figures[metric].interval
    label = curve_sentences.point(
        KINDS[point.kind],
        point.n_images,
        point.n_boxes,
        metric_title(metric),
        figure_text(figure),
    )
    ends = [figure.ci_low, figure.ci_high] if figure.bounded else [figure.estimate] * 2
    return {
        "grown": point.n_grown,
        "figure": figure.estimate,
        "ends": ends,
        "label": label,
    }


def _line(curve: LearningCurve) -> dict[str, Any]:
    """Return a fitted curve from the fewest to the most measured images."""
    images = np.geomspace(curve.amounts[0], curve.amounts[-1], _STEPS)
    band = curve.at(images)
    rows = np.round(np.stack([images, band.values, band.low, band.high]), 5).tolist()
    return dict(zip(("images", "figure", "low", "high"), rows, strict=True))


def _curves(model: Mapping[str, Any]) -> Iterator[Curve]:
    """Draw the fit within the measured range, and the points with their intervals."""
    kind = model["kind"]
    position = model["position"]
    points = model["points"]
    name = f"{KINDS[kind]}, {_MARKER_WORDS[MARKERS[kind]]}"
    if (line := model["line"]) is not None:
        x = np.array(line["images"])
        y, low, high = (np.array(line[end]) for end in ("figure", "low", "high"))
        yield Curve(name, position, x, y, solid=True, band=(x, low, high))
        name = ""
    at = [point["grown"] * _APART[kind] for point in points]
    marks = [
        Point(across, point["figure"], point["label"], MARKERS[kind])
        for across, point in zip(at, points, strict=True)
    ]
    yield Curve.from_points(name, position, marks, (point["ends"] for point in points), faint=True)


def _figure_axis(drawn: Iterable[Mapping[str, Any]], metric: str) -> Axis:
    """Return the axis of a metric around every interval and fitted curve."""
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
    labels = tuple((tick, f"{tick:.{2 if step < 0.1 else 1}f}") for tick in ticks)
    return Axis(metric_title(metric), labels, ticks[0], ticks[-1])
