"""The page of `cxr curve`: what boxes buy, by images and by time, with figure and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.contracts.words import counted
from evaluation.metrics.registry import METRICS, metric_title
from evaluation.metrics.words import DASH, listing, number
from evaluation.report.plot import draw_with_legend, save_figure, to_svg
from evaluation.report.table import Table, figure_words
from evaluation.studies.curve_charts import MARKERS, draw, drawn_arms
from evaluation.studies.curve_results import (
    AS_GIVEN,
    KINDS,
    MAIN,
    PRESETS,
    WORDS,
    Compared,
    CurveStudy,
    SizePoint,
    Times,
    amount_words,
    arm_against,
    never_crossing,
    statements,
    title_in_sentence,
    unclaimed,
)
from evaluation.studies.study_page import Statement, StudyPage, study_files, write_study

PAGE, STORED, FIGURE = "curve.html", "curve.json", "curve.png"
FILES = study_files("curve") | {f"curve.{kind}" for kind in ("png", "pdf", "svg")}
"""What `write_curve` writes, for those who refuse a folder with anything else."""


def write_curve(study: CurveStudy, out: Path) -> Path:
    """Write ``curve.csv``, ``curve.json``, the figure as PNG, PDF and SVG, and last ``curve.html``.

    Args:
        study: What was measured and fitted.
        out: The folder; it exists.

    Returns:
        The page.
    """
    rows = list(_tidy(study))
    said = {metric: list(statements(study, metric)) for metric in study.metrics}
    if study.metrics:
        metric = study.metrics[0]
        charts = draw(study, metric), draw(study, metric, study.times)
        save_figure(draw_with_legend(charts[0], [], charts[1]), out / FIGURE)
    html = _page(study, said).render("curve.html.jinja", **_own_parts(study, said))
    return write_study(out, "curve", rows, _stored(study, rows, said), html)


def _tidy(study: CurveStudy) -> Iterator[dict[str, Any]]:
    """A row an arm, size and metric."""
    for arm in study.arms:
        for point in study.sizes(arm.kind):
            for metric, figure in point.figures.items():
                each = figure.interval
                yield {
                    "arm": arm.kind, "share": point.share, "n_images": point.n_images,
                    "n_boxes": point.n_boxes, "n_boxed": point.n_boxed,
                    "n_positive": point.n_positive,
                    "hours": study.times.hours(point.n_images, point.n_boxes),
                    "metric": metric, "estimate": _known(each.estimate), "low": _known(each.low),
                    "high": _known(each.high), "note": each.note,
                    **{f"seed_{at}": value for at, value in enumerate(figure.seeds)},
                }  # fmt: skip


def _known(value: float) -> float | None:
    return None if value != value else value


def _stored(
    study: CurveStudy, rows: list[dict[str, Any]], said: Mapping[str, list[Statement]]
) -> dict[str, Any]:
    """All of the study, for programs."""
    differences = [
        {"metric": metric, "first": first, "second": second, "n_images": each.n_images,
         "estimate": _known(each.gap.estimate), "low": _known(each.gap.low),
         "high": _known(each.gap.high), "p_holm": each.p_value, "shown": each.shown}
        for metric in study.metrics
        for first, second in study.pairs(metric)
        for each in study.compared(metric, first, second)
    ]  # fmt: skip
    curves = [
        {"metric": metric, "arm": kind, "line": curve.line, "reason": curve.reason,
         "measured": curve.amounts, "lack_of_fit": curve.lack_of_fit, "seeds": curve.seeds,
         "left_out": curve.left_out, "draws": curve.draws}
        for metric, arms in study.fits.items()
        for kind, curve in arms.items()
    ]  # fmt: skip
    return {
        "data_set": study.data_set,
        "target": study.target,
        "folds": list(study.folds),
        "n_seeds": study.n_seeds,
        "arms": [vars(arm) for arm in study.arms],
        "findings": {metric: [vars(each) for each in of] for metric, of in said.items()},
        "points": rows,
        "differences": differences,
        "absent": [{"metric": m, "arm": a, "reason": why} for (m, a), why in study.absent.items()],
        "curves": curves,
        "crossings": [each for metric in study.metrics for each in _crossings(study, metric)],
        "times": vars(study.times),
        "commands": list(study.commands),
        "notes": list(study.notes),
        "provenance": dict(study.provenance),
    }


def _crossings(study: CurveStudy, metric: str) -> Iterator[dict[str, Any]]:
    """By images and by seconds; JSON knows no infinity, so an open end is null."""
    for by, times in (("images", None), ("seconds", study.times)):
        found = study.crossing(metric, times)
        if found is not None:
            ends = [_finite(end) for end in found.interval or (None, None)]
            yield {"metric": metric, "by": by, "at": _finite(found.effort), "low": ends[0],
                   "high": ends[1], "ahead": found.ahead, "measured": found.measured,
                   "shown": found.shown, "reason": found.reason}  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _page(study: CurveStudy, said: Mapping[str, list[Statement]]) -> StudyPage:
    first = said[study.metrics[0]] if study.metrics else []
    differences = [statement for statement in first if statement.about == "difference"]
    folds, seeds = counted(len(study.folds), "fold"), counted(study.n_seeds, "seed")
    scope = _scope(study)
    return StudyPage(
        title=f"What do boxes buy? {study.target} on {study.data_set}",
        kicker=f"What do boxes buy? · {study.target} on {study.data_set} · {folds}, {seeds}",
        answer=differences[0].text if differences else _NO_ANSWER,
        scope=[scope] if scope else [],
        statements=[statement for statement in first if statement.about in ("images", "time")],
        notes=[*study.notes, *_cautions(study)],
        provenance=study.provenance,
        skip_to="curves",
    )


def _own_parts(study: CurveStudy, said: Mapping[str, list[Statement]]) -> dict[str, Any]:
    """What the template of this page shows besides the frame."""
    return {
        "study": study,
        "first": study.metrics[0] if study.metrics else "",
        "metrics": [_of_metric(study, metric, said[metric]) for metric in study.metrics],
        "legend": [
            (list(KINDS).index(arm.kind), MARKERS[arm.kind], KINDS[arm.kind], arm)
            for arm in study.arms
        ],
        "columns": _columns(study),
        "rows": list(_rows(study)),
        "hours": study.hours_at_hand,
        "presets": _presets(study),
        "script": _for_script(study),
    }


_NO_ANSWER = "No two arms were compared"


def _scope(study: CurveStudy) -> str:
    """How many comparisons, and what counts as shown."""
    sizes = len({each.share for each in study.differences})
    if not sizes:
        return ""
    count = len(study.differences)
    return (
        f"{counted(count, 'comparison')} in all. Shown: the 95 % interval leaves 0 out, and p is "
        f"below 0.05 after Holm over {counted(sizes, 'size')}. Not shown is not the same as none."
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
    charts = [draw(study, metric), draw(study, metric, study.times)]
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
    sizes = sorted({each.n_images for rows in pairs.values() for each in rows})
    lines = []
    for size in sizes:
        cells = [f"{size:,.0f}"]
        for rows in pairs.values():
            held = next((each for each in rows if each.n_images == size), None)
            cells += ["", ""] if held is None else [figure_words(held.gap), _p_words(held)]
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


def _p_words(found: Compared) -> str:
    if found.p_value is None:
        return DASH
    text = "< 0.001" if found.p_value < 0.001 else number(found.p_value)
    return f"{text}: shown" if found.shown else text


def _columns(study: CurveStudy) -> list[str]:
    titles = [metric_title(metric) for metric in study.metrics]
    return ["Annotated by", "Images", "Positive", "Boxed", "Boxes", "Hours", *titles]


def _rows(study: CurveStudy) -> Iterator[dict[str, Any]]:
    """The points for the table, arm by arm."""
    for arm in study.arms:
        for point in study.sizes(arm.kind):
            counts = point.n_images, point.n_positive, point.n_boxed, point.n_boxes
            yield {
                "position": list(KINDS).index(arm.kind),
                "arm": KINDS[arm.kind],
                "counts": [f"{each:,.0f}" for each in counts],
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


def _presets(study: CurveStudy) -> list[Times]:
    """The times as given first, then what others measured."""
    return [study.times, *(each for each in PRESETS if each != study.times)]


def _for_script(study: CurveStudy) -> dict[str, Any]:
    """What the script draws and says again when somebody changes the times."""
    metrics = {}
    for metric in study.metrics:
        y = draw(study, metric).y
        curves = [study.fitted(metric, kind) for kind in MAIN]
        metrics[metric] = {
            "title": metric_title(metric),
            "name": title_in_sentence(metric),
            "arms": drawn_arms(study, metric),
            "y": {"low": y.low, "high": y.high, "ticks": y.ticks},
            "unclaimed": unclaimed(study, metric),
            "never": never_crossing(study, metric),
            "pair": [
                {"kind": kind, "boxes": study.boxes_per_image(kind), "line": curve.line,
                 "draws": curve.draws.tolist(), "measured": [curve.amounts[0], curve.amounts[-1]]}
                for kind, curve in zip(MAIN, curves, strict=True)
                if curve is not None
            ],
        }  # fmt: skip
    return {"metrics": metrics, "words": WORDS, "times": vars(study.times)}
