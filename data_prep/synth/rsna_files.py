"""Files of synthetic images in the layout of the RSNA challenge: DICOM files and label tables."""

import hashlib
import uuid
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

from cxr_compare.data_prep.base.files import disk_errors
from cxr_compare.data_prep.sources.rsna import MAPPING
from cxr_compare.data_prep.synth.rendering import Patient, SynthImage

TRAIN_IMAGES = "stage_2_train_images"
TEST_IMAGES = "stage_2_test_images"
_LABELS = "stage_2_train_labels.csv"
_CLASS_INFO = "stage_2_detailed_class_info.csv"
_MARKS = ["patientId", "x", "y", "width", "height", "Target"]
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


def _uid(*parts: str) -> str:
    digest = hashlib.blake2b("/".join(parts).encode(), digest_size=16).digest()
    return f"2.25.{int.from_bytes(digest, 'big')}"


def write_image(path: Path, patient: Patient, image: SynthImage) -> None:
    """Write a synthetic image as a DICOM file like those of the RSNA pneumonia challenge.

    The file is named ``<image id>.dcm``. Its header states the patient's sex and age, and view and
    pixel spacing of the image. A power failure may lose it: an interrupted call draws all anew.
    """
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if image.jpeg else ExplicitVRLittleEndian
    item.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    item.file_meta.ImplementationVersionName = "CXR_PHANTOM"
    facts = {
        "PatientName": path.stem,
        "PatientID": path.stem,
        "PatientSex": patient.sex,
        "ViewPosition": image.view,
        "SeriesDescription": f"view: {image.view}",
        "Rows": len(image.pixels),
        "Columns": len(image.pixels),
        "PixelSpacing": [image.spacing_mm, image.spacing_mm],
        **{f"{part}InstanceUID": _uid(path.stem, part) for part in ("SOP", "Study", "Series")},
    }
    # This is no legal age string ("051Y" would be), but the files of the challenge have it.
    age = DataElement(0x00101010, "AS", str(patient.age), validation_mode=pydicom_config.IGNORE)
    item.add(age)
    content = image.pixels.tobytes()
    if image.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        content = encapsulate([cv2.imencode(".jpg", image.pixels, quality)[1].tobytes()])
        facts |= {"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_10918_1"}
    facts["PixelData"] = content + b"\0" * (len(content) % 2)
    for keyword, value in (_HEADER | facts).items():
        setattr(item, keyword, value)
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = image.jpeg
    with disk_errors(path):
        dcmwrite(path, item, enforce_file_format=True)


def make_image_id(seed: int, patient: int | str, number: int) -> str:
    """Return the id of a synthetic image, in the form of image ids of the RSNA challenge.

    The seed is that of the whole set; `patient` is the number of the patient in it, from 0, or
    another name, and `number` that of the image among the patient's images, from 0.
    """
    digest = hashlib.blake2b(f"{seed}/{patient}/{number}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def image_rows(patient: Patient, number: int, image: SynthImage) -> list[dict[str, Any]]:
    """Return what label tables say of a synthetic image: a row for each box, but at least one."""
    nih_patient = f"{patient.index + 1:08d}"
    negative = "No Lung Opacity / Not Normal" if len(patient.scars) else "Normal"
    facts = {
        "class": "Lung Opacity" if image.lesions else negative,
        "nih_image": f"{nih_patient}_{number:03d}.png",
        "nih_patient": nih_patient,
    }
    name = make_image_id(patient.seed, patient.index, number)
    marks: list[tuple[Any, ...]] = [
        (name, b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1, 1) for b in image.lesions
    ]
    none = (name, *(np.nan,) * 4, 0)
    return [dict(zip(_MARKS, mark, strict=True)) | facts for mark in marks or [none]]


def rsna_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the label tables of images, from rows of `image_rows`, by name of the CSV file."""
    frame = frame.sort_values("patientId", kind="stable").astype(dict.fromkeys(_MARKS[1:5], float))
    return {
        _LABELS: frame[_MARKS],
        _CLASS_INFO: frame[["patientId", "class"]],
        MAPPING: frame[["patientId", "nih_image", "nih_patient"]].drop_duplicates(),
    }
