"""Page of a report, ``report.html``: one self-contained file that begins with the answer.

A few figures, three examples, three charts and the cases are visible at once. Everything else is
folded. Each processor reads, draws and encodes one image at a time, and their number is limited, so
the size of the file and the memory do not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.own_parts import is_own_part
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.chart_style import ShownChart, save_pages
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.failure_tables import (
    corrections_table,
    disagreement_table,
    error_kinds_table,
    group_tables,
    groups_lead,
    lesion_table,
    no_groups_text,
)
from cxr_compare.evaluation.report.findings import page_findings
from cxr_compare.evaluation.report.folded_tables import folded_tables
from cxr_compare.evaluation.report.gallery import draw_gallery
from cxr_compare.evaluation.report.interval_facts import IntervalFacts
from cxr_compare.evaluation.report.methods import map_cells, methods, policy_meaning
from cxr_compare.evaluation.report.metric_table import evaluated_by_unit, image_count
from cxr_compare.evaluation.report.paper_tables import latex_table, markdown_table
from cxr_compare.evaluation.report.summary_table import TableRow, main_table, summary_keys
from cxr_compare.evaluation.report.system_cards import card_files, carded_systems, write_cards
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.unknown_patients import image_wording
from cxr_compare.evaluation.statistics.intervals import MOST_UNDEFINED, note_without_counts
from cxr_compare.evaluation.thresholds import check_policy

MAX_BYTES = 8_000_000
_STALE = f"{files.OVERLAYS}/*.png", f"{files.FIGURES}/*"
_MAIN_CHARTS = ("roc", "froc-iou", "scores")
_NOT_ON_THE_PAGE = ("confusion", "froc-centre")
"""Charts that are only files: the page has these counts in a table, and the FROC curve by overlap.
"""


def write_page(
    compared: Compared,
    charts: Mapping[str, ShownChart],
    out: Path,
    progress: Callable[..., None] | None = None,
) -> dict[str, str]:
    """Write the page ``report.html``, and charts, cards, tables for a paper and images beside it.

    A report without pixels shows no images. `charts` has all charts by name, in their order;
    `progress` is called once for each drawn image. The result has the file name of each example
    image in the folder ``overlays``, by image id. A ValueError is raised if the page would be
    larger than 8 MB.
    """
    comparison, labelled = compared.comparison, compared.truth
    for pattern in _STALE:
        for stale in out.glob(pattern):
            stale.unlink()  # a file of an earlier report need not belong to this one
    _save_charts(charts, out / files.FIGURES)
    # These are ROC, FROC and scores; other charts replace those that are missing.
    curves = [name for name in charts if name != "forest" and name not in _NOT_ON_THE_PAGE]
    own = [name for name in curves if is_own_part(name)]
    curves = [name for name in curves if name not in own]
    ranked = sorted(curves, key=lambda name: name not in _MAIN_CHARTS)
    main_charts = sorted(ranked[: len(_MAIN_CHARTS)], key=curves.index)
    gallery = draw_gallery(compared, out / files.OVERLAYS, progress)
    main = main_table(comparison, compared.rows)
    errors = (
        error_kinds_table(comparison),
        lesion_table(comparison),
        corrections_table(comparison),
    )
    paragraphs, references = methods(comparison, labelled)
    shown = dict.fromkeys(key.metric for key in summary_keys(comparison, compared.rows))
    main_policy = comparison.main_policy
    page = render(
        "report.html.jinja",
        comparison=comparison,
        data_name=labelled.title,
        counts=image_count(comparison.figures),
        findings=page_findings(comparison.answer, comparison.joint),
        notes=[
            note
            for note in comparison.notes
            # Both are explained elsewhere on the page.
            if not (note.caution or note.kind in ("not_tuned", "image_blind"))
        ],
        main=main,
        place_notes=[each.text for each in comparison.notes if each.kind == "image_blind"],
        no_place=_no_localisation(comparison),
        cells=map_cells(comparison),
        forest=charts.get("forest"),
        main_charts=[charts[name] for name in (*main_charts, *own)],
        further_charts=[charts[name] for name in curves if name not in main_charts],
        has_decision_curve="net-benefit" in charts,
        errors=[table for table in errors if table is not None],
        groups=group_tables(comparison),
        groups_lead=groups_lead(comparison),
        no_groups=no_groups_text(labelled.test.images),
        gallery=gallery,
        disagreements=None if gallery.cases else disagreement_table(comparison),
        made=IntervalFacts.from_comparison(comparison),
        most_undefined=round(100 * MOST_UNDEFINED),
        untuned=" ".join(note.text for note in comparison.notes if note.kind == "not_tuned"),
        paragraphs=paragraphs,
        references=references,
        by_unit=_unit_table(comparison, compared.rows),
        folded=folded_tables(comparison),
        metrics=[METRICS[metric] for metric in shown],
        policy_meaning=policy_meaning(check_policy(main_policy)) if main_policy else "",
        cards=card_files(carded_systems(comparison.names, comparison.records)),
    )
    write_cards(comparison, out)
    texts = {
        files.LATEX_TABLE: latex_table(comparison, main),
        files.MARKDOWN_TABLE: markdown_table(comparison, main),
        files.PAGE: page,
    }
    for name, text in texts.items():
        worded = text if comparison.patients_known else image_wording(text, comparison.names)
        size = len(worded.encode())
        if size > MAX_BYTES:
            raise ValueError(f"{name} would have {size:,} bytes; at most {MAX_BYTES:,} allowed")
        write_text(out / name, worded)
    return {case.image_id: f"{case.anchor}.png" for _, cases in gallery.cases for case in cases}


def _save_charts(charts: Mapping[str, ShownChart], folder: Path) -> None:
    """Write each chart as SVG and as a page of a PDF."""
    make_folder(folder)
    save_pages([chart.figure for chart in charts.values()], folder / "charts.pdf")
    for name, chart in charts.items():
        (folder / f"{name.replace(':', '-')}.svg").write_bytes(chart.file)


def _no_localisation(comparison: Comparison) -> str:
    """Return why no figure of boxes and points is defined; empty if one is."""
    figures = [
        figure
        for name in comparison.names
        for key, figure in comparison.figures.of(name).items()
        if key.subgroup == ALL
        and key.policy in ("", comparison.main_policy)
        and key.metric in METRICS
        and METRICS[key.metric].boxed
    ]
    if any(figure.known for figure in figures):
        return ""
    notes = (note_without_counts(figure.note) for figure in figures)
    return "; ".join(dict.fromkeys(filter(None, notes)))


def _unit_table(comparison: Comparison, rows: Sequence[TableRow]) -> Table | None:
    """Return the main figures by study or patient; None if the figures are by image only."""
    by_unit = evaluated_by_unit(comparison)
    if by_unit is None:
        return None
    title = f"By {by_unit.figures.unit}: the highest score of its images"
    return main_table(by_unit, rows)._replace(title=title)
