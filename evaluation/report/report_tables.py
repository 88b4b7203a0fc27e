"""Tables of figures and tests that the report page shows, by their names in its template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.forest import forest_parts
from cxr_compare.evaluation.report.metric_table import (
    confusion_matrices,
    every_pair_table,
    image_count,
    metric_table,
    unit_tables,
)
from cxr_compare.evaluation.report.summary_table import TableRow, summary_table


def report_tables(comparison: Comparison, rows: Sequence[TableRow]) -> dict[str, Any]:
    """Return the tables of metrics and tests on the page of a report.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        rows: Rows of the main table, each a metric and the rule for its threshold; if empty, the
            usual metrics.

    Returns:
        Tables and texts under the names by which the page's template uses them, such as ``main``.
    """
    localisation = metric_table(comparison, "localisation")
    return {
        "counts": image_count(comparison.figures),
        "forest": forest_parts(comparison),
        "unit": comparison.answer_figures.unit,
        "main": summary_table(comparison, rows),
        "place": localisation,
        "place_reason": localisation.reasons,
        "place_notes": [each.text for each in comparison.notes if each.kind == "image_blind"],
        "table": metric_table(comparison),
        "further": metric_table(comparison, "further"),
        "by_unit": unit_tables(comparison),
        "pairs": every_pair_table(comparison),
        "rates": metric_table(comparison, "rates"),
        "confusion": confusion_matrices(comparison),
    }
