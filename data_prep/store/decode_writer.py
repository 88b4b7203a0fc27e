"""Writing of decoded images, so that a kill at any moment loses little and damages nothing.

The squares of a size are one ``.npy`` file, written by position. After them, a line of JSON with
the facts, rows and checksums of each image is appended to the journal of the data set. It names
only squares that are on the disk. A new writer goes on after the last whole line; what follows in
the arrays is written again. Complete arrays get an index; the facts become ``decode.parquet``.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.lib import format as npy_format
from pyarrow import json as arrow_json

from cxr_compare.data_prep.contracts.disk_space import disk_errors, make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import SCHEMAS, Column
from cxr_compare.data_prep.contracts.tables import column_dtype, read_table, write_table
from cxr_compare.data_prep.contracts.text import from_arrow
from cxr_compare.data_prep.store.decode import DecodedRow
from cxr_compare.data_prep.store.pixel_store import index_file, pixels_file

JOURNAL = "decoded.jsonl"
"""File in the folder of a data set with a line for each image that was decoded; see above."""
_COMMIT_IMAGES = 32  # images between two commits: a kill loses a few seconds of work at most
_FACTS: dict[str, Column] = {
    **SCHEMAS["decode"].columns,
    **{name: SCHEMAS["images"].columns[name] for name in ("file_sha256", "height", "width")},
}
_ARROW_TYPES = {
    "text": pa.string(),
    "float64": pa.float64(),
    "Int64": pa.int64(),
    "bool": pa.bool_(),
}


class DecodeWriter:
    """A context manager that stores facts and squares of the images of a data set.

    The caller has locked the folder; the sizes are the sides of the squares, px. An end of the
    ``with`` block, by an exception or Ctrl-C as well, keeps what was added.

    Attributes:
        rows: By size and image id, the row of its square in the array, and the CRC32.
    """

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        self._folder = make_folder(folder)
        self._journal = folder / JOURNAL
        self._waiting: list[str] = []
        files = {size: pixels_file(folder, size) for size in sizes}
        self.rows = {size: _read_index(path) for size, path in files.items()}
        with disk_errors(folder):
            self._journal_bytes = self._read_journal()
            self._arrays = {size: _Array(path, size) for size, path in files.items()}
            for size, array in self._arrays.items():
                if not array.holds(self._next_row(size)):
                    self._forget(size)
        self._next_rows = {size: self._next_row(size) for size in sizes}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
            else:
                with suppress(InputError, OSError):  # the first error is the one to show
                    self.commit()
        finally:
            for array in self._arrays.values():
                array.close()

    def has_squares(self, image_id: str) -> bool:
        """Return True if the squares of an image are stored in all sizes."""
        return all(image_id in rows for rows in self.rows.values())

    def add(self, image: DecodedRow) -> None:
        """Store the squares and facts of a decoded image; they replace those stored before."""
        line = {name: _json_value(value) for name, value in image.facts.items()}
        line = {name: value for name, value in line.items() if value is not None}
        for size, square in image.squares.items():
            row, _ = self.rows[size].get(image.image_id, (self._next_rows[size], 0))
            self._next_rows[size] = max(self._next_rows[size], row + 1)
            with disk_errors(self._folder):
                self._arrays[size].write(row, square)
            checksum = zlib.crc32(np.ascontiguousarray(square).data)
            self.rows[size][image.image_id] = (row, checksum)
            line |= {f"row_{size}": row, f"crc32_{size}": checksum}
        self._waiting.append(json.dumps({"image_id": image.image_id, **line}) + "\n")
        if len(self._waiting) >= _COMMIT_IMAGES:
            self.commit()

    def commit(self) -> None:
        """Bring squares, then lines, to the disk, so that they survive a kill of the process."""
        if not self._waiting:
            return
        lines = "".join(self._waiting).encode()
        with disk_errors(self._folder):
            for array in self._arrays.values():
                array.sync()
            with self._journal.open("r+b" if self._journal.exists() else "wb") as journal:
                journal.seek(self._journal_bytes)
                journal.write(lines)
        self._journal_bytes += len(lines)
        self._waiting = []

    def facts(self) -> pd.DataFrame:
        """Return the facts of the images in the journal; the last line of an image counts."""
        self.commit()
        if not self._journal_bytes:
            return typed_facts(pd.DataFrame({"image_id": []}))
        types = [(name, _ARROW_TYPES[str(column.type)]) for name, column in _FACTS.items()]
        how = arrow_json.ParseOptions(
            explicit_schema=pa.schema(types), unexpected_field_behavior="ignore"
        )
        lines = arrow_json.read_json(self._journal, parse_options=how)
        # Lines of squares alone go before pandas makes floats of their missing numbers.
        lines = lines.filter(lines["pixel_sha256"].is_valid())
        facts = from_arrow(lines).drop_duplicates("image_id", keep="last", ignore_index=True)
        return typed_facts(facts)

    def finish(self, images: pd.DataFrame) -> None:
        """Complete the arrays, and write their indexes.

        The indexes name the given images (``image_id``, ``width`` and ``height`` in px).
        """
        self.commit()
        images = images[["image_id", "width", "height"]].sort_values("image_id")
        for size, array in self._arrays.items():
            with disk_errors(self._folder):
                array.finish(self._next_rows[size])
            squares = [self.rows[size][image_id] for image_id in images["image_id"]]
            rows, checksums = np.array(squares, dtype=np.int64).reshape(-1, 2).T
            write_table(
                images.assign(row=rows, crc32=checksums), index_file(array.path), "pixel_index"
            )

    def _read_journal(self) -> int:
        """Read the whole lines of the journal, cut off the rest, and return their bytes."""
        if not self._journal.is_file():
            return 0
        valid_bytes = 0
        with self._journal.open("rb") as lines:
            for line in lines:
                content = _content(line)
                if content is None:
                    break
                self._take(content)
                valid_bytes += len(line)
        os.truncate(self._journal, valid_bytes)
        return valid_bytes

    def _take(self, line: dict[str, Any]) -> None:
        for size, rows in self.rows.items():
            if line.get("lost_px") == size:
                rows.clear()
            elif f"row_{size}" in line:
                rows[line["image_id"]] = (line[f"row_{size}"], line[f"crc32_{size}"])

    def _forget(self, size: int) -> None:
        """Begin an array again that does not hold what index and journal say."""
        index_file(self._arrays[size].path).unlink(missing_ok=True)
        self.rows[size].clear()
        self._waiting.append(json.dumps({"lost_px": size}) + "\n")
        self.commit()

    def _next_row(self, size: int) -> int:
        return max((row for row, _ in self.rows[size].values()), default=-1) + 1


class _Array:
    """A ``.npy`` file of squares, whose header NumPy pads so that the first axis can grow."""

    def __init__(self, path: Path, size: int) -> None:
        make_folder(path.parent)
        self.path = path
        self._size = size
        self._header_bytes = len(_header(0, size))
        self._file = path.open("r+b" if path.exists() else "w+b")

    def holds(self, rows: int) -> bool:
        """Return True if the file is long enough for a number of squares."""
        return os.fstat(self._file.fileno()).st_size >= self._bytes(rows) or rows == 0

    def write(self, row: int, square: np.ndarray) -> None:
        """Write a square at its position."""
        if square.shape != (self._size, self._size) or square.dtype != np.uint8:
            expected = f"uint8 ({self._size}, {self._size})"
            raise ValueError(f"a square must be {expected}, got {square.dtype} {square.shape}")
        self._file.seek(self._bytes(row))
        self._file.write(np.ascontiguousarray(square).data)

    def sync(self) -> None:
        """Bring what was written to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self, rows: int) -> None:
        """Write the header, and cut off what follows the last square."""
        self._file.seek(0)
        self._file.write(_header(rows, self._size))
        self._file.truncate(self._bytes(rows))
        self.sync()

    def close(self) -> None:
        """Close the file, also on a full disk."""
        with suppress(OSError):
            self._file.close()

    def _bytes(self, rows: int) -> int:
        return self._header_bytes + rows * self._size**2


def typed_facts(rows: pd.DataFrame) -> pd.DataFrame:
    """Convert facts of decoded images to the types of their columns; absent columns are missing."""
    types = {name: column_dtype(column) for name, column in _FACTS.items()}
    return rows.reindex(columns=list(types)).astype(types)


def _read_index(path: Path) -> dict[str, tuple[int, int]]:
    try:
        index = read_table(index_file(path), "pixel_index")
    except InputError:  # there is none yet, or it is damaged: then the squares are made again
        return {}
    squares = zip(index["row"].tolist(), index["crc32"].tolist(), strict=True)
    return dict(zip(index["image_id"].tolist(), squares, strict=True))


def _content(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line; None if it was cut short."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    is_whole = line.endswith(b"\n") and isinstance(content, dict)
    return content if is_whole and ("image_id" in content or "lost_px" in content) else None


def _json_value(value: Any) -> Any:
    """Return a fact as JSON can hold it; None if it is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _header(images: int, size: int) -> bytes:
    header = BytesIO()
    shape = (images, size, size)
    npy_format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
