"""Synthetic chest X-rays with known lesions, in the layout of the RSNA pneumonia challenge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, ShownAsText, as_typed, counted
from cxr_compare.data_prep.base.files import (
    LOCK_NAME,
    file_digest,
    flush,
    folder_lock,
    make_folder,
    require_free_space,
)
from cxr_compare.data_prep.base.folders import folder_state
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.data_prep.parallel import map_images
from cxr_compare.data_prep.sources.rsna import PHANTOM, PhantomArguments, PhantomInfo
from cxr_compare.data_prep.synth.rendering import count_images, draw_image, draw_patient
from cxr_compare.data_prep.synth.rsna_files import (
    TEST_IMAGES,
    TRAIN_IMAGES,
    image_rows,
    rsna_tables,
    write_image,
)

_STARTED = "synth.started.json"
_FIRST_TEST_PATIENT = 1_000_000_000  # far from the numbers of labelled patients


@dataclass(frozen=True, repr=False)
class PhantomSummary(ShownAsText):
    """Counts of a folder of synthetic chest X-rays that ``cxr synth`` wrote.

    Attributes:
        n_images: Number of labelled images.
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
    seed: int,
    size: int,
    prevalence: float,
    workers: int,
    progress: Callable[[int], None],
) -> PhantomSummary:
    """Write a set of synthetic chest X-rays in the layout of the RSNA challenge.

    The same arguments (see `PhantomArguments`) give the same bytes with the same versions of numpy,
    opencv and pydicom, for any number of worker processes. A repeated call completes an interrupted
    one. A complete folder is not changed; one that holds something else is refused. `progress` is
    called with the number of images finished since its last call.
    """
    out = Path(out)
    arguments = PhantomArguments(n_images=n_images, seed=seed, size=size, prevalence=prevalence)
    _require_in_range(arguments)
    counts = _counts_of_complete(out, arguments)
    if counts is not None:
        progress(counts["n_images"] + counts["n_test_images"])
        return PhantomSummary(folder=out, already_complete=True, **counts)
    # JPEG takes about a third of a byte per pixel; a fifth of the images is not compressed.
    require_free_space(out, int(n_images * size**2 * 0.6))
    with folder_lock(out):
        PhantomInfo(arguments=arguments).write(out / _STARTED)
        train = make_folder(out / TRAIN_IMAGES)
        test = make_folder(out / TEST_IMAGES)
        n_test = count_test_images(n_images)
        patients = _plan_patients(train, 0, n_images, arguments)
        patients += _plan_patients(test, _FIRST_TEST_PATIENT, n_test, arguments)
        workers = min(workers, len(patients))
        records = []
        for written in map_images(_write_patient, patients, workers, on_crash=_crashed):
            records += written
            progress(len(written))
        counts = _finish(out, arguments, records[:n_images])
    return PhantomSummary(folder=out, already_complete=False, **counts)


def _require_in_range(arguments: PhantomArguments) -> None:
    rules = {
        "n_images": ("at least 1", arguments.n_images >= 1),
        "seed": ("at least 0", arguments.seed >= 0),
        "size": ("from 64 to 4096 px", 64 <= arguments.size <= 4096),
        "prevalence": ("above 0 and below 1", 0 < arguments.prevalence < 1),
    }
    for name, (allowed, holds) in rules.items():
        if not holds:
            given = as_typed({name: getattr(arguments, name)})
            raise InputError(f"{given}: give a number {allowed}")


def _counts_of_complete(out: Path, arguments: PhantomArguments) -> dict[str, int] | None:
    """Return the counts of a complete phantom, or None for a new or incomplete folder."""
    state = folder_state(out, "phantom")
    if state == "new":
        return None
    if state == "foreign":
        raise InputError(f"{out}: not an empty folder and not a phantom; choose another folder")
    is_interrupted = any((out / name).exists() for name in (_STARTED, LOCK_NAME))
    if state == "finished" and is_interrupted:  # a call was killed behind its record
        with folder_lock(out):
            (out / _STARTED).unlink(missing_ok=True)
    record = PhantomInfo.read(out / (PHANTOM if state == "finished" else _STARTED))
    stored = record.arguments.to_json()
    for name, value in arguments.to_json().items():
        if stored[name] != value:
            before, now = as_typed({name: stored[name]}), as_typed({name: value})
            raise InputError(
                f"{out}: was made with {before}, and this command has {now}; choose another folder "
                "or remove this one"
            )
    return record.counts or None


def _finish(
    out: Path, arguments: PhantomArguments, images: list[list[dict[str, Any]]]
) -> dict[str, int]:
    """Write the tables and, last, the record; the images follow from its arguments."""
    frame = pd.DataFrame(row for image in images for row in image)
    counts = {
        "n_images": arguments.n_images,
        "n_patients": frame["nih_patient"].nunique(),
        "n_positive": frame.loc[frame["Target"] == 1, "patientId"].nunique(),
        "n_boxes": int(frame["Target"].sum()),
        "n_test_images": count_test_images(arguments.n_images),
    }
    flush(out / TRAIN_IMAGES)
    flush(out / TEST_IMAGES)
    files = {}
    for name, table in rsna_tables(frame).items():
        write_csv(table, out / name)
        files[name] = file_digest(out / name)
    record = PhantomInfo(
        arguments=arguments,
        counts=counts,
        files=files,
    )
    record.write(out / PHANTOM)
    (out / _STARTED).unlink()
    return counts


@dataclass(frozen=True)
class _PatientImages:
    """Images of one patient, which one worker draws and writes into a folder."""

    folder: Path
    index: int
    n_images: int
    arguments: PhantomArguments


def count_test_images(n_images: int) -> int:
    """Return the number of unlabelled images: a fiftieth of the labelled ones, but at least 2."""
    return max(2, round(0.02 * n_images))


def _plan_patients(
    folder: Path, first: int, n_images: int, arguments: PhantomArguments
) -> list[_PatientImages]:
    """Return patients who together have a number of images; the last one may have fewer."""
    patients = []
    index = first
    n_left = n_images
    while n_left:
        n_drawn = min(n_left, count_images(index))
        patients.append(_PatientImages(folder, index, n_drawn, arguments))
        index += 1
        n_left -= n_drawn
    return patients


def _write_patient(images: _PatientImages) -> list[list[dict[str, Any]]]:
    """Draw and write the images of a patient; return the rows of each."""
    arguments = images.arguments
    patient = draw_patient(arguments.seed, images.index, arguments.prevalence)
    written = []
    for number in range(images.n_images):
        image = draw_image(patient, number, arguments.size)
        written.append(image_rows(patient, number, image))
        write_image(images.folder / f"{written[-1][0]['patientId']}.dcm", patient, image)
    return written


def _crashed(images: _PatientImages) -> list[list[dict[str, Any]]]:
    raise InputError(
        f"{images.folder}: a worker was ended from outside (out of memory?); run the same command "
        "again with more free memory"
    )
