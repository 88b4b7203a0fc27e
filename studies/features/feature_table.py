"""A Parquet file of features that an encoder computed of the images of a data set.

The file is checked row by row and read in blocks, so that features of the cells of many images need
not fit into memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxr_compare import DataSet, InputError
from cxr_compare.data_prep.contracts.box_check import require_corners
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import first_line
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.sources.known_images import ids_by_name, ids_from_names

_DAMAGES = (OSError, pa.ArrowException, UnicodeDecodeError, OverflowError)
_GRID = ("grid_h", "grid_w")
_NUMBERED = re.compile(r"(.*?)(\d+)")
_BYTES_AT_ONCE = 1 << 25
_MOST_UNPACKED = 1000  # bytes of features by byte of the file; real features hardly shrink
_SHOWN = 3  # largest number of names that a message lists


@dataclass(frozen=True)
class _Layout:
    """Columns of a file of features, and the shape of the features of an image."""

    image: str  # column of the names of images
    values: tuple[str, ...]  # one column of lists, or a column for each number
    grid: tuple[int, int]
    channels: int
    has_frames: bool  # True if the file says which part of an image its grid covers

    @property
    def numbers(self) -> int:
        """Numbers of an image."""
        return self.grid[0] * self.grid[1] * self.channels


@dataclass(frozen=True)
class FeatureTable:
    """Features of the images of a data set in a Parquet file: one row for each image.

    The features of a row are a list of numbers in one column, or single numbers in the columns
    ``f0, f1, ...`` (any name followed by a number). With the columns ``grid_h`` and ``grid_w`` they
    are those of a grid of cells, row by row, with all numbers of the first cell first. The grid
    covers the whole image, or the part ``x1, y1, x2, y2`` (px of the original image) if the file
    has these columns.

    Attributes:
        index: Table with a row for each image of the data set, in the order of the file: its
            ``image_id``, its row ``place`` in the file and, for a grid or a part, the edges ``x1,
            y1, x2, y2`` of the part, px of the original image.
    """

    source: Path
    index: pd.DataFrame
    _file: pq.ParquetFile
    _layout: _Layout

    @classmethod
    def open(
        cls,
        source: Path,
        dataset: DataSet,
        *,
        image_column: str = "image_id",
        split: str = "default",
        ignore_unknown: bool = False,
    ) -> FeatureTable:
        """Open a file and check all but the features themselves.

        Each image of the split must have features. `ignore_unknown` leaves out rows whose image the
        data set lacks. Raises InputError if the file cannot be read, a column is missing or holds
        neither features nor a position, a row is wrong, or an image is unknown or missing.
        """
        file = _open(source)
        layout = _find_layout(file, source, image_column)
        index = _images(file, source, layout, dataset, ignore_unknown)
        _require_split(index, source, dataset, split)
        return cls(source, index, file, layout)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of features; (1, 1) for features of the whole image."""
        return self._layout.grid

    @property
    def channels(self) -> int:
        """Number of features of a whole image, or of each cell of its grid."""
        return self._layout.channels

    @property
    def has_grid(self) -> bool:
        """True if the features form a grid of more than one cell."""
        return max(self.grid) > 1

    def blocks(self) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Yield some rows of `index` with their features, float32 (rows, cells, channels).

        Raises InputError if a row has another number of features, or one that is not finite.
        """
        wanted = np.zeros(self._file.metadata.num_rows, bool)
        wanted[self.index["place"]] = True
        cells = self.grid[0] * self.grid[1]
        n_read = 0
        for first_row, block in _blocks(self._file, self.source, self._layout):
            chosen = block[wanted[first_row : first_row + len(block)]]
            rows = self.index.iloc[n_read : n_read + len(chosen)]
            n_read += len(chosen)
            yield rows, chosen.reshape(len(chosen), cells, self.channels)

    def pooled(self) -> tuple[np.ndarray, str]:
        """Return the mean features of each image, and a digest of all features.

        The means over the cells are float32 (N, channels), in the order of `index`. The digest is
        of the ids, the grid, its position and all features.
        """
        digest = hashlib.sha256("\n".join(self.index["image_id"]).encode())
        digest.update(repr(self.grid).encode())
        digest.update(self.index.filter(EDGES).to_numpy(np.float64).tobytes())
        means = [np.zeros((0, self.channels), np.float32)]
        for _, features in self.blocks():
            digest.update(features.tobytes())
            means.append(features.mean(axis=1))
        return np.concatenate(means), digest.hexdigest()[:16]


def _open(source: Path) -> pq.ParquetFile:
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
    except _DAMAGES as error:
        raise _damaged(source, error) from None
    if file.metadata.num_rows == 0:
        raise InputError(f"{source}: has no row")
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    n_values = sum(g.column(number).num_values for g in groups for number in range(g.num_columns))
    n_bytes = np.dtype(np.float32).itemsize * n_values
    if n_bytes > _MOST_UNPACKED * source.stat().st_size:
        raise InputError(
            f"{source}: would unpack to {n_bytes / 1e9:.3g} GB from {source.stat().st_size:,} "
            "bytes: these are no features of images"
        )
    return file


def _damaged(source: Path, error: Exception) -> InputError:
    return InputError(f"{source}: cannot be read as Parquet ({first_line(error)})")


def _read(file: pq.ParquetFile, source: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        return file.read(columns=list(columns)).to_pandas()
    except _DAMAGES as error:
        raise _damaged(source, error) from None


def _batches(
    file: pq.ParquetFile, source: Path, n_rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in file.iter_batches(n_rows, columns=list(columns)):
            batch.validate(full=True)
            yield batch
    except _DAMAGES as error:
        raise _damaged(source, error) from None


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _find_layout(file: pq.ParquetFile, source: Path, image_column: str) -> _Layout:
    """Find the columns of the features, and the shape of the features of an image."""
    kinds = {field.name: field.type for field in file.schema_arrow}
    if image_column not in kinds:
        listed = ", ".join(list(kinds)[:_SHOWN])
        raise InputError(
            f"{source}: has no column '{image_column}' (it begins with {listed}); name the column "
            "of the images: --image-column COLUMN"
        )
    grid = _grid(file, source, kinds)
    has_frames = _has_all(kinds, EDGES, source)
    known = {image_column, *(_GRID if grid else ()), *(EDGES if has_frames else ())}
    rest = [name for name in kinds if name not in known and name != "__index_level_0__"]
    lists = [name for name in rest if _is_list(kinds[name])]
    values = _value_columns(source, kinds, rest, lists)
    if lists:
        first = next(_batches(file, source, 1, lists)).column(0)[0].as_py()
        length = 0 if first is None else len(first)
    else:
        length = len(values)
    rows, columns = grid or (1, 1)
    cells = rows * columns
    if length == 0 or length % cells:
        raise InputError(
            f"{source}: row 0 has {length} numbers, which do not divide by grid_h x grid_w = "
            f"{rows} x {columns} cells"
        )
    return _Layout(image_column, values, (rows, columns), length // cells, has_frames)


def _value_columns(
    source: Path, kinds: Mapping[str, pa.DataType], rest: list[str], lists: list[str]
) -> tuple[str, ...]:
    """Return the columns of the features; refuse any other, which may be a label."""
    if len(lists) > 1:
        raise InputError(
            f"{source}: has {len(lists)} columns of lists ({', '.join(lists[:_SHOWN])}); keep that "
            "of the features"
        )
    if lists:
        if not _is_number(kinds[lists[0]].value_type):
            raise InputError(
                f"{source}: column '{lists[0]}' holds lists of {kinds[lists[0]].value_type}; write "
                "the numbers of an image as one list"
            )
        others = [name for name in rest if name not in lists]
    else:
        matches = {name: _NUMBERED.fullmatch(name) for name in rest if _is_number(kinds[name])}
        prefixes = [match[1] for match in matches.values() if match]
        prefix = max(set(prefixes), key=prefixes.count) if prefixes else ""
        numbers = {
            int(match[2]): name for name, match in matches.items() if match and match[1] == prefix
        }
        lists = [numbers[number] for number in sorted(numbers)]
        others = [name for name in rest if name not in lists]
        if not lists:
            raise InputError(
                f"{source}: has no features: one column of lists, or columns f0, f1, ... of numbers"
            )
        present = sorted(numbers)
        if present != list(range(present[0], present[0] + len(present))):
            gap = next(n for n in range(present[0], present[-1]) if n not in numbers)
            raise InputError(f"{source}: column '{prefix}{gap}' is missing among the features")
    if others:
        raise InputError(
            f"{source}: column '{others[0]}' holds neither features nor their position; remove it, "
            "so that no label is taken as a feature"
        )
    return tuple(lists)


def _has_all(kinds: Mapping[str, pa.DataType], names: Sequence[str], source: Path) -> bool:
    """Return True if a file has all of some columns, and False if it has none of them."""
    present = [name for name in names if name in kinds]
    if present and len(present) < len(names):
        missing = next(name for name in names if name not in kinds)
        raise InputError(
            f"{source}: has a column '{present[0]}' and none '{missing}'; add it, or remove the "
            "other"
        )
    wrong = next((name for name in present if not _is_number(kinds[name])), None)
    if wrong is not None:
        raise InputError(f"{source}: column '{wrong}' holds {kinds[wrong]}, expected numbers")
    return bool(present)


def _grid(
    file: pq.ParquetFile, source: Path, kinds: Mapping[str, pa.DataType]
) -> tuple[int, int] | None:
    """Return the grid of the cells, which is the same in all rows; None without such columns."""
    if not _has_all(kinds, _GRID, source):
        return None
    table = _read(file, source, _GRID)
    first = table.iloc[0]
    differs = (table != first).any(axis=1).to_numpy()
    if differs.any():
        row = int(differs.argmax())
        raise InputError(
            f"{source}: row {row} has a grid of {table['grid_h'][row]} x {table['grid_w'][row]} "
            f"cells and row 0 one of {first['grid_h']} x {first['grid_w']}; all must be equal"
        )
    rows, columns = (float(first[name]) for name in _GRID)
    if not (rows.is_integer() and columns.is_integer()) or min(rows, columns) < 1:
        raise InputError(f"{source}: grid_h and grid_w must be whole numbers of at least 1")
    return int(rows), int(columns)


def _images(
    file: pq.ParquetFile, source: Path, layout: _Layout, dataset: DataSet, ignore_unknown: bool
) -> pd.DataFrame:
    """Return the ids of the images, the rows of the file, and the frames of the grids."""
    columns = [layout.image, *(EDGES if layout.has_frames else ())]
    table = _read(file, source, columns)
    names = table[layout.image]
    if names.isna().any():
        row = int(names.isna().to_numpy().argmax())
        raise InputError(f"{source}: row {row} names no image in column '{layout.image}'")
    ids = ids_from_names(names.astype(str).astype(TEXT), ids_by_name(dataset.images))
    index = pd.DataFrame({"image_id": ids, "place": np.arange(len(ids))})
    if layout.has_frames:
        index[list(EDGES)] = table[list(EDGES)].astype(np.float64)
        _check_frames(index, source, dataset)
    is_repeated = index["image_id"].duplicated()
    if is_repeated.any():
        row = int(is_repeated.to_numpy().argmax())
        raise InputError(f"{source}: row {row} repeats image '{ids[row]}'; keep one row an image")
    is_unknown = ~is_member(index["image_id"], dataset.images["image_id"])
    if is_unknown.any() and not ignore_unknown:
        row = int(is_unknown.argmax())
        raise InputError(
            f"{source}: row {row}: image {names[row]!r} is not in {dataset.folder} "
            f"({int(is_unknown.sum())} such rows); correct it, or leave them out with "
            "--ignore-unknown"
        )
    index = index[~is_unknown].reset_index(drop=True)
    if max(layout.grid) > 1 and not layout.has_frames:
        _add_whole_frames(index, source, dataset)
    return index


def _check_frames(index: pd.DataFrame, source: Path, dataset: DataSet) -> None:
    """Check the parts of the images that grids cover; padding may reach beyond an image."""
    require_corners(index.assign(place="row " + index["place"].astype(str)), str(source))
    sizes = dataset.images.set_index("image_id")[["width", "height"]].reindex(index["image_id"])
    longer = sizes.max(axis=1).to_numpy(np.float64, na_value=np.inf)[:, None]
    edges = index[list(EDGES)].to_numpy()
    far = ((edges < -longer) | (edges > 2 * longer)).any(axis=1)
    if far.any():
        row = int(far.argmax())
        text = ", ".join(f"{edge}={value:g}" for edge, value in zip(EDGES, edges[row], strict=True))
        width, height = sizes.iloc[row]
        raise InputError(
            f"{source}: row {index['place'][row]}, image '{index['image_id'][row]}': {text} lies "
            f"far outside the image of {width} x {height} px; give the part that the grid covers "
            "in px of the original image"
        )


def _add_whole_frames(index: pd.DataFrame, source: Path, dataset: DataSet) -> None:
    """Let each grid cover its whole image."""
    sizes = dataset.images.set_index("image_id")[["width", "height"]].reindex(index["image_id"])
    unknown = sizes.isna().any(axis=1).to_numpy()
    if unknown.any():
        image = index["image_id"][int(unknown.argmax())]
        raise InputError(
            f"{source}: {dataset.folder} has no size of image '{image}', so its grid has no "
            "position; add the columns x1, y1, x2, y2 in px, or remove grid_h and grid_w"
        )
    index[["x1", "y1"]] = 0.0
    index[["x2", "y2"]] = sizes.to_numpy(np.float64)


def _require_split(index: pd.DataFrame, source: Path, dataset: DataSet, split: str) -> None:
    roles = dataset.split(split)
    needed = pd.Index(roles.loc[roles["role"] != "unused", "image_id"])
    missing = needed.difference(pd.Index(index["image_id"]))
    if len(missing):
        raise InputError(
            f"{source}: has no features of image '{missing[0]}' ({len(missing)} of the "
            f"{len(needed)} images of split '{split}' are missing); add them, or give the split "
            "that they are of with --split"
        )


def _blocks(
    file: pq.ParquetFile, source: Path, layout: _Layout
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of the first row and the features, float32 (rows, numbers), of some rows."""
    rows_at_once = max(1, _BYTES_AT_ONCE // (8 * layout.numbers))
    first_row = 0
    for batch in _batches(file, source, rows_at_once, layout.values):
        if len(layout.values) == 1 and _is_list(batch.column(0).type):
            block = _list_block(batch.column(0), source, layout, first_row)
        else:
            columns = [batch.column(name) for name in layout.values]
            block = np.stack([_floats(column) for column in columns], axis=1)
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            row = first_row + int(bad.argmax())
            raise InputError(
                f"{source}: row {row} has a feature that is missing or not finite in float32; "
                "correct the row, or leave it out"
            )
        yield first_row, block
        first_row += len(block)


def _list_block(column: pa.Array, source: Path, layout: _Layout, first_row: int) -> np.ndarray:
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    wrong = lengths != layout.numbers
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{source}: row {first_row + row} has {int(lengths[row])} numbers and row 0 has "
            f"{layout.numbers}; all must have the same"
        )
    return _floats(pc.list_flatten(column)).reshape(len(column), layout.numbers)  # type: ignore[attr-defined]


def _floats(array: pa.Array) -> np.ndarray:
    """Convert numbers to float32; a missing one becomes NaN, one that is too large infinite."""
    numbers = array.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers, dtype=np.float32)
