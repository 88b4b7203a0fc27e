"""Page of a report, ``report.html``: one self-contained file that begins with the answer.

A few figures, three examples, three charts and the cases are visible at once. Everything else is
folded, and checklists and provenance are in ``details.html``. Each processor reads,
draws and encodes one image at a time, and their number is limited, so the size of the file and the
memory do not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import inside_sentence
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
from cxr_compare.evaluation.report.cost_table import cost_rows
from cxr_compare.evaluation.report.figure_files import save_figures, save_plate
from cxr_compare.evaluation.report.figure_process import figure_process
from cxr_compare.evaluation.report.further_tables import further_tables
from cxr_compare.evaluation.report.gallery import case_places, draw_galleries
from cxr_compare.evaluation.report.images_page import write_images_page
from cxr_compare.evaluation.report.inline_svg import to_svg
from cxr_compare.evaluation.report.label_error_chart import label_error_charts
from cxr_compare.evaluation.report.methods import UNKNOWN, methods
from cxr_compare.evaluation.report.model_card import card_files, write_cards
from cxr_compare.evaluation.report.paper_files import write_paper_files
from cxr_compare.evaluation.report.report_tables import report_tables
from cxr_compare.evaluation.report.summary_table import TableRow
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import CHARTS, TABLES, render, sentence
from cxr_compare.evaluation.report.threshold_exploration import exploration
from cxr_compare.evaluation.report.unknown_patients import image_wording

MAX_BYTES = 10_000_000


_STALE = f"{files.OVERLAYS}/*.png", files.CASES_PAGES, f"{files.FIGURES}/*", files.ARCHIVE


_MAIN_CHARTS = ("roc", "froc-iou", "calibration")


class _DrawnChart(NamedTuple):
    """Chart as SVG, with the samples and texts of its legend."""

    chart: Chart
    drawing: str
    legend: list[tuple[str, str]]


def write_report(
    comparison: Comparison,
    dataset: DataSet,
    out: str | Path,
    *,
    seed: int = 0,
    cases: int = CASES_PER_CATEGORY,
    rows: Sequence[TableRow] = (),
    thumbnails: int = files.MOST_THUMBNAILS,
    progress: Callable[..., None] | None = None,
    charts: Sequence[Chart] | None = None,
) -> Path:
    """Write the page ``report.html`` of a comparison, and the pages and figures that it links to.

    The other files are ``details.html``, ``cases-002.html`` and so on with further example images,
    ``images.html`` with all test images (and ``images.js``, ``thumbs/``), ``table.tex``,
    ``table.md``, ``checklists.md``, ``references.bib``, ``figures/``, ``cards/`` with a description
    of each model, and ``overlays/`` with drawn images. The report of a data set without pixels
    shows no images.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        dataset: The data set under evaluation, which has the pixels and facts about images.
        out: Folder of the report; it is made if necessary.
        seed: Random seed for drawing some of the images that all systems decide rightly.
        cases: Largest number of example images of each kind of outcome, such as misses.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual metrics.
        thumbnails: Largest number of small images on ``images.html``.
        progress: Function without arguments, called once for each drawn image; None for no such
            call.
        charts: Result of `report_charts`, if it was computed before; None computes it.

    Returns:
        Path of ``report.html``.

    Raises:
        ValueError: A page would be larger than 10 MB.
        InputError: The process that draws the figures was ended.
    """
    out = Path(out)
    make_folder(out / files.FIGURES)
    for pattern in _STALE:
        for stale in out.glob(pattern):
            stale.unlink()  # a file of an earlier report need not belong to this one
    charts = report_charts(comparison) if charts is None else charts
    finding = comparison.display_name
    title = f"{' and '.join(comparison.systems)}: {finding}"
    titles = {"title": title, "finding": finding, "data_name": dataset.name}
    gaps = disagreement(comparison.decisions, comparison.names)
    # A process draws the figures, and other threads draw the images. This thread makes the rest.
    with figure_process() as process, ThreadPoolExecutor(1, "images") as background:
        drawing = background.submit(
            draw_galleries,
            comparison,
            dataset,
            out / files.OVERLAYS,
            gaps,
            per_category=cases,
            seed=seed,
            progress=progress,
        )
        tables = report_tables(comparison, rows)
        about = sentence(
            "about", comparison.names, inside_sentence(finding), tables["counts"], template=CHARTS
        )
        saving = [
            process.submit(
                save_figures,
                out / files.FIGURES,
                about,
                forest=tables["forest"],
                charts=charts,
                markers=policy_markers(comparison.policies),
                confusion=_confusion_matrices(comparison),
            )
        ]
        method_texts = methods(comparison, dataset)
        write_paper_files(comparison, out, rows, method_texts)
        content = _content_without_images(comparison, charts)
        shown = titles | method_texts | tables | content
        pages = {files.DETAILS: _render_details(comparison, titles, method_texts)}
        galleries = drawing.result()
        if galleries[0].examples:
            examples = [
                out / files.OVERLAYS / f"{case.anchor}.png" for _, case in galleries[0].examples
            ]
            legend = [key.text for key in galleries[0].map_legend]
            saving.append(process.submit(save_plate, out / files.FIGURES, about, examples, legend))
        saving.append(
            background.submit(
                write_images_page,
                comparison,
                dataset,
                out,
                titles=titles,
                drawn=case_places(galleries),
                gaps=gaps,
                most=thumbnails,
                seed=seed,
                progress=progress,
            )
        )
        for gallery in galleries[1:]:
            name = gallery.pages[gallery.page - 1]
            pages[name] = render("cases.html.jinja", gallery=gallery, **titles)
        pages[files.PAGE] = render(
            "report.html.jinja", **shown, examples=galleries[0].examples, gallery=galleries[0]
        )
        write_cards(comparison, out)
        for written in saving:
            written.result()
    for name, html in pages.items():
        if not comparison.patients_known:
            html = image_wording(html)
        size = len(html.encode())
        if size > MAX_BYTES:
            raise ValueError(f"{name} would have {size:,} bytes; at most {MAX_BYTES:,} allowed")
        write_text(out / name, html)
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


def _without_repeats(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance, without versions of systems that equal those of the comparison."""

    def of_system(facts: dict[str, Any]) -> dict[str, Any]:
        versions = facts.get("versions")
        if versions is None or versions != provenance.get("versions"):
            return facts
        return facts | {"versions": "the same as for this comparison"}

    systems = provenance.get("systems", {})
    return provenance | {"systems": {name: of_system(facts) for name, facts in systems.items()}}


def _render_details(
    comparison: Comparison, titles: Mapping[str, str], method_texts: Mapping[str, Any]
) -> str:
    """Render the page with checklists, wrong labels and provenance as HTML."""
    return render(
        "details.html.jinja",
        **titles,
        checklists=method_texts["checklists"],
        unknown=UNKNOWN,
        wrong_labels=comparison.wrong_labels,
        label_charts=_draw_charts(label_error_charts(comparison), comparison),
        provenance=_without_repeats(comparison.provenance),
    )


def _content_without_images(comparison: Comparison, charts: Sequence[Chart]) -> dict[str, Any]:
    """Return the content of the report's page but for its title, main tables and images."""
    # These are ROC, FROC and calibration; other charts replace those that are missing.
    ranked = sorted(charts, key=lambda chart: chart.key not in _MAIN_CHARTS)
    first = sorted(ranked[: len(_MAIN_CHARTS)], key=list(charts).index)
    further = [chart for chart in charts if chart not in first]
    cost = Table.from_rows(
        sentence("costs_title", template=TABLES),
        "",
        ("", *comparison.names),
        cost_rows(comparison),
        len(comparison.names),
    )
    return {
        "details": files.DETAILS,
        "cards": card_files(comparison.names),
        "verdict": comparison.answer,
        "notes": [note for note in comparison.notes if not (note.caution or note.about_decisions)],
        "derived": [note for note in comparison.notes if note.about_decisions],
        "main_charts": _draw_charts(first, comparison),
        "further_charts": _draw_charts(further, comparison),
        "cost_charts": _draw_charts(cost_charts(comparison), comparison),
        "without_decision_curve": without_decision_curve(comparison),
        "exploration": exploration(comparison)[0],
        "cost": cost,
        **further_tables(comparison),
    }


def _draw_charts(charts: Sequence[Chart], comparison: Comparison) -> list[_DrawnChart]:
    return [
        _DrawnChart(chart, to_svg(chart), chart_legend(chart, comparison.policies))
        for chart in charts
    ]
