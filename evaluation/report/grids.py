"""The report's plainer tables: agreement, subgroups, published figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.compare.failures import FAILURES_WRONG, NONE_FAILED
from evaluation.compare.intervals import ALL, Interval, find_difference, find_interval
from evaluation.metrics.registry import SUBGROUPS, metric_words, number, policy_words
from evaluation.report.published import related_figures

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from evaluation.compare.comparison import Comparison

_GROUPS = {FAILURES_WRONG: "all images, failures counted as wrong"}
_OF_SUBGROUPS = ("auroc", "recall", "specificity", "localised_sensitivity", "ap50")


@dataclass(frozen=True)
class Grid:
    """A table of words.

    Args:
        title: Above it.
        lead: What to know before reading it.
        columns: Heads, the first over the rows' names.
        rows: Texts, as many as columns.
    """

    title: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def agreement(comparison: Comparison, policy: str) -> list[Grid]:
    """Count, for the first system against each other one, who is right on which images.

    Args:
        comparison: What ``cxr compare`` found.
        policy: At this policy's thresholds.
    """
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


def _agreement(right: pd.DataFrame, first: str, second: str, policy: str) -> Grid:
    label = right.index.get_level_values("label") >= 1
    cases = (
        ("Both right", True, True),
        (f"Only {first} right", True, False),
        (f"Only {second} right", False, True),
        ("Both wrong", False, False),
    )
    rows = []
    for title, mine, theirs in cases:
        here = ((right[first] == mine) & (right[second] == theirs)).to_numpy(dtype=bool)
        counts = (here & label).sum(), (here & ~label).sum(), here.sum()
        rows.append((title, *(f"{int(count):,}" for count in counts)))
    lead = (
        f"Images by who calls them rightly, at the thresholds for {policy_words(policy)}; the "
        "place is not asked for here. Where each is right alone, joining them could gain something."
    )
    columns = ("", "Positive images", "Negative images", "All")
    return Grid(f"{first} and {second}: together and alone", lead, columns, tuple(rows))


def subgroups(comparison: Comparison, policy: str) -> list[Grid]:
    """Return, metric by metric, the figures in each subgroup with intervals, without p-values.

    Args:
        comparison: What ``cxr compare`` found.
        policy: For figures that need a threshold.
    """
    metrics = comparison.metrics
    # Where nothing failed, the figures with failures counted as wrong are those of all images.
    metrics = metrics[metrics["note"].fillna("") != NONE_FAILED]
    known = dict.fromkeys(metrics["subgroup"].dropna())
    groups = [each for each in known if each not in ("", ALL, *SUBGROUPS)]
    grids: list[Grid] = []
    for metric in _OF_SUBGROUPS:
        rows = metrics[metrics["metric"] == metric]
        for at in ("", policy):
            here = rows[rows["policy"].fillna("") == at]
            mine = [group for group in groups if (here["subgroup"] == group).any()]
            if mine and (at or not policy or not grids or metric in ("auroc", "ap50")):
                grids.append(_subgroup_grid(comparison, here, metric, at, mine))
    return grids


def _subgroup_grid(
    comparison: Comparison, rows: pd.DataFrame, metric: str, policy: str, groups: list[str]
) -> Grid:
    systems = comparison.systems
    told = []
    for group in groups:
        here = rows[rows["subgroup"] == group].iloc[0]
        counts = f"{int(here['n_images']):,} ({int(here['n_positive']):,} positive)"
        cells = [find_interval(rows, name, metric, policy, subgroup=group) for name in systems]
        cells += [
            find_difference(rows, systems[0], name, metric, policy, subgroup=group)
            for name in systems[1:]
        ]
        title = _GROUPS.get(group, group.replace("_", " "))
        told.append((title, counts, *map(figure_words, cells)))
    title = metric_words(metric).title
    title += f" at the threshold for {policy_words(policy)}" if policy else ""
    gaps = [f"{systems[0]} − {name}" for name in systems[1:]]
    return Grid(title, "", ("Subgroup", "Images", *systems, *gaps), tuple(told))


def figure_words(figure: Interval) -> str:
    """Return a figure with its interval, or why there is none.

    Example:
        >>> figure_words(Interval(0.5, 0.4, 0.6))
        '0.500 (0.400 to 0.600)'
    """
    if not figure.known:
        return f"– ({figure.note})" if figure.note else "–"
    return (
        f"{number(figure.estimate)} ({figure.ends})" if figure.bounded else number(figure.estimate)
    )


def published(comparison: Comparison, sources: Collection[str], policy: str) -> Grid | None:
    """Return published figures on the same data or finding beside the measured ones.

    Args:
        comparison: What ``cxr compare`` found.
        sources: Values of ``source`` of the judged images.
        policy: For figures that need a threshold.
    """
    figures = related_figures(sources, comparison.target.any_of)
    rows = []
    for each in figures:
        found = [
            find_interval(comparison.metrics, name, each.metric, at)
            for name in comparison.systems
            for at in ("", policy)
        ]
        here = [found[place] if found[place].known else found[place + 1]
                for place in range(0, len(found), 2)]  # fmt: skip
        digits = 4 if round(each.value, 3) != each.value else 3
        told = number(each.value, digits)
        if each.interval:
            low, high = (number(end, digits) for end in each.interval)
            told += f" ({low} to {high})"
        rows.append(
            (each.system, metric_words(each.metric).title, told, *map(figure_words, here),
             f"{each.data[0].upper()}{each.data[1:]}. {each.source}", each.comparable)
        )  # fmt: skip
    if not rows:
        return None
    lead = (
        "What others published on this data or finding. Read the two last columns first: a figure "
        "from other images, other labels or another share of positives is not a rival."
    )
    columns = ("Published", "Figure", "There", *(f"{name}, here" for name in comparison.systems),
               "Their data and source", "Comparable?")  # fmt: skip
    return Grid("Published figures", lead, columns, tuple(rows))
