"""Tables as LaTeX with booktabs."""

from __future__ import annotations

import re

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import inside_sentence, listing
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.table import P_VALUE, Table, footnote_lines, text_sections

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
}


def latex_table(comparison: Comparison, table: Table) -> str:
    """Return a table as LaTeX, with caption and label; it needs only the package booktabs.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        table: The table to write, such as the main table of metrics: its columns are systems and
            differences of systems.

    Returns:
        Content of a ``.tex`` file.
    """
    heads = ["", *table.text_heads[1:]]
    count = image_count(comparison.figures)
    caption = (
        f"{listing(comparison.names)} on {inside_sentence(comparison.display_name)}"
        f"{f': {count}' if count else ''}. Figures with 95 % intervals. {table.p_value_note}"
    ).rstrip()
    label = "tab:" + re.sub("[^a-z0-9]+", "-", comparison.finding.lower())
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\label{{{label}}}",
        r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
        r"\toprule",
        " & ".join(map(_heading, heads)) + r" \\",
    ]
    for section in text_sections(table):
        heading = rf"\emph{{{latex_text(section.title)}}}"
        lines += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{l}}{{{heading}}} \\"]
        lines += [" & ".join(map(latex_text, row)) + r" \\" for row in section.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par {{\footnotesize {latex_text(text)}}}" for text in footnote_lines(table)]
    return "\n".join([*lines, r"\end{table}", ""])


def _heading(text: str) -> str:
    """Return a heading of a column, with the symbol of the p-value in italics."""
    return "$p$" if text == P_VALUE else latex_text(text)


def latex_text(text: str) -> str:
    r"""Escape the characters of a text that LaTeX would interpret.

    Args:
        text: Plain text of one cell or sentence.

    Returns:
        The text with escaped special characters.

    Example:
        >>> print(latex_text("50 % of A_1 & B, score ≥ 0.5"))
        50 \% of A\_1 \& B, score $\geq$ 0.5
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)
