"""Share of lesions found, by kind of lesion."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.failure_rows import (
    contrast_names,
    denominator,
    figure_texts,
    group_title,
    groups_in_order,
)
from cxr_compare.evaluation.report.table import Table

LESION_TOPIC = "lesions by "
"""Prefix of the topics of lesions in the table of failures."""


def lesion_table(comparison: Comparison) -> Table | None:
    """Return a table of the share of lesions that each system finds, by kind such as size.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The table, with one row for each kind of lesion: its name, the number of lesions, the share
        that each system finds, and the differences from the first system. None if the comparison
        has no metrics by kind of lesion.
    """
    failures = comparison.failures
    failures = failures[failures["topic"].str.startswith(LESION_TOPIC)]
    if failures.empty:
        return None
    rows = []
    for topic, group in groups_in_order(failures):
        of_group = failures[(failures["topic"] == topic) & (failures["group"] == group)]
        title = group_title(topic.removeprefix(LESION_TOPIC), group)
        rows.append((title, denominator(of_group), *figure_texts(comparison, of_group)))
    return Table.from_rows(
        "Kinds of lesion",
        "Share of lesions that a called box overlaps with an intersection over union (IoU) of at "
        "least 0.2.",
        ("Lesion", "Lesions", *comparison.systems, *contrast_names(comparison, printed=True)),
        rows,
    )
