"""Tables of the page with one row for each system: main figures, costs, errors, corrections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.cost_table import PAGE_COSTS, cost_text
from cxr_compare.evaluation.report.metric_table import (
    difference_cell,
    figure_cell,
    shown_contrasts,
)
from cxr_compare.evaluation.report.table import Cell, Row, Table
from cxr_compare.evaluation.report.whiskers import place_whiskers
from cxr_compare.evaluation.statistics.figure_text import DASH, number, p_value_text, score_text
from cxr_compare.evaluation.verdict.sentences import at_threshold

_BOX_ERRORS = {
    "missed": "Lesions missed",
    "poor_box": "Boxes poorly placed",
    "duplicate": "Duplicate boxes",
    "background": "Boxes on background",
}


def systems_table(comparison: Comparison, keys: Sequence[MetricKey]) -> Table:
    """Return figures with a row for each system and a column for each figure.

    The last column has the difference of the primary figure from the system that the answer names,
    where the comparison has one. A figure of boxes has the image-blind baseline below it.

    Args:
        comparison: The comparison, of three or more systems.
        keys: Metric, subgroup and rule for the threshold of each column.
    """
    names = comparison.names
    main = comparison.main_policy
    columns: list[str] = []
    for key in keys:
        at = at_threshold(key.policy) if key.policy not in ("", main) else ""
        columns.append(f"{metric_title(key.metric)}{at}")
    rows: list[list[str | Cell]] = [
        [name, *(_cell(comparison, name, key) for key in keys)] for name in names
    ]
    if any(key.policy == main for key in keys if main):
        columns.append("Threshold, score ≥")
        for row, name in zip(rows, names, strict=True):
            threshold = comparison.systems[name].thresholds.get(main)
            row.append(DASH if threshold is None else score_text(threshold))
    heading, differences = _difference_column(comparison)
    if differences:
        columns.append(heading)
        for row, cell in zip(rows, differences, strict=True):
            row.append(cell)
    table = Table.from_rows("", "", ("System", *columns), map(tuple, rows))
    return replace(table, systems_in_rows=True)


def _cell(comparison: Comparison, name: str, key: MetricKey) -> Cell:
    figures = comparison.figures
    cell = figure_cell(figures.get(name, key.metric, key.policy, subgroup=key.subgroup))
    baseline = figures.get(image_blind_name(name), key.metric, key.policy, subgroup=key.subgroup)
    if not baseline.known:
        return cell
    return replace(cell, below=f"image-blind {number(baseline.estimate)}")


def _difference_column(comparison: Comparison) -> tuple[str, list[str | Cell]]:
    """Return the heading and the cells of the differences; empty if a protocol has two figures."""
    protocol = comparison.protocol
    pairs = {pair[1]: pair for pair in shown_contrasts(comparison)}
    if protocol.partner or not pairs:
        return "", []
    figures = comparison.figures
    in_answer = figures is comparison.answer_figures
    (key,) = protocol.keys
    gaps = {name: figures.difference(*pair, *key) for name, pair in pairs.items()}
    placed = dict(
        zip(gaps, place_whiskers(list(gaps.values()), around_zero=True).whiskers, strict=True)
    )
    tests = comparison.tests_by(figures.unit)
    (best,) = {pair[0] for pair in pairs.values()}
    subject = "reference" if protocol.declared else "highest"
    column: list[str | Cell] = []
    for name in comparison.names:
        if name == best:
            column.append("")
            continue
        pair = pairs[name]
        of = key if in_answer else None
        cell = difference_cell(comparison, pair, of, gaps[name], placed[name])
        p_value = tests.single_p_value(*pair, key)
        column.append(replace(cell, p_value="" if p_value is None else p_value_text(p_value)))
    return f"{metric_title(key[0])}, {subject} minus this", column


def cost_table(comparison: Comparison) -> Table | None:
    """Return parameters, FLOPs, times and sizes of each system; None if nothing is recorded."""
    costs = [result.cost for result in comparison.systems.values()]
    known = [cost for cost in PAGE_COSTS if any(each.get(cost.key) is not None for each in costs)]
    if not known:
        return None
    rows: list[Row] = [
        (name, *(cost_text(each, cost) for cost in known))
        for name, each in zip(comparison.names, costs, strict=True)
    ]
    devices = {str(each["latency_device"]) for each in costs if each.get("latency_device")}
    lead = f"Timed on {' and '.join(sorted(devices))}. " if devices else ""
    lead += "Training, memory and image size are in costs.csv."
    columns = ("System", *(cost.title for cost in known))
    return replace(Table.from_rows("Size and time", lead, columns, rows), systems_in_rows=True)


def error_kinds_table(comparison: Comparison) -> Table | None:
    """Return counts of misses, false alarms, wrong places and errors of boxes of each system.

    None if no system has a threshold and none has boxes.
    """
    policy = comparison.main_policy
    boxes = comparison.failures
    boxes = boxes[boxes["topic"] == "errors"] if len(boxes) else boxes
    kinds = [kind for kind in _BOX_ERRORS if len(boxes) and (boxes["metric"] == kind).any()]
    misplaced = _misplaced(comparison, policy)
    rows = []
    for name, result in comparison.systems.items():
        row: list[str | Cell] = [name]
        counts = result.confusion.get(policy)
        if counts:
            row.append(_share(counts["fn"], counts["fn"] + counts["tp"]))
            row.append(_share(counts["fp"], counts["fp"] + counts["tn"]))
        else:
            row += [DASH, DASH]
        if misplaced:
            row.append(_share(*misplaced[name]) if name in misplaced else DASH)
        for kind in kinds:
            of_kind = boxes[(boxes["system"] == name) & (boxes["metric"] == kind)]
            row.append(DASH if of_kind.empty else _box_error(of_kind.iloc[0]))
        rows.append(tuple(row))
    if not policy and not kinds:
        return None
    columns = [
        "System",
        "Missed positive images",
        "False alarms",
        *(["Called positive, wrong place"] if misplaced else []),
        *(_BOX_ERRORS[kind] for kind in kinds),
    ]
    lead = f"Counts of test images{at_threshold(policy)}." if policy else ""
    if kinds:
        lead += (
            " Boxes: with 95 % intervals, after TIDE (Bolya et al. 2020); poorly placed is an IoU "
            "with a lesion from 0.1 to 0.5."
        )
    table = Table.from_rows("Kinds of error", lead.strip(), columns, rows)
    return replace(table, systems_in_rows=True)


def _share(count: int, of: int) -> Cell:
    return Cell(f"{count:,}", f"of {of:,} ({100 * count / of:.0f} %)" if of else "")


def _box_error(row: pd.Series) -> Cell:
    count, low, high = (
        f"{row['of'] * row[column]:.0f}" for column in ("estimate", "ci_low", "ci_high")
    )
    return Cell(count, "" if math.isnan(row["ci_low"]) else f"{low} to {high}")


def _misplaced(comparison: Comparison, policy: str) -> dict[str, tuple[int, int]]:
    """Return the called positive images whose point is off every lesion, and their number."""
    decisions = comparison.decisions
    column = f"decision_{policy}"
    if column not in decisions or "localised" not in decisions:
        return {}
    called = decisions[(decisions["label"] >= 1) & decisions[column].eq(True).fillna(False)]
    called = called[called["localised"].notna()]
    return {
        str(name): (int((~rows["localised"].astype(bool)).sum()), len(rows))
        for name, rows in called.groupby("system", sort=False)
    }


def corrections_table(comparison: Comparison) -> Table | None:
    """Return how many images that one system decides wrongly each other system decides rightly.

    None for one system, or if fewer than two have decisions by the main rule.
    """
    column = f"decision_{comparison.main_policy}"
    if column not in comparison.decisions:
        return None
    decided = comparison.decisions.dropna(subset=["label", column])
    right = (decided[column].astype(bool) == (decided["label"] >= 1)).astype(object)
    by_system = decided.assign(right=right).pivot_table(
        index=["image_id", "label"], columns="system", values="right", aggfunc="first"
    )
    names = [name for name in comparison.names if name in by_system]
    if len(names) < 2:
        return None
    rows: list[Row] = []
    for wrong in comparison.names:
        if wrong not in names:
            rows.append((wrong, *[DASH] * (1 + len(comparison.names))))
            continue
        errors = by_system[by_system[wrong].eq(False)]
        row: list[str | Cell] = [wrong, f"{len(errors):,}"]
        for other in comparison.names:
            if other == wrong or other not in names:
                row.append("" if other == wrong else DASH)
                continue
            corrected = errors[errors[other].eq(True)]
            n_missed = int((corrected.index.get_level_values("label") >= 1).sum())
            parts = f"{n_missed:,} missed, {counted(len(corrected) - n_missed, 'false alarm')}"
            row.append(Cell(f"{len(corrected):,}", parts if len(names) < 4 else ""))
        rows.append(tuple(row))
    table = Table.from_rows(
        "Which system corrects whom",
        f"Images that the system of the row decides wrongly{at_threshold(comparison.main_policy)}, "
        "and how many of them the system of the column decides rightly. The location is ignored.",
        ("Wrong", "Errors", *comparison.names),
        rows,
    )
    return replace(table, systems_in_rows=True)
