"""Answers of several runs for the same images, decoded or in files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.loose_images import LooseImage
from cxr_compare.serving.answer import ARRAY, Answer
from cxr_compare.serving.guard import Warned, file_warnings


class Answering(Protocol):
    """Interface of a system that predicts decoded images, as `serving.run.Run` does."""

    def answer(
        self,
        images: Sequence[tuple[str, DecodedImage]],
        of_files: Sequence[tuple[Warned, ...]] | None = None,
    ) -> list[Answer | InputError]:
        """Return one prediction for each image, or the error with which the network failed on it.

        Args:
            images: Path (or ``array`` for pixels without a file) and decoded image of each.
            of_files: Warnings about each image's file; None makes them from the path.

        Returns:
            One entry for each image, in their order.
        """


class AnsweredBatch(NamedTuple):
    """Image files of one batch with the predictions of all systems.

    Attributes:
        files: Files in their order, including those that could not be read.
        answered: For each file that could be read, a list with one prediction of each system, or
            the error with which a network failed.
        seconds: Time that the predictions took for each image, in seconds.
    """

    files: list[LooseImage]
    answered: list[list[Answer] | InputError]
    seconds: float


def warnings_of_files(images: Sequence[tuple[str, DecodedImage]]) -> list[tuple[Warned, ...]]:
    """Return the warnings about image files (header, colour, size), which hold for any system.

    A system is a trained detector or classifier.

    Args:
        images: Path (or `ARRAY` for pixels without a file) and decoded image of each.

    Returns:
        One tuple of warnings for each image; empty if there is none.
    """
    return [file_warnings(None if name == ARRAY else name, image) for name, image in images]


def answers_by_image(
    runs: Sequence[Answering],
    images: Sequence[tuple[str, DecodedImage]],
    of_files: Sequence[tuple[Warned, ...]] | None = None,
    on_run: Callable[[int, float], object] = lambda run, seconds: None,
) -> list[list[Answer] | InputError]:
    """Predict decoded images with several systems.

    Args:
        runs: Systems (trained detectors or classifiers) that predict.
        images: Path (or `ARRAY` for pixels without a file) and decoded image of each.
        of_files: Warnings of `file_warnings` for each image; None makes them here.
        on_run: Function that is called after each system with its position in `runs` and the
            seconds that it took for all images.

    Returns:
        For each image a list with one prediction of each system, or the first error of a network.
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


def answered_batches(
    runs: Sequence[Answering],
    files: Iterable[LooseImage],
    size: int,
    on_run: Callable[[int, float], object] = lambda run, seconds: None,
) -> Iterator[AnsweredBatch]:
    """Predict image files in batches with several systems.

    Args:
        runs: Systems (trained detectors or classifiers) that predict.
        files: Files that were read, or could not be read.
        size: Number of files in a batch. The first batch has one file, so that its result appears
            without waiting until others are read.
        on_run: Function that is called after each system with its position in `runs` and the
            seconds that it took for the batch.

    Yields:
        The batches in the order of the files.
    """
    rest = iter(files)
    count = 1
    while batch := list(islice(rest, count)):
        count = size
        images = [(str(file.path), file.image) for file in batch if file.image is not None]
        start = time.monotonic()
        answered = answers_by_image(runs, images, on_run=on_run) if images else []
        yield AnsweredBatch(batch, answered, (time.monotonic() - start) / max(1, len(images)))
