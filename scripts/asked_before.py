"""Whether a report folder already holds the answer to the question that is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.contracts.errors import InputError
from data_prep.work.object_store import recorded_path
from evaluation.report.files import METRICS, SYSTEMS
from scripts.systems import System, predicts, system_folder
from serving.backends import is_export

if TYPE_CHECKING:
    from evaluation.decisions.test_set import TestSet


def question_of(
    systems: Sequence[System], test_set: TestSet, out: Path, **options: Any
) -> dict[str, Any]:
    """A comparison's question as a report keeps it: systems with their decisions, data, options.

    Args:
        systems: Name and folders of each.
        test_set: What is judged.
        out: Report folder; it holds the predictions of systems that were given as runs.
        **options: All else that changes the report.
    """
    target, ids = test_set.target.name, test_set.ids
    return {
        "systems": {
            label: [_digest(files) for files in members]
            for label, members in _files_of(systems, target, out).items()
        },
        "target": target,
        "data_set": ids["content_id"],
        "labels": ids["labels_id"],
        "split": ids["split_id"],
        "options": {**options},
    }


def _files_of(systems: Sequence[System], target: str, out: Path) -> dict[str, list[list[Path]]]:
    """By system the files of each of its seeds that tell one training, or one tuning, apart."""
    found: dict[str, list[list[Path]]] = {}
    for name, paths in systems:
        members = []
        for number, path in enumerate(paths, 1):
            marker, predicted = path / "predictions.json", path
            if predicts(path) and not marker.is_file():
                seed = f"{name}-{number}" if paths[1:] else name or system_folder(path)
                marker = path / ("export.json" if is_export(path) else "run.json")
                predicted = out / SYSTEMS / seed
            members.append([marker, predicted / "decisions" / f"{target}.json"])
        found[name or recorded_path(paths[0])] = members
    return found


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.is_file() else b"none")
    return digest.hexdigest()[:16]


def asked_before(out: Path, question: dict[str, Any]) -> bool:
    """Whether a folder holds a finished report on this very question.

    Args:
        out: Report folder; it need not exist.
        question: From `question_of`.

    Returns:
        True where there is nothing to do; False where there is no finished report.

    Raises:
        InputError: It holds a finished report on another question; the message says what differs.
    """
    from data_prep.contracts.folders import read_json

    if not (out / METRICS).is_file():
        return False
    held = read_json(out / METRICS, "metrics")
    before = held.get("question")
    if before == question:
        return True
    judged = " and ".join(map(str, held.get("systems", [])))
    raise InputError(
        f"{out}: holds a finished report of {judged} on '{held.get('target')}'"
        f"{_difference(before, question)}; choose another --out, or add --overwrite"
    )


def _difference(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """What tells two questions apart, in words."""
    if before is None:
        return " that does not say how it was asked for"
    if before["systems"].keys() != now["systems"].keys():
        return ", and these are other systems"
    for label, digests in now["systems"].items():
        if before["systems"][label] != digests:
            return f", and {Path(label).name} has been trained, predicted or tuned since"
    for key, words in (
        ("target", "another target is asked for"),
        ("data_set", "these are other images"),
        ("labels", "the labels have changed since"),
        ("split", "this is another split"),
    ):
        if before[key] != now[key]:
            return f", and {words}"
    for key, value in now["options"].items():
        was = before["options"].get(key)
        if was != value:
            return f" with {key} {was}, not {value}"
    return ""
