"""Table of predictive values at a prevalence that the user gives."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.failure_rows import contrast_names, figure_texts
from cxr_compare.evaluation.report.table import Table

_PREDICTIVE = {"ppv": "Positive predictive value", "npv": "Negative predictive value"}


def prevalence_table(comparison: Comparison) -> Table | None:
    """Return a table of predictive values recomputed for a prevalence that the user stated.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The table, with one row each for the positive and the negative predictive value, and one
        column for each system and each difference from the first system; None if the user stated no
        prevalence.
    """
    failures = comparison.failures[comparison.failures["topic"] == "prevalence"]
    rows = []
    for metric, title in _PREDICTIVE.items():
        of_metric = failures[failures["metric"] == metric]
        if len(of_metric):
            rows.append((title, *figure_texts(comparison, of_metric)))
    if not rows:
        return None
    prevalence = str(failures["group"].iloc[0])
    return Table.from_rows(
        "At the given prevalence",
        _lead(prevalence),
        ("Figure", *comparison.systems, *contrast_names(comparison, printed=True)),
        rows,
    )


def _lead(prevalence: str) -> str:
    """Return the text above the table, for a prevalence such as ``0.05:0.03-0.08``."""
    value = prevalence.replace(":", ", 95 % interval ").replace("-", " to ")
    is_uncertain = ":" in prevalence or "/" in prevalence
    certainty = "The prevalence is taken as known exactly."
    if is_uncertain:
        certainty = "The intervals include the uncertainty of the prevalence."
    return (
        f"At a prevalence of {value}, if sensitivity and specificity are the same there. "
        f"{certainty}"
    )
