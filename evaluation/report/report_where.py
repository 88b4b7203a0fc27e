"""Where each system fails, as tables: groups, errors, lesions, agreement, shortcuts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from evaluation.compare.intervals import Interval, find_interval
from evaluation.metrics.registry import metric_words, number, policy_words
from evaluation.report.grids import Grid, figure_words

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison

_OWN_TABLES = frozenset(
    {"errors", "right_wrong", "agreement", "combined", "decision_curve", "prevalence",
     "cost_curve", "shortcut"}
)  # fmt: skip
_LESIONS = "lesions by "
_ERRORS = {
    "found": "Lesions found (a called box, IoU ≥ 0.5)",
    "poorly_boxed": "Lesions boxed poorly (IoU 0.1 to 0.5)",
    "missed": "Lesions missed",
    "poor_box": "Poor boxes an image",
    "duplicate": "Duplicate boxes an image",
    "background": "Boxes on background an image",
}


def where_tables(comparison: Comparison) -> list[Grid]:
    """Return kinds of error, kinds of lesion, what joining gives, predictive values, shortcuts.

    Args:
        comparison: What ``cxr compare`` found.
    """
    if comparison.where.empty:
        return []
    tables = (_errors, _lesions, _together, _at_prevalence, _shortcuts)
    return [grid for table in tables if (grid := table(comparison)) is not None]


def group_tables(comparison: Comparison) -> list[Grid]:
    """Return, metric by metric, the figures in each group of images and their gap to the rest.

    Args:
        comparison: What ``cxr compare`` found.
    """
    table = comparison.where
    if table.empty:
        return []
    of_images = ~table["topic"].isin(_OWN_TABLES) & ~table["topic"].str.startswith(_LESIONS)
    table = table[of_images & ~table["group"].str.startswith("not ")]
    return [
        _group_table(comparison, rows, str(metric))
        for metric, rows in table.groupby("metric", sort=False)
    ]


def _group_table(comparison: Comparison, table: pd.DataFrame, metric: str) -> Grid:
    systems = comparison.systems
    rows = []
    whole = table[~table["group"].str.endswith(" - rest")]
    for topic, group in _in_order(whole):
        here = [_find(table, topic, group, name, metric) for name in systems]
        gaps = [_find(table, topic, f"{group} - rest", name, metric) for name in systems]
        title = _named(topic.removeprefix("x_"), group)
        rows.append((title, _of(whole, topic, group, metric), *map(figure_words, here + gaps)))
    policy = str(table["policy"].iloc[0])
    title = metric_words(metric).title
    title += f" at the threshold for {policy_words(policy)}" if policy else ""
    columns = (
        "Group",
        "Images that count",
        *systems,
        *(f"{name}, less the rest" for name in systems),
    )
    return Grid(title, "", columns, tuple(rows))


def _errors(comparison: Comparison) -> Grid | None:
    lead = (
        "Boxes from the cut that validation chose, in the manner of TIDE: each called box takes "
        "the free lesion that it overlaps most. Lesions as a share of all, boxes per image."
    )
    return _by_system(comparison, "errors", _ERRORS, "Kinds of error", lead)


def _lesions(comparison: Comparison) -> Grid | None:
    table = comparison.where
    mine = table[table["topic"].str.startswith(_LESIONS) & table["system"].isin(comparison.systems)]
    if mine.empty:
        return None
    rows = []
    for topic, group in _in_order(mine):
        names = (*comparison.systems, *_contrasts(comparison))
        cells = [_find(table, topic, group, name, "lesion_recall") for name in names]
        title = _named(topic.removeprefix(_LESIONS), group)
        rows.append((title, _of(mine, topic, group, "lesion_recall"), *map(figure_words, cells)))
    lead = "The share of lesions that a called box overlaps with an IoU of at least 0.2."
    heads = ("Lesion", "Lesions", *comparison.systems, *_contrasts(comparison, printed=True))
    return Grid("Kinds of lesion", lead, heads, tuple(rows))


def _together(comparison: Comparison) -> Grid | None:
    table = comparison.where
    mine = table[table["topic"].isin(["combined", "agreement"])]
    if mine.empty:
        return None
    names = list(dict.fromkeys(mine["system"]))
    metrics = ("kappa", "auroc", "recall", "specificity")
    rows = []
    for name in names:
        here = mine[mine["system"] == name]
        cells = [_first(here[here["metric"] == metric]) for metric in metrics]
        rows.append(
            (
                str(name).replace(" - ", " − "),
                *(figure_words(cell) if cell.known else "" for cell in cells),
            )
        )
    lead = (
        "How far the calls agree beyond chance (Cohen's kappa), and what joining would give on "
        "these test images; a joined system that is to be used must be tuned on validation."
    )
    heads = ("Pair", "Kappa", *(metric_words(metric).title for metric in metrics[1:]))
    return Grid("Agreement, and joining", lead, heads, tuple(rows))


def _at_prevalence(comparison: Comparison) -> Grid | None:
    table = comparison.where[comparison.where["topic"] == "prevalence"]
    if table.empty:
        return None
    lead = (
        f"Where {float(table['group'].iloc[0]):.1%} of images are positive, if sensitivity and "
        "specificity hold there.".replace("%", " %")
    )
    names = {"ppv": "Positive predictive value", "npv": "Negative predictive value"}
    return _by_system(comparison, "prevalence", names, "At your prevalence", lead)


def _shortcuts(comparison: Comparison) -> Grid | None:
    table = comparison.where[comparison.where["topic"] == "shortcut"]
    if table.empty:
        return None
    rows = [
        (f"Guessed from {str(row['group']).replace('_', ' ')}", figure_words(_interval(row)))
        for row in table.to_dict("records")
    ]
    rows += [
        (name, figure_words(find_interval(comparison.metrics, name, "auroc")))
        for name in comparison.systems
    ]
    lead = (
        "How well the label is guessed without reading the lungs, by guesses learned on four "
        "fifths of these patients; mean brightness and file size, which disease changes too, are "
        "no part of what is beside the lungs. A system that does not beat them has not shown that "
        "it reads the lungs."
    )
    return Grid("Shortcuts", lead, ("", "AUROC"), tuple(rows))


def _by_system(
    comparison: Comparison, topic: str, names: dict[str, str], title: str, lead: str
) -> Grid | None:
    """A grid with a row per metric and a column per system and contrast."""
    table = comparison.where[comparison.where["topic"] == topic]
    if table.empty:
        return None
    columns = (*comparison.systems, *_contrasts(comparison))
    rows = []
    for metric, words in names.items():
        here = table[table["metric"] == metric]
        if len(here):
            cells = [_first(here[here["system"] == name]) for name in columns]
            rows.append((words, *map(figure_words, cells)))
    heads = ("", *comparison.systems, *_contrasts(comparison, printed=True))
    return Grid(title, lead, heads, tuple(rows))


def _contrasts(comparison: Comparison, *, printed: bool = False) -> tuple[str, ...]:
    first, *others = comparison.systems
    minus = "−" if printed else "-"
    return tuple(f"{first} {minus} {name}" for name in others)


def _find(table: pd.DataFrame, topic: str, group: str, system: str, metric: str) -> Interval:
    chosen = (table["topic"] == topic) & (table["group"] == group)
    chosen &= (table["system"] == system) & (table["metric"] == metric)
    return _first(table[chosen])


def _first(rows: pd.DataFrame) -> Interval:
    return Interval() if rows.empty else _interval(rows.iloc[0])


def _interval(row: Any) -> Interval:
    """A figure of a row, whatever the row is read as."""
    low, estimate, high = (
        math.nan if pd.isna(row[name]) else float(row[name])
        for name in ("ci_low", "estimate", "ci_high")
    )
    note = row["note"]
    return Interval(estimate, low, high, note if isinstance(note, str) else "")


def _named(topic: str, group: str) -> str:
    words = topic.replace("_", " ")
    return f"{words[:1].upper()}{words[1:]}: {group}"


def _in_order(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Topics as they come; in each, what lies below all others first and what lies above last."""
    pairs = table[["topic", "group"]].drop_duplicates()
    topics = list(dict.fromkeys(pairs["topic"]))

    def place(pair: tuple[str, str]) -> tuple[int, int]:
        low, high = pair[1].startswith(("up to", "under")), pair[1].startswith("over")
        return topics.index(pair[0]), high - low

    return sorted(pairs.itertuples(index=False, name=None), key=place)


def _of(table: pd.DataFrame, topic: str, group: str, metric: str) -> str:
    """Of how many a share is."""
    rows = table[
        (table["topic"] == topic) & (table["group"] == group) & (table["metric"] == metric)
    ]
    known = rows["of"].dropna()
    return f"{int(known.iloc[0]):,}" if len(known) else number(None)
