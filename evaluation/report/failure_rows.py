"""Functions that read rows of the table of failures."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report.table import figure_text
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.intervals import Interval


def contrast_names(comparison: Comparison, *, printed: bool = False) -> tuple[str, ...]:
    """Return the names of the differences between the first system and each other system.

    Args:
        comparison: A computed comparison: figures, intervals, tests and decisions of all systems.
        printed: True for a minus sign, as on pages; False for the hyphen of the tables.

    Returns:
        One name for each other system.
    """
    first, *others = comparison.systems
    minus = "−" if printed else "-"
    return tuple(f"{first} {minus} {name}" for name in others)


def figure_texts(comparison: Comparison, rows: pd.DataFrame) -> list[str]:
    """Return the texts of each system's figure and of each paired difference, in this order.

    Args:
        comparison: A computed comparison: figures, intervals, tests and decisions of all systems.
        rows: Rows of the table with figures in groups of images and lesions, all on one figure.

    Returns:
        One text for each system, then one for each other system's difference.
    """
    names = (*comparison.systems, *contrast_names(comparison))
    return [figure_text(first_interval(rows[rows["system"] == name])) for name in names]


def first_interval(rows: pd.DataFrame) -> Interval:
    """Return the figure in the first of some rows; an undefined figure if there is no row.

    Args:
        rows: Rows of the table with figures in groups of images and lesions.

    Returns:
        The figure with its interval.
    """
    return Interval() if rows.empty else Interval.from_row(rows.iloc[0])


def group_title(topic: str, group: str) -> str:
    """Return the title of a group of images or lesions.

    Args:
        topic: Name of the grouping, such as ``age_band``.
        group: Name of the group, such as an age band.

    Returns:
        The title for a table.

    Example:
        >>> group_title("age_band*sex", "under 18, F")
        'Age band and sex: under 18, F'
    """
    text = topic.replace("_", " ").replace("*", " and ")
    return f"{text[:1].upper()}{text[1:]}: {group}"


def groups_in_order(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the groups of images in reading order, as pairs of grouping and group.

    A grouping is, for example, ``age_band``. Of each grouping the lowest group comes first.

    Args:
        rows: Rows of the table with figures in groups of images and lesions.

    Returns:
        Pairs of grouping and group without repetitions.
    """
    pairs = rows[["topic", "group"]].drop_duplicates()
    topics = list(dict.fromkeys(pairs["topic"]))

    def rank(pair: tuple[str, str]) -> tuple[int, int]:
        topic, group = pair
        is_lowest = group.startswith(("up to", "under"))
        is_highest = group.startswith("over")
        return topics.index(topic), int(is_highest) - int(is_lowest)

    return sorted(pairs.itertuples(index=False, name=None), key=rank)


def denominator(rows: pd.DataFrame) -> str:
    """Return the number of which a share is a part, such as the lesions of a kind, as text.

    Args:
        rows: Rows of the table with figures in groups of images and lesions, all on one group.

    Returns:
        The number, or a dash if it is unknown.
    """
    counts = rows["of"].dropna()
    return f"{int(counts.iloc[0]):,}" if len(counts) else number(None)
