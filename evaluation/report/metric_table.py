"""Tables of metrics, with figures and intervals, thresholds, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import Figure, Figures, SampleSize, image_blind_name
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey, Part
from cxr_compare.evaluation.metrics.missing_sentences import beside_count, boxed_positives
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.registry import METRICS, in_reading_order, metric_title
from cxr_compare.evaluation.protocol import EXPLORATORY
from cxr_compare.evaluation.report.table import Cell, Row, RowGroup, Table, Whisker
from cxr_compare.evaluation.report.whiskers import place_whiskers
from cxr_compare.evaluation.statistics.figure_text import (
    interval_text,
    number,
    p_equation,
    p_value_text,
    score_text,
)
from cxr_compare.evaluation.statistics.intervals import Interval, note_without_counts
from cxr_compare.evaluation.system_result import SystemResult

SUBGROUPS = {"vs_normal": "Against normal images only, without a threshold"}
"""Titles of the subgroups that the main table shows."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """Confusion matrix of one system (detector or classifier) at one threshold, as texts.

    Attributes:
        system: Name of the system.
        threshold: The threshold as text, or a text that says that there is none.
        counts: Numbers of images as texts, by ``tp`` (positive and called positive), ``fp``, ``tn``
            and ``fn``; empty if there is no threshold.
    """

    system: str
    threshold: str
    counts: dict[str, str]


def metric_table(comparison: Comparison, part: Part = "first") -> Table:
    """Return one of the report's tables of metrics, for all systems and their differences.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        part: Which table: ``first`` (main metrics), ``localisation`` (boxes and points), ``rates``
            (sensitivity at single rates of false positives) or ``further`` (all other metrics).

    Returns:
        The table, with one row for each metric, and one column for each system and for each
        difference of the first system from another; it has no rows if no metric of this table was
        computed.
    """
    return table_of_keys(comparison, figure_keys(comparison, part))


def table_of_keys(comparison: Comparison, keys: Sequence[MetricKey]) -> Table:
    """Return a table of chosen metrics, for all systems and their differences from the first one.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        keys: Metric, subgroup of images and rule for the threshold of each row, in the order of the
            rows.

    Returns:
        The table, with one row for each metric, one column for each system, and one for each
        difference of the first system from another; rows with the same subgroup and rule share a
        heading.
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


def image_count(figures: Figures) -> str:
    """Return as text the numbers of test images and patients behind the metrics.

    Args:
        figures: Values of the metrics of all systems.

    Returns:
        The text for a caption; empty where the numbers are unknown.
    """
    for name in figures.systems:
        counts = figures.get(name, EXPLORATORY.metric).counts
        if counts.n_images:
            images = counted(counts.n_images, "test image")
            patients = counted(counts.n_patients, "patient")
            return f"{images} of {patients}, {counts.n_positive:,} positive"
    return ""


def evaluated_by_unit(comparison: Comparison) -> Comparison | None:
    """Return the comparison whose figures are by study or patient; None if they are by image."""
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
    return replace(comparison, figures=figures, systems=systems)


def _row_group(
    comparison: Comparison, keys: list[MetricKey], contrasts: list[tuple[str, str]]
) -> RowGroup:
    """Return the figures of one policy on the same images, with their differences on one axis."""
    figures = comparison.figures
    subgroup = keys[0].subgroup
    policy = keys[0].policy
    gaps: dict[tuple[str, tuple[str, str]], Figure] = {}
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
    in_answer = subgroup == ALL and figures is comparison.answer_figures
    rows: list[Row] = []
    for key in keys:
        cells: list[Cell] = [
            _with_boxed_positives(
                figure_cell(figures.get(name, key.metric, policy, subgroup=subgroup)),
                figures,
                name,
                key,
            )
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
        rows += _image_blind_rows(comparison, key, len(contrasts))
    thresholds: tuple[str, ...] = ()
    if policy:
        thresholds = tuple(threshold_text(comparison, name, policy) for name in comparison.systems)
    chosen_on = []
    for name in comparison.systems:
        count = figures.get(name, keys[0].metric, policy, subgroup=subgroup).n_chosen_on
        unit = figures.plural_unit
        chosen_on.append("" if count is None else f"chosen on {count:,} positive validation {unit}")
    return RowGroup(
        rows=tuple(rows),
        title=_group_title(subgroup, policy),
        count=_count(comparison, keys[0]),
        thresholds=thresholds,
        chosen_on=tuple(chosen_on),
        ticks=placed.ticks,
    )


def _with_boxed_positives(cell: Cell, figures: Figures, system: str, key: MetricKey) -> Cell:
    """Add to a localisation figure on how many positive images it rests, if some lack boxes."""
    counts = figures.boxed_positives(system, key)
    if not cell.known or counts is None:
        return cell
    note = boxed_positives(*counts)
    return replace(cell, note=f"{cell.note}; {note}" if cell.note else note)


def _image_blind_rows(comparison: Comparison, key: MetricKey, n_contrasts: int) -> list[Row]:
    """Return a row of the systems' image-blind baselines, and one of the differences from them.

    The table of sensitivities at single rates of false positives has the baselines only.
    """
    figures = comparison.figures
    pairs = [(name, image_blind_name(name)) for name in comparison.names]
    of = (key.metric, key.policy)
    baselines = [figures.get(baseline, *of, subgroup=key.subgroup) for _, baseline in pairs]
    if not any(baseline.known for baseline in baselines):
        return []
    empty = [Cell("", known=False)] * n_contrasts
    title = metric_title(key.metric)
    heading = f"{title}, image-blind"
    rows: list[Row] = [(heading, *map(figure_cell, baselines), *empty)]
    if METRICS[key.metric].table.part == "rates":
        return rows
    gaps = []
    for pair in pairs:
        gap = figures.difference(*pair, *of, subgroup=key.subgroup)
        cell = replace(figure_cell(gap), note="")
        if gap.p_value is not None:
            cell = replace(cell, ends=f"{cell.ends}, {p_equation(gap.p_value)}")
        gaps.append(cell)
    return [*rows, (f"{title}, minus image-blind", *gaps, *empty)]


def _group_title(subgroup: str, policy: str) -> str:
    if policy:
        normal_only = ", against normal images only" if subgroup in SUBGROUPS else ""
        return f"At the threshold for {policy_text(policy)}{normal_only}"
    return SUBGROUPS.get(subgroup) or policy_text(policy)


def _count(comparison: Comparison, key: MetricKey) -> str:
    """Return a text with the number of images behind a group of rows."""
    figures = comparison.figures
    for system in figures.systems.values():
        if key in system and system[key].counts.n_images:
            count = row_count(system[key].counts, figures.plural_unit)
            missing = beside_count(comparison.notes) if figures.unit == "image" else ""
            return f"{count}; {missing}" if missing and key.subgroup == ALL else count
    return ""


def row_count(counts: SampleSize, units: str) -> str:
    """Return as text the numbers of images (or other units) behind a row, such as "9 images"."""
    return f"{counts.n_images:,} {units}, {counts.n_positive:,} positive"


def threshold_text(comparison: Comparison, system: str, policy: str) -> str:
    """Return the threshold of a system as text for a table.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        system: Name of the system (detector or classifier).
        policy: Rule by which the threshold was chosen on validation images, such as ``max_f1``.

    Returns:
        The threshold, or a text that says that the system has none.
    """
    value = comparison.systems[system].thresholds.get(policy)
    return "no threshold" if value is None else f"score ≥ {score_text(value)}"


def figure_keys(comparison: Comparison, part: Part) -> list[MetricKey]:
    """Return which metrics one of the report's tables shows, in the order of its rows.

    The order is by the rule for the threshold, then by the subgroup of images, then by the metric.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        part: Which table: ``first`` (main metrics), ``localisation`` (boxes and points), ``rates``
            (sensitivity at single rates of false positives) or ``further`` (all other metrics).

    Returns:
        Metric, subgroup and rule for the threshold of each row, each once.
    """
    keys = dict.fromkeys(
        key
        for subgroup in (ALL, *SUBGROUPS)
        for name in comparison.names
        for key in comparison.figures.systems.get(name, ())
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
    gap: Figure,
    whisker: Whisker | None,
) -> Cell:
    """Return the table cell of a difference between two systems.

    Only a comparison of the verdict, which corrects for the number of comparisons, is marked as
    shown. A difference whose own interval excludes 0, but which this correction withdraws, gets
    ``corrected=True``.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        pair: Names of the two systems.
        key: Short name of the metric and rule for its threshold (empty for none); None if the
            difference is no part of the verdict.
        gap: The difference, first minus second, with its interval.
        whisker: Positions of the difference and its interval on the axis that it shares with the
            other rows; None draws nothing.

    Returns:
        The cell with value and interval as text.
    """
    decides = None if key is None else comparison.answer.decides(*pair, *key)
    if key is not None and decides is None:
        decides = comparison.answer.decides(pair[1], pair[0], *key)
    if whisker is not None:
        whisker = replace(whisker, decided=decides is True)
    cell = figure_cell(gap, whisker)
    return replace(cell, corrected=decides is False and bool(gap.excludes_zero))


def figure_cell(figure: Figure, whisker: Whisker | None = None) -> Cell:
    """Return the table cell of one value with its interval.

    Args:
        figure: The value with its interval.
        whisker: Positions of value and interval on the axis that the value shares with the other
            rows; None draws nothing.

    Returns:
        The cell with value and interval as text, and with the note of `figure`, such as the reason
        why the value is undefined. Numbers of resamples are left out of the note.
    """
    return Cell(
        text=number(figure.estimate),
        ends=interval_text(figure),
        note=note_without_counts(figure.note),
        whisker=whisker,
        known=figure.known,
    )


def confusion_matrices(comparison: Comparison) -> list[ConfusionMatrix]:
    """Return the confusion matrix of every system at its threshold by the main rule.

    The list is empty if no system has a threshold.
    """
    policy = comparison.main_policy
    if not policy:
        return []
    matrices = []
    for name, result in comparison.systems.items():
        counts = {cell: f"{n:,}" for cell, n in result.confusion.get(policy, {}).items()}
        matrices.append(ConfusionMatrix(name, threshold_text(comparison, name, policy), counts))
    return matrices


def shown_contrasts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the pairs of systems whose differences the page shows: one system with each other.

    Of three or more systems it is the one with the highest primary figure, which the answer names.
    Of two, or if a protocol was given, it is the first system, the reference.
    """
    names = comparison.names
    first = names[0]
    protocol = comparison.protocol
    if len(names) > 2 and not protocol.declared and not protocol.partner:
        scores = {name: comparison.answer_figures.get(name, *protocol.keys[0]) for name in names}
        known = [name for name in names if scores[name].known]
        first = max(known, key=lambda name: scores[name].estimate, default=first)
    return [(first, name) for name in names if name != first]
