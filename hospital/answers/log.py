"""`cxr log`: predict image files, and record the answers for `cxr monitor`."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Annotated

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.images.loose_images import find_image_files
from cxr_compare.hospital.answers.answer_log import AnswerLog
from cxr_compare.hospital.answers.logged_answers import log_answers
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    Backend,
    Device,
    Outcome,
    Policy,
    Precision,
    RunsAndImages,
    as_path,
    command,
    open_runs,
    read_paths,
    require_backends,
    sort_paths,
)
from cxr_compare.serving.answer_files import answer_files


@command
def log(
    *paths: RunsAndImages,
    log: Annotated[AnyPath, Argument(metavar="FOLDER")],
    policy: Policy = None,
    backend: Backend = None,
    precision: Precision = None,
    device: Device = "auto",
) -> Outcome:
    """Predict image files, and record the answers for cxr monitor.

    The answers are those of cxr predict. The log holds one row for each image and system, with
    hashes in place of the ids of patients and images, and no names (docs/guarantees.md#the-log).
    Files that cannot be predicted are recorded as failed. Exit status 1 means that
    there are such files, and 2 that no file could be predicted.

    Args:
        paths: Runs (folders of cxr train) or exports (of cxr export), each as PATH or NAME=PATH,
            followed by images (DICOM, PNG, JPEG, TIFF, ...) or folders of images.
        log: Folder of the log. Rows are appended to an existing one.

    Returns:
        Numbers of images that were answered, and that failed.

    Raises:
        InputError: A path is wrong, the log cannot be written, or no image could be predicted.

    Example:
        cxr log out/chexnet images --log out/log

        cxr log out/chexnet images --log out/log --backend openvino
    """
    folder = as_path(log)
    runs, sources = sort_paths(read_paths(paths))
    options = {"policy": policy, "backend": backend, "precision": precision, "device": device}
    require_backends(runs, options)
    files = find_image_files(sources)
    with closing(AnswerLog(folder, console.say)) as answer_log:
        loaded = open_runs(runs, options)
        on_answer = partial(log_answers, answer_log, loaded)
        answers = answer_files(loaded, ([], files), console, on_answer=on_answer)
    n_failed = len(answers.left_out)
    n_answered = len(files) - n_failed
    text = f"{counted(n_answered, 'image')} answered, {n_failed} failed: {folder}"
    counts = {"answered": n_answered, "failed": n_failed}
    return Outcome(text, counts, exit_status=answers.exit_status)
