"""`cxr readers`: several readers by several modalities, and readers against systems."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import folder_lock, make_folder, require_only
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import Predictions, is_predictions_folder
from evaluation.decisions.test_set import TestSet
from evaluation.report.files import study_files
from scripts.options import DataFolder, own_split
from scripts.runner import AnyPath, Argument, Outcome, verb
from scripts.systems import Systems


@verb
def readers(
    ratings: Systems,
    *,
    out: AnyPath,
    truth: AnyPath | None = None,
    data: DataFolder | None = None,
    target: str | None = None,
    system: Systems = (),
    readers: Literal["random", "fixed"] = "random",
    cases: Literal["random", "fixed"] = "random",
    level: Annotated[float, Argument(least=0.5, most=0.999)] = 0.95,
    positive_from: float | None = None,
    policy: str = "max_f1",
    key: AnyPath | None = None,
) -> Outcome:
    """Analyse a reader study: readers by modality, or against systems.

    By Obuchowski and Rockette, with Hillis' degrees of freedom. Readers may read all cases with
    each modality, some with some, or each with another.

    Args:
        ratings: CSV files of readings: reader, case, rating or decision (0 or 1) or both, and
            modality where there are several. With --key: filled-in forms of a blind study, each as
            READER=FILE or READER:MODALITY=FILE.
        out: Folder for the page and the tables.
        truth: CSV of the truth: case, label (0 or 1) and, maybe, patient.
        data: Data set that cxr prepare made, in place of --truth; cases are images.
        target: With --data: what is judged, where there are several.
        system: A stand-alone system on the same cases, as NAME=FILE (CSV: case, score and, maybe,
            decision) or, with --data, NAME=PREDICTIONS. May be given several times.
        readers: random: the result is for readers like these; fixed: for these.
        cases: random: the result is for cases like these; fixed: for these.
        level: Coverage of the intervals.
        positive_from: The lowest rating that calls a case positive: sensitivity and so on.
        policy: Of a predictions folder: decide at this policy's threshold.
        key: key.csv of the blind study (cxr overlay --blind).

    Returns:
        The comparisons in words, every figure, and the page.

    Raises:
        InputError: A file is damaged, files do not fit each other, or nothing varies.

    Example:
        cxr readers ratings.csv --truth truth.csv --out out/readers --system CheXNet=scores.csv
    """
    if (truth is None) == (data is None):
        raise InputError("readers: give either --truth TRUTH.csv or --data DATA")
    if key is None and (named := [name for name, _ in ratings if name is not None]):
        raise InputError(f"readers: {named[0]}=FILE names who filled in a form; give --key, too")
    for name, (path, *others) in system:
        if name is None or others or [other.name for other in system].count(name) > 1:
            words = ",".join(map(str, [path, *others]))
            raise InputError(f"--system {words}: expected NAME=PATH, each with a name of its own")
    from evaluation.studies.reader_analysis import analyse_readers
    from evaluation.studies.reader_page import reader_statements, write_readers
    from evaluation.studies.readings import (
        join_readings,
        predicted_system,
        read_form,
        read_ratings,
        read_system,
        read_truth,
        truth_of,
    )

    require_only(out, study_files("readers"), "reader study")
    judged: TestSet | None = None
    if truth is not None:
        labels = read_truth(truth)
    elif data is not None:
        dataset = DataSet.open(data)
        judged = TestSet(dataset, dataset.target(target))
        labels = truth_of(judged)
    readings = [
        read_ratings(path) if key is None else read_form(path, key, name)
        for name, (path, *_) in ratings
    ]
    systems = {}
    for name, (path, *_) in system:
        if not is_predictions_folder(path):
            systems[name] = read_system(path, name)
        elif judged is None:
            raise InputError(f"--system {path}: a predictions folder needs --data, not --truth")
        else:
            test_set = replace(judged, split=own_split(None, [path], judged.dataset))
            systems[name] = predicted_system(
                Predictions.open(path), name, test_set, readings, policy=policy
            )
    study = join_readings(labels, readings, systems, positive_from=positive_from)
    analysis = analyse_readers(study, readers=readers, cases=cases, level=level)
    make_folder(out)
    with folder_lock(out):
        page = write_readers(analysis, out)
    text = "\n".join(statement.text for statement in reader_statements(analysis))
    return Outcome(text, file=out / "readers.json", page=page)
