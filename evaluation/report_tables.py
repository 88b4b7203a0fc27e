"""The report's tables as plain rows; the template only lays them out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.charts import Whisker, policies_of, whiskers
from evaluation.intervals import ALL, Interval, find_difference, find_interval, rows_of
from evaluation.wording import (
    PLACE_METRICS,
    SUBGROUPS,
    UNDEFINED,
    metric_words,
    number,
    policy_words,
    score_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evaluation.compare import Comparison

_FIRST = ("auroc", "average_precision", "recall", "specificity", "precision", "f1", "accuracy")
_COUNTS = frozenset({"tp", "fp", "tn", "fn", "threshold"})


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
        thresholds: Each system's threshold in words, in the order of the systems; may be empty.
        rows: One per metric.
    """

    title: str
    thresholds: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class MetricTable:
    """Systems and paired differences side by side.

    Args:
        systems: Columns.
        contrasts: Further columns, each ``A − B``.
        sections: Groups of rows.
        axis: Ends of the axis that all whiskers share.
    """

    systems: tuple[str, ...]
    contrasts: tuple[str, ...]
    sections: tuple[Section, ...]
    axis: tuple[float, float]

    @property
    def has_whiskers(self) -> bool:
        """Whether any difference has an interval to draw."""
        return any(cell.whisker for cell in self._cells())

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

    @property
    def axis_words(self) -> tuple[str, str]:
        """Both ends of the axis in words."""
        return number(self.axis[0], 2), number(self.axis[1], 2)


def metric_table(comparison: Comparison, *, place: bool) -> MetricTable:
    """Arrange the figures with their intervals and paired differences.

    Args:
        comparison: What ``cxr compare`` found.
        place: The localisation figures, or (False) all others.

    Returns:
        The table; without sections where there is nothing to show.
    """
    systems = comparison.systems
    keys = _keys(comparison, place=place)
    contrasts = [(systems[0], other) for other in systems[1:]]
    differences = {
        (key, pair): find_difference(
            comparison.metrics, *pair, key.metric, key.policy, subgroup=key.subgroup
        )
        for key in keys
        for pair in contrasts
    }
    placed, axis = whiskers(list(differences.values()), around_zero=True)
    whisker_of = dict(zip(differences, placed, strict=True))
    rows: dict[tuple[str, str], list[Row]] = {}
    for key in keys:
        cells = [_cell(_figure(comparison, name, key)) for name in systems]
        told = any(cell.note for cell in cells)  # then the difference need not repeat why
        for pair in contrasts:
            cell = _cell(differences[key, pair], whisker_of[key, pair])
            cells.append(replace(cell, note="") if told else cell)
        row = Row(metric_words(key.metric).title, tuple(cells))
        rows.setdefault((key.subgroup, key.policy), []).append(row)
    sections = [_section(comparison, *where, group) for where, group in rows.items()]
    names = tuple(f"{first} − {second}" for first, second in contrasts)
    return MetricTable(tuple(systems), names, tuple(sections), axis)


def _figure(comparison: Comparison, system: str, key: _Key) -> Interval:
    return find_interval(comparison.metrics, system, key.metric, key.policy, subgroup=key.subgroup)


def _section(comparison: Comparison, subgroup: str, policy: str, rows: list[Row]) -> Section:
    if subgroup in SUBGROUPS:
        return Section(SUBGROUPS[subgroup], (), tuple(rows))
    if not policy:
        return Section(policy_words(""), (), tuple(rows))
    limits = tuple(_threshold(comparison, name, policy) for name in comparison.systems)
    return Section(f"At the threshold for {policy_words(policy)}", limits, tuple(rows))


def _threshold(comparison: Comparison, system: str, policy: str) -> str:
    value = comparison.thresholds.get(system, {}).get(policy)
    return "no threshold" if value is None else f"score ≥ {score_words(value)}"


class _Key(NamedTuple):
    """Which figure: on which images, at which policy, which metric."""

    subgroup: str
    policy: str
    metric: str


def _keys(comparison: Comparison, *, place: bool) -> list[_Key]:
    """Return the figures in reading order: known metrics first, policies as they come."""
    keys = dict.fromkeys(
        _Key(subgroup, policy, metric)
        for subgroup in (ALL, *SUBGROUPS)
        for rows in [rows_of(comparison.metrics, subgroup)]
        for system, policy, metric in zip(
            rows["system"], rows["policy"], rows["metric"], strict=True
        )
        if system in comparison.systems
        and metric not in _COUNTS
        and (metric in PLACE_METRICS) == place
    )
    subgroups = [ALL, *SUBGROUPS]
    policies = ["", *policies_of(comparison), *(key.policy for key in keys)]
    order = [*_FIRST, *PLACE_METRICS, *(key.metric for key in keys)]
    return sorted(
        keys,
        key=lambda key: (
            policies.index(key.policy),
            subgroups.index(key.subgroup),
            order.index(key.metric),
        ),
    )


def _cell(figure: Interval, whisker: Whisker | None = None) -> Cell:
    return Cell(number(figure.estimate), figure.ends, figure.note, whisker)


def cost_rows(comparison: Comparison) -> list[Row]:
    """Return parameters, FLOPs and latency, one cell per system; "unknown" where not given."""
    wanted = (
        ("Parameters", lambda cost: _scaled(cost.get("parameters"), 1e6, "million", 1)),
        ("FLOPs an image", lambda cost: _scaled(cost.get("flops"), 1e9, "billion", 1)),
        ("Time an image", lambda cost: _scaled(cost.get("latency_ms"), 1.0, "ms", 1)),
        ("Timed on", _timed_on),
    )
    costs = [comparison.costs.get(name) or {} for name in comparison.systems]
    return [Row(title, tuple(Cell(words(cost)) for cost in costs)) for title, words in wanted]


def _scaled(value: Any, unit: float, word: str, digits: int) -> str:
    if value is None or value != value:
        return "unknown"
    return f"{float(value) / unit:,.{digits}f} {word}"


def _timed_on(cost: dict[str, Any]) -> str:
    device = cost.get("latency_device")
    if not device:
        return "unknown"
    batch = cost.get("batch_size")
    return f"{device}, batch {batch}" if batch else str(device)


def decision_rows(comparison: Comparison) -> list[Row]:
    """Return what validation chose for each system; no rows where none was tuned."""
    systems = comparison.provenance.get("systems", {})
    decisions = [systems.get(name, {}).get("decision") or {} for name in comparison.systems]
    if not any(decisions):
        return []
    wanted = (
        ("Score of an image", _reduction),
        ("Chosen on", _chosen_on),
        ("Settings tried", lambda decision: str(decision.get("settings_tried", "unknown"))),
        ("Full scale of maps", _map_scale),
    )
    return [Row(title, tuple(Cell(words(each)) for each in decisions)) for title, words in wanted]


def _reduction(decision: dict[str, Any]) -> str:
    rule = decision.get("reduction")
    if not rule:
        return "as the system gives it"
    words = {
        "max": "most confident box",
        "noisy_or": "noisy-or of the boxes",
        "top_k": "mean of the three most confident boxes",
    }.get(rule["rule"], rule["rule"])
    floor = rule.get("min_score")
    return f"{words} scoring at least {floor:g}" if floor else words


def _chosen_on(decision: dict[str, Any]) -> str:
    facts = decision.get("chosen_on") or {}
    if not facts.get("n_images"):
        return "nothing: no validation images"
    return (
        f"{facts['n_images']:,} validation images of {facts['n_patients']:,} patients, "
        f"{facts['n_positive']:,} positive"
    )


def _map_scale(decision: dict[str, Any]) -> str:
    scale = decision.get("map_scale")
    return f"{number(scale[0], 2)} to {number(scale[1], 2)}" if scale else "no maps"


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of one system at one policy; no counts where it has no threshold."""

    system: str
    position: int
    policy: str
    threshold: str
    counts: dict[str, int] | None


def confusion_matrices(comparison: Comparison) -> list[tuple[str, list[ConfusionMatrix]]]:
    """Return, by policy in words, one matrix per system."""
    return [
        (
            policy_words(policy),
            [
                ConfusionMatrix(
                    name,
                    position,
                    policy_words(policy),
                    _threshold(comparison, name, policy),
                    comparison.confusion.get((name, policy)) or None,
                )
                for position, name in enumerate(comparison.systems)
            ],
        )
        for policy in policies_of(comparison)
    ]
