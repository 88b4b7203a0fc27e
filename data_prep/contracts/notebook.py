"""Display of results in a Python session and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any


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


def html_lines(text: str) -> str:
    """Return a text as HTML that keeps its line breaks and columns.

    Args:
        text: Plain text with any number of lines.

    Returns:
        A ``pre`` element, in which the special characters of HTML are escaped.

    Example:
        >>> html_lines("a < b")
        '<pre>a &lt; b</pre>'
    """
    return f"<pre>{html.escape(text)}</pre>"


def html_table(rows: Mapping[str, str]) -> str:
    """Return an HTML table with one row for each name and its text.

    Args:
        rows: Texts by name, in the order of the rows.

    Returns:
        A ``table`` element, in which the special characters of HTML are escaped.

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

    Args:
        records: The rows. A missing key and a value of None give an empty cell.

    Returns:
        A ``table`` element. Floats are shown with four digits.

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
