"""`cxr folds`: the mean over the folds of a cross-validation."""

from __future__ import annotations

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, as_path
from cxr_compare.scripts.runner import command

_MARKER = "folds.json"
_PLOT = "folds.png"
_FILES = {"folds.csv", "folds.md", _PLOT, _MARKER}


@command
def folds(reports: list[AnyPath], *, out: AnyPath) -> Outcome:
    """Mean over the folds of a cross-validation, with intervals.

    Figures are for this recipe on sets like this one; Holm's method over all pairs tells which
    systems differ. Each report evaluates the same systems on another fold of cxr
    split --folds 5 --test-folds: train, predict, tune and compare with --split NAME-0, NAME-1, ...
    Give all folds.

    Args:
        reports: Report folders, one a fold.
        out: Folder for the table and the plot.

    Returns:
        The table; `str` of it is Markdown.

    Raises:
        InputError: The reports do not evaluate the same systems on different folds.

    Example:
        cxr folds out/report-0 out/report-1 out/report-2 --out out/folds
    """
    out = as_path(out)
    require_only_files(out, _FILES, "table of folds")
    from cxr_compare.evaluation.report.folds import Folds

    read = Folds.read([as_path(report) for report in reports])
    make_folder(out)
    (out / _MARKER).unlink(missing_ok=True)
    read.write(out)
    text = f"{read.to_markdown()}\nPlot: {out / _PLOT}"
    return Outcome(text, file=out / _MARKER, page=out / _PLOT)
