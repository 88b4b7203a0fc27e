"""The page of `cxr curve`: what boxes buy, by images and by time, with figure and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.metric import DASH, listing, p_words
from cxr_compare.evaluation.metrics.registry import METRICS, metric_title
from cxr_compare.evaluation.report.files import study_files
from cxr_compare.evaluation.report.page import Table, figure_words
from cxr_compare.evaluation.report.plot import (
    Axis,
    Chart,
    Curve,
    Point,
    draw_with_legend,
    save_figure,
    to_svg,
)
from cxr_compare.evaluation.statistics.bootstrap import Interval
from cxr_compare.evaluation.statistics.learning_curve import LearningCurve
from cxr_compare.evaluation.studies.curve_results import (
    AS_GIVEN,
    KINDS,
    MAIN,
    PRESETS,
    WORDS,
    CurveStudy,
    Kind,
    SizePoint,
    Times,
    amount_words,
    arm_against,
    curve_statements,
    title_in_sentence,
)
from cxr_compare.evaluation.studies.study_page import Statement, StudyPage, write_study

PAGE = "curve.html"
STORED = "curve.json"
_FIGURE = "curve.png"
FILES = study_files("curve") | {f"curve.{kind}" for kind in ("png", "pdf", "svg")}
"""What `write_curve` writes, for those who refuse a folder with anything else."""


_MARKERS: Mapping[Kind, str] = {"detector": "s", "classifier": ".", "mixed": "D"}
_MARKER_WORDS = {"s": "squares", ".": "dots", "D": "diamonds"}
_CROSSING = 3  # its colour, which no arm has
_CROSSING_MARKER = "P"
_STEPS = 24
_APART: Mapping[Kind, float] = {"detector": 1.0, "classifier": 1 / 1.03, "mixed": 1.03}
"""Arms with as many images are drawn a little apart, else one hides the other."""


def write_curve(study: CurveStudy, out: Path) -> Path:
    """Write table, JSON, the figure as PNG, PDF and SVG and, last, the page, which is returned."""
    rows = list(_tidy(study))
    said = {metric: list(curve_statements(study, metric)) for metric in study.metrics}
    if study.metrics:
        metric = study.metrics[0]
        charts = _draw(study, metric), _draw(study, metric, study.times)
        figure = draw_with_legend(charts[0], [], charts[1])
        if (legend := figure.axes[0].get_legend()) is not None:
            legend.set_title(charts[0].note)
        save_figure(figure, out / _FIGURE)
    html = _page(study, said).render("curve.html.jinja", **_own_parts(study, said))
    return write_study(out, "curve", rows, _stored(study, rows, said), html)


def _tidy(study: CurveStudy) -> Iterator[dict[str, Any]]:
    """A row an arm, size and metric."""
    for arm in study.arms:
        for point in study.sizes(arm.kind):
            for metric, figure in point.figures.items():
                yield {
                    "arm": arm.kind,
                    "share": point.share,
                    "n_images": point.n_images,
                    "n_boxes": point.n_boxes,
                    "n_boxed": point.n_boxed,
                    "n_positive": point.n_positive,
                    "hours": study.times.hours(point.n_images, point.n_boxes),
                    "metric": metric,
                    **figure.interval.to_dict(),
                    "note": figure.interval.note,
                    **{f"seed_{at}": value for at, value in enumerate(figure.seeds)},
                }


def _stored(
    study: CurveStudy, rows: list[dict[str, Any]], said: Mapping[str, list[Statement]]
) -> dict[str, Any]:
    """All of the study, for programs."""
    differences = [
        {
            "metric": metric,
            "first": first,
            "second": second,
            "n_images": row.n_images,
            **row.gap.to_dict(),
            "p_holm": row.p_value,
            "shown": row.shown,
        }
        for metric in study.metrics
        for first, second in study.pairs(metric)
        for row in study.compared(metric, first, second)
    ]
    curves = [
        {
            "metric": metric,
            "arm": kind,
            "line": curve.line,
            "reason": curve.reason,
            "measured": curve.amounts,
            "lack_of_fit": curve.lack_of_fit,
            "seeds": curve.seeds,
            "left_out": curve.left_out,
            "draws": curve.draws,
        }
        for metric, arms in study.fits.items()
        for kind, curve in arms.items()
    ]
    return {
        "data_set": study.data_set,
        "target": study.target,
        "folds": list(study.folds),
        "n_seeds": study.n_seeds,
        "arms": [vars(arm) for arm in study.arms],
        "findings": {metric: [vars(statement) for statement in of] for metric, of in said.items()},
        "points": rows,
        "differences": differences,
        "absent": [{"metric": m, "arm": a, "reason": why} for (m, a), why in study.absent.items()],
        "curves": curves,
        "crossings": [row for metric in study.metrics for row in _crossings(study, metric)],
        "times": vars(study.times),
        "commands": list(study.commands),
        "notes": list(study.notes),
        "provenance": dict(study.provenance),
    }


def _crossings(study: CurveStudy, metric: str) -> Iterator[dict[str, Any]]:
    """By images and by seconds; JSON knows no infinity, so an open end is null."""
    for by, times in (("images", None), ("seconds", study.times)):
        where = study.crossing(metric, times)
        if where is not None:
            ends = [_finite(end) for end in where.interval or (None, None)]
            yield {
                "metric": metric,
                "by": by,
                "at": _finite(where.effort),
                "low": ends[0],
                "high": ends[1],
                "ahead": where.ahead,
                "measured": where.measured,
                "shown": where.shown,
                "reason": where.reason,
            }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _page(study: CurveStudy, said: Mapping[str, list[Statement]]) -> StudyPage:
    first = said[study.metrics[0]] if study.metrics else []
    differences = [statement for statement in first if statement.about == "difference"]
    folds = counted(len(study.folds), "fold")
    seeds = counted(study.n_seeds, "seed")
    return StudyPage(
        title=f"What do boxes buy? {study.target} on {study.data_set}",
        kicker=f"What do boxes buy? · {study.target} on {study.data_set} · {folds}, {seeds}",
        answer=differences[0].text if differences else "No two arms were compared",
        scope=list(_scope(study)),
        statements=[statement for statement in first if statement.about in ("images", "time")],
        notes=[*study.notes, *_cautions(study)],
        provenance=study.provenance,
        skip_to="curves",
    )


def _own_parts(study: CurveStudy, said: Mapping[str, list[Statement]]) -> dict[str, Any]:
    """What the template of this page shows besides the frame."""
    titles = [metric_title(metric) for metric in study.metrics]
    return {
        "study": study,
        "first": study.metrics[0] if study.metrics else "",
        "metrics": [_of_metric(study, metric, said[metric]) for metric in study.metrics],
        "legend": [
            (list(KINDS).index(arm.kind), _MARKERS[arm.kind], KINDS[arm.kind], arm)
            for arm in study.arms
        ],
        "columns": ["Annotated by", "Images", "Positive", "Boxed", "Boxes", "Hours", *titles],
        "rows": list(_rows(study)),
        "hours": study.hours_at_hand,
        "presets": [study.times, *(times for times in PRESETS if times != study.times)],
        "script": _for_script(study),
    }


def _scope(study: CurveStudy) -> Iterator[str]:
    """How many comparisons, and what counts as shown."""
    if sizes := len({difference.share for difference in study.differences}):
        yield (
            f"{counted(len(study.differences), 'comparison')} in all. Shown: the 95 % interval "
            "leaves 0 out, and p is below 0.05 after Holm over "
            f"{counted(sizes, 'size')}. Not shown is not the same as none."
        )


def _cautions(study: CurveStudy) -> Iterator[str]:
    if study.n_seeds == 1:
        yield (
            "One training for each arm, size and fold: intervals do not hold how another training "
            "would differ, and no crossing is shown."
        )
    if len(study.metrics) > 1:
        first, *others = (metric_title(metric) for metric in study.metrics)
        yield (
            f"p-values are corrected over the sizes of two arms and a metric, not over pairs of "
            f"arms, nor over {len(study.metrics)} metrics: {first} was named first, "
            f"{listing(others)} are beside it."
        )
    yield (
        "Seconds a label or a box that were not given to the command come from others' "
        "measurements, most not of radiologists: put your own in their place."
        if set(study.times.sources) - {AS_GIVEN}
        else "Seconds a label and seconds a box are as given to the command."
    )


def _of_metric(study: CurveStudy, metric: str, said: list[Statement]) -> dict[str, Any]:
    charts = [_draw(study, metric), _draw(study, metric, study.times)]
    return {
        "name": metric,
        "title": metric_title(metric),
        "meaning": METRICS[metric].meaning,
        "findings": said,
        "charts": [(chart, to_svg(chart)) for chart in charts],
        "differences": _differences(study, metric),
    }


def _differences(study: CurveStudy, metric: str) -> Table | None:
    pairs = {pair: study.compared(metric, *pair) for pair in study.pairs(metric)}
    sizes = sorted({row.n_images for rows in pairs.values() for row in rows})
    lines = []
    for size in sizes:
        cells = [f"{size:,.0f}"]
        for rows in pairs.values():
            held = next((row for row in rows if row.n_images == size), None)
            if held is None:
                cells += ["", ""]
            else:
                shown = ": shown" if held.shown else ""
                cells += [figure_words(held.gap), p_words(held.p_value) + shown]
        lines.append(tuple(cells))
    if not lines:
        return None
    heads = [
        title
        for first, second in pairs
        for title in (f"{KINDS[first].capitalize()} − {arm_against(first, second)}", "p, Holm")
    ]
    title = f"Differences in {metric_title(metric)}"
    boxed = " (mixed arm: boxed)" if any("mixed" in pair for pair in pairs) else ""
    return Table.of(title, "", (f"Annotated images{boxed}", *heads), tuple(lines))


def _rows(study: CurveStudy) -> Iterator[dict[str, Any]]:
    """The points for the table, arm by arm."""
    for arm in study.arms:
        for point in study.sizes(arm.kind):
            counts = point.n_images, point.n_positive, point.n_boxed, point.n_boxes
            yield {
                "position": list(KINDS).index(arm.kind),
                "arm": KINDS[arm.kind],
                "counts": [f"{count:,.0f}" for count in counts],
                "images": point.n_images,
                "boxes": point.n_boxes,
                "hours": amount_words(study.times.hours(point.n_images, point.n_boxes), "time"),
                "figures": [_figure_cell(study, point, metric) for metric in study.metrics],
            }


def _figure_cell(study: CurveStudy, point: SizePoint, metric: str) -> str:
    if (figure := point.figures.get(metric)) is not None:
        return figure_words(figure.interval)
    reason = study.absent.get((metric, point.kind))
    return f"{DASH} ({reason})" if reason else DASH


def _for_script(study: CurveStudy) -> dict[str, Any]:
    """What the script draws and says again when somebody changes the times."""
    metrics = {}
    for metric in study.metrics:
        y = _draw(study, metric).y
        curves = [study.fitted(metric, kind) for kind in MAIN]
        metrics[metric] = {
            "title": metric_title(metric),
            "name": title_in_sentence(metric),
            "arms": _drawn_arms(study, metric),
            "y": {"low": y.low, "high": y.high, "ticks": y.ticks},
            "unclaimed": study.unclaimed(metric),
            "never": study.never_crossing(metric),
            "pair": [
                {
                    "kind": kind,
                    "boxes": study.boxes_per_image(kind),
                    "line": curve.line,
                    "draws": curve.draws.tolist(),
                    "measured": [curve.amounts[0], curve.amounts[-1]],
                }
                for kind, curve in zip(MAIN, curves, strict=True)
                if curve is not None
            ],
        }
    return {"metrics": metrics, "words": WORDS, "times": vars(study.times)}


def _draw(study: CurveStudy, metric: str, times: Times | None = None) -> Chart:
    """A metric against annotated images, or against hours of annotation."""
    drawn = _drawn_arms(study, metric)
    unit = "images" if times is None else "hours"
    curves = [curve for arm in drawn for curve in _curves(arm, times)]
    values = [x for curve in curves for x in curve.x if np.isfinite(x)]
    title = metric_title(metric)
    across = "Annotated images" if times is None else "Annotation time, hours"
    if times is None and any(arm["kind"] == "mixed" for arm in drawn):
        across += f" ({KINDS['mixed']}: with boxes)"
    return Chart(
        key=f"{metric.replace('_', '-')}-{unit}",
        title=f"{title} against {'annotated images' if times is None else 'annotation time'}",
        x=Axis.log(across, min(values) / 1.15, max(values) * 1.15),
        y=_figure_axis(drawn, metric),
        curves=(*curves, *_crossing(study, metric, times)),
        description=f"{title} against {unit} of annotation; the table below holds the figures.",
        note=_overlap(study, metric),
    )


def _overlap(study: CurveStudy, metric: str) -> str:
    """What the picture says where the arms' intervals overlap at every size; else nothing."""
    ends: dict[float, list[Interval]] = {}
    for point in study.points:
        if (figure := point.figures.get(metric)) is not None and figure.interval.bounded:
            ends.setdefault(point.share, []).append(figure.interval)
    apart = [max(i.low for i in each) > min(i.high for i in each) for each in ends.values()]
    if any(apart) or max(map(len, ends.values()), default=1) == 1:
        return ""
    return "95 % intervals overlap at every size; whether arms differ, the differences say."


def _crossing(study: CurveStudy, metric: str, times: Times | None) -> Iterator[Curve]:
    """A crossing that is shown, with its interval, at the height where the curves cross."""
    where = study.crossing(metric, times)
    if where is None or not where.shown or where.effort is None or where.interval is None:
        return
    curve = study.fitted(metric, MAIN[0])
    cost = study.seconds_per_image(MAIN[0], times)
    if curve is None:
        return
    scale = 1 if times is None else 3600
    height = float(curve.at(where.effort / cost).values[0])
    x = np.array(where.interval) / scale
    point = Point(where.effort / scale, height, "where the fitted curves cross", _CROSSING_MARKER)
    yield Curve("crossing with interval", _CROSSING, x, np.full(2, height), (point,), solid=True)


def _drawn_arms(study: CurveStudy, metric: str) -> list[dict[str, Any]]:
    """What the charts of a metric are drawn from, for JSON: of each arm its points and its fit."""
    drawn = []
    for arm in study.arms:
        points = [p for p in study.sizes(arm.kind) if metric in p.figures]
        if not points:
            continue
        fit = study.fitted(metric, arm.kind)
        drawn.append(
            {
                "kind": arm.kind,
                "position": list(KINDS).index(arm.kind),
                "boxes": study.boxes_per_image(arm.kind),
                "points": [_point(point, metric) for point in points],
                "line": None if fit is None else _line(fit),
            }
        )
    return drawn


def _point(point: SizePoint, metric: str) -> dict[str, Any]:
    figure = point.figures[metric].interval
    words = (
        f"{KINDS[point.kind]} with {point.n_images:,.0f} images and {point.n_boxes:,.0f} boxes: "
        f"{metric_title(metric)} {figure_words(figure)}"
    )
    ends = [figure.low, figure.high] if figure.bounded else [figure.estimate] * 2
    return {
        "images": point.n_images,
        "boxes": point.n_boxes,
        "grown": point.n_grown,
        "figure": figure.estimate,
        "ends": ends,
        "words": words,
    }


def _line(curve: LearningCurve) -> dict[str, Any]:
    """A fitted curve, from the fewest images that were measured to the most."""
    images = np.geomspace(curve.amounts[0], curve.amounts[-1], _STEPS)
    band = curve.at(images)
    rows = np.round(np.stack([images, band.values, band.low, band.high]), 5).tolist()
    return dict(zip(("images", "figure", "low", "high"), rows, strict=True))


def _curves(arm: Mapping[str, Any], times: Times | None) -> Iterator[Curve]:
    """The fit within what was measured, and the points with their intervals."""
    kind = arm["kind"]
    position = arm["position"]
    points = arm["points"]
    name = f"{KINDS[kind]}, {_MARKER_WORDS[_MARKERS[kind]]}"
    if (line := arm["line"]) is not None:
        counts = line["images"]
        x = np.array([n if times is None else times.hours(n, n * arm["boxes"]) for n in counts])
        y, low, high = (np.array(line[end]) for end in ("figure", "low", "high"))
        yield Curve(name, position, x, y, solid=True, band=(x, low, high))
        name = ""
    at = [
        point["grown"] * _APART[kind]
        if times is None
        else times.hours(point["images"], point["boxes"])
        for point in points
    ]
    marks = [
        Point(across, point["figure"], point["words"], _MARKERS[kind])
        for across, point in zip(at, points, strict=True)
    ]
    yield Curve.of_points(name, position, marks, (point["ends"] for point in points), faint=True)


def _figure_axis(drawn: Iterable[Mapping[str, Any]], metric: str) -> Axis:
    """The axis of a metric, the same in both charts: around every interval and fitted curve."""
    ends: list[float] = []
    for arm in drawn:
        ends += [end for point in arm["points"] for end in (point["figure"], *point["ends"])]
        ends += arm["line"]["figure"] if arm["line"] else []
    low = max(0.0, min(ends))
    high = min(1.0, max(ends))
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 1.0) if (high - low) / s <= 6)
    first = round(np.floor(low / step))
    last = round(np.ceil(high / step))
    ticks = [round(n * step, 2) for n in range(first, max(last, first + 1) + 1)]
    words = tuple((tick, f"{tick:.{2 if step < 0.1 else 1}f}") for tick in ticks)
    return Axis(metric_title(metric), words, ticks[0], ticks[-1])
