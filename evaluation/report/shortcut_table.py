"""Table of predictions from metadata and image borders only, beside the systems."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_text
from cxr_compare.evaluation.statistics.intervals import Interval

_LEAD = (
    "How well metadata and image borders alone predict the label (5-fold cross-validation by "
    "patient). Those from all metadata leave out mean brightness and file size, which disease "
    "changes, too. A system that does not exceed these figures has not shown that it "
    "reads the lungs. For the difference from the strongest prediction, both AUROCs compare "
    "only images of the same fold, so it need not equal the difference of the AUROCs in this "
    "table. Its interval accounts for the shared training images of the five folds (Nadeau "
    "and Bengio 2003)."
)


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
        title = f"Predicted from {str(row['group']).replace('_', ' ')}"
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
        "Shortcuts",
        _LEAD,
        ("Prediction or system", "AUROC", f"System minus {strongest}"),
        rows,
    )
