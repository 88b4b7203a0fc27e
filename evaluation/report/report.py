"""Page of a report, ``report.html``: one self-contained file that begins with the answer.

A few figures, three examples, three charts and the cases are visible at once. Everything else is
folded. Each processor reads, draws and encodes one image at a time, and their number is limited, so
the size of the file and the memory do not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.evaluation.choose import not_tuned_text
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.labelled_images import GroundTruth
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.case_selection import CASES_PER_CATEGORY, disagreement
from cxr_compare.evaluation.report.chart import Chart
from cxr_compare.evaluation.report.charts import (
    chart_legend,
    cost_charts,
    policy_markers,
    report_charts,
    without_decision_curve,
)
from cxr_compare.evaluation.report.figure_files import save_figures, save_plate
from cxr_compare.evaluation.report.findings import page_findings
from cxr_compare.evaluation.report.further_tables import further_tables
from cxr_compare.evaluation.report.gallery import draw_gallery
from cxr_compare.evaluation.report.inline_svg import to_svg
from cxr_compare.evaluation.report.latex_table import latex_table
from cxr_compare.evaluation.report.markdown_table import markdown_table
from cxr_compare.evaluation.report.methods import methods
from cxr_compare.evaluation.report.report_tables import report_tables
from cxr_compare.evaluation.report.summary_table import TableRow
from cxr_compare.evaluation.report.system_cards import card_files, write_cards
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.unknown_patients import image_wording
from cxr_compare.evaluation.sources.pixels import Pixels

MAX_BYTES = 10_000_000


_STALE = f"{files.OVERLAYS}/*.png", f"{files.FIGURES}/*"


_MAIN_CHARTS = ("roc", "froc-iou", "calibration")


class _DrawnChart(NamedTuple):
    """Chart as SVG, with the samples and texts of its legend."""

    chart: Chart
    drawing: str
    legend: list[tuple[str, str]]


def write_report(
    comparison: Comparison,
    labelled: GroundTruth,
    pixels: Pixels | None,
    out: str | Path,
    *,
    seed: int = 0,
    cases: int = CASES_PER_CATEGORY,
    rows: Sequence[TableRow] = (),
    progress: Callable[..., None] | None = None,
    charts: Sequence[Chart] | None = None,
) -> Path:
    """Write the page ``report.html`` of a comparison, and the tables, figures and images beside it.

    The other files are ``table.tex``, ``table.md``, ``figures/``, ``cards/`` with a description of
    each model, and ``overlays/`` with drawn images. A report without pixels shows no images.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        labelled: Labels, roles, true boxes and facts of all images.
        pixels: Reader of the pixels; None if there are no image files.
        out: Folder of the report; it is made if necessary.
        seed: Random seed for drawing some of the images that all systems decide rightly.
        cases: Largest number of example images of each kind of outcome, such as misses.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual metrics.
        progress: Function without arguments, called once for each drawn image; None for no such
            call.
        charts: Result of `report_charts`, if it was computed before; None computes it.

    Returns:
        Path of ``report.html``.

    Raises:
        ValueError: The page would be larger than 10 MB.
    """
    out = Path(out)
    make_folder(out / files.FIGURES)
    for pattern in _STALE:
        for stale in out.glob(pattern):
            stale.unlink()  # a file of an earlier report need not belong to this one
    charts = report_charts(comparison) if charts is None else charts
    finding = comparison.display_name
    gallery = draw_gallery(
        comparison,
        labelled,
        pixels,
        out / files.OVERLAYS,
        disagreement(comparison.decisions, comparison.names),
        per_category=cases,
        seed=seed,
        progress=progress,
    )
    tables = report_tables(comparison, rows)
    save_figures(
        out / files.FIGURES,
        forest=tables["forest"],
        charts=charts,
        markers=policy_markers(comparison.policies),
        confusion=_confusion_matrices(comparison),
    )
    if gallery.examples:
        drawn = [out / files.OVERLAYS / f"{case.anchor}.png" for _, case in gallery.examples]
        save_plate(out / files.FIGURES, drawn)
    texts = {
        files.LATEX_TABLE: latex_table(comparison, tables["main"]),
        files.MARKDOWN_TABLE: markdown_table(comparison, tables["main"]),
        files.PAGE: render(
            "report.html.jinja",
            title=f"{listing(list(comparison.systems))}: {finding}",
            finding=finding,
            data_name=labelled.title,
            examples=gallery.examples,
            gallery=gallery,
            **methods(comparison, labelled),
            **tables,
            **_content_without_images(comparison, charts),
        ),
    }
    write_cards(comparison, out)
    for name, text in texts.items():
        worded = text if comparison.patients_known else image_wording(text)
        size = len(worded.encode())
        if size > MAX_BYTES:
            raise ValueError(f"{name} would have {size:,} bytes; at most {MAX_BYTES:,} allowed")
        write_text(out / name, worded)
    return out / files.PAGE


def _confusion_matrices(
    comparison: Comparison,
) -> list[list[tuple[str, Mapping[str, int] | None]]]:
    """Return the title and counts of each confusion matrix: a row a system, a column a policy."""
    return [
        [
            (f"{name}\n{policy_text(policy)}", result.confusion.get(policy))
            for policy in comparison.policies
        ]
        for name, result in comparison.systems.items()
    ]


def _content_without_images(comparison: Comparison, charts: Sequence[Chart]) -> dict[str, Any]:
    """Return the content of the report's page but for its title, main tables and images."""
    # These are ROC, FROC and calibration; other charts replace those that are missing.
    ranked = sorted(charts, key=lambda chart: chart.key not in _MAIN_CHARTS)
    first = sorted(ranked[: len(_MAIN_CHARTS)], key=list(charts).index)
    further = [chart for chart in charts if chart not in first] + cost_charts(comparison)
    return {
        "cards": card_files(comparison.names),
        "verdict": comparison.answer,
        "findings": page_findings(comparison.answer, comparison.protocol, comparison.joint),
        "notes": [
            note
            for note in comparison.notes
            # The image-blind baseline is explained below the main figures.
            if not (note.caution or note.about_decisions or note.kind == "image_blind")
        ],
        "untuned": _untuned(comparison),
        "main_charts": _draw_charts(first, comparison),
        "further_charts": _draw_charts(further, comparison),
        "without_decision_curve": without_decision_curve(comparison),
        **further_tables(comparison),
    }


def _untuned(comparison: Comparison) -> str:
    """Say of which systems the thresholds were chosen during the comparison."""
    notes = [note for note in comparison.notes if note.about_decisions]
    names = [str((note.values or {})["system"]) for note in notes]
    return not_tuned_text(names) if names else ""


def _draw_charts(charts: Sequence[Chart], comparison: Comparison) -> list[_DrawnChart]:
    return [
        _DrawnChart(chart, to_svg(chart), chart_legend(chart, comparison.policies))
        for chart in charts
    ]
