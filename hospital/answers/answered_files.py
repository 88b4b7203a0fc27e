"""Answers of several runs for image files, one file after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cxr_compare import Answer, InputError, Run
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.images.loose_images import LooseImage, read_loose_images
from cxr_compare.scripts import console
from cxr_compare.serving.joint_answers import answered_batches

_WORTH_WORKERS = 16  # files from which worker processes pay


class AnsweredFile(NamedTuple):
    """An image file with the answers of all runs.

    Attributes:
        file: The file with its decoded image, or the reason why it could not be read.
        answers: One answer of each run, the error with which a network failed, or None for a file
            that could not be read.
        seconds: Time that the answers took; None for a file that could not be read.
    """

    file: LooseImage
    answers: list[Answer] | InputError | None
    seconds: float | None

    @property
    def problem(self) -> str | None:
        """Reason why there is no answer; None if there is one."""
        if self.answers is None:
            return str(self.file.problem)
        return str(self.answers) if isinstance(self.answers, InputError) else None


def answered_files(runs: Sequence[Run], files: Sequence[Path]) -> Iterator[AnsweredFile]:
    """Predict image files with all runs, and show the progress."""
    workers = min(cpu_count(), len(files)) if len(files) >= _WORTH_WORKERS else 0
    batch_size = min(run.model.batch_size for run in runs)
    with console.track("Predicting images", len(files)) as advance:
        read = read_loose_images(files, workers=workers)
        for batch in answered_batches(runs, read, batch_size):
            of_image = iter(batch.answered)
            for file in batch.files:
                answers = None if file.image is None else next(of_image)
                yield AnsweredFile(file, answers, None if answers is None else batch.seconds)
            advance(len(batch.files))
