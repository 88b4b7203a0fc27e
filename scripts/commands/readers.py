"""`cxr readers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from cyclopts import Parameter

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath, run_names


def readers(
    ratings: list[Path],
    *,
    out: AnyPath,
    truth: AnyPath | None = None,
    data: AnyPath | None = None,
    target: str | None = None,
    system: Annotated[list[str] | None, Parameter(negative=())] = None,
    readers: Literal["random", "fixed"] = "random",
) -> Shown:
    """Compare a system with the readers of a study, or the readers' modalities.

    The analysis is Obuchowski's and Rockette's, with the degrees of freedom of Hillis. Ratings and
    truth are tables (CSV, Excel).

    Args:
        ratings: Tables with the columns reader, case, rating or decision (0 or 1) or both, and
            modality if there are several.
        out: Folder to make, with a page and tables.
        truth: Table with the columns case, label (0 or 1) and, if known, patient.
        data: Data set of cxr prepare whose images are the cases, in place of a truth.
        target: Finding whose labels are the truth, where the data set has several.
        system: System that read the same cases alone, NAME=TABLE (columns case, score and, if
            known, decision) or, with a data set, NAME=PREDICTIONS; may be repeated.
        readers: random for readers like these, fixed for these readers alone.
    """
    from cxr_compare.data_prep.contracts.disk_space import make_folder
    from cxr_compare.data_prep.contracts.output_folders import require_only_files
    from cxr_compare.data_prep.contracts.text_files import read_json_file
    from cxr_compare.evaluation.report.study_page import study_files
    from cxr_compare.studies import reader_analysis, reader_page, readings

    out = Path(out)
    systems = _systems([system] if isinstance(system, str) else system or ())
    require_only_files(out, study_files("readers"), "reader study")
    if (truth is None) == (data is None):
        raise InputError("readers: give either truth or data")
    split = None
    if data is not None:
        dataset = DataSet.open(Path(data))
        split = LabelledSplit(dataset, dataset.target(target))
    labels = readings.read_truth(split or Path(str(truth)))
    given = [ratings] if isinstance(ratings, str | Path) else ratings
    tables = [readings.read_ratings(Path(path)) for path in given]
    cases = list(dict.fromkeys(case for table in tables for case in table["case"]))
    read = {name: _read_system(name, path, split, cases) for name, path in systems.items()}
    used, joined = readings.join(labels, tables, read)
    study = reader_analysis.analyse(used, joined, readers)
    page = reader_page.write(study, make_folder(out), len(labels))
    lines = [statement.text for statement in reader_page.statements(study)]
    return Shown("\n".join([*lines, f"Page: {page}"]), read_json_file(out / "readers.json"))


def _systems(given: Sequence[str] | Mapping[str, str | Path]) -> dict[str, Path]:
    named = given.items() if isinstance(given, Mapping) else run_names(given)
    systems: dict[str, Path] = {}
    for name, path in named:
        if not name or name in systems:
            raise InputError(f"system {path}: write NAME={path}, each with a name of its own")
        systems[name] = Path(path)
    return systems


def _read_system(
    name: str, path: Path, split: LabelledSplit | None, cases: list[str]
) -> pd.DataFrame:
    """Return what a system read: a table, or predictions of the test images of its own split."""
    from cxr_compare.studies import readings

    if path.is_file() or not path.exists():
        return readings.read_ratings(path, name)
    predictions = Predictions.open(path)
    if split is None:
        raise InputError(f"system {path}: is predictions, which need data in place of truth")
    ids = split.dataset.ids
    made_on = predictions.info.data_set
    is_same = made_on is not None and made_on.content_id == ids.content_id
    if made_on is not None and is_same and made_on.split in ids.split_ids:
        split = replace(split, split=made_on.split)
    return readings.predicted_system(path, name, split, cases)
