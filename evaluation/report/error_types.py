"""Kinds of error of the called boxes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.figure_text import DASH

_ERRORS = {
    "missed": ("Missed lesion", "neither found nor poorly boxed"),
    "poor_box": ("Poorly placed box", "IoU with a lesion 0.1 to 0.5"),
    "duplicate": ("Duplicate box", "of a lesion that has one"),
    "background": ("Box on background", "IoU below 0.1"),
}


def error_table(comparison: Comparison) -> Table | None:
    """How often each system makes each kind of error; none where no system has boxes."""
    table = comparison.failures
    names = comparison.names
    known = [] if table.empty else table[table["topic"] == "errors"].to_dict("records")
    counts = {(str(row["metric"]), str(row["system"])): _error_count(row) for row in known}
    rows = [
        (f"{title}: {meaning}", *(counts.get((metric, name), DASH) for name in names))
        for metric, (title, meaning) in _ERRORS.items()
        if any((metric, name) in counts for name in names)
    ]
    heads = ("Error", *names)
    title = "Kinds of error of the called boxes"
    return Table.of(title, sentence("errors"), heads, rows, len(names)) if rows else None


def _error_count(row: Mapping[Hashable, Any]) -> str:
    ends = ("estimate", "ci_low", "ci_high")
    count, low, high = (f"{row['of'] * row[each]:.0f}" for each in ends)
    return count if math.isnan(row["ci_low"]) else f"{count} ({low} to {high})"
