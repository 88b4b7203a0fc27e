"""Reading of users' tables, as CSV of any dialect or as a spreadsheet, into columns of text.

The kind of a file is recognised by its first bytes, not by its name. The index of a row is its line
number in the file (or its row number in the sheet) minus 2, so that an error message can name the
line that an editor shows.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from cxr_compare.data_prep.contracts.column_names import headless_problem, missing_columns
from cxr_compare.data_prep.contracts.csv_files import plain_cells
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT, from_arrow
from cxr_compare.data_prep.contracts.text_files import decode_text, text_encoding

_TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_SHEET_SUFFIXES = (".xlsx", ".xlsm")
TABLE_SUFFIXES = (*_TEXT_SUFFIXES, *_SHEET_SUFFIXES)
"""Endings of the names of files that `read_text_table` reads."""

_EXPORT = "export it from there as CSV"
_BY_PANDAS = "write it as CSV: pandas.{}(FILE).to_csv(CSV, index=False)"
_OTHER_SUFFIXES = {
    ".xls": "an old Excel file; save it in Excel or LibreOffice as .xlsx",
    ".xlsb": "a binary Excel file; save it in Excel as .xlsx",
    ".ods": "a LibreOffice spreadsheet; save it there as .xlsx",
    ".numbers": "a Numbers spreadsheet; in Numbers say File, Export To, Excel",
    ".gsheet": "a link to Google Sheets; there say File, Download, Microsoft Excel",
    ".parquet": f"a Parquet file; {_BY_PANDAS.format('read_parquet')}",
    ".feather": f"a Feather file; {_BY_PANDAS.format('read_feather')}",
    ".sav": f"an SPSS file; {_EXPORT}",
    ".dta": f"a Stata file; {_EXPORT}",
    ".rds": f"an R file; {_EXPORT}",
    ".sas7bdat": f"a SAS file; {_EXPORT}",
    ".csv.zip": "an archive; unpack it and give the file inside",
    ".tsv.zip": "an archive; unpack it and give the file inside",
}
# First bytes of files.
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0"
_PARQUET = b"PAR1"
_MAX_UNPACKED_BYTES = 1 << 31
_HEADER_BYTES = 1 << 16
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_CSV: dict[str, Any] = {"dtype": TEXT, "keep_default_na": False, "skip_blank_lines": False}
_DECIMAL = r"[-+]?\d*,?\d+(?:[eE][-+]?\d+)?"
_MAYBE_THOUSANDS = r"[-+]?[1-9]\d{0,2}(?:,\d{3})+"


@dataclass(frozen=True)
class TableFile:
    """The content of a user's table file, such as a CSV file or a spreadsheet.

    Attributes:
        text: Cells as text without spaces around; an empty cell is the empty text.
        notes: Sentences, each on an assumption that was made in reading the file, such as its
            separator.
    """

    text: pd.DataFrame
    notes: tuple[str, ...] = ()


def is_table_file(path: Path) -> bool:
    """Return True if a file name is that of a table, even of a kind that cannot be read.

    Args:
        path: Path of the file, which need not exist.

    Returns:
        True for a table. Its kind may be one that cannot be read, such as an old ``.xls``.

    Example:
        >>> is_table_file(Path("Labels.XLSX")), is_table_file(Path("old.xls"))
        (True, True)
        >>> is_table_file(Path("image1.png"))
        False
    """
    return path.name.lower().endswith((*TABLE_SUFFIXES, *_OTHER_SUFFIXES))


def is_spreadsheet(path: Path) -> bool:
    """Return True if the first bytes of a file are those of a workbook (.xlsx, .xlsm).

    Args:
        path: Path of an existing file. Its name does not matter.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.xlsx").write_text("image_id,label")
        ...     is_spreadsheet(Path(folder, "a.xlsx"))
        False
    """
    return _first_bytes(path, len(_ZIP)) == _ZIP


def read_text_table(
    path: Path,
    required: Iterable[str],
    optional: Iterable[str] = (),
    rename_column: Callable[[str], str] = str,
) -> pd.DataFrame:
    r"""Read a table as text, so that ``00019124`` keeps its zeros and ``NA`` stays a name.

    Args:
        path: A CSV file or spreadsheet, whose name ends in one of `TABLE_SUFFIXES`, such as
            ``.csv`` or ``.xlsx``.
        required: Names of columns that the table must have, after `rename_column`.
        optional: Names of columns that are added with empty cells if the file lacks them.
        rename_column: Function that gets the name of a column in the file, and returns its name in
            the result. The default keeps the names.

    Returns:
        A table of text with one row for each line of the file that is not blank. Its index is the
        line number minus 2.

    Raises:
        InputError: There is no such file, it is no table, or a column is missing or repeated.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "labels.csv").write_text("image_id,label\n0007,NA\n")
        ...     read_text_table(Path(folder, "labels.csv"), ["image_id"], ["view"]).values.tolist()
        [['0007', 'NA', '']]
    """
    required = list(required)
    if not path.exists():
        columns = ", ".join(required)
        requirement = f"; it must hold the columns {columns}" if columns else ""
        raise InputError(f"{path}: no such file{requirement}")
    frame = read_table_file(path).text
    frame.columns = pd.Index([rename_column(str(name)) for name in frame.columns])
    missing = [name for name in required if name not in frame.columns]
    if missing:
        names = ", ".join(frame.columns[:20])
        problem = f"{missing_columns(missing)}; it has {names}"
        problem = headless_problem(list(frame.columns)) or problem
        raise InputError(f"{path}: {problem}")
    for name in set(optional) - set(frame.columns):
        frame[name] = ""
    return frame


def read_table_file(path: Path, sheet: str | None = None) -> TableFile:
    r"""Read a table whose columns are not known beforehand.

    Args:
        path: A CSV file or spreadsheet, whose name ends in one of `TABLE_SUFFIXES`, such as
            ``.csv`` or ``.xlsx``.
        sheet: Name of the sheet of a spreadsheet. None takes the only sheet with content.

    Returns:
        The cells as text, and notes on how they were read.

    Raises:
        InputError: There is no such file, it is no table, or a column is repeated.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "labels.csv").write_text("image_id;label\n0007;1\n")
        ...     read_table_file(Path(folder, "labels.csv")).text.columns.tolist()
        ['image_id', 'label']
    """
    _refuse_other_kind(path)
    if is_spreadsheet(path):
        from cxr_compare.data_prep.contracts.spreadsheets import read_sheet  # slow to import

        frame, notes = read_sheet(path, sheet)
    elif sheet is not None:
        raise InputError(f"{path}: is no spreadsheet, so it has no sheet {sheet!r}")
    else:
        frame, notes = _read_delimited(path)
    names = pd.Series([str(name).strip() for name in frame.columns], dtype=TEXT)
    repeated = names[names.duplicated() & (names != "")]
    if len(repeated):
        twice = f"column '{repeated.iloc[0]}' appears twice; keep one"
        raise InputError(f"{path}: {headless_problem(names.tolist()) or twice}")
    frame.columns = pd.Index(_with_default_names(names.tolist()))
    frame = frame.apply(plain_cells)
    # A blank line is nothing, but keeps its number.
    return TableFile(frame[(frame != "").any(axis=1)], tuple(notes))


def read_header(path: Path) -> list[str]:
    r"""Return the names of the columns of a text file.

    Args:
        path: Path of the file. Only its beginning is read.

    Returns:
        The names in their order, without surrounding spaces; empty if the file is no text or has no
        header.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "labels.csv").write_text("image_id, label\na,1\n")
        ...     read_header(Path(folder, "labels.csv"))
        ['image_id', 'label']
    """
    content = _first_bytes(path, _HEADER_BYTES)
    if content.startswith((_GZIP, _ZIP, _OLE, _PARQUET)):
        return []
    mark, encoding = text_encoding(content)
    text = content[len(mark) :].decode(encoding, errors="replace")
    lines = text.splitlines()
    if not lines:
        return []
    return [name.strip() for name in _split_line(lines[0], _delimiter_of(lines[0]))]


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except (OSError, ValueError):
        return b""


def _refuse_other_kind(path: Path) -> None:
    """Refuse a missing file, or a table of another kind with advice what to do."""
    name = path.name.lower()
    for suffix, advice in _OTHER_SUFFIXES.items():
        if name.endswith(suffix):
            raise InputError(f"{path}: is {advice}")
    if not path.is_file():
        reason = "a folder; give the file of the table" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {reason}")
    start = _first_bytes(path, len(_OLE))
    if start == _PARQUET:
        raise InputError(f"{path}: is {_OTHER_SUFFIXES['.parquet']}")
    if start == _OLE:
        raise InputError(
            f"{path}: is an old Excel file, or one with a password; save it as .xlsx without one"
        )


def _with_default_names(names: Sequence[str]) -> list[str]:
    """Give columns without a name the name that pandas gives them."""
    return [name or f"Unnamed: {number}" for number, name in enumerate(names)]


def _read_delimited(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a text file of cells with delimiters between; returns the cells and notes."""
    content = _plain_bytes(path)
    first, _, rest = content.partition(b"\n")
    stated = re.fullmatch(rb"sep=(.)\r?", first)  # Excel's own line, which says the delimiter
    if stated:
        content = rest
        first = rest.partition(b"\n")[0]
    header = decode_text(first, str(path)).rstrip("\r")
    delimiter = stated[1].decode("latin-1") if stated else _delimiter_of(header)
    try:
        frame, names = _parse_csv(content, delimiter, path)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not readable as CSV in UTF-8 ({reason}); save it as CSV UTF-8, or as .xlsx"
        ) from None
    frame.columns = pd.Index(names)
    if stated:
        frame.index += 1
    notes = []
    if delimiter != ",":
        notes.append(f"cells are separated by {_DELIMITERS.get(delimiter, repr(delimiter))}")
        decimal = _replace_decimal_commas(frame, delimiter)
        if decimal:
            notes.append(f"decimal commas are read as points in {', '.join(decimal)}")
    return frame, notes


def _plain_bytes(path: Path) -> bytes:
    """Return the unpacked content of a text file in UTF-8 without a byte order mark."""
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            with gzip.open(BytesIO(content)) as packed:
                content = packed.read(_MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason})") from None
    if len(content) > _MAX_UNPACKED_BYTES:
        raise InputError(f"{path}: holds more than 2 GiB; split the table")
    mark, encoding = text_encoding(content)
    if encoding != "utf-8":
        return decode_text(content, str(path)).encode()
    return content[len(mark) :]


def _delimiter_of(header: str) -> str:
    """Return the delimiter that splits a header into the most cells; a comma among equals.

    Example:
        >>> _delimiter_of('file;"label, by whom";x'), _delimiter_of("file")
        (';', ',')
    """
    return max(_DELIMITERS, key=lambda delimiter: len(_split_line(header, delimiter)))


def _split_line(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a cell of more than 131,072 characters
        return line.split(delimiter)


def _parse_csv(content: bytes, delimiter: str, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Parse with pandas, or with Arrow where nothing is quoted, which is faster.

    Returns the rows, and the names of the columns as in the file.
    """
    options = {**_CSV, "sep": delimiter}
    first = pd.read_csv(BytesIO(content), header=None, nrows=1, **options)
    header = [str(name) for name in first.fillna("").iloc[0]]  # pandas renames what repeats
    if content and b'"' not in content and b"\0" not in content:
        names = pd.read_csv(BytesIO(content), nrows=0, **options).columns
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(content),
                parse_options=arrow_csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.large_string())
                ),
            )
        except pa.ArrowInvalid:
            pass  # a line of another length, or no UTF-8: pandas fills it up, or names the line
        else:
            if table.column_names == list(names):
                return from_arrow(table), header
    frame = pd.read_csv(BytesIO(content), **options).fillna("")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the first cells for an index
        cells = [*map(str, np.atleast_1d(frame.index[0])), *map(str, frame.iloc[0])]
        numbers = [cell.strip().lstrip("-").isdigit() for cell in cells]
        commas = any(first and second for first, second in pairwise(numbers))
        question = "; are these decimal commas? Write 0.5, or save it with quotes" if commas else ""
        raise InputError(f"{path}: line 2 has more cells than the header has names{question}")
    return frame, header


def _replace_decimal_commas(frame: pd.DataFrame, delimiter: str) -> list[str]:
    """Replace decimal commas by points in a frame, and return the columns that have them.

    Between tabs ``1,234`` may be a number above a thousand: such a column stays as it is.
    """
    changed = []
    for position, name in enumerate(frame.columns):
        cells = frame.iloc[:, position].str.strip()
        filled = cells[cells != ""]
        if not filled.str.contains(",", regex=False).any():
            continue
        if not filled.str.fullmatch(_DECIMAL).all():
            continue
        with_comma = filled[filled.str.contains(",", regex=False)]
        if delimiter != ";" and with_comma.str.fullmatch(_MAYBE_THOUSANDS).all():
            continue
        frame.isetitem(position, cells.str.replace(",", ".", regex=False).array)
        changed.append(str(name).strip())
    return changed
