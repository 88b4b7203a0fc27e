"""Columns of text from a table file: conversion to numbers, and errors that name a line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member

_ARROW_NUMBER = pd.ArrowDtype(pa.float64())


def to_numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    """Convert a column of text to numbers.

    Args:
        text: Texts of the column, with the index of
            `data_prep.contracts.table_files.read_text_table`: the line number minus 2.
        path: File of the table, for the message.
        column: Name of the column, for the message.

    Returns:
        Numbers, float64. Empty cells become NaN.

    Raises:
        InputError: A cell is no number. The message names its line.

    Example:
        >>> to_numbers(pd.Series(["1.5", ""]).astype("str"), Path("a.csv"), "age").tolist()
        [1.5, nan]
    """
    filled = text.where(~is_member(text, ["", "nan", "NaN", "NA", "None", "null"]))
    try:
        numbers = filled.astype(_ARROW_NUMBER).astype("float64")
    except ValueError:
        numbers = pd.to_numeric(filled, errors="coerce").astype("float64")
    if numbers.isna().sum() == filled.isna().sum():
        return numbers
    is_wrong = numbers.isna() & ~is_member(text.str.lower(), ["", "nan", "na", "null", "none"])
    refuse_line(is_wrong, path, " is not a number", text.rename(column))
    return numbers


def first_line(flags: pd.Series) -> int:
    """Return the line number in a table file of the first row for which a flag is True.

    Args:
        flags: Flags, bool, indexed by the line number minus 2, as
            `data_prep.contracts.table_files.read_text_table` numbers rows.

    Returns:
        Line number, where the header is line 1.

    Example:
        >>> first_line(pd.Series([False, True]))
        3
    """
    return int(flags.index[flags.to_numpy()][0]) + 2


def refuse_line(flags: pd.Series, path: Path, reason: str, cells: pd.Series | None = None) -> None:
    """Raise an error that names the first line of a table file for which a flag is True.

    Nothing happens if all flags are False.

    Args:
        flags: Flags, bool, indexed by the line number minus 2, as
            `data_prep.contracts.table_files.read_text_table` numbers rows. True marks a wrong line.
        path: File of the table, for the message.
        reason: End of the message after the quoted cell, such as " is not a number".
        cells: Column of the table whose cell in that line is quoted; None quotes no cell.

    Raises:
        InputError: A flag is True.

    Example:
        >>> refuse_line(pd.Series([False, False]), Path("a.csv"), " is not a number")
    """
    if flags.any():
        cell = "" if cells is None else f"{cells.name}={cells[flags].iloc[0]!r}"
        raise InputError(f"{path}: line {first_line(flags)}: {cell}{reason}")
