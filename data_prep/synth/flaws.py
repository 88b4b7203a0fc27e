"""Flaws that real sets have, planted on purpose, with a list of what must be found."""

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.synth.files import (
    NORMAL,
    OPACITY,
    TRAIN_FOLDER,
    image_record,
    make_image_id,
    rsna_tables,
    write_image,
)
from data_prep.synth.lesions import Contrast
from data_prep.synth.rendering import Patient, SynthImage, draw_image, draw_patient

FLAWS_CSV = "planted_flaws.csv"
_FIRST_FLAWED_PATIENT = 2_000_000
_FLAW_STREAM = 7  # beside the patients' streams, which have two words of entropy
_COPIES = 3
_LABELS, _CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"


@dataclass
class _Garden:
    """The set under the gardener's hands."""

    folder: Path
    records: list[dict[str, Any]]
    seed: int
    size: int
    contrast: Contrast
    prevalence: float
    rng: np.random.Generator
    planted: list[dict[str, str]] = field(default_factory=list)
    fresh: int = 0

    def note(self, flaw: str, image: str, other: str = "", detail: str = "") -> None:
        self.planted.append(
            {"flaw": flaw, "patientId": image, "other_patientId": other, "detail": detail}
        )

    def path(self, image: str) -> Path:
        return self.folder / TRAIN_FOLDER / f"{image}.dcm"

    def redraw(self, record: dict[str, Any]) -> tuple[Patient, SynthImage]:
        """An image of the set once more: the same pixels."""
        patient = draw_patient(self.seed, int(record["nih_patient"]) - 1, self.prevalence)
        return patient, draw_image(patient, record["number"], self.size, self.contrast)

    def draw_fresh(self) -> tuple[dict[str, Any], Patient, SynthImage]:
        """An image that the set does not have yet."""
        patient = draw_patient(self.seed, _FIRST_FLAWED_PATIENT + self.fresh, self.prevalence)
        self.fresh += 1
        image = draw_image(patient, 0, self.size, self.contrast)
        return image_record(self.seed, patient, 0, image), patient, image


def plant_flaws(
    folder: Path,
    records: list[dict[str, Any]],
    *,
    seed: int,
    size: int,
    contrast: Contrast,
    prevalence: float,
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Add flawed images to a phantom, and flawed rows to its tables.

    Nothing that is there is changed, so that planting again gives the same.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0, _FLAW_STREAM]))
    ordered = sorted(records, key=lambda record: record["patientId"])
    garden = _Garden(folder, ordered, seed, size, contrast, prevalence, rng)
    sources = [ordered[i] for i in rng.permutation(len(ordered))[: 3 * _COPIES]]
    _plant_duplicates(garden, sources)
    _plant_bad_files(garden)
    tables = rsna_tables(garden.records)
    _plant_bad_rows(garden, tables)
    return tables, pd.DataFrame(garden.planted)


def _plant_duplicates(garden: _Garden, sources: list[dict[str, Any]]) -> None:
    added = []
    for number, record in enumerate(sources):
        copy = make_image_id(garden.seed, "copy", number)
        patient, image = garden.redraw(record)
        # The mapping's key for a stranger: a number that no patient of the set has.
        stranger = f"{_FIRST_FLAWED_PATIENT + 1_000_000 + number:08d}"
        elsewhere = {"nih_patient": stranger, "nih_image": f"{stranger}_000.png"}
        if number < _COPIES:
            flaw, changes = "exact_duplicate", {}
        elif number < 2 * _COPIES:
            flaw, changes = "leaking_patient", elsewhere
        else:
            flaw, changes = "near_duplicate", elsewhere
            image = replace(image, pixels=_stretch(image.pixels), jpeg=False)
        write_image(garden.path(copy), patient, image)
        stored = "jpeg" if image.jpeg else "plain"
        added.append({**record, **changes, "patientId": copy, "stored": stored})
        garden.note(flaw, copy, record["patientId"], added[-1]["nih_patient"])
    garden.records = garden.records + added


def _stretch(pixels: np.ndarray) -> np.ndarray:
    """Grey values from the darkest to the brightest percent on the full range."""
    low, high = np.percentile(pixels, (1, 99))
    stretched = (pixels.astype(np.float32) - low) * (255 / max(high - low, 1))
    return np.clip(stretched, 0, 255).astype(np.uint8)


def _plant_bad_files(garden: _Garden) -> None:
    flaws = ("truncated", "unreadable", "text_file", "impossible_age", "image_without_label")
    for flaw in flaws:
        for number in range(2):
            record, patient, image = garden.draw_fresh()
            path, detail = garden.path(record["patientId"]), ""
            if flaw == "impossible_age":
                patient = replace(patient, age=(155, 412)[number])
                record["age"], detail = patient.age, f"{patient.age} years"
            write_image(path, patient, image)
            if flaw == "truncated":
                whole = path.read_bytes()
                path.write_bytes(whole[: len(whole) // 2])
                detail = f"{len(whole) // 2} of {len(whole)} bytes"
            elif flaw == "unreadable":
                path.write_bytes(garden.rng.bytes(2048))
                detail = "random bytes"
            elif flaw == "text_file":
                path.write_text("This is not an image.\n", encoding="utf-8")
            garden.note(flaw, record["patientId"], detail=detail)
            if flaw != "image_without_label":
                garden.records = [*garden.records, record]


def _plant_bad_rows(garden: _Garden, tables: dict[str, pd.DataFrame]) -> None:
    labels, classes = tables[_LABELS], tables[_CLASSES]
    size = float(garden.size)
    boxes = {
        "box_outside": (size - 10.0, size - 10.0, 40.0, 40.0),
        "box_zero_size": (0.3 * size, 0.4 * size, 0.0, 20.0),
        "box_nan": (0.3 * size, np.nan, 20.0, 20.0),
        "box_negative_width": (0.5 * size, 0.4 * size, -20.0, 30.0),
    }
    touched = {row[key] for row in garden.planted for key in ("patientId", "other_patientId")}
    sound = [record for record in garden.records if record["patientId"] not in touched]
    ill = [record["patientId"] for record in sound if record["lesions"]]
    hosts = garden.rng.choice(ill or [record["patientId"] for record in sound], len(boxes))
    rows, names = [], []
    for (flaw, box), host in zip(boxes.items(), hosts, strict=True):
        rows.append([host, *box, 1])
        names.append([host, OPACITY])
        garden.note(flaw, str(host), detail=" ".join(f"{value:g}" for value in box))
    for _ in range(2):
        missing = str(uuid.UUID(bytes=garden.rng.bytes(16), version=4))
        rows.append([missing, *([np.nan] * 4), 0])
        names.append([missing, NORMAL])
        garden.note("label_without_image", missing)
    tables[_LABELS] = pd.concat(
        [labels, pd.DataFrame(rows, columns=labels.columns)], ignore_index=True
    )
    tables[_CLASSES] = pd.concat(
        [classes, pd.DataFrame(names, columns=classes.columns)], ignore_index=True
    )
