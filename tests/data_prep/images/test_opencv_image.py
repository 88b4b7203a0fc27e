"""Without Pillow: the same pixels by OpenCV, or a line that names what to install."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.pixels.decoders.base import Decoder

from data_prep.contracts.errors import InputError
from data_prep.images import image as images
from data_prep.images.decoded_image import DecodedImage, grey_from_rgb
from data_prep.images.image import read_image

RNG = np.random.default_rng(11)
SMOOTH = (np.add.outer(np.arange(40), np.arange(50)) * 2.5).astype(np.uint8)
COLOURED = np.dstack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH])
ALPHA = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
DEEP = RNG.integers(200, 3900, (40, 50)).astype(np.uint16)
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "grey.png": (SMOOTH, {}),
    "deep.png": (DEEP, {}),
    "colour.png": (COLOURED, {}),
    "alpha.png": (np.dstack([COLOURED, ALPHA]), {}),
    "opaque.png": (np.dstack([COLOURED, np.full_like(ALPHA, 255)]), {}),
    "transparent_grey.png": (SMOOTH, {"transparency": 10}),
    "grey.jpg": (SMOOTH, {"quality": 90}),
    "colour.jpg": (COLOURED, {"quality": 90}),
    "progressive.jpg": (COLOURED, {"quality": 70, "progressive": True}),
    "grey.bmp": (SMOOTH, {}),
    "colour.bmp": (COLOURED, {}),
    "grey.tif": (SMOOTH, {}),
    "deep.tif": (DEEP, {}),
    "packed.tif": (DEEP, {"compression": "tiff_lzw"}),
    "colour.tif": (COLOURED, {}),
    "white_is_zero.tif": (DEEP, {"tiffinfo": {262: 0}}),
    "white_is_zero_8.tif": (SMOOTH, {"tiffinfo": {262: 0}}),
    "colour.webp": (COLOURED, {"lossless": True}),
    "lossy.webp": (COLOURED, {"quality": 60}),
    "alpha.webp": (np.dstack([COLOURED, ALPHA]), {"lossless": True, "exact": True}),
}


@pytest.fixture
def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "find_spec", lambda name: None)


def _without(monkeypatch: pytest.MonkeyPatch, path: Path) -> DecodedImage:
    with monkeypatch.context() as patch:
        patch.setattr(images, "find_spec", lambda name: None)
        return read_image(path)


def _require_same(one: DecodedImage, other: DecodedImage) -> None:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.colour == other.colour
    kept = ("bits", "inverted", "orientation", "voi", "warnings", "pixel_sha256")
    assert [one.record[name] for name in kept] == [other.record[name] for name in kept]


@pytest.mark.parametrize("name", KINDS)
def test_opencv_gives_the_pixels_of_pillow(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array, options = KINDS[name]
    Image.fromarray(array).save(tmp_path / name, **options)
    _require_same(_without(monkeypatch, tmp_path / name), read_image(tmp_path / name))


@pytest.mark.parametrize("mode", ["P", "LA", "1"])
def test_palettes_grey_with_alpha_and_one_bit_are_the_same(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([COLOURED, ALPHA]), "RGBA").convert(mode).save(path)
    by_opencv, by_pillow = _without(monkeypatch, path), read_image(path)
    np.testing.assert_array_equal(by_opencv.pixels, by_pillow.pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_camera_rotation_is_the_same(
    turn: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(COLOURED).save(tmp_path / name, exif=exif)
    _require_same(_without(monkeypatch, tmp_path / name), read_image(tmp_path / name))


@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("packed")])
@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.usefixtures("without_pillow")
def test_a_file_that_is_cut_short_is_refused(name: str, share: float, tmp_path: Path) -> None:
    array, options = KINDS[name]
    path = tmp_path / name
    Image.fromarray(array).save(path, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=name):
        read_image(path)


@pytest.mark.usefixtures("without_pillow")
def test_what_needs_pillow_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.fromarray(SMOOTH).save(path)
    with pytest.raises(InputError, match="needs Pillow, which is not installed: pip install"):
        read_image(path)
    Image.fromarray(np.dstack([COLOURED, ALPHA]), "CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="a JPEG file of 4 colours, 8 bits needs Pillow"):
        read_image(tmp_path / "a.jpg")


def test_luma_is_pillows_for_every_kind_of_colour() -> None:
    rgb = RNG.integers(0, 256, (500, 700, 3), dtype=np.uint8)
    np.testing.assert_array_equal(grey_from_rgb(rgb), np.asarray(Image.fromarray(rgb).convert("L")))


def test_real_images_have_the_same_pixels(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of every set of PNG and JPEG files."""
    found = 0
    for folder in ("nih", "rsna_png", "kermany_224", "covid_hannover"):
        paths = [
            p for p in (shared_data / folder).rglob("*") if p.suffix in (".png", ".jpeg", ".jpg")
        ]
        for path in sorted(paths)[:3]:
            _require_same(_without(monkeypatch, path), read_image(path))
            found += 1
    assert found > 5


def test_compressed_dicom_files_have_the_same_pixels(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted((shared_data / "rsna").rglob("*.dcm"))[:4]
    assert paths
    expected = [read_image(path) for path in paths]
    monkeypatch.setattr(Decoder, "available_plugins", property(lambda self: ()))
    for path, image in zip(paths, expected, strict=True):
        again = read_image(path)
        assert again.record["transfer_syntax"] == uid.JPEGBaseline8Bit
        assert again.record["decoder"] == "opencv"
        np.testing.assert_array_equal(again.pixels, image.pixels)


def test_a_frame_that_no_decoder_reads_names_the_package(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decoder, "available_plugins", property(lambda self: ()))
    monkeypatch.setitem(sys.modules, "gdcm", None)
    refused = []
    for path in sorted((shared_data / "dicom_odd").rglob("*.dcm")):
        try:
            read_image(path)
        except InputError as error:
            refused.append(str(error))
    assert any("needs python-gdcm, which is not installed: pip install" in text for text in refused)
