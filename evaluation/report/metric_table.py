"""Tables of metrics, with figures and intervals, thresholds, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import Estimate, Estimates
from cxr_compare.evaluation.compare.protocol import EXPLORATORY
from cxr_compare.evaluation.compare.system_result import SystemResult
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey, Part
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.registry import METRICS, in_reading_order, metric_title
from cxr_compare.evaluation.report.table import Cell, Row, RowGroup, Table, Whisker, figure_text
from cxr_compare.evaluation.report.templates import TABLES, sentence
from cxr_compare.evaluation.report.whiskers import place_whiskers
from cxr_compare.evaluation.statistics.figure_text import interval_text, number, p_value_text
from cxr_compare.evaluation.statistics.intervals import Interval

SUBGROUPS = {"vs_normal": "Against normal images only, without a threshold"}
"""Titles of the subgroups that the main table shows."""


@dataclass(frozen=True)
class UnitTables:
    """Tables of figures that are computed by study or by patient instead of by image.

    Attributes:
        unit: ``study`` or ``patient``: what counts as one case.
        tables: Tables of the figures, one for each part of the report.
    """

    unit: str
    tables: list[Table]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Confusion matrix of one system at one threshold.

    Attributes:
        system: Name of the system.
        threshold: Threshold as text.
        counts: Counts as texts by ``tp``, ``fp``, ``tn`` and ``fn``; empty if there is no
            threshold.
    """

    system: str
    threshold: str
    counts: dict[str, str]


@dataclass(frozen=True)
class ConfusionGroup:
    """Confusion matrices of all systems at the thresholds of one policy.

    Attributes:
        policy: Name of the policy, the rule that chooses a threshold, such as ``max_f1``.
        title: Policy as a heading.
        matrices: Matrix of each system.
    """

    policy: str
    title: str
    matrices: list[ConfusionMatrix]


def metric_table(comparison: Comparison, part: Part = "first") -> Table:
    """Return the table of a part of the report, such as ``first`` or ``localisation``.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        part: Name of the part of the report.

    Returns:
        The table; without groups if the part has no figure.
    """
    return table_of_keys(comparison, figure_keys(comparison, part))


def table_of_keys(comparison: Comparison, keys: Sequence[MetricKey]) -> Table:
    """Return a table of chosen figures, one group of rows for each subgroup and policy.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        keys: Keys of the figures, in the order of the rows.

    Returns:
        The table, with columns for systems and for differences from the first system.
    """
    systems = comparison.names
    contrasts = [(systems[0], other) for other in systems[1:]]
    groups: dict[tuple[str, str], list[MetricKey]] = {}
    for key in keys:
        groups.setdefault((key.subgroup, key.policy), []).append(key)
    names = (f"{first} − {second}" for first, second in contrasts)
    return Table(
        title="",
        columns=("Figure", *systems, *names),
        groups=tuple(_row_group(comparison, group, contrasts) for group in groups.values()),
        n_systems=len(systems),
    )


def image_count(figures: Estimates) -> str:
    """Return a text with the numbers of evaluated images and patients; empty where unknown.

    Args:
        figures: Figures of all systems.

    Returns:
        The text, for a caption or heading.
    """
    for name in figures.systems:
        counts = figures.get(name, EXPLORATORY.metric).counts
        if counts.n_images:
            return sentence("image_count", counts, template=TABLES)
    return ""


def unit_tables(comparison: Comparison) -> UnitTables | None:
    """Return the tables of figures by study or by patient.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The tables; None if only images were evaluated.
    """
    figures = comparison.by_unit
    if figures is None:
        return None
    systems: dict[str, SystemResult] = {}
    for name, result in comparison.systems.items():
        thresholds: dict[str, float | None] = {
            key.policy: figure.estimate
            for key, figure in figures.systems[name].items()
            if key.metric == "threshold"
        }
        systems[name] = replace(result, thresholds=thresholds)
    by_unit = replace(comparison, estimates=figures, systems=systems)
    parts: tuple[Part, ...] = ("first", "further")
    tables = [metric_table(by_unit, part) for part in parts]
    return UnitTables(figures.unit, [table for table in tables if table.groups])


def _row_group(
    comparison: Comparison, keys: list[MetricKey], contrasts: list[tuple[str, str]]
) -> RowGroup:
    """Return the figures of one policy on the same images, with their differences on one axis."""
    figures = comparison.estimates
    subgroup = keys[0].subgroup
    policy = keys[0].policy
    gaps: dict[tuple[str, tuple[str, str]], Estimate] = {}
    for key in keys:
        for pair in contrasts:
            gap = figures.difference(*pair, key.metric, policy, subgroup=subgroup)
            gaps[key.metric, pair] = gap
    # On a common axis with an unbounded figure, all other figures would shrink to a point.
    drawn = [
        Interval() if metric in METRICS and METRICS[metric].unbounded else gap
        for (metric, _), gap in gaps.items()
    ]
    placed = place_whiskers(drawn, around_zero=True)
    whiskers = dict(zip(gaps, placed.whiskers, strict=True))
    tests = comparison.tests_by(figures.unit)
    in_answer = subgroup == ALL and figures is comparison.answer_estimates
    rows: list[Row] = []
    for key in keys:
        cells: list[Cell] = [
            figure_cell(figures.get(name, key.metric, policy, subgroup=subgroup))
            for name in comparison.systems
        ]
        explained = any(cell.note for cell in cells)  # the difference need not repeat the note
        for pair in contrasts:
            answer_key = (key.metric, policy) if in_answer else None
            gap = gaps[key.metric, pair]
            cell = difference_cell(comparison, pair, answer_key, gap, whiskers[key.metric, pair])
            p_value = tests.single_p_value(*pair, (key.metric, policy), subgroup)
            if p_value is not None:
                cell = replace(cell, p_value=p_value_text(p_value))
            cells.append(replace(cell, note="") if explained else cell)
        rows.append((metric_title(key.metric), *cells))
    thresholds: tuple[str, ...] = ()
    if policy:
        thresholds = tuple(threshold_text(comparison, name, policy) for name in comparison.systems)
    chosen_on = []
    for name in comparison.systems:
        count = figures.get(name, keys[0].metric, policy, subgroup=subgroup).n_chosen_on
        chosen_on.append(
            sentence("chosen_on_positives", count, figures.plural_unit, template=TABLES)
        )
    return RowGroup(
        rows=tuple(rows),
        title=_group_title(subgroup, policy),
        count=_count(comparison, keys[0]),
        thresholds=thresholds,
        chosen_on=tuple(chosen_on),
        ticks=placed.ticks,
    )


def _group_title(subgroup: str, policy: str) -> str:
    if policy:
        return sentence("at_threshold", policy, subgroup in SUBGROUPS, template=TABLES)
    return SUBGROUPS.get(subgroup) or policy_text(policy)


def _count(comparison: Comparison, key: MetricKey) -> str:
    """Return a text with the number of images behind a group of rows."""
    figures = comparison.estimates
    for system in figures.systems.values():
        if key in system and system[key].counts.n_images:
            return sentence("row_count", system[key].counts, figures.plural_unit, template=TABLES)
    return ""


def threshold_text(comparison: Comparison, system: str, policy: str) -> str:
    """Return the text of a system's threshold by a policy, for a table.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        system: Name of the system.
        policy: Name of the policy (rule that chooses a threshold), such as ``max_f1``.

    Returns:
        The text, also where the system has no threshold.
    """
    value = comparison.systems[system].thresholds.get(policy)
    return sentence("threshold", value, template=TABLES)


def figure_keys(comparison: Comparison, part: Part) -> list[MetricKey]:
    """Return which figures a part of the report shows, in reading order.

    The order is by policy, subgroup and metric.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        part: Name of the part of the report, such as ``localisation``.

    Returns:
        A key (metric, policy and subgroup) for each figure, without repetitions.
    """
    keys = dict.fromkeys(
        key
        for subgroup in (ALL, *SUBGROUPS)
        for name in comparison.names
        for key in comparison.estimates.systems.get(name, ())
        if key.subgroup == subgroup and _part_of(key, comparison) == part
    )
    subgroups = [ALL, *SUBGROUPS]
    policies = ["", *comparison.policies, *(key.policy for key in keys)]
    order = [*(metric.name for metric in in_reading_order()), *(key.metric for key in keys)]

    def rank(key: MetricKey) -> tuple[int, ...]:
        return (
            policies.index(key.policy),
            subgroups.index(key.subgroup),
            order.index(key.metric),
        )

    return sorted(keys, key=rank)


def _part_of(key: MetricKey, comparison: Comparison) -> Part:
    part = METRICS[key.metric].table.part if key.metric in METRICS else "further"
    if part not in ("first", "further"):
        return part
    if key.subgroup != ALL and key.policy:
        return "further"
    return "first" if key.metric in comparison.protocol.metrics else part


def difference_cell(
    comparison: Comparison,
    pair: tuple[str, str],
    key: tuple[str, str] | None,
    gap: Estimate,
    whisker: Whisker | None,
) -> Cell:
    """Return the cell of a difference, with a mark where it is not shown after Holm's correction.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        pair: Names of the two systems.
        key: Metric and policy; None for a difference that is not part of the answer.
        gap: The difference with its interval.
        whisker: Interval of the difference on the axis of its group; None for none.

    Returns:
        Cell with the value, the interval and the mark.
    """
    cell = figure_cell(gap, whisker)
    if key is None or not gap.excludes_zero:
        return cell
    return replace(cell, corrected=comparison.answer.decides(*pair, *key) is False)


def figure_cell(figure: Estimate, whisker: Whisker | None = None) -> Cell:
    """Return the cell of a figure.

    Args:
        figure: The figure with its interval.
        whisker: Interval on the axis of the group of rows; None for none.

    Returns:
        Cell with the value, the interval, and the reason if the figure is undefined.
    """
    fixed = ""
    if figure.fixed_choice_interval is not None:
        fixed = sentence(
            "fixed_interval",
            interval_text(Interval(0, *figure.fixed_choice_interval)),
            template=TABLES,
        )
    return Cell(
        text=number(figure.estimate),
        ends=interval_text(figure),
        note=figure.note,
        whisker=whisker,
        known=figure.known,
        fixed=fixed,
    )


def confusion_matrices(comparison: Comparison) -> list[ConfusionGroup]:
    """Return the confusion matrices of every system at each policy.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One group for each policy, with a matrix for each system.
    """
    groups = []
    for policy in comparison.policies:
        matrices = []
        for name, result in comparison.systems.items():
            counts = {cell: f"{n:,}" for cell, n in result.confusion.get(policy, {}).items()}
            matrices.append(ConfusionMatrix(name, threshold_text(comparison, name, policy), counts))
        groups.append(ConfusionGroup(policy, policy_text(policy), matrices))
    return groups


def every_pair_table(comparison: Comparison) -> Table | None:
    """Return a table of the differences of every pair of systems.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The table; None for fewer than three systems.
    """
    systems = comparison.names
    if len(systems) < 3:
        return None
    tests = comparison.tests_by("image")
    rows = []
    keys = [*figure_keys(comparison, "first"), *figure_keys(comparison, "localisation")]
    for key in keys:
        if key.subgroup != ALL:
            continue
        for first, second in combinations(systems, 2):
            gap = comparison.estimates.difference(first, second, key.metric, key.policy)
            if not gap.known:
                continue
            title = metric_title(key.metric)
            if key.policy:
                title += f", {policy_text(key.policy)}"
            p_value = tests.p_value(first, second, (key.metric, key.policy))
            rows.append((title, f"{first} − {second}", figure_text(gap), p_value_text(p_value)))
    if not rows:
        return None
    n_pairs = len(systems) * (len(systems) - 1) // 2
    return Table.from_rows(
        sentence("every_pair_title", template=TABLES),
        sentence("every_pair_lead", n_pairs, template=TABLES),
        ("Figure", "Difference", "Estimate", "p (Holm, all pairs)"),
        rows,
    )
