"""Reading of a sheet of a workbook (.xlsx, .xlsm) as columns of text.

A workbook is a ZIP archive of XML, which may unpack to a thousand times its size. The unpacked size
is therefore checked before any part is opened. A formula has the value that the spreadsheet program
stored.
"""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import pandas as pd
from openpyxl import load_workbook
from openpyxl.utils import get_column_letter

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.text import TEXT

_MIB = 1 << 20
_MAX_BYTES = 128 * _MIB
_MAX_SHARED_BYTES = 32 * _MIB
MAX_ROWS = 1 << 20
"""Most rows of a sheet."""
_MAX_CELLS = 2_500_000
MAX_TAGS = 12_000_000
"""Most tags in a part of a workbook; a cell has four."""
_MAX_PARTS = 10_000
_MAX_NAMED = 5  # sheets in a message
_SAVE_AS_CSV = "save the sheet as CSV, which may be larger"
_BOOK = "xl/workbook.xml"
_LINKS = "xl/_rels/workbook.xml.rels"
_TEXTS = "xl/sharedStrings.xml"
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\b[^>]*\bref=[\"']([A-Z0-9:]+)[\"']")
_HIDDEN_ROW = re.compile(rb"<(?:\w+:)?row\b[^>]*\bhidden=[\"'](?:1|true)[\"']")
_FORMULA = re.compile(rb"<(?:\w+:)?c\b([^>]*)>\s*<(?:\w+:)?f[\s/>]")
_EMPTY_FORMULA = re.compile(
    rb"<(?:\w+:)?c\b([^>]*)>\s*<(?:\w+:)?f(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*"
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
_NEVER_CALCULATED = re.compile(rb"fullCalcOnLoad=[\"'](?:1|true)[\"']")
_TEXT_FORMULA = re.compile(rb"\bt=[\"']str[\"']")
_FIRST_SECTION = re.compile(r"""(?:[^;"\\]|\\.|"[^"]*")*""")  # of a number format: positive numbers
_UNSEEN = re.compile(r"\[[^\]<>=]*\]|[_*].")  # colours, languages, and what fills a cell
_LITERAL = re.compile(r'"[^"]*"|\\.|[-/ ]')
_EXACT_LIMIT = 10**15  # a spreadsheet keeps 15 digits of a number
_MISSING = "#N/A"  # result of a formula without a value


def sheet_names(path: Path) -> list[str]:
    """Return the names of the sheets of a workbook, in the order of the workbook.

    Args:
        path: Path of the workbook (.xlsx or .xlsm).

    Returns:
        The names, as a spreadsheet program shows them.

    Raises:
        InputError: The file cannot be read as a workbook, or its unpacked size exceeds the limit.
    """
    with _open_archive(path) as archive:
        return list(_sheet_parts(archive, path))


def read_sheet(path: Path, sheet: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Read a sheet of a workbook, whose first row with content must hold the names of the columns.

    Args:
        path: Path of the workbook (.xlsx or .xlsm).
        sheet: Name of the sheet. None takes the only visible sheet with content.

    Returns:
        Two values: a table of the cells as text, and one sentence for each assumption that was made
        in reading. The index of a row is its row number in the sheet minus 2.

    Raises:
        InputError: The file cannot be read as a workbook, its unpacked size exceeds the limit, the
            sheet does not exist, or several sheets have content. Also if a cell is merged, is an
            error, or has a formula that was never calculated, because its value is then uncertain.
    """
    with _open_archive(path) as archive, path.open("rb") as file:
        parts = _sheet_parts(archive, path)
        book = _load(file, path)
        try:
            chosen = _choose(book, sheet, path)
            where = f"{path}: sheet {chosen.title!r}"
            n_hidden = _require_plain(archive.read(parts[chosen.title]), archive, where)
            frame = _frame(chosen, where)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken archive or XML raises anything
            raise _unreadable(path, error) from None
        finally:
            book.close()
    note = f"sheet {chosen.title!r} is read"
    others = [name for name in parts if name != chosen.title]
    if others:
        note += f", not {', '.join(map(repr, others[:_MAX_NAMED]))}"
    notes = [note]
    if n_hidden:
        notes.append(
            f"{counted(n_hidden, 'row', 'are')} hidden in sheet {chosen.title!r}, perhaps by a "
            "filter, and read like the others; delete those that do not belong to the table"
        )
    return frame, notes


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path}: not readable as a workbook ({reason}); save it again as .xlsx")


def _open_archive(path: Path) -> zipfile.ZipFile:
    """Open the archive of a workbook whose parts unpack to no more than is allowed."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    try:
        _require_moderate(archive, path)
        _require_few_elements(archive, path)
    except InputError:
        archive.close()
        raise
    except Exception as error:  # noqa: BLE001 - a damaged part raises anything
        archive.close()
        raise _unreadable(path, error) from None
    return archive


def _require_moderate(archive: zipfile.ZipFile, path: Path) -> None:
    parts = archive.infolist()
    names = {part.filename for part in parts}
    if _BOOK not in names:
        raise InputError(f"{path}: {_other_archive(names)}")
    if len(parts) > _MAX_PARTS:
        raise InputError(f"{path}: holds {len(parts):,} parts; {_SAVE_AS_CSV}")
    if any(part.flag_bits & 1 for part in parts):
        raise InputError(f"{path}: has a password; save it without one")
    # An archive never gives more of a part than it announces here: zipfile stops there.
    sizes = {part.filename: part.file_size for part in parts if part.filename.endswith(".xml")}
    total = sum(sizes.values())
    if total > _MAX_BYTES or sizes.get(_TEXTS, 0) > _MAX_SHARED_BYTES:
        raise InputError(
            f"{path}: unpacks to {total / _MIB:,.0f} MiB, more than is read of a spreadsheet; "
            f"{_SAVE_AS_CSV}"
        )


def _require_few_elements(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse parts of many small elements, each of which takes more memory than it has bytes."""
    for name in archive.namelist():
        if name.startswith("xl/") and name.endswith(".xml"):
            content = archive.read(name)
            kind = b"si" if name == _TEXTS else b"row"
            n_entries = content.count(b"<" + kind) + content.count(b":" + kind)
            if n_entries > MAX_ROWS or content.count(b"<") > MAX_TAGS:
                raise InputError(
                    f"{path}: {name} has more than {MAX_ROWS:,} rows or texts, or "
                    f"{_MAX_CELLS:,} cells; {_SAVE_AS_CSV}"
                )


def _other_archive(names: set[str]) -> str:
    """Return the message about an archive that holds no workbook of XML."""
    if "xl/workbook.bin" in names:
        return "is a binary Excel file; save it in Excel as .xlsx"
    if "content.xml" in names:
        return "is a LibreOffice spreadsheet; save it there as .xlsx"
    if any(name.startswith("Index/") for name in names):
        return "is a Numbers spreadsheet; in Numbers say File, Export To, Excel"
    return "is an archive; unpack it and give the table inside"


def _sheet_parts(archive: zipfile.ZipFile, path: Path) -> dict[str, str]:
    """Return the part of the archive that holds each sheet, by the name of the sheet."""
    try:
        # Expat loads no external entity and refuses those that grow without bound.
        links = ElementTree.fromstring(archive.read(_LINKS))  # noqa: S314
        targets = {str(link.get("Id")): str(link.get("Target")) for link in links}
        sheets = ElementTree.fromstring(archive.read(_BOOK)).iter(f"{_MAIN}sheet")  # noqa: S314
        named = {str(s.get("name")): targets.get(str(s.get(_LINK)), "") for s in sheets}
    except Exception as error:  # noqa: BLE001 - a broken archive or XML raises anything
        raise _unreadable(path, error) from None
    absolute = {name: target.startswith("/") for name, target in named.items()}
    return {name: t.lstrip("/") if absolute[name] else f"xl/{t}" for name, t in named.items()}


def _load(file: BinaryIO, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, which do not matter here
            return load_workbook(file, read_only=True, data_only=True, keep_links=False)
    except Exception as error:  # noqa: BLE001 - a broken archive or XML raises anything
        raise _unreadable(path, error) from None


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
    names = ", ".join(repr(sheet.title) for sheet in filled[:_MAX_NAMED])
    raise InputError(
        f"{path}: has {counted(len(filled), 'sheet')} with cells ({names}); cxr prepare takes "
        "--sheet NAME, elsewhere save the sheet as a file of its own"
    )


def _has_cells(sheet: Any) -> bool:
    rows = sheet.iter_rows(max_row=MAX_ROWS, values_only=True)
    return any(any(value not in (None, "") for value in row) for row in rows)


def _require_plain(content: bytes, archive: zipfile.ZipFile, where: str) -> int:
    """Refuse merged cells, and formulas that no program has calculated; count hidden rows."""
    if b"\x00" in content[:4]:
        raise InputError(f"{where}: is not in UTF-8; save the file again in Excel or LibreOffice")
    n_hidden = len(_HIDDEN_ROW.findall(content))
    merged = _MERGED.search(content)
    if merged:
        raise InputError(
            f"{where}: cells {merged[1].decode()} are merged, so that only the first has a value; "
            "unmerge them and fill in each"
        )
    formula = _FORMULA.search(content)
    if formula is None:
        return n_hidden
    attributes = formula[1]
    calculated = _NEVER_CALCULATED.search(archive.read(_BOOK)) is None
    if calculated:
        empty = (match[1] for match in _EMPTY_FORMULA.finditer(content))
        attributes = next((text for text in empty if not _TEXT_FORMULA.search(text)), b"")
        calculated = not attributes
    if not calculated:
        cell = re.search(rb"\br=[\"']([A-Z]+\d+)[\"']", attributes)
        position = f"cell {cell[1].decode()}" if cell else "a cell"
        raise InputError(
            f"{where}: {position} holds a formula that was never calculated; open the file in "
            "Excel or LibreOffice and save it there"
        )
    return n_hidden


def _frame(sheet: Any, where: str) -> pd.DataFrame:
    rows = _text_rows(sheet, where)
    header_row, header = next(rows, (0, []))
    if not header:
        raise InputError(f"{where}: has no cell; fill in the table")
    if sum(name != "" for name in header) == 1:
        for row, cells in rows:
            if sum(cell != "" for cell in cells) > 1:
                raise InputError(
                    f"{where}: row {header_row} has one cell, row {row} more: names of columns "
                    "must stand in the first row; delete the rows above them"
                )
        rows = _text_rows(sheet, where)
        next(rows)
    numbers = []
    texts = []
    for row, cells in rows:
        numbers.append(row - 2)
        texts.append(cells)
    # Few of the 16,384 columns that a row may have are used, even if one cell stands in the last.
    named = {n: name for n, name in enumerate(header) if name}
    filled = set(named)
    for cells in texts:
        filled.update(n for n, cell in enumerate(cells) if cell)
    used = sorted(filled)
    columns = {
        n: pd.array([cells[n] if n < len(cells) else "" for cells in texts], dtype=TEXT)
        for n in used
    }
    frame = pd.DataFrame(columns, index=pd.Index(numbers, dtype="int64"))
    frame.columns = pd.Index([named.get(n, f"column {get_column_letter(n + 1)}") for n in used])
    return frame


def _text_rows(sheet: Any, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the texts of each row with cells, without empty cells at its end."""
    n_cells = 0
    for number, row in enumerate(sheet.iter_rows(), start=1):
        n_cells += len(row)
        if number > MAX_ROWS or n_cells > _MAX_CELLS:
            raise InputError(
                f"{where}: has more than {_MAX_CELLS:,} cells or {MAX_ROWS:,} rows; {_SAVE_AS_CSV}"
            )
        texts = [_cell_text(cell, where) for cell in row]
        while texts and not texts[-1].strip():
            texts.pop()
        if texts:
            yield number, texts


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
    section = _FIRST_SECTION.match(str(cell.number_format))
    shown = _UNSEEN.sub("", section[0] if section else "").strip()
    if value >= 0 and set(shown) == {"0"}:  # shows leading zeros, as in 00019124
        return text.zfill(len(shown))
    whole = re.split("[.%Ee]", _LITERAL.sub("", shown))[0]
    if "00" in whole.replace(",", ""):
        raise InputError(
            f"{where}: cell {cell.coordinate} holds {text} and shows it by the number format "
            f"{cell.number_format}; write the column as text, as it is shown"
        )
    return text
