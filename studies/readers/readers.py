"""`cxr readers`: compare readers between modalities, and readers with systems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cxr_compare import DataSet
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.store.prediction_writer import is_predictions_folder
from cxr_compare.evaluation.boxes.lesion_hits import HitRule
from cxr_compare.evaluation.report.study_page import study_files
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    DataFolder,
    Names,
    Outcome,
    Systems,
    as_path,
    command,
    own_split,
    read_systems,
)

_POLICY = "max_f1"  # policy by which systems that are predictions folders decide
_LEVEL = 0.95  # coverage of the intervals
_FALSE_POSITIVES = 0.5  # false positives per image at which FROC gives the sensitivity


def read_hit_rule(value: str | HitRule) -> HitRule:
    """Read the rule that says when a mark of a reader hits a lesion.

    It is ``centre`` (the centre of the mark lies in the lesion), ``iou`` or ``iou:F`` (mark and
    lesion overlap with an IoU of at least F, by default 0.2), or ``distance:N`` (their centres are
    at most N px of the original apart). Raises ValueError if the rule is unknown, or its limit is
    missing, no number or out of range.

    Example:
        >>> read_hit_rule("iou"), read_hit_rule("distance:40")
        (HitRule(kind='iou', limit=0.2), HitRule(kind='distance', limit=40.0))
    """
    if isinstance(value, HitRule):
        return value
    kind, _, limit = value.partition(":")
    if kind == "centre" and not limit:
        return HitRule("centre")
    if kind == "iou":
        overlap = _positive_number(limit or "0.2")
        if overlap > 1:
            raise ValueError("iou:F takes an overlap from above 0 to 1")
        return HitRule("iou", overlap)
    if kind == "distance":
        return HitRule("distance", _positive_number(limit))
    raise ValueError("write centre, iou:F or distance:N")


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("write iou:F or distance:N with a number above 0") from None
    if not 0 < number < float("inf"):
        raise ValueError("write iou:F or distance:N with a number above 0")
    return number


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
    positive_from: float | None = None,
    key: AnyPath | None = None,
    lesions: AnyPath | None = None,
    hit: Annotated[Any, Argument(read=read_hit_rule, metavar="RULE")] = "centre",
    rename: Names = (),
) -> Outcome:
    """Analyse a reader study, by modality or against systems.

    The analysis follows Obuchowski and Rockette, with the degrees of freedom of Hillis. The readers
    may read all cases with each modality, or a part of the cases, or other cases with each
    modality. If the readers mark lesions, the figure that is compared is the weighted AFROC. With
    three modalities or more, the overall test comes first.

    Args:
        ratings: CSV files of readings with the columns reader, case, rating or decision (0 or 1) or
            both, and modality if there are several. A mark is a row with a rating and a position:
            x, y or x1, y1, x2, y2 (px), or the name of the lesion that it hit. A case without marks
            has one row without a position. Other files are named READER=FILE or
            READER:MODALITY=FILE: COCO results, predictions of cxr import or, with --key, forms of a
            blind study.
        out: Folder for the page and the tables.
        truth: CSV of the truth with the columns case, label (0 or 1) and, if known, patient.
        data: Data set (of cxr prepare) whose images are the cases, in place of --truth.
        target: Target (a finding, or a group of findings) whose labels are the truth. Needed only
            if the data set has several targets.
        system: A system (detector or classifier) that read the same cases alone: NAME=FILE (CSV
            with case, score and, if known, decision) or, with --data, NAME=PREDICTIONS.
        readers: random: the result holds for other readers like these. fixed: it holds for these
            readers alone.
        positive_from: Lowest rating that counts as a positive call.
        key: key.csv of the study (cxr reading-form), which names the image behind each number.
        lesions: CSV of the lesions, for marks with --truth: case, x1, y1, x2, y2 or lesion (its
            name) and, if wanted, weight.
        hit: When a mark hits a lesion. centre: its centre lies in the lesion. iou:0.2: mark and
            lesion overlap with at least this IoU. distance:40: their centres are at most 40 px
            apart.
        rename: New names of modalities as OLD=NEW, such as 0=without,1=with.

    Returns:
        The comparisons as sentences, every figure, and the path of the page.

    Raises:
        InputError: A file is damaged, files do not fit each other, or the readings do not vary.

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
    from cxr_compare.studies.readers.reader_analysis import analyse_readers
    from cxr_compare.studies.readers.reader_page import write_readers
    from cxr_compare.studies.readers.reader_statements import (
        component_sentences,
        reader_statements,
    )
    from cxr_compare.studies.readers.readings import read_study

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
        hit=hit,
        false_marks=_FALSE_POSITIVES,
        positive_from=positive_from,
        policy=_POLICY,
        rename=rename,
    )
    analysis = analyse_readers(study, readers=readers, cases="random", level=_LEVEL)
    make_folder(out)
    with folder_lock(out):
        page = write_readers(analysis, out)
    lines = [statement.text for statement in reader_statements(analysis)]
    text = "\n".join([*lines, *component_sentences(analysis)])
    return Outcome(text, file=out / "readers.json", page=page)
