"""`cxr compare`: from systems and a truth, as a user has them, to a result."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, Unpack, overload

from cyclopts import Parameter, validators

from cxr_compare.commands import console
from cxr_compare.commands.options import (
    AnyColumns,
    AnyPath,
    Texts,
    as_given,
    comma_parts,
    roles_of,
)
from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed, require_extra
from cxr_compare.data_prep.base.files import LOCK_NAME, folder_lock
from cxr_compare.data_prep.base.folders import OF_REPORTS, KindName, require_writable

_FEWEST_REPLICATES = 100
_Table = Annotated[Any, Parameter(converter=as_given, metavar="PATH")]
_Replicates = Annotated[int, Parameter(validator=validators.Number(gte=_FEWEST_REPLICATES))]


_ImageScore = Annotated[
    str | Callable[[Any], float] | None,
    Parameter(converter=as_given, metavar="max|noisy_or|mean_of_top_3"),
]
_System = Annotated[
    Any,
    Parameter(
        converter=as_given,
        help="Runs, predictions folders, result files, or a folder of runs; NAME=PATH renames.",
    ),
]


if TYPE_CHECKING:
    from cxr_compare.commands.compared_systems import Systems
    from cxr_compare.commands.questions import Question
    from cxr_compare.evaluation.compare import Comparison
    from cxr_compare.evaluation.report.cases import CaseSource
    from cxr_compare.evaluation.report.class_result import ClassResult
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.report.results_by_target import ResultsByTarget

    class _Options(TypedDict, total=False):
        data: AnyPath | None
        truth: Any
        boxes: Any
        patients: Any
        columns: AnyColumns | None
        split: str | None
        both: bool
        images: str
        image_score: str | Callable[[Any], float] | None
        policy: Texts | None
        unit: Literal["image", "study", "patient"]
        metric: str | None
        margin: float | None
        gate: bool
        subgroups: Texts | None
        replicates: int
        out: AnyPath | None
        overwrite: bool
        allow_shared_patients: bool
else:
    ClassResult = Result = ResultsByTarget = Any  # the help needs no pandas


# One finding gives a Result; all of them, or a list, one for each.
@overload
def compare(
    *systems: Any, target: Literal["all"], **options: Unpack[_Options]
) -> ResultsByTarget: ...


@overload
def compare(*systems: Any, target: str | None = None, **options: Unpack[_Options]) -> Result: ...


@overload
def compare(
    *systems: Any, target: list[str], **options: Unpack[_Options]
) -> Result | ResultsByTarget: ...


def compare(
    *systems: _System,
    data: AnyPath | None = None,
    truth: _Table = None,
    boxes: _Table = None,
    patients: _Table = None,
    columns: AnyColumns | None = None,
    target: Texts | None = None,
    split: str | None = None,
    both: bool = False,
    images: str = "all",
    image_score: _ImageScore = None,
    policy: Texts | None = None,
    unit: Literal["image", "study", "patient"] = "image",
    metric: str | None = None,
    margin: float | None = None,
    gate: bool = False,
    subgroups: Texts | None = None,
    replicates: _Replicates = 2000,
    out: AnyPath | None = None,
    overwrite: bool = False,
    allow_shared_patients: bool = False,
) -> Result | ResultsByTarget | ClassResult:
    """Compare detectors and classifiers on the same images, with intervals by patient.

    Thresholds are chosen on validation images alone. The first system is the reference.

    Args:
        systems: Runs, predictions folders and result files, and from Python arrays, Series and
            frames, which truth, boxes and patients may be, too.
        data: Data set of cxr prepare, with labels, boxes, and splits.
        truth: Labels in place of a data set: a file, or a folder of YOLO or VOC.
        boxes: Boxes of the lesions, for a truth.
        patients: Patient of each image, for a truth.
        columns: Names of columns as ROLE=COLUMN: of the truth; score and result_image of all
            result files; SYSTEM.score, SYSTEM.image_score (of images, beside boxes), SYSTEM.image,
            SYSTEM.finding, SYSTEM.box_form (such as xywh), SYSTEM.box_unit (such as share) and
            SYSTEM.box_order (yxyx) of one;
            classes=exclusive if each image is of exactly one of all findings, else together.
        target: Finding, or group of findings; all for each of them. Without it that of the data
            set, or of all runs.
        split: Split of the data set; without it that of all runs, or else default.
        both: Evaluate all systems together as one more system.
        images: all refuses a system that was not run on every test image; common takes the images
            that all were run on; for a truth also the folder of its image files, for their sizes
            and for the page.
        image_score: Score of an image from those of its boxes, for all detectors: max, noisy_or (1
            minus the product of 1 - score) or mean_of_top_3; max without it. It is not for a
            detector whose results have a column image_score.
        policy: Rules of thresholds, such as sensitivity>=0.95,youden, in place of max_f1; the page
            shows decisions by the first. May be repeated.
        unit: What is decided on.
        metric: Primary figure in place of the AUROC, such as ap50 or f1.
        margin: Difference in the primary figure, such as 0.05, that was stated beforehand: the
            answer says whether each system is worse than the first one by more.
        gate: Exit with status 0 if no system is worse by more than the margin, 1 if one is, and 4
            if it cannot be told.
        subgroups: Columns of the images, such as sex,view, whose groups are reported, too.
        replicates: Number of resampled sets of patients, at least 100; classes that exclude each
            other need none.
        out: Folder of the report.
        overwrite: Replace a report.
        allow_shared_patients: Compare although patients are in two parts of the truth.
    """
    from cxr_compare.commands.compared_systems import (
        Systems,
        read_systems,
        shared_question,
        split_roles,
    )
    from cxr_compare.commands.questions import read_questions, with_numbered_patients
    from cxr_compare.evaluation.classes import compare_classes
    from cxr_compare.evaluation.findings import compared_together
    from cxr_compare.evaluation.output import image_score_name
    from cxr_compare.evaluation.protocol import Protocol
    from cxr_compare.evaluation.report.class_result import ClassResult
    from cxr_compare.evaluation.report.given_files import given_files
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.report.results_by_target import ResultsByTarget
    from cxr_compare.evaluation.subgroups import image_groups

    system_inputs = read_systems(systems)
    if both and len(system_inputs) < 2:
        raise InputError("both: give two systems or more")
    policies, columns_of_images = comma_parts(policy), comma_parts(subgroups)
    metric = None if metric is None else metric.lower()
    protocol = Protocol.stated(metric, policies, columns_of_images, margin)
    _check_options(policies, unit, replicates)
    rule_name = image_score_name("max" if image_score is None else image_score)
    _require_reference(margin, len(system_inputs), gate=gate)
    roles = roles_of(columns)
    of_truth, of_results = split_roles(roles)
    targets, split = shared_question(
        system_inputs, data if truth is None else None, list(comma_parts(target)), split
    )
    xrays = None if images in ("all", "common") else images
    parts = {"data": data, "truth": truth, "boxes": boxes, "patients": patients, "images": xrays}
    files = given_files(parts, system_inputs)
    questions = with_numbered_patients(
        read_questions(
            **parts,
            columns=of_truth,
            target=targets,
            split=split,
            allow_shared_patients=allow_shared_patients,
        )
    )
    for_one_finding = {"unit": unit != "image", "policy": policy, "subgroups": subgroups}
    are_classes = _are_classes(questions[0], {**for_one_finding, "both": both})
    has_validation = (questions[0].truth.images["role"] == "val").any()
    if data is None and not has_validation and not are_classes:
        _require_stated([*policies, protocol.policy])
    for question in questions:
        if columns_of_images:  # refused before runs are predicted
            image_groups(question.truth.of("test").images, columns_of_images)
    reading = Systems(
        system_inputs, of_results, both=both, overwrite=overwrite, image_score=image_score
    )
    left_out = _left_out(reading, questions)
    compared = {
        question.truth.finding: question
        for question in questions
        if question.truth.finding not in left_out
    }
    findings = [question.truth.finding for question in questions]
    with _working_folder(
        None if out is None else Path(out), findings, overwrite, are_classes=are_classes
    ) as folder:
        outputs = {
            name: (reading.outputs(question, folder), question.truth)
            for name, question in compared.items()
        }
        options = {
            "target": targets,
            "split": split or "default",
            "columns": list(roles),
            "both": both,
            "image_score": rule_name,
            "common": images == "common",
            "policy": list(policies),
            "unit": unit,
            "metric": metric,
            "margin": margin,
            "subgroups": list(columns_of_images),
            "replicates": replicates,
            "allow_shared_patients": allow_shared_patients,
        }
        if are_classes:
            made = compare_classes([*outputs.values()], metric, common=images == "common")
            of_classes = ClassResult(made, left_out, options, files)
            return replace(of_classes if out is None else of_classes.write_all(folder), gate=gate)
        with console.track("Resampling patients", replicates * len(outputs)) as advance:
            comparisons = compared_together(
                outputs,
                protocol=protocol,
                policies=policies,
                unit=unit,
                n_replicates=replicates,
                common=images == "common",
                advance=advance,
            )
        results = {
            name: Result.of(made, cases_of(made, compared[name]), options, files)
            for name, made in comparisons.items()
        }
        several = ResultsByTarget.of(results, left_out) if len(questions) > 1 else None
        answer = several or results[findings[0]]
        return replace(answer if out is None else answer.write_all(folder), gate=gate)


def _left_out(reading: Systems, questions: Sequence[Question]) -> dict[str, str]:
    """Return the findings that cannot be compared, with the reason; refuse if none can."""
    if len(questions) < 2:
        return {}
    reasons = {
        question.truth.finding: reading.reason_to_leave_out(question, questions)
        for question in questions
    }
    if all(reasons.values()):
        text = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise InputError(f"compare: no finding can be compared: {text}")
    return {name: reason for name, reason in reasons.items() if reason}


def cases_of(made: Comparison, question: Question) -> CaseSource | None:
    """Return what draws the images; None where they have no files, or nothing here draws."""
    if question.pixels is None:
        return None
    try:
        require_extra("X-rays are not drawn", "images")
    except InputError as error:  # figures need none
        console.say(str(error))
        return None
    from cxr_compare.evaluation.drawn import DrawnSystem
    from cxr_compare.evaluation.report.cases import CaseSource

    systems = {name: made.systems[name] for name in made.single}  # the joint one has no boxes
    drawn = [
        DrawnSystem.of(name, system.output, made.truth, made.main_policy, system.choices)
        for name, system in systems.items()
    ]
    return CaseSource(made.truth, question.pixels, tuple(drawn), question.readings)


def _check_options(policies: Sequence[str], unit: str, replicates: int) -> None:
    """Refuse values before runs are predicted, which may take hours."""
    from cxr_compare.evaluation.policies import parse

    for text in policies:
        parse(text)
    if unit not in ("image", "study", "patient"):
        raise InputError(f"{as_typed({'unit': unit})}: is none of image, study, patient")
    if replicates < _FEWEST_REPLICATES:
        given = as_typed({"replicates": replicates})
        raise InputError(f"{given}: are too few; give {_FEWEST_REPLICATES} or more")


def _require_stated(policies: Sequence[str]) -> None:
    """Refuse thresholds that validation images choose, where there are none."""
    from cxr_compare.evaluation.policies import is_given

    for rule in filter(None, policies):
        if not is_given(rule):
            raise InputError(
                f"{as_typed({'policy': rule})}: chooses a threshold on validation images, and the "
                "truth has none",
                [
                    Remedy(words="give it a column 'role' with val and test"),
                    Remedy(options={"policy": ["threshold=0.5"]}, verb="write"),
                ],
            )


def _require_reference(margin: float | None, n_systems: int, *, gate: bool) -> None:
    """Refuse a margin without a second system, and a gate without a margin."""
    if gate and margin is None:
        raise InputError("gate: needs a margin", [Remedy("this is enough", {"margin": 0.05})])
    if margin is not None and n_systems < 2:
        raise InputError("margin: give two systems or more, the reference first")


def _are_classes(question: Question, options: Mapping[str, Any]) -> bool:
    """Return True for classes that exclude each other; refuse options for one finding there."""
    classes = question.truth.classes
    for name, value in options.items():
        if value and classes:
            raise InputError(
                f"{name}: is for one finding, and each image is called the class of its highest "
                "score",
                [
                    Remedy(words=f"leave out {name}"),
                    Remedy(
                        "each class shall be a finding",
                        {"columns": {"classes": "together"}},
                        verb="write",
                    ),
                ],
            )
    return bool(classes)


@contextmanager
def _working_folder(
    out: Path | None, findings: Sequence[str], overwrite: bool, *, are_classes: bool
) -> Iterator[Path]:
    """Yield the report folder, locked, or a temporary one if nothing is written."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
            yield Path(folder)
        return
    several = len(findings) > 1 and not are_classes
    if several and (reserved := {*OF_REPORTS, LOCK_NAME}.intersection(findings)):
        raise InputError(f"target: '{min(reserved)}' is the name of a file; compare it alone")
    kind: KindName = "report on several findings" if several else "report"
    kind = "report on classes" if are_classes else kind
    require_writable(out, kind, findings if several else (), overwrite=overwrite)
    with folder_lock(out):  # which removes the folder of a refused call
        yield out
