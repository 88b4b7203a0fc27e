"""Record of what a reader took files for: facts, and the lines that it showed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.pseudonyms import HIDDEN
from cxr_compare.data_prep.base.tables import typed_table
from cxr_compare.data_prep.sources.label_names import Label
from cxr_compare.data_prep.sources.words import normal_classes

Show = Callable[[str], None]
_MOST_SHOWN = 16  # labels that mean a finding; all that mean something else are shown
_TITLES = {
    "format": "format",
    "files": "files",
    "image_files": "image files",
    "unnamed_files": "image files that no label names",
    "label_files": "label files",
    "box_form": "form of boxes",
    "box_unit": "unit of boxes",
    "patients": "patients",
    "target": "joined findings",
}
"""Titles for people of facts by their names."""


class ReadRecord:
    """What a reader took files for, and the lines that it showed.

    `show` is a function that shows the user a line, and `hidden` a path that no line names where
    ids are hidden, too.
    """

    def __init__(self, show: Show = lambda line: None, hidden: str = "") -> None:
        self._show = show
        self.hidden = hidden
        self._rows: list[dict[str, Any]] = []

    def show(self, line: str) -> None:
        """Show the user a line on how files are read, and keep it."""
        self._show(self.keep(line))

    def keep(self, line: str) -> str:
        """Keep a line, and return it as it is kept."""
        line = line.replace(self.hidden, HIDDEN) if self.hidden else line
        self._rows.append({"text": line})
        return line

    def add(self, fact: str, text: str | None = None, number: int | None = None) -> None:
        """Keep a fact: a text, a number, or that it is so."""
        self._rows.append({"fact": fact, "text": text, "number": number})

    def add_normal(self, labels: Mapping[str, Label]) -> None:
        """Keep which labels say that nothing is found."""
        for text, label in labels.items():
            if label.finding in normal_classes():
                self.add("no_finding", text)

    @property
    def lines(self) -> list[str]:
        """Lines that were shown, in their order."""
        return [row["text"] for row in self._rows if "fact" not in row]

    def table(self) -> pd.DataFrame:
        """Return all facts and lines as a table of kind ``read``."""
        return typed_table(pd.DataFrame(self._rows), "read")


def titled_facts(read: pd.DataFrame) -> dict[str, str]:
    """Return the facts of a table ``read`` by their titles for people, each value once."""
    texts: dict[str, str] = {}
    for fact, title in _TITLES.items():
        of_fact = read[read["fact"] == fact]
        numbers = of_fact["number"].map("{:,}".format, na_action="ignore")
        values = of_fact["text"].fillna(numbers.astype(of_fact["text"].dtype))
        if len(values):
            texts[title] = ", ".join(dict.fromkeys(values))
    return texts


def shown_lines(read: pd.DataFrame) -> list[str]:
    """Return the lines of a table ``read``, which were shown when files were read."""
    return read.loc[read["fact"].isna(), "text"].tolist()


def label_line(labels: Iterable[tuple[str, str, str, int]]) -> str:
    """Return a line on labels and their numbers, and what else than a finding they mean.

    A label is its text, the finding and the state that it means, and how often it occurs.
    """
    texts: list[str] = []
    for text, finding, state, count in labels:
        is_normal = state == "normal" or finding in normal_classes()
        meaning = "no finding" if is_normal else f"{finding} {state}".strip()
        other = f", taken for {meaning}" if is_normal or state != "present" else ""
        if other or len(texts) < _MOST_SHOWN:
            texts.append(f"{text} ({count:,}{other})")
    return f"labels: {', '.join(texts)}"
