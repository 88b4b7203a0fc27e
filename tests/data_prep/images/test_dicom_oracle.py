"""Other readers as oracles: GDCM parses and decodes, pydicom displays, OpenCV reads the rest."""

import csv
from pathlib import Path
from typing import Any

import cv2
import gdcm as _gdcm
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from data_prep.images.dicom import read_dicom
from data_prep.images.image import read_image

gdcm: Any = _gdcm
with (Path(__file__).parent / "golden_dicom.csv").open(newline="") as _file:
    GREY = [
        row["file"]
        for row in csv.DictReader(_file)
        if row["photometric"].startswith("MONO") and row["voi"]
    ]
UNREAD_BY_GDCM = {"fo-dicom__GH364.dcm"}
LOSSY = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000, uid.JPEGLSNearLossless}


def stored_by_gdcm(path: Path) -> np.ndarray:
    """The first frame as GDCM's own parser and codecs read it; GDCM leaves MONOCHROME1 alone."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    kind = image.GetPixelFormat()
    name = ("i" if kind.GetPixelRepresentation() else "u") + str(kind.GetBitsAllocated() // 8)
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    width, height = image.GetDimensions()[:2]
    values = np.frombuffer(buffer, "<" + name)[: width * height].reshape(height, width)
    unused = kind.GetBitsAllocated() - kind.GetBitsStored()
    return (values << unused) >> unused  # GDCM does not extend the sign of JPEG 2000


def displayed_by_pydicom(stored: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """Greys 0 to 255, not rounded, of pydicom's own functions in the order of PS3.3 C.11."""
    values = apply_modality_lut(stored, header).astype(np.float64)
    if "VOILUTSequence" in header:
        bits = header.VOILUTSequence[0].LUTDescriptor[2]
        shown = apply_voi_lut(stored, header).astype(np.float64) / ((1 << bits) - 1)
    elif "WindowWidth" in header:
        shown = apply_windowing(apply_modality_lut(stored, header), header)
        low, high = output_range(header)
        shown = (shown - low) / (high - low)
    elif header.BitsStored <= 8:
        shown = values / 255
    else:
        low, high = np.percentile(values, [0.1, 99.9], method="inverted_cdf")
        shown = np.clip((values - low) / (high - low), 0, 1)
    return 255 * (1 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown)


def output_range(header: pydicom.Dataset) -> tuple[float, float]:
    """What pydicom's window maps to: all that the bit depth can hold, after the rescale."""
    least = -(1 << header.BitsStored - 1) if header.PixelRepresentation else 0
    ends = np.array([least, least + (1 << header.BitsStored) - 1], dtype=np.float64)
    ends = ends * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    return float(ends[0]), float(ends[1])


@pytest.mark.parametrize("name", sorted(set(GREY) - UNREAD_BY_GDCM))
def test_grey_files_agree_with_gdcm_and_pydicom(shared_data: Path, name: str) -> None:
    path = shared_data / "dicom_odd" / name
    header = pydicom.dcmread(path)
    lossy = header.file_meta.TransferSyntaxUID in LOSSY
    stored = stored_by_gdcm(path)

    expected = displayed_by_pydicom(stored, header)
    difference = np.abs(read_dicom(path).pixels - expected)
    if name == "dicom-test-files__RG3_JPLY":
        wrapped = difference > 200  # the loss takes 1023 to 1024, of which GDCM keeps 10 bits: 0
        assert wrapped.sum() == 8
        difference = difference[~wrapped]

    assert difference.max() <= (4 if lossy else 0.51)
    assert difference.mean() <= (0.6 if lossy else 0.3)


def test_rsna_agrees_with_gdcm_up_to_what_jpeg_decoders_differ(shared_data: Path) -> None:
    paths = sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))[::14][:50]
    assert len(paths) == 50
    worst, mean = 0, 0.0
    for path in paths:
        difference = np.abs(read_dicom(path).pixels - stored_by_gdcm(path).astype(int))
        worst, mean = max(worst, int(difference.max())), max(mean, float(difference.mean()))
    assert worst <= 2
    assert mean <= 0.05


@pytest.mark.parametrize(
    ("pattern", "tolerance"),
    [
        ("rsna_png/**/*.png", 0),
        ("nih/images/*.png", 0),
        ("covid_hannover/**/*.png", 0),
        ("kermany_full/**/*.jp*g", 3),
        ("nih_mass_boxes/**/*.jpg", 3),
    ],
)
def test_pictures_agree_with_opencv(shared_data: Path, pattern: str, tolerance: int) -> None:
    paths = sorted(shared_data.glob(pattern))[:5]
    assert paths
    for path in paths:
        image = read_image(path)
        other = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert other is not None
        assert np.abs(image.pixels - other.astype(int)).max() <= tolerance, path.name
