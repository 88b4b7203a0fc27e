"""Main table of a comparison for a paper: LaTeX with booktabs, and Markdown."""

from __future__ import annotations

import re

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import inside_sentence, listing
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.table import Table, escaped, markdown_rows


def latex_table(comparison: Comparison, table: Table) -> str:
    """Return the main table as LaTeX with caption and label, which needs only booktabs."""
    count = image_count(comparison.figures)
    caption = (
        f"{listing(comparison.names)} on {inside_sentence(comparison.display_name)}"
        f"{f': {count}' if count else ''}. Figures with 95 % intervals."
    )
    label = "tab:" + re.sub("[^a-z0-9]+", "-", comparison.finding.lower())
    rows = [["", *table.frame.columns], *table.frame.reset_index().to_numpy().tolist()]
    head, *body = (" & ".join(escaped(cell, "latex") for cell in row) + r" \\" for row in rows)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption, 'latex')}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{l{'r' * table.frame.shape[1]}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par {{\footnotesize {escaped(table.note, 'latex')}}}" if table.note else "",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def markdown_table(comparison: Comparison, table: Table) -> str:
    """Return the answer, the reasons why it may be wrong, and the main table as Markdown."""
    answer = comparison.answer
    finding = inside_sentence(comparison.display_name)
    blocks = [
        f"{comparison.display_name}: {answer.headline}",
        *(f"- {caution.text}" for caution in answer.cautions),
        f"Images with {finding} against images without it. Each figure has its 95 % interval.",
        table.lead,
        markdown_rows(table.frame),
        table.note,
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"
