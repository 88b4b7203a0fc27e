"""Limits on a user's text files, YAML and workbooks, which are checked before they are read.

A small file can stand for gigabytes, and a few brackets for minutes.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from cxr_compare.data_prep.base.errors import InputError

MOST_BYTES = 512 << 20
"""Bytes of a text, inflated if it is compressed."""
MOST_ROWS = 10_000_000
"""Rows of a table."""
_CHUNK = 1 << 20
GZIP_WINDOW = 31
"""Number by which zlib knows the header of gzip."""
MOST_YAML_BYTES = 256 << 10
MOST_YAML_DEPTH = 50
MOST_WORKBOOK_BYTES = 256 << 20
MOST_CELLS = 2_000_000
"""Cells of a sheet, from the first to the last that is filled."""


def inflated(content: bytes, path: Path) -> bytes:
    """Inflate the text of a gzip file, until it is too long."""
    parts: list[bytes] = []
    n_bytes = n_rows = 0
    while content:
        stream = zlib.decompressobj(GZIP_WINDOW)
        while not stream.eof:
            part = stream.decompress(content, _CHUNK)
            content = stream.unconsumed_tail
            if not (part or content or stream.eof):
                raise EOFError("the compressed text is cut short")
            n_bytes, n_rows = n_bytes + len(part), n_rows + part.count(b"\n")
            require_table_size(n_bytes, n_rows, path)
            parts.append(part)
        content = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def require_table_size(n_bytes: int, n_rows: int, path: Path) -> None:
    """Refuse a table of too many bytes, when it is inflated, or rows."""
    if n_bytes > MOST_BYTES or n_rows > MOST_ROWS:
        raise InputError(
            f"{path}: holds more than {MOST_BYTES >> 20} MiB, or {MOST_ROWS:,} rows; divide it "
            "into several files"
        )


def require_plain_yaml(text: str, path: Path) -> None:
    """Refuse a YAML text that is very long, or has brackets very deep."""
    if len(text) > MOST_YAML_BYTES:
        raise InputError(
            f"{path}: is a YAML file of {len(text) >> 10:,} KiB, and one of a data set has at most "
            f"{MOST_YAML_BYTES >> 10}; give the names of the classes alone"
        )
    depth = 0
    for sign in text:
        depth = max(0, depth + (sign in "[{") - (sign in "]}"))
        if depth > MOST_YAML_DEPTH:
            raise InputError(f"{path}: has brackets in brackets, over {MOST_YAML_DEPTH} deep")


def require_workbook_size(content: bytes, path: Path) -> None:
    """Refuse a workbook whose parts are too long when they are inflated."""
    with ZipFile(BytesIO(content)) as archive:
        n_bytes = sum(part.file_size for part in archive.infolist())
    if n_bytes > MOST_WORKBOOK_BYTES:
        raise InputError(
            f"{path}: is a workbook of {n_bytes >> 20:,} MiB when it is inflated, and at most "
            f"{MOST_WORKBOOK_BYTES >> 20} are read; save the table as CSV"
        )


def filled_range(content: bytes, sheet: str, where: str) -> tuple[int, int]:
    """Return the last row and the last column of a sheet that are filled, from 1.

    Formats of empty cells, which a spreadsheet program counts as used, do not count.
    """
    import openpyxl  # slow to import, and seldom needed

    book = openpyxl.load_workbook(BytesIO(content), read_only=True)
    last_row = last_column = 1
    stored = book[sheet]
    stored.reset_dimensions()  # else each row is as long as the longest
    for row, cells in enumerate(stored.iter_rows(values_only=True), start=1):
        filled = [column for column, value in enumerate(cells, start=1) if value is not None]
        if filled:
            last_row, last_column = row, max(last_column, filled[-1])
    book.close()
    if last_row * last_column > MOST_CELLS:
        raise InputError(
            f"{where}: has {last_row:,} rows and {last_column:,} columns up to the last filled "
            f"cell, and at most {MOST_CELLS:,} cells are read; delete what is no table, or save "
            "the table as CSV"
        )
    return last_row, last_column
