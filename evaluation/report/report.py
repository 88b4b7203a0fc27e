"""Page of a report, ``report.html``: one self-contained file that begins with the answer.

A few figures, three examples, three charts and the cases are visible at once. Everything else is
folded. Each processor reads, draws and encodes one image at a time, and their number is limited, so
the size of the file and the memory do not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.labelled_images import GroundTruth
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.case_selection import CASES_PER_CATEGORY, disagreement
from cxr_compare.evaluation.report.chart_style import alt_text, image_source, save_chart
from cxr_compare.evaluation.report.curves import chart_facts, curve_table
from cxr_compare.evaluation.report.further_tables import further_tables
from cxr_compare.evaluation.report.gallery import draw_gallery
from cxr_compare.evaluation.report.latex_table import latex_table
from cxr_compare.evaluation.report.markdown_table import markdown_table
from cxr_compare.evaluation.report.methods import methods
from cxr_compare.evaluation.report.plots import chart_names, chart_note, draw, no_decision_curve
from cxr_compare.evaluation.report.report_tables import report_tables
from cxr_compare.evaluation.report.summary_table import TableRow
from cxr_compare.evaluation.report.system_cards import card_files, write_cards
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.tidy_tables import all_units
from cxr_compare.evaluation.report.unknown_patients import image_wording
from cxr_compare.evaluation.sources.pixels import Pixels

MAX_BYTES = 10_000_000


_STALE = f"{files.OVERLAYS}/*.png", f"{files.FIGURES}/*"


_MAIN_CHARTS = ("roc", "froc-iou", "calibration")


class PageChart(NamedTuple):
    """Chart of the page: its SVG file as the source of an image, with its texts."""

    source: str
    alt: str
    note: str


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
    curves: pd.DataFrame | None = None,
    facts: dict[str, Any] | None = None,
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
        curves: Result of `curve_table`, if it was computed before; None computes it.
        facts: Result of `chart_facts`, if it was computed before; None computes it.

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
    curves = curve_table(comparison) if curves is None else curves
    facts = chart_facts(comparison) if facts is None else facts
    charts = draw_charts(comparison, curves, facts, out / files.FIGURES)
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
    texts = {
        files.LATEX_TABLE: latex_table(comparison, tables["main"]),
        files.MARKDOWN_TABLE: markdown_table(comparison, tables["main"]),
        files.PAGE: render(
            "report.html.jinja",
            title=f"{' and '.join(comparison.systems)}: {finding}",
            finding=finding,
            data_name=labelled.title,
            examples=gallery.examples,
            gallery=gallery,
            **methods(comparison, labelled),
            **tables,
            forest=charts.pop("forest", None),
            without_decision_curve=no_decision_curve(facts),
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


def draw_charts(
    comparison: Comparison, curves: pd.DataFrame, facts: dict[str, Any], folder: Path
) -> dict[str, PageChart]:
    """Draw each chart once, write it as SVG and PDF, and return it for the page, by its name."""
    figures = all_units(comparison)
    charts = {}
    for name in chart_names(curves, facts):
        figure = draw(name, curves, figures, comparison.names, facts)
        svg, _ = save_chart(figure, folder / f"{name}.svg")
        note = chart_note(name, curves, facts)
        charts[name] = PageChart(image_source(svg.read_bytes()), alt_text(figure), note)
    return charts


def _content_without_images(comparison: Comparison, charts: dict[str, PageChart]) -> dict[str, Any]:
    """Return the content of the report's page but for its title, main tables and images."""
    # These are ROC, FROC and calibration; other charts replace those that are missing.
    curves = [name for name in charts if name != "confusion"]
    ranked = sorted(curves, key=lambda name: name not in _MAIN_CHARTS)
    first = sorted(ranked[: len(_MAIN_CHARTS)], key=curves.index)
    return {
        "cards": card_files(comparison.names),
        "verdict": comparison.answer,
        "notes": [note for note in comparison.notes if not (note.caution or note.about_decisions)],
        "derived": [note for note in comparison.notes if note.about_decisions],
        "main_charts": [charts[name] for name in first],
        "further_charts": [charts[name] for name in curves if name not in first],
        **further_tables(comparison),
    }
