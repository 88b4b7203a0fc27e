"""Files of a report folder for a paper: Table 1, checklists and references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.latex_table import latex_table
from cxr_compare.evaluation.report.markdown_table import markdown_row, markdown_table
from cxr_compare.evaluation.report.summary_table import TableRow, summary_table
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.unknown_patients import image_wording


def write_paper_files(
    comparison: Comparison, out: Path, rows: Sequence[TableRow], method_texts: dict[str, Any]
) -> None:
    """Write the files of a report for a paper.

    These are ``table.tex``, ``table.md``, ``checklists.md`` (reporting checklists, filled in) and
    ``references.bib``.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        out: Folder of the report.
        rows: Rows of the table, each a metric and the rule for its threshold; if empty, the metrics
            that a paper usually has.
        method_texts: Result of `methods`. Its filled-in checklists (``checklists``) and its cited
            literature (``references``) are taken.
    """
    table = summary_table(comparison, rows, paper=True)
    texts = {
        files.CHECKLISTS: _checklists_markdown(method_texts["checklists"]),
        files.LATEX_TABLE: latex_table(comparison, table),
        files.MARKDOWN_TABLE: markdown_table(comparison, table),
    }
    for name, text in texts.items():
        write_text(out / name, text if comparison.patients_known else image_wording(text))
    write_text(out / files.REFERENCES, render("references.bib.jinja", **method_texts))


def _checklists_markdown(checklists: Sequence[Table]) -> str:
    lines = []
    for checklist in checklists:
        lines += [checklist.title, "", markdown_row(list(checklist.columns))]
        lines.append(markdown_row(["---"] * len(checklist.columns)))
        lines += [markdown_row(list(map(str, row))) for row in checklist.rows]
        lines.append("")
    return "\n".join(lines)
