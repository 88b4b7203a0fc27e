"""Table of the kinds of error of called boxes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.statistics.figure_text import DASH

_ERRORS = {
    "missed": "Missed lesion: neither found nor poorly boxed",
    "poor_box": "Poorly placed box: IoU with a lesion from 0.1 to 0.5",
    "duplicate": "Duplicate box: on a lesion that has one",
    "background": "Box on background: IoU below 0.1",
}


def error_table(comparison: Comparison) -> Table | None:
    """Return a table of how many errors of each kind the boxes of each system have.

    Kinds of errors are missed lesions, poorly placed boxes, duplicate boxes and boxes on
    background.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The table, with one row for each kind of error and one column for each system: the number
        with its interval. None if no system predicts boxes.
    """
    failures = comparison.failures
    names = comparison.names
    counts: dict[tuple[str, str], str] = {}
    if not failures.empty:
        for row in failures[failures["topic"] == "errors"].to_dict("records"):
            counts[str(row["metric"]), str(row["system"])] = _error_count(row)
    rows = [
        (title, *(counts.get((kind, name), DASH) for name in names))
        for kind, title in _ERRORS.items()
        if any((kind, name) in counts for name in names)
    ]
    if not rows:
        return None
    return Table.from_rows(
        "Kinds of error of the called boxes",
        "Counts on the test images, with 95 % intervals, after TIDE (Bolya et al. 2020) for one "
        "class. Each called box is matched to the unmatched lesion that it overlaps most, from an "
        "IoU of 0.5. Rates and differences are in groups.csv.",
        ("Error", *names),
        rows,
        len(names),
    )


def _error_count(row: Mapping[Hashable, Any]) -> str:
    count, low, high = (
        f"{row['of'] * row[column]:.0f}" for column in ("estimate", "ci_low", "ci_high")
    )
    return count if math.isnan(row["ci_low"]) else f"{count} ({low} to {high})"
