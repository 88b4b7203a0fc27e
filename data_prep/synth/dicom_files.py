"""Writing of synthetic images as DICOM files like those of the RSNA challenge."""

import hashlib
from pathlib import Path

import cv2
from pydicom import config as pydicom_config
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.synth.rendering import Patient, SynthImage

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

    Args:
        path: File to write, named ``<image id>.dcm``.
        patient: Synthetic patient, whose sex and age the header states.
        image: The drawn image, with its view and pixel spacing.
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
