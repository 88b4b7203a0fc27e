"""`cxr readers`: compare readers between modalities, and readers with systems."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_writer import is_predictions_folder
from cxr_compare.evaluation.report.study_page import study_files
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts.given_systems import Systems, read_systems
from cxr_compare.scripts.options import DataFolder, own_split
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, as_path
from cxr_compare.scripts.runner import command


@command
def readers(
    ratings: list[AnyPath],
    *,
    out: AnyPath,
    truth: AnyPath | None = None,
    data: DataFolder | None = None,
    target: str | None = None,
    system: Systems = (),
    readers: Literal["random", "fixed"] = "random",
) -> Outcome:
    """Analyse a reader study, by modality or against systems.

    The analysis follows Obuchowski and Rockette, with the degrees of freedom of Hillis.

    Args:
        ratings: CSV files with the columns reader, case, rating or decision (0 or 1) or both, and
            modality if there are several.
        out: Folder for the page and the tables.
        truth: CSV of the truth with the columns case, label (0 or 1) and, if known, patient.
        data: Data set (of cxr prepare) whose images are the cases, in place of --truth.
        target: Target whose labels are the truth. Needed only if the data set has several.
        system: A system that read the same cases alone: NAME=FILE (CSV with case, score and, if
            known, decision) or, with --data, NAME=PREDICTIONS.
        readers: random: the result holds for other readers like these. fixed: for these alone.

    Returns:
        The comparisons as sentences, every figure, and the path of the page.

    Raises:
        InputError: A file is damaged, files do not fit each other, or the readings do not vary.

    Example:
        cxr readers ratings.csv --truth truth.csv --out out/readers --system CheXNet=scores.csv
    """
    from cxr_compare.studies import reader_analysis, reader_page, readings

    out, truth, data = as_path(out), as_path(truth), as_path(data)
    paths = {}
    for name, (path, *others) in read_systems(system):
        if name is None or others or name in paths:
            raise InputError(f"--system {path}: expected NAME=PATH, each with a name of its own")
        paths[name] = path
    require_only_files(out, study_files("readers"), "reader study")
    split = None
    if truth is not None and data is None:
        labels = readings.read_truth(truth)
    elif data is not None and truth is None:
        dataset = DataSet.open(data)
        split = LabelledSplit(dataset, dataset.target(target))
        labels = readings.read_truth(split)
    else:
        raise InputError("readers: give either --truth TRUTH.csv or --data DATA")
    tables = [readings.read_ratings(as_path(path)) for path in ratings]
    systems = {}
    for name, path in paths.items():
        if path.is_dir() and not is_predictions_folder(path):
            raise InputError(f"--system {path}: holds no predictions; cxr predict makes them")
        if not is_predictions_folder(path):
            systems[name] = readings.read_ratings(path, name)
        elif split is None:
            raise InputError(f"--system {path}: a predictions folder needs --data, not --truth")
        else:
            cases = list(dict.fromkeys(case for table in tables for case in table["case"]))
            learned = replace(split, split=own_split(None, [path], split.dataset))
            systems[name] = readings.predicted_system(path, name, learned, cases)
    used, joined = readings.join(labels, tables, systems)
    study = reader_analysis.analyse(used, joined, readers)
    page = reader_page.write(study, make_folder(out), len(labels))
    text = "\n".join(statement.text for statement in reader_page.statements(study))
    return Outcome(text, file=out / "readers.json", page=page)
