"""Agreement of systems with each other, and the verdict by each reader's labels."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_words
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.intervals import Interval


def reader_verdict_tables(comparison: Comparison) -> list[Table]:
    """The primary difference by each reader's labels of the test images, where asked for."""
    rows = [
        (
            row["labels_of"],
            f"{row['images']:,}",
            f"{row['positive']:,}",
            row["difference"],
            figure_words(Interval(row["estimate"], row["ci_low"], row["ci_high"])),
            row["higher"],
            "the same" if row["same_verdict"] else "another",
        )
        for row in comparison.by_reader
    ]
    columns = (
        "Labels of",
        "Images",
        "Positive",
        f"Difference in {comparison.protocol.title}",
        "Estimate (interval)",
        "Higher",
        "Verdict",
    )
    lead = "Predictions and thresholds stay; the labels of the test images are those of one reader."
    return [Table.of("The answer by each reader's labels", lead, columns, rows)][: len(rows)]


def agreement_tables(comparison: Comparison, policy: str) -> list[Table]:
    """Count, for the first system against each other one, who is right on which images."""
    column = f"decision_{policy}"
    if column not in comparison.decisions:
        return []
    decided = comparison.decisions.dropna(subset=["label", column])
    right = (decided[column].astype(bool) == (decided["label"] >= 1)).astype(object)
    wide = decided.assign(right=right).pivot_table(
        index=["image_id", "label"], columns="system", values="right", aggfunc="first"
    )
    first, *others = comparison.systems
    known = [name for name in others if {first, name} <= set(wide.columns)]
    return [_agreement_table(wide[[first, name]].dropna(), first, name, policy) for name in known]


def _agreement_table(right: pd.DataFrame, first: str, second: str, policy: str) -> Table:
    label = right.index.get_level_values("label") >= 1
    rows = []
    for title, by_first, by_second in (
        ("Both right", True, True),
        (f"Only {first} right", True, False),
        (f"Only {second} right", False, True),
        ("Both wrong", False, False),
    ):
        here = ((right[first] == by_first) & (right[second] == by_second)).to_numpy(dtype=bool)
        counts = (here & label).sum(), (here & ~label).sum(), here.sum()
        rows.append((title, *(f"{int(count):,}" for count in counts)))
    lead = sentence("agreement", policy)
    columns = ("Decision", "Positive images", "Negative images", "All")
    title = f"{first} and {second}: images right together and alone"
    return Table.of(title, lead, columns, rows)


def combination_table(comparison: Comparison) -> Table | None:
    """Return the agreement of each pair beyond chance, and what a combination would reach."""
    table = comparison.failures
    pairs = table[table["topic"].isin(["combined", "agreement"])]
    if pairs.empty:
        return None
    metrics = ("kappa", "auroc", "recall", "specificity")
    rows = []
    for name in pairs["system"].unique():
        here = pairs[pairs["system"] == name]
        cells = [first_interval(here[here["metric"] == metric]) for metric in metrics]
        words = [figure_words(cell) if cell.known else "" for cell in cells]
        rows.append((str(name).replace(" - ", " − "), *words))
    lead = sentence("together")
    heads = ("Pair", "Kappa", *(metric_title(metric) for metric in metrics[1:]))
    return Table.of("Agreement and combination", lead, heads, rows)
