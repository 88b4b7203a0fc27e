"""Answers that are written into the log which `cxr monitor` reads, and its option `--log`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

from cxr_compare import Run
from cxr_compare.hospital.answers.answer_log import AnswerLog
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import AnyPath, Argument
from cxr_compare.serving.joint_answers import AnsweredFile

Log = Annotated[
    AnyPath | None,
    Argument(
        metavar="FOLDER",
        help="Folder in which each answer is recorded for cxr monitor "
        "(docs/guarantees.md#the-log). It holds no names.",
    ),
]


def opened_log(folder: Path | None) -> AbstractContextManager[AnswerLog | None]:
    """Open the log of answers that the option --log names, for a ``with`` block; None without."""
    return nullcontext() if folder is None else closing(AnswerLog(folder, console.say))


def log_answers(log: AnswerLog | None, runs: Sequence[Run], answered: AnsweredFile) -> None:
    """Write the answers of systems for one file into a log; without a log nothing happens.

    With the log and the runs, which were to predict the image, given, it is an ``on_answer`` of
    `serving.answer_files.answer_files`.
    """
    if log is None:
        return
    rows = [_row(run) for run in runs]
    for row, answer in zip(rows, answered.answers or (), strict=answered.answers is not None):
        row |= {key: getattr(answer, key) for key in ("score", "decision", "guard_distance")}
        row["status"] = "ok" if answer.status == "ok" else "refused"
    log.add_file(str(answered.file.path), answered.file.image, rows, answered.seconds)


def _row(run: Run) -> dict[str, Any]:
    """Return the row of the log for an image that a run could not predict."""
    return {
        "system": run.name,
        "target": run.target.name,
        "policy": run.policy,
        "threshold": run.threshold,
        "status": "failed",
        "decision": None,
    }
