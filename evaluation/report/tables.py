"""The report's tables as plain rows; the template only lays them out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.compare.comparison import Comparison, SystemResult
from cxr_compare.evaluation.compare.estimates import Estimate, Estimates
from cxr_compare.evaluation.compare.protocol import EXPLORATORY
from cxr_compare.evaluation.decisions.thresholds import check_policy
from cxr_compare.evaluation.metrics.metric import (
    ALL,
    MetricKey,
    Part,
    ends_words,
    number,
    p_words,
    policy_words,
    score_words,
)
from cxr_compare.evaluation.metrics.registry import (
    METRICS,
    highlighted,
    in_reading_order,
    metric_title,
)
from cxr_compare.evaluation.report.further_tables import SUBGROUPS
from cxr_compare.evaluation.report.page import (
    Cell,
    ForestPart,
    ForestRow,
    Row,
    RowGroup,
    Table,
    Ticks,
    Whisker,
    figure_words,
    sentence,
)
from cxr_compare.evaluation.statistics.bootstrap import Interval


def report_tables(comparison: Comparison, rows: Sequence[TableRow]) -> dict[str, Any]:
    """The tables of the figures and their tests, by their names in the report's template."""
    place = _metric_table(comparison, "place")
    return {
        "counts": image_count(comparison.estimates),
        "forest": _forest(comparison),
        "unit": comparison.answer_unit.unit,
        "main": summary_table(comparison, rows),
        "place": place,
        "place_reason": place.reasons,
        "table": _metric_table(comparison),
        "further": _metric_table(comparison, "further"),
        "by_unit": _unit_tables(comparison),
        "pairs": _every_pair(comparison),
        "rates": _metric_table(comparison, "rates"),
        "confusion": list(_confusion_matrices(comparison)),
    }


def _metric_table(comparison: Comparison, part: Part = "first") -> Table:
    """Arrange the figures with their intervals and paired differences."""
    return _table(comparison, _figure_keys(comparison, part))


def _table(comparison: Comparison, keys: Sequence[MetricKey]) -> Table:
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


class TableRow(NamedTuple):
    """A row that a user asks for: a metric, and the policy it is taken at."""

    metric: str
    policy: str = ""


def table_rows(wanted: Sequence[str]) -> tuple[TableRow, ...]:
    """Read the rows of a table: short names of metrics, with ``@POLICY`` if they need a threshold.

    Without one such a metric is taken at the policy that the report shows.

    Raises:
        InputError: A metric or policy is unknown, or a metric has no policy.

    Example:
        >>> table_rows(["auroc", "recall@specificity>=0.90"])[1]
        TableRow(metric='recall', policy='specificity>=0.90')
    """
    rows = [TableRow(*map(str.strip, each.split("@", 1))) for each in wanted if each.strip()]
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


def summary_table(
    comparison: Comparison, rows: Sequence[TableRow] = (), *, paper: bool = False
) -> Table:
    """Arrange the rows wanted; without any the registry's that a system has, more in a paper.

    Where a system points by a map, which has no finer places than its cells, one cell is allowed.
    """
    policy = comparison.main_policy
    figures = comparison.estimates.systems.values()
    held = {key for of_system in figures for key in of_system}
    known = {key.metric for of in figures for key, figure in of.items() if figure.known}
    strict = "localised_sensitivity"
    tolerant = "localised_sensitivity_tolerant"
    left_out = strict if tolerant in known else tolerant
    keys = []
    usual = highlighted("summary", "paper") if paper else highlighted("summary")
    for row in rows or map(TableRow, usual):
        at = row.policy or (policy if "threshold" in METRICS[row.metric].needs else "")
        key = MetricKey(ALL, at, row.metric)
        if rows or (key in held and row.metric != left_out):
            keys.append(key)
    return _table(comparison, keys)


def _forest(comparison: Comparison) -> list[ForestPart]:
    """The plot that a report opens with: the primary figure of each system, then differences."""
    names = comparison.names
    figures = comparison.answer_unit
    protocol = comparison.protocol
    several = bool(protocol.partner)
    titles = [f": {METRICS[metric].inside}" if several else "" for metric in protocol.metrics]
    of = list(zip(protocol.keys, titles, strict=True))
    scores = [figures.of(name, *key) for key, _ in of for name in names]
    placed, ticks = _whiskers(scores)
    labels = [(name + title, position) for _, title in of for position, name in enumerate(names)]
    rows: list[ForestRow] = [
        (label, position, _cell(score), whisker)
        for (label, position), score, whisker in zip(labels, scores, placed, strict=True)
        if whisker is not None
    ]
    keys = [(name, key, title) for key, title in of for name in names[1:]]
    gaps = [figures.difference(names[0], name, *key) for name, key, _ in keys]
    placed, gap_ticks = _whiskers(gaps, around_zero=True)
    differences: list[ForestRow] = [
        (f"{names[0]} − {name}{title}", None, cell, cell.whisker)
        for (name, key, title), gap, whisker in zip(keys, gaps, placed, strict=True)
        if (cell := _difference(comparison, (names[0], name), key, gap, whisker)).whisker
    ]
    title = f"{protocol.title[0].upper()}{protocol.title[1:]} with 95 % interval"
    parts = [(title, rows, ticks), ("Paired difference with 95 % interval", differences, gap_ticks)]
    return [part for part in parts if part[1]]


def image_count(figures: Estimates) -> str:
    """Return on how many images and patients the figures of all images are; empty where unknown."""
    held = (figures.of(name, EXPLORATORY.metric).counts for name in figures.systems)
    counts = next((item for item in held if item.n_images), None)
    if counts is None:
        return ""
    return (
        f"{counted(counts.n_images, 'test image')} of {counted(counts.n_patients, 'patient')}, "
        f"{counts.n_positive:,} positive"
    )


def _unit_tables(comparison: Comparison) -> tuple[str, list[Table]]:
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
    tables = [_metric_table(by_unit, part) for part in parts]
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
    placed, ticks = _whiskers(
        [gap if draw else Interval() for gap, draw in zip(gaps, drawn, strict=True)],
        around_zero=True,
    )
    differences = zip(gaps, placed, strict=True)
    told = subgroup == ALL and figures is comparison.answer_unit
    rows: list[Row] = []
    for key in keys:
        cells: list[Cell] = [
            _cell(figures.of(name, key.metric, policy, subgroup=subgroup))
            for name in comparison.systems
        ]
        explained = any(cell.note for cell in cells)  # then the difference need not repeat why
        for pair in contrasts:
            at_key = (key.metric, policy) if told else None
            cell = _difference(comparison, pair, at_key, *next(differences))
            cells.append(replace(cell, note="") if explained else cell)
        rows.append((metric_title(key.metric), *cells))
    title = SUBGROUPS.get(subgroup) or policy_words(policy)
    limits: tuple[str, ...] = ()
    if policy:
        title = f"At the threshold for {policy_words(policy)}"
        if subgroup in SUBGROUPS:
            title += ", against normal images only"
        limits = tuple(_threshold(comparison, name, policy) for name in comparison.systems)
    at = keys[0].metric, policy
    counts = (figures.of(name, *at, subgroup=subgroup).n_chosen_on for name in comparison.systems)
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


def _threshold(comparison: Comparison, system: str, policy: str) -> str:
    value = comparison.systems[system].thresholds.get(policy)
    return "no threshold" if value is None else f"score ≥ {score_words(value)}"


def _figure_keys(comparison: Comparison, part: Part) -> list[MetricKey]:
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


def _whiskers(
    intervals: Sequence[Interval], *, around_zero: bool = False
) -> tuple[list[Whisker | None], Ticks]:
    """Place intervals on one shared axis with round figures."""
    ends = [
        end for interval in intervals if interval.bounded for end in (interval.low, interval.high)
    ]
    if not ends:
        return [None] * len(intervals), ()
    ends += [0.0] if around_zero else []
    for step in _STEPS:
        first = math.floor(min(ends) / step + 1e-9)
        last = math.ceil(max(ends) / step - 1e-9)
        if last - first <= _MOST_STEPS:
            break
    last = max(last, first + 1)
    low = first * step
    high = last * step

    def place(value: float) -> float:
        return round((value - low) / (high - low) * 100, 2)

    placed: list[Whisker | None] = []
    for interval in intervals:
        low_at, at, high_at = map(place, (interval.low, interval.estimate, interval.high))
        whisker = Whisker(low_at, at, high_at, interval.excludes_zero)
        placed.append(whisker if interval.bounded else None)
    ticks = [n * step for n in range(first, last + 1)]
    return placed, tuple((place(tick), number(tick, 2) if tick else "0") for tick in ticks)


_STEPS = (0.01, 0.02, 0.05, *(digit * 10.0**power for power in range(-1, 7) for digit in (1, 2, 5)))
_MOST_STEPS = 4


def _difference(
    comparison: Comparison,
    pair: tuple[str, str],
    key: tuple[str, str] | None,
    gap: Estimate,
    whisker: Whisker | None,
) -> Cell:
    """A difference; one that the answer tells of is shown only where it is among all of them."""
    cell = _cell(gap, whisker)
    if key is None or not gap.excludes_zero or comparison.answer.decides(*pair, *key) is not False:
        return cell
    hollow = whisker and replace(whisker, decided=False)
    return replace(cell, whisker=hollow, note="not shown (Holm)")


def _cell(figure: Estimate, whisker: Whisker | None = None) -> Cell:
    held = "" if figure.held is None else f"held: {ends_words(Interval(0, *figure.held))}"
    text = number(figure.estimate)
    ends = ends_words(figure)
    return Cell(text, ends, figure.note, whisker, figure.known, held)


def _confusion_matrices(comparison: Comparison) -> Iterator[tuple[str, str, list[tuple[Any, ...]]]]:
    """By policy, also in words: of each system name, threshold and counts, none without one."""
    for policy in comparison.policies:
        matrices = []
        for name, result in comparison.systems.items():
            counts = {cell: f"{n:,}" for cell, n in result.confusion.get(policy, {}).items()}
            matrices.append((name, _threshold(comparison, name, policy), counts))
        yield policy, policy_words(policy), matrices


def _every_pair(comparison: Comparison) -> Table | None:
    """Return the differences of every pair, where there are more than two systems."""
    systems = comparison.names
    if len(systems) < 3:
        return None
    known = comparison.tests_by("image")
    n_pairs = len(systems) * (len(systems) - 1) // 2
    rows = []
    for part in ("first", "place"):
        for key in _figure_keys(comparison, part):
            if key.subgroup != ALL:
                continue
            at = (key.metric, key.policy)
            for first, second in combinations(systems, 2):
                gap = comparison.estimates.difference(first, second, *at)
                p_value = known.p_value(first, second, at)
                if gap.known:
                    title = metric_title(key.metric)
                    title += f", {policy_words(key.policy)}" if key.policy else ""
                    pair = f"{first} − {second}"
                    rows.append((title, pair, figure_words(gap), p_words(p_value)))
    lead = sentence("every_pair", n_pairs)
    columns = ("Figure", "Difference", "Estimate", "p (Holm, all pairs)")
    return Table.of("Every pair of systems", lead, columns, rows) if rows else None
