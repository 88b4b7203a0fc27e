"""Synthetic chest X-rays with known lesions, in the layout of the RSNA pneumonia challenge."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder, require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.data_prep.contracts.output_folders import read_matching_record
from cxr_compare.data_prep.contracts.records import Record
from cxr_compare.data_prep.sources.rsna import TEST_IMAGES, TRAIN_IMAGES, DrawnWith, PhantomInfo
from cxr_compare.data_prep.synth.dicom_files import write_image
from cxr_compare.data_prep.synth.lesions import BOX_FRACTION, CONTRAST_TO_NOISE, Contrast
from cxr_compare.data_prep.synth.phantom_arguments import PhantomArguments
from cxr_compare.data_prep.synth.rendering import count_images, draw_image, draw_patient
from cxr_compare.data_prep.synth.rsna_tables import image_record, rsna_tables
from cxr_compare.data_prep.work.local_engine import LocalEngine

_JSON = "synth.json"
_STARTED = "synth.started.json"


@dataclass(frozen=True, repr=False)
class PhantomSummary(ShownAsText):
    """Counts of a folder of synthetic chest X-rays that ``cxr synth`` wrote.

    Attributes:
        folder: Folder that was written.
        n_images: Number of labelled images.
        n_patients: Number of patients.
        n_positive: Number of images with a lesion.
        n_boxes: Number of lesion boxes.
        n_test_images: Number of unlabelled images, those of test patients.
        already_complete: True if an earlier call had written the folder.
    """

    folder: Path
    n_images: int
    n_patients: int
    n_positive: int
    n_boxes: int
    n_test_images: int
    already_complete: bool

    def __str__(self) -> str:
        done_before = f"{self.folder}: already complete, nothing to do\n"
        return (
            f"{done_before if self.already_complete else ''}"
            f"{counted(self.n_images, 'image')} of {counted(self.n_patients, 'patient')}, "
            f"{self.n_positive} with lesions ({counted(self.n_boxes, 'box')}), "
            f"{self.n_test_images} unlabelled"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as values for JSON."""
        return asdict(self)


def write_phantom(
    out: str | Path,
    *,
    n_images: int,
    seed: int = 0,
    size: int = 256,
    contrast: Contrast = "mixed",
    prevalence: float = 0.3,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> PhantomSummary:
    """Write a set of synthetic chest X-rays in the layout of the RSNA challenge.

    The same arguments give the same bytes with the same versions of numpy, opencv and pydicom, for
    any number of workers. A repeated call continues an interrupted one. A complete folder is not
    changed.

    Args:
        out: Folder to write.
        n_images: Number of labelled images.
        seed: Random seed.
        size: Side of the square images, px.
        contrast: Contrast of the lesions: ``mixed`` (faint to dense) or ``high``.
        prevalence: Expected share of positive images, in (0, 1).
        workers: Number of worker processes.
        progress: Function that is called with the number of images finished since its last call;
            None shows nothing.

    Returns:
        Counts of the images, patients and lesions.

    Raises:
        InputError: An argument is outside its range, or the folder holds something else.
    """
    out = Path(out)
    arguments = PhantomArguments(n_images, seed, size, contrast, prevalence)
    advance = progress or (lambda n: None)
    counts = _counts_of_complete(out, arguments)
    if counts is not None:
        advance(counts["n_images"] + counts["n_test_images"])
        return PhantomSummary(folder=out, already_complete=True, **counts)
    # JPEG takes about a third of a byte per pixel; a fifth of the images is not compressed.
    require_free_space(out, int(n_images * size**2 * 0.6))
    with folder_lock(out):
        PhantomInfo(arguments=DrawnWith(**asdict(arguments))).write(out / _STARTED)
        for name in (TRAIN_IMAGES, TEST_IMAGES, _PARTS_FOLDER):
            make_folder(out / name)
        chunks = _plan_chunks(out, arguments)
        missing = [chunk for chunk in chunks if not chunk.part.exists()]
        advance(sum(chunk.n_images for chunk in chunks) - sum(c.n_images for c in missing))
        engine = LocalEngine(min(workers, len(missing)))
        for n_written in engine.map_rows(_write_chunk, missing, on_crash=_crashed):
            advance(n_written)
        counts = _finish(out, arguments, chunks)
    return PhantomSummary(folder=out, already_complete=False, **counts)


def _counts_of_complete(out: Path, arguments: PhantomArguments) -> dict[str, int] | None:
    """Return the counts of a complete phantom, or None for a new or incomplete folder."""
    # A hidden file is a lock or a temporary file of an interrupted run.
    if not out.exists() or (out.is_dir() and all(p.name[0] == "." for p in out.iterdir())):
        return None
    record = read_matching_record(
        out,
        {_JSON: PhantomInfo, _STARTED: PhantomInfo},
        asdict(arguments),
        stored_settings=lambda record: record.arguments.to_json(),
        refusal=lambda key, was, now: (
            f"holds a phantom with {key}={was!r}, asked for {now!r}; choose another folder or "
            "remove this one"
        ),
    )
    if record is None:
        raise InputError(f"{out}: not an empty folder and not a phantom; choose another folder")
    return record.counts or None


def _finish(out: Path, arguments: PhantomArguments, chunks: list[_Chunk]) -> dict[str, int]:
    """Write the tables and, last, the JSON that marks the folder complete."""
    records = [record for chunk in chunks if chunk.labelled for record in chunk.records()]
    counts = {
        "n_images": arguments.n_images,
        "n_patients": len({record["nih_patient"] for record in records}),
        "n_positive": sum(bool(record["lesions"]) for record in records),
        "n_boxes": sum(len(record["lesions"]) for record in records),
        "n_test_images": count_test_images(arguments.n_images),
    }
    for name, frame in rsna_tables(records).items():
        write_csv(frame, out / name)
    record = PhantomInfo(
        arguments=DrawnWith(**asdict(arguments)),
        counts=counts,
        box_rule=f"extent in which a lesion adds more than {BOX_FRACTION} of its own peak",
        contrast_to_noise={
            str(kind): ends for kind, ends in CONTRAST_TO_NOISE[arguments.contrast].items()
        },
    )
    record.write(out / _JSON)
    (out / _STARTED).unlink()
    shutil.rmtree(out / _PARTS_FOLDER)
    return counts


_PARTS_FOLDER = ".parts"
_IMAGES_PER_CHUNK = 24
_FIRST_TEST_PATIENT = 1_000_000_000  # far from the numbers of labelled patients
_TEST_SHARE = 0.02


class _Part(Record, kind="synth_part"):
    """Part file of a chunk: the records of its images."""

    images: list[dict[str, Any]]


@dataclass(frozen=True)
class _Chunk:
    """Images of some patients that one worker writes, with a part file that marks them complete."""

    folder: Path  # folder of the images
    part: Path  # the part file: the images' records as JSON
    patients: tuple[tuple[int, int], ...]  # pairs of patient index and number of images
    labelled: bool  # True if the images belong to the labelled set
    arguments: PhantomArguments

    @property
    def n_images(self) -> int:
        """Number of images in the chunk."""
        return sum(count for _, count in self.patients)

    def records(self) -> list[dict[str, Any]]:
        """Read the records of the images, once the chunk is written."""
        return _Part.read(self.part).images


def count_test_images(n_images: int) -> int:
    """Return the number of unlabelled test images for a number of labelled ones.

    Args:
        n_images: Number of labelled images.

    Returns:
        A fiftieth of the labelled images, but at least 2.

    Example:
        >>> count_test_images(1000)
        20
    """
    return max(2, round(_TEST_SHARE * n_images))


def _plan_chunks(out: Path, arguments: PhantomArguments) -> list[_Chunk]:
    """Divide the patients into chunks, independently of the number of workers."""
    chunks = []
    n_images = arguments.n_images
    for labelled, first, count, name, folder in (
        (True, 0, n_images, "train", TRAIN_IMAGES),
        (False, _FIRST_TEST_PATIENT, count_test_images(n_images), "test", TEST_IMAGES),
    ):
        for number, patients in enumerate(_share(arguments.seed, first, count)):
            part = out / _PARTS_FOLDER / f"{name}-{number:05d}.json"
            chunks.append(_Chunk(out / folder, part, patients, labelled, arguments))
    return chunks


def _share(seed: int, first: int, n_images: int) -> Iterator[tuple[tuple[int, int], ...]]:
    patients: list[tuple[int, int]] = []
    index = first
    left = n_images
    gathered = 0
    while left:
        count = min(left, count_images(seed, index))
        patients.append((index, count))
        index = index + 1
        left = left - count
        gathered = gathered + count
        if gathered >= _IMAGES_PER_CHUNK or not left:
            yield tuple(patients)
            patients = []
            gathered = 0


def _write_chunk(chunk: _Chunk) -> int:
    """Draw and write the images of a chunk, then its part file; return the number of images."""
    records = []
    arguments = chunk.arguments
    with _one_cv2_thread():
        for index, count in chunk.patients:
            patient = draw_patient(arguments.seed, index, arguments.prevalence)
            for number in range(count):
                image = draw_image(patient, number, arguments.size, arguments.contrast)
                record = image_record(arguments.seed, patient, number, image)
                write_image(chunk.folder / f"{record['patientId']}.dcm", patient, image)
                records.append(record)
    _Part(images=records).write(chunk.part)
    return len(records)


@contextmanager
def _one_cv2_thread() -> Iterator[None]:
    # The images are small, so the threads of cv2 cost more than they save.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _crashed(chunk: _Chunk) -> int:
    raise InputError(
        f"{chunk.folder}: a worker was ended from outside (out of memory?); run the same command "
        "again with more free memory"
    )
