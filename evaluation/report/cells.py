"""Cells of a report's tables: the values that a section has, and the one way to their texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import pandas as pd

from cxr_compare.evaluation.statistics.figure_text import (
    DASH,
    number,
    p_equation,
    p_value_text,
    score_text,
)
from cxr_compare.evaluation.statistics.intervals import Interval, interval_text


class PValue(NamedTuple):
    """A p-value in a cell; NaN where nothing was tested."""

    value: float


class Tested(NamedTuple):
    """A difference with its corrected p-value in one cell."""

    gap: Interval
    p_holm: float

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """Read a difference from a row of a table of figures."""
        return cls(Interval.from_row(row), row["p_holm"])


def cell_parts(cell: Any) -> tuple[str, str]:
    """Return the text of a value, and what stands beside or below it.

    The ends of an interval stand in parentheses, a fraction is a score, and what is not known is a
    dash.

    Examples:
        >>> cell_parts(Interval(0.965, 0.918, 1.0)), cell_parts(1234), cell_parts(None)
        (('0.965', '(0.918 to 1)'), ('1,234', ''), ('–', ''))
    """
    if isinstance(cell, Interval):
        ends = interval_text(cell)
        return number(cell.estimate), f"({ends})" if ends else ""
    if isinstance(cell, Tested):
        value, ends = cell_parts(cell.gap)
        return value, "; ".join(filter(None, [ends, p_equation(cell.p_holm)]))
    if isinstance(cell, PValue):
        return p_value_text(cell.value), ""
    if isinstance(cell, str):
        return cell, ""
    if pd.isna(cell):
        return DASH, ""
    return score_text(cell) if isinstance(cell, float) else f"{cell:,}", ""


def shown_text(cell: Any) -> str:
    """Return a cell as one text, such as ``0.500 (0.400 to 0.600)``."""
    return " ".join(filter(None, cell_parts(cell)))


def wide(
    rows: pd.DataFrame,
    index: str | list[str],
    columns: str,
    cell_of: Callable[[Any], Any] = Interval.from_row,
) -> pd.DataFrame:
    """Return the figures of rows as cells, in the order in which they stand in them."""
    cells = [cell_of(row) for row in rows.to_dict("records")]
    made = rows.assign(cell=pd.Series(cells, rows.index, dtype=object))
    return made.pivot_table("cell", index, columns, aggfunc="first", sort=False)
