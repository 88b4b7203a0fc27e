"""Tables as Markdown."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.report.table import Table, footnote_lines, text_sections


def markdown_table(comparison: Comparison, table: Table) -> str:
    """Return the main conclusion, the reasons why it may be wrong, and a table as Markdown.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        table: The table to write, such as the main table of metrics: its columns are systems and
            differences of systems.

    Returns:
        Content of a Markdown file.
    """
    heads = ["", *table.text_heads[1:]]
    answer = comparison.answer
    lines = [f"{comparison.display_name}: {answer.headline}", ""]
    for caution in answer.cautions:
        lines += [f"- {caution.text}", ""]
    finding = inside_sentence(comparison.display_name)
    lead = (
        f"Images with {finding} against images without it. Each figure has its 95 % interval. "
        f"{table.p_value_note}"
    )
    lines.append(lead.rstrip())
    if table.lead:
        lines += ["", table.lead]
    alignment = ["---", *["---:"] * (len(heads) - 1)]
    for section in text_sections(table):
        lines += ["", f"**{_markdown_text(section.title)}**", ""]
        lines += [markdown_row(heads), markdown_row(alignment)]
        lines += [markdown_row(row) for row in section.rows]
    for footnote in footnote_lines(table):
        lines += ["", _markdown_text(footnote)]
    return "\n".join([*lines, ""])


def markdown_row(cells: list[str]) -> str:
    r"""Return one row of a Markdown table.

    Args:
        cells: Plain text of each cell, from left to right.

    Returns:
        The row on one line, with escaped vertical bars.

    Example:
        >>> markdown_row(["AUROC", "a|b"])
        '| AUROC | a\\|b |'
    """
    return "| " + " | ".join(map(_markdown_text, cells)) + " |"


def _markdown_text(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
