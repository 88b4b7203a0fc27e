"""The main table of a report, with the rows that a user names or the usual rows."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS, highlighted
from cxr_compare.evaluation.report.metric_table import table_of_keys
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.thresholds import check_policy

NO_THRESHOLD = (
    "Accuracy, precision, sensitivity, specificity and F1 need a threshold, and there is "
    "none: give validation images (the role val), or a threshold of your own (the policy "
    "threshold=0.5)."
)


class TableRow(NamedTuple):
    """Metric that a table row shows, and the threshold at which the metric is computed.

    Attributes:
        metric: Short name of the metric, such as ``auroc``.
        policy: Rule by which the threshold was chosen, such as ``max_f1``; empty for the rule that
            the report uses where it shows one threshold only, or if the metric needs no threshold.
    """

    metric: str
    policy: str = ""


def table_rows(names: Sequence[str]) -> tuple[TableRow, ...]:
    """Convert names such as ``recall@specificity>=0.90`` to rows of a table.

    The text after ``@`` is the rule by which the threshold is chosen. A metric that needs a
    threshold, but has no ``@``, uses the rule that the report uses where it shows one threshold
    only.

    Args:
        names: Short names of metrics, each perhaps with a rule after ``@``. Empty texts are left
            out.

    Returns:
        The rows in the order of the names, each once.

    Raises:
        InputError: A metric or rule is unknown, or a metric with a rule needs no threshold.

    Example:
        >>> table_rows(["auroc", "recall@specificity>=0.90"])[1]
        TableRow(metric='recall', policy='specificity>=0.90')
    """
    rows = [TableRow(*map(str.strip, name.split("@", 1))) for name in names if name.strip()]
    for row in rows:
        if row.metric not in METRICS:
            near = difflib.get_close_matches(row.metric, METRICS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "docs/metrics.md names all"
            raise InputError(f"--metrics: no metric '{row.metric}'; {hint}")
        if row.policy:
            check_policy(row.policy)
        if row.policy and "threshold" not in METRICS[row.metric].needs:
            raise InputError(f"--metrics: '{row.metric}' has no threshold; leave out @{row.policy}")
    return tuple(dict.fromkeys(rows))


def summary_table(comparison: Comparison, rows: Sequence[TableRow] = ()) -> Table:
    """Return the main table of the report: metrics of all systems and their differences.

    Without a threshold, the text above the table says which usual rows are missing, and why. A
    usual row about boxes is left out if no system has its figure.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        rows: Metrics with the rules for their thresholds, in the order of the rows; if empty, the
            usual rows.

    Returns:
        The table; differences are those of the first system minus each other system.
    """
    table = table_of_keys(comparison, summary_keys(comparison, rows))
    if rows or comparison.policies:
        return table
    return replace(table, lead=NO_THRESHOLD)


def summary_keys(comparison: Comparison, rows: Sequence[TableRow] = ()) -> list[MetricKey]:
    """Return metric and rule for the threshold of each row of the main table."""
    policy = comparison.main_policy
    available = {
        key
        for of_system in comparison.figures.systems.values()
        for key, figure in of_system.items()
        if figure.known or not (key.metric in METRICS and METRICS[key.metric].boxed)
    }
    keys = []
    for row in rows or map(TableRow, highlighted("summary")):
        at = row.policy or (policy if "threshold" in METRICS[row.metric].needs else "")
        key = MetricKey(ALL, at, row.metric)
        if rows or key in available:
            keys.append(key)
    return keys


def summary_frame(comparison: Comparison, rows: Sequence[TableRow] = ()) -> pd.DataFrame:
    """Return the main table as a DataFrame of texts.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        rows: Metrics with the rules for their thresholds, in the order of the rows; if empty, the
            usual rows.

    Returns:
        One row for each metric, indexed by heading (the rule for the threshold) and metric; one
        column for each system and for each difference.
    """
    table = summary_table(comparison, rows)
    index = [(group.title, row[0]) for group in table.groups for row in group.rows]
    texts = [list(map(str, row[1:])) for row in table.rows]
    return pd.DataFrame(
        texts, index=pd.MultiIndex.from_tuples(index), columns=list(table.columns[1:])
    )
