"""Functions that read rows of the table of failures."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.table import figure_text
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.intervals import Interval


def contrast_names(comparison: Comparison, *, printed: bool = False) -> tuple[str, ...]:
    """Return the names of the differences "first system minus other system".

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        printed: True for a real minus sign, as pages show it; False for a hyphen, as CSV files
            contain it.

    Returns:
        One name for each system after the first, such as ``A - B``.
    """
    first, *others = comparison.systems
    minus = "−" if printed else "-"
    return tuple(f"{first} {minus} {name}" for name in others)


def figure_texts(comparison: Comparison, rows: pd.DataFrame) -> list[str]:
    """Return the texts of one metric for each system and for each difference from the first system.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        rows: Rows of the table ``groups.csv`` (metrics within groups of images or lesions) on one
            metric in one group, with the columns ``system``, ``estimate``, ``ci_low``, ``ci_high``
            and ``note``.

    Returns:
        Value with interval as text, one for each system, then one for each difference.
    """
    names = (*comparison.systems, *contrast_names(comparison))
    return [figure_text(first_interval(rows[rows["system"] == name])) for name in names]


def first_interval(rows: pd.DataFrame) -> Interval:
    """Return the value and the interval in the first of some table rows.

    Args:
        rows: Rows with the columns ``estimate``, ``ci_low``, ``ci_high`` and ``note``; may be
            empty.

    Returns:
        The value with its interval; an undefined value if there is no row.
    """
    return Interval() if rows.empty else Interval.from_row(rows.iloc[0])


def group_title(topic: str, group: str) -> str:
    """Return the title of a group of images or lesions, such as ``Age band: under 18``.

    Args:
        topic: Column that divides the images into groups, such as ``age_band``; two columns are
            joined by ``*``.
        group: Name of the group within this column, such as ``under 18``.

    Returns:
        The title for a table.

    Example:
        >>> group_title("age_band*sex", "under 18, F")
        'Age band and sex: under 18, F'
    """
    text = topic.replace("_", " ").replace("*", " and ")
    return f"{text[:1].upper()}{text[1:]}: {group}"


def groups_in_order(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the groups of images in reading order, as pairs of dividing column and group.

    A dividing column is, for example, ``age_band``, and a group is ``under 18``. Within a column, a
    group named "under ..." or "up to ..." comes first and "over ..." last.

    Args:
        rows: Rows of a table with the columns ``topic`` (dividing column) and ``group``.

    Returns:
        Pairs such as ``("age_band", "under 18")``, each once.
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
    """Return as text the number of images or lesions in a group, of which a metric is a share.

    Args:
        rows: Rows of the table ``groups.csv`` on one group, with the number in the column ``of``.

    Returns:
        The number, such as ``1,200``; a dash if it is unknown.
    """
    counts = rows["of"].dropna()
    return f"{int(counts.iloc[0]):,}" if len(counts) else number(None)
