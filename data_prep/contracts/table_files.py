"""Reading of users' tables, as CSV of any dialect or as a spreadsheet, into columns of text.

The kind of a file is recognised by its first bytes, not by its name. The index of a row is its line
number in the file (or its row number in the sheet) minus 2, so that an error message can name the
line that an editor shows.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import headless_problem, missing_columns
from cxr_compare.data_prep.contracts.csv_files import plain_cells
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import decode_text

_SUFFIXES = (
    ".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".xlsx", ".xlsm",
)  # fmt: skip

_OTHER_TABLES = (
    ".xls", ".xlsb", ".ods", ".numbers", ".gsheet", ".parquet", ".feather", ".sav", ".dta", ".rds",
    ".sas7bdat", ".csv.zip", ".tsv.zip",
)  # fmt: skip
_OF_PROGRAMS = (".pkl", ".pickle", ".pth", ".pt", ".npz", ".npy", ".jsonl")
_RESULTS = ("*bbox.json", "coco_instances_results.json", "predictions.json")
"""COCO results that trainers write beside their own files."""
_FIRST_BYTES = {
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an old Excel file, or one with a password",
    b"%PDF": "a PDF",
    b"\x80": "a pickle of Python",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_MOST_BYTES = 1 << 31
_HEADER_BYTES = 1 << 16
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
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

    Example:
        >>> is_table_file(Path("Labels.XLSX")), is_table_file(Path("old.xls"))
        (True, True)
        >>> is_table_file(Path("image1.png"))
        False
    """
    return path.name.lower().endswith((*_SUFFIXES, *_OTHER_TABLES))


def is_spreadsheet(path: Path) -> bool:
    """Return True if the first bytes of a file are those of a workbook (.xlsx, .xlsm)."""
    return _first_bytes(path, len(_ZIP)) == _ZIP


def refuse_other_kind(path: Path) -> None:
    """Refuse a file of another kind than those that are read, and say which file to give instead.

    It is recognised by its name or its first bytes. A missing file is refused, too.
    """
    name = path.name.lower()
    if name.endswith(_OTHER_TABLES):
        raise InputError(f"{path}: such a file is not read; save the table inside as CSV or .xlsx")
    if not path.is_file():
        reason = "a folder; give the file of the table" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {reason}")
    if path.suffix.lower() in _OF_PROGRAMS:
        results = [file.name for pattern in _RESULTS for file in path.parent.glob(pattern)]
        advice = f"give {min(results)} beside it" if results else "write COCO results or a CSV"
        raise InputError(f"{path}: is a file of a program, and no table; {advice}")
    start = _first_bytes(path, 132)
    kind = next((kind for mark, kind in _FIRST_BYTES.items() if start.startswith(mark)), None)
    if start.endswith(b"DICM"):
        kind = "an image"
    if kind:
        raise InputError(f"{path}: is {kind}; give the table as CSV or .xlsx without a password")


def read_text_table(
    path: Path, required: Iterable[str], optional: Iterable[str] = ()
) -> pd.DataFrame:
    r"""Read a table as text, so that ``00019124`` keeps its zeros and ``NA`` stays a name.

    There is one row for each line of the file that is not blank; its index is the line number minus
    2. Optional columns that the file lacks are added with empty cells. A required column that is
    missing, and a repeated one, are refused.

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
    """Read a table whose columns are not known beforehand; a repeated column is refused.

    None takes the only sheet of a spreadsheet with content.
    """
    refuse_other_kind(path)
    if is_spreadsheet(path):
        from cxr_compare.data_prep.contracts.spreadsheets import read_sheet  # slow to import

        rows, notes = read_sheet(path, sheet)
    elif sheet is not None:
        raise InputError(f"{path}: is no spreadsheet, so it has no sheet {sheet!r}")
    else:
        rows, notes = _read_delimited(path)
    names = rows.iloc[0].str.strip()
    repeated = names[names.duplicated() & (names != "")]
    if len(repeated):
        twice = f"column '{repeated.iloc[0]}' appears twice; keep one"
        raise InputError(f"{path}: {headless_problem(names.tolist()) or twice}")
    frame = rows.iloc[1:].apply(plain_cells)
    frame.columns = pd.Index([name or default for default, name in names.items()])
    # A blank line is nothing, but keeps its number.
    return TableFile(frame[(frame != "").any(axis=1)], tuple(notes))


def read_header(path: Path) -> list[str]:
    """Return the names of the columns of a text file, without surrounding spaces.

    Only the beginning of the file is read. The result is empty if the file is no text or has no
    header.
    """
    content = _first_bytes(path, _HEADER_BYTES)
    if content.startswith((_GZIP, _ZIP, *_FIRST_BYTES)):
        return []
    try:
        rows, _ = _parse(decode_text(content, str(path), errors="replace"), n_rows=1)
    except ValueError:
        return []
    return rows.iloc[0].str.strip().tolist()


def to_numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    """Convert a column of text to numbers, float64; empty cells become NaN.

    The texts have the index of `read_text_table`, so that the error about a cell that is no number
    names its line; `path` and `column` are for this message.

    Example:
        >>> to_numbers(pd.Series(["1.5", ""]).astype("str"), Path("a.csv"), "age").tolist()
        [1.5, nan]
    """
    is_empty = is_member(text.str.lower(), ["", "nan", "na", "null", "none"])
    numbers = pd.to_numeric(text.mask(is_empty), errors="coerce").astype("float64")
    refuse_line(numbers.isna() & ~is_empty, path, " is not a number", text.rename(column))
    return numbers


def first_line(flags: pd.Series) -> int:
    """Return the line number of the first row of `read_text_table` for which a flag is True.

    Example:
        >>> first_line(pd.Series([False, True]))
        3
    """
    return int(flags.index[flags.to_numpy()][0]) + 2


def refuse_line(flags: pd.Series, path: Path, reason: str, cells: pd.Series | None = None) -> None:
    """Raise an error that names the first line of a table file for which a flag is True.

    The flags have the index of `read_text_table`. The message quotes the line's cell of `cells`, if
    given, and ends with the reason, such as " is not a number".
    """
    if flags.any():
        cell = "" if cells is None else f"{cells.name}={cells[flags].iloc[0]!r}"
        raise InputError(f"{path}: line {first_line(flags)}: {cell}{reason}")


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except (OSError, ValueError):
        return b""


def _read_delimited(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells of a text file with delimiters, below the names of columns, and notes."""
    text = _text(path)
    try:
        rows, delimiter = _parse(text)
    except ValueError as error:  # those of pandas, too
        raise InputError(f"{path}: {_problem(error, text)}") from None
    rows.columns = pd.Index([f"Unnamed: {n}" for n in rows.columns])
    if delimiter == ",":
        return rows, []
    notes = [f"cells are separated by {_DELIMITERS.get(delimiter, repr(delimiter))}"]
    decimal = _replace_decimal_commas(rows, delimiter)
    if decimal:
        notes.append(f"decimal commas are read as points in {', '.join(decimal)}")
    return rows, notes


def _text(path: Path) -> str:
    """Return the content of a text file, which may be compressed by gzip."""
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            with gzip.open(path) as packed:
                content = packed.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason})") from None
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path}: holds more than 2 GiB; split the table")
    return decode_text(content, str(path))


def _parse(text: str, n_rows: int | None = None) -> tuple[pd.DataFrame, str]:
    r"""Return the cells, with the header as first row, and the sign between cells.

    The sign is the one that splits the first line into the most cells; a comma among equals.

    Example:
        >>> _parse('file;"label, by whom"\na;b')[0].to_numpy().tolist()
        [['file', 'label, by whom'], ['a', 'b']]
        >>> _parse("sep=|\nfile\n")[1]
        '|'
    """
    first = re.match(r"[^\r\n]*", text)[0]  # type: ignore[index]
    stated = re.fullmatch("sep=(.)", first)  # Excel's own line
    unquoted = re.sub('"[^"]*"', "", first)
    sign = stated[1] if stated else max(_DELIMITERS, key=unquoted.count)
    rows = pd.read_csv(
        StringIO(text),
        sep=sign,
        header=None,  # pandas would rename columns that repeat
        skiprows=1 if stated else 0,
        nrows=n_rows,
        dtype=TEXT,
        keep_default_na=False,
        skip_blank_lines=False,
    ).fillna("")
    rows.index += 0 if stated else -1
    return rows, sign


def _problem(error: ValueError, text: str) -> str:
    """Return what is wrong in a text that pandas does not read as CSV."""
    reason = " ".join(str(error).split())
    longer = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason)
    if longer is None:
        return f"not readable as CSV ({reason}); save it again as CSV UTF-8, or as .xlsx"
    n_names, line, n_cells = map(int, longer.groups())
    problem = f"line {line} has more cells ({n_cells}) than the header has names ({n_names})"
    cells = "".join(re.split(r"\r\n?|\n", text)[line - 1 : line])
    if re.search(r"(?:^|,)-?\d+,\d+(?:,|$)", cells):
        problem += "; are these decimal commas? Write 0.5, or save it with quotes"
    return problem


def _replace_decimal_commas(rows: pd.DataFrame, delimiter: str) -> list[str]:
    """Replace decimal commas by points below the header, and return the columns that have them.

    Between tabs ``1,234`` may be a number above a thousand: such a column stays as it is.
    """
    changed = []
    for name in rows:
        cells = rows[name].iloc[1:].str.strip()
        filled = cells[cells != ""]
        with_comma = filled[filled.str.contains(",", regex=False)]
        if with_comma.empty or not filled.str.fullmatch(_DECIMAL).all():
            continue
        if delimiter != ";" and with_comma.str.fullmatch(_MAYBE_THOUSANDS).all():
            continue
        rows.loc[cells.index, name] = cells.str.replace(",", ".", regex=False)
        changed.append(str(rows[name].iloc[0]).strip())
    return changed
