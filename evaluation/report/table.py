"""Tables of all pages: DataFrames of texts, which pandas writes as HTML and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any, Literal, NamedTuple

import pandas as pd
from markupsafe import escape

from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.intervals import Interval, interval_text

_FIGURE = re.compile(r"((?:[●○] )?−?\d[\d.,]*) (\(.+|of .+)")
"""A number, perhaps marked, and what belongs to it: its interval, or the total that it is part of.
"""
_WIDE = 6
_WIDEST = 12
_CARDS = 16
_MARKDOWN = re.compile(r"[\\`*|\[\]]|<(?=[\w/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "≥": r"$\geq$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
    "●": r"$\bullet$",
    "○": r"$\circ$",
    "†": r"\dag{}",
}


class Table(NamedTuple):
    """Table of texts, with a text above it (`lead`) and one below it (`note`).

    The index of `frame` has the headings of the rows, and the name of the columns is the heading of
    the index. All other texts may be empty.
    """

    title: str
    frame: pd.DataFrame
    lead: str = ""
    note: str = ""


def text_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    lead: str = "",
) -> Table:
    """Make a table from rows of texts, of which the first is the heading of the row.

    The first of `columns` is the heading of the headings of the rows.

    Example:
        >>> text_table("Ages", ("Patient", "Age"), [("p1", "40")]).frame.loc["p1", "Age"]
        '40'
    """
    rows = list(rows)
    frame = pd.DataFrame(
        [row[1:] for row in rows],
        index=[row[0] for row in rows],
        columns=pd.Index(columns[1:], name=columns[0]),
    )
    return Table(title, frame, lead)


def value_text(figure: Interval) -> str:
    """Return a value with its interval as text, such as ``0.500 (0.400 to 0.600)``."""
    ends = interval_text(figure)
    return number(figure.estimate) + (f" ({ends})" if ends else "")


def figure_text(figure: Interval) -> str:
    """Return a value with its interval as text, or the reason why the value is undefined.

    Example:
        >>> figure_text(Interval(0.5, 0.4, 0.6))
        '0.500 (0.400 to 0.600)'
    """
    if not figure.known and figure.note:
        return f"{number(figure.estimate)} ({figure.note})"
    return value_text(figure)


def notes_text(notes: Iterable[tuple[str, str, str]]) -> str:
    """Write each note once, after the figures that it belongs to; empty notes are left out.

    Each entry is the title of a figure, the system that it is of, and the note on it.

    Example:
        >>> notes_text([("F1", "A", "no threshold"), ("F1", "B", "no threshold"), ("F1", "C", "")])
        'F1 (A, B): no threshold.'
    """
    by_note: dict[str, dict[str, list[str]]] = {}
    for title, system, note in notes:
        if note:
            by_note.setdefault(note, {}).setdefault(title, []).append(system)
    sentences = []
    for note, figures in by_note.items():
        named = [f"{title} ({', '.join(systems)})" for title, systems in figures.items()]
        sentences.append(f"{', '.join(named)}: {note}.")
    return " ".join(sentences)


def html_table(table: Table, systems: Sequence[str] = ()) -> str:
    """Return a table as HTML, with the colour key of each system beside its name.

    On a narrow screen the style sheet shows each row as a card, for which each cell carries the
    heading of its column. The roles keep their meaning there. The template writes title, lead and
    note. The systems are in the order of the comparison.
    """
    keys = {name: f'<i class="key s{place % 9}"></i>' for place, name in enumerate(systems)}

    def heading(text: str) -> str:
        return f"{keys.get(text, '')}{escaped(text, 'html')}"

    frame = table.frame
    shown = frame.map(_cell_html).rename(index=heading, columns=heading)
    shown.columns.name = heading(str(frame.columns.name or ""))
    layout = "plain grid"
    if len(frame.columns) > _WIDE:
        layout += " wide"
    if len(frame.columns) > _WIDEST:
        layout += " widest"
    if len(frame.columns) > _CARDS:
        layout += " cards"
    with pd.option_context("display.max_colwidth", None):
        html = shown.to_html(escape=False, border=0, classes=layout)
    head, body = html.split("<tbody>")
    head = re.sub("<tr.*>", '<tr role="row">', head)
    head = head.replace("<th>", '<th role="columnheader" scope="col">')
    body = body.replace("<tr>", '<tr role="row">')
    body = body.replace("<th>", '<th role="rowheader" scope="row">')
    names = cycle(escaped(name, "html") for name in frame.columns)
    body = re.sub("<td>", lambda _: f'<td role="cell" data-name="{next(names)}">', body)
    head = head.replace("<table", '<table role="table"')
    head = head.replace("<thead", '<thead role="rowgroup"')
    return f'{head}<tbody role="rowgroup">{body}'


def _cell_html(text: str) -> str:
    figure = _FIGURE.fullmatch(text)
    if figure is None:
        return escaped(text, "html")
    return f"<b>{figure[1]}</b> <small>{escaped(figure[2], 'html')}</small>"


def markdown_rows(frame: pd.DataFrame) -> str:
    r"""Return a table of texts as rows of Markdown, in which names are escaped.

    Example:
        >>> print(markdown_rows(text_table("", ("Figure", "a|b"), [("F1", "0.5")]).frame))
        | Figure | a\|b |
        | --- | ---: |
        | F1 | 0.5 |
    """
    rows = [[str(frame.columns.name or ""), *frame.columns], ["---", *["---:"] * frame.shape[1]]]
    rows += frame.reset_index().to_numpy().tolist()
    return "\n".join(f"| {' | '.join(escaped(cell, 'markdown') for cell in row)} |" for row in rows)


def escaped(text: str, markup: Literal["html", "latex", "markdown"]) -> str:
    r"""Return a text, such as a name, in which nothing is markup.

    Markdown also puts it on one line.

    Example:
        >>> print(escaped("50 % of A_1 & B, score ≥ 0.5", "latex"))
        50 \% of A\_1 \& B, score $\geq$ 0.5
        >>> print(escaped("A|B <b> my_model *x*", "markdown"))
        A\|B \<b> my_model \*x\*
        >>> print(escaped("A <b>", "html"))
        A &lt;b&gt;
    """
    if markup == "html":
        return escape(text)
    if markup == "latex":
        return "".join(_LATEX.get(letter, letter) for letter in text)
    return _MARKDOWN.sub(r"\\\g<0>", text.replace("\n", " "))
