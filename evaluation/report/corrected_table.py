"""Figures corrected for a stated error of the reference labels, beside those by the labels."""

from __future__ import annotations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import CORRECTED, Estimate
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.table import Row, Table, figure_text
from cxr_compare.evaluation.report.templates import TABLES, sentence

_METRICS = ("auroc", "recall", "specificity")


def corrected_table(comparison: Comparison, policy: str) -> Table | None:
    """Return a table of metrics by the labels, beside values corrected for errors of the labels.

    The correction uses the sensitivity and specificity of the labels themselves, which the user
    stated.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        policy: Rule by which the threshold of sensitivity and specificity was chosen, such as
            ``max_f1``.

    Returns:
        The table, with one row for each system and metric (AUROC, sensitivity, specificity) and one
        for each difference in AUROC, and the columns "By the labels" and "Corrected". None if the
        user stated no error rate of the labels.
    """
    if comparison.reference is None:
        return None
    estimates = comparison.estimates
    rows: list[Row] = []
    for name in comparison.names:
        for metric in _METRICS:
            at = policy if "threshold" in METRICS[metric].needs else ""
            figures = [
                estimates.get(name, metric, at, subgroup=subgroup) for subgroup in (ALL, CORRECTED)
            ]
            rows += _row(f"{name}: {METRICS[metric].title_in_sentence}", figures)
    for first, second in estimates.differences:
        figures = [
            estimates.difference(first, second, "auroc", subgroup=subgroup)
            for subgroup in (ALL, CORRECTED)
        ]
        rows += _row(f"{first} − {second}: {METRICS['auroc'].title_in_sentence}", figures)
    accuracy = comparison.reference
    return Table.from_rows(
        sentence("corrected_title", template=TABLES),
        sentence("corrected_lead", accuracy.sensitivity, accuracy.specificity, template=TABLES),
        ("Figure", "By the labels", "Corrected"),
        rows,
    )


def _row(title: str, figures: list[Estimate]) -> list[Row]:
    """Return the row of a figure; none where it exists neither way."""
    by_labels, corrected = figures
    if not (by_labels.known or corrected.known or corrected.note):
        return []
    text = figure_text(corrected) if corrected.known else corrected.note
    return [(title, figure_text(by_labels), text)]
