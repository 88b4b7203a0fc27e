"""The phantom's files: DICOM as the RSNA challenge has it, its CSV tables, names without dates."""

import csv
import hashlib
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydicom import config as pydicom_config
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from data_prep.contracts.folders import atomic_path
from data_prep.synth.rendering import Patient, SynthImage

TRAIN_FOLDER = "stage_2_train_images"
TEST_FOLDER = "stage_2_test_images"
NORMAL = "Normal"
NOT_NORMAL = "No Lung Opacity / Not Normal"
OPACITY = "Lung Opacity"

LABEL_COLUMNS = ["patientId", "x", "y", "width", "height", "Target"]
CLASS_COLUMNS = ["patientId", "class"]
MAPPING_COLUMNS = ["patientId", "nih_image", "nih_patient"]
_IMPLEMENTATION_UID = "2.25.269859063425217341036811452331427203761"
_JPEG_QUALITY = 95


def make_image_id(seed: int, patient: int | str, number: int) -> str:
    """The name of an image, in the form of the challenge's `patientId`.

    Example:
        >>> make_image_id(seed=0, patient=7, number=1)
        '...-...-4...-...-...'
    """
    digest = hashlib.blake2b(f"{seed}/{patient}/{number}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def _uid(*parts: str) -> str:
    digest = hashlib.blake2b("/".join(parts).encode(), digest_size=16).digest()
    return f"2.25.{int.from_bytes(digest, 'big')}"


def _write_dicom(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    sex: str,
    age: str,
    view: str,
    spacing_mm: float,
    jpeg: bool,
) -> None:
    """Write an image as the challenge stores them; the file's stem becomes its patient id."""
    item = _header(path.stem, view, jpeg=jpeg)
    item.PatientSex = sex
    # Not a legal age string ("051Y" would be), but what the challenge's files hold.
    item.add(DataElement(0x00101010, "AS", age, validation_mode=pydicom_config.IGNORE))
    item.Rows, item.Columns = pixels.shape
    item.PixelSpacing = [spacing_mm, spacing_mm]
    if jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        item.LossyImageCompression = "01"
        item.LossyImageCompressionMethod = "ISO_10918_1"
        item.PixelData = encapsulate([cv2.imencode(".jpg", pixels, quality)[1].tobytes()])
        item["PixelData"].VR = "OB"
        item["PixelData"].is_undefined_length = True
    else:
        content = pixels.tobytes()
        item.PixelData = content + b"\0" * (len(content) % 2)
        item["PixelData"].VR = "OB"
    with atomic_path(path) as temporary:
        dcmwrite(temporary, item, enforce_file_format=True)


def _header(name: str, view: str, *, jpeg: bool) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian)
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    meta.ImplementationVersionName = "CXR_PHANTOM"
    item = Dataset()
    item.file_meta = meta
    item.SpecificCharacterSet = "ISO_IR 100"
    item.SOPClassUID = SecondaryCaptureImageStorage
    item.SOPInstanceUID = _uid(name, "image")
    item.StudyDate = ""
    item.StudyTime = ""
    item.AccessionNumber = ""
    item.Modality = "CR"
    item.ConversionType = "SYN"  # synthetic image: nobody should take it for a patient's
    item.ReferringPhysicianName = ""
    item.SeriesDescription = f"view: {view}"
    item.PatientName = name
    item.PatientID = name
    item.PatientBirthDate = ""
    item.BodyPartExamined = "CHEST"
    item.ViewPosition = view
    item.StudyInstanceUID = _uid(name, "study")
    item.SeriesInstanceUID = _uid(name, "series")
    item.StudyID = ""
    item.SeriesNumber = 1
    item.InstanceNumber = 1
    item.PatientOrientation = ""
    item.SamplesPerPixel = 1
    item.PhotometricInterpretation = "MONOCHROME2"
    item.BitsAllocated = 8
    item.BitsStored = 8
    item.HighBit = 7
    item.PixelRepresentation = 0
    return item


def image_record(seed: int, patient: Patient, number: int, image: SynthImage) -> dict[str, Any]:
    """What the tables say about an image, JSON-ready."""
    nih_patient = f"{patient.index + 1:08d}"
    return {
        "patientId": make_image_id(seed, patient.index, number),
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


def write_image(path: Path, patient: Patient, image: SynthImage) -> None:
    """Write an image of the phantom as DICOM; `path` ends in `<image id>.dcm`."""
    _write_dicom(
        path,
        image.pixels,
        sex=patient.sex,
        age=str(patient.age),
        view=image.view,
        spacing_mm=image.spacing_mm,
        jpeg=image.jpeg,
    )


def rsna_tables(records: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Lay out image records as the challenge's tables, and the truth beside them."""
    ordered = sorted(records, key=lambda record: record["patientId"])
    rows = [row for record in ordered for row in _rows(record)]
    frame = pd.DataFrame(rows)
    mapping = frame[MAPPING_COLUMNS].drop_duplicates(ignore_index=True)
    truth = frame.drop(columns=["Target", "nih_image"])
    return {
        "stage_2_train_labels.csv": frame[LABEL_COLUMNS],
        "stage_2_detailed_class_info.csv": frame[CLASS_COLUMNS],
        "rsna_to_nih.csv": mapping,
        "truth.csv": truth,
    }


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    common = {key: value for key, value in record.items() if key not in ("lesions", "number")}
    common["class"] = _class_of(record)
    nothing = dict.fromkeys(("x", "y", "width", "height"), np.nan)
    empty = {**nothing, "Target": 0, "lesion": None, "contrast_to_noise": np.nan}
    return [{**common, **lesion, "Target": 1} for lesion in record["lesions"]] or [
        {**common, **empty}
    ]


def _class_of(record: dict[str, Any]) -> str:
    """The challenge's class of an image record."""
    if record["lesions"]:
        return OPACITY
    return NOT_NORMAL if record["distractors"] else NORMAL


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all; missing values are empty cells."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
