"""Sensitivity analysis in which left-out images are counted against or for each system."""

from __future__ import annotations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import AGAINST, FOR
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.table import Table, figure_text
from cxr_compare.evaluation.report.templates import TABLES, sentence

_METRICS = ("auroc", "recall", "specificity", "accuracy")


def uncounted_table(comparison: Comparison, policy: str) -> Table | None:
    """Return a table of the main metrics with and without test images that were left out.

    Elsewhere, images on which a system has no result, or whose label is unknown, are left out. Here
    they are counted once as wrong and once as right for each system.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        policy: Rule by which the threshold was chosen for metrics that need one, such as
            ``max_f1``.

    Returns:
        The table, with one row for each system and metric (AUROC, sensitivity, specificity,
        accuracy), and columns for the value without these images, with all counted as wrong, and
        with all counted as right. None if no image was left out, or no such value is defined.
    """
    rows = []
    for name in comparison.names:
        for metric in _METRICS:
            metric_policy = policy if "threshold" in METRICS[metric].needs else ""
            figures = [
                comparison.estimates.get(name, metric, metric_policy, subgroup=subgroup)
                for subgroup in (ALL, AGAINST, FOR)
            ]
            if not figures[1].known:
                continue
            cells = [
                sentence(
                    "uncounted_cell", figure_text(figure), figure.counts.n_images, template=TABLES
                )
                for figure in figures
            ]
            rows.append((f"{name}: {METRICS[metric].title_in_sentence}", *cells))
    if not rows:
        return None
    left_out = " ".join(note.text for note in comparison.notes if note.kind == "left_out")
    return Table.from_rows(
        sentence("uncounted_title", template=TABLES),
        sentence("uncounted_lead", left_out, template=TABLES),
        ("Figure", "As analysed", "All counted against", "All counted for"),
        rows,
    )
