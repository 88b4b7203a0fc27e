"""Pictures of every common format: content decides, limits come first, notes say what was done."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import decoded
from data_prep.errors import InputError
from data_prep.images import read_image
from data_prep.schemas import SCHEMAS

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
TURN = {1: GREY, 3: GREY[::-1, ::-1], 6: np.rot90(GREY, 3), 8: np.rot90(GREY)}


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)  # type: ignore[arg-type]
    return path


def rgba(alpha: np.ndarray | int) -> np.ndarray:
    layers = [GREY, GREY, GREY, np.broadcast_to(np.uint8(alpha), GREY.shape)]
    return np.stack(layers, axis=-1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.pgm", "a.gif"])
def test_lossless_grey_keeps_its_values(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    image = read_image(save(tmp_path / name, GREY, **options))
    np.testing.assert_array_equal(image.pixels, GREY)
    assert image.header == {}


def test_jpeg_is_read_within_its_loss(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.jpg", GREY, quality=95))
    assert np.abs(image.pixels.astype(int) - GREY).max() < 12
    assert image.record["decoder"] == "pillow-jpeg"


CONVERTED = [
    ("opaque alpha is dropped", rgba(255), GREY, "opaque alpha channel dropped"),
    ("transparency is laid on black", rgba(0), np.zeros_like(GREY), "transparency laid on black"),
    ("grey stored as colour", rgba(255)[..., :3], GREY, "grey stored as colour"),
    ("colour by luma", np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8), [[76, 150]],
     "colour turned to grey"),
    ("16 bits by the picture's range", np.array([[1000, 2000, 3000]], np.uint16), [[0, 128, 255]],
     "values 1000 to 3000 scaled to 8 bits"),
    ("16 bits of one value", np.full((2, 2), 9, np.uint16), np.zeros((2, 2)), "values 9 to 9"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("array", "expected", "note"), [c[1:] for c in CONVERTED], ids=[c[0] for c in CONVERTED]
)
def test_conversions_are_right_and_noted(
    tmp_path: Path, array: np.ndarray, expected: np.ndarray, note: str
) -> None:
    image = read_image(save(tmp_path / "a.png", array))
    np.testing.assert_array_equal(image.pixels, expected)
    assert note in image.record["warnings"]


def test_palette_and_one_bit_pictures_are_read(tmp_path: Path) -> None:
    palette = read_image(save(tmp_path / "p.png", GREY, "P"))
    np.testing.assert_array_equal(palette.pixels, GREY)
    one_bit = read_image(save(tmp_path / "b.png", (GREY > 100).astype(np.uint8) * 255, "1"))
    assert set(np.unique(one_bit.pixels)) == {0, 255}
    assert one_bit.record["bits"] == 1


def test_float_tiff_with_nan_is_scaled(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32)
    image = read_image(save(tmp_path / "a.tif", values))
    np.testing.assert_array_equal(image.pixels, [[0, 128, 255, 0]])
    assert "NaN" in image.record["warnings"]


@pytest.mark.parametrize("turn", TURN)
def test_camera_rotation_is_applied(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    image = read_image(save(tmp_path / "a.png", GREY, exif=exif))
    np.testing.assert_array_equal(image.pixels, TURN[turn])
    assert image.record["orientation"] == (None if turn == 1 else f"exif-{turn}")


def test_first_of_several_frames_is_read(tmp_path: Path) -> None:
    second = Image.fromarray(255 - GREY)
    path = save(tmp_path / "a.tif", GREY, save_all=True, append_images=[second])
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert image.record["warnings"] == "first of 2 frames"


def test_content_decides_and_not_the_extension(tmp_path: Path, shared_data: Path) -> None:
    png = save(tmp_path / "a.png", GREY).rename(tmp_path / "chest.dcm")
    np.testing.assert_array_equal(read_image(png).pixels, GREY)
    source = shared_data / "dicom_odd" / "dwv__gdcm-CR-MONO1-10-chest.dcm"
    shutil.copyfile(source, tmp_path / "chest.png")
    assert read_image(tmp_path / "chest.png").record["photometric"] == "MONOCHROME1"


def test_record_fits_the_decode_table(tmp_path: Path) -> None:
    record = read_image(save(tmp_path / "a.png", GREY)).record
    columns = SCHEMAS["decode"].columns
    assert {"image_id", *record} <= set(columns)
    assert {name for name, rule in columns.items() if rule.required} <= {"image_id", *record}


def test_equal_pixels_in_different_files_have_one_digest(tmp_path: Path) -> None:
    digests = {
        read_image(save(tmp_path / name, GREY)).record["pixel_sha256"]
        for name in ("a.png", "a.bmp")
    }
    assert len(digests) == 1


# Bad files


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that states a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"patient,label\n1,2\n", "neither DICOM nor a known picture format"),
        (bytes(1000), "neither DICOM nor a known picture format"),
        (png_of_size(12_000, 10), "larger than the limit of 10,000 px"),
        (png_of_size(9_990, 10_000)[:60], "cannot be decoded"),
        (png_of_size(60_000, 60_000), "cannot be decoded|larger than the limit"),
        (png_of_size(100, 100), "cannot be decoded"),
    ],
    ids=["empty", "text", "zeros", "too wide", "huge and cut", "bomb", "too few pixels"],
)
def test_bad_files_get_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_truncated_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError):
        read_image(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is not a file"):
        read_image(tmp_path)


def test_file_beyond_the_size_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "MAX_FILE_BYTES", 20)
    with pytest.raises(InputError, match="larger than the limit"):
        read_image(save(tmp_path / "a.png", GREY))


# Real files


def test_real_sets_of_every_kind_are_read(shared_data: Path) -> None:
    for pattern in ("rsna_png/**/*.png", "nih/images/*.png", "kermany_full/**/*.jp*g",
                    "nih_mass_boxes/**/*.jpg", "odd_images/*"):  # fmt: skip
        kinds = (".png", ".jpg", ".jpeg")
        paths = [path for path in sorted(shared_data.glob(pattern)) if path.suffix in kinds]
        assert paths, pattern
        for path in paths[:3]:
            image = read_image(path)
            assert image.pixels.ndim == 2
            assert np.ptp(image.pixels) > 100


def test_nih_rgba_pictures_keep_their_greys(shared_data: Path) -> None:
    paths = sorted((shared_data / "nih" / "images").glob("*.png"))
    layered = [image for image in map(read_image, paths) if image.record["photometric"] == "RGBA"]
    assert layered
    for image in layered:
        assert image.pixels.shape == (1024, 1024)
        assert image.record["warnings"] == "opaque alpha channel dropped; grey stored as colour"
