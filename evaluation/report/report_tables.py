"""Tables that the report page shows, by their names in its template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.failure_tables import (
    corrections_table,
    error_kinds_table,
    group_tables,
    groups_lead,
    lesion_table,
    subgroup_tables,
)
from cxr_compare.evaluation.report.folded_tables import folded_tables
from cxr_compare.evaluation.report.metric_table import (
    evaluated_by_unit,
    image_count,
)
from cxr_compare.evaluation.report.summary_table import TableRow, main_table, summary_keys
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.statistics.intervals import note_without_counts


def report_tables(comparison: Comparison, rows: Sequence[TableRow]) -> dict[str, Any]:
    """Return the tables on the page of a report, and the lists that go with them.

    Args:
        comparison: The comparison.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual metrics.

    Returns:
        Tables and texts under the names by which the page's template uses them, such as ``main``.
    """
    return {
        "counts": image_count(comparison.figures),
        "unit": comparison.answer_figures.unit,
        "main": main_table(comparison, rows),
        "shown_metrics": {key.metric for key in summary_keys(comparison, rows)},
        "no_place": _no_localisation(comparison),
        "place_notes": [each.text for each in comparison.notes if each.kind == "image_blind"],
        "by_unit": _unit_table(comparison, rows),
        "errors": _present(
            error_kinds_table(comparison), lesion_table(comparison), corrections_table(comparison)
        ),
        "groups": group_tables(comparison),
        "groups_lead": groups_lead(comparison),
        "subgroups": subgroup_tables(comparison),
        "folded": folded_tables(comparison),
    }


def _present(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]


def _no_localisation(comparison: Comparison) -> str:
    """Return why no figure of boxes and points is defined; empty if one is."""
    figures = [
        figure
        for name in comparison.names
        for key, figure in comparison.figures.of(name).items()
        if key.subgroup == ALL
        and key.policy in ("", comparison.main_policy)
        and key.metric in METRICS
        and METRICS[key.metric].table.part == "localisation"
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
    title = f"By {by_unit.figures.unit}: the highest score of its images, with its own thresholds"
    return main_table(by_unit, rows)._replace(title=title)
