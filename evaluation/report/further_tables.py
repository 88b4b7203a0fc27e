"""Further tables of the report: agreement, groups of images, lesions, errors, published figures."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import AGAINST, FOR
from cxr_compare.evaluation.compare.shares import TOO_FEW, VALIDATION
from cxr_compare.evaluation.compare.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.metrics.metric import (
    ALL,
    DASH,
    MetricKey,
    number,
    p_words,
    policy_words,
)
from cxr_compare.evaluation.metrics.registry import METRICS, highlighted, metric_title
from cxr_compare.evaluation.report.page import Table, figure_words, sentence
from cxr_compare.evaluation.statistics.bootstrap import Interval

_RATES = (("recall", "Sensitivity"), ("specificity", "Specificity"), ("accuracy", "Accuracy"))
_OUTSIDE = " ▲"
_ROLES = ("validation", "test")
_SHOWN = "● "  # before a difference that its interval and its p by Holm's method show


def further_tables(comparison: Comparison, sources: Collection[str]) -> dict[str, Any]:
    """The tables of the folded part of the report, by their names in the template."""
    policy = comparison.main_policy
    return {
        "published": _published(comparison, sources, policy),
        "transfer": _transfer_table(comparison),
        "uncounted": _uncounted(comparison, policy),
        "agreement": _by_reader(comparison) + _agreements(comparison, policy),
        "subgroups": _subgroups(comparison, policy),
        "errors": _errors(comparison),
        "where": _where_tables(comparison),
        "groups": _group_tables(comparison),
        "groups_lead": sentence("groups"),
    }


@cache
def _published_figures() -> list[dict[str, Any]]:
    """Every figure that a report may show, from ``published.toml``; each only with related data."""
    text = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    figures: list[dict[str, Any]] = tomllib.loads(text)["figure"]
    return figures


SUBGROUPS = {"vs_normal": "Against normal images only, without a threshold"}
"""Titles of the subgroups that the main table shows."""


def _by_reader(comparison: Comparison) -> list[Table]:
    """The primary difference by each reader's labels of the test images, where asked for."""
    rows = [
        (
            row["labels_of"],
            f"{row['images']:,}",
            f"{row['positive']:,}",
            row["difference"],
            figure_words(Interval(row["estimate"], row["ci_low"], row["ci_high"])),
            row["higher"],
            "the same" if row["same_verdict"] else "another",
        )
        for row in comparison.by_reader
    ]
    columns = (
        "Labels of",
        "Images",
        "Positive",
        f"Difference in {comparison.protocol.title}",
        "Estimate (interval)",
        "Higher",
        "Verdict",
    )
    lead = "Predictions and thresholds stay; the labels of the test images are those of one reader."
    return [Table.of("The answer by each reader's labels", lead, columns, rows)][: len(rows)]


def _uncounted(comparison: Comparison, policy: str) -> Table | None:
    """The main figures as analysed, and with all images that are not counted otherwise."""
    figures = comparison.estimates
    rows = []
    for name in comparison.names:
        for metric in ("auroc", "recall", "specificity", "accuracy"):
            at = policy if "threshold" in METRICS[metric].needs else ""
            cells = [figures.of(name, metric, at, subgroup=s) for s in (ALL, AGAINST, FOR)]
            if cells[1].known:
                words = [f"{figure_words(each)}, {each.counts.n_images:,} images" for each in cells]
                rows.append((f"{name}: {METRICS[metric].inside}", *words))
    heads = ("Figure", "As analysed", "All counted against", "All counted for")
    left_out = " ".join(note.text for note in comparison.notes if note.kind == "left_out")
    lead = sentence("uncounted", left_out)
    title = "Uncertain, unlabelled and failed images, counted against and for each system"
    return Table.of(title, lead, heads, rows) if rows else None


def _agreements(comparison: Comparison, policy: str) -> list[Table]:
    """Count, for the first system against each other one, who is right on which images."""
    column = f"decision_{policy}"
    if column not in comparison.decisions:
        return []
    decided = comparison.decisions.dropna(subset=["label", column])
    right = (decided[column].astype(bool) == (decided["label"] >= 1)).astype(object)
    wide = decided.assign(right=right).pivot_table(
        index=["image_id", "label"], columns="system", values="right", aggfunc="first"
    )
    first, *others = comparison.systems
    known = [name for name in others if {first, name} <= set(wide.columns)]
    return [_agreement(wide[[first, name]].dropna(), first, name, policy) for name in known]


def _agreement(right: pd.DataFrame, first: str, second: str, policy: str) -> Table:
    label = right.index.get_level_values("label") >= 1
    rows = []
    for title, by_first, by_second in (
        ("Both right", True, True),
        (f"Only {first} right", True, False),
        (f"Only {second} right", False, True),
        ("Both wrong", False, False),
    ):
        here = ((right[first] == by_first) & (right[second] == by_second)).to_numpy(dtype=bool)
        counts = (here & label).sum(), (here & ~label).sum(), here.sum()
        rows.append((title, *(f"{int(count):,}" for count in counts)))
    lead = sentence("agreement", policy)
    columns = ("Decision", "Positive images", "Negative images", "All")
    title = f"{first} and {second}: images right together and alone"
    return Table.of(title, lead, columns, rows)


def _subgroups(comparison: Comparison, policy: str) -> list[Table]:
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
                grids.append(_subgroup_grid(comparison, metric, at, present))
    return grids


def _subgroup_grid(comparison: Comparison, metric: str, policy: str, groups: list[str]) -> Table:
    systems = comparison.names
    figures = comparison.estimates
    lines = []
    for group in groups:
        cells = [figures.of(name, metric, policy, subgroup=group) for name in systems]
        held = next((cell.counts for cell in cells if cell.counts.n_images), cells[0].counts)
        counts = f"{held.n_images:,} ({held.n_positive:,} positive)"
        cells += [
            figures.difference(systems[0], name, metric, policy, subgroup=group)
            for name in systems[1:]
        ]
        lines.append((group.replace("_", " "), counts, *map(figure_words, cells)))
    title = metric_title(metric)
    title += f" at the threshold for {policy_words(policy)}" if policy else ""
    gaps = [f"{systems[0]} − {name}" for name in systems[1:]]
    return Table.of(title, "", ("Subgroup", "Images", *systems, *gaps), lines)


def _published(comparison: Comparison, sources: Collection[str], policy: str) -> Table | None:
    """Return published figures on the same data or finding beside the measured ones."""
    rows = []
    for each in _published_figures():
        of_data = set(each["sources"]) & set(sources)
        if not (of_data and set(each["findings"]) & set(comparison.findings)):
            continue
        here = []
        for name in comparison.systems:
            free, at = (comparison.estimates.of(name, each["metric"], p) for p in ("", policy))
            here.append(free if free.known else at)
        value = each["value"]
        about = each["data"]
        digits = 4 if round(value, 3) != value else 3
        figure = number(value, digits)
        if "interval" in each:
            low, high = (number(end, digits) for end in each["interval"])
            figure += f" ({low} to {high})"
        rows.append(
            (
                each["system"],
                metric_title(each["metric"]),
                figure,
                *map(figure_words, here),
                f"{about[0].upper()}{about[1:]}. {each['source']}",
                each["comparable"],
            )
        )
    if not rows:
        return None
    lead = sentence("published")
    columns = (
        "Published",
        "Figure",
        "There",
        *(f"{name}, here" for name in comparison.systems),
        "Data and source",
        "Comparable?",
    )
    return Table.of("Published figures", lead, columns, rows)


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
_PREDICTIVE = {"ppv": "Positive predictive value", "npv": "Negative predictive value"}
_ERRORS = {
    "missed": ("Missed lesion", "neither found nor poorly boxed"),
    "poor_box": ("Poorly placed box", "IoU with a lesion 0.1 to 0.5"),
    "duplicate": ("Duplicate box", "of a lesion that has one"),
    "background": ("Box on background", "IoU below 0.1"),
}


def _where_tables(comparison: Comparison) -> list[Table]:
    """Return kinds of lesion, combination, predictive values and shortcuts."""
    if comparison.failures.empty:
        return []
    tables = (_lesions, _together, _at_prevalence, _shortcuts)
    return [grid for table in tables if (grid := table(comparison)) is not None]


def _group_tables(comparison: Comparison) -> list[Table]:
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
    contrasts = _contrasts(comparison)
    rows = []
    gaps_of = {}
    whole = table[~table["group"].isin(table["group"] + " - rest")]
    for topic, group in _in_order(whole):
        of_group = table[table["topic"] == topic]
        here = [_group_cell(of_group, group, name) for name in systems]
        gaps = [_group_cell(of_group, f"{group} - rest", name) for name in (*systems, *contrasts)]
        title = _named(topic.removeprefix("x_"), group)
        rows.append((title, _of(of_group[of_group["group"] == group]), *here, *gaps))
        gaps_of[topic, group] = dict(zip(systems, gaps, strict=False))
    lowest = []
    for name in systems:
        known = whole[(whole["system"] == name) & whole["ci_low"].notna()]
        if len(known):
            least = known.sort_values("estimate", kind="stable").iloc[0]
            gap = gaps_of[least["topic"], least["group"]][name]
            if gap == DASH:  # of two groups one gap stands for both
                gap = "".join(g[name] for (of, _), g in gaps_of.items() if of == least["topic"])
            title = _named(least["topic"].removeprefix("x_"), least["group"])
            lowest.append((name, title, _SHOWN in gap))
    policy = str(table["policy"].iloc[0])
    title = metric_title(metric)
    title += f" at the threshold for {policy_words(policy)}" if policy else ""
    printed = (*systems, *_contrasts(comparison, printed=True))
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
    figure = _first(rows)
    if row["note"] == TOO_FEW:
        of = "positive of" if row["metric"] == "auroc" else "of"
        return DASH if math.isnan(row["of"]) else f"{row['count']:.4g} {of} {row['of']:.0f}"
    p_value = row["p_holm"]
    words = figure_words(figure)
    if pd.isna(p_value):
        return words
    shown = figure.excludes_zero and p_value < 0.05
    return f"{_SHOWN * bool(shown)}{words}; p {p_words(p_value)}"


def _errors(comparison: Comparison) -> Table | None:
    """How often each system makes each kind of error; none where no system has boxes."""
    table = comparison.failures
    names = comparison.names
    known = [] if table.empty else table[table["topic"] == "errors"].to_dict("records")
    counts = {(str(row["metric"]), str(row["system"])): _error_count(row) for row in known}
    rows = [
        (f"{title}: {meaning}", *(counts.get((metric, name), DASH) for name in names))
        for metric, (title, meaning) in _ERRORS.items()
        if any((metric, name) in counts for name in names)
    ]
    heads = ("Error", *names)
    title = "Kinds of error of the called boxes"
    return Table.of(title, sentence("errors"), heads, rows, len(names)) if rows else None


def _error_count(row: Mapping[Hashable, Any]) -> str:
    ends = ("estimate", "ci_low", "ci_high")
    count, low, high = (f"{row['of'] * row[each]:.0f}" for each in ends)
    return count if math.isnan(row["ci_low"]) else f"{count} ({low} to {high})"


def _lesions(comparison: Comparison) -> Table | None:
    table = comparison.failures
    table = table[table["topic"].str.startswith(_LESIONS)]
    if table.empty:
        return None
    rows = []
    for topic, group in _in_order(table):
        here = table[(table["topic"] == topic) & (table["group"] == group)]
        title = _named(topic.removeprefix(_LESIONS), group)
        rows.append((title, _of(here), *_cells(comparison, here)))
    lead = sentence("lesions")
    heads = ("Lesion", "Lesions", *comparison.systems, *_contrasts(comparison, printed=True))
    return Table.of("Kinds of lesion", lead, heads, rows)


def _together(comparison: Comparison) -> Table | None:
    table = comparison.failures
    pairs = table[table["topic"].isin(["combined", "agreement"])]
    if pairs.empty:
        return None
    metrics = ("kappa", "auroc", "recall", "specificity")
    rows = []
    for name in pairs["system"].unique():
        here = pairs[pairs["system"] == name]
        cells = [_first(here[here["metric"] == metric]) for metric in metrics]
        words = [figure_words(cell) if cell.known else "" for cell in cells]
        rows.append((str(name).replace(" - ", " − "), *words))
    lead = sentence("together")
    heads = ("Pair", "Kappa", *(metric_title(metric) for metric in metrics[1:]))
    return Table.of("Agreement and combination", lead, heads, rows)


def _at_prevalence(comparison: Comparison) -> Table | None:
    table = comparison.failures[comparison.failures["topic"] == "prevalence"]
    rows = []
    for metric, words in _PREDICTIVE.items():
        of_metric = table[table["metric"] == metric]
        if len(of_metric):
            rows.append((words, *_cells(comparison, of_metric)))
    if not rows:
        return None
    heads = ("Figure", *comparison.systems, *_contrasts(comparison, printed=True))
    lead = sentence("at_prevalence", str(table["group"].iloc[0]))
    return Table.of("At the given prevalence", lead, heads, rows)


def _shortcuts(comparison: Comparison) -> Table | None:
    table = comparison.failures[comparison.failures["topic"] == "shortcut"]
    if table.empty:
        return None
    rows = [
        (
            f"Predicted from {row['group']}".replace("_", " "),
            figure_words(Interval.from_row(row)),
            "",
        )
        for row in table.to_dict("records")
    ]
    beyond = comparison.failures[comparison.failures["topic"] == BEYOND_SHORTCUT]
    for name in comparison.systems:
        auroc = figure_words(comparison.estimates.of(name, "auroc"))
        rows.append((name, auroc, figure_words(_first(beyond[beyond["system"] == name]))))
    strongest = f" from {beyond['group'].iloc[0]}" if len(beyond) else ""
    heads = ("Guessed from, or system", "AUROC", f"Minus that of the guess{strongest}")
    return Table.of("Shortcuts", sentence("shortcuts"), heads, rows)


def _contrasts(comparison: Comparison, *, printed: bool = False) -> tuple[str, ...]:
    first, *others = comparison.systems
    minus = "−" if printed else "-"
    return tuple(f"{first} {minus} {name}" for name in others)


def _cells(comparison: Comparison, rows: pd.DataFrame) -> list[str]:
    """A figure of each system and contrast."""
    names = (*comparison.systems, *_contrasts(comparison))
    return [figure_words(_first(rows[rows["system"] == name])) for name in names]


def _first(rows: pd.DataFrame) -> Interval:
    return Interval() if rows.empty else Interval.from_row(rows.iloc[0])


def _named(topic: str, group: str) -> str:
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


def _of(rows: pd.DataFrame) -> str:
    """Of how many a share is."""
    known = rows["of"].dropna()
    return f"{int(known.iloc[0]):,}" if len(known) else number(None)


def _transfer_table(comparison: Comparison) -> Table | None:
    """The rates at each chosen threshold on validation and on test; None without any."""
    table = comparison.failures
    table = table[table["topic"] == VALIDATION] if len(table) else table
    rows = []
    groups = table.groupby(["system", "policy"], sort=False) if len(table) else ()
    for (system, policy), of in groups:
        cells = []
        for metric, _ in _RATES:
            of_metric = of[of["metric"] == metric]
            then, now = (_first(of_metric[of_metric["group"] == on]) for on in _ROLES)
            outside = now.bounded and not now.low <= now.estimate <= now.high
            cells += [figure_words(then), figure_words(now) + (_OUTSIDE if outside else "")]
        rows.append((f"{system}, threshold for {policy_words(str(policy))}", *cells))
    heads = ("on validation", "on test (expected)")
    on = [f"{title} {head}" for _, title in _RATES for head in heads]
    transfer = Table.of("Validation-to-test transfer", sentence("transfer"), ("System", *on), rows)
    return transfer if rows else None
