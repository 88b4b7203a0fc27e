"""A report that is written again, from its inputs or from given files, to be compared with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from zipfile import ZipFile, is_zipfile

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import (
    PROGRAM_ERRORS,
    InputError,
    counted,
    first_line,
    require_extra,
)
from cxr_compare.data_prep.base.files import (
    atomic_folder,
    make_folder,
    require_free_space,
    require_there,
)
from cxr_compare.data_prep.base.folders import require_folder
from cxr_compare.data_prep.base.provenance import git_revision, package_versions
from cxr_compare.data_prep.base.records import Record, changed_files
from cxr_compare.data_prep.base.user_tables import read_json_file
from cxr_compare.data_prep.predictions import Predictions
from cxr_compare.evaluation.compare import Comparison, Request
from cxr_compare.evaluation.findings import compared_together
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.answer import Answer, ReportOrigin
from cxr_compare.evaluation.report.inputs import given_file, predictions_beside, read_inputs
from cxr_compare.evaluation.report.result import Result, table_of
from cxr_compare.evaluation.report.results_by_target import (
    AnswerByFinding,
    ResultsByTarget,
)
from cxr_compare.evaluation.report.verify import Verification, read_table, table_difference
from cxr_compare.scripts.compared_systems import Systems, split_roles
from cxr_compare.scripts.comparison import cases_of, questions_of
from cxr_compare.scripts.options import is_run
from cxr_compare.scripts.questions import Question

_TRUTH = ("data", "truth", "boxes", "patients", "images")
"""Files that labels, patients, boxes and sizes are read from, all together."""
_GIVEN = (*_TRUTH[:4], "protocol", "images")
"""All files but those of systems, in the order of the record."""
_STATED = ("command", "created", "revision", "versions")
"""Values of the record that no computation gives."""
_OF_FILE = ("given_as", "name", "bytes", "sha256")
_SIDE = 256
_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True)
class _Stored:
    """A report as it lies in its folder.

    Attributes:
        answers: Answer of each finding, by its folder; that of a single one is the report's own.
        left_out: Findings that were not compared, with the reason; None for a single one.
    """

    folder: Path
    answers: Mapping[str, Answer]
    left_out: Mapping[str, str] | None = None

    @property
    def origin(self) -> ReportOrigin:
        """Origin of the report, which all its findings share."""
        return next(iter(self.answers.values())).provenance


def verify_report(path: Path, given: Sequence[Path], out: Path | None) -> Verification:
    """Write a report again, and compare all files of its folder, or archive, with it."""
    if out is not None and out.exists():
        raise InputError(f"{out}: is there; name a new folder (out)")
    with _report_folder(path) as folder:
        report = _read_report(folder)
        main = files.ANSWER if report.left_out is None else files.ANSWERS
        verification = Verification(path, str(read_json_file(folder / main).get("sha256", "")))
        program_differences = _other_program(report.origin)
        verification.remarks = [*program_differences, "command, date and versions"]
        readable = _readable(report, given, verification)
        if any(answer.overlays for answer in report.answers.values()):
            require_extra("verify: a report with drawn images", "images")
        try:
            if readable or not report.origin.request.get("without_inputs"):
                with tempfile.TemporaryDirectory(prefix="cxr-") as temporary:
                    fresh = make_folder(Path(temporary) / "report")
                    has_pixels = _write_again(report, fresh, readable, verification)
                    limit = (
                        2 / report.origin.request["n_replicates"] if program_differences else 0.0
                    )
                    verification.compare(folder, fresh, limit, has_pixels=has_pixels)
                    if out is not None:
                        with atomic_folder(out) as out_folder:
                            shutil.copytree(fresh, out_folder, dirs_exist_ok=True)
        except PROGRAM_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - what was changed may raise anything
            lines = verification.uncompared if program_differences else verification.differences
            lines[main] = f" cannot be written again: {first_line(error)}"
        for name, how in changed_files(folder, main):
            verification.equal.discard(name)
            if name not in verification.uncompared:
                verification.differences.setdefault(name, f" {how}")
    if verification.uncompared and verification.equal and out is None:
        verification.remarks.append(
            "the report that is right here is kept by --out FOLDER, to be read"
        )
    return verification


@contextmanager
def _report_folder(path: Path) -> Iterator[Path]:
    """Yield the folder of a report; an archive of one is unpacked for as long as it is read."""
    if not is_zipfile(path):
        yield path
        return
    with ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="cxr-") as inside:
        names = archive.namelist()
        folders = {name.split("/")[0] for name in names} - {"__MACOSX"}
        if len(folders) != 1 or len({*names}) < len(names):
            raise InputError(f"{path}: is no archive of one folder, with each file once")
        require_free_space(Path(inside), sum(part.file_size for part in archive.infolist()))
        archive.extractall(inside)
        yield Path(inside, *folders)


def _read_report(folder: Path) -> _Stored:
    """Read the records of a report; InputError for one of several findings."""
    names: Sequence[str] = ("",)
    left_out: Mapping[str, str] | None = None
    if (folder / files.ANSWERS).is_file():
        whole = _record(AnswerByFinding, folder / files.ANSWERS)
        names, left_out = whole.findings, whole.left_out
        if not {path.name for path in folder.iterdir()}.issuperset(names):  # none is outside
            raise InputError(f"{folder}: has no folder for one of {', '.join(names)}")
    else:
        require_folder(folder, "report")
    answers = {name: _record(Answer, folder / name / files.ANSWER) for name in names}
    if left_out is None and answers[""].n_findings > 1:
        raise InputError(f"{folder}: is of several findings; give the folder of all of them")
    return _Stored(folder, answers, left_out)


def _record(kind: type[_R], path: Path) -> _R:
    """Read a record, whose digest is compared with all others."""
    content = read_json_file(path)
    for name in ("sha256", "contract", "schema_version"):
        content.pop(name, None)
    try:
        return kind.from_content(content, path)
    except InputError as error:
        commit = content.get("provenance", {}).get("revision")
        raise InputError(f"{error} (commit {commit} there, {git_revision()} here)") from error


def _other_program(origin: ReportOrigin) -> list[str]:
    """Return which other commit or versions made a report."""
    there = {"commit": origin.revision, **(origin.versions or {})}
    here = {"commit": git_revision(), **package_versions()}
    return [
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]


def _readable(
    report: _Stored, given_paths: Sequence[Path], verification: Verification
) -> dict[str, Path]:
    """Return given files by what they were given as, if they can be read; compare their digests."""
    for path in given_paths:
        require_there(path)
    digests = {path: given_file(path) for path in given_paths}
    by_role: dict[str, Path] = {}
    lacking: dict[str, str] = {}
    for file in report.origin.files:
        role, name = file["given_as"], file["name"]
        same_name_paths = [
            path
            for path in digests
            if digests[path]["name"] == name and path not in by_role.values()
        ]
        equal_paths = [
            path for path in same_name_paths if digests[path].get("sha256") == file.get("sha256")
        ]
        if not same_name_paths:
            lacking[role] = name
            continue
        by_role[role] = (equal_paths or same_name_paths)[0]
        if not equal_paths:
            verification.differences[name] = f" is another file than the {role} of the report"
    if unknown := digests.keys() - {*by_role.values()}:
        names = ", ".join(file["name"] for file in report.origin.files)
        raise InputError(f"{min(unknown)}: the report is of {names}; give these, by these names")
    if lacking:
        verification.remarks.append(f"{', '.join(lacking.values())} (not given)")
    is_bare = report.origin.request.get("without_inputs")
    needed = [name for role, name in lacking.items() if is_bare or role in _TRUTH]
    if needed and (given_paths or is_bare):
        verification.uncompared["figures"] = (
            f" are computed again if {', '.join(needed)} are given, too"
        )
        return {}
    if given_paths:
        parts = [f"{path.name} as {role}" for role, path in by_role.items()]
        verification.source = f", of {', '.join([*parts, *report.origin.request['columns']])}"
    return by_role


def _write_again(
    report: _Stored, fresh: Path, path_by_role: Mapping[str, Path], verification: Verification
) -> bool:
    """Write a report into a new folder, from its inputs or given files; return True if with X-rays.

    Numbers, pictures and predictions that neither gives are named.
    """
    questions: dict[str, Question] = {}
    requests: dict[str, Request] = {}
    if not report.origin.request.get("without_inputs"):
        for name, answer in report.answers.items():
            requests[name], readings = read_inputs(report.folder / name, answer)
            questions[name] = Question(requests[name].truth, readings=readings)
    system_paths = {
        role.removeprefix("system "): path
        for role, path in path_by_role.items()
        if role.startswith("system ") and not is_run(path)
    }
    if path_by_role:
        questions, requests = _read_given(report, path_by_role, system_paths, requests)
    comparisons, results = compared_together(requests), {}
    for name, answer in report.answers.items():
        stored_folder, new_folder = report.folder / name, make_folder(fresh / name)
        for output in requests[name].outputs.values():
            if predictions_name := predictions_beside(stored_folder, output):
                Predictions.open(stored_folder / predictions_name).copy(
                    new_folder / predictions_name
                )
        results[name] = _result(answer, comparisons[name], questions[name], stored_folder).write(
            new_folder
        )
    if report.left_out is not None:
        whole = ResultsByTarget.of(results, report.left_out)
        replace(whole, macro=_kept(report.folder / files.MACRO_CSV, whole.macro)).write(fresh)
    has_pixels = any(question.pixels is not None for question in questions.values())
    n_pictures = (
        0 if has_pixels else sum(len(answer.overlays) for answer in report.answers.values())
    )
    n_stated = 0 if path_by_role else sum(len(request.truth.steps) for request in requests.values())
    outputs = [pair for request in requests.values() for pair in request.outputs.items()]
    trained = {name for name, output in outputs if "system" in output.record} - system_paths.keys()
    verification.remarks += [f"predictions of {', '.join(sorted(trained))}"] if trained else []
    verification.remarks += [counted(n_pictures, "picture")] if n_pictures else []
    verification.remarks += (
        [f"{counted(n_stated, 'number')} of the composition"] if n_stated else []
    )
    return has_pixels


def _read_given(
    report: _Stored,
    path_by_role: Mapping[str, Path],
    system_paths: Mapping[str, Path],
    stored: Mapping[str, Request],
) -> tuple[dict[str, Question], dict[str, Request]]:
    """Read files as `compare` does; outputs that are not given, or of runs, are the stored ones."""
    options = dict(report.origin.request)
    if "protocol" in path_by_role:
        fixed = Protocol.read(path_by_role["protocol"])
        subgroups = fixed.subgroups or options["protocol"]["subgroups"]
        options["protocol"] = {**asdict(fixed), "subgroups": subgroups}
    system_names = {"", *system_paths, *(path.stem for path in system_paths.values())}
    columns = split_roles(options["columns"])[1]
    columns = {name: roles for name, roles in columns.items() if name in system_names}
    reading = Systems(system_paths, columns, both=options["both"])
    parts = {role: path_by_role.get(role) for role in _TRUTH}
    by_target = {question.truth.finding: question for question in questions_of(options, **parts)}
    questions = {name: by_target.pop(answer.target) for name, answer in report.answers.items()}
    if hidden := by_target.keys() - {*(report.left_out or ())}:
        raise InputError(f"{', '.join(hidden)}: was compared, too")
    requests = {}
    for name, question in questions.items():
        outputs = stored[name].outputs if name in stored else {}
        single = {
            name: output for name, output in outputs.items() if "members" not in output.record
        }
        reading.inputs = {**single, **system_paths}
        outputs = reading.outputs(question, report.folder)
        requests[name] = Request.of(outputs, question.truth, options, report.origin.files)
    return questions, requests


def _result(answer: Answer, comparison: Comparison, question: Question, stored: Path) -> Result:
    """Return the result that is right, with what no computation gives of the answer."""
    tables = {
        name: _kept(stored / f"{name}.parquet", table_of(comparison, name)) for name in files.TABLES
    }
    comparison = replace(comparison, figures=tables["figures"])
    right = Result.of(comparison).answer
    stated = {name: getattr(answer.provenance, name) for name in _STATED}
    by_role = {file["given_as"]: file for file in comparison.request.files}
    roles = [*_GIVEN, *(f"system {name}" for name in comparison.request.outputs)]
    stated["files"] = [
        {key: value for key, value in by_role[role].items() if key in _OF_FILE}
        for role in roles
        if role in by_role
    ]
    right = right.with_values(provenance=right.provenance.with_values(**stated))
    result = Result(right, tables.__getitem__, comparison=comparison)
    if answer.overlays and question.pixels is None:
        drawn = result.drawn_images(answer.overlays)
        question = replace(question, pixels=partial(_blank, comparison.truth.sizes, drawn))
    images = cases_of(comparison, question)
    return replace(result, images=images and images.in_order(right.systems, result.ordered))


def _kept(path: Path, right: pd.DataFrame) -> pd.DataFrame:
    """Return the stored table if it is equal, so that no last digit is printed otherwise."""
    stored = read_table(path) if path.is_file() else right
    return right if table_difference(stored, right) else stored


def _blank(sizes: pd.DataFrame, drawn: Sequence[str], image_id: str) -> npt.NDArray[np.uint8]:
    """Return empty pixels: words below a drawing rest on the size of the image alone."""
    if image_id not in drawn:
        raise InputError(f"{image_id}: was not drawn")
    width, height = np.nan_to_num(sizes.loc[image_id].to_numpy(np.float64), nan=_SIDE)
    return np.zeros((int(height), int(width)), np.uint8)
