"""What the tests of this room share: DICOM files written with any flaw that is wanted."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """Write a grey (H, W) or colour (H, W, 3) picture with any further header elements."""
    return _write_dicom


def _write_dicom(
    path: Path,
    values: np.ndarray,
    *,
    bits_stored: int | None = None,
    syntax: str = uid.ExplicitVRLittleEndian,
    pixel_data: bytes | None = None,
    **elements: Any,
) -> Path:
    """Write a grey (H, W) or colour (H, W, 3) picture with any further header elements."""
    bits = values.dtype.itemsize * 8
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 1 if values.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored = bits, bits_stored or bits
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(np.issubdtype(values.dtype, np.signedinteger))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the very flaws that are wanted here
        for keyword, value in elements.items():
            setattr(data, keyword, value)
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    data.PixelData = pixel_data or values.astype(values.dtype.newbyteorder(order)).tobytes()
    data["PixelData"].VR = "OW" if bits == 16 else "OB"
    if pixel_data:
        data["PixelData"].is_undefined_length = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(path, enforce_file_format=True)
    return path
