"""A table as Markdown."""

from __future__ import annotations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.report.table import Table, text_sections


def markdown_table(comparison: Comparison, table: Table) -> str:
    """Return the same table as Markdown, with what it rests on above."""
    heads = ["", *table.columns[1:]]
    answer = comparison.answer
    lines = [
        f"{comparison.display_name}: {answer.headline}",
        "",
        *(line for caution in answer.cautions for line in (f"- {caution.text}", "")),
        f"Images with {inside_sentence(comparison.display_name)} against images without; "
        "each figure with its 95 % interval.",
    ]
    for title, cells in text_sections(table):
        lines += ["", f"**{_markdown_text(title)}**", "", markdown_row(heads)]
        lines += [markdown_row(["---"] + ["---:"] * (len(heads) - 1))]
        lines += [markdown_row(row) for row in cells]
    return "\n".join([*lines, ""])


def markdown_row(cells: list[str]) -> str:
    r"""Return one row of a Markdown table.

    Example:
        >>> markdown_row(["AUROC", "a|b"])
        '| AUROC | a\\|b |'
    """
    return "| " + " | ".join(map(_markdown_text, cells)) + " |"


def _markdown_text(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
