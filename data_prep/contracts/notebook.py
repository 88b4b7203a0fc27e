"""Objects in a Python session and in a notebook: how they are shown, and how they are opened."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cxr_compare.data_prep.contracts.errors import InputError


class ShownAsText:
    """Base class of a result that is displayed as its text instead of its fields.

    A dataclass with this base must have ``repr=False`` and define ``__str__``.

    Example:
        >>> class Result(ShownAsText):
        ...     def __str__(self) -> str:
        ...         return "2 images"
        >>> Result()
        2 images
    """

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_lines(str(self))


class OpenedFromFolder:
    """Base class of objects that ``open`` reads from a folder.

    A path alone makes no such object. A user who passes one to the class is told the right call.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.DataSet("out/data")
        Traceback (most recent call last):
        ...
        cxr_compare...InputError: DataSet('out/data'): ... write DataSet.open('out/data')
    """

    def __new__(cls, *values: Any, **named: Any) -> Self:
        """Make the object; refuse a single path."""
        given = [*values, *named.values()]
        if len(given) == 1 and isinstance(given[0], str | os.PathLike):
            path = os.fspath(given[0])
            name = cls.__name__
            raise InputError(
                f"{name}({path!r}): a folder is opened and not constructed; write "
                f"{name}.open({path!r})"
            )
        return super().__new__(cls)

    def __fspath__(self) -> str:
        """Return the folder, so that the object stands wherever a path does."""
        folder = getattr(self, "folder", None)
        if folder is None:
            name = type(self).__name__
            raise InputError(f"{name}: was written into no folder; write it, and give the folder")
        return str(folder)


def html_lines(text: str) -> str:
    """Return a text as a ``pre`` element with its line breaks and columns, and HTML escaped."""
    return f"<pre>{html.escape(text)}</pre>"


def html_table(rows: Mapping[str, str]) -> str:
    """Return an HTML table with one row for each name and its text, both escaped.

    Example:
        >>> html_table({"Method": "a < b"})
        '<table><tr><th>Method</th><td>a &lt; b</td></tr></table>'
    """
    cells = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def html_records(records: Sequence[Mapping[str, Any]]) -> str:
    """Return an HTML table with a row for each record and a column for each key.

    A missing key and a value of None give an empty cell; floats are shown with four digits.

    Example:
        >>> html_records([{"n": 1}, {"n": None}])
        '<table><tr><th>n</th></tr><tr><td>1</td></tr><tr><td></td></tr></table>'
    """

    def cell_text(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    keys = list(dict.fromkeys(key for record in records for key in record))
    lines = ["".join(f"<th>{html.escape(str(key))}</th>" for key in keys)]
    lines += [
        "".join(f"<td>{html.escape(cell_text(record.get(key)))}</td>" for key in keys)
        for record in records
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
