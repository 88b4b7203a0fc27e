"""Content of the forest plot at the top of a report: figures and differences on shared axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import Figure
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.metric_table import shown_contrasts
from cxr_compare.evaluation.report.whiskers import Ticks, Whisker, place_whiskers
from cxr_compare.evaluation.statistics.figure_text import interval_text, number
from cxr_compare.evaluation.statistics.intervals import note_without_counts


@dataclass(frozen=True)
class Cell:
    """Table cell with one value: texts of value and interval, and what is drawn beside them.

    Attributes:
        text: The value as text, such as ``0.912``.
        ends: The interval as text, such as ``0.880 to 0.940``; empty without an interval.
        note: Reason why the value is undefined or has no interval, or a remark on the value; may be
            empty.
        whisker: Positions at which value and interval are drawn; None if they are not drawn.
        known: True if the value is defined.
        corrected: True for a difference whose own interval excludes 0, but which Holm's correction
            for several comparisons withdraws.
        p_value: p-value of a difference as text, not corrected for other comparisons; empty if
            unknown.
        below: Further text below the interval, such as that of the image-blind baseline.
    """

    text: str
    ends: str = ""
    note: str = ""
    whisker: Whisker | None = None
    known: bool = True
    corrected: bool = False
    p_value: str = ""
    below: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.ends})" if self.ends else self.text


@dataclass(frozen=True)
class ForestRow:
    """Row of a forest plot: a dot with an interval for one system, or for a difference of two.

    Attributes:
        name: Text at the left: name of the system, or of the difference, such as ``A − B``.
        position: Index of the system in the comparison, from 0, which decides its colour; None for
            a difference.
        cell: Value with its interval as text.
        whisker: Position of the dot and of the interval's ends, in percent of the axis.
    """

    name: str
    position: int | None
    cell: Cell
    whisker: Whisker


@dataclass(frozen=True)
class ForestPart:
    """Rows of a forest plot that share one axis.

    Attributes:
        title: Title above the rows.
        rows: Rows from top to bottom.
        ticks: Ticks of the axis, each with its position in percent of the axis and its text, such
            as ``(50.0, "0.85")``.
    """

    title: str
    rows: list[ForestRow]
    ticks: Ticks


def forest_parts(comparison: Comparison) -> list[ForestPart]:
    """Return the two parts of the forest plot: the primary metric of each system, and differences.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The parts that have at least one row.
    """
    parts = [_figure_part(comparison), _difference_part(comparison)]
    return [part for part in parts if part.rows]


def _metric_suffixes(comparison: Comparison) -> list[str]:
    """Return the text after a system's name for each metric; empty unless a protocol has two."""
    protocol = comparison.protocol
    if not protocol.partner:
        return [""] * len(protocol.metrics)
    return [f": {METRICS[metric].title_in_sentence}" for metric in protocol.metrics]


def _figure_part(comparison: Comparison) -> ForestPart:
    figures = comparison.answer_figures
    protocol = comparison.protocol
    labels = []
    scores = []
    for key, suffix in zip(protocol.keys, _metric_suffixes(comparison), strict=True):
        for position, name in enumerate(comparison.names):
            labels.append((name + suffix, position))
            scores.append(figures.get(name, *key))
    placed = place_whiskers(scores)
    rows = [
        ForestRow(label, position, figure_cell(score), whisker)
        for (label, position), score, whisker in zip(labels, scores, placed.whiskers, strict=True)
        if whisker is not None
    ]
    title = f"{protocol.title[0].upper()}{protocol.title[1:]} with 95 % interval"
    return ForestPart(title, rows, placed.ticks)


def _difference_part(comparison: Comparison) -> ForestPart:
    contrasts = shown_contrasts(comparison)
    figures = comparison.answer_figures
    keys = []
    for key, suffix in zip(comparison.protocol.keys, _metric_suffixes(comparison), strict=True):
        keys += [(pair, key, suffix) for pair in contrasts]
    gaps = [figures.difference(*pair, *key) for pair, key, _ in keys]
    placed = place_whiskers(gaps, around_zero=True)
    rows = []
    for (pair, key, suffix), gap, whisker in zip(keys, gaps, placed.whiskers, strict=True):
        cell = difference_cell(comparison, pair, key, gap, whisker)
        if cell.whisker is not None:
            name = f"{pair[0]} − {pair[1]}" if len(contrasts) == 1 else f"− {pair[1]}"
            rows.append(ForestRow(f"{name}{suffix}", None, cell, cell.whisker))
    title = "Paired difference with 95 % interval"
    if len(contrasts) > 1:
        title = f"{contrasts[0][0]} minus each other system: paired difference with 95 % interval"
    return ForestPart(title, rows, placed.ticks)


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
