"""The page and the files that `cxr curve` writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.evaluation.metrics.registry import METRICS, metric_title
from cxr_compare.evaluation.report.study_page import (
    ShownChart,
    Statement,
    StudyPage,
    Table,
    figure_text,
    save_chart,
    study_files,
    text_table,
    write_study,
)
from cxr_compare.evaluation.statistics.figure_text import DASH, p_value_text
from cxr_compare.studies.curve import curve_sentences
from cxr_compare.studies.curve.curve_charts import curve_chart
from cxr_compare.studies.curve.curve_statements import (
    curve_statements,
    model_against,
)
from cxr_compare.studies.curve.curve_study import KINDS, CurveStudy, SizePoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "curve.html"
"""Name of the page."""


STORED = "curve.json"
"""Name of the file with the results."""


_FIGURE = "curve.svg"


FILES = study_files("curve") | {f"curve.{kind}" for kind in ("pdf", "svg")}
"""Names of the files that `write_curve` writes; a folder with other files is refused."""


def write_curve(study: CurveStudy, out: Path) -> Path:
    """Write the result files of a learning-curve study, and return the path of its page.

    The files are ``curve.csv``, ``curve.json``, ``curve.svg`` and ``curve.pdf`` with the figure of
    the first metric, and, last, ``curve.html``.
    """
    rows = list(_tidy(study))
    statements = {metric: list(curve_statements(study, metric)) for metric in study.metrics}
    charts = {metric: curve_chart(study, metric) for metric in study.metrics}
    if charts:
        save_chart(charts[study.metrics[0]], out / _FIGURE)
    template = Path(__file__).with_name("curve.html.jinja")
    html = _page(study, statements).render(template, **_own_parts(study, statements, charts))
    return write_study(out, "curve", rows, _stored(study, rows, statements), html)


def _tidy(study: CurveStudy) -> Iterator[dict[str, Any]]:
    """Return one row for each model, size and metric."""
    for model in study.models:
        for point in study.sizes(model.kind):
            for metric, figure in point.figures.items():
                yield {
                    "model": model.kind,
                    "share": point.share,
                    "n_images": point.n_images,
                    "n_boxes": point.n_boxes,
                    "n_boxed": point.n_boxed,
                    "n_positive": point.n_positive,
                    "metric": metric,
                    **figure.interval.to_dict(),
                    "note": figure.interval.note,
                    **{f"seed_{at}": value for at, value in enumerate(figure.seeds)},
                }


def _stored(
    study: CurveStudy, rows: list[dict[str, Any]], statements: Mapping[str, list[Statement]]
) -> dict[str, Any]:
    """Return the content of ``curve.json``."""
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
            "model": kind,
            "line": curve.line,
            "reason": curve.reason,
            "measured": curve.amounts,
            "lack_of_fit": curve.lack_of_fit,
            "seeds": curve.seeds,
            "left_out": curve.left_out,
            "draws": curve.draws,
        }
        for metric, models in study.fits.items()
        for kind, curve in models.items()
    ]
    return {
        "data_set": study.data_set,
        "target": study.target,
        "folds": list(study.folds),
        "n_seeds": study.n_seeds,
        "models": [vars(model) for model in study.models],
        "findings": {
            metric: [vars(statement) for statement in metric_statements]
            for metric, metric_statements in statements.items()
        },
        "points": rows,
        "differences": differences,
        "absent": [
            {"metric": m, "model": a, "reason": why} for (m, a), why in study.absent.items()
        ],
        "curves": curves,
        "crossings": [row for metric in study.metrics for row in _crossings(study, metric)],
        "commands": list(study.commands),
        "notes": list(study.notes),
        "provenance": dict(study.provenance),
    }


def _crossings(study: CurveStudy, metric: str) -> Iterator[dict[str, Any]]:
    """Return the crossing by images; an infinite end is null in JSON."""
    where = study.crossing(metric)
    if where is not None:
        ends = [_finite(end) for end in where.interval or (None, None)]
        yield {
            "metric": metric,
            "by": "images",
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


def _page(study: CurveStudy, statements: Mapping[str, list[Statement]]) -> StudyPage:
    first = statements[study.metrics[0]] if study.metrics else []
    differences = [statement for statement in first if statement.about == "difference"]
    return StudyPage(
        title=curve_sentences.title(study.target, study.data_set),
        kicker=curve_sentences.kicker(
            study.target, study.data_set, len(study.folds), study.n_seeds
        ),
        answer=differences[0].text if differences else curve_sentences.NO_PAIR,
        scope=list(_scope(study)),
        statements=[statement for statement in first if statement.about == "images"],
        notes=[*study.notes, *_cautions(study)],
        provenance=study.provenance,
        skip_to="curves",
    )


def _own_parts(
    study: CurveStudy, statements: Mapping[str, list[Statement]], charts: Mapping[str, Figure]
) -> dict[str, Any]:
    """Return the values of this page's own template blocks."""
    titles = (metric_title(metric) for metric in study.metrics)
    columns = ("Annotated by", "Images", "Positive", "Boxed", "Boxes", *titles)
    return {
        "study": study,
        "first": study.metrics[0] if study.metrics else "",
        "metrics": [
            _of_metric(study, metric, statements[metric], charts[metric])
            for metric in study.metrics
        ],
        "points": text_table("All points", columns, _rows(study)),
        "kinds": list(KINDS.values()),
    }


def _scope(study: CurveStudy) -> Iterator[str]:
    """Return the number of comparisons, and the rule by which a difference is called shown."""
    sizes = len({difference.share for difference in study.differences})
    if sizes:
        yield curve_sentences.scope(len(study.differences), sizes)


def _cautions(study: CurveStudy) -> Iterator[str]:
    if study.n_seeds == 1:
        yield curve_sentences.ONE_SEED
    if len(study.metrics) > 1:
        first, *others = (metric_title(metric) for metric in study.metrics)
        yield curve_sentences.several_metrics(first, others)


def _of_metric(
    study: CurveStudy, metric: str, statements: list[Statement], chart: Figure
) -> dict[str, Any]:
    return {
        "name": metric,
        "title": metric_title(metric),
        "meaning": METRICS[metric].meaning,
        "findings": statements,
        "chart": ShownChart(chart),
        "differences": _differences(study, metric),
    }


def _differences(study: CurveStudy, metric: str) -> Table | None:
    pairs = {pair: study.compared(metric, *pair) for pair in study.pairs(metric)}
    sizes = sorted({row.n_images for rows in pairs.values() for row in rows})
    lines = []
    for size in sizes:
        cells = [f"{size:,.0f}"]
        for rows in pairs.values():
            size_row = next((row for row in rows if row.n_images == size), None)
            if size_row is None:
                cells += ["", ""]
            else:
                shown = ": shown" if size_row.shown else ""
                cells += [figure_text(size_row.gap), p_value_text(size_row.p_value) + shown]
        lines.append(tuple(cells))
    if not lines:
        return None
    heads = [
        title
        for first, second in pairs
        for title in (f"{KINDS[first].capitalize()} − {model_against(first, second)}", "p, Holm")
    ]
    title = f"Differences in {metric_title(metric)}"
    has_mixed = any("mixed" in pair for pair in pairs)
    return text_table(title, (curve_sentences.images_column(has_mixed), *heads), lines)


def _rows(study: CurveStudy) -> Iterator[tuple[str, ...]]:
    """Return the points for the table, model by model."""
    for model in study.models:
        for point in study.sizes(model.kind):
            counts = point.n_images, point.n_positive, point.n_boxed, point.n_boxes
            figures = (_figure_cell(study, point, metric) for metric in study.metrics)
            yield (KINDS[model.kind], *(f"{count:,.0f}" for count in counts), *figures)


def _figure_cell(study: CurveStudy, point: SizePoint, metric: str) -> str:
    if (figure := point.figures.get(metric)) is not None:
        return figure_text(figure.interval)
    reason = study.absent.get((metric, point.kind))
    return f"{DASH} ({reason})" if reason else DASH
