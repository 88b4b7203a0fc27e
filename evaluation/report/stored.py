"""Tables of a report as Parquet files, whose bytes the answer names."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import atomic_path


def write_table(table: pd.DataFrame, path: Path) -> str:
    """Write a table as a Parquet file, and return the SHA-256 of its bytes."""
    content = io.BytesIO()
    table.to_parquet(content, index=False, compression="zstd")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def read_table(path: Path, digest: str | None) -> pd.DataFrame:
    """Read a table of a report; InputError if it is absent, or of another report."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: is not the table of this report; compare again")
    return with_texts(pd.read_parquet(io.BytesIO(content)))


def with_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts have one type, whatever pandas made of them."""
    texts = [name for name, kind in table.dtypes.items() if isinstance(kind, pd.StringDtype)]
    return table.astype(dict.fromkeys(texts, object))
