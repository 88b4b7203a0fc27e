"""CSV files in which no spreadsheet program takes a text for a formula."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.text import TEXT

# A program may begin a new cell after one of these characters.
_SPLITS = ";|\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029"
_MAY_SPLIT = r"\s,:"
_INVISIBLE = "\"'\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_SIGNS = "=+@\\-\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20"  # and full width
_RUN = f"{_SPLITS}{_MAY_SPLIT}{_INVISIBLE}"
_BEFORE_SIGN = re.compile(f"(?<![{_RUN}])[{_RUN}]*+(?=[{_SIGNS}])")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:[\s,:]+{_NUMBER})*+\s*(?:[{_SPLITS}]|\Z)")
_WORDS = re.compile(rf"(?:[{_SIGNS}]|{_NUMBER}|--[a-z][\w-]*)(?:[\s;,:.)%\"']|\Z)")  # n = 5, --data


def inert_cell(value: object) -> object:
    """Change the value of a cell so that no spreadsheet program takes a text for a formula.

    A text in a CSV file that begins with ``=``, ``+``, ``-`` or ``@`` could be run as a formula: an
    apostrophe is put before each sign that could begin one. A text of numbers is not changed.

    Example:
        >>> inert_cell("=1"), inert_cell("a; =1"), inert_cell("-8.0,0.5;-1.0,2.0"), inert_cell(-8)
        ("'=1", "a; '=1", '-8.0,0.5;-1.0,2.0', -8)
    """
    if not isinstance(value, str):
        return value
    return _BEFORE_SIGN.sub(lambda run: f"{run[0]}'" if _begins_formula(run) else run[0], value)


def _begins_formula(run: re.Match[str]) -> bool:
    """Return True if a sign behind separators and invisible characters begins a formula."""
    if run.start() == 0 or re.search(f"[{_SPLITS}]", run[0]):
        return _NUMBERS.match(run.string, run.end()) is None
    may_split = re.search(f"[{_MAY_SPLIT}]", run[0])
    return may_split is not None and _WORDS.match(run.string, run.end()) is None


def _plain_cell(text: str) -> str:
    """Return the text of which `inert_cell` made another."""
    return _BEFORE_SIGN.sub(
        lambda run: run[0].removesuffix("'") if _begins_formula(run) else run[0], text
    )


def plain_cells(column: pd.Series) -> pd.Series:
    """Remove the apostrophes that `inert_cell` added to texts, and spaces around the texts.

    Example:
        >>> plain_cells(pd.Series(["'=1", " a "], dtype=TEXT)).tolist()
        ['=1', 'a']
    """
    if column.str.contains("'", regex=False).any():
        column = column.map(_plain_cell).astype(TEXT)
    return column.str.strip()


def write_csv(frame: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a table without its index as CSV. The file appears only when it is complete.

    Missing values become empty cells, and no spreadsheet program takes a text for a formula; see
    `inert_cell`. The options are those of ``pandas.DataFrame.to_csv``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_csv(pd.DataFrame({"image_id": ["a", None]}), Path(folder, "ids.csv"))
        ...     Path(folder, "ids.csv").read_text().splitlines()
        ['image_id', 'a', '""']
    """
    texts = frame.select_dtypes(exclude=["number", "bool"]).map(inert_cell)
    if any(
        column.astype(TEXT).str.contains("\r", regex=False).any() for _, column in texts.items()
    ):
        options["quoting"] = csv.QUOTE_NONNUMERIC  # pandas leaves it bare, and it ends a line
    with atomic_path(path) as temporary:
        frame.assign(**texts).to_csv(temporary, index=False, **options)
