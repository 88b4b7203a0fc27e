"""Reading rows of the table of failures."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report.table import figure_words
from cxr_compare.evaluation.statistics.intervals import Interval


def contrast_names(comparison: Comparison, *, printed: bool = False) -> tuple[str, ...]:
    """Return the names of the paired differences from the first system.

    Args:
        comparison: Everything that was computed.
        printed: With a minus sign, as pages show it, in place of the hyphen of the tables.
    """
    first, *others = comparison.systems
    minus = "−" if printed else "-"
    return tuple(f"{first} {minus} {name}" for name in others)


def figure_texts(comparison: Comparison, rows: pd.DataFrame) -> list[str]:
    """A figure of each system and contrast."""
    names = (*comparison.systems, *contrast_names(comparison))
    return [figure_words(first_interval(rows[rows["system"] == name])) for name in names]


def first_interval(rows: pd.DataFrame) -> Interval:
    """Return the figure of the first row, an undefined one where there is no row."""
    return Interval() if rows.empty else Interval.from_row(rows.iloc[0])
