"""Parquet tables on disk: writing, reading, and checking against their schemas.

Every table is checked when it is written and when it is read. A broken rule raises an `InputError`
that names the table, the rule, the row and the value. A file appears only when it is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.checksums import AGAIN, require_unchanged
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member, is_strictly_increasing
from cxr_compare.data_prep.contracts.records import SCHEMA_VERSION
from cxr_compare.data_prep.contracts.schemas import SCHEMAS, Column, Rule, Schema
from cxr_compare.data_prep.contracts.text import TEXT, from_arrow, to_arrow

_VERSION_KEY = b"cxr_schema_version"


def validate_table(frame: pd.DataFrame, name: str, where: str | Path = "") -> pd.DataFrame:
    """Convert a frame to the column types of a table kind, and check every rule of that kind.

    The kind is a key of `data_prep.contracts.schemas.SCHEMAS`, such as ``images``. Error messages
    begin with `where`, such as the file; with "" they begin with the kind. A missing, unknown or
    repeated column, and a row that breaks a rule, are refused.
    """
    schema = SCHEMAS[name]
    label = str(where or name)
    missing = [c for c, s in schema.columns.items() if s.required and c not in frame.columns]
    if missing:
        raise InputError(f"{label}: column '{missing[0]}' is missing; it has {list(frame.columns)}")
    unknown = [c for c in frame.columns if c not in schema.columns] if not schema.free else []
    if unknown:
        raise InputError(f"{label}: unknown column '{unknown[0]}'; remove it")
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{label}: column '{repeated}' appears twice; remove one")
    typed = typed_table(frame, name, label)
    broken = _broken_rule(typed, schema)
    if broken is not None:
        raise InputError(f"{label}: {broken}")
    return typed


def _broken_rule(frame: pd.DataFrame, schema: Schema) -> str | None:
    """Return the first rule that a typed frame breaks, with its row and value, or None."""
    for name, column in schema.columns.items():
        if name in frame.columns:
            broken = _broken_rule_of_column(frame, name, column)
            if broken:
                return broken
    keys = list(schema.unique)
    row = _first(_repeats(frame, keys)) if keys else None
    if row is not None:
        return f"{' + '.join(keys)} must be unique; {_position(frame, row)} repeats one"
    for rule in schema.rules:
        row = _first(~_holds(rule, frame))
        if row is not None:
            shown = [c for c in (*EDGES, "grid_h", "grid_w") if c in frame.columns]
            values = ", ".join(f"{c}={frame[c][row]:g}" for c in shown)
            return f"{rule.text}; {_position(frame, row)}: {values}"
    return None


def _repeats(frame: pd.DataFrame, keys: list[str]) -> np.ndarray:
    """Flag the rows whose key is also that of another row."""
    first = frame[keys[0]]
    if first.dtype == TEXT and is_strictly_increasing(first):
        return np.zeros(len(frame), dtype=bool)  # tables of images are sorted by id
    return frame.duplicated(keys, keep=False).to_numpy()


def _broken_rule_of_column(frame: pd.DataFrame, name: str, column: Column) -> str | None:
    series = frame[name]
    if column.type is None and series.dtype != object:
        return f"{name} must hold lists, got {series.dtype}"
    values = series.array  # compared in a fraction of the time that a Series takes
    is_missing = values.isna()
    row = _first(is_missing)
    if row is not None:
        if not column.nullable:
            return f"{name} must not be missing; {_position(frame, row)}"
        values = values[~is_missing]
    for rule in column.rules:
        row = _first(~_holds(rule, values))
        if row is not None:
            value = values[row]
            value = value.item() if isinstance(value, np.generic) else value
            position = _position(frame, int(np.flatnonzero(~is_missing)[row]))
            return f"{name} must be {rule.text}; {position}: {name}={value!r}"
    return None


def _holds(rule: Rule, values: Any) -> np.ndarray:
    """Flag the rows that satisfy a rule; none does if it does not apply to their type."""
    try:
        return np.asarray(rule.holds(values), dtype=bool)
    except TypeError:  # a rule about numbers, and values that are none
        return np.zeros(len(values), dtype=bool)


def _first(flags: pd.Series | np.ndarray) -> int | None:
    """Return the first flagged row; None if there is none."""
    rows = np.asarray(flags)
    return int(rows.argmax()) if rows.any() else None


def _position(frame: pd.DataFrame, row: int) -> str:
    if "image_id" not in frame:
        return f"row {row}"
    return f"row {row}, image_id {frame['image_id'][row]!r}"


def typed_table(frame: pd.DataFrame, name: str, label: str = "") -> pd.DataFrame:
    """Convert a copy of a frame to the column types of a table kind, without checking the rows.

    The kind is a key of `SCHEMAS`; columns that it does not have stay unchanged. The rows are
    numbered from 0. A column that cannot be converted is an `InputError` that begins with `label`,
    or with the kind if that is "".
    """
    typed = frame.reset_index(drop=True)
    dtypes = dict(zip(typed.columns, typed.dtypes, strict=True))
    for column, spec in SCHEMAS[name].columns.items():
        target = column_dtype(spec)
        if column not in dtypes or target is None or dtypes[column] == target:
            continue
        try:
            typed[column] = typed[column].astype(target)
        except (TypeError, ValueError) as error:
            message = f"{label or name}: column '{column}' must be {spec.type}: {error}"
            raise InputError(message) from None
    return typed


def column_dtype(column: Column) -> Any:
    """Return the pandas dtype of a column, for ``astype``; None for a column of lists."""
    return TEXT if column.type == "text" else column.type


def empty_table(name: str) -> pd.DataFrame:
    """Return a table of a given kind (a key of `SCHEMAS`) with all required columns and no rows."""
    columns = [c for c, spec in SCHEMAS[name].columns.items() if spec.required]
    return typed_table(pd.DataFrame({c: [] for c in columns}), name)


def write_table(frame: pd.DataFrame, path: Path, name: str) -> str:
    """Check a table and write it as one Parquet file, which appears only when it is complete.

    Returned is the SHA-256 of the bytes of the file in hexadecimal digits, with which the record
    that completes the folder names the file; see `read_table`. The kind is a key of `SCHEMAS`.

    Example:
        >>> scores = pd.DataFrame({"image_id": ["a"], "finding": ["mass"], "score": [float("nan")]})
        >>> write_table(scores, Path("scores.parquet"), "scores")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: scores.parquet: ...
    """
    table = to_arrow(validate_table(frame, name, path.name))
    metadata = {
        **(table.schema.metadata or {}),
        _VERSION_KEY: str(SCHEMA_VERSION).encode(),
    }
    content = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        content,
        compression="zstd",
        write_page_checksum=True,
    )
    buffer = content.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer)
    return hashlib.sha256(buffer).hexdigest()


def read_table(
    path: Path,
    name: str,
    columns: Sequence[str] | None = None,
    *,
    files: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Read a table from Parquet, and check its bytes and its rows.

    The path is a file, or a folder of ``part-*.parquet`` files, which are read in order; `name` is
    the kind of the table, a key of `SCHEMAS`. With `columns`, only these are read, and the rows are
    not checked. `files` has the SHA-256 digests by file name that the record of the folder states,
    of a part under ``scores.parquet/part-00000.parquet``; None is for a table that no record names
    yet.
    """
    parts = table_parts(path, files)
    if path.is_dir() and not parts:
        return empty_table(name) if columns is None else empty_table(name)[list(columns)]
    frames = [_read_part(part, columns, files) for part in parts]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return frame if columns is not None else validate_table(frame, name, path)


def table_parts(path: Path, files: Mapping[str, str] | None) -> list[Path]:
    """Return the files of a table in their order: those of the folder and those of its record."""
    if not path.is_dir():
        return [path]
    parts = set(path.glob("part-*.parquet"))
    stated = [name for name in files or () if name.startswith(f"{path.name}/")]
    return sorted(parts | {path.parent / name for name in stated})


def _read_part(
    path: Path, columns: Sequence[str] | None, files: Mapping[str, str] | None
) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such table; is this the right folder, and is it complete?")
    content = path.read_bytes()
    if files is not None:
        is_part = path.parent.suffix == ".parquet"
        digest = files.get(f"{path.parent.name}/{path.name}" if is_part else path.name)
        require_unchanged(path, digest, hashlib.sha256(content).hexdigest())
    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            table = file.read(None if columns is None else list(columns))
        frame = from_arrow(table)
    except Exception as error:  # noqa: BLE001 - damaged metadata raise all kinds
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as a table ({reason}); {AGAIN}") from None
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise InputError(
            f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}; "
            "make the folder again with this version"
        )
    return frame


def stored_table(
    file: str, schema: str, reader: str | None = None
) -> cached_property[pd.DataFrame]:
    """Make a cached property that reads a table from the folder for which an object stands.

    The class has the attributes ``folder``, ``info`` (the record of the folder) and ``tables``. If
    ``tables`` has the name of the file without its suffix, such as ``findings``, the property
    returns that table instead. `file` is a Parquet file or a folder of them, `schema` a key of
    `SCHEMAS`, and `reader` the human reader whose rows are returned; None returns all rows.
    """
    name = file.removesuffix(".parquet")

    def read(owner: Any) -> pd.DataFrame:
        if name in owner.tables:
            return owner.tables[name]
        table = read_table(owner.folder / file, schema, files=owner.info.files)
        if not schema.endswith("images"):
            require_members(table["image_id"], owner.images, owner.folder / file)
        return table if reader is None else table[table["reader"] == reader].reset_index(drop=True)

    return cached_property(read)


def require_members(ids: pd.Series, images: pd.DataFrame, path: Path) -> None:
    """Refuse a table, named by its path, with an image id that is not in the folder's images table.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a"]})
        >>> require_members(pd.Series(["a"]), images, Path("boxes.parquet"))
        >>> require_members(pd.Series(["b"]), images, Path("boxes.parquet"))
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: boxes.parquet: 1 of its ids ...
    """
    is_unknown = ~is_member(ids, images["image_id"])
    row = _first(is_unknown)
    if row is not None:
        raise InputError(
            f"{path}: {int(is_unknown.sum()):,} of its ids are no image of this folder, first "
            f"image_id {ids.iloc[row]!r}; bring back the tables as they were, or make the folder "
            "again"
        )


def frame_digest(frame: pd.DataFrame, columns: Iterable[str]) -> str:
    """Return a digest, 16 hexadecimal digits, of some columns of a table with rows in any order."""
    names = list(columns)
    hashes = np.sort(pd.util.hash_pandas_object(frame[names], index=False).to_numpy())
    return hashlib.sha256(",".join(names).encode() + hashes.tobytes()).hexdigest()[:16]
