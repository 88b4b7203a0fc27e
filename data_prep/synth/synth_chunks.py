"""The phantom's work, cut into chunks of patients that any number of processes may share."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path
from data_prep.contracts.workers import map_rows
from data_prep.synth.files import TEST_FOLDER, TRAIN_FOLDER, film_record, write_film
from data_prep.synth.film import count_images, draw_film, draw_patient
from data_prep.synth.lesions import Contrast

PARTS_FOLDER = ".parts"
_FILMS_PER_CHUNK = 24
_FIRST_TEST_PATIENT = 1_000_000_000  # far from the labelled ones
_TEST_SHARE = 0.02


@dataclass(frozen=True)
class Chunk:
    """A worker's job: some patients' films, and the part file that says they are written.

    Attributes:
        folder: Where the films go.
        part: The part file: the films' records as JSON.
        patients: Pairs of patient index and number of films.
        labelled: Whether the films belong to the labelled set.
        seed: The set's seed.
        size: Side of a film in px.
        contrast: Of the lesions.
        prevalence: Expected share of films with lesions.
    """

    folder: Path
    part: Path
    patients: tuple[tuple[int, int], ...]
    labelled: bool
    seed: int
    size: int
    contrast: Contrast
    prevalence: float

    @property
    def n_films(self) -> int:
        """Number of films in the chunk."""
        return sum(count for _, count in self.patients)

    def records(self) -> list[dict[str, Any]]:
        """The films' records, once the chunk is written."""
        return json.loads(self.part.read_text(encoding="utf-8"))


def count_test_images(n_images: int) -> int:
    """How many unlabelled films come with `n_images` labelled ones.

    Example:
        >>> count_test_images(10), count_test_images(1000)
        (2, 20)
    """
    return max(2, round(_TEST_SHARE * n_images))


def plan_chunks(
    out: Path, *, n_images: int, seed: int, size: int, contrast: Contrast, prevalence: float
) -> list[Chunk]:
    """Share the patients out, in a way that does not depend on the number of workers.

    Args:
        out: The phantom's folder.
        n_images: Number of labelled films.
        seed: The set's seed.
        size: Side of a film in px.
        contrast: Of the lesions.
        prevalence: Expected share of films with lesions.

    Returns:
        The chunks: labelled films first, then the unlabelled ones.
    """
    chunks = []
    for labelled, first, wanted, name, folder in (
        (True, 0, n_images, "train", TRAIN_FOLDER),
        (False, _FIRST_TEST_PATIENT, count_test_images(n_images), "test", TEST_FOLDER),
    ):
        for number, patients in enumerate(_share(seed, first, wanted)):
            part = out / PARTS_FOLDER / f"{name}-{number:05d}.json"
            chunks.append(
                Chunk(out / folder, part, patients, labelled, seed, size, contrast, prevalence)
            )
    return chunks


def _share(seed: int, first: int, wanted: int) -> Iterator[tuple[tuple[int, int], ...]]:
    patients: list[tuple[int, int]] = []
    index, left, gathered = first, wanted, 0
    while left:
        count = min(left, count_images(seed, index))
        patients.append((index, count))
        index, left, gathered = index + 1, left - count, gathered + count
        if gathered >= _FILMS_PER_CHUNK or not left:
            yield tuple(patients)
            patients, gathered = [], 0


def write_chunk(chunk: Chunk) -> int:
    """Draw and write a chunk's films, then its part file; a pure function of the chunk.

    Returns:
        How many films it wrote.
    """
    records = []
    with _one_cv2_thread():
        for index, count in chunk.patients:
            patient = draw_patient(chunk.seed, index, chunk.prevalence)
            for number in range(count):
                film = draw_film(patient, number, chunk.size, chunk.contrast)
                record = film_record(chunk.seed, patient, number, film)
                write_film(chunk.folder / f"{record['patientId']}.dcm", patient, film)
                records.append(record)
    with atomic_path(chunk.part) as temporary:
        temporary.write_text(json.dumps(records), encoding="utf-8")
    return len(records)


@contextmanager
def _one_cv2_thread() -> Iterator[None]:
    # The pictures are small: cv2's threads cost more than they bring, most so beside other workers.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def write_chunks(chunks: list[Chunk], workers: int) -> Iterator[int]:
    """Write chunks with `workers` processes; 1 works in this one.

    Yields:
        The number of films just done, in the order in which chunks end.
    """
    yield from map_rows(write_chunk, chunks, workers=min(workers, len(chunks)), lost=_lost)


def _lost(chunk: Chunk) -> int:
    raise InputError(
        f"{chunk.folder}: a worker was ended from outside (out of memory?); run the same command "
        "again with fewer --workers"
    )
