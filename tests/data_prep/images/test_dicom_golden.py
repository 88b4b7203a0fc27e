"""Every odd DICOM file of the shared folder: read as it was once looked at, or its own reason."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import get_frame

from data_prep.contracts.errors import InputError
from data_prep.images.dicom import read_dicom
from data_prep.images.dicom_frames import read_codestream

with (Path(__file__).parent / "golden_dicom.csv").open(newline="") as _file:
    GOLDEN = {row["file"]: row for row in csv.DictReader(_file)}
_PLACES = ((0.25, 0.25), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (0.75, 0.75))


def odd(shared_data: Path, name: str) -> Path:
    return shared_data / "dicom_odd" / name


def test_every_odd_file_is_in_the_table(shared_data: Path) -> None:
    present = {path.name for path in (shared_data / "dicom_odd").iterdir()} - {"INVENTORY.csv"}
    assert present == set(GOLDEN)
    assert len(present) == 55


@pytest.mark.parametrize("name", [name for name, row in GOLDEN.items() if row["refused"]])
def test_what_is_no_picture_is_refused_for_its_own_reason(shared_data: Path, name: str) -> None:
    path = odd(shared_data, name)
    with pytest.raises(InputError) as error:
        read_dicom(path)
    assert str(error.value) == f"{path}: {GOLDEN[name]['refused']}"


@pytest.mark.parametrize("name", [name for name, row in GOLDEN.items() if not row["refused"]])
def test_picture_is_the_one_that_was_looked_at(shared_data: Path, name: str) -> None:
    golden = GOLDEN[name]
    lossy = not golden["digest"]  # another build of a lossy decoder may differ by a grey or two

    image = read_dicom(odd(shared_data, name))

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
        assert image.record["pixel_sha256"].startswith(golden["digest"])


def test_lossless_codecs_agree_to_the_bit() -> None:
    chest = ["dicom-test-files__RG3_RLE", "pydicom-data__RG3_J2KR.dcm"]
    head = [
        f"pydicom__MR_small{kind}.dcm"
        for kind in ("", "_RLE", "_bigendian", "_jp2klossless", "_jpeg_ls_lossless", "_padded")
    ]
    for names in (chest, head):
        assert len({GOLDEN[name]["digest"] for name in names}) == 1


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("dicom-test-files__RG3_JLSN", 1.0),
        ("pydicom-data__RG3_J2KI.dcm", 1.0),
        ("dicom-test-files__RG3_JPLY", 1.5),
    ],
    ids=["near-lossless JPEG-LS", "JPEG 2000", "12-bit JPEG"],
)
def test_lossy_codecs_are_close_to_the_same_picture_without_loss(
    shared_data: Path, name: str, bound: float
) -> None:
    exact = read_dicom(odd(shared_data, "dicom-test-files__RG3_RLE")).pixels.astype(int)
    difference = np.abs(read_dicom(odd(shared_data, name)).pixels - exact)
    assert difference.mean() < bound


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("torchxrayvision__Fake_MONOHR1.dcm", 8),
        ("pydicom__JPGExtended.dcm", 12),
        ("fo-dicom__CR-ModalitySequenceLUT.dcm", 10),
        ("pydicom__JPEGLSNearLossless_16.dcm", 16),
        ("pydicom-data__RG1_J2KI.dcm", 15),
    ],
    ids=["baseline", "12-bit extended", "lossless JPEG", "JPEG-LS", "JPEG 2000"],
)
def test_codestream_says_what_is_inside(shared_data: Path, name: str, bits: int) -> None:
    header = pydicom.dcmread(odd(shared_data, name))
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    assert read_codestream(frame) == (header.Columns, header.Rows, bits, 1)


def test_faked_monochrome1_is_the_negative(shared_data: Path) -> None:
    name = "torchxrayvision__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
    positive = read_dicom(odd(shared_data, name)).pixels
    negative = read_dicom(odd(shared_data, "torchxrayvision__Fake_MONOHR1.dcm")).pixels
    np.testing.assert_array_equal(negative, 255 - positive)
