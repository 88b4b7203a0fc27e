"""Figures in groups of images, in subgroups of a protocol, and by kind of lesion."""

from __future__ import annotations

import math

import pandas as pd

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import AGAINST, FOR
from cxr_compare.evaluation.compare.shares import TOO_FEW, VALIDATION
from cxr_compare.evaluation.compare.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.registry import METRICS, highlighted, metric_title
from cxr_compare.evaluation.report.failure_rows import contrast_names, figure_texts, first_interval
from cxr_compare.evaluation.report.metric_table import SUBGROUPS
from cxr_compare.evaluation.report.table import Table, figure_words
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.figure_text import (
    DASH,
    number,
    p_value_text,
)

_SHOWN = "● "  # before a difference that its interval and its p by Holm's method show


def subgroup_tables(comparison: Comparison, policy: str) -> list[Table]:
    """Return, metric by metric, the figures in each subgroup with intervals, without p-values."""
    known = {key for _, key, _ in comparison.estimates}
    groups = [
        each
        for each in dict.fromkeys(key.subgroup for _, key, _ in comparison.estimates)
        if each not in (ALL, AGAINST, FOR, *SUBGROUPS)
    ]
    grids: list[Table] = []
    for metric in highlighted("subgroups"):
        for at in ("", policy):
            present = [group for group in groups if MetricKey(group, at, metric) in known]
            if present and (at or not policy or not grids or metric in ("auroc", "ap50")):
                grids.append(_subgroup_table(comparison, metric, at, present))
    return grids


def _subgroup_table(comparison: Comparison, metric: str, policy: str, groups: list[str]) -> Table:
    systems = comparison.names
    figures = comparison.estimates
    lines = []
    for group in groups:
        cells = [figures.get(name, metric, policy, subgroup=group) for name in systems]
        held = next((cell.counts for cell in cells if cell.counts.n_images), cells[0].counts)
        counts = f"{held.n_images:,} ({held.n_positive:,} positive)"
        cells += [
            figures.difference(systems[0], name, metric, policy, subgroup=group)
            for name in systems[1:]
        ]
        lines.append((group.replace("_", " "), counts, *map(figure_words, cells)))
    title = metric_title(metric)
    title += f" at the threshold for {policy_text(policy)}" if policy else ""
    gaps = [f"{systems[0]} − {name}" for name in systems[1:]]
    return Table.of(title, "", ("Subgroup", "Images", *systems, *gaps), lines)


_OWN_TABLES = frozenset(
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


_LESIONS = "lesions by "


def group_tables(comparison: Comparison) -> list[Table]:
    """Return, metric by metric, the figures in each group of images and their gap to the rest."""
    table = comparison.failures
    if table.empty:
        return []
    of_images = ~table["topic"].isin(_OWN_TABLES) & ~table["topic"].str.startswith(_LESIONS)
    # Only the complement of a group: a group may itself be called "not recorded".
    table = table[of_images & ~table["group"].isin("not " + table["group"])]
    return [
        _group_table(comparison, rows, str(metric))
        for metric, rows in table.groupby("metric", sort=False)
    ]


def _group_table(comparison: Comparison, table: pd.DataFrame, metric: str) -> Table:
    systems = comparison.names
    contrasts = contrast_names(comparison)
    rows = []
    gaps_of = {}
    whole = table[~table["group"].isin(table["group"] + " - rest")]
    for topic, group in _in_order(whole):
        of_group = table[table["topic"] == topic]
        here = [_group_cell(of_group, group, name) for name in systems]
        gaps = [_group_cell(of_group, f"{group} - rest", name) for name in (*systems, *contrasts)]
        title = _group_title(topic.removeprefix("x_"), group)
        rows.append((title, _denominator(of_group[of_group["group"] == group]), *here, *gaps))
        gaps_of[topic, group] = dict(zip(systems, gaps, strict=False))
    lowest = []
    for name in systems:
        known = whole[(whole["system"] == name) & whole["ci_low"].notna()]
        if len(known):
            least = known.sort_values("estimate", kind="stable").iloc[0]
            gap = gaps_of[least["topic"], least["group"]][name]
            if gap == DASH:  # of two groups one gap stands for both
                gap = "".join(g[name] for (of, _), g in gaps_of.items() if of == least["topic"])
            title = _group_title(least["topic"].removeprefix("x_"), least["group"])
            lowest.append((name, title, _SHOWN in gap))
    policy = str(table["policy"].iloc[0])
    title = metric_title(metric)
    title += f" at the threshold for {policy_text(policy)}" if policy else ""
    printed = (*systems, *contrast_names(comparison, printed=True))
    counted = {"positive": "Positive images", "negative": "Negative images"}
    columns = (
        "Group",
        counted.get(METRICS[metric].share_of or "", "Images"),
        *systems,
        *(f"{name}: group minus all other images" for name in printed),
    )
    return Table.of(title, sentence("lowest_groups", lowest), columns, rows)


def _group_cell(table: pd.DataFrame, group: str, system: str) -> str:
    """A figure of a group, of too few patients its counts; a gap with its p-value."""
    rows = table[(table["group"] == group) & (table["system"] == system)]
    if rows.empty:
        return DASH
    row = rows.iloc[0]
    figure = first_interval(rows)
    if row["note"] == TOO_FEW:
        of = "positive of" if row["metric"] == "auroc" else "of"
        return DASH if math.isnan(row["of"]) else f"{row['count']:.4g} {of} {row['of']:.0f}"
    p_value = row["p_holm"]
    words = figure_words(figure)
    if pd.isna(p_value):
        return words
    shown = figure.excludes_zero and p_value < 0.05
    return f"{_SHOWN * bool(shown)}{words}; p {p_value_text(p_value)}"


def lesion_table(comparison: Comparison) -> Table | None:
    """Return the share of lesions found by kind of lesion, None where no lesion has a kind."""
    table = comparison.failures
    table = table[table["topic"].str.startswith(_LESIONS)]
    if table.empty:
        return None
    rows = []
    for topic, group in _in_order(table):
        here = table[(table["topic"] == topic) & (table["group"] == group)]
        title = _group_title(topic.removeprefix(_LESIONS), group)
        rows.append((title, _denominator(here), *figure_texts(comparison, here)))
    lead = sentence("lesions")
    heads = ("Lesion", "Lesions", *comparison.systems, *contrast_names(comparison, printed=True))
    return Table.of("Kinds of lesion", lead, heads, rows)


def _group_title(topic: str, group: str) -> str:
    words = topic.replace("_", " ").replace("*", " and ")
    return f"{words[:1].upper()}{words[1:]}: {group}"


def _in_order(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Topics as they come; in each, what lies below all others first and what lies above last."""
    pairs = table[["topic", "group"]].drop_duplicates()
    topics = list(dict.fromkeys(pairs["topic"]))

    def place(pair: tuple[str, str]) -> tuple[int, int]:
        low = pair[1].startswith(("up to", "under"))
        high = pair[1].startswith("over")
        return topics.index(pair[0]), high - low

    return sorted(pairs.itertuples(index=False, name=None), key=place)


def _denominator(rows: pd.DataFrame) -> str:
    """Of how many a share is."""
    known = rows["of"].dropna()
    return f"{int(known.iloc[0]):,}" if len(known) else number(None)
