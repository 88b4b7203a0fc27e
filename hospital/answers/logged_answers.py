"""Answers that are written into the log which `cxr monitor` reads, and its option `--log`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

from cxr_compare import Answer, InputError, Run
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.hospital.answers.answer_log import AnswerLog
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import AnyPath, Argument

Log = Annotated[
    AnyPath | None,
    Argument(
        metavar="FOLDER",
        help="Folder in which each answer is recorded for cxr monitor "
        "(docs/guarantees.md#the-log). It holds no names.",
    ),
]


def opened_log(folder: Path | None) -> AbstractContextManager[AnswerLog | None]:
    """Open the log of answers that the option --log names, for a ``with`` block.

    Returns:
        Context manager that gives the open log, or None if `folder` is None.

    Raises:
        InputError: The log cannot be written.
    """
    return nullcontext() if folder is None else closing(AnswerLog(folder, console.say))


def log_answers(
    log: AnswerLog | None,
    runs: Sequence[Run],
    file: str,
    image: DecodedImage | None,
    answers: Sequence[Answer] | InputError | None,
    seconds: float | None,
) -> None:
    """Write the answers of systems for one file into a log; without a log nothing happens.

    Args:
        log: Open log, or None.
        runs: Systems that were to predict the image.
        file: Path of the file.
        image: The decoded image; None if it could not be read.
        answers: One answer of each system in `runs`, or the error with which a network failed. None
            for a file that was not predicted.
        seconds: Time that the answers took; None if unknown.
    """
    if log is None:
        return
    rows = [_row(run) for run in runs]
    if answers is not None and not isinstance(answers, InputError):
        for row, answer in zip(rows, answers, strict=True):
            row |= {key: getattr(answer, key) for key in ("score", "decision", "guard_distance")}
            row["status"] = "ok" if answer.status == "ok" else "refused"
    log.add_file(file, image, rows, seconds)


def _row(run: Run) -> dict[str, Any]:
    """Return the row of the log for an image that a run could not predict."""
    chosen = None if run.decision is None else run.decision.thresholds[run.policy].threshold
    return {
        "system": run.name,
        "target": run.target.name,
        "policy": run.policy,
        "threshold": chosen,
        "status": "failed",
        "decision": None,
    }
