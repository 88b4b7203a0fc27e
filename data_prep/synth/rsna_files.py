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

from cxr_compare.data_prep.base.files import atomic_path
from cxr_compare.data_prep.sources.rsna import MAPPING
from cxr_compare.data_prep.synth.rendering import Patient, SynthImage

TRAIN_IMAGES = "stage_2_train_images"
TEST_IMAGES = "stage_2_test_images"
_LABELS = "stage_2_train_labels.csv"
_CLASS_INFO = "stage_2_detailed_class_info.csv"
_NORMAL = "Normal"
_NOT_NORMAL = "No Lung Opacity / Not Normal"
_OPACITY = "Lung Opacity"
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
    pixel spacing of the image.
    """
    item = _header(path.stem, image)
    item.PatientSex = patient.sex
    # This is no legal age string ("051Y" would be), but the files of the challenge have it.
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


def make_image_id(seed: int, patient: int | str, number: int) -> str:
    """Return the id of a synthetic image, in the form of image ids of the RSNA challenge.

    The seed is that of the whole set; `patient` is the number of the patient in it, from 0, or
    another name, and `number` that of the image among the patient's images, from 0.
    """
    digest = hashlib.blake2b(f"{seed}/{patient}/{number}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def image_record(patient: Patient, number: int, image: SynthImage) -> dict[str, Any]:
    """Return the facts about a synthetic image from which its rows in label tables are made."""
    nih_patient = f"{patient.index + 1:08d}"
    without_lesions = _NOT_NORMAL if patient.scars else _NORMAL
    return {
        "patientId": make_image_id(patient.seed, patient.index, number),
        "nih_image": f"{nih_patient}_{number:03d}.png",
        "nih_patient": nih_patient,
        "class": _OPACITY if image.lesions else without_lesions,
        "boxes": [
            (lesion.x1, lesion.y1, lesion.x2 - lesion.x1, lesion.y2 - lesion.y1)
            for lesion in image.lesions
        ],
    }


def rsna_tables(records: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Return the label tables of images, from facts of `image_record`, by name of the CSV file."""
    rows = []
    for record in sorted(records, key=lambda record: record["patientId"]):
        for box in record["boxes"] or [(np.nan,) * 4]:
            x, y, width, height = map(float, box)
            target = int(bool(record["boxes"]))
            rows.append(
                {**record, "x": x, "y": y, "width": width, "height": height, "Target": target}
            )
    frame = pd.DataFrame(rows)
    mapping = frame[["patientId", "nih_image", "nih_patient"]]
    return {
        _LABELS: frame[["patientId", "x", "y", "width", "height", "Target"]],
        _CLASS_INFO: frame[["patientId", "class"]],
        MAPPING: mapping.drop_duplicates(ignore_index=True),
    }
