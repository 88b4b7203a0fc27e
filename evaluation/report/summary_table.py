"""The main table of a report: the figures that a user names or the usual ones, size and time."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.own_parts import is_own_part
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.own_metric import register_metric
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.registry import METRICS, metric_title
from cxr_compare.evaluation.report.metric_table import (
    counts_text,
    difference_text,
    figure_frame,
    figure_notes,
    figure_of,
    marks_note,
    policy_heading,
    shown_contrasts,
)
from cxr_compare.evaluation.report.table import Table, value_text
from cxr_compare.evaluation.statistics.figure_text import (
    DASH,
    number,
    score_text,
)
from cxr_compare.evaluation.thresholds import check_policy
from cxr_compare.evaluation.verdict.sentences import at_threshold

MOST_COLUMNS = 2
"""Largest number of systems that are columns of the main table; more are its rows."""

_USUAL_ROWS = (
    "auroc",
    "average_precision",
    "recall",
    "specificity",
    "precision",
    "f1",
    "accuracy",
    "localised_sensitivity",
    "ap50_decided",
    "froc_mean",
)
"""Metrics of the main table unless the user names others."""
_SIZE_AND_TIME = "Size and time"
"""Heading of the rows of costs."""
_COSTS = (
    ("Parameters (million)", "parameters", 1e6),
    ("FLOPs per image (billion)", "flops", 1e9),
    ("Time per image (ms)", "latency_ms", 1.0),
)
"""Title with the unit, key of the record and divisor of each cost; others are in ``answer.json``.
"""

NO_THRESHOLD = (
    "Accuracy, precision, sensitivity, specificity and F1 need a threshold, and there is "
    "none: give validation images (the role val), or a threshold of your own (the policy "
    "threshold=0.5)."
)


class TableRow(NamedTuple):
    """Metric that a table row shows, and the threshold at which the metric is computed.

    `policy` is empty for the rule that the report uses where it shows one threshold only, or if the
    metric needs no threshold.
    """

    metric: str
    policy: str = ""


def table_rows(names: Sequence[str]) -> tuple[TableRow, ...]:
    """Convert names such as ``recall@specificity>=0.90`` to rows of a table, each once.

    The text after ``@`` is the rule by which the threshold is chosen. A metric that needs a
    threshold, but has no ``@``, uses the rule that the report uses where it shows one threshold
    only. A function of the user's own, ``MODULE:NAME``, becomes a metric. Empty texts are left out.
    An InputError is raised if a metric or rule is unknown, or a metric with a rule needs no
    threshold.

    Example:
        >>> table_rows(["auroc", "recall@specificity>=0.90"])[1]
        TableRow(metric='recall', policy='specificity>=0.90')
    """
    rows = [TableRow(*map(str.strip, name.split("@", 1))) for name in names if name.strip()]
    rows = [
        row._replace(metric=register_metric(row.metric).name) if is_own_part(row.metric) else row
        for row in rows
    ]
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


def main_table(comparison: Comparison, rows: Sequence[TableRow] = ()) -> Table:
    """Return the main table of the report: metrics of all systems and their differences.

    One or two systems are columns. More are rows, beside the difference of the primary figure from
    the system that the answer names. Size and time stand last. Without a threshold, the text above
    the table says which usual figures are missing, and why. Without `rows`, the usual metrics are
    shown.
    """
    keys = summary_keys(comparison, rows)
    is_wide = len(comparison.names) > MOST_COLUMNS
    frame = summary_frame(comparison, rows)
    if is_wide:
        frame = frame.rename_axis(columns="System")
    else:
        frame = _with_thresholds(comparison, keys, frame)
    lead = [counts_text(comparison, keys)]
    if not (rows or comparison.policies):
        lead.append(NO_THRESHOLD)
    elif is_wide and comparison.main_policy:
        lead.append(
            "Figures that need a threshold are at that for "
            f"{policy_text(comparison.main_policy)}, unless the heading says otherwise."
        )
    texts = frame.to_numpy().ravel().tolist()
    pairs = shown_contrasts(comparison)
    compared = comparison.protocol.keys if is_wide else list(map(figure_of, keys))
    differences = [(pair, figure) for figure in compared for pair in pairs]
    marks = marks_note(texts, comparison.joint)
    notes = (marks, figure_notes(comparison, keys, differences), _timing_note(comparison))
    return Table("", frame, " ".join(filter(None, lead)), " ".join(filter(None, notes)))


def _by_figure(comparison: Comparison, keys: Sequence[MetricKey]) -> pd.DataFrame:
    """Return a row for each figure and each cost, by heading and title."""
    frame = figure_frame(comparison, keys)
    costs = cost_frame(comparison).T
    if costs.empty:
        return frame
    costs.index = pd.MultiIndex.from_product([[_SIZE_AND_TIME], costs.index])
    return pd.concat([frame, costs.reindex(columns=frame.columns, fill_value="")])


def _with_thresholds(
    comparison: Comparison, keys: Sequence[MetricKey], frame: pd.DataFrame
) -> pd.DataFrame:
    """Return the rows by title alone; the threshold stands above the figures that need it."""
    names = comparison.names
    parts: list[pd.DataFrame] = []
    for policy in dict.fromkeys(key.policy for key in keys):
        heading = policy_heading(policy)
        if policy or parts:
            title = f"Score threshold for {policy_text(policy)}" if policy else heading
            thresholds = [_threshold(comparison, name, keys, policy) for name in names]
            row = pd.DataFrame([thresholds], index=[title], columns=names)
            parts.append(row.reindex(columns=frame.columns, fill_value=""))
        parts.append(frame.loc[[heading]].droplevel(0))
    if _SIZE_AND_TIME in frame.index:
        parts.append(frame.loc[[_SIZE_AND_TIME]].droplevel(0))
    return pd.concat(parts).rename_axis(columns="Figure")


def _threshold(comparison: Comparison, name: str, keys: Sequence[MetricKey], policy: str) -> str:
    """Return a threshold, with the number of positive validation images that it rests on."""
    if not policy:
        return ""
    value = comparison.systems[name].thresholds.get(policy)
    if value is None:
        return "no threshold"
    first = next(key for key in keys if key.policy == policy)
    figures = comparison.figures
    count = figures.get(name, first.metric, policy).n_chosen_on
    chosen_on = f" (from {count:,} positive validation {figures.plural_unit})" if count else ""
    return f"{score_text(value)}{chosen_on}"


def _by_system(comparison: Comparison, keys: Sequence[MetricKey]) -> pd.DataFrame:
    """Return a row for each system: figures, difference of the primary one from the best, costs."""
    figures = comparison.figures
    names = comparison.names
    main = comparison.main_policy
    frame = pd.DataFrame(index=names)
    for key in keys:
        at = at_threshold(key.policy) if key.policy not in ("", main) else ""
        texts = []
        for name in names:
            baseline = figures.get(image_blind_name(name), *figure_of(key))
            below = f"; image-blind {number(baseline.estimate)}" if baseline.known else ""
            texts.append(value_text(figures.get(name, *figure_of(key))) + below)
        frame[f"{metric_title(key.metric)}{at}"] = texts
    if main and any(key.policy == main for key in keys):
        thresholds = [comparison.systems[name].thresholds.get(main) for name in names]
        frame["Score threshold"] = [
            DASH if value is None else score_text(value) for value in thresholds
        ]
    protocol = comparison.protocol
    pairs = {pair[1]: pair for pair in shown_contrasts(comparison)}
    if pairs and not protocol.partner:
        (primary,) = protocol.keys
        subject = "reference" if protocol.declared else "highest"
        frame[f"{metric_title(primary[0])}, {subject} minus this"] = [
            difference_text(comparison, pairs[name], primary) if name in pairs else ""
            for name in names
        ]
    return frame.join(cost_frame(comparison))


def summary_keys(comparison: Comparison, rows: Sequence[TableRow] = ()) -> list[MetricKey]:
    """Return metric and rule for the threshold of each row of the main table."""
    policy = comparison.main_policy
    available = {
        key
        for name in comparison.names
        for key, figure in comparison.figures.of(name).items()
        if figure.known or not (key.metric in METRICS and METRICS[key.metric].boxed)
    }
    keys = []
    for row in rows or map(TableRow, _USUAL_ROWS):
        at = row.policy or (policy if "threshold" in METRICS[row.metric].needs else "")
        key = MetricKey(ALL, at, row.metric)
        if rows or key in available:
            keys.append(key)
    return keys


def summary_frame(comparison: Comparison, rows: Sequence[TableRow] = ()) -> pd.DataFrame:
    """Return the main table as a DataFrame of texts.

    Of one or two systems, one row for each metric and cost, indexed by heading (the rule for the
    threshold) and title, and one column for each system and for their difference. Of more systems,
    one row for each and one column for each metric and cost. Without `rows`, the usual metrics are
    shown.
    """
    keys = summary_keys(comparison, rows)
    if len(comparison.names) > MOST_COLUMNS:
        return _by_system(comparison, keys)
    return _by_figure(comparison, keys)


def cost_frame(comparison: Comparison) -> pd.DataFrame:
    """Return parameters, FLOPs and time of each system as texts: a row a system, a column a cost.

    A cost that no system records has no column. That of an ensemble is the sum over its members.
    """
    costs = [result.cost for result in comparison.systems.values()]
    columns = {
        title: [_cost_text(each.get(key), divisor) for each in costs]
        for title, key, divisor in _COSTS
        if any(each.get(key) is not None for each in costs)
    }
    return pd.DataFrame(columns, index=comparison.names)


def _cost_text(value: float | None, divisor: float) -> str:
    """Return a cost in its unit, such as "12.5"; a dash if it is unknown."""
    if value is None or value != value:
        return DASH
    scaled = value / divisor
    return f"{scaled:.2g}" if 0 < scaled < 1 else f"{scaled:,.1f}"


def _timing_note(comparison: Comparison) -> str:
    """Say on which devices the systems were timed; empty if none was."""
    costs = [result.cost for result in comparison.systems.values()]
    devices = {str(each["latency_device"]) for each in costs if each.get("latency_device")}
    return f"Timed on {' and '.join(sorted(devices))}." if devices else ""
