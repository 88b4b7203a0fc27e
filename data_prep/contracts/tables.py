"""The tables on disk: one owner for reading, writing and checking them.

Every table is validated when it is written and when it is read; a broken rule, which pandera finds,
is an `InputError` that names the table, the rule, the row and the value. Files appear whole or not
at all: each is written beside its place and renamed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path
from data_prep.contracts.json_files import SCHEMA_VERSION
from data_prep.contracts.schemas import SCHEMAS, Column, Rule, Schema

if TYPE_CHECKING:
    import pandera.pandas

__all__ = [
    "InputError",
    "empty_table",
    "frame_digest",
    "read_table",
    "typed_table",
    "validate_table",
    "write_table",
]

_VERSION_KEY = b"cxr_schema_version"


def validate_table(frame: pd.DataFrame, name: str, where: str | Path = "") -> pd.DataFrame:
    """Bring a frame to the types of a table and check every rule.

    Example:
        >>> frame = pd.DataFrame({"image_id": ["a"], "role": ["train"], "fold": [0]})
        >>> validate_table(frame, "split")["role"].tolist()
        ['train']
        >>> validate_table(frame.assign(role="trian"), "split")
        Traceback (most recent call last):
        ...
        data_prep.contracts.errors.InputError: split: role must be one of train, val, test, \
unused; row 0, image_id 'a': role='trian'
    """
    schema = SCHEMAS[name]
    label = str(where or name)
    missing = [c for c, s in schema.columns.items() if s.required and c not in frame.columns]
    if missing:
        raise InputError(f"{label}: column '{missing[0]}' is missing; it has {list(frame.columns)}")
    unknown = [c for c in frame.columns if c not in schema.columns] if not schema.free else []
    if unknown:
        raise InputError(f"{label}: unknown column '{unknown[0]}'; remove it")
    typed = typed_table(frame, name, label)
    if _keeps_rules(typed, schema):
        return typed
    import pandera.errors  # half a second, taken only where there is something to explain

    try:
        # Lazy: pandera then reports each failing value with its row.
        return _checker(name).validate(typed, lazy=True)
    except pandera.errors.SchemaErrors as error:
        raise InputError(f"{label}: {_first_failure(error, typed)}") from None


def _keeps_rules(frame: pd.DataFrame, schema: Schema) -> bool:
    """Whether a typed frame keeps every rule for certain: pandera looks at it again where not."""
    if not frame.columns.is_unique:
        return False
    try:
        for name, column in schema.columns.items():
            if name in frame.columns and not _keeps_column(frame[name], column):
                return False
        if schema.unique and frame.duplicated(list(schema.unique)).any():
            return False
        return all(rule.holds(frame).all() for rule in schema.rules)
    except TypeError:  # a list is none, say
        return False


def _keeps_column(values: pd.Series, column: Column) -> bool:
    if column.type is None and values.dtype != object:
        return False
    missing = values.isna()
    if missing.any():
        if not column.nullable:
            return False
        values = values[~missing]
    return values.empty or all(rule.holds(values).all() for rule in column.rules)


@cache
def _checker(name: str) -> pandera.pandas.DataFrameSchema:
    """A table's schema as pandera checks it."""
    import pandera.pandas as pandera

    def checks(rules: Iterable[Rule]) -> list[pandera.Check]:
        return [pandera.Check(rule.holds, error=rule.words) for rule in rules]

    # Text has no type of pandera: it would ask for pandas' NA strings, and `==` on those gives no
    # boolean.
    types: dict[str | None, Any] = {"str": None, None: object}
    schema = SCHEMAS[name]
    columns = {
        column: pandera.Column(
            types.get(spec.type, spec.type),
            checks(spec.rules),
            required=spec.required,
            nullable=spec.nullable,
        )
        for column, spec in schema.columns.items()
    }
    return pandera.DataFrameSchema(
        columns,
        checks=checks(schema.rules),
        unique=list(schema.unique) or None,
        strict=not schema.free,
        coerce=False,
    )


def typed_table(frame: pd.DataFrame, name: str, label: str = "") -> pd.DataFrame:
    """Bring a frame to the types of a table, without checking any other rule.

    Args:
        frame: Rows of the table.
        name: Table name.
        label: What to call it in messages; its name by default.

    Raises:
        InputError: A value has no such type.

    Example:
        >>> typed_table(pd.DataFrame({"image_id": [1], "role": ["val"]}), "split").values.tolist()
        [['1', 'val']]
    """
    typed = frame.reset_index(drop=True)
    types = {c: dtype.name for c, dtype in zip(typed.columns, typed.dtypes, strict=True)}
    for column, spec in SCHEMAS[name].columns.items():
        target: Any = spec.type
        if column not in types or target is None or types[column] == target:
            continue
        try:
            typed[column] = typed[column].astype(target)
        except (TypeError, ValueError) as error:
            place = f"{label or name}: column '{column}'"
            raise InputError(f"{place} must be {target}: {error}") from None
    return typed


def _first_failure(error: pandera.errors.SchemaErrors, frame: pd.DataFrame) -> str:
    case = error.failure_cases.iloc[0]
    check, column = str(case["check"]), case["column"]
    if pd.isna(case["index"]):
        return f"{column}: {check}, got {case['failure_case']!r}"
    row = int(case["index"])
    values = frame.loc[row]
    place = f"row {row}" + (f", image_id {values['image_id']!r}" if "image_id" in values else "")
    if check == "multiple_fields_uniqueness":
        keys = [str(c) for c in error.schema.unique or []]
        return f"{' + '.join(keys)} must be unique; {place} repeats one"
    if check == "not_nullable":
        return f"{column} must not be missing; {place}"
    if case["schema_context"] == "Column":
        value = values[column]
        value = value.item() if isinstance(value, np.generic) else value
        return f"{column} must be {check}; {place}: {column}={value!r}"
    shown = [c for c in ("x1", "y1", "x2", "y2", "grid_h", "grid_w") if c in frame.columns]
    return f"{check}; {place}: " + ", ".join(f"{c}={values[c]:g}" for c in shown)


def empty_table(name: str) -> pd.DataFrame:
    """An empty table with all required columns, typed.

    Example:
        >>> empty_table("scores").columns.tolist()
        ['image_id', 'finding', 'score']
    """
    columns = [c for c, spec in SCHEMAS[name].columns.items() if spec.required]
    return typed_table(pd.DataFrame({c: [] for c in columns}), name)


def write_table(frame: pd.DataFrame, path: Path, name: str) -> None:
    """Validate and write one Parquet file, whole or not at all.

    Args:
        frame: Rows of the table.
        path: File to write; its folder must exist.
        name: Table name.

    Raises:
        InputError: A rule of the table is broken, or the disk is full.
    """
    table = pa.Table.from_pandas(validate_table(frame, name, path.name), preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _VERSION_KEY: str(SCHEMA_VERSION).encode()}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_table(path: Path, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read and validate a table: one Parquet file, or a folder of ``part-*.parquet``.

    Args:
        path: File or folder.
        name: Table name.
        columns: Read these columns only (the rows are then not validated: they were when written).

    Returns:
        The rows; parts follow one another in the order of their names.

    Raises:
        InputError: The file is missing, unreadable, of another schema version, or breaks a rule.
    """
    parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if path.is_dir() and not parts:
        return empty_table(name) if columns is None else empty_table(name)[list(columns)]
    frames = [_read_part(part, columns) for part in parts]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return frame if columns is not None else validate_table(frame, name, path)


def _read_part(path: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such table; is this the right folder, and is it complete?")
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as a table ({reason}); write it again") from None
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise InputError(
            f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}; "
            "make the folder again with this version"
        )
    return table.to_pandas()


def stored_table(
    file: str, schema: str, reader: str | None = None
) -> cached_property[pd.DataFrame]:
    """A property that reads a table of ``self.folder`` once; of one reader where that is named."""

    def read(owner: Any) -> pd.DataFrame:
        table = read_table(owner.folder / file, schema)
        return table if reader is None else _of_reader(table, reader)

    return cached_property(read)


def _of_reader(table: pd.DataFrame, reader: str) -> pd.DataFrame:
    """The rows of a findings, boxes or coverage table that one reader wrote."""
    return table[table["reader"] == reader].reset_index(drop=True)


def frame_digest(frame: pd.DataFrame, columns: Iterable[str]) -> str:
    """Digest the chosen columns, whatever the order of the rows.

    Args:
        frame: Any table.
        columns: Columns that count.

    Returns:
        16 hexadecimal digits of SHA-256.

    Example:
        >>> frame = pd.DataFrame({"a": [1, 2]})
        >>> frame_digest(frame, ["a"]) == frame_digest(frame[::-1], ["a"])
        True
    """
    chosen = list(columns)
    hashes = np.sort(pd.util.hash_pandas_object(frame[chosen], index=False).to_numpy())
    return hashlib.sha256(",".join(chosen).encode() + hashes.tobytes()).hexdigest()[:16]
