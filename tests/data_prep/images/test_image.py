"""Images of every common format: content decides, limits come first, notes say what was done."""

import resource
import shutil
import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from PIL import Image

from cxr_compare.data_prep.images import refused_files
from cxr_compare.data_prep.images.image import read_image

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
TURN = {  # what EXIF 2.3 says of the first row and column: top left, top right, ...
    1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1], 5: GREY.T,
    6: np.rot90(GREY, 3), 7: GREY[::-1, ::-1].T, 8: np.rot90(GREY),
}  # fmt: skip
DEEP = np.random.default_rng(3).integers(200, 3900, (40, 50)).astype(np.uint16)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    pillow = Image.fromarray(array)
    (pillow.convert(mode) if mode else pillow).save(path, **options)  # type: ignore[arg-type]
    return path


def rgba(alpha: np.ndarray | int) -> np.ndarray:
    layers = [GREY, GREY, GREY, np.broadcast_to(np.uint8(alpha), GREY.shape)]
    return np.stack(layers, axis=-1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.pgm", "a.gif"])
def test_lossless_grey_keeps_its_values(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    image = read_image(save(tmp_path / name, GREY, **options))
    np.testing.assert_array_equal(image.pixels, GREY)
    assert image.header == {}


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_file_that_says_it_is_synthetic_is_known_as_such(tmp_path, name):
    exif = Image.Exif()
    exif[0x010E] = "Synthetic chest X-ray, drawn by cxr synth: no patient"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name, exif=exif)
    assert read_image(tmp_path / name).header == {"synthetic": True}


def test_jpeg_is_read_within_its_loss(tmp_path):
    image = read_image(save(tmp_path / "a.jpg", GREY, quality=95))
    assert np.abs(image.pixels.astype(int) - GREY).max() < 12
    assert image.record["decoder"] == "simplejpeg"


CONVERTED = [
    ("opaque alpha is dropped", rgba(255), GREY, "opaque alpha channel dropped"),
    ("transparency is laid on black", rgba(0), np.zeros_like(GREY), "transparency laid on black"),
    ("grey stored as colour", rgba(255)[..., :3], GREY, "grey stored as colour"),
    ("colour by luma", np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8), [[76, 150]],
     "colour turned to grey"),
    ("16 bits by the image's range", np.array([[1000, 2000, 3000]], np.uint16), [[0, 128, 255]],
     "values 1000 to 3000 scaled to 8 bits"),
    ("16 bits of one value", np.full((2, 2), 9, np.uint16), np.zeros((2, 2)), "values 9 to 9"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("array", "expected", "note"), [c[1:] for c in CONVERTED], ids=[c[0] for c in CONVERTED]
)
def test_conversions_are_right_and_noted(tmp_path, array, expected, note):
    image = read_image(save(tmp_path / "a.png", array))
    np.testing.assert_array_equal(image.pixels, expected)
    assert note in image.record["warnings"]


def test_palette_and_one_bit_images_are_read(tmp_path):
    palette = read_image(save(tmp_path / "p.png", GREY, "P"))
    np.testing.assert_array_equal(palette.pixels, GREY)
    one_bit = read_image(save(tmp_path / "b.png", (GREY > 100).astype(np.uint8) * 255, "1"))
    assert set(np.unique(one_bit.pixels)) == {0, 255}
    assert one_bit.record["bits"] == 1


def test_float_tiff_with_nan_is_scaled(tmp_path):
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32)
    image = read_image(save(tmp_path / "a.tif", values))
    np.testing.assert_array_equal(image.pixels, [[0, 128, 255, 0]])
    assert "NaN" in image.record["warnings"]


@pytest.mark.parametrize(
    ("name", "turn"),
    [*(("a.jpg", turn) for turn in TURN), ("a.png", 6), ("a.tif", 6), ("a.webp", 6)],
)
def test_camera_rotation_is_applied(tmp_path, name, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 98}}.get(name, {})
    image = read_image(save(tmp_path / name, GREY, exif=exif, **options))
    np.testing.assert_allclose(image.pixels, TURN[turn], atol=8 if name == "a.jpg" else 0)
    assert image.record["orientation"] == (None if turn == 1 else f"exif-{turn}")


@pytest.mark.parametrize(
    "options",
    [*({"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
     {"big_tiff": True}, {"tile": (16, 16)}, {"strip_size": 16}],
    ids=str,
)  # fmt: skip
def test_tiffs_of_every_kind_keep_their_values(tmp_path, options):
    grey = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    if "tile" in options:
        content = tiff(grey, photometric=1, tile=16)
        (tmp_path / "a.tif").write_bytes(content)
    else:
        save(tmp_path / "a.tif", grey, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, grey)


@pytest.mark.parametrize(("dtype", "order"), [("u1", "<"), ("u1", ">"), ("u2", "<")])
def test_tiff_whose_zero_is_white_is_inverted(tmp_path, dtype, order):
    stored = np.array([[0, 50, 255], [100, 200, 1]], dtype)
    greys = {photometric: tmp_path / f"{photometric}.tif" for photometric in (0, 1)}
    for photometric, path in greys.items():
        path.write_bytes(tiff(stored, photometric=photometric, order=order))
    normal, turned = read_image(greys[1]), read_image(greys[0])
    np.testing.assert_array_equal(normal.pixels, stored)
    np.testing.assert_array_equal(turned.pixels, 255 - stored.astype(int))
    assert (normal.record["inverted"], turned.record["inverted"]) == (False, True)


def tiff(
    values: np.ndarray, *, photometric: int, order: str = "<", tile: int = 0, size: int = 0
) -> bytes:
    """A TIFF by hand: Pillow's own writer hides a zero that is white, and writes no tiles.

    A size states that many px a side, whatever the values are.
    """
    height, width = (size, size) if size else values.shape
    bits = values.dtype.itemsize * 8
    values = values.astype(values.dtype.newbyteorder(order))
    parts = [values.tobytes()]
    if tile:
        padded = np.pad(values, [(0, -height % tile), (0, -width % tile)])
        parts = [
            padded[y : y + tile, x : x + tile].tobytes()
            for y in range(0, height, tile)
            for x in range(0, width, tile)
        ]
    lengths = [len(part) for part in parts]
    starts = list(np.cumsum([8, *lengths[:-1]]))
    tags: list[tuple[int, int, list[int]]] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits]), (259, 3, [1]),
        (262, 3, [photometric]), (277, 3, [1]),
    ]  # fmt: skip
    if tile:
        tags += [(322, 4, [tile]), (323, 4, [tile]), (324, 4, starts), (325, 4, lengths)]
    else:
        tags += [(273, 4, starts), (278, 4, [height]), (279, 4, lengths)]
    body = b"".join(parts)
    place = 8 + len(body) + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, kind, numbers in sorted(tags):
        packed = struct.pack(f"{order}{len(numbers)}{'I' if kind == 4 else 'H'}", *numbers)
        if len(packed) > 4:
            packed, more = struct.pack(order + "I", place + len(more)), more + packed
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return start + body + struct.pack(order + "H", len(tags)) + entries + bytes(4) + more


def test_deep_png_looks_like_the_same_values_in_a_dicom_file_without_window(write_dicom, tmp_path):
    values = DEEP.copy()
    values[0, 0], values[0, 1] = 65535, 0  # two hot pixels must not flatten the rest
    from_png = read_image(save(tmp_path / "a.png", values))
    from_dicom = read_image(write_dicom(tmp_path / "a.dcm", values))
    np.testing.assert_array_equal(from_png.pixels, from_dicom.pixels)
    assert from_png.record["voi"] == from_dicom.record["voi"] == "percentiles"
    assert np.percentile(from_png.pixels, 75) - np.percentile(from_png.pixels, 25) > 100


def deep_png(layers: list[np.ndarray], colour_type: int) -> bytes:
    rows = np.stack(layers, axis=-1).astype(">u2")
    return png_of_size(*DEEP.shape[::-1], 16, colour_type, [row.tobytes() for row in rows])


@pytest.mark.parametrize("turn", [1, 6])
def test_16_bit_grey_stored_as_colour_is_as_deep_as_stored_as_grey(tmp_path, turn):
    opaque = np.full_like(DEEP, 65535)
    expected = read_image(save(tmp_path / "grey.png", DEEP)).pixels
    for layers, kind in (([DEEP] * 3, 2), ([DEEP, opaque], 4), ([*[DEEP] * 3, opaque], 6)):
        (tmp_path / "a.png").write_bytes(deep_png(layers, kind))
        if turn == 6:
            with Image.open(tmp_path / "a.png") as pillow:
                content = (tmp_path / "a.png").read_bytes()
                exif = pillow.getexif()
                exif[0x0112] = turn
            body = exif.tobytes()[6:] if exif.tobytes()[:4] == b"Exif" else exif.tobytes()
            (tmp_path / "a.png").write_bytes(content[:33] + chunk(b"eXIf", body) + content[33:])
        image = read_image(tmp_path / "a.png")
        np.testing.assert_array_equal(image.pixels, np.rot90(expected, 3 if turn == 6 else 0))
        assert image.record["bits"] == 16
        assert "16-bit grey stored as colour" in image.record["warnings"]


def test_16_bit_colour_is_cut_and_noted(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(deep_png([DEEP * 16, DEEP, DEEP], 2))
    assert "16-bit colour cut to 8 bits" in read_image(path).record["warnings"]


def test_cmyk_and_grey_with_alpha_are_read(tmp_path):
    rgb = np.repeat(np.kron(GREY, np.ones((8, 8), np.uint8))[..., None], 3, axis=2)
    image = read_image(save(tmp_path / "a.jpg", rgb, "CMYK", quality=98))
    assert np.abs(image.pixels - rgb[..., 0].astype(int)).max() < 10
    half = np.dstack([GREY, np.full_like(GREY, 128)])
    image = read_image(save(tmp_path / "b.png", half, None))
    assert np.abs(image.pixels - GREY * (128 / 255)).max() <= 1
    assert image.record["warnings"] == "transparency laid on black"


def test_palette_with_transparency_is_laid_on_black(tmp_path):
    pillow = Image.fromarray(GREY).convert("P")
    pillow.save(tmp_path / "a.png", transparency=int(np.asarray(pillow)[2, 3]))
    image = read_image(tmp_path / "a.png")
    expected = GREY.copy()
    expected[np.asarray(pillow) == np.asarray(pillow)[2, 3]] = 0
    np.testing.assert_array_equal(image.pixels, expected)


def test_colour_profile_is_ignored_and_noted(tmp_path):
    image = read_image(save(tmp_path / "a.png", GREY, icc_profile=bytes(128)))
    np.testing.assert_array_equal(image.pixels, GREY)
    assert image.record["warnings"] == "colour profile ignored"


def test_first_of_several_frames_is_read(tmp_path):
    second = Image.fromarray(255 - GREY)
    path = save(tmp_path / "a.tif", GREY, save_all=True, append_images=[second])
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert image.record["warnings"] == "first of several frames"


def test_content_decides_and_not_the_extension(tmp_path, shared_data):
    png = save(tmp_path / "a.png", GREY).rename(tmp_path / "chest.dcm")
    np.testing.assert_array_equal(read_image(png).pixels, GREY)
    source = shared_data / "dicom_odd" / "dwv__gdcm-CR-MONO1-10-chest.dcm"
    shutil.copyfile(source, tmp_path / "chest.png")
    assert read_image(tmp_path / "chest.png").record["photometric"] == "MONOCHROME1"


def test_equal_pixels_in_different_files_have_one_digest(tmp_path):
    digests = {read_image(save(tmp_path / name, GREY)).pixel_sha256 for name in ("a.png", "a.bmp")}
    assert len(digests) == 1


# Bad files


def chunk(kind: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def png_of_size(
    width: int, height: int, bits: int = 8, colour_type: int = 0, rows: Sequence[bytes] = ()
) -> bytes:
    """A PNG that states a size and, without rows, holds next to nothing."""
    size = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows) or bytes(100))
    body = chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def huge(name: str) -> bytes:
    """A valid file of 65,535 px a side, as its header says, with hardly any pixels."""
    if name == "png":
        return png_of_size(65535, 65535)
    if name == "tiff":
        return tiff(np.zeros((4, 4), np.uint8), photometric=1, size=65535)
    if name == "pgm":
        return b"P5 65535 65535 255\n" + bytes(9)
    buffer = BytesIO()
    Image.fromarray(GREY).save(buffer, name)
    content = bytearray(buffer.getvalue())
    if name == "jpeg":
        marker = content.index(b"\xff\xc0")
        content[marker + 5 : marker + 9] = struct.pack(">HH", 65535, 65535)
    elif name == "gif":
        content[6:10] = struct.pack("<HH", 65535, 65535)
    elif name == "bmp":
        content[18:26] = struct.pack("<ii", 65535, 65535)
    return bytes(content)


@pytest.mark.parametrize("name", ["png", "tiff", "pgm", "jpeg", "gif", "bmp"])
def test_huge_image_is_refused_before_memory_is_taken_for_it(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(huge(name))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="larger than the limit"):
        read_image(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10  # KiB; the image would take 4 GiB


BAD_FILES = {
    "empty": (b"", "is empty"),
    "text": (b"patient,label\n1,2\n", "neither DICOM nor a known image format"),
    "no GIF": (b"GIF8 and no image", "or damaged"),
    "zeros": (bytes(1000), "neither DICOM nor a known image format"),
    "too wide": (png_of_size(12_000, 10), "larger than the limit of 10,000 px"),
    "huge and cut": (png_of_size(9_990, 10_000)[:60], "is cut short"),
    "bomb": (png_of_size(60_000, 60_000), "larger than the limit"),
    "rare TIFF": (tiff(DEEP, photometric=0, order=">"), "or damaged"),
    "too few pixels": (png_of_size(100, 100), "is cut short"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_get_one_line(tmp_path, content, reason):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is not a file"):
        read_image(tmp_path)


def test_file_beyond_the_size_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(refused_files, "MAX_FILE_BYTES", 20)
    with pytest.raises(InputError, match="larger than the limit"):
        read_image(save(tmp_path / "a.png", GREY))


# Real files
