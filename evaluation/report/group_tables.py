"""Figures in groups of images and in the subgroups of a protocol."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.shares import TOO_FEW
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.groups.validation_to_test import VALIDATION
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS, highlighted, metric_title
from cxr_compare.evaluation.report.failure_rows import (
    contrast_names,
    denominator,
    group_title,
    groups_in_order,
)
from cxr_compare.evaluation.report.metric_table import SUBGROUPS, row_count
from cxr_compare.evaluation.report.table import Cell, Row, Table, figure_text
from cxr_compare.evaluation.statistics.figure_text import (
    DASH,
    interval_text,
    number,
    p_value_text,
)
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.sentences import at_threshold

_OTHER_TOPICS = frozenset(
    {
        "errors",
        "right_wrong",
        "agreement",
        "combined",
        "decision_curve",
        "prevalence",
        "cost_curve",
        SHORTCUT,
        BEYOND_SHORTCUT,
        VALIDATION,
    }
)
"""Topics of the table of failures that are not groupings of images."""
LESION_TOPIC = "lesions by "
"""Prefix of the topics of lesions in the table of failures."""
_PAGE_METRICS = ("recall", "specificity")
"""Metrics by group that the page shows; without a threshold it shows AUROC."""
_WITHOUT_THRESHOLD = ("auroc", "ap50_decided")
"""Metrics that are shown without a threshold where other metrics are shown at a threshold."""


class _GroupCell(NamedTuple):
    """Text of a group's figure or difference."""

    text: str
    shown: bool = False
    """True if the interval and the p-value after Holm's correction show the difference."""


def subgroup_tables(comparison: Comparison, policy: str) -> list[Table]:
    """Return one table for each metric, with its values in subgroups that the user planned.

    The subgroups are named in the analysis plan, a file that fixes the question before the test
    images are used.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        policy: Rule by which the threshold was chosen for metrics that need one, such as
            ``max_f1``.

    Returns:
        The tables, with one row for each subgroup and one column for each system and each
        difference from the first system; an empty list if the analysis plan names no subgroup.
    """
    keys = {key for _, key, _ in comparison.figures}
    subgroups = [
        subgroup
        for subgroup in dict.fromkeys(key.subgroup for _, key, _ in comparison.figures)
        if subgroup not in (ALL, *SUBGROUPS)
    ]
    tables: list[Table] = []
    for metric in highlighted("subgroups"):
        for metric_policy in ("", policy):
            present = [
                subgroup
                for subgroup in subgroups
                if MetricKey(subgroup, metric_policy, metric) in keys
            ]
            is_shown = metric_policy or not policy or not tables or metric in _WITHOUT_THRESHOLD
            if present and is_shown:
                tables.append(_subgroup_table(comparison, metric, metric_policy, present))
    return tables


def _subgroup_table(
    comparison: Comparison, metric: str, policy: str, subgroups: Sequence[str]
) -> Table:
    first, *others = comparison.names
    if len(others) > 1:
        others = []  # the differences are in figures.csv
    estimates = comparison.figures
    rows = []
    for subgroup in subgroups:
        figures = [
            estimates.get(name, metric, policy, subgroup=subgroup) for name in comparison.names
        ]
        counted = next((figure for figure in figures if figure.counts.n_images), figures[0])
        counts = row_count(counted.counts, "images")
        figures += [
            estimates.difference(first, name, metric, policy, subgroup=subgroup) for name in others
        ]
        rows.append((subgroup.replace("_", " "), counts, *map(figure_text, figures)))
    title = f"{metric_title(metric)}{at_threshold(policy)}"
    differences = [f"{first} − {name}" for name in others]
    return Table.from_rows(title, "", ("Subgroup", "Images", *comparison.names, *differences), rows)


def group_tables(comparison: Comparison) -> list[Table]:
    """Return one table for each metric, with its values in groups of images such as age groups.

    A table also has the difference of each group from all other images.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The tables, with one row for each group, and columns for each system and for its difference
        from all other images; an empty list if groups were not evaluated.
    """
    failures = comparison.failures
    if failures.empty:
        return []
    is_group = ~failures["topic"].isin(_OTHER_TOPICS)
    is_group &= ~failures["topic"].str.startswith(LESION_TOPIC)
    # Only the complement of a group is left out, because a group itself may be called "not
    # recorded".
    is_group &= ~failures["group"].isin("not " + failures["group"])
    return [
        _group_table(comparison, rows, str(metric))
        for metric, rows in failures[is_group].groupby("metric", sort=False)
    ]


def group_grids(comparison: Comparison) -> list[Table]:
    """Return the tables of the page on groups of images: sensitivity and specificity, or AUROC.

    Each has a row for each group and a column for each system. Differences between groups are in
    ``groups.csv``; here a dot marks those that are shown.
    """
    failures = comparison.failures
    if failures.empty:
        return []
    is_group = ~failures["topic"].isin(_OTHER_TOPICS)
    is_group &= ~failures["topic"].str.startswith(LESION_TOPIC)
    is_group &= ~failures["group"].isin("not " + failures["group"])
    of_groups = failures[is_group]
    shown_metrics = _PAGE_METRICS if comparison.main_policy else ("auroc",)
    return [
        _grid(comparison, of_groups[of_groups["metric"] == metric], metric)
        for metric in shown_metrics
        if (of_groups["metric"] == metric).any()
    ]


def _grid(comparison: Comparison, failures: pd.DataFrame, metric: str) -> Table:
    is_rest = failures["group"].isin(failures["group"] + " - rest")
    figures = failures[~is_rest]
    keys = ["topic", "group", "system"]
    first = {
        (row["topic"], row["group"], row["system"]): row
        for row in failures.drop_duplicates(keys).to_dict("records")
    }
    pairs = groups_in_order(figures)
    members = dict(list(figures.groupby(["topic", "group"], sort=False)))
    rows: list[Row] = []
    for topic, group in pairs:
        # If there are two groups, their difference is recorded with one of them.
        groups = [each for each in pairs if each[0] == topic]
        searched = groups if len(groups) == 2 else [(topic, group)]
        cells = []
        for name in comparison.names:
            gaps = [first.get((topic, f"{each} - rest", name)) for _, each in searched]
            is_shown = any(_group_cell(gap).shown for gap in gaps)
            cells.append(_grid_cell(first.get((topic, group, name)), is_shown=is_shown))
        count = denominator(members[topic, group])
        rows.append((group_title(topic.removeprefix("x_"), group), *cells, count))
    counted = {"positive": "Positive images", "negative": "Negative images"}
    policy = str(failures["policy"].iloc[0])
    return Table.from_rows(
        f"{metric_title(metric)} by group{at_threshold(policy)}",
        "",
        ("Group", *comparison.names, counted.get(METRICS[metric].share_of or "", "Images")),
        rows,
        len(comparison.names),
    )


def _grid_cell(row: Mapping[Hashable, Any] | None, *, is_shown: bool) -> Cell:
    if row is None:
        return Cell(DASH)
    if row["note"] == TOO_FEW:
        return Cell(_group_cell(row).text)
    figure = Interval.from_row(row)
    return Cell(f"{'● ' if is_shown else ''}{number(figure.estimate)}", interval_text(figure))


def lesion_grid(comparison: Comparison) -> Table | None:
    """Return the share of lesions that each system finds, by kind such as size; None without."""
    failures = comparison.failures
    if failures.empty:
        return None
    failures = failures[failures["topic"].str.startswith(LESION_TOPIC)]
    failures = failures[failures["topic"] != f"{LESION_TOPIC}lesion_count"]
    if failures.empty:
        return None
    first = {
        (row["topic"], row["group"], row["system"]): row
        for row in failures.drop_duplicates(["topic", "group", "system"]).to_dict("records")
    }
    members = dict(list(failures.groupby(["topic", "group"], sort=False)))
    rows: list[Row] = []
    for topic, group in groups_in_order(failures):
        cells = [
            _grid_cell(first.get((topic, group, name)), is_shown=False) for name in comparison.names
        ]
        title = group_title(topic.removeprefix(LESION_TOPIC), group)
        rows.append((title, *cells, denominator(members[topic, group])))
    return Table.from_rows(
        "Lesions found",
        "Share of lesions that a called box overlaps with an intersection over union (IoU) of at "
        "least 0.2. Sizes are thirds of the lesions by area.",
        ("Lesion", *comparison.names, "Lesions"),
        rows,
        len(comparison.names),
    )


def groups_lead(comparison: Comparison) -> str:
    """Return the text above the tables of groups, in whole sentences."""
    failures = comparison.failures
    tests = failures[failures["p_holm"].notna()] if "p_holm" in failures else failures.iloc[:0]
    text = "With 95 % intervals."
    if len(tests):
        which = "the only test" if len(tests) == 1 else f"all {len(tests):,} tests"
        text += (
            " ● is shown to differ from all other images: the interval of the difference excludes "
            f"0 and p, adjusted by Holm's method over {which} of groups, is below 0.05. With fewer "
            "than 30 patients of a class on either side there is no test."
        )
    return f"{text} Differences are in groups.csv."


def _group_table(comparison: Comparison, failures: pd.DataFrame, metric: str) -> Table:
    systems = comparison.names
    contrasts = contrast_names(comparison)
    rows = []
    shown: dict[tuple[str, str], list[str]] = {}  # systems that differ, by topic and group
    figures = failures[~failures["group"].isin(failures["group"] + " - rest")]
    # Rows are looked up by key, because to filter the table for every cell is slow.
    keys = ["topic", "group", "system"]
    first = {
        (row["topic"], row["group"], row["system"]): row
        for row in failures.drop_duplicates(keys).to_dict("records")
    }
    members = dict(list(figures.groupby(["topic", "group"], sort=False)))
    for topic, group in groups_in_order(figures):
        cells = [_group_cell(first.get((topic, group, name))) for name in systems]
        differences = {
            name: _group_cell(first.get((topic, f"{group} - rest", name)))
            for name in (*systems, *contrasts)
        }
        shown[topic, group] = [name for name in systems if differences[name].shown]
        rows.append(
            (
                group_title(topic.removeprefix("x_"), group),
                denominator(members[topic, group]),
                *(cell.text for cell in cells),
                *(cell.text for cell in differences.values()),
            )
        )
    policy = str(failures["policy"].iloc[0])
    printed = (*systems, *contrast_names(comparison, printed=True))
    counted = {"positive": "Positive images", "negative": "Negative images"}
    columns = (
        "Group",
        counted.get(METRICS[metric].share_of or "", "Images"),
        *systems,
        *(f"{name}: group minus all other images" for name in printed),
    )
    return Table.from_rows(
        f"{metric_title(metric)}{at_threshold(policy)}",
        " ".join(_lowest_groups(systems, figures, shown)),
        columns,
        rows,
    )


def _lowest_groups(
    systems: Sequence[str],
    figures: pd.DataFrame,
    shown: dict[tuple[str, str], list[str]],
) -> list[str]:
    """Say for each system in which group it is lowest, and if it is shown to differ there."""
    lowest = []
    for name in systems:
        bounded = figures[(figures["system"] == name) & figures["ci_low"].notna()]
        if bounded.empty:
            continue
        row = bounded.sort_values("estimate", kind="stable").iloc[0]
        topic = row["topic"]
        groups = [key for key in shown if key[0] == topic]
        # If there are two groups, their difference is recorded with one of them.
        searched = groups if len(groups) == 2 else [(topic, row["group"])]
        is_shown = any(name in shown[key] for key in searched)
        title = group_title(topic.removeprefix("x_"), row["group"])
        result = "where it is not shown to differ"
        if is_shown:
            result = "and is shown to differ there"
        lowest.append(f"{name} is lowest in {title}, {result} from all other images.")
    return lowest


def _group_cell(row: Mapping[Hashable, Any] | None) -> _GroupCell:
    """Return a group's figure, only its counts if these are few, or a difference with p-value."""
    if row is None:
        return _GroupCell(DASH)
    if row["note"] == TOO_FEW:
        if math.isnan(row["of"]):
            return _GroupCell(DASH)
        positives = row["metric"] == "auroc"
        share = "positive of" if positives else "of"
        return _GroupCell(f"{row['count']:.4g} {share} {row['of']:.0f}")
    figure = Interval.from_row(row)
    p_value = row["p_holm"]
    if pd.isna(p_value):
        return _GroupCell(figure_text(figure))
    shown = bool(figure.excludes_zero and p_value < 0.05)
    mark = "● " if shown else ""
    return _GroupCell(f"{mark}{figure_text(figure)}; Holm p {p_value_text(p_value)}", shown)
