"""The record of reading of a data set in words, for the terminal and the page."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from cxr_compare.data_prep.base.errors import counted

_FACTS = {
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
"""Titles of facts by their role."""


def reading_facts(reading: pd.DataFrame) -> dict[str, str]:
    """Return the facts of a record of reading by their titles, each value once."""
    facts = reading[reading["kind"] == "fact"]
    fact_texts: dict[str, str] = {}
    for role, title in _FACTS.items():
        of_role = facts[facts["role"] == role]
        numbers = of_role["rows"].map("{:,}".format, na_action="ignore")
        values = of_role["cells"].fillna(numbers.astype(of_role["cells"].dtype))
        places = of_role["file"]
        is_one = values.nunique() == 1
        texts = [
            value if is_one or pd.isna(place) else f"{value} ({place})"
            for value, place in zip(values, places, strict=True)
        ]
        if texts:
            fact_texts[title] = ", ".join(dict.fromkeys(texts))
    return fact_texts


class ReadFile(NamedTuple):
    """Record of one label file, or of all that have classes.

    Attributes:
        name: Name of the file.
        size: Numbers of its rows or marks.
        columns: Each column with its role (``unused`` if it was not read) and what its cells mean.
    """

    name: str
    size: str
    columns: list[tuple[str, str, str]]

    @property
    def unread(self) -> list[str]:
        """Columns that are not read, with what is in them."""
        return [f"'{name}' ({cells})" for name, role, cells in self.columns if role == "unused"]


def read_files(reading: pd.DataFrame) -> list[ReadFile]:
    """Return what was read of each label file."""
    rows = reading[reading["kind"].isin(["column", "class"])]
    rows = rows.assign(
        file=rows["file"].fillna("label files"),
        column=rows["column"].fillna("classes"),
    )
    files = []
    for name, of_file in rows.groupby("file", sort=False):
        first = of_file.iloc[0]
        size = counted(int(first["rows"]), "row" if first["kind"] == "column" else "mark")
        if pd.notna(first["used"]) and first["used"] != first["rows"]:
            size += f", of which {first['used']:,} are of images that are there"
        columns = of_file[["column", "role", "cells"]].itertuples(index=False, name=None)
        files.append(ReadFile(str(name), size, list(columns)))
    return files


def reading_lines(reading: pd.DataFrame) -> list[str]:
    """Return what was read as lines: facts, columns with their roles, and columns not read."""
    lines = [f"{title}: {text}" for title, text in reading_facts(reading).items()]
    for file in read_files(reading):
        column_texts = [
            f"{cells}" if name == "classes" else f"{name} as {role}"
            for name, role, cells in file.columns
            if role != "unused"
        ]
        lines.append(f"{file.name}: {file.size}; {', '.join(column_texts)}")
        if file.unread:
            lines.append(f"{file.name}: not read: {', '.join(file.unread)}")
    return lines
