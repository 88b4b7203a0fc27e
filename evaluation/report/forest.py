"""The forest plot at the head of a report: rows on shared axes with round ticks."""

from __future__ import annotations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.registry import (
    METRICS,
)
from cxr_compare.evaluation.report.metric_table import difference_cell, figure_cell
from cxr_compare.evaluation.report.table import (
    ForestPart,
    ForestRow,
)
from cxr_compare.evaluation.report.whiskers import place_whiskers


def forest_parts(comparison: Comparison) -> list[ForestPart]:
    """The plot that a report opens with: the primary figure of each system, then differences."""
    names = comparison.names
    figures = comparison.answer_estimates
    protocol = comparison.protocol
    several = bool(protocol.partner)
    titles = [f": {METRICS[metric].inside}" if several else "" for metric in protocol.metrics]
    of = list(zip(protocol.keys, titles, strict=True))
    scores = [figures.get(name, *key) for key, _ in of for name in names]
    placed, ticks = place_whiskers(scores)
    labels = [(name + title, position) for _, title in of for position, name in enumerate(names)]
    rows: list[ForestRow] = [
        (label, position, figure_cell(score), whisker)
        for (label, position), score, whisker in zip(labels, scores, placed, strict=True)
        if whisker is not None
    ]
    keys = [(name, key, title) for key, title in of for name in names[1:]]
    gaps = [figures.difference(names[0], name, *key) for name, key, _ in keys]
    placed, gap_ticks = place_whiskers(gaps, around_zero=True)
    differences: list[ForestRow] = [
        (f"{names[0]} − {name}{title}", None, cell, cell.whisker)
        for (name, key, title), gap, whisker in zip(keys, gaps, placed, strict=True)
        if (cell := difference_cell(comparison, (names[0], name), key, gap, whisker)).whisker
    ]
    title = f"{protocol.title[0].upper()}{protocol.title[1:]} with 95 % interval"
    parts = [(title, rows, ticks), ("Paired difference with 95 % interval", differences, gap_ticks)]
    return [part for part in parts if part[1]]
