"""Images that are cut short, damaged or replaced by noise: never read as if they were whole."""

from io import BytesIO

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import get_frame

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images import dicom
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.lossless_jpeg import (
    PREDICTORS,
    count_lossless_bits,
    lossless_doubts,
)
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


def test_progressive_jpeg_without_its_last_scans_is_doubted(tmp_path):
    whole = jpeg(progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    tables = whole.rindex(b"\xff\xc4", 0, scans[-1])  # of the last scan
    image = read(tmp_path, whole[:tables] + b"\xff\xd9")
    assert "its coefficients are missing or coarse" in image.doubts[0]
    assert image.doubts[0] in image.record["warnings"]
    assert file_warnings(tmp_path / "a.img", image) == image.doubts


def test_jpeg_of_too_many_scans_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_compare.data_prep.images.jpeg.MAX_SCANS", 3)
    with pytest.raises(InputError, match=r"\b3 scans"):
        read(tmp_path, jpeg(progressive=True))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[:-2],
        lambda whole: whole[:-2] + bytes(9) + whole[-2:],
        lambda whole: whole + b"and more",
        lambda whole: whole[:11] + b"\x09" + whole[12:],
        lambda whole: whole.replace(b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00",
                                    b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"),
    ],
    ids=["no end", "padded", "more behind", "unknown JFIF", "scan without its coefficients"],
)  # fmt: skip
def test_jpeg_that_lacks_no_pixel_is_read_without_doubt(tmp_path, spoil):
    whole = jpeg()
    spoilt = spoil(whole)
    assert spoilt != whole
    image = read(tmp_path, spoilt)
    np.testing.assert_array_equal(image.pixels, np.asarray(Image.open(BytesIO(whole))))
    assert image.doubts == ()


def lossless(film: np.ndarray, bits: int, predictor: int, shift: int, rows: int) -> bytes:
    """A lossless JPEG as T.81 H.1 says, with a code of 5 bits for each size, restarted by rows."""
    values, codes = film.astype(int) >> shift, ""
    parts = []
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            left, above = values[y, x - 1], values[y - 1, x]
            corner = values[y - 1, x - 1]
            if y % rows == 0:
                guess = left if x else 1 << (bits - shift - 1)
            else:
                guess = PREDICTORS[predictor](left, above, corner) if x else above
            difference = (int(value) - int(guess) + 32768) % 65536 - 32768
            size = abs(difference).bit_length()
            low = difference if difference >= 0 else difference + (1 << size) - 1
            codes += f"{size:05b}" + (f"{low:0{size}b}" if 0 < size < 16 else "")
        if (y + 1) % rows == 0 or y + 1 == len(values):
            codes += "1" * (-len(codes) % 8)
            parts.append(int(codes, 2).to_bytes(len(codes) // 8, "big").replace(b"\xff", b"\xff\0"))
            codes = ""
    size = b"".join(side.to_bytes(2, "big") for side in film.shape)
    header = b"\xff\xd8\xff\xc3\x00\x0b" + bytes([bits]) + size + b"\x01\x01\x11\x00"
    header += b"\xff\xc4\x00\x24\x00" + bytes([0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    header += b"\xff\xdd\x00\x04" + (rows * film.shape[1]).to_bytes(2, "big")
    header += b"\xff\xda\x00\x08\x01\x01\x00" + bytes([predictor, 0, shift])
    data = b"".join(bytes([*part, 0xFF, 0xD0 + k % 8]) for k, part in enumerate(parts))
    return header + data[:-2] + b"\xff\xd9"


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("shift", "rows"), [(0, 40), (2, 7)])
def test_bits_of_a_lossless_jpeg_are_those_that_its_pixels_need(predictor, shift, rows):
    film = np.random.default_rng(predictor).integers(0, 65536, (40, 30)).astype(np.uint16)
    film[10:20, 10:20] = 7  # noise is of every size of difference, and this of none
    frame = lossless(film, 16, predictor, shift, rows)
    stored = film >> shift << shift
    bits = count_lossless_bits(frame, stored)
    assert bits.parts == -(-40 // rows)
    assert 0 <= bits.present - bits.needed_by_row.sum() <= 7 * bits.parts
    assert lossless_doubts("a", frame, stored) == []
    assert len(lossless_doubts("a", frame, np.zeros_like(film))) == 1


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


def test_frame_without_its_tiles_is_refused(tmp_path):
    film = cuts.dicoms(GREY, FILM, 12, tmp_path)["JPEG 2000 lossless, tiles"]
    frame = get_frame(film.PixelData, 0, number_of_frames=1)
    third = [at for at in range(len(frame)) if frame[at : at + 4] == b"\xff\x90\x00\x0a"][2]
    lacking = cuts.with_frame(film, uid.JPEG2000Lossless, frame[:third] + b"\xff\xd9")
    lacking.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"\b2 of 16\b"):
        read_image(tmp_path / "a.dcm")
