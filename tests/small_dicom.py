"""Small images for all tests: a good DICOM one, but for elements that are to be odd, and others."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset


def dicom_image(
    values: np.ndarray,
    *,
    bits_stored: int | None = None,
    syntax: str = uid.ExplicitVRLittleEndian,
    pixel_data: bytes | None = None,
    content: bytes | None = None,
    **elements: Any,
) -> Dataset:
    """A grey (H, W) or colour (H, W, 3) image with any further header elements.

    Args:
        values: Stored values.
        bits_stored: All that the values' type has where it is not given.
        syntax: Transfer syntax.
        pixel_data: Encapsulated frames in place of the values.
        content: Bytes in place of the values, not encapsulated.
        elements: Set last.
    """
    bits = values.dtype.itemsize * 8
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = uid.SecondaryCaptureImageStorage, "1.2.3.4"
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 1 if values.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored = bits, bits_stored or bits
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(np.issubdtype(values.dtype, np.signedinteger))
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    data.PixelData = (
        pixel_data or content or values.astype(values.dtype.newbyteorder(order)).tobytes()
    )
    data["PixelData"].VR = "OW" if bits == 16 else "OB"
    data["PixelData"].is_undefined_length = bool(pixel_data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the very flaws that are wanted here
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID or "1.2"
    return data


def as_file(dataset: Dataset) -> bytes:
    """The content of a DICOM file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_dicom(path: Path, values: np.ndarray, **elements: Any) -> Path:
    """Write an image as `dicom_image` makes it."""
    path.write_bytes(as_file(dicom_image(values, **elements)))
    return path


def write_radiograph(path: Path, values: np.ndarray, elements: dict[str, Any]) -> None:
    """Write a frontal chest radiograph, 12 bits stored; an element that is None is left out."""
    known = {
        "SOPInstanceUID": f"1.2.{zlib.crc32(path.name.encode())}",
        "StudyInstanceUID": "1.2.3",
        "Modality": "CR",
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
        **elements,
    }
    stated = {name: value for name, value in known.items() if value is not None}
    image = dicom_image(values, bits_stored=12, **stated)
    for name in known.keys() - stated.keys():
        if name in image:
            delattr(image, name)
    path.write_bytes(as_file(image))


def image_file(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """The content of a file of another kind, as Pillow writes it."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chest(seed: int, height: int = 160, width: int = 160) -> np.ndarray:
    """Smooth noise: copies of it are as alike, and two as different, as those of radiographs."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
