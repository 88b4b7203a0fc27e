"""Call of `cxr compare` that a finished report records.

The same call on the folder of its report opens the report. Any other call is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.answer import AnswerInfo
from cxr_compare.scripts.systems import ComparedSystem, system_folder
from cxr_compare.serving.export_spec import is_export
from cxr_compare.training.run_info import RunInfo


def recorded_systems(systems: Sequence[ComparedSystem]) -> dict[str, list[dict[str, Any]]]:
    """Return what a report records of its systems: for each training seed, where it comes from.

    A folder is recorded by its name and the time at which it was made, without its path. A path
    would show the names of users and folders.
    """
    recorded = {}
    for number, (name, members) in enumerate(systems, start=1):
        seeds = [_recorded_seed(member) for member in members]
        recorded[name or f"{number}. {seeds[0]['name']}"] = seeds
    return recorded


def _recorded_seed(member: Path | Predictions) -> dict[str, Any]:
    if isinstance(member, Predictions):
        return {"name": str(member), "inference_id": member.info.inference_id}
    path = member / f"{_record_kind(member)}.json"
    created = inference_id = None
    if path.name == "predictions.json":
        record = PredictionsInfo.read(path)
        created, inference_id = record.created, record.inference_id
    elif path.name == "run.json":
        created = RunInfo.read(path).created
    return {"name": system_folder(member), "created": created, "inference_id": inference_id}


def _record_kind(folder: Path) -> str:
    """Return the kind of a system's folder, which names its JSON file."""
    if (folder / "predictions.json").is_file():
        return "predictions"
    return "export" if is_export(folder) else "run"


def system_files(systems: Sequence[ComparedSystem], target: str, out: Path) -> list[Path]:
    """Return the files of the systems whose change makes their report `out` of date.

    `out` is the report folder, which holds the predictions of systems that were given as runs. The
    target names the file of a decision rule.
    """
    folders = [path for system in systems for path in system.paths]
    records = [path / f"{_record_kind(path)}.json" for path in folders]
    decided = [*folders, *(out / files.SYSTEMS).glob("*")]
    return [*records, *(path / "decisions" / f"{target}.json" for path in decided)]


def require_same_call(out: Path, call: dict[str, Any], inputs: Sequence[Path]) -> None:
    """Check that a finished report is that of a call, and that its inputs are older than it.

    `call` has the keys and values that a report records; `inputs` may be missing. Raises InputError
    if the folder holds the report of another call, or an input is newer than it.
    """
    answer = out / files.ANSWER
    report = AnswerInfo.read(answer)
    recorded = report.call or {}
    changes = [] if recorded else [", which records no call"]
    changes += [
        _difference(key, recorded[key], value)
        for key, value in call.items()
        if key in recorded and recorded[key] != value
    ]
    written = answer.stat().st_mtime_ns
    newer = [path for path in inputs if path.is_file() and path.stat().st_mtime_ns > written]
    changes += [f", and {path} has changed since" for path in newer]
    if changes:
        evaluated = " and ".join(report.systems)
        raise InputError(
            f"{out}: holds a finished report of {evaluated} on '{report.target}'"
            f"{changes[0]}; choose another --out, or add --overwrite"
        )


def _difference(key: str, before: Any, now: Any) -> str:
    """Return how one value of two calls differs, for a message."""
    if key == "data":
        return ", and these are other images, labels or roles"
    if key == "systems":
        changed = [name for name in now if before.get(name) != now[name]]
        if before.keys() != now.keys():
            return ", and these are other systems"
        return f", and {changed[0]} had other predictions"
    return f" with {key} {_text(before)}, not {_text(now)}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return "none" if value is None or value == "" else str(value)
