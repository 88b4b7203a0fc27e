"""Tables of figures that the report page shows, by their names in its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.metric_table import (
    confusion_matrices,
    evaluated_by_unit,
    image_count,
    metric_table,
    table_of_keys,
)
from cxr_compare.evaluation.report.summary_table import (
    NO_THRESHOLD,
    TableRow,
    summary_keys,
    summary_table,
)
from cxr_compare.evaluation.report.system_rows import cost_table, systems_table
from cxr_compare.evaluation.report.table import Table

MOST_COLUMNS = 2
"""Largest number of systems that are columns of the main table; more are its rows."""


def report_tables(comparison: Comparison, rows: Sequence[TableRow]) -> dict[str, Any]:
    """Return the tables of figures on the page of a report, and the lists that go with them.

    Args:
        comparison: The comparison.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual metrics.

    Returns:
        Tables and texts under the names by which the page's template uses them, such as ``main``.
    """
    keys = summary_keys(comparison, rows)
    if len(comparison.names) > MOST_COLUMNS:
        main = systems_table(comparison, keys)
        if not (rows or comparison.policies):
            main = replace(main, lead=NO_THRESHOLD)
    else:
        main = summary_table(comparison, rows)
    localisation = metric_table(comparison, "localisation")
    return {
        "counts": image_count(comparison.figures),
        "unit": comparison.answer_figures.unit,
        "main": main,
        "shown_metrics": {key.metric for key in keys},
        "no_place": "" if localisation.known else localisation.reasons,
        "place_notes": [each.text for each in comparison.notes if each.kind == "image_blind"],
        "by_unit": _unit_table(comparison, rows),
        "confusion": confusion_matrices(comparison),
        "cost": cost_table(comparison),
    }


def _unit_table(comparison: Comparison, rows: Sequence[TableRow]) -> Table | None:
    """Return the main figures by study or patient; None if the figures are by image only."""
    by_unit = evaluated_by_unit(comparison)
    if by_unit is None:
        return None
    keys = summary_keys(by_unit, rows)
    make = systems_table if len(comparison.names) > MOST_COLUMNS else table_of_keys
    title = f"By {by_unit.figures.unit}: the highest score of its images, with its own thresholds"
    return replace(make(by_unit, keys), title=title)
