"""Tables on the agreement of systems with each other."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_text
from cxr_compare.evaluation.verdict.sentences import at_threshold

_COMBINATION_LEAD = (
    "Agreement of the decisions beyond chance (Cohen's kappa), and what a combination of both "
    "systems would reach on these test images at fixed thresholds. Before a combined system "
    "is used, it must be tuned on validation images."
)


def agreement_tables(comparison: Comparison, policy: str) -> list[Table]:
    """Return tables of how many images two systems decide rightly: both, only one, or neither.

    Each table compares the first system with one other system.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        policy: Rule by which the thresholds of the counted decisions were chosen, such as
            ``max_f1``.

    Returns:
        One table for each system after the first: numbers of positive, of negative and of all
        images, with a row each for both right, only one of the two right, and both wrong. An empty
        list if there are no decisions by this rule.
    """
    column = f"decision_{policy}"
    if column not in comparison.decisions:
        return []
    decided = comparison.decisions.dropna(subset=["label", column])
    right = (decided[column].astype(bool) == (decided["label"] >= 1)).astype(object)
    by_system = decided.assign(right=right).pivot_table(
        index=["image_id", "label"], columns="system", values="right", aggfunc="first"
    )
    first, *others = comparison.systems
    compared = [name for name in others if {first, name} <= set(by_system.columns)]
    return [
        _agreement_table(by_system[[first, name]].dropna(), first, name, policy)
        for name in compared
    ]


def _agreement_table(right: pd.DataFrame, first: str, second: str, policy: str) -> Table:
    positive = right.index.get_level_values("label") >= 1
    rows = []
    for title, by_first, by_second in (
        ("Both right", True, True),
        (f"Only {first} right", True, False),
        (f"Only {second} right", False, True),
        ("Both wrong", False, False),
    ):
        matches = ((right[first] == by_first) & (right[second] == by_second)).to_numpy(dtype=bool)
        counts = (matches & positive).sum(), (matches & ~positive).sum(), matches.sum()
        rows.append((title, *(f"{int(count):,}" for count in counts)))
    return Table.from_rows(
        f"{first} and {second}: images that one or both classify correctly",
        f"Images that each system classified correctly{at_threshold(policy)}. Location is ignored. "
        "Combining two systems can only help on images where one is right and the other is wrong.",
        ("Decision", "Positive images", "Negative images", "All"),
        rows,
    )


def combination_table(comparison: Comparison) -> Table | None:
    """Return a table of how far two systems agree beyond chance, and how good they are together.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        Rows with Cohen's kappa of each pair of systems, and rows with AUROC, sensitivity and
        specificity of two systems combined: by the mean of their probabilities (with its gain over
        each of the two), by a positive call if either system calls the image positive, and by one
        if both do. None if agreement was not evaluated.
    """
    failures = comparison.failures
    pairs = failures[failures["topic"].isin(["combined", "agreement"])]
    if pairs.empty:
        return None
    metrics = ("kappa", "auroc", "recall", "specificity")
    rows = []
    for name in pairs["system"].unique():
        of_pair = pairs[pairs["system"] == name]
        figures = [first_interval(of_pair[of_pair["metric"] == metric]) for metric in metrics]
        texts = [figure_text(figure) if figure.known else "" for figure in figures]
        rows.append((str(name).replace(" - ", " − "), *texts))
    return Table.from_rows(
        "Agreement and combination",
        _COMBINATION_LEAD,
        ("Pair", "Kappa", *(metric_title(metric) for metric in metrics[1:])),
        rows,
    )
