"""Pixels at full depth: pydicom's own modality LUT on real files, and what 8 bits show of them."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from cxr_compare.data_prep.images.deep_pixels import DeepPixels
from cxr_compare.data_prep.images.image import read_image
from tests.data_prep.images.test_dicom_golden import GOLDEN

GREY = [
    name for name, row in GOLDEN.items()
    if not row["refused"] and row["photometric"].startswith("MONOCHROME")
]  # fmt: skip
WriteDicom = Callable[..., Path]
RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def as_8_bits(deep: DeepPixels) -> np.ndarray:
    """What a viewer shows between black and white."""
    shown = (deep.values - deep.black) / (deep.white - deep.black)
    return np.rint(np.clip(shown, 0, 1) * 255)


@pytest.mark.parametrize("name", GREY)
def test_real_files_keep_what_pydicom_gives_before_the_window(shared_data, name):
    path = shared_data / "dicom_odd" / name
    image = read_image(path, deep=True)
    deep = image.deep
    assert deep is not None
    assert (deep.values.dtype, deep.values.shape) == (np.uint16, image.pixels.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, force=True)
        if "J2K_pixelrep" in name or "TransferSyntaxUID" not in header.file_meta:
            pytest.skip("pydicom needs a hand to read it")
        try:
            stored = header.pixel_array
        except RuntimeError:
            pytest.skip("pydicom alone cannot decode it")
        expected = apply_modality_lut(stored, header).astype(np.float64)
    if expected.ndim == 3:
        expected = expected[0]
    inside = np.ones(expected.shape, bool)
    if "PixelPaddingValue" in header:
        inside = stored != header.PixelPaddingValue
    if image.record["inverted"]:
        expected = -expected
    got = deep.values[inside].astype(np.float64)
    differences = got - expected[inside]
    if header.BitsStored > 8:
        assert got.min() == 0
    np.testing.assert_allclose(differences, differences.min(), atol=1e-6)


@pytest.mark.parametrize("name", GREY)
def test_the_window_of_the_file_shows_the_image_that_is_read(shared_data, name):
    image = read_image(shared_data / "dicom_odd" / name, deep=True)
    assert image.deep is not None
    if image.record["voi"] in ("lut", "window_sigmoid"):
        return  # curves; black and white alone are theirs
    padding = "padding" in (image.record["warnings"] or "")
    shown = as_8_bits(image.deep)
    off = np.abs(shown - image.pixels)
    assert np.quantile(off, 0.5 if padding else 1.0) <= 1


def test_real_radiographs_of_eight_bits_stay_as_they_are(shared_data):
    for path in sorted((shared_data / "rsna").rglob("*.dcm"))[:5]:
        image = read_image(path, deep=True)
        assert image.deep is not None
        np.testing.assert_array_equal(image.deep.values, image.pixels)
        assert (image.deep.black, image.deep.white) == (0, 255)


CASES = {
    "plain": ({}, RAMP.astype(float), (0, 4095)),
    "window": ({"WindowCenter": 2048, "WindowWidth": 1001}, RAMP.astype(float), (1547.5, 2547.5)),
    "exact": (
        {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
        RAMP.astype(float),
        (1500, 2500),
    ),
    "rescale": (
        {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 0, "WindowWidth": 101},
        RAMP * 2.0,
        (1024 - 50.5, 1024 + 49.5),
    ),
    "falling": ({"RescaleSlope": -1, "RescaleIntercept": 0}, 4095.0 - RAMP, None),
    "negative": (
        {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1000.5, "WindowWidth": 1001},
        4095.0 - RAMP,
        (4095 - 1500, 4095 - 500),
    ),
    "padding": (
        {"PixelPaddingValue": 0, "WindowCenter": 2048.5, "WindowWidth": 1001},
        np.where(RAMP == 0, 0, RAMP - 1.0),
        (1547, 2547),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_depth_by_hand(write_dicom, tmp_path, case):
    header, expected, ends = CASES[case]
    deep = read_image(write_dicom(tmp_path / "a.dcm", RAMP, bits_stored=12, **header), deep=True)
    assert deep.deep is not None
    np.testing.assert_array_equal(deep.deep.values, expected)
    if ends and "WindowCenter" in header:
        assert (deep.deep.black, deep.deep.white) == ends


def test_slopes_below_one_keep_all_levels_apart(write_dicom, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, bits_stored=12, RescaleSlope="0.01")
    deep = read_image(path, deep=True).deep
    assert deep is not None
    assert (np.diff(deep.values.ravel().astype(int)) > 0).all()
    assert deep.values.max() == 65535


def test_a_voi_table_gives_its_first_and_last_value(write_dicom, tmp_path):
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 1000, 8])
    table.add_new("LUTData", "US", list(range(256)))
    path = write_dicom(tmp_path / "a.dcm", RAMP, bits_stored=12, VOILUTSequence=[table])
    deep = read_image(path, deep=True).deep
    assert deep is not None
    assert (deep.black, deep.white) == (1000, 1255)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_plain_files_keep_their_depth(tmp_path, bits, suffix):
    values = (RAMP + 100).astype(np.uint16) if bits == 16 else (RAMP >> 4).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path)
    image = read_image(path, deep=True)
    assert image.deep is not None
    np.testing.assert_array_equal(image.deep.values, RAMP if bits == 16 else values)
    np.testing.assert_allclose(as_8_bits(image.deep), image.pixels, atol=1)


def test_a_deep_file_is_turned_and_inverted_like_its_8_bits(tmp_path):
    path = tmp_path / "a.tif"
    exif = Image.Exif()
    exif[0x0112], exif[0x0106] = 6, 0
    Image.fromarray(RAMP).save(path, exif=exif, tiffinfo=exif)
    image = read_image(path, deep=True)
    assert image.deep is not None
    assert image.record["inverted"]
    np.testing.assert_allclose(as_8_bits(image.deep), image.pixels, atol=1)


def test_floating_point_values_that_are_not_finite_are_at_the_ends():
    deep = DeepPixels.from_values(np.array([np.nan, -np.inf, -1.0, 3.0, np.inf]), -1, 3)
    assert deep.values.tolist() == [0, 0, 0, 4, 4]
    assert (deep.black, deep.white) == (0, 4)


def test_nothing_deep_is_kept_where_nobody_asked(write_dicom, tmp_path):
    assert read_image(write_dicom(tmp_path / "a.dcm", RAMP)).deep is None
