"""Every odd DICOM file of the shared folder: read as it was once looked at, or its own reason."""

import csv
from pathlib import Path
from typing import Any

import cv2
import gdcm as _gdcm
import numpy as np
import pydicom
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from pydicom import uid
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from cxr_compare.data_prep.images.image import read_image

with (Path(__file__).parent / "golden_dicom.csv").open(newline="") as _file:
    GOLDEN = {row["file"]: row for row in csv.DictReader(_file)}
_PLACES = ((0.25, 0.25), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (0.75, 0.75))


def odd(shared_data: Path, name: str) -> Path:
    return shared_data / "dicom_odd" / name


def test_every_odd_file_is_in_the_table(shared_data):
    present = {path.name for path in (shared_data / "dicom_odd").iterdir()} - {"INVENTORY.csv"}
    assert present == set(GOLDEN)
    assert len(present) == 55


@pytest.mark.parametrize("name", [name for name, row in GOLDEN.items() if row["refused"]])
def test_what_is_no_image_is_refused_with_its_reason(shared_data, name):
    path = odd(shared_data, name)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert str(error.value) == f"{path}: {GOLDEN[name]['refused']}"


@pytest.mark.parametrize("name", [name for name, row in GOLDEN.items() if not row["refused"]])
def test_image_is_the_one_that_was_looked_at(shared_data, name):
    golden = GOLDEN[name]
    lossy = not golden["digest"]  # another build of a lossy decoder may differ by a grey or two

    image = read_image(odd(shared_data, name))

    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (int(golden["height"]), int(golden["width"]))
    for column, key in (
        ("decoder", "decoder"),
        ("photometric", "photometric"),
        ("modality", "modality_transform"),
        ("voi", "voi"),
        ("notes", "warnings"),
    ):
        assert (image.record[key] or "") == golden[column], column
    assert image.record["inverted"] is (golden["inverted"] == "yes")
    assert image.pixels.mean() == pytest.approx(float(golden["mean"]), abs=0.5 if lossy else 0.005)
    height, width = image.pixels.shape
    points = [int(image.pixels[int(height * y), int(width * x)]) for y, x in _PLACES]
    expected = [int(grey) for grey in golden["points"].split()]
    np.testing.assert_allclose(points, expected, atol=3 if lossy else 0)
    if not lossy:
        assert image.pixel_sha256.startswith(golden["digest"])


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("dicom-test-files__RG3_JLSN", 1.0),
        ("pydicom-data__RG3_J2KI.dcm", 1.0),
        ("dicom-test-files__RG3_JPLY", 1.5),
    ],
    ids=["near-lossless JPEG-LS", "JPEG 2000", "12-bit JPEG"],
)
def test_lossy_codecs_are_close_to_the_same_image_without_loss(shared_data, name, bound):
    exact = read_image(odd(shared_data, "dicom-test-files__RG3_RLE")).pixels.astype(int)
    difference = np.abs(read_image(odd(shared_data, name)).pixels - exact)
    assert difference.mean() < bound


def test_faked_monochrome1_is_the_negative(shared_data):
    name = "torchxrayvision__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
    positive = read_image(odd(shared_data, name)).pixels
    negative = read_image(odd(shared_data, "torchxrayvision__Fake_MONOHR1.dcm")).pixels
    np.testing.assert_array_equal(negative, 255 - positive)


gdcm: Any = _gdcm
GREY = [n for n, row in GOLDEN.items() if row["photometric"].startswith("MONO") and row["voi"]]
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
def test_grey_files_agree_with_gdcm_and_pydicom(shared_data, name):
    path = shared_data / "dicom_odd" / name
    header = pydicom.dcmread(path)
    lossy = header.file_meta.TransferSyntaxUID in LOSSY
    stored = stored_by_gdcm(path)

    expected = displayed_by_pydicom(stored, header)
    difference = np.abs(read_image(path).pixels - expected)
    if name == "dicom-test-files__RG3_JPLY":
        wrapped = difference > 200  # the loss takes 1023 to 1024, of which GDCM keeps 10 bits: 0
        assert wrapped.sum() == 8
        difference = difference[~wrapped]

    assert difference.max() <= (4 if lossy else 0.51)
    assert difference.mean() <= (0.6 if lossy else 0.3)


def test_rsna_agrees_with_gdcm_up_to_what_jpeg_decoders_differ(shared_data):
    paths = sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))[::14][:50]
    assert len(paths) == 50
    worst, mean = 0, 0.0
    for path in paths:
        difference = np.abs(read_image(path).pixels - stored_by_gdcm(path).astype(int))
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
def test_images_agree_with_opencv(shared_data, pattern, tolerance):
    paths = sorted(shared_data.glob(pattern))[:5]
    assert paths
    for path in paths:
        image = read_image(path)
        other = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert other is not None
        assert np.abs(image.pixels - other.astype(int)).max() <= tolerance, path.name
