"""Reports of comparisons that tests made or changed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import COLUMNS
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.sources.pixels import Pixels
from tests.stored_json import put_table


def save_report(
    comparison: Comparison, truth: LabelledImages, pixels: Pixels | None, folder: Path, *, rows=()
) -> Path:
    """Write the report of a comparison into a folder, and return its page."""
    page = Result(Compared(comparison, truth, pixels, rows)).save(folder).page
    assert page is not None
    return page


def write_figures(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write figures, of which only some columns are given, as the table of a report."""
    defaults = dict.fromkeys(("second", "policy", "ci_method", "note"), "")
    defaults |= {"target": "opacity", "unit": "image", "subgroup": "all", "kind": "system"}
    table = pd.DataFrame([defaults | row for row in rows]).reindex(columns=list(COLUMNS))
    put_table(table, folder / "figures.parquet", "figures")
