"""`cxr readers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath, run_names

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.data_prep.base.names import Target
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.notes import Note


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
    from cxr_compare.data_prep.base.files import folder_lock
    from cxr_compare.data_prep.base.folders import require_writable
    from cxr_compare.data_prep.base.user_tables import read_json_file
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.inputs.folders import truth_of
    from cxr_compare.evaluation.notes import worst_first
    from cxr_compare.studies import reader_analysis, reader_page, readings

    out = Path(out)
    systems = _systems([system] if isinstance(system, str) else system or ())
    require_writable(out, "reader study", overwrite=True)
    if (truth is None) == (data is None):
        raise InputError("readers: give either truth or data")
    dataset = None if data is None else DataSet.open(Path(data))
    chosen = None if dataset is None else dataset.target(target)
    if dataset is None or chosen is None:
        labels = readings.read_cases(Path(str(truth)))
    else:
        labels = truth_of(dataset, chosen)
    cases = readings.labelled_cases(labels)
    given = [ratings] if isinstance(ratings, str | Path) else ratings
    tables = [readings.read_ratings(Path(path)) for path in given]
    names = list(dict.fromkeys(case for table in tables for case in table["case"]))
    notes = list(labels.notes)
    read = {}
    for name, path in systems.items():
        if path.is_dir():
            read[name], of_system = _predicted(name, path, dataset, chosen, names)
            notes += of_system
        else:
            read[name] = readings.read_system(path, name, labels)
    used, joined = readings.join(cases, tables, read)
    study = reader_analysis.analyse(used, joined, readers)
    cautions = [note.text for note in worst_first(notes)]
    with folder_lock(out):
        page = reader_page.write(study, out, len(cases), cautions)
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


def _predicted(
    name: str, path: Path, dataset: DataSet | None, target: Target | None, cases: list[str]
) -> tuple[pd.DataFrame, list[Note]]:
    """Return what a system predicted for test images of the split that it was made on."""
    from cxr_compare.data_prep.predictions import Predictions
    from cxr_compare.studies import readings

    predictions = Predictions.open(path)
    if dataset is None or target is None:
        raise InputError(f"system {path}: is predictions, which need data in place of truth")
    ids = dataset.ids
    made_on = predictions.info.data_set
    is_same = made_on is not None and made_on.content_id == ids.content_id
    split = made_on.split if made_on is not None and is_same else None
    if split not in ids.split_ids:
        split = "default"
    return readings.predicted_system(name, predictions, dataset, target, split, cases)
