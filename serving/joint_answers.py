"""Answers of several runs for the same images, decoded or in files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.store.loose_images import LooseImage
from cxr_compare.serving.answer import ARRAY, Answer
from cxr_compare.serving.guard import Warned, file_warnings


class Answering(Protocol):
    """Interface of a system that answers for decoded images, as `Run` does."""

    def answer(
        self,
        images: Sequence[tuple[str, DecodedImage]],
        of_files: Sequence[tuple[Warned, ...]] | None = None,
    ) -> list[Answer | InputError]:
        """Return one answer for each image, or the error of the network."""


class AnsweredBatch(NamedTuple):
    """Files with the answers for those that could be read.

    Attributes:
        files: Files in their order.
        answered: For each file that could be read, one answer of each run, or an error.
        seconds: Time that one image took, in seconds.
    """

    files: list[LooseImage]
    answered: list[list[Answer] | InputError]
    seconds: float


def warnings_of_files(images: Sequence[tuple[str, DecodedImage]]) -> list[tuple[Warned, ...]]:
    """Return the warnings about the files of images, which hold for any run.

    Args:
        images: Path, or `ARRAY` for pixels without a file, and decoded image of each.
    """
    return [file_warnings(None if name == ARRAY else name, image) for name, image in images]


def answers_by_image(
    runs: Sequence[Answering],
    images: Sequence[tuple[str, DecodedImage]],
    of_files: Sequence[tuple[Warned, ...]] | None = None,
    on_run: Callable[[int, float], object] = lambda run, seconds: None,
) -> list[list[Answer] | InputError]:
    """Return the answers of all runs for each image.

    Args:
        runs: Runs that answer.
        images: Name and decoded image of each image.
        of_files: Warnings of `file_warnings` for each image; None makes them now.
        on_run: Function that is called with the position of each run in `runs` and the seconds that
            it took for these images.

    Returns:
        For each image a list with one answer of each run, or the first error.
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
    """Answer for image files in batches.

    Args:
        runs: Runs that answer.
        files: Files that were read, or could not be read.
        size: Number of files in a batch. The first batch has one file, because its answer need not
            wait until others are read.
        on_run: Function that is called with the position of each run and the seconds that it took.

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
