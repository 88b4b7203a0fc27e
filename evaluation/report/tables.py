"""The report's tables as plain rows; the template only lays them out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from evaluation.compare.intervals import ALL, Interval, find_difference, find_interval, rows_of
from evaluation.metrics.registry import (
    PLACE_METRICS,
    RATE_METRICS,
    SUBGROUPS,
    UNDEFINED,
    metric_words,
    number,
    policy_words,
    score_words,
)
from evaluation.report.charts import Whisker, policies_of, whiskers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from evaluation.compare.comparison import Comparison

_FIRST = ("auroc", "average_precision", "recall", "specificity", "precision", "f1", "accuracy")
_COUNTS = frozenset({"tp", "fp", "tn", "fn", "threshold"})
_OFF_SCALE = frozenset(
    {"lr_positive", "lr_negative", "calibration_slope", "calibration_intercept",
     "calibration_in_the_large"}
)  # fmt: skip
"""Not shares: on a common axis they would press all others into a point."""


@dataclass(frozen=True)
class Cell:
    """One figure: its text, its interval below, and a whisker where it is a difference."""

    text: str
    ends: str = ""
    note: str = ""
    whisker: Whisker | None = None


@dataclass(frozen=True)
class Row:
    """One metric: a cell per system, then one per difference."""

    title: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """Rows that share a threshold policy.

    Args:
        title: The policy in words.
        count: On how many images, and how many of them are positive.
        thresholds: Each system's threshold in words, in the order of the systems; may be empty.
        rows: One per metric.
        axis: Ends of the axis that the section's whiskers share, in words; empty without any.
    """

    title: str
    count: str
    thresholds: tuple[str, ...]
    rows: tuple[Row, ...]
    axis: str


@dataclass(frozen=True)
class MetricTable:
    """Systems and paired differences side by side.

    Args:
        systems: Columns.
        contrasts: Further columns, each ``A − B``.
        sections: Groups of rows.
    """

    systems: tuple[str, ...]
    contrasts: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def has_whiskers(self) -> bool:
        """Whether any difference has an interval to draw."""
        return any(section.axis for section in self.sections)

    @property
    def known(self) -> bool:
        """Whether any figure is defined."""
        return any(cell.text != UNDEFINED for cell in self._cells())

    @property
    def reasons(self) -> str:
        """Why figures are undefined, each reason once."""
        notes = dict.fromkeys(cell.note for cell in self._cells() if cell.note)
        return "; ".join(notes)

    def _cells(self) -> Iterator[Cell]:
        return (cell for part in self.sections for row in part.rows for cell in row.cells)


Part = Literal["first", "place", "rates", "further"]


def metric_table(comparison: Comparison, part: Part = "first") -> MetricTable:
    """Arrange the figures with their intervals and paired differences.

    Args:
        comparison: What ``cxr compare`` found.
        part: ``first``: the figures that every report opens with, and the primary one; ``place``:
            of localisation; ``rates``: sensitivity per lesion at single rates of false marks;
            ``further``: all others.

    Returns:
        The table; without sections where there is nothing to show.
    """
    systems = comparison.systems
    contrasts = [(systems[0], other) for other in systems[1:]]
    groups: dict[tuple[str, str], list[Key]] = {}
    for key in figure_keys(comparison, part):
        groups.setdefault((key.subgroup, key.policy), []).append(key)
    sections = [_section(comparison, group, contrasts) for group in groups.values()]
    names = tuple(f"{first} − {second}" for first, second in contrasts)
    return MetricTable(tuple(systems), names, tuple(sections))


def unit_tables(comparison: Comparison) -> tuple[str, list[MetricTable]]:
    """Return ``study`` or ``patient`` with the tables by it; empty where only images were judged.

    Args:
        comparison: What ``cxr compare`` found.
    """
    rows = comparison.by_unit
    if rows is None or rows.empty:
        return "", []
    told = rows[rows["metric"] == "threshold"]
    thresholds: dict[str, dict[str, float | None]] = {}
    for system, policy, value in zip(told["system"], told["policy"], told["estimate"], strict=True):
        thresholds.setdefault(system, {})[policy] = float(value)
    by_unit = replace(comparison, metrics=rows, thresholds=thresholds)
    parts: tuple[Part, ...] = ("first", "further")
    tables = [metric_table(by_unit, part) for part in parts]
    return str(rows["unit"].iloc[0]), [table for table in tables if table.sections]


def _section(comparison: Comparison, keys: list[Key], contrasts: list[tuple[str, str]]) -> Section:
    """Figures on the same images at the same policy, their differences on one axis."""
    metrics, subgroup, policy = comparison.metrics, keys[0].subgroup, keys[0].policy
    gaps = [
        find_difference(metrics, *pair, key.metric, policy, subgroup=subgroup)
        for key in keys
        for pair in contrasts
    ]
    drawn = [key.metric not in _OFF_SCALE for key in keys for _ in contrasts]
    placed, axis = whiskers(
        [gap if draw else Interval() for gap, draw in zip(gaps, drawn, strict=True)],
        around_zero=True,
    )
    differences = iter([_cell(gap, whisker) for gap, whisker in zip(gaps, placed, strict=True)])
    rows = []
    for key in keys:
        cells = [
            _cell(find_interval(metrics, name, key.metric, policy, subgroup=subgroup))
            for name in comparison.systems
        ]
        told = any(cell.note for cell in cells)  # then the difference need not repeat why
        for _ in contrasts:
            cell = next(differences)
            cells.append(replace(cell, note="") if told else cell)
        rows.append(Row(metric_words(key.metric).title, tuple(cells)))
    title = SUBGROUPS.get(subgroup) or policy_words(policy)
    limits: tuple[str, ...] = ()
    if policy:
        title = f"At the threshold for {policy_words(policy)}"
        if subgroup in SUBGROUPS:
            title += ", against normal images only"
        limits = tuple(_threshold(comparison, name, policy) for name in comparison.systems)
    words = f"{number(axis[0], 2)} to {number(axis[1], 2)}" if any(placed) else ""
    return Section(title, _count(metrics, keys[0]), limits, tuple(rows), words)


def _count(metrics: pd.DataFrame, key: Key) -> str:
    """How many images the figures of a section are computed on."""
    rows = rows_of(metrics, key.subgroup)
    rows = rows[(rows["metric"] == key.metric) & (rows["policy"] == key.policy)]
    if rows.empty or "n_positive" not in rows:
        return ""
    first = rows.iloc[0]
    units = {"study": "studies", "patient": "patients"}.get(str(first.get("unit")), "images")
    return f"{int(first['n_images']):,} {units}, {int(first['n_positive']):,} positive"


def _threshold(comparison: Comparison, system: str, policy: str) -> str:
    value = comparison.thresholds.get(system, {}).get(policy)
    return "no threshold" if value is None else f"score ≥ {score_words(value)}"


class Key(NamedTuple):
    """Which figure: on which images, at which policy, which metric."""

    subgroup: str
    policy: str
    metric: str


def figure_keys(comparison: Comparison, part: Part) -> list[Key]:
    """Return the figures of a part in reading order: known metrics first, policies as they come.

    Args:
        comparison: What ``cxr compare`` found.
        part: As in `metric_table`.
    """
    keys = dict.fromkeys(
        Key(subgroup, policy, metric)
        for subgroup in (ALL, *SUBGROUPS)
        for rows in [rows_of(comparison.metrics, subgroup)]
        for system, policy, metric in zip(
            rows["system"], rows["policy"], rows["metric"], strict=True
        )
        if system in comparison.systems
        and metric not in _COUNTS
        and _part_of(Key(subgroup, policy, metric), comparison) == part
    )
    subgroups = [ALL, *SUBGROUPS]
    policies = ["", *policies_of(comparison), *(key.policy for key in keys)]
    order = [*_FIRST, *PLACE_METRICS, *(key.metric for key in keys)]

    def place(key: Key) -> tuple[int, int, int]:
        asked = policies.index(key.policy), subgroups.index(key.subgroup)
        return (*asked, order.index(key.metric))

    return sorted(keys, key=place)


def _part_of(key: Key, comparison: Comparison) -> Part:
    if key.metric in RATE_METRICS:
        return "rates"
    if key.metric in PLACE_METRICS:
        return "place"
    if key.subgroup != ALL and key.policy:
        return "further"
    return "first" if key.metric in (*_FIRST, comparison.protocol.metric) else "further"


def _cell(figure: Interval, whisker: Whisker | None = None) -> Cell:
    return Cell(number(figure.estimate), figure.ends, figure.note, whisker)


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of one system at one policy; no counts where it has no threshold.

    Args:
        system: Display name.
        position: Its place among the systems.
        key: The policy.
        policy: The policy in words.
        threshold: In words.
        counts: ``tp``, ``fp``, ``tn``, ``fn``.
    """

    system: str
    position: int
    key: str
    policy: str
    threshold: str
    counts: dict[str, int] | None

    @property
    def printed(self) -> dict[str, str]:
        """The counts with commas."""
        return {name: f"{count:,}" for name, count in (self.counts or {}).items()}


def confusion_matrices(comparison: Comparison) -> list[tuple[str, list[ConfusionMatrix]]]:
    """Return, by policy in words, one matrix per system."""
    return [
        (
            policy_words(policy),
            [
                ConfusionMatrix(
                    name,
                    position,
                    policy,
                    policy_words(policy),
                    _threshold(comparison, name, policy),
                    comparison.confusion.get((name, policy)) or None,
                )
                for position, name in enumerate(comparison.systems)
            ],
        )
        for policy in policies_of(comparison)
    ]
