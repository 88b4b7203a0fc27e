"""Page of a report, ``report.html``: one self-contained file that begins with the answer.

A few figures, three examples, three charts and the cases are visible at once. Everything else is
folded. Each processor reads, draws and encodes one image at a time, and their number is limited, so
the size of the file and the memory do not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.own_parts import is_own_part
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.case_selection import CASES_PER_CATEGORY, disagreement
from cxr_compare.evaluation.report.chart_style import ShownChart, save_pages
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.failure_tables import disagreement_table, no_groups_text
from cxr_compare.evaluation.report.findings import page_findings
from cxr_compare.evaluation.report.gallery import draw_gallery
from cxr_compare.evaluation.report.methods import methods
from cxr_compare.evaluation.report.paper_tables import latex_table, markdown_table
from cxr_compare.evaluation.report.plots import chart_names, chart_note, draw, no_decision_curve
from cxr_compare.evaluation.report.report_tables import report_tables
from cxr_compare.evaluation.report.system_cards import card_files, carded_systems, write_cards
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.unknown_patients import image_wording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BYTES = 8_000_000


_STALE = f"{files.OVERLAYS}/*.png", f"{files.FIGURES}/*"


_MAIN_CHARTS = ("roc", "froc-iou", "scores")
_NOT_ON_THE_PAGE = ("confusion", "froc-centre")
"""Charts that are only files: the page has these counts in a table, and the FROC curve by overlap.
"""


def write_page(
    compared: Compared,
    out: Path,
    *,
    curves: pd.DataFrame,
    figures: pd.DataFrame,
    facts: dict[str, Any],
    own_charts: Mapping[str, Figure],
    progress: Callable[..., None] | None,
) -> dict[str, str]:
    """Write the page ``report.html``, and charts, cards, tables for a paper and images beside it.

    A report without pixels shows no images.

    Args:
        compared: The comparison, and what its images need.
        out: Folder of the report, which exists.
        curves: Table of all curves, as `curve_table` returns it.
        figures: Tidy table of all figures.
        facts: What charts need beside them, as `chart_facts` returns it.
        own_charts: Charts of the user's own, by ``MODULE:NAME``.
        progress: Function without arguments, called once for each drawn image; None for no such
            call.

    Returns:
        File name of the drawn version of each example image in the folder ``overlays``, by image
        id.

    Raises:
        ValueError: The page would be larger than 8 MB.
    """
    comparison = compared.comparison
    labelled = compared.truth
    rows = compared.rows
    make_folder(out / files.FIGURES)
    for pattern in _STALE:
        for stale in out.glob(pattern):
            stale.unlink()  # a file of an earlier report need not belong to this one
    charts = _draw_charts(comparison, curves, figures, facts, out / files.FIGURES, own_charts)
    finding = comparison.display_name
    gallery = draw_gallery(
        comparison,
        labelled,
        compared.pixels,
        out / files.OVERLAYS,
        disagreement(comparison.decisions, comparison.names),
        per_category=CASES_PER_CATEGORY,
        seed=compared.seed,
        progress=progress,
    )
    tables = report_tables(comparison, rows)
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
            no_groups=no_groups_text(labelled.test.images),
            disagreements=None if gallery.cases else disagreement_table(comparison),
            **methods(comparison, labelled),
            **tables,
            forest=charts.pop("forest", None),
            without_decision_curve=no_decision_curve(facts),
            **_content_without_images(comparison, charts),
        ),
    }
    write_cards(comparison, out)
    for name, text in texts.items():
        worded = text if comparison.patients_known else image_wording(text, comparison.names)
        size = len(worded.encode())
        if size > MAX_BYTES:
            raise ValueError(f"{name} would have {size:,} bytes; at most {MAX_BYTES:,} allowed")
        write_text(out / name, worded)
    return {case.image_id: f"{case.anchor}.png" for _, cases in gallery.cases for case in cases}


def _draw_charts(
    comparison: Comparison,
    curves: pd.DataFrame,
    figures: pd.DataFrame,
    facts: dict[str, Any],
    folder: Path,
    own_charts: Mapping[str, Figure],
) -> dict[str, ShownChart]:
    """Draw each chart once, write it as SVG and as a page of a PDF, and return it by its name."""
    drawn = {
        name: draw(name, curves, figures, comparison.names, facts)
        for name in chart_names(curves, facts)
    }
    save_pages([*drawn.values(), *own_charts.values()], folder / "charts.pdf")
    charts = {
        name: ShownChart(figure, chart_note(name, curves, facts)) for name, figure in drawn.items()
    }
    charts |= {name: ShownChart(figure, f"By {name}.") for name, figure in own_charts.items()}
    for name, chart in charts.items():
        (folder / f"{name.replace(':', '-')}.svg").write_bytes(chart.file)
    return charts


def _content_without_images(
    comparison: Comparison, charts: dict[str, ShownChart]
) -> dict[str, Any]:
    """Return the content of the report's page but for its title, main tables and images."""
    # These are ROC, FROC and scores; other charts replace those that are missing.
    own = [chart for name, chart in charts.items() if is_own_part(name)]
    curves = [name for name in charts if not (name in _NOT_ON_THE_PAGE or is_own_part(name))]
    ranked = sorted(curves, key=lambda name: name not in _MAIN_CHARTS)
    first = sorted(ranked[: len(_MAIN_CHARTS)], key=curves.index)
    return {
        "cards": card_files(carded_systems(comparison.names, comparison.records)),
        "verdict": comparison.answer,
        "findings": page_findings(comparison.answer, comparison.protocol, comparison.joint),
        "notes": [
            note
            for note in comparison.notes
            # Both are explained elsewhere on the page.
            if not (note.caution or note.kind in ("not_tuned", "image_blind"))
        ],
        "untuned": " ".join(note.text for note in comparison.notes if note.kind == "not_tuned"),
        "main_charts": [*(charts[name] for name in first), *own],
        "further_charts": [charts[name] for name in curves if name not in first],
    }
