"""Files of users: CSV and spreadsheets as columns of text, JSON, YAML and XML; and CSV of ours."""

from __future__ import annotations

import datetime
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import (
    PROGRAM_ERRORS,
    InputError,
    Remedy,
    first_line,
    require_extra,
)
from cxr_compare.data_prep.base.files import (
    atomic_path,
    decode_text,
    read_text_file,
    refuse_special,
)
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.limits import (
    GZIP_WINDOW,
    MOST_BYTES,
    filled_range,
    inflated,
    require_plain_yaml,
    require_table_size,
    require_workbook_size,
)
from cxr_compare.data_prep.base.names import headless_problem, missing_columns
from cxr_compare.data_prep.base.tables import ROLE_NAMES

_TEXTS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_WORKBOOKS = (".xlsx", ".xlsm")
_PARQUETS = (".parquet",)
_OTHER_TABLES = (
    ".xls", ".xlsb", ".ods", ".numbers", ".gsheet", ".feather", ".sav", ".dta", ".rds",
    ".sas7bdat", ".csv.zip", ".tsv.zip",
)  # fmt: skip
_NO_TABLE = "is no table that can be read; save it as CSV or .xlsx"
_JSON_LINES = (".jsonl", ".ndjson", ".manifest")  # of Hugging Face, Labelbox and SageMaker
_OF_TOOLS = {
    "VIA": (rb"\A[^\n]*region_shape_attributes|\A\s*\{.*\"(?:_via_settings|file_attributes)\"",),
    "CVAT": (rb"<annotations[\s>]",),
    "Label Studio": (rb"\A\s*[\[{]", rb"\"annotations\"\s*:", rb"\"result\"\s*:"),
}
"""Patterns that the files of annotation tools all contain, which export COCO, too."""
_IN_MEMORY = "row"  # name of the index of such a table
PREDICTIONS = (
    "give scores as CSV (image_id,score), and boxes so (image_id,x1,y1,x2,y2,score) or as COCO "
    "results, a list with image_id, bbox, category_id and score; in Python also an output with "
    "boxes for each image, such as {'boxes': [[x1, y1, x2, y2]], 'scores': [0.9]}"
)
"""The forms of predictions that are read, for what is none of them."""
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_PARQUET = b"PAR1"
_HEADER_BYTES = 1 << 16
_NO_CSV = (
    "load it in Python and give compare its scores, or its boxes (cxr_compare.boxes_table), or "
    "save them as CSV"
)
_KINDS = {
    b"\x93NUMPY": f"holds an array of NumPy; {_NO_CSV}",
    b"\x89HDF": f"is an HDF5 file; {_NO_CSV}",
    **dict.fromkeys(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        f"is a pickle, which is not opened, as it can run code; {_NO_CSV}",
    ),
    b"\xd0\xcf\x11\xe0": "is an old or encrypted workbook; save it as .xlsx without a password",
    b"%PDF": "is a PDF; save its table as CSV or .xlsx",
    b"SQLite": "is a database; export the table as CSV",
}
"""Kind of a file by its first bytes, and what to do."""
_IN_ZIP = {
    rb"[^/]*\.npy$": f"holds arrays of NumPy; {_NO_CSV}",
    rb".*data\.pkl$": f"is a file of PyTorch; {_NO_CSV}",
    rb".*\.(csv|tsv|txt)$": "is an archive; unpack it",
}
"""The same of an archive by the name of its first file."""
NAMELESS = "Unnamed: "
"""Begins the name of a column without a name."""
_DECIMAL_COMMA = r"[-+]?\d*,?\d+(?:[eE][-+]?\d+)?"
_MOST_EXACT = 10**15  # a spreadsheet keeps 15 digits of a number


@dataclass(frozen=True)
class TableFile:
    """Cells of a user's table as text, with notes on how the file was read."""

    text: pd.DataFrame
    notes: tuple[str, ...] = ()


def is_table_file(path: Path) -> bool:
    """Return True if a file name is that of a table, even of a kind that cannot be read."""
    return path.name.lower().endswith((*_TEXTS, *_WORKBOOKS, *_PARQUETS, *_OTHER_TABLES))


def is_spreadsheet(path: Path) -> bool:
    """Return True if the first bytes of a file are those of a workbook (.xlsx, .xlsm)."""
    return _first_bytes(path, len(_ZIP)) == _ZIP


def unread_kind(path: Path) -> str:
    """Return what a file of labels of a kind that is not read is, and what to do; else nothing."""
    name = path.name.lower()
    if name.endswith(_OTHER_TABLES):
        return _NO_TABLE
    start = _first_bytes(path, _HEADER_BYTES)
    if name.endswith(_JSON_LINES):
        line = start.partition(b"\n")[0].decode("latin-1")
        keys = ", ".join(dict.fromkeys(re.findall(r'"(\w+)"\s*:', line)))
        return (
            f"holds lines of JSON{' with ' * bool(keys)}{keys}; write a CSV with a row for each "
            "image (image_id,score) or box (image_id,label,x1,y1,x2,y2), or COCO"
        )
    if reason := next((r for begin, r in _KINDS.items() if start.startswith(begin)), ""):
        return reason
    if start.startswith(_ZIP):
        first = start[30 : 30 + int.from_bytes(start[26:28], "little")]
        return next((r for name, r in _IN_ZIP.items() if re.match(name, first)), "")
    for tool, patterns in _OF_TOOLS.items():
        if all(re.search(pattern, start, re.DOTALL) for pattern in patterns):
            return f"is of {tool}, whose own files are not read; export COCO there"
    return ""


def is_json_file(path: Path) -> bool:
    """Return True if a file begins as JSON does, whatever its name."""
    return _first_bytes(path, 64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")


def require_file_size(path: Path) -> None:
    """Refuse a file that is too long for a table, before all of it is read."""
    n_bytes = path.stat().st_size
    if n_bytes > MOST_BYTES and not is_json_file(path):
        require_table_size(n_bytes, 0, path)


def refuse_other_kind(path: Path) -> None:
    """Refuse a missing or special file, a folder, and a file of a kind that is not read."""
    refuse_special(path)
    if reason := unread_kind(path):
        raise InputError(f"{path}: {reason}")
    if not path.is_file():
        reason = "a folder; give the file of the table" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {reason}")
    require_file_size(path)


def read_table_file(path: Path, sheet: str | None = None) -> TableFile:
    """Read a table whose columns are not known beforehand, with cells as text.

    The index is the line number less two. A repeated column is refused; blank lines are left out.
    """
    refuse_other_kind(path)
    if _first_bytes(path, len(_PARQUET)) == _PARQUET:
        return TableFile(_read_parquet(path))
    if is_spreadsheet(path) or path.suffix.lower() in _WORKBOOKS:
        try:
            rows, notes = _read_sheet(path, sheet)
        except (InputError, *PROGRAM_ERRORS):
            raise
        except Exception as error:  # noqa: BLE001 - a broken archive raises anything
            raise InputError(
                f"{path}: not readable as a workbook ({first_line(error)}); save it again as .xlsx "
                "without a password"
            ) from None
    else:
        rows, notes = _read_delimited(path)
    names = rows.iloc[0].str.strip()
    repeated = names[names.duplicated() & (names != "")]
    if len(repeated):
        twice = f"column '{repeated.iloc[0]}' appears twice; keep one"
        raise InputError(f"{path}: {headless_problem(names.tolist()) or twice}")
    cells = pd.Series(rows.iloc[1:].to_numpy().ravel(), dtype=TEXT)  # quicker than by column
    texts = _without_apostrophe(cells).to_numpy().reshape(-1, len(names))
    frame = pd.DataFrame(texts, rows.index[1:], dtype=TEXT)
    frame.columns = pd.Index(_column_names(names.tolist()))
    is_filled = frame != ""
    frame = frame[is_filled.any(axis=1)]
    is_title = (names != "").sum() == 1 and names.tolist()[:-1] != [""]  # else an index is nameless
    if is_title and (is_filled.loc[frame.index[:1]].sum(axis=1) > 1).any():
        raise InputError(
            f"{path}: the first row has one cell, {names[names != ''].iloc[0]!r}, and the next has "
            "more; delete a title, so that the names of the columns come first"
        )
    return TableFile(frame, tuple(notes))


def _column_names(stated: list[str]) -> list[str]:
    """Name columns without a name as pandas does: by position, and by number if that is taken.

    A table that pandas wrote with its index, read and wrote again has ``Unnamed: 0`` already.
    """
    names, taken = [], {*stated}
    for position, name in enumerate(stated):
        unnamed = f"{NAMELESS}{position}"
        number = 0
        while unnamed in taken:
            number += 1
            unnamed = f"{NAMELESS}{position}.{number}"
        names.append(name or unnamed)
    return names


def read_text_table(
    path: Path, required: Iterable[str], optional: Iterable[str] = ()
) -> pd.DataFrame:
    """Read a table as text; missing optional columns are empty, missing required ones refused."""
    frame = read_table_file(path).text
    missing = [name for name in required if name not in frame.columns]
    if missing:
        problem = f"{missing_columns(missing)}; it has {', '.join(frame.columns[:20])}"
        raise InputError(f"{path}: {headless_problem(list(frame.columns)) or problem}")
    for name in set(optional) - set(frame.columns):
        frame[name] = pd.Series("", index=frame.index, dtype=TEXT)
    return frame


def read_header(path: Path) -> list[str]:
    """Return the names of the columns of a text file; none for a file of another kind."""
    content = _first_bytes(path, _HEADER_BYTES)
    if content.startswith((_ZIP, _PARQUET)):
        return []
    try:
        if content.startswith(_GZIP):
            content = zlib.decompressobj(GZIP_WINDOW).decompress(content, _HEADER_BYTES)
        rows, _ = _parse(decode_text(content, str(path), errors="replace"), n_rows=1)
    except (ValueError, zlib.error):
        return []
    return rows.iloc[0].str.strip().tolist()


def to_numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    """Convert a column of text to numbers, float64; empty cells become NaN."""
    is_empty = is_member(text.str.lower(), ["", "nan", "na", "null", "none"])
    numbers = pd.to_numeric(text.mask(is_empty), errors="coerce").astype("float64")
    refuse_line(numbers.isna() & ~is_empty, path, " is not a number", text.rename(column))
    return numbers


def refuse_line(
    flags: pd.Series,
    path: Path,
    reason: str,
    cells: pd.Series | None = None,
    ways: Sequence[Remedy] = (),
) -> None:
    """Raise an error that names the first row of a table for which a flag is True."""
    if flags.any():
        cell = "" if cells is None else f"{cells.name}={cells[flags].iloc[0]!r}"
        raise InputError(f"{path}: {line_of(flags)}: {cell}{reason}", ways)


def line_of(flags: pd.Series) -> str:
    """Return the first row of a table for which a flag is True: a line of a file, or a row."""
    row = int(flags.index[flags.to_numpy()][0])
    return f"row {row}" if flags.index.name == _IN_MEMORY else f"line {row + 2}"


def cell_text(value: Any) -> str:
    """Return a value as the text of a cell; a whole number has no point.

    Examples:
        >>> [cell_text(value) for value in (1.0, 1, "a")]
        ['1', '1', 'a']
    """
    value = value.item() if isinstance(value, np.generic) else value
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def cell_texts(cells: pd.Series) -> pd.Series:
    """Return cells as texts without spaces around them, empty where they are missing."""
    if pd.api.types.infer_dtype(cells, skipna=True) == "string":
        texts = cells.astype(TEXT).fillna("")
    elif cells.dtype.kind in "biuf":  # a number that repeats is converted once
        rows, numbers = pd.factorize(cells)
        texts = pd.Series([*map(cell_text, numbers), ""], dtype=TEXT).take(rows)
    else:
        texts = cells.astype(object).where(cells.notna(), "").map(cell_text).astype(TEXT)
    return texts.set_axis(cells.index).str.strip()


def header_of(frame: pd.DataFrame, where: str) -> list[str]:
    """Return the names of the columns of a frame as texts; a repeated one is refused."""
    header = pd.Index([str(column).strip() for column in frame.columns])
    if not header.is_unique:
        raise InputError(
            f"{where}: column '{header[header.duplicated()][0]}' appears twice; keep one"
        )
    return header.tolist()


def sheet_of(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the cells of a frame as texts, as `read_table_file` returns those of a file."""
    header = header_of(frame, where)
    rows = pd.RangeIndex(len(frame), name=_IN_MEMORY)
    texts = [cell_texts(cells).set_axis(rows) for _, cells in frame.items()]
    return pd.DataFrame(dict(zip(header, texts, strict=True)), rows)


def to_roles(text: pd.Series, path: Path, also: str = "", ways: Sequence[Remedy] = ()) -> pd.Series:
    """Convert a column of text to roles (train, val, test, unused); another text is refused.

    `also` ends the line of the refusal, before its `ways` on.
    """
    roles = text.str.lower().map(ROLE_NAMES)
    reason = f"; use train, val, test or unused{also}"
    refuse_line(roles.isna(), path, reason, text, ways)
    return roles


def _first_bytes(path: Path, count: int) -> bytes:
    if not path.is_file():  # a pipe would wait for its writer
        return b""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except (OSError, ValueError):
        return b""


def _without_apostrophe(column: pd.Series) -> pd.Series:
    """Remove the apostrophes that `write_csv` adds, and spaces around the texts."""
    texts = column.str.strip()
    if not texts.str.contains("'", regex=False).any():
        return texts
    written = r"(^|[;\t\r\n])'(\s*[=+@-])"
    return texts.str.replace(written, r"\1\2", regex=True).str.strip()


def _read_delimited(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells of a text file, with the names of columns as first row, and notes."""
    try:
        content = path.read_bytes()
        content = inflated(content, path) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    require_table_size(len(content), content.count(b"\n"), path)
    text = decode_text(content, str(path))
    if "\0" in text:
        raise InputError(f"{path}: {_NO_TABLE}")
    try:
        rows, separator = _parse(text)
    except ValueError as error:  # those of pandas, too
        way = "put a cell that holds a comma into quotes, or save it as .xlsx"
        if "Expected 1 fields" in str(error):
            way = "delete the lines above the names of the columns"
        raise InputError(
            f"{path}: not readable as CSV ({' '.join(str(error).split())}); {way}"
        ) from None
    if separator == ",":
        return rows, []
    sign = {";": "semicolons", "\t": "tabs"}.get(separator, repr(separator))
    notes = [f"cells are separated by {sign}"]
    decimal = []
    for name in rows if separator == ";" else ():
        cells = rows[name].iloc[1:].str.strip()
        filled = cells[cells != ""]
        if filled.str.contains(",").any() and filled.str.fullmatch(_DECIMAL_COMMA).all():
            rows.loc[cells.index, name] = cells.str.replace(",", ".", regex=False)
            decimal.append(str(rows[name].iloc[0]).strip())
    if decimal:
        notes.append(f"decimal commas are read as points in {', '.join(decimal)}")
    return rows, notes


def _read_parquet(path: Path) -> pd.DataFrame:
    """Return the cells of a Parquet file as texts; InputError for cells that are no values."""
    import pyarrow as pa  # slow to import, and seldom needed
    from pyarrow import parquet

    try:
        facts = parquet.read_metadata(path)
        groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
        require_table_size(sum(group.total_byte_size for group in groups), facts.num_rows, path)
        table = parquet.read_table(path)
        frame = table.to_pandas()
    except (InputError, *PROGRAM_ERRORS):
        raise
    except Exception as error:  # noqa: BLE001 - a broken file raises anything
        raise InputError(f"{path}: not readable as Parquet ({first_line(error)})") from None
    for column in table.schema:
        if pa.types.is_nested(column.type) or "binary" in str(column.type):
            raise InputError(
                f"{path}: column '{column.name}' holds {column.type}; write one number or text a "
                "cell"
            )
    index_columns = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(index_columns) if index_columns else frame
    return sheet_of(frame, str(path)).reset_index(drop=True)


def _parse(text: str, n_rows: int | None = None) -> tuple[pd.DataFrame, str]:
    """Return the cells, with the header as first row, and the sign between cells."""
    first = text.partition("\n")[0].rstrip("\r")
    stated = re.fullmatch("sep=(.)", first)  # Excel's own line
    separator = stated[1] if stated else max(",;\t", key=re.sub('"[^"]*"', "", first).count)
    rows = pd.read_csv(
        StringIO(text),
        sep=separator,
        header=None,  # pandas would rename columns that repeat
        skiprows=1 if stated else 0,
        nrows=n_rows,
        dtype=TEXT,
        keep_default_na=False,
        skip_blank_lines=False,
    ).fillna("")
    rows.index += 0 if stated else -1
    return rows, separator


def _read_sheet(path: Path, sheet: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells of the only filled sheet of a workbook, or of the named one, and a note."""
    require_extra(str(path), "images", "openpyxl")
    import openpyxl  # slow to import, and seldom needed

    content = path.read_bytes()  # the name may end in another way
    require_workbook_size(content, path)
    formulas, values = (
        openpyxl.load_workbook(BytesIO(content), data_only=v) for v in (False, True)
    )
    filled_sheets = [
        name
        for name in values.sheetnames
        if values[name].sheet_state == "visible" and values[name].calculate_dimension() != "A1:A1"
    ]
    if sheet is not None and sheet not in values.sheetnames:
        raise InputError(f"{path}: has no sheet {sheet!r}; it has {values.sheetnames}")
    if sheet is None and len(filled_sheets) != 1:
        raise InputError(
            f"{path}: has {len(filled_sheets)} sheets with cells {filled_sheets}; "
            "save those that count as files of their own, and give all of them (cxr prepare also "
            "reads one alone: sheet NAME)"
        )
    chosen = sheet or filled_sheets[0]
    where = f"{path}: sheet {chosen!r}"
    merged = values[chosen].merged_cells.ranges
    if merged:
        raise InputError(
            f"{where}: cells {next(iter(merged))} are merged, so that only the first has a value; "
            "unmerge them and fill in each"
        )
    rows = {}
    row, column = filled_range(content, chosen, where)
    both = (book[chosen].iter_rows(max_row=row, max_col=column) for book in (values, formulas))
    pairs = zip(*both, strict=True)
    for number, (cells, written) in enumerate(pairs, start=1):
        for cell, formula in zip(cells, written, strict=True):
            if formula.data_type == "f" and cell.value is None:
                raise InputError(
                    f"{where}: cell {cell.coordinate} holds a formula that was never calculated; "
                    "open the file in Excel or LibreOffice and save it there"
                )
        texts = [_cell_text(cell, where) for cell in cells]
        if any(texts):
            rows[number - 2] = texts
    if not rows:
        raise InputError(f"{where}: has no cell; fill in the table")
    frame = pd.DataFrame.from_dict(rows, orient="index").astype(TEXT)
    others = [name for name in values.sheetnames if name != chosen]
    note = f"sheet {chosen!r} is read" + (f", not {', '.join(others)}" if others else "")
    return frame.loc[:, (frame != "").any()], [note]


def _cell_text(cell: Any, where: str) -> str:
    """Return the text of a cell as a CSV file would hold it."""
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "e" and value != "#N/A":
        raise InputError(f"{where}: cell {cell.coordinate} holds the error {value}; correct it")
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number_text(cell, where)
    if isinstance(value, datetime.datetime):
        is_day = value.time() == datetime.time()
        return value.date().isoformat() if is_day else value.isoformat(sep=" ")
    return str(value).strip()


def _number_text(cell: Any, where: str) -> str:
    """Return the text of a number, with the leading zeros that its format shows."""
    value, number_format = cell.value, str(cell.number_format)
    if abs(value) >= _MOST_EXACT:
        raise InputError(
            f"{where}: cell {cell.coordinate} holds a number of more than 15 digits, of which a "
            "spreadsheet keeps 15; write it as text"
        )
    if float(value) != int(value):
        return repr(float(value))
    if set(number_format) == {"0"}:  # 00000000 shows leading zeros
        return str(int(value)).zfill(len(number_format))
    if re.search("0,?0", number_format.partition(".")[0]):
        raise InputError(
            f"{where}: cell {cell.coordinate} shows zeros by the format {number_format!r}; write "
            "it as text, or give it the format of a number"
        )
    return str(int(value))


def read_json_file(path: Path) -> Any:
    """Read a JSON file in UTF-8 or the encoding of its byte order mark."""
    from pydantic_core import from_json

    try:
        return from_json(read_text_file(path))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None


def read_yaml_file(path: Path) -> Any:
    """Read a YAML file without aliases: with them a few lines can stand for gigabytes."""
    import yaml  # type: ignore[import-untyped]

    text = read_text_file(path)
    require_plain_yaml(text, path)
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1
                raise InputError(f"{path}: line {line}: has an alias (*name); write it out")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not readable as YAML ({reason})") from None


def read_xml_file(path: Path, tag: str) -> ElementTree.Element:
    """Read an XML file whose outermost element has a tag, and return that element."""
    try:
        content = path.read_bytes()
        if b"<!DOCTYPE" in content.replace(b"\0", b"").upper():  # in UTF-16, too
            raise InputError(f"{path}: has a document type, which no annotation needs")
        root = ElementTree.fromstring(content)  # noqa: S314 - without a document type
    except InputError:
        raise
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path}: not readable as XML ({' '.join(str(error).split())})") from None
    if root.tag != tag:
        raise InputError(f"{path}: is <{root.tag[:40]}>, not <{tag}>")
    return root


def inert_cell(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet program would take for a formula.

    A program that divides at semicolons or tabs, whatever the quotes, makes several cells of one.

    Examples:
        >>> inert_cell("=1"), inert_cell("-8.0"), inert_cell(-8), inert_cell("x;=1")
        ("'=1", '-8.0', -8, "x;'=1")
    """
    return _inert_text(value) if isinstance(value, str) else value


@lru_cache(maxsize=4096)  # a long table has the same few texts in many rows
def _inert_text(text: str) -> str:
    parts = re.split(r"([;\t\r\n])", text)
    return "".join(f"'{part}" if _is_formula(part) else part for part in parts)


def _is_formula(text: str) -> bool:
    """Return True if a text begins as a formula does, and is no number."""
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    return bool(re.match(r"\s*[=+@-]", text)) and not re.fullmatch(number, text.strip())


def write_csv(frame: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a table without its index as CSV, with no text that begins a formula."""
    texts = frame.select_dtypes(exclude=["number", "bool"]).map(inert_cell)
    with atomic_path(path) as temporary:
        frame.assign(**texts).to_csv(temporary, index=False, **options)
