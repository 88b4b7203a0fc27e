"""Images that are cut short, damaged or replaced by noise: never read as if they were whole."""

from io import BytesIO

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images import dicom
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.serving.guard import file_warnings
from tests.small_dicom import image_file
from tools.attacks import cuts

SIDE = 96
Y, X = np.mgrid[:SIDE, :SIDE] / SIDE
FILM = (900 + 700 * np.sin(5 * X) * np.cos(4 * Y)).astype(np.uint16)
FILM += np.random.default_rng(5).integers(0, 12, FILM.shape, np.uint16)
GREY = (FILM >> 3).astype(np.uint8)


def jpeg(image: np.ndarray = GREY, **options: object) -> bytes:
    return image_file(image, "JPEG", quality=90, **options)


def read(tmp_path, content: bytes):
    (tmp_path / "a.img").write_bytes(content)
    return read_image(tmp_path / "a.img")


def test_no_image_cut_short_is_read_as_if_it_were_whole(tmp_path):
    films = cuts.dicoms(GREY, FILM, 12, tmp_path)
    total = cuts.attack(films, cuts.plain_files(GREY, FILM), tmp_path)
    assert [key for key in total if ": " in key] == []
    assert total["cut short"] > 400


@pytest.mark.release
@pytest.mark.filterwarnings("ignore")
def test_no_real_radiograph_cut_short_is_read_as_if_it_were_whole(tmp_path, shared_data):
    total = cuts.attack(cuts.real_films(shared_data), {}, tmp_path)
    assert [key for key in total if ": " in key] == []
    assert total["cut short"] > 150


def test_no_syntax_without_an_encoder_here_is_read_cut(coded_files, tmp_path, monkeypatch):
    monkeypatch.setattr(cuts, "SHARES", (10, 25, 50, 75, 90))  # 99 % lacks the end marker alone
    names = [uid.HTJ2KLossless, uid.HTJ2K, uid.JPEGExtended12Bit]
    films = {uid.UID(name).name: pydicom.dcmread(coded_files[name]) for name in names}
    assert [key for key in cuts.attack(films, {}, tmp_path) if ": " in key] == []


def test_jpeg_of_too_many_scans_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_compare.data_prep.images.jpeg.MAX_SCANS", 3)
    with pytest.raises(InputError, match=r"\b3 scans"):
        read(tmp_path, jpeg(progressive=True))


@pytest.mark.parametrize(
    ("spoil", "doubted"),
    [
        (lambda whole: whole[:-2] + bytes(9) + whole[-2:], False),
        (lambda whole: whole + b"and more", False),
        (lambda whole: whole[:11] + b"\x09" + whole[12:], True),
        (lambda whole: whole.replace(b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00",
                                     b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"), True),
    ],
    ids=["padded", "more behind", "unknown JFIF", "scan without its coefficients"],
)  # fmt: skip
def test_odd_jpeg_that_lacks_no_pixel_is_read_and_doubted_where_damage_may_hide(
    tmp_path, spoil, doubted
):
    whole = jpeg()
    spoilt = spoil(whole)
    assert spoilt != whole
    image = read(tmp_path, spoilt)
    np.testing.assert_array_equal(image.pixels, np.asarray(Image.open(BytesIO(whole))))
    assert bool(image.doubts) is doubted


def test_file_that_decodes_to_noise_is_doubted(tmp_path):
    noise = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    cuts.plain_header(noise, 12).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = read_image(tmp_path / "a.dcm")
    assert image.doubts == ("decodes to noise: the file seems damaged",)
    assert image.doubts[0] in file_warnings(tmp_path / "a.dcm", image)


def test_header_beyond_any_radiograph_is_refused_in_one_line(tmp_path, monkeypatch):
    header = cuts.plain_header(FILM, 12)
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with monkeypatch.context() as patched:
        patched.setattr(dicom, "MAX_HEADER_READS", 20)
        with pytest.raises(InputError, match="too many elements"):
            read_image(tmp_path / "a.dcm")
    header.PixelData = b""
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="its pixel data are empty"):
        read_image(tmp_path / "a.dcm")


def test_upper_bits_of_a_lossless_jpeg_are_read_as_those_of_its_uncompressed_copy(tmp_path):
    whole, pixels = cuts.plain_header(FILM << 4, 16), []
    coded = cuts.lossless_jpeg(whole, gdcm.TransferSyntax.JPEGLosslessProcess14_1, tmp_path)
    for copy in (whole, coded):
        copy.BitsStored, copy.HighBit = 12, 15
        copy.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        pixels.append(read_image(tmp_path / "a.dcm").pixels)
    assert np.array_equal(*pixels)
