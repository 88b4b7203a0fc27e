"""Text tables: CSV files as columns of text, numbers from text, and the line where one is wrong."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import is_member

_ARROW_NUMBER = pd.ArrowDtype(pa.float64())


def read_text_csv(
    path: Path, required: Iterable[str], optional: Iterable[str] = ()
) -> pd.DataFrame:
    """Read a CSV file as text, so that ``00019124`` keeps its zeros and ``NA`` stays a name."""
    if not path.is_file():
        columns = ", ".join(required)
        raise InputError(
            f"{path}: not found" + f"; it must hold the columns {columns}" * bool(columns)
        )
    try:
        frame = _parse_csv(path)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as CSV in UTF-8 ({reason})") from None
    frame.columns = [str(c).strip() for c in frame.columns]
    missing = [c for c in required if c not in frame.columns]
    if missing:
        hint = "; save it with commas" if len(frame.columns) == 1 and _uses_semicolons(path) else ""
        raise InputError(
            f"{path}: column '{missing[0]}' is missing; found {', '.join(frame.columns)}{hint}"
        )
    frame = frame.apply(lambda column: column.str.strip())
    for column in set(optional) - set(frame.columns):
        frame[column] = ""
    return frame[(frame != "").any(axis=1)]  # a blank line is nothing, but keeps its number


def _parse_csv(path: Path) -> pd.DataFrame:
    """Parse with pandas, or with Arrow where nothing is quoted: the same, only faster."""
    options: dict[str, Any] = {
        "dtype": "str",
        "keep_default_na": False,
        "encoding": "utf-8-sig",
        "skip_blank_lines": False,
    }
    content = path.read_bytes() if path.suffix == ".csv" else b""  # not if it is compressed
    if content and b'"' not in content and b"\0" not in content:
        names = pd.read_csv(path, nrows=0, **options).columns
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(content),
                parse_options=arrow_csv.ParseOptions(ignore_empty_lines=False),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.large_string())
                ),
            )
        except pa.ArrowInvalid:
            pass  # a line of another length, or no UTF-8: pandas fills it up, or says where
        else:
            if table.column_names == list(names):
                return table.to_pandas()
    frame = pd.read_csv(path, **options).fillna("")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the first cells for an index
        raise InputError(f"{path}: line 2 has more cells than the header has names")
    return frame


def _uses_semicolons(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8-sig") as handle:
        try:
            return csv.Sniffer().sniff(handle.readline(), delimiters=",;\t").delimiter != ","
        except csv.Error:
            return False


def to_numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    """Turn a column of text into float64; empty cells become NaN."""
    known = text.where(~is_member(text, ["", "nan", "NaN", "NA", "None", "null"]))
    try:
        numbers = known.astype(_ARROW_NUMBER).astype("float64")
    except pa.ArrowInvalid:
        numbers = pd.to_numeric(known, errors="coerce").astype("float64")
    if numbers.isna().sum() == known.isna().sum():
        return numbers
    bad = numbers.isna() & ~is_member(text.str.lower(), ["", "nan", "na", "null", "none"])
    refuse_line(bad, path, " is not a number", text.rename(column))
    return numbers


def first_line(bad: pd.Series) -> int:
    """The line of a CSV file, as read by `read_text_csv`, on which a flag is first set."""
    return int(bad.index[bad.to_numpy()][0]) + 2


def refuse_line(bad: pd.Series, path: Path, reason: str, cells: pd.Series | None = None) -> None:
    """Refuse a CSV file for the first line on which a flag is set, with that line's cell."""
    if bad.any():
        cell = "" if cells is None else f"{cells.name}={cells[bad].iloc[0]!r}"
        raise InputError(f"{path}: line {first_line(bad)}: {cell}{reason}")
