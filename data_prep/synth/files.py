"""The phantom's files: DICOM as the RSNA challenge has it, its CSV tables, names without dates.

And flaws that real sets have, planted on purpose, with a list of what must be found.
"""

import hashlib
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from pydicom import config as pydicom_config
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.rsna import CLASS_INFO, CLASSES, LABELS, MAPPING, TRAIN_IMAGES
from cxr_compare.data_prep.synth.lesions import CONTRAST_TO_NOISE, Contrast
from cxr_compare.data_prep.synth.rendering import Patient, SynthImage, draw_image, draw_patient

_NORMAL, _NOT_NORMAL, _OPACITY = CLASSES
_LABEL_COLUMNS = ["patientId", "x", "y", "width", "height", "Target"]
_MAPPING_COLUMNS = ["patientId", "nih_image", "nih_patient"]
_IMPLEMENTATION_UID = "2.25.269859063425217341036811452331427203761"
_JPEG_QUALITY = 95
_EMPTY = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "PatientBirthDate",
    "PatientOrientation",
)
_HEADER = {
    **dict.fromkeys(_EMPTY, ""),
    "SpecificCharacterSet": "ISO_IR 100",
    "Modality": "CR",
    "ConversionType": "SYN",  # synthetic image: nobody should take it for a patient's
    "SOPClassUID": SecondaryCaptureImageStorage,
    "BodyPartExamined": "CHEST",
    "SeriesNumber": 1,
    "InstanceNumber": 1,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
}


def _make_image_id(seed: int, patient: int | str, number: int) -> str:
    """The name of an image, in the form of the challenge's `patientId`."""
    digest = hashlib.blake2b(f"{seed}/{patient}/{number}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def _uid(*parts: str) -> str:
    digest = hashlib.blake2b("/".join(parts).encode(), digest_size=16).digest()
    return f"2.25.{int.from_bytes(digest, 'big')}"


def write_image(path: Path, patient: Patient, image: SynthImage) -> None:
    """Write an image as the challenge stores them; `path` ends in `<image id>.dcm`."""
    item = _header(path.stem, image)
    item.PatientSex = patient.sex
    # Not a legal age string ("051Y" would be), but what the challenge's files hold.
    age = DataElement(0x00101010, "AS", str(patient.age), validation_mode=pydicom_config.IGNORE)
    item.add(age)
    item.Rows, item.Columns = image.pixels.shape
    item.PixelSpacing = [image.spacing_mm, image.spacing_mm]
    if image.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        item.LossyImageCompression = "01"
        item.LossyImageCompressionMethod = "ISO_10918_1"
        item.PixelData = encapsulate([cv2.imencode(".jpg", image.pixels, quality)[1].tobytes()])
    else:
        content = image.pixels.tobytes()
        item.PixelData = content + b"\0" * (len(content) % 2)
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = image.jpeg
    with atomic_path(path) as temporary:
        dcmwrite(temporary, item, enforce_file_format=True)


def _header(name: str, image: SynthImage) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(JPEGBaseline8Bit if image.jpeg else ExplicitVRLittleEndian)
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    meta.ImplementationVersionName = "CXR_PHANTOM"
    item = Dataset()
    item.file_meta = meta
    for keyword, value in _HEADER.items():
        setattr(item, keyword, value)
    item.SOPInstanceUID = _uid(name, "image")
    item.StudyInstanceUID = _uid(name, "study")
    item.SeriesInstanceUID = _uid(name, "series")
    item.PatientName = item.PatientID = name
    item.ViewPosition = image.view
    item.SeriesDescription = f"view: {image.view}"
    return item


def image_record(seed: int, patient: Patient, number: int, image: SynthImage) -> dict[str, Any]:
    """What the tables say about an image, JSON-ready."""
    nih_patient = f"{patient.index + 1:08d}"
    return {
        "patientId": _make_image_id(seed, patient.index, number),
        "nih_image": f"{nih_patient}_{number:03d}.png",
        "nih_patient": nih_patient,
        "number": number,
        "view": image.view,
        "sex": patient.sex,
        "age": patient.age,
        "stored": "jpeg" if image.jpeg else "plain",
        "distractors": "|".join(image.distractors),
        "lesions": [
            {
                "x": float(lesion.x1),
                "y": float(lesion.y1),
                "width": float(lesion.x2 - lesion.x1),
                "height": float(lesion.y2 - lesion.y1),
                "lesion": lesion.kind,
                "contrast_to_noise": round(lesion.contrast_to_noise, 4),
            }
            for lesion in image.lesions
        ],
    }


def rsna_tables(records: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Lay out image records as the challenge's tables, and the truth beside them."""
    ordered = sorted(records, key=lambda record: record["patientId"])
    rows = [row for record in ordered for row in _rows(record)]
    frame = pd.DataFrame(rows)
    return {
        LABELS: frame[_LABEL_COLUMNS],
        CLASS_INFO: frame[["patientId", "class"]],
        MAPPING: frame[_MAPPING_COLUMNS].drop_duplicates(ignore_index=True),
        "truth.csv": frame.drop(columns=["Target", "nih_image"]),
    }


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    common = {key: value for key, value in record.items() if key not in ("lesions", "number")}
    without_lesions = _NOT_NORMAL if record["distractors"] else _NORMAL
    common["class"] = _OPACITY if record["lesions"] else without_lesions
    nothing = dict.fromkeys(("x", "y", "width", "height"), np.nan)
    empty = {**nothing, "Target": 0, "lesion": None, "contrast_to_noise": np.nan}
    return [{**common, **lesion, "Target": 1} for lesion in record["lesions"]] or [
        {**common, **empty}
    ]


@dataclass(frozen=True)
class PhantomArguments:
    """What a phantom is made from; the same arguments give the same bytes."""

    n_images: int
    seed: int
    size: int
    contrast: Contrast
    prevalence: float
    flaws: bool

    def __post_init__(self) -> None:
        rules = (
            (self.n_images >= 1, f"n_images must be at least 1, got {self.n_images}"),
            (self.seed >= 0, f"seed must not be negative, got {self.seed}"),
            (64 <= self.size <= 4096, f"size must lie in 64 to 4096 px, got {self.size}"),
            (
                self.contrast in CONTRAST_TO_NOISE,
                f"contrast must be one of {', '.join(CONTRAST_TO_NOISE)}, got {self.contrast!r}",
            ),
            (0 < self.prevalence < 1, f"prevalence must lie in (0, 1), got {self.prevalence}"),
            (
                not self.flaws or self.n_images >= 20,
                f"flaws need at least 20 images to hide among, got {self.n_images}",
            ),
        )
        for holds, message in rules:
            if not holds:
                raise InputError(f"synth: {message}")


FLAWS_CSV = "added_flaws.csv"
_FIRST_FLAWED_PATIENT = 2_000_000
_FLAW_STREAM = 7  # beside the patients' streams, which have two words of entropy
_COPIES = 3


@dataclass
class _Garden:
    """The set under the gardener's hands."""

    folder: Path
    records: list[dict[str, Any]]
    arguments: PhantomArguments
    rng: np.random.Generator
    planted: list[dict[str, str]] = field(default_factory=list)
    fresh: int = 0

    def note(self, flaw: str, image: str, other: str = "", detail: str = "") -> None:
        self.planted.append(
            {"flaw": flaw, "patientId": image, "other_patientId": other, "detail": detail}
        )

    def path(self, image: str) -> Path:
        return self.folder / TRAIN_IMAGES / f"{image}.dcm"

    def redraw(self, record: dict[str, Any]) -> tuple[Patient, SynthImage]:
        """An image of the set once more: the same pixels."""
        return self._draw(int(record["nih_patient"]) - 1, record["number"])

    def draw_fresh(self) -> tuple[dict[str, Any], Patient, SynthImage]:
        """An image that the set does not have yet."""
        patient, image = self._draw(_FIRST_FLAWED_PATIENT + self.fresh, 0)
        self.fresh += 1
        return image_record(self.arguments.seed, patient, 0, image), patient, image

    def _draw(self, patient_index: int, number: int) -> tuple[Patient, SynthImage]:
        asked = self.arguments
        patient = draw_patient(asked.seed, patient_index, asked.prevalence)
        return patient, draw_image(patient, number, asked.size, asked.contrast)


def plant_flaws(
    folder: Path, records: list[dict[str, Any]], arguments: PhantomArguments
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Add flawed images to a phantom, and flawed rows to its tables.

    Nothing that is there is changed, so that planting again gives the same.
    """
    rng = np.random.default_rng(np.random.SeedSequence([arguments.seed, 0, _FLAW_STREAM]))
    ordered = sorted(records, key=lambda record: record["patientId"])
    garden = _Garden(folder, ordered, arguments, rng)
    sources = [ordered[i] for i in rng.permutation(len(ordered))[: 3 * _COPIES]]
    _plant_duplicates(garden, sources)
    _plant_bad_files(garden)
    tables = rsna_tables(garden.records)
    _plant_bad_rows(garden, tables)
    return tables, pd.DataFrame(garden.planted)


def _plant_duplicates(garden: _Garden, sources: list[dict[str, Any]]) -> None:
    added = []
    for number, record in enumerate(sources):
        copy = _make_image_id(garden.arguments.seed, "copy", number)
        patient, image = garden.redraw(record)
        # The mapping's key for a stranger: a number that no patient of the set has.
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
            path = garden.path(record["patientId"])
            detail = ""
            if flaw == "impossible_age":
                patient = replace(patient, age=(155, 412)[number])
                record["age"] = patient.age
                detail = f"{patient.age} years"
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
    size = float(garden.arguments.size)
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
    rows = []
    names = []
    for (flaw, box), host in zip(boxes.items(), hosts, strict=True):
        rows.append([host, *box, 1])
        names.append([host, _OPACITY])
        garden.note(flaw, str(host), detail=" ".join(f"{value:g}" for value in box))
    for _ in range(2):
        missing = str(uuid.UUID(bytes=garden.rng.bytes(16), version=4))
        rows.append([missing, *([np.nan] * 4), 0])
        names.append([missing, _NORMAL])
        garden.note("label_without_image", missing)
    for file, added in ((LABELS, rows), (CLASS_INFO, names)):
        bad = pd.DataFrame(added, columns=tables[file].columns)
        tables[file] = pd.concat([tables[file], bad], ignore_index=True)
