"""Synthetic images with flaws of real data sets, for tests of the audit."""

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from cxr_compare.data_prep.sources.rsna import CLASS_INFO, LABELS, TRAIN_IMAGES

from cxr_compare.data_prep.synth.phantom import PhantomArguments, write_phantom
from cxr_compare.data_prep.synth.rendering import (
    Patient,
    SynthImage,
    count_images,
    draw_image,
    draw_patient,
)
from cxr_compare.data_prep.synth.rsna_files import (
    NORMAL_CLASS,
    OPACITY_CLASS,
    image_record,
    make_image_id,
    rsna_tables,
    write_image,
)

_FIRST_FLAWED_PATIENT = 2_000_000
_FLAW_STREAM = 7  # separate from the random streams of patients, which have two seed numbers
_COPIES = 3


class _NewImage(NamedTuple):
    """Image that a phantom did not have, with its record and patient."""

    record: dict[str, Any]
    patient: Patient
    image: SynthImage


@dataclass
class _FlawedSet:
    """Phantom to which flaws are added."""

    folder: Path
    records: list[dict[str, Any]]
    arguments: PhantomArguments
    rng: np.random.Generator
    added: list[dict[str, str]] = field(default_factory=list)
    fresh: int = 0

    def note(self, flaw: str, image: str, other: str = "", detail: str = "") -> None:
        self.added.append(
            {"flaw": flaw, "patientId": image, "other_patientId": other, "detail": detail}
        )

    def path(self, image: str) -> Path:
        return self.folder / TRAIN_IMAGES / f"{image}.dcm"

    def redraw(self, record: dict[str, Any]) -> tuple[Patient, SynthImage]:
        """Draw an image of the phantom again, with the same pixels."""
        return self._draw(int(record["nih_patient"]) - 1, int(record["nih_image"][9:12]))

    def draw_fresh(self) -> _NewImage:
        """Draw an image that the phantom does not have yet."""
        patient, image = self._draw(_FIRST_FLAWED_PATIENT + self.fresh, 0)
        self.fresh += 1
        record = image_record(patient, 0, image)
        return _NewImage(record, patient, image)

    def _draw(self, patient_index: int, number: int) -> tuple[Patient, SynthImage]:
        arguments = self.arguments
        patient = draw_patient(arguments.seed, patient_index, arguments.prevalence)
        return patient, draw_image(patient, number, arguments.size)


def write_flawed_phantom(folder: Path, *, n_images: int, seed: int, size: int) -> pd.DataFrame:
    """Write synthetic images, add flaws to them, and return the table of the flaws to find."""
    write_phantom(folder, n_images=n_images, seed=seed, size=size)
    arguments = PhantomArguments(n_images, seed, size, prevalence=0.3)
    tables, added = _add_flaws(folder, _image_records(arguments), arguments)
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    return added


def _image_records(arguments: PhantomArguments) -> list[dict[str, Any]]:
    """Draw the labelled images of a phantom again and return their records."""
    records: list[dict[str, Any]] = []
    index = 0
    while len(records) < arguments.n_images:
        patient = draw_patient(arguments.seed, index, arguments.prevalence)
        n_left = arguments.n_images - len(records)
        for number in range(min(count_images(arguments.seed, index), n_left)):
            image = draw_image(patient, number, arguments.size)
            records.append(image_record(patient, number, image))
        index += 1
    return records


def _add_flaws(
    folder: Path, records: list[dict[str, Any]], arguments: PhantomArguments
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Add faulty files to a phantom; return its tables with faulty rows, and the flaws to find."""
    rng = np.random.default_rng(np.random.SeedSequence([arguments.seed, 0, _FLAW_STREAM]))
    ordered = sorted(records, key=lambda record: record["patientId"])
    flawed = _FlawedSet(folder, ordered, arguments, rng)
    sources = [ordered[i] for i in rng.permutation(len(ordered))[: 3 * _COPIES]]
    _add_duplicates(flawed, sources)
    _add_bad_files(flawed)
    tables = rsna_tables(flawed.records)
    _add_bad_rows(flawed, tables)
    return tables, pd.DataFrame(flawed.added)


def _add_duplicates(flawed: _FlawedSet, sources: list[dict[str, Any]]) -> None:
    added = []
    for number, record in enumerate(sources):
        copy = make_image_id(flawed.arguments.seed, "copy", number)
        patient, image = flawed.redraw(record)
        # A patient number that no patient of the phantom has.
        stranger = f"{_FIRST_FLAWED_PATIENT + 1_000_000 + number:08d}"
        elsewhere = {"nih_patient": stranger, "nih_image": f"{stranger}_000.png"}
        if number < _COPIES:
            flaw = "exact_duplicate"
            changes = {}
        elif number < 2 * _COPIES:
            flaw = "leaking_patient"
            changes = elsewhere
        else:
            flaw = "near_duplicate"
            changes = elsewhere
            image = replace(image, pixels=_stretch(image.pixels), jpeg=False)
        write_image(flawed.path(copy), patient, image)
        added.append({**record, **changes, "patientId": copy})
        flawed.note(flaw, copy, record["patientId"], added[-1]["nih_patient"])
    flawed.records = flawed.records + added


def _stretch(pixels: np.ndarray) -> np.ndarray:
    """Stretch grey values from the first to the last percentile to the full range."""
    low, high = np.percentile(pixels, (1, 99))
    stretched = (pixels.astype(np.float32) - low) * (255 / max(high - low, 1))
    return np.clip(stretched, 0, 255).astype(np.uint8)


def _add_bad_files(flawed: _FlawedSet) -> None:
    flaws = ("truncated", "unreadable", "text_file", "impossible_age", "image_without_label")
    for flaw in flaws:
        for number in range(2):
            record, patient, image = flawed.draw_fresh()
            path = flawed.path(record["patientId"])
            detail = ""
            if flaw == "impossible_age":
                patient = replace(patient, age=(155, 412)[number])
                detail = f"{patient.age} years"
            write_image(path, patient, image)
            if flaw == "truncated":
                whole = path.read_bytes()
                path.write_bytes(whole[: len(whole) // 2])
                detail = f"{len(whole) // 2} of {len(whole)} bytes"
            elif flaw == "unreadable":
                path.write_bytes(flawed.rng.bytes(2048))
                detail = "random bytes"
            elif flaw == "text_file":
                path.write_text("This is not an image.\n", encoding="utf-8")
            flawed.note(flaw, record["patientId"], detail=detail)
            if flaw != "image_without_label":
                flawed.records = [*flawed.records, record]


def _add_bad_rows(flawed: _FlawedSet, tables: dict[str, pd.DataFrame]) -> None:
    size = float(flawed.arguments.size)
    boxes = {
        "box_outside": (size - 10.0, size - 10.0, 40.0, 40.0),
        "box_zero_size": (0.3 * size, 0.4 * size, 0.0, 20.0),
        "box_nan": (0.3 * size, np.nan, 20.0, 20.0),
    }
    touched = {row[key] for row in flawed.added for key in ("patientId", "other_patientId")}
    sound = [record for record in flawed.records if record["patientId"] not in touched]
    ill = [record["patientId"] for record in sound if record["boxes"]]
    hosts = flawed.rng.choice(ill or [record["patientId"] for record in sound], len(boxes))
    rows = []
    names = []
    for (flaw, box), host in zip(boxes.items(), hosts, strict=True):
        rows.append([host, *box, 1])
        names.append([host, OPACITY_CLASS])
        flawed.note(flaw, str(host), detail=" ".join(f"{value:g}" for value in box))
    for _ in range(2):
        missing = str(uuid.UUID(bytes=flawed.rng.bytes(16), version=4))
        rows.append([missing, *([np.nan] * 4), 0])
        names.append([missing, NORMAL_CLASS])
        flawed.note("label_without_image", missing)
    for file, added in ((LABELS, rows), (CLASS_INFO, names)):
        bad = pd.DataFrame(added, columns=tables[file].columns)
        tables[file] = pd.concat([tables[file], bad], ignore_index=True)
