"""`cxr readers`: several readers by several modalities, and readers against systems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.prediction_writer import is_predictions_folder
from cxr_compare.evaluation.boxes.lesion_hits import HitRule
from cxr_compare.evaluation.report.files import study_files
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.scripts.options import DataFolder, Names, own_split
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.systems import Systems, read_systems

_LEVEL = 0.95  # coverage of the intervals
_FALSE_POSITIVES = 0.5  # per image, at which FROC gives the sensitivity


@command
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
    positive_from: float | None = None,
    policy: str = "max_f1",
    key: AnyPath | None = None,
    lesions: AnyPath | None = None,
    hit: Literal["centre", "iou", "distance"] = "centre",
    hit_limit: Annotated[float | None, Argument(minimum=0)] = None,
    rename: Names = (),
) -> Outcome:
    """Analyse a reader study: readers by modality, or against systems.

    By Obuchowski and Rockette, with Hillis' degrees of freedom. Readers may read all cases with
    each modality, some with some, or each with another. Where they mark lesions, the weighted AFROC
    decides.

    Args:
        ratings: CSV files of readings: reader, case, rating or decision (0 or 1) or both, and
            modality where there are several. A mark is a row with rating and x, y or x1, y1, x2, y2
            (px) or the name of the lesion it hit. A case without a mark is a row without them.
            READER=FILE or READER:MODALITY=FILE: COCO results, predictions of cxr import or, with
            --key, forms of a blind study.
        out: Folder for the page and the tables.
        truth: CSV of the truth: case, label (0 or 1) and, maybe, patient.
        data: In place of --truth: data set whose images are the cases.
        target: Target whose labels are the truth. Needed only where the data set has several
            targets.
        system: A stand-alone system on the same cases: NAME=FILE (CSV: case, score and, maybe,
            decision) or, with --data, NAME=PREDICTIONS.
        readers: random: the result holds for readers like these. fixed: it holds for these readers
            alone.
        cases: random: the result holds for cases like these. fixed: it holds for these cases alone.
        positive_from: Lowest rating that calls a case positive.
        policy: Policy whose threshold decides, of systems that are predictions folders. It must be
            one that cxr tune has chosen.
        key: key.csv of the blind study (cxr overlay --blind).
        lesions: With --truth, of marks: CSV of lesions: case, x1, y1, x2, y2 or lesion (its name)
            and, maybe, weight.
        hit: A mark hits a lesion in which its centre lies, by overlap (iou), or by the distance of
            both centres.
        hit_limit: Smallest overlap of --hit iou (by default 0.2), or largest distance of --hit
            distance in px. --hit centre has no limit.
        rename: Names of modalities, as 0=without,1=with.

    Returns:
        The comparisons in words, every figure, and the page.

    Raises:
        InputError: A file is damaged, files do not fit each other, or nothing varies.

    Example:
        cxr readers ratings.csv --truth truth.csv --out out/readers --system CheXNet=scores.csv
    """
    ratings = read_systems(ratings)
    out = as_path(out)
    truth = as_path(truth)
    data = as_path(data)
    system = read_systems(system)
    key = as_path(key)
    lesions = as_path(lesions)
    evaluated: Path | LabelledSplit
    if truth is not None and data is None:
        evaluated = truth
    elif data is not None and truth is None:
        dataset = DataSet.open(data)
        evaluated = LabelledSplit(dataset, dataset.target(target))
    else:
        raise InputError("readers: give either --truth TRUTH.csv or --data DATA")
    for name, (path, *_) in ratings if key is None else ():
        if name is not None and path.suffix != ".json" and not is_predictions_folder(path):
            raise InputError(f"readers: {name}=FILE names who filled in a form; give --key, too")
    names = [other.name for other in system]
    compared: dict[str, Path] = {}
    for name, (path, *others) in system:
        if name is None or others or names.count(name) > 1:
            words = ",".join(map(str, [path, *others]))
            raise InputError(f"--system {words}: expected NAME=PATH, each with a name of its own")
        compared[name] = path
    from cxr_compare.evaluation.studies.reader_analysis import analyse_readers
    from cxr_compare.evaluation.studies.reader_page import write_readers
    from cxr_compare.evaluation.studies.reader_statements import reader_statements
    from cxr_compare.evaluation.studies.readings import read_study

    if hit == "centre" and hit_limit is not None:
        raise InputError("readers --hit-limit: is for --hit iou and --hit distance; leave it out")
    if hit == "distance" and hit_limit is None:
        raise InputError("readers --hit distance: give --hit-limit, the largest distance in px")
    limit = 0.2 if hit_limit is None else hit_limit
    require_only_files(out, study_files("readers"), "reader study")
    systems: dict[str, tuple[Path, LabelledSplit | None]] = {}
    for name, path in compared.items():
        systems[name] = path, None
        if is_predictions_folder(path):
            if isinstance(evaluated, Path):
                raise InputError(f"--system {path}: a predictions folder needs --data, not --truth")
            split = own_split(None, [path], evaluated.dataset)
            systems[name] = path, replace(evaluated, split=split)
    study = read_study(
        [(name, path) for name, (path, *_) in ratings],
        systems,
        truth=evaluated,
        key=key,
        lesions=lesions,
        hit=HitRule(hit, limit),
        false_marks=_FALSE_POSITIVES,
        positive_from=positive_from,
        policy=policy,
        rename=rename,
    )
    analysis = analyse_readers(study, readers=readers, cases=cases, level=_LEVEL)
    make_folder(out)
    with folder_lock(out):
        page = write_readers(analysis, out)
    text = "\n".join(statement.text for statement in reader_statements(analysis))
    return Outcome(text, file=out / "readers.json", page=page)
