"""Answers of several runs for the same images, decoded or in files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeAlias

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.loose_images import LooseImage
from cxr_compare.serving.answer import ARRAY, Answer
from cxr_compare.serving.guard import Warned, file_warnings


class Answering(Protocol):
    """Interface of a system that predicts decoded images, as `serving.run.Run` does."""

    name: str

    @property
    def batch_size(self) -> int:
        """Number of images that the network predicts at a time."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences on what limits all predictions of the system."""

    def answer(
        self,
        images: Sequence[tuple[str, DecodedImage]],
        of_files: Sequence[tuple[Warned, ...]] | None = None,
    ) -> list[Answer | InputError]:
        """Return one prediction for each image, or the error with which the network failed on it.

        `images` are the path (or ``array`` for pixels without a file) and the decoded image of
        each. `of_files` are warnings about each image's file; None makes them from the path.
        """


class AnsweredFile(NamedTuple):
    """An image file with the predictions of all systems, or the `problem` why there are none.

    `seconds` is the time that the predictions took; None for a file that was not predicted.
    """

    file: LooseImage
    answers: list[Answer] | None
    problem: str | None = None
    seconds: float | None = None

    @classmethod
    def from_outcome(
        cls, file: LooseImage, outcome: list[Answer] | InputError, seconds: float
    ) -> AnsweredFile:
        """Join a file that could be read with its entry of `answers_by_image`."""
        if isinstance(outcome, InputError):
            return cls(file, None, str(outcome), seconds)
        return cls(file, outcome, None, seconds)


OnAnswer: TypeAlias = Callable[[AnsweredFile], str | None]
"""Function that is called with each answered file, such as one that logs it. It may return a reason
for which the answers are refused after all."""


def warnings_of_files(images: Sequence[tuple[str, DecodedImage]]) -> list[tuple[Warned, ...]]:
    """Return the warnings about each image file (header, colour, size), which hold for any system.

    `images` are the path (or `ARRAY` for pixels without a file) and the decoded image of each.
    """
    return [file_warnings(None if name == ARRAY else name, image) for name, image in images]


def answers_by_image(
    runs: Sequence[Answering],
    images: Sequence[tuple[str, DecodedImage]],
    of_files: Sequence[tuple[Warned, ...]] | None = None,
    on_run: Callable[[int, float], object] = lambda run, seconds: None,
) -> list[list[Answer] | InputError]:
    """Predict decoded images with several systems; a failed image has the first error of a network.

    `images` and `of_files` are those of `Answering.answer`. `on_run` is called after each system
    with its position in `runs` and the seconds that it took for all images.
    """
    outcomes: list[list[Answer] | InputError] = []
    of_files = warnings_of_files(images) if of_files is None else of_files  # once for all runs
    of_runs = []
    for position, run in enumerate(runs):
        start = time.monotonic()
        of_runs.append(run.answer(images, of_files))
        on_run(position, time.monotonic() - start)
    for of_image in zip(*of_runs, strict=True):
        failed = [answer for answer in of_image if isinstance(answer, InputError)]
        answers = [answer for answer in of_image if not isinstance(answer, InputError)]
        outcomes.append(failed[0] if failed else answers)
    return outcomes


def answered_files(
    runs: Sequence[Answering],
    files: Iterable[LooseImage],
    batch_size: int,
    on_run: Callable[[int, float], object] = lambda run, seconds: None,
) -> Iterator[AnsweredFile]:
    """Yield image files in their order, predicted in batches with several systems.

    The first batch has one file, so that its result appears without waiting until others are read.
    `on_run` is called after each system with its position in `runs` and the seconds that it took
    for the batch.
    """
    rest = iter(files)
    count = 1
    while batch := list(islice(rest, count)):
        count = batch_size
        images = [(str(file.path), file.image) for file in batch if file.image is not None]
        start = time.monotonic()
        outcomes = iter(answers_by_image(runs, images, on_run=on_run) if images else [])
        seconds = (time.monotonic() - start) / max(1, len(images))
        for file in batch:
            if file.image is None:
                yield AnsweredFile(file, None, str(file.problem))
            else:
                yield AnsweredFile.from_outcome(file, next(outcomes), seconds)
