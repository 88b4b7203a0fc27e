"""`cxr folds`."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.commands.console import Shown
from cxr_compare.commands.options import AnyPath


def folds(reports: list[Path], *, out: AnyPath) -> Shown:
    """Join reports of the folds of a cross-validation, or of repeated trainings, into one table.

    Every figure has its mean and standard deviation. Folds, which share no test patient, also have
    an interval and a p-value; repeated trainings, which are tested on the same images, have none.

    Args:
        reports: Reports of cxr compare on the same systems and data set.
        out: Folder to make.
    """
    from cxr_compare.data_prep.base.files import file_digest, folder_lock
    from cxr_compare.data_prep.base.folders import require_writable
    from cxr_compare.data_prep.base.records import write_json
    from cxr_compare.data_prep.base.user_tables import write_csv
    from cxr_compare.evaluation.report.files import records_of
    from cxr_compare.evaluation.report.folds import fold_table, main_rows
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.verdict.prose import joined_sentences

    out = Path(out)
    require_writable(out, "table of folds", overwrite=True)
    results = [Result.open(report) for report in reports]
    table = fold_table(results)
    cautions = joined_sentences({str(result.folder): result.answer.must_say for result in results})
    with folder_lock(out):
        write_csv(table, out / "folds.csv")
        files = {"folds.csv": file_digest(out / "folds.csv")}
        stored = {"reports": len(reports), "must_say": cautions, "files": files}
        write_json(out / "folds.json", "folds", stored)
    belongs = ["", "What belongs to these figures:", *(f"- {text}" for text in cautions)]
    lines = [main_rows(table).to_string(), *(belongs if cautions else []), ""]
    text = "\n".join([*lines, f"Table: {out / 'folds.csv'}"])
    return Shown(text, {"must_say": cautions, "figures": records_of(table)})
