"""Reading of a sheet of a workbook (.xlsx, .xlsm) as rows of text.

A workbook is a ZIP archive of XML, which may unpack to a thousand times its size. The unpacked size
is therefore checked before any part is opened. A formula has the value that the spreadsheet program
stored.
"""

from __future__ import annotations

import datetime
import re
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zipfile import ZipFile

import pandas as pd
from openpyxl.reader.excel import ExcelReader
from openpyxl.utils import get_column_letter

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.text import TEXT

_MIB = 1 << 20
_MOST_BYTES = 128 * _MIB
_MOST_SHARED_BYTES = 32 * _MIB
_MOST_ROWS = 1 << 20
_MOST_CELLS = 2_500_000
_NAMED = 5  # sheets in a message
_SAVE_AS_CSV = "save the sheet as CSV, which may be larger"
_BOOK = "xl/workbook.xml"
_NEVER_CALCULATED = re.compile(rb"fullCalcOnLoad=[\"'](?:1|true)[\"']")
_EXACT_LIMIT = 10**15  # a spreadsheet keeps 15 digits of a number
_MISSING = "#N/A"  # result of a formula without a value


def read_sheet(path: Path, sheet: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Read a sheet of a workbook, whose first row with content must hold the names of the columns.

    None takes the only visible sheet with content. Returned are a table of the cells as text, whose
    first row are the names of the columns, and one sentence for each assumption that was made in
    reading. The index of a row is its row number in the sheet minus 2.

    Refused are a file that is no workbook or exceeds the limit of the unpacked size, an unknown
    sheet, and several sheets with content. A cell that is merged, is an error, or has a formula
    that was never calculated is refused, too, because its value is uncertain.
    """
    try:
        with path.open("rb") as file, ZipFile(file) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, which do not matter here
            _require_moderate(archive, path)
            reader = ExcelReader(file, read_only=True, data_only=True, keep_links=False)
            reader.read()
            chosen = _choose(reader.wb, sheet, path)
            where = f"{path}: sheet {chosen.title!r}"
            parts = {named.name: link.target for named, link in reader.parser.find_sheets()}
            n_hidden = _require_plain(archive, parts[chosen.title], where)
            rows = _rows(chosen, where)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken archive or XML raises anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: not readable as a workbook ({reason}); save it again as .xlsx"
        ) from None
    note = f"sheet {chosen.title!r} is read"
    others = [name for name in parts if name != chosen.title]
    if others:
        note += f", not {', '.join(map(repr, others[:_NAMED]))}"
    notes = [note]
    if n_hidden:
        notes.append(
            f"{counted(n_hidden, 'row', 'are')} hidden in sheet {chosen.title!r}, perhaps by a "
            "filter, and read like the others; delete those that do not belong to the table"
        )
    return rows, notes


def _require_moderate(archive: ZipFile, path: Path) -> None:
    """Refuse an archive that is no workbook, or that unpacks to too much."""
    # An archive never gives more of a part than it announces here: zipfile stops there.
    sizes = {part.filename: part.file_size for part in archive.infolist()}
    if _BOOK not in sizes:
        raise InputError(
            f"{path}: is an archive and no workbook; save a spreadsheet as .xlsx, or unpack the "
            "archive and give the table inside"
        )
    total = sum(size for name, size in sizes.items() if name.endswith(".xml"))
    if total > _MOST_BYTES or sizes.get("xl/sharedStrings.xml", 0) > _MOST_SHARED_BYTES:
        raise InputError(
            f"{path}: unpacks to {total / _MIB:,.0f} MiB, more than is read of a spreadsheet; "
            f"{_SAVE_AS_CSV}"
        )


def _choose(book: Any, name: str | None, path: Path) -> Any:
    """Return the sheet of a name, or the only visible one with cells."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    for sheet in sheets.values():
        sheet.reset_dimensions()  # the file may state wrong ones
    if name is not None:
        if name in sheets:
            return sheets[name]
        raise InputError(f"{path}: has no sheet {name!r}; it has {', '.join(map(repr, sheets))}")
    filled = [s for s in sheets.values() if s.sheet_state == "visible" and _has_cells(s)]
    if len(filled) == 1:
        return filled[0]
    if not filled:
        raise InputError(f"{path}: no sheet has a cell; fill in the table")
    names = ", ".join(repr(sheet.title) for sheet in filled[:_NAMED])
    raise InputError(
        f"{path}: has {counted(len(filled), 'sheet')} with cells ({names}); cxr prepare takes "
        "--sheet NAME, elsewhere save the sheet as a file of its own"
    )


def _has_cells(sheet: Any) -> bool:
    rows = sheet.iter_rows(max_row=_MOST_ROWS, values_only=True)
    return any(any(value not in (None, "") for value in row) for row in rows)


def _require_plain(archive: ZipFile, part: str, where: str) -> int:
    """Refuse merged cells, and formulas that no program has calculated; count hidden rows."""
    never_calculated = _NEVER_CALCULATED.search(archive.read(_BOOK)) is not None
    n_hidden = 0
    with archive.open(part) as file:
        for _, element in ElementTree.iterparse(file):  # noqa: S314
            tag = element.tag.rpartition("}")[2]
            if tag == "mergeCell":
                raise InputError(
                    f"{where}: cells {element.get('ref')} are merged, so that only the first has a "
                    "value; unmerge them and fill in each"
                )
            if tag == "c" and element.find("{*}f") is not None:
                value = (element.findtext("{*}v") or "").strip()
                has_value = value != "" or element.get("t") == "str"  # a text may be empty
                if never_calculated or not has_value:
                    raise InputError(
                        f"{where}: cell {element.get('r')} holds a formula that was never "
                        "calculated; open the file in Excel or LibreOffice and save it there"
                    )
            if tag == "row":
                n_hidden += element.get("hidden") in ("1", "true")
                element.clear()  # as it would keep its cells in memory
    return n_hidden


def _rows(sheet: Any, where: str) -> pd.DataFrame:
    """Return the filled cells as text; columns without one are left out, and so are rows."""
    rows: dict[int, dict[int, str]] = {}
    n_cells = 0
    for number, row in enumerate(sheet.iter_rows(), start=1):
        n_cells += len(row)
        if number > _MOST_ROWS or n_cells > _MOST_CELLS:
            raise InputError(
                f"{where}: has more than {_MOST_CELLS:,} cells or {_MOST_ROWS:,} rows; "
                f"{_SAVE_AS_CSV}"
            )
        cells = {n: _cell_text(cell, where) for n, cell in enumerate(row, start=1)}
        texts = {n: text for n, text in cells.items() if text.strip()}
        if texts:
            rows[number] = texts
    if not rows:
        raise InputError(f"{where}: has no cell; fill in the table")
    first, *others = rows
    wide = next((number for number in others if len(rows[number]) > 1), None)
    if len(rows[first]) == 1 and wide is not None:
        raise InputError(
            f"{where}: row {first} has one cell, row {wide} more: names of columns must stand in "
            "the first row; delete the rows above them"
        )
    # Few of the 16,384 columns that a row may have are used, even if one cell stands in the last.
    numbers = [number - 2 for number in rows]
    frame = pd.DataFrame(list(rows.values()), index=numbers, dtype=TEXT).fillna("")
    frame = frame.sort_index(axis=1)
    return frame.rename(columns=lambda n: f"column {get_column_letter(n)}")


def _cell_text(cell: Any, where: str) -> str:
    """Return the text of a cell as a CSV file would hold it."""
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "e" and value != _MISSING:
        raise InputError(
            f"{where}: cell {cell.coordinate} holds the error {value}; correct it, or leave the "
            "cell empty"
        )
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number_text(value, cell, where)
    if isinstance(value, datetime.datetime):
        is_day = value.time() == datetime.time()
        return value.date().isoformat() if is_day else value.isoformat(sep=" ")
    return str(value)


def _number_text(value: float, cell: Any, where: str) -> str:
    if abs(value) >= _EXACT_LIMIT:
        raise InputError(
            f"{where}: cell {cell.coordinate} holds a number of more than 15 digits, of which a "
            "spreadsheet keeps 15; write it as text, or leave it out"
        )
    if float(value) != int(value):
        return repr(float(value))
    text = str(int(value))
    shown = str(cell.number_format)
    if value >= 0 and set(shown) == {"0"}:  # shows leading zeros, as in 00019124
        return text.zfill(len(shown))
    if "00" in re.split("[.%Ee]", shown)[0].replace(",", ""):
        raise InputError(
            f"{where}: cell {cell.coordinate} holds {text} and shows it by the number format "
            f"{cell.number_format}; write the column as text, as it is shown"
        )
    return text
