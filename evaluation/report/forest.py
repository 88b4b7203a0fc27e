"""Content of the forest plot at the top of a report: figures and differences on shared axes."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.metric_table import (
    difference_cell,
    figure_cell,
    shown_contrasts,
)
from cxr_compare.evaluation.report.table import Cell, Ticks, Whisker
from cxr_compare.evaluation.report.whiskers import place_whiskers


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
