"""The dtype of text in all tables. It behaves equally in pandas 2 and 3: missing text is NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


def _text_dtype() -> Any:
    """Return the string dtype whose missing value is NaN and whose comparisons are plain booleans.

    pandas 3 calls it "str". In pandas 2, "str" is a column of any objects, in which ``astype``
    makes the text "nan" of a missing value.
    """
    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    if version >= (3, 0):
        return "str"
    if version >= (2, 3):
        return pd.StringDtype(na_value=np.nan)
    return pd.StringDtype("pyarrow_numpy")


TEXT: Any = _text_dtype()
"""Give this as ``dtype``, or to ``astype``, wherever a column, an index or an array holds text.

Example:
    >>> pd.Series(["a", None], dtype=TEXT).isna().tolist()
    [False, True]
    >>> pd.Series([1.5, np.nan]).astype(TEXT).fillna("").tolist()
    ['1.5', '']
"""


def bytes_from_hex(texts: pd.Series | pd.Index) -> np.ndarray:
    """Convert a column of hexadecimal digits to bytes (uint8), one text after the other.

    No Python object is made for a text. None may be missing; another character is a `ValueError`.

    Example:
        >>> bytes_from_hex(pd.Series(["00ff", "10"])).tolist()
        [0, 255, 16]
    """
    column = pa.array(texts.astype(TEXT), type=pa.large_string(), from_pandas=True)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    one_list = pa.LargeListArray.from_arrays([0, len(column)], column)
    nothing = pa.scalar("", pa.large_string())
    digits = pc.binary_join(one_list, nothing)[0].as_py()  # type: ignore[attr-defined]
    return np.frombuffer(bytes.fromhex(digits), np.uint8)


def from_arrow(table: pa.Table) -> pd.DataFrame:
    """Convert an Arrow table to a data frame whose text columns have the dtype `TEXT`.

    `TEXT` is the dtype of text in all tables of this program; a missing text is NaN.
    """
    if TEXT == "str":
        return table.to_pandas()
    return table.to_pandas(types_mapper={pa.string(): TEXT, pa.large_string(): TEXT}.get)


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """Convert a data frame, without its index, to an Arrow table that any pandas can read."""
    if TEXT != "str":  # its name would be written into the file, and pandas 3 has no such dtype
        frame = frame.astype({name: object for name, kind in frame.dtypes.items() if kind == TEXT})
    return pa.Table.from_pandas(frame, preserve_index=False)
