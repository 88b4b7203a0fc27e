"""Record of what a reader took files for: rows of the table ``read``, and the lines it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import pandas as pd

from cxr_compare.data_prep.base.pseudonyms import HIDDEN
from cxr_compare.data_prep.base.tables import typed_table
from cxr_compare.data_prep.sources.words import normal_classes

RowKind = Literal["column", "class", "fact", "line"]
Show = Callable[[str], None]
_MOST_WORDS = 40  # of a column or of classes, the most frequent first


class ReadRecord:
    """What a reader took columns, classes and boxes for, and the lines that it showed.

    `show` is a function that shows the user a line, and `hidden` a path that no line names.
    """

    def __init__(self, show: Show = lambda line: None, hidden: str = "") -> None:
        self._show = show
        self._hidden = hidden
        self._rows: list[dict[str, Any]] = []

    def show(self, line: str) -> None:
        """Show the user a line on how files are read, and keep it."""
        self._show(self.keep(line))

    def keep(self, line: str) -> str:
        """Keep a line, and return it as it is kept."""
        line = line.replace(self._hidden, HIDDEN) if self._hidden else line
        self.add("line", cells=line)
        return line

    def add(self, kind: RowKind, **cells: str | int | None) -> None:
        """Keep a row of the table ``read``; cells that are not given are missing."""
        self._rows.append({"kind": kind, **cells})

    @property
    def lines(self) -> list[str]:
        """Lines that were shown, in their order."""
        return [row["cells"] for row in self._rows if row["kind"] == "line"]

    def table(self) -> pd.DataFrame:
        """Return all rows as a table of kind ``read``."""
        return typed_table(pd.DataFrame(self._rows), "read")


def label_meaning(finding: str, state: str) -> str:
    """Return what a label is taken for, in words."""
    if state == "normal" or finding in normal_classes():
        return "no finding"
    return finding if state == "present" else f"{finding} {state}".strip()


def words_of(rows: Iterable[tuple[str, str, int]]) -> str:
    """Return texts with their meanings and numbers, such as ``0 = absent (485)``."""
    listed = sorted(rows, key=lambda row: -row[2])
    more = f", and {len(listed) - _MOST_WORDS:,} others" if len(listed) > _MOST_WORDS else ""
    phrases = [
        f"{text or '(empty)'} = {meaning} ({count:,})"
        for text, meaning, count in listed[:_MOST_WORDS]
    ]
    return ", ".join(phrases) + more
