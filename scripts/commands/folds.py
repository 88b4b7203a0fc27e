"""`cxr folds`."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath


def folds(reports: list[Path], *, out: AnyPath) -> Shown:
    """Join the reports of the folds of a cross-validation into one table and a plot.

    The mean of each figure over the folds has an interval, and Holm's method over all pairs of
    systems says which of them differ. `cxr split --folds N` makes the splits of the folds.

    Args:
        reports: Reports of cxr compare on the same systems, one for each fold.
        out: Folder to make.
    """
    from cxr_compare.data_prep.contracts.disk_space import make_folder
    from cxr_compare.data_prep.contracts.output_folders import require_only_files
    from cxr_compare.data_prep.contracts.text_files import read_json_file
    from cxr_compare.evaluation.report.folds import Folds

    out = Path(out)
    marker = out / "folds.json"
    require_only_files(out, {"folds.csv", "folds.md", "folds.png", marker.name}, "table of folds")
    read = Folds.read([Path(report) for report in reports])
    make_folder(out)
    marker.unlink(missing_ok=True)
    read.write(out)
    return Shown(f"{read.to_markdown()}\nPlot: {out / 'folds.png'}", read_json_file(marker))
