"""Tables of metrics: figures with intervals, thresholds, and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.compare.comparison import Comparison, SystemResult
from cxr_compare.evaluation.compare.estimates import Estimate, Estimates
from cxr_compare.evaluation.compare.protocol import EXPLORATORY
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey, Part
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.registry import (
    METRICS,
    in_reading_order,
    metric_title,
)
from cxr_compare.evaluation.report.table import (
    Cell,
    Row,
    RowGroup,
    Table,
    Whisker,
    figure_words,
)
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.report.whiskers import place_whiskers
from cxr_compare.evaluation.statistics.figure_text import (
    interval_text,
    number,
    p_value_text,
    score_text,
)
from cxr_compare.evaluation.statistics.intervals import (
    Interval,
)

SUBGROUPS = {"vs_normal": "Against normal images only, without a threshold"}
"""Titles of the subgroups that the main table shows."""


def metric_table(comparison: Comparison, part: Part = "first") -> Table:
    """Arrange the figures with their intervals and paired differences."""
    return table_of_keys(comparison, figure_keys(comparison, part))


def table_of_keys(comparison: Comparison, keys: Sequence[MetricKey]) -> Table:
    """Return a table of chosen figures: a group of rows for each subgroup and threshold policy."""
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
    """Return on how many images and patients the figures of all images are; empty where unknown."""
    held = (figures.get(name, EXPLORATORY.metric).counts for name in figures.systems)
    counts = next((item for item in held if item.n_images), None)
    if counts is None:
        return ""
    return (
        f"{counted(counts.n_images, 'test image')} of {counted(counts.n_patients, 'patient')}, "
        f"{counts.n_positive:,} positive"
    )


def unit_tables(comparison: Comparison) -> tuple[str, list[Table]]:
    """Return ``study`` or ``patient`` with its tables; empty where only images were evaluated."""
    figures = comparison.by_unit
    if figures is None:
        return "", []
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
    return figures.unit, [table for table in tables if table.groups]


def _row_group(
    comparison: Comparison, keys: list[MetricKey], contrasts: list[tuple[str, str]]
) -> RowGroup:
    """Figures on the same images at the same policy, their differences on one axis."""
    figures = comparison.estimates
    subgroup = keys[0].subgroup
    policy = keys[0].policy
    gaps = [
        figures.difference(*pair, key.metric, policy, subgroup=subgroup)
        for key in keys
        for pair in contrasts
    ]
    # A common axis with an unbounded figure would press all others into a point.
    unbounded = {metric.name for metric in METRICS.values() if metric.unbounded}
    drawn = [key.metric not in unbounded for key in keys for _ in contrasts]
    placed, ticks = place_whiskers(
        [gap if draw else Interval() for gap, draw in zip(gaps, drawn, strict=True)],
        around_zero=True,
    )
    differences = zip(gaps, placed, strict=True)
    told = subgroup == ALL and figures is comparison.answer_estimates
    rows: list[Row] = []
    for key in keys:
        cells: list[Cell] = [
            figure_cell(figures.get(name, key.metric, policy, subgroup=subgroup))
            for name in comparison.systems
        ]
        explained = any(cell.note for cell in cells)  # then the difference need not repeat why
        for pair in contrasts:
            at_key = (key.metric, policy) if told else None
            cell = difference_cell(comparison, pair, at_key, *next(differences))
            cells.append(replace(cell, note="") if explained else cell)
        rows.append((metric_title(key.metric), *cells))
    title = SUBGROUPS.get(subgroup) or policy_text(policy)
    limits: tuple[str, ...] = ()
    if policy:
        title = f"At the threshold for {policy_text(policy)}"
        if subgroup in SUBGROUPS:
            title += ", against normal images only"
        limits = tuple(threshold_text(comparison, name, policy) for name in comparison.systems)
    at = keys[0].metric, policy
    counts = (figures.get(name, *at, subgroup=subgroup).n_chosen_on for name in comparison.systems)
    chosen = tuple(
        "" if n is None else f"chosen on {n:,} positive validation {figures.things}" for n in counts
    )
    return RowGroup(tuple(rows), title, _count(comparison, keys[0]), limits, chosen, ticks)


def _count(comparison: Comparison, key: MetricKey) -> str:
    """How many images the figures of a section are computed on."""
    figures = comparison.estimates
    held = (system[key].counts for system in figures.systems.values() if key in system)
    counts = next((item for item in held if item.n_images), None)
    if counts is None:
        return ""
    return f"{counts.n_images:,} {figures.things}, {counts.n_positive:,} positive"


def threshold_text(comparison: Comparison, system: str, policy: str) -> str:
    """Return a system's threshold by a policy, as a table shows it."""
    value = comparison.systems[system].thresholds.get(policy)
    return "no threshold" if value is None else f"score ≥ {score_text(value)}"


def figure_keys(comparison: Comparison, part: Part) -> list[MetricKey]:
    """Return the figures of a part in reading order: known metrics first, policies as they come."""
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

    def place(key: MetricKey) -> tuple[int, int, int]:
        section = policies.index(key.policy), subgroups.index(key.subgroup)
        return (*section, order.index(key.metric))

    return sorted(keys, key=place)


def _part_of(key: MetricKey, comparison: Comparison) -> Part:
    part = METRICS[key.metric].place[0] if key.metric in METRICS else "further"
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
    """A difference; one that the answer tells of is shown only where it is among all of them."""
    cell = figure_cell(gap, whisker)
    if key is None or not gap.excludes_zero or comparison.answer.decides(*pair, *key) is not False:
        return cell
    hollow = whisker and replace(whisker, decided=False)
    return replace(cell, whisker=hollow, note="not shown (Holm)")


def figure_cell(figure: Estimate, whisker: Whisker | None = None) -> Cell:
    """Return the table cell of a figure: its value, its interval and why it is undefined."""
    held = ""
    if figure.fixed_choice_interval is not None:
        held = f"held: {interval_text(Interval(0, *figure.fixed_choice_interval))}"
    text = number(figure.estimate)
    ends = interval_text(figure)
    return Cell(text, ends, figure.note, whisker, figure.known, held)


def confusion_matrices(comparison: Comparison) -> Iterator[tuple[str, str, list[tuple[Any, ...]]]]:
    """By policy, also in words: of each system name, threshold and counts, none without one."""
    for policy in comparison.policies:
        matrices = []
        for name, result in comparison.systems.items():
            counts = {cell: f"{n:,}" for cell, n in result.confusion.get(policy, {}).items()}
            matrices.append((name, threshold_text(comparison, name, policy), counts))
        yield policy, policy_text(policy), matrices


def every_pair_table(comparison: Comparison) -> Table | None:
    """Return the differences of every pair, where there are more than two systems."""
    systems = comparison.names
    if len(systems) < 3:
        return None
    known = comparison.tests_by("image")
    n_pairs = len(systems) * (len(systems) - 1) // 2
    rows = []
    for part in ("first", "place"):
        for key in figure_keys(comparison, part):
            if key.subgroup != ALL:
                continue
            at = (key.metric, key.policy)
            for first, second in combinations(systems, 2):
                gap = comparison.estimates.difference(first, second, *at)
                p_value = known.p_value(first, second, at)
                if gap.known:
                    title = metric_title(key.metric)
                    title += f", {policy_text(key.policy)}" if key.policy else ""
                    pair = f"{first} − {second}"
                    rows.append((title, pair, figure_words(gap), p_value_text(p_value)))
    lead = sentence("every_pair", n_pairs)
    columns = ("Figure", "Difference", "Estimate", "p (Holm, all pairs)")
    return Table.of("Every pair of systems", lead, columns, rows) if rows else None
