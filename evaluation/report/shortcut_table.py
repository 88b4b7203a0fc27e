"""What metadata and image borders alone predict, beside the systems."""

from __future__ import annotations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.shortcuts import BEYOND_SHORTCUT
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_words
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.intervals import (
    Interval,
)


def shortcut_table(comparison: Comparison) -> Table | None:
    """Return what metadata and image borders alone predict, beside each system's AUROC."""
    table = comparison.failures[comparison.failures["topic"] == "shortcut"]
    if table.empty:
        return None
    rows = [
        (
            f"Predicted from {row['group']}".replace("_", " "),
            figure_words(Interval.from_row(row)),
            "",
        )
        for row in table.to_dict("records")
    ]
    beyond = comparison.failures[comparison.failures["topic"] == BEYOND_SHORTCUT]
    for name in comparison.systems:
        auroc = figure_words(comparison.estimates.get(name, "auroc"))
        rows.append((name, auroc, figure_words(first_interval(beyond[beyond["system"] == name]))))
    strongest = f" from {beyond['group'].iloc[0]}" if len(beyond) else ""
    heads = ("Guessed from, or system", "AUROC", f"Minus that of the guess{strongest}")
    return Table.of("Shortcuts", sentence("shortcuts"), heads, rows)
