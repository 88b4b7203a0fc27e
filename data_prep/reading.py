"""The record of reading of a data set in words, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

_FACTS = {
    "format": "format",
    "files": "files",
    "image_files": "image files",
    "unnamed_files": "image files that no label names",
    "label_files": "label files",
    "box_form": "form of boxes",
    "box_unit": "unit of boxes",
}
"""Titles of facts by their role."""


def reading_facts(read: pd.DataFrame) -> dict[str, str]:
    """Return the facts of a record of reading by their titles, each value once."""
    facts = read[read["kind"] == "fact"]
    shown: dict[str, str] = {}
    for role, title in _FACTS.items():
        of_role = facts[facts["role"] == role]
        numbers = of_role["rows"].map("{:,}".format, na_action="ignore")
        values = of_role["cells"].fillna(numbers.astype(of_role["cells"].dtype))
        places = of_role["file"].fillna(of_role["set"])
        is_one = values.nunique() == 1
        texts = [
            value if is_one or pd.isna(place) else f"{value} ({place})"
            for value, place in zip(values, places, strict=True)
        ]
        if texts:
            shown[title] = ", ".join(dict.fromkeys(texts))
    return shown


def read_files(read: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the title of each label file with its rows on columns, or on classes."""
    rows = read[read["kind"].isin(["column", "class"])]
    owner = rows["set"].fillna("") + rows["set"].notna().map({True: ": ", False: ""})
    for title, of_file in rows.groupby(owner + rows["file"].fillna("labels"), sort=False):
        yield str(title), of_file


def reading_lines(read: pd.DataFrame) -> list[str]:
    """Return what was read as lines: facts, columns with their roles, and columns not read."""
    lines = [f"{title}: {text}" for title, text in reading_facts(read).items()]
    for title, rows in read_files(read):
        is_unread = rows["role"].eq("unused").fillna(False)
        used = rows[~is_unread]
        named = [f"{column} as {role}" for column, role in used[["column", "role"]].to_numpy()]
        if rows["kind"].iloc[0] == "class":
            named = used["cells"].tolist()
        lines.append(f"{title}: {rows['rows'].iloc[0]:,} rows; {', '.join(named)}")
        unread = rows.loc[is_unread, ["column", "cells"]].to_numpy()
        if len(unread):
            listed = ", ".join(f"'{column}' ({cells})" for column, cells in unread)
            lines.append(f"{title}: not read: {listed}")
    return lines
