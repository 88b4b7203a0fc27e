"""Table of predictions from metadata and image borders only, beside the systems."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_text
from cxr_compare.evaluation.report.templates import TABLES, sentence
from cxr_compare.evaluation.statistics.intervals import Interval


def shortcut_table(comparison: Comparison) -> Table | None:
    """Return a table of how well metadata and image borders alone predict the label.

    The AUROCs of these predictions, which never see the lungs, are shown with those of the systems.
    A system that is hardly better may use such facts as a shortcut.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The table, with one row for each prediction and for each system: its AUROC with the
        interval, and for a system the difference from the strongest prediction. None if this was
        not computed.
    """
    failures = comparison.failures
    shortcuts = failures[failures["topic"] == "shortcut"]
    if shortcuts.empty:
        return None
    rows = []
    for row in shortcuts.to_dict("records"):
        title = sentence("shortcut_row", row["group"], template=TABLES)
        rows.append((title, figure_text(Interval.from_row(row)), ""))
    beyond = failures[failures["topic"] == BEYOND_SHORTCUT]
    for name in comparison.systems:
        auroc = figure_text(comparison.figures.get(name, "auroc"))
        difference = figure_text(first_interval(beyond[beyond["system"] == name]))
        rows.append((name, auroc, difference))
    strongest = "the strongest prediction"
    if len(beyond):
        strongest = f"the prediction from {beyond['group'].iloc[0]}"
    return Table.from_rows(
        sentence("shortcuts_title", template=TABLES),
        sentence("shortcuts_lead", template=TABLES),
        ("Prediction or system", "AUROC", f"System minus {strongest}"),
        rows,
    )
