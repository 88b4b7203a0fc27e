"""Main table of a comparison for a paper: LaTeX with booktabs, and Markdown."""

from __future__ import annotations

import re

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import inside_sentence, listing
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.table import Table, escaped, latex_rows, markdown_rows


def latex_table(comparison: Comparison, table: Table) -> str:
    """Return the main table as LaTeX, with caption and label; it needs only the package booktabs.

    Args:
        comparison: The comparison that the table shows.
        table: The main table.

    Returns:
        Content of a ``.tex`` file.
    """
    count = image_count(comparison.figures)
    caption = (
        f"{listing(comparison.names)} on {inside_sentence(comparison.display_name)}"
        f"{f': {count}' if count else ''}. Figures with 95 % intervals."
    )
    label = "tab:" + re.sub("[^a-z0-9]+", "-", comparison.finding.lower())
    text = latex_rows(table.frame, caption, label).removesuffix("\\end{table}\n")
    note = rf"\par {{\footnotesize {escaped(table.note, 'latex')}}}" if table.note else ""
    return "\n".join([r"% needs \usepackage{booktabs}", f"{text}{note}", r"\end{table}", ""])


def markdown_table(comparison: Comparison, table: Table) -> str:
    """Return the answer, the reasons why it may be wrong, and the main table as Markdown.

    Args:
        comparison: The comparison that the table shows.
        table: The main table.

    Returns:
        Content of a Markdown file.
    """
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
