"""`cxr folds`: average the figures of the folds of a cross-validation."""

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
    """Average reports over the folds of a cross-validation.

    The command gives the mean of each figure over the folds, with an interval. The means are those
    to expect of this training recipe on data sets like this one. Holm's method over all pairs of
    systems says which systems differ. Reports of cxr compare --both also say whether the joint
    system is better than each of its members. First make one split (which images are for training,
    validation and test) for each fold with cxr split --folds 5 --test-folds. For each fold NAME-0,
    NAME-1, ... then train, predict, tune and compare with --split of that fold. Give the reports of
    all folds.

    Args:
        reports: Report folders of cxr compare, one for each fold, on the same systems.
        out: Folder for the table and the plot.

    Returns:
        The table of means and intervals; `str` of it is Markdown.

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
