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
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.unknown_patients import (
    say_images,
)


def write_paper_files(
    comparison: Comparison, out: Path, rows: Sequence[TableRow], told: dict[str, Any]
) -> None:
    """Write ``table.tex`` and ``table.md``: the rows wanted, else the usual ones of a paper.

    Of what `methods` told, the checklists and the references, too.
    """
    lines = []
    for each in told["checklists"]:
        items = each.columns, ["---"] * len(each.columns), *each.rows
        lines += [each.title, "", *(markdown_row(list(map(str, item))) for item in items), ""]
    table = summary_table(comparison, rows, paper=True)
    texts = {
        files.CHECKLISTS: "\n".join(lines),
        files.REFERENCES: render("references.bib.jinja", **told),
        files.LATEX_TABLE: latex_table(comparison, table),
        files.MARKDOWN_TABLE: markdown_table(comparison, table),
    }
    for name, text in texts.items():
        known = comparison.patients_known or name == files.REFERENCES
        write_text(out / name, text if known else say_images(text))
