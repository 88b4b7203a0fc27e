"""Synthetic chest X-rays with known lesions, in the layout of the RSNA pneumonia challenge."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from cxr_compare.data_prep.contracts.disk_space import make_folder, require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.data_prep.contracts.output_folders import read_matching_record
from cxr_compare.data_prep.contracts.tables import write_csv
from cxr_compare.data_prep.formats.rsna import TEST_IMAGES, TRAIN_IMAGES
from cxr_compare.data_prep.synth.dicom_files import write_image
from cxr_compare.data_prep.synth.flaws import FLAWS_CSV, add_flaws
from cxr_compare.data_prep.synth.lesions import BOX_FRACTION, CONTRAST_TO_NOISE, Contrast
from cxr_compare.data_prep.synth.phantom_arguments import PhantomArguments
from cxr_compare.data_prep.synth.rendering import count_images, draw_image, draw_patient
from cxr_compare.data_prep.synth.rsna_tables import image_record, rsna_tables
from cxr_compare.data_prep.work.local_engine import LocalEngine

_JSON = "synth.json"
_KIND = "synth"
_STARTED = "synth.started.json"


@dataclass(frozen=True, repr=False)
class PhantomSummary(ShownAsText):
    """What a phantom folder holds."""

    folder: Path
    n_images: int
    n_patients: int
    n_positive: int
    n_boxes: int
    n_test_images: int
    n_flaws: int
    already_complete: bool

    def __str__(self) -> str:
        done_before = f"{self.folder}: already complete, nothing to do\n"
        flaws = f", {counted(self.n_flaws, 'planted flaw')}" if self.n_flaws else ""
        return (
            f"{done_before if self.already_complete else ''}"
            f"{counted(self.n_images, 'image')} of {counted(self.n_patients, 'patient')}, "
            f"{self.n_positive} with lesions ({counted(self.n_boxes, 'box')}), "
            f"{self.n_test_images} unlabelled{flaws}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def write_phantom(
    out: str | Path,
    *,
    n_images: int,
    seed: int = 0,
    size: int = 256,
    contrast: Contrast = "mixed",
    prevalence: float = 0.3,
    flaws: bool = False,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> PhantomSummary:
    """Write a synthetic chest X-ray set in RSNA layout.

    The same arguments give the same bytes (with the same versions of numpy, opencv and pydicom),
    whatever the number of workers. A run that was cut short goes on where it stopped; a complete
    folder is left as it is.
    """
    out = Path(out)
    arguments = PhantomArguments(n_images, seed, size, contrast, prevalence, flaws)
    advance = progress or (lambda n: None)
    counts = _counts_of_complete(out, arguments)
    if counts is not None:
        advance(counts["n_images"] + counts["n_test_images"])
        return PhantomSummary(folder=out, already_complete=True, **counts)
    # JPEG takes about a third of a byte per pixel; a fifth of the images is not compressed.
    require_free_space(out, int(n_images * size**2 * 0.6))
    with folder_lock(out):
        write_json(out / _STARTED, _KIND, {"arguments": asdict(arguments)})
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
    """The counts of a complete phantom; None for a folder to begin or to go on with."""
    # A dot file is a lock or a temporary file that a killed run left.
    if not out.exists() or (out.is_dir() and all(p.name[0] == "." for p in out.iterdir())):
        return None
    record = read_matching_record(
        out,
        {_JSON: _KIND, _STARTED: _KIND},
        asdict(arguments),
        stored_settings=lambda record: record["arguments"],
        refusal=lambda key, was, now: (
            f"holds a phantom with {key}={was!r}, asked for {now!r}; choose another folder or "
            "remove this one"
        ),
    )
    if record is None:
        raise InputError(f"{out}: not an empty folder and not a phantom; choose another folder")
    return record.get("counts")


def _finish(out: Path, arguments: PhantomArguments, chunks: list[_Chunk]) -> dict[str, int]:
    """Write tables, flaws, and last of all the JSON that marks the folder complete."""
    records = [record for chunk in chunks if chunk.labelled for record in chunk.records()]
    counts = {
        "n_images": arguments.n_images,
        "n_patients": len({record["nih_patient"] for record in records}),
        "n_positive": sum(bool(record["lesions"]) for record in records),
        "n_boxes": sum(len(record["lesions"]) for record in records),
        "n_test_images": count_test_images(arguments.n_images),
        "n_flaws": 0,
    }
    if arguments.flaws:
        tables, planted = add_flaws(out, records, arguments)
        write_csv(planted, out / FLAWS_CSV)
        counts["n_flaws"] = len(planted)
    else:
        tables = rsna_tables(records)
    for name, frame in tables.items():
        write_csv(frame, out / name)
    payload = {
        "arguments": asdict(arguments),
        "counts": counts,
        "box_rule": f"extent in which a lesion adds more than {BOX_FRACTION} of its own peak",
        "contrast_to_noise": CONTRAST_TO_NOISE[arguments.contrast],
    }
    write_json(out / _JSON, _KIND, payload)
    (out / _STARTED).unlink()
    shutil.rmtree(out / _PARTS_FOLDER)
    return counts


_PARTS_FOLDER = ".parts"
_PART = "synth_part"
_IMAGES_PER_CHUNK = 24
_FIRST_TEST_PATIENT = 1_000_000_000  # far from the labelled ones
_TEST_SHARE = 0.02


@dataclass(frozen=True)
class _Chunk:
    """A worker's job: some patients' images, and the part file that says they are written."""

    folder: Path  # where the images go
    part: Path  # the part file: the images' records as JSON
    patients: tuple[tuple[int, int], ...]  # pairs of patient index and number of images
    labelled: bool  # whether the images belong to the labelled set
    arguments: PhantomArguments

    @property
    def n_images(self) -> int:
        """Number of images in the chunk."""
        return sum(count for _, count in self.patients)

    def records(self) -> list[dict[str, Any]]:
        """The images' records, once the chunk is written."""
        return list(read_json(self.part, _PART)["images"])


def count_test_images(n_images: int) -> int:
    """How many unlabelled images come with `n_images` labelled ones."""
    return max(2, round(_TEST_SHARE * n_images))


def _plan_chunks(out: Path, arguments: PhantomArguments) -> list[_Chunk]:
    """Share the patients out, in a way that does not depend on the number of workers."""
    chunks = []
    n_images = arguments.n_images
    for labelled, first, wanted, name, folder in (
        (True, 0, n_images, "train", TRAIN_IMAGES),
        (False, _FIRST_TEST_PATIENT, count_test_images(n_images), "test", TEST_IMAGES),
    ):
        for number, patients in enumerate(_share(arguments.seed, first, wanted)):
            part = out / _PARTS_FOLDER / f"{name}-{number:05d}.json"
            chunks.append(_Chunk(out / folder, part, patients, labelled, arguments))
    return chunks


def _share(seed: int, first: int, wanted: int) -> Iterator[tuple[tuple[int, int], ...]]:
    patients: list[tuple[int, int]] = []
    index = first
    left = wanted
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
    """Draw and write a chunk's images, then its part file; a pure function of the chunk."""
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
    write_json(chunk.part, _PART, {"images": records})
    return len(records)


@contextmanager
def _one_cv2_thread() -> Iterator[None]:
    # The images are small: cv2's threads cost more than they bring, most so beside other workers.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _crashed(chunk: _Chunk) -> int:
    raise InputError(
        f"{chunk.folder}: a worker was ended from outside (out of memory?); run the same command "
        "again with fewer --workers"
    )
