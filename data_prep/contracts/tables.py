"""The tables on disk: one owner for reading, writing and checking them; and look-ups of their ids.

Every Parquet table is validated when it is written and when it is read; a broken rule is an
`InputError` that names the table, the rule, the row and the value. Files appear whole or not at
all: each is written beside its place and renamed. CSV files are read as columns of text.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.checksums import CHECKSUM_PLACEHOLDER, require_unchanged
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.json_files import SCHEMA_VERSION
from cxr_compare.data_prep.contracts.schemas import SCHEMAS, Column, Rule, Schema
from cxr_compare.data_prep.contracts.text import TEXT, from_arrow, to_arrow

_VERSION_KEY = b"cxr_schema_version"


def _validate_table(frame: pd.DataFrame, name: str, where: str | Path = "") -> pd.DataFrame:
    """Bring a frame to the types of a table and check every rule."""
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
    """The first rule that a typed frame breaks, with its row and value; None where it keeps all."""
    for name, column in schema.columns.items():
        if name in frame.columns and (broken := _broken_in_column(frame, name, column)):
            return broken
    keys = list(schema.unique)
    if keys and (row := _first(frame.duplicated(keys, keep=False))) is not None:
        return f"{' + '.join(keys)} must be unique; {_place(frame, row)} repeats one"
    for rule in schema.rules:
        if (row := _first(~_holds(rule, frame))) is not None:
            shown = [c for c in (*EDGES, "grid_h", "grid_w") if c in frame.columns]
            values = ", ".join(f"{c}={frame[c][row]:g}" for c in shown)
            return f"{rule.words}; {_place(frame, row)}: {values}"
    return None


def _broken_in_column(frame: pd.DataFrame, name: str, column: Column) -> str | None:
    values = frame[name]
    if column.type is None and values.dtype != object:
        return f"{name} must hold lists, got {values.dtype}"
    row = _first(values.isna())
    if row is not None:
        if not column.nullable:
            return f"{name} must not be missing; {_place(frame, row)}"
        values = values.dropna()
    for rule in column.rules:
        if (row := _first(~_holds(rule, values))) is not None:
            value = values.iloc[row]
            value = value.item() if isinstance(value, np.generic) else value
            place = _place(frame, int(values.index[row]))
            return f"{name} must be {rule.words}; {place}: {name}={value!r}"
    return None


def _holds(rule: Rule, values: Any) -> np.ndarray:
    """For each row whether it keeps a rule; none does where the rule cannot be asked at all."""
    try:
        return np.asarray(rule.holds(values), dtype=bool)
    except TypeError:  # a list is none, say
        return np.zeros(len(values), dtype=bool)


def _first(flags: pd.Series | np.ndarray) -> int | None:
    """The first row that is flagged."""
    rows = np.asarray(flags)
    return int(rows.argmax()) if rows.any() else None


def _place(frame: pd.DataFrame, row: int) -> str:
    return f"row {row}" + (f", image_id {frame['image_id'][row]!r}" if "image_id" in frame else "")


def typed_table(frame: pd.DataFrame, name: str, label: str = "") -> pd.DataFrame:
    """Bring a frame to the types of a table, without checking any other rule."""
    typed = frame.reset_index(drop=True)
    for column, spec in SCHEMAS[name].columns.items():
        target = column_dtype(spec)
        if column not in typed.columns or target is None or typed[column].dtype == target:
            continue
        try:
            typed[column] = typed[column].astype(target)
        except (TypeError, ValueError) as error:
            place = f"{label or name}: column '{column}'"
            raise InputError(f"{place} must be {spec.type}: {error}") from None
    return typed


def column_dtype(column: Column) -> Any:
    """Return the dtype of pandas that a column of a table has, or None for a column of lists."""
    return TEXT if column.type == "text" else column.type


def empty_table(name: str) -> pd.DataFrame:
    """An empty table with all required columns, typed."""
    columns = [c for c, spec in SCHEMAS[name].columns.items() if spec.required]
    return typed_table(pd.DataFrame({c: [] for c in columns}), name)


def write_table(frame: pd.DataFrame, path: Path, name: str) -> None:
    """Validate and write one Parquet file, whole or not at all."""
    table = to_arrow(_validate_table(frame, name, path.name))
    metadata = {
        **(table.schema.metadata or {}),
        _VERSION_KEY: str(SCHEMA_VERSION).encode(),
        **CHECKSUM_PLACEHOLDER,
    }
    with atomic_path(path, with_checksum=True) as temporary:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            write_page_checksum=True,
        )


def read_table(path: Path, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read and validate a table: one Parquet file, or a folder of ``part-*.parquet`` in order.

    Rows of some `columns` alone are not validated: they were when written. `InputError` where the
    file is missing, unreadable, of another schema version, or breaks a rule.
    """
    parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if path.is_dir() and not parts:
        return empty_table(name) if columns is None else empty_table(name)[list(columns)]
    frames = [_read_part(part, name, columns) for part in parts]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return frame if columns is not None else _validate_table(frame, name, path)


def _read_part(path: Path, name: str, columns: Sequence[str] | None) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such table; is this the right folder, and is it complete?")
    require_unchanged(path, name)
    try:
        table = pq.read_table(
            path,
            columns=None if columns is None else list(columns),
            page_checksum_verification=True,
        )
        frame = from_arrow(table)
    except (pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as a table ({reason}); write it again") from None
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
    """Return a property that reads a table of ``self.folder`` once; of one reader if it is named.

    A table that ``self.tables`` holds in memory under the file's name is taken from there as it is.
    """
    name = file.removesuffix(".parquet")

    def read(owner: Any) -> pd.DataFrame:
        if name in owner.tables:
            return owner.tables[name]
        table = read_table(owner.folder / file, schema)
        if not schema.endswith("images"):
            require_members(table["image_id"], owner.images, owner.folder / file)
        return table if reader is None else table[table["reader"] == reader].reset_index(drop=True)

    return cached_property(read)


def require_members(ids: pd.Series, images: pd.DataFrame, path: Path) -> None:
    """Refuse a table with rows of an image that its folder's table of images does not have."""
    strange = ~is_member(ids, images["image_id"])
    if (row := _first(strange)) is not None:
        raise InputError(
            f"{path}: {int(strange.sum()):,} of its ids are no image of this folder, first "
            f"image_id {ids.iloc[row]!r}; bring back the tables as they were, or make the folder "
            "again"
        )


def frame_digest(frame: pd.DataFrame, columns: Iterable[str]) -> str:
    """Digest the chosen columns, whatever the order of the rows."""
    chosen = list(columns)
    hashes = np.sort(pd.util.hash_pandas_object(frame[chosen], index=False).to_numpy())
    return hashlib.sha256(",".join(chosen).encode() + hashes.tobytes()).hexdigest()[:16]


# After any of these, and what is not seen, a program may take what follows for a cell of its own.
_SPLITS, _MAY_SPLIT = ";|\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029", r"\s,:"
_UNSEEN = "\"'\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_SIGNS = "=+@\\-\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20"  # and full width
_RUN = f"{_SPLITS}{_MAY_SPLIT}{_UNSEEN}"
_BEFORE_SIGN = re.compile(f"(?<![{_RUN}])[{_RUN}]*+(?=[{_SIGNS}])")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:[\s,:]+{_NUMBER})*+\s*(?:[{_SPLITS}]|\Z)")
_WORDS = re.compile(rf"(?:[{_SIGNS}]|{_NUMBER}|--[a-z][\w-]*)(?:[\s;,:.)%\"']|\Z)")  # n = 5, --data


def inert_cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula, wherever it splits the line.

    Example:
        >>> inert_cell("=1"), inert_cell("a; =1"), inert_cell("-8.0,0.5;-1.0,2.0"), inert_cell(-8)
        ("'=1", "a; '=1", '-8.0,0.5;-1.0,2.0', -8)
    """
    if not isinstance(value, str):
        return value
    return _BEFORE_SIGN.sub(lambda run: f"{run[0]}'" if _begins_formula(run) else run[0], value)


def _begins_formula(run: re.Match[str]) -> bool:
    """Whether a sign behind separators and what is not seen begins a formula."""
    if run.start() == 0 or re.search(f"[{_SPLITS}]", run[0]):
        return _NUMBERS.match(run.string, run.end()) is None
    may_split = re.search(f"[{_MAY_SPLIT}]", run[0])
    return may_split is not None and _WORDS.match(run.string, run.end()) is None


def _plain_cell(text: str) -> str:
    """What `inert_cell` made a text of."""
    return _BEFORE_SIGN.sub(
        lambda run: run[0].removesuffix("'") if _begins_formula(run) else run[0], text
    )


def plain_cells(column: pd.Series) -> pd.Series:
    """Return the texts of a column as they were before `write_csv`, without spaces around."""
    quoted = column.str.contains("'", regex=False).any()
    return (column.map(_plain_cell).astype(TEXT) if quoted else column).str.strip()


def write_csv(frame: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a table as CSV, whole or not at all: missing values are empty, texts are inert."""
    texts = frame.select_dtypes(exclude=["number", "bool"]).map(inert_cell)
    if any(
        column.astype(TEXT).str.contains("\r", regex=False).any() for _, column in texts.items()
    ):
        options["quoting"] = csv.QUOTE_NONNUMERIC  # pandas leaves it bare, and it ends a line
    with atomic_path(path) as temporary:
        frame.assign(**texts).to_csv(temporary, index=False, **options)


_ARROW_NUMBER = pd.ArrowDtype(pa.float64())


def to_numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    """Turn a column of text into float64; empty cells become NaN."""
    known = text.where(~is_member(text, ["", "nan", "NaN", "NA", "None", "null"]))
    try:
        numbers = known.astype(_ARROW_NUMBER).astype("float64")
    except ValueError:
        numbers = pd.to_numeric(known, errors="coerce").astype("float64")
    if numbers.isna().sum() == known.isna().sum():
        return numbers
    bad = numbers.isna() & ~is_member(text.str.lower(), ["", "nan", "na", "null", "none"])
    refuse_line(bad, path, " is not a number", text.rename(column))
    return numbers


def first_line(bad: pd.Series) -> int:
    """Return the line of a file, as read by `read_text_table`, on which a flag is first set."""
    return int(bad.index[bad.to_numpy()][0]) + 2


def refuse_line(bad: pd.Series, path: Path, reason: str, cells: pd.Series | None = None) -> None:
    """Refuse a CSV file for the first line on which a flag is set, with that line's cell."""
    if bad.any():
        cell = "" if cells is None else f"{cells.name}={cells[bad].iloc[0]!r}"
        raise InputError(f"{path}: line {first_line(bad)}: {cell}{reason}")
