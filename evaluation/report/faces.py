"""Sections as text: for a terminal, and for a paper as Markdown and LaTeX."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.errors import printable
from cxr_compare.data_prep.base.files import write_text
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.cells import cell_parts, shown_text
from cxr_compare.evaluation.report.sections import Section

_PACKAGES = "% Packages: booktabs. The tables are as wide as a page of two columns.\n"
_TERMINAL = 100
"""Characters of a line in a terminal."""
_SIGNS = {"−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$", "<": "$<$", ">": "$>$"}
"""Signs that LaTeX knows by another name."""
_LATEX = re.compile(r"[\\&%$#_{}~^]")
_LATEX_NAMES = {"\\": "textbackslash{}", "~": "textasciitilde{}", "^": "textasciicircum{}"}
_MARKDOWN = re.compile(r"[\\`*_\[\]|]|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
"""Signs that Markdown would obey in a cell: not the one of ``< 0.001``, which begins no tag."""
_WIDTHS = (32, 14)
"""Characters of a column of a LaTeX table of few columns, and of many."""
_MANY = 6


def as_terminal(table: pd.DataFrame) -> str:
    """Return the values of a table for a terminal: a line a row, as many columns as fit."""
    columns = [["", str(table.index.name), *table.index]]
    for title in table:
        text = str(title).removesuffix(" (recall)")
        spaces = [at for at, sign in enumerate(text) if sign == " "]
        middle = min(spaces, key=lambda at: abs(2 * at - len(text)), default=0)
        values = [cell_parts(cell)[0] for cell in table[title]]
        column = [text[:middle], text[middle:].strip(), *values]
        used = sum(max(map(len, each)) + 2 for each in columns)
        if len(columns) > 1 and used + max(map(len, column)) > _TERMINAL:
            break
        columns.append(column)
    sizes = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(line, sizes, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    ]
    return "\n".join(line for line in lines if line)


def write_paper(made: Sequence[Section], out: Path) -> None:
    """Write two tables as LaTeX and as Markdown."""
    latex = [as_latex(*each) for each in zip(made, ("systems", "differences"), strict=False)]
    write_text(out / files.LATEX_TABLE, _PACKAGES + "\n".join(latex))
    write_text(out / files.MARKDOWN_TABLE, "\n".join(map(as_markdown, made)))


def as_markdown(section: Section) -> str:
    """Return a section as a table of Markdown below its title."""
    lines = [" | ".join(map(_markdown_text, row)) for row in _rows_of(section.rows)]
    lines.insert(1, " | ".join(["---"] * (1 + section.rows.shape[1])))
    return f"{_markdown_text(section.title)}\n\n" + "".join(f"| {line} |\n" for line in lines)


def _rows_of(table: pd.DataFrame) -> list[list[Any]]:
    """Return the titles of a table and its rows with their names."""
    rows = zip(table.index, table.to_numpy().tolist(), strict=True)
    return [[table.index.name, *table.columns], *([name, *row] for name, row in rows)]


def _markdown_text(cell: Any) -> str:
    """Return a cell as Markdown shows it, whatever signs it has."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(shown_text(cell)))


def as_latex(section: Section, label: str) -> str:
    """Return a section as a table of LaTeX (booktabs), with each interval below its value."""
    width = _WIDTHS[section.rows.shape[1] >= _MANY]
    titles, *rows = _rows_of(section.rows)
    head = " & ".join(_latex_lines("b", textwrap.wrap(str(title), width)) for title in titles)
    body = [" & ".join(_latex_cell(cell, width) for cell in row) for row in rows]
    end = "\\\\\n\\addlinespace[3pt]\n"
    lines = [
        r"\begin{table*}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_latex_text(section.title)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{'l' * len(titles)}}}",
        r"\toprule",
        f"{head} {end}\\midrule",
        "".join(f"{row} {end}" for row in body) + r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Any, width: int) -> str:
    value, below = cell_parts(cell)
    lines = [value, below] if below else textwrap.wrap(value, width, break_long_words=False)
    return _latex_lines("t", lines)


def _latex_lines(aligned: str, lines: Sequence[str]) -> str:
    """Return the lines of a cell, which its row aligns by the first (t) or the last one (b)."""
    text = r"\\".join(map(_latex_text, lines))
    if len(lines) < 2:
        return text
    return rf"\begin{{tabular}}[{aligned}]{{@{{}}l@{{}}}}{text}\end{{tabular}}"


def _latex_text(text: str) -> str:
    """Return a text as LaTeX shows it, whatever signs it has."""
    text = _LATEX.sub(lambda sign: "\\" + _LATEX_NAMES.get(sign[0], sign[0]), printable(text))
    for sign, name in _SIGNS.items():
        text = text.replace(sign, name)
    return text
