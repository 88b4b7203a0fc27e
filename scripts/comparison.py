"""`cxr compare`: from systems and a truth, as a user has them, to a result."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from cyclopts import Parameter, validators

from cxr_compare.configs.protocol import read_protocol
from cxr_compare.data_prep.contracts.box_classes import class_column
from cxr_compare.data_prep.contracts.column_names import find_column
from cxr_compare.data_prep.contracts.errors import InputError, counted, nearest_name
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.boxes.box_figures import choosing_figures
from cxr_compare.evaluation.boxes.read_boxes import is_coco, is_detector_output
from cxr_compare.evaluation.compare import compare_systems
from cxr_compare.evaluation.groups.prevalence import Prevalence
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.notes import WARNING
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.report import files, hidden_names
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.report.results_by_target import ResultsByTarget
from cxr_compare.evaluation.report.summary_table import table_rows
from cxr_compare.evaluation.sources.from_frames import is_column_of_images, truth_from_values
from cxr_compare.evaluation.sources.known_images import KnownImages
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.pixels import pixels_of_folder
from cxr_compare.evaluation.sources.truth_files import truth_set
from cxr_compare.evaluation.sources.wide_tables import LABEL_NAMES, finding_name
from cxr_compare.evaluation.thresholds import check_policy
from cxr_compare.scripts import console
from cxr_compare.scripts.compared_systems import Question, Systems, read_systems, split_roles
from cxr_compare.scripts.options import AnyPath, Columns, Texts, as_given, comma_parts, roles_of

_SEED = 0
_FEWEST_REPLICATES = 100
_LABELS = {0.0, 1.0, -1.0}


_Table = Annotated[Any, Parameter(converter=as_given)]
_Replicates = Annotated[int, Parameter(validator=validators.Number(gte=_FEWEST_REPLICATES))]
_System = Annotated[
    Any,
    Parameter(
        converter=as_given,
        help="Runs, predictions folders, result files, or a folder of runs; NAME=PATH renames.",
    ),
]


def compare(
    *systems: _System,
    data: AnyPath | None = None,
    truth: _Table = None,
    boxes: _Table = None,
    patients: _Table = None,
    columns: Columns = None,
    target: Texts | None = None,
    split: str = "default",
    both: bool = False,
    images: str = "all",
    policy: Texts | None = None,
    unit: Literal["image", "study", "patient"] = "image",
    protocol: AnyPath | None = None,
    subgroups: Texts | None = None,
    prevalence: str | None = None,
    metrics: Texts | None = None,
    replicates: _Replicates = 2000,
    out: AnyPath | None = None,
    overwrite: bool = False,
    hide_names: bool = False,
    allow_shared_patients: bool = False,
) -> Result | ResultsByTarget:
    """Compare detectors and classifiers on the same images, with intervals by patient.

    A system is a run, a predictions folder, or a result file; from Python also an array, a Series,
    or a frame. Thresholds are chosen on validation images alone. The first system is the reference.

    Args:
        data: Data set of cxr prepare, with labels, boxes, and splits.
        truth: Labels in place of a data set: a file, or from Python a table.
        boxes: Boxes of the lesions, for a truth.
        patients: Patient of each image, for a truth.
        columns: Names of columns as ROLE=COLUMN: of the truth; score and result_image of all
            result files; SYSTEM.score, SYSTEM.image, SYSTEM.finding and SYSTEM.box_form of one.
        target: Finding, or group of findings; all for each of them.
        split: Split of the data set.
        both: Evaluate all systems together as one more system.
        images: all refuses a system that was not run on every test image; common takes the images
            that all were run on; for a truth also the folder of its image files, for the page.
        policy: Rule of a threshold, such as sensitivity>=0.95; may be repeated.
        unit: What is decided on.
        protocol: File that fixed the question beforehand.
        subgroups: Columns of the images, such as sex,view, whose groups are reported, too.
        prevalence: Prevalence at which precision and others are shown, such as 0.05.
        metrics: Rows of the main table, such as auroc,recall@specificity>=0.90.
        replicates: Number of resampled sets of patients, at least 100.
        out: Folder of the report.
        overwrite: Replace a report.
        hide_names: Show numbers in place of the ids of images and patients on the page and in its
            tables. Predictions of runs, which are stored beside them, keep the ids.
        allow_shared_patients: Compare although patients are in two parts of the truth.
    """
    named = read_systems(systems)
    if both and len(named) < 2:
        raise InputError("both: give two systems or more")
    policies = _texts(policy)
    _check_options(policies, prevalence, replicates)
    wanted = _texts(target)
    fixed = _protocol(protocol, comma_parts(subgroups), wanted)
    rows = _rows(comma_parts(metrics))
    wanted = [fixed.target] if fixed.target else wanted
    of_truth, of_results = split_roles(roles_of(columns))
    questions = read_questions(
        data, truth, boxes=boxes, patients=patients, columns=of_truth, target=wanted, split=split
    )
    if data is None:
        _refuse_shared_patients(questions[0].truth, allowed=allow_shared_patients)
        if not len(questions[0].truth.ids_of("val")):
            _require_given_thresholds([*policies, *filter(None, [fixed.policy])])
    rule: Any = images if images in ("all", "common") else "all"
    if rule != images:
        questions = _with_pixels(questions, images)
    tested = [each.truth.patients_of(each.truth.ids_of("test")) for each in questions]
    drawn = pd.Index(np.unique(np.concatenate(tested))) if len(questions) > 1 else None
    options: dict[str, Any] = {
        "policies": list(dict.fromkeys([*policies, *(row.policy for row in rows if row.policy)])),
        "unit": unit,
        "protocol": fixed,
        "prevalence": prevalence,
        "replicates": replicates,
        "seed": _SEED,
        "patients": drawn,
    }
    findings = [each.truth.finding for each in questions]
    with _working_folder(None if out is None else Path(out), findings, overwrite) as folder:
        compared = Systems(
            named,
            of_results,
            folder,
            both=both,
            several=len(questions) > 1,
            overwrite=overwrite,
            boxes_by=fixed.metric if fixed.metric in choosing_figures() else BOXES_BY,
        )
        results: dict[str, Result] = {}
        left_out: dict[str, str] = {}
        for each in questions:
            finding = each.truth.finding
            reason = compared.reason_to_leave_out(each) if len(questions) > 1 else ""
            if reason:
                left_out[finding] = reason  # it stands on the page
                continue
            eligible = compared.eligible(each, rule)
            if not len(each.truth.ids_of("val")) and not policies and not results:
                console.say("Without validation images no threshold is chosen; threshold=T is one")
            comparison = compare_systems(eligible, **options)
            shown = (comparison, each.truth, each.pixels)
            if hide_names:
                shown = hidden_names.hide_names(*shown, _SEED)
            results[finding] = Result(Compared(*shown, rows, _SEED))
        if not results:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise InputError(f"compare: no finding can be compared: {reasons}")
        return _written(results, questions, left_out, folder if out else None)


def read_questions(
    data: Any,
    truth: Any,
    *,
    boxes: Any = None,
    patients: Any = None,
    columns: tuple[str, ...] = (),
    target: Sequence[str] = (),
    split: str = "default",
) -> list[Question]:
    """Read labels, patients, roles and true boxes, and return a question for each finding."""
    if (data is None) == (truth is None):
        raise InputError("compare: give either a data set (data) or labels (truth)")
    if data is not None:
        given = {"boxes": boxes, "patients": patients, "columns": columns or None}
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name}: is for a truth, and the data set has its own")
        if not isinstance(data, DataSet):
            require_kind(Path(data), "data set")
            data = DataSet.open(data)
        known = KnownImages.of_data_set(data)
        splits = [LabelledSplit(data, each, split) for each in _targets(data, target)]
        return [Question(each.truth, known, split=each) for each in splits]
    if split != "default":
        raise InputError(f"split: {split} is of a data set; name the roles in the truth")
    if isinstance(truth, str | os.PathLike):
        return _of_file(Path(truth), boxes, patients, columns, target)
    if columns:
        raise InputError(f"columns: {columns[0]} is for a file; name the columns of the frame so")
    if is_detector_output(truth):
        if boxes is not None:
            raise InputError("truth: holds true boxes itself; leave boxes out")
        if is_coco(truth):
            raise InputError("truth: a list of COCO annotations lacks the images; give the file")
        truth, boxes = [int(len(image["boxes"]) > 0) for image in truth], truth
    return _of_values(truth, boxes, patients, target)


def _check_options(policies: Sequence[str], prevalence: Any, replicates: int) -> None:
    """Refuse values before runs are predicted, which may take hours."""
    for text in policies:
        check_policy(text)
    if prevalence is not None:
        Prevalence.parse(prevalence)
    if replicates < _FEWEST_REPLICATES:
        raise InputError(f"replicates: {replicates} are too few; give {_FEWEST_REPLICATES} or more")


def _texts(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _rows(metrics: Sequence[str]) -> Any:
    own = [name for name in metrics if ":" in name]
    if own:
        raise InputError(f"metrics: '{own[0]}' is none; compute figures of your own on the result")
    return table_rows(metrics)


def _protocol(path: AnyPath | None, subgroups: Sequence[str], wanted: list[str]) -> Protocol:
    if path is None:
        return Protocol(subgroups=tuple(subgroups))
    fixed, digest = read_protocol(Path(path))
    for name, given in (("target", wanted), ("subgroups", subgroups)):
        if given:
            raise InputError(f"{name}: the protocol {path} fixes it; leave it out")
    metric, partner = (*fixed.metric, "")[:2]
    keys = fixed.model_dump() | {"subgroups": tuple(fixed.subgroups)}
    keys |= {"metric": metric, "partner": partner}
    return Protocol(**keys, declared=True, file_sha256=digest)


def _refuse_shared_patients(truth: LabelledImages, *, allowed: bool) -> None:
    shared = truth.shared_patients()
    if allowed or shared.empty:
        return
    names = {"val": "validation", "train": "training"}
    first = shared.iloc[0]
    raise InputError(
        f"truth: {counted(len(shared), 'patient', 'have')} images in test and in "
        f"{names[str(first['role'])]}, such as '{first['patient_id']}'; give each patient one "
        "role, or say allow_shared_patients (the figures are then too good for new patients)"
    )


def _require_given_thresholds(policies: Sequence[str]) -> None:
    """Refuse rules that choose a threshold, for a truth without validation images."""
    for policy in policies:
        if not policy.startswith("threshold="):
            raise InputError(
                f"policy: {policy} chooses a threshold on validation images, and the truth has "
                "none; give threshold=T, or a column 'role' with val and test"
            )


def _with_pixels(questions: Sequence[Question], images: str) -> list[Question]:
    folder = Path(images)
    if questions[0].split is not None:
        raise InputError(f"images: {images} is for a truth; the data set has its own images")
    if not folder.is_dir():
        raise InputError(f"images: {images} is neither all nor common, nor a folder of images")
    pixels = pixels_of_folder(questions[0].truth, folder, console.say)
    return [replace(each, folder_pixels=pixels) for each in questions]


def _of_file(
    path: Path, boxes: Any, patients: Any, columns: tuple[str, ...], wanted: Sequence[str]
) -> list[Question]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    further = {"boxes": boxes, "patients": patients}
    for name, value in further.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise InputError(f"{name}: with the truth in a file, give a file, too")
        further[name] = None if value is None else Path(value)
    recognised: list[str] = []
    try:
        dataset = truth_set(path, further["patients"], recognised.append, further["boxes"], columns)
    except InputError:
        for line in recognised:  # how the columns were read; where nothing is refused, notes say it
            console.say(line)
        raise
    try:
        targets = _targets(dataset, wanted)
    except InputError as error:  # the cautions of reading may name the cause
        notes = [note for note in dataset.info.notes if note.startswith(WARNING)]
        reasons = [note.removeprefix(WARNING) for note in notes]
        raise InputError(". ".join([str(error), *reasons])) from None
    known = KnownImages.of_data_set(dataset)
    coco = path if path.suffix.lower() == ".json" else None
    splits = [LabelledSplit(dataset, each) for each in targets]
    return [Question(each.truth_with_facts, known, coco=coco) for each in splits]


def _targets(dataset: DataSet, wanted: Sequence[str]) -> list[Any]:
    if "all" in wanted and "all" not in dataset.targets:
        return list(dataset.targets.values())
    if not wanted:
        return [dataset.target(option="target, or all")]
    return [dataset.target(name) for name in dict.fromkeys(wanted)]


def _of_values(truth: Any, boxes: Any, patients: Any, wanted: Sequence[str]) -> list[Question]:
    columns = _finding_columns(truth, wanted) if isinstance(truth, pd.DataFrame) else {}
    if not columns:
        labelled, order = truth_from_values(truth, boxes=boxes, patients=patients)
        for name in wanted:
            if name not in (labelled.finding, "all"):
                raise InputError(f"target: there is no '{name}'; truth is of '{labelled.finding}'")
        return [Question(labelled, KnownImages.of_truth(labelled), order)]
    questions = []
    for name, column in columns.items():
        others = [other for other in columns.values() if other != column]
        labelled, order = truth_from_values(
            truth.drop(columns=others),
            boxes=_boxes_of(boxes, name, list(columns)),
            patients=patients,
            label=str(column),
        )
        known = KnownImages.of_truth(labelled)
        questions.append(Question(labelled, known, order, None, column, tuple(columns)))
    return questions


def _boxes_of(boxes: Any, finding: str, findings: Sequence[str]) -> Any:
    """Return the true boxes of one finding; a box of none that is compared is refused."""
    if not isinstance(boxes, pd.DataFrame):
        return boxes
    column = class_column(boxes)
    if column is None:
        raise InputError(
            f"boxes: no column says of which of the findings {', '.join(findings)} a box is; add a "
            "column 'finding'"
        )
    named = boxes[column].map(lambda text: finding_name(str(text)))
    unknown = sorted(set(named) - set(findings))
    if unknown:
        raise InputError(
            f"boxes: '{unknown[0]}' is none of the findings {', '.join(findings)}; leave its rows "
            "out"
        )
    return boxes[named == finding].drop(columns=column)


def _finding_columns(truth: pd.DataFrame, target: Sequence[str]) -> dict[str, Any]:
    """Return the columns of several findings by name; empty for a truth of one finding."""
    columns = {finding_name(str(column)): column for column in truth.columns}
    has_label = find_column([str(column) for column in truth.columns], LABEL_NAMES) is not None
    if has_label and not target:
        return {}
    wanted = [finding_name(name) for name in target if name != "all"]
    if not wanted:
        wanted = [
            name
            for name, column in columns.items()
            if not is_column_of_images(str(column)) and _holds_labels(truth[column])
        ]
    unknown = [name for name in wanted if name not in columns]
    if has_label and (unknown or len(wanted) == 1):
        return {}
    if unknown:
        near = nearest_name(unknown[0], list(columns), f"it has {', '.join(columns)}")
        raise InputError(f"target: truth has no column '{unknown[0]}'; {near}")
    if not wanted or (len(wanted) == 1 and not target):
        return {}
    if not target:
        raise InputError(
            f"truth: no column 'label', and {', '.join(wanted)} may be findings; give target: all "
            "if each is one, or the names of those that are"
        )
    return {name: columns[name] for name in wanted}


def _holds_labels(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values, errors="coerce")
    known = set(numbers.dropna().astype(float))
    return bool(known) and known <= _LABELS and bool((numbers.notna() | values.isna()).all())


@contextmanager
def _working_folder(out: Path | None, findings: Sequence[str], overwrite: bool) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
            yield Path(folder)
        return
    is_finished = any((out / name).is_file() for name in (files.ANSWER, files.PAGE))
    if is_finished and not overwrite:
        raise InputError(f"{out}: holds a report; choose another folder, or say overwrite")
    several = len(findings) > 1
    if several and (reserved := {*files.OF_ALL_TARGETS, LOCK_NAME}.intersection(findings)):
        raise InputError(f"target: '{min(reserved)}' is the name of a file; compare it alone")
    known = {*files.OF_ALL_TARGETS, *findings} if several else files.OF_ONE_TARGET
    require_only_files(out, known, "report")
    with folder_lock(out):  # which removes the folder of a refused call
        yield out


def _written(
    results: dict[str, Result],
    questions: Sequence[Question],
    left_out: dict[str, str],
    out: Path | None,
) -> Result | ResultsByTarget:
    if len(questions) == 1:
        (result,) = results.values()
        if out is None:
            return result
        result.write(out)
        return Result.open(out)
    titles = {each.truth.finding: each.truth.shown_name for each in questions}
    answer = ResultsByTarget.of_results(results, titles, left_out)
    if out is None:
        return answer
    (out / files.PAGE).unlink(missing_ok=True)  # it is incomplete until its last file
    for name, result in results.items():
        (out / name).mkdir(exist_ok=True)
        result.write(out / name)
    opened = {name: Result.open(out / name) for name in results}
    return answer.write(out, opened, questions[0].truth.title)
