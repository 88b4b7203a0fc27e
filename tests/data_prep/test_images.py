"""Image files: what is cut or damaged is never read as if it were whole, and copies stay known."""

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.encaps import encapsulate, get_frame

from tests.adapters import images, storage
from tests.cases import load
from tests.dicom_files import file_content
from tests.small_dicom import as_file, chest, dicom_image, image_file, write_dicom

CUTS = (0.1, 0.3, 0.5, 0.75, 0.9, 0.99, -1, -2, -4, -16)  # shares that are kept, or bytes less
END_OF_IMAGE = b"\xff\xd9"
FILM = chest(3, 96, 80).astype(np.uint16) * 12
GREY = chest(3, 96, 80)


def cut(content, amount):
    return content[: int(len(content) * amount)] if amount > 0 else content[:amount]


def film(frame, syntax, bits=8):
    """A DICOM file around a frame: of a transfer syntax, or with the header of a case."""
    if isinstance(syntax, pydicom.Dataset):
        syntax.PixelData = encapsulate([frame])
        return as_file(syntax)
    values = GREY if bits == 8 else FILM
    data = dicom_image(
        values, bits_stored=bits, syntax=syntax, pixel_data=encapsulate([frame]), Modality="DX"
    )
    return as_file(data)


def compressed(syntax, **options):
    data = dicom_image(FILM, bits_stored=12)
    data.compress(syntax, FILM, generate_instance_uid=False, **options)
    return get_frame(data.PixelData, 0, number_of_frames=1)


def frames():
    """Frames of the forms that archives hold: name, content, transfer syntax, bits."""
    grey = Image.fromarray(GREY)
    for name, options in (
        ("baseline", {}),
        ("optimised", {"optimize": True}),
        ("restarts", {"restart_marker_blocks": 10}),
        ("progressive", {"progressive": True}),
    ):
        content = image_file(grey, "JPEG", quality=90, **options)
        yield f"JPEG {name}", content, uid.JPEGBaseline8Bit, 8
    yield "RLE", compressed(uid.RLELossless), uid.RLELossless, 12
    for name, options in (("one tile", {}), ("tiles", {"tile_size": (32, 32)})):
        content = image_file(FILM, "JPEG2000", no_jp2=True, irreversible=False, **options)
        yield f"JPEG 2000, {name}", content, uid.JPEG2000Lossless, 12
    content = image_file(FILM, "JPEG2000", no_jp2=True, irreversible=True, quality_layers=[20, 8])
    yield "lossy JPEG 2000", content, uid.JPEG2000, 12
    for case in load("inputs/dicom.json"):  # of encoders that are not here
        values = case.values[0]
        inside = values["input"].get("syntax", "")
        if inside.startswith(("JPEGL", "HTJ2K")) and "refused" not in values:
            data = pydicom.dcmread(BytesIO(file_content(values["input"])))
            yield inside, get_frame(data.PixelData, 0, number_of_frames=1), data, 12


def plain_files():
    grey = Image.fromarray(GREY)
    colour = Image.merge("RGB", [grey, grey.transpose(0), grey])
    for progressive in (False, True):
        yield "a.jpg", image_file(grey, "JPEG", progressive=progressive)
        yield "c.jpg", image_file(colour, "JPEG", progressive=progressive)
    yield "cmyk.jpg", image_file(colour.convert("CMYK"), "JPEG")
    for kind, image in (("grey", grey), ("deep", Image.fromarray(FILM)), ("rgb", colour)):
        yield f"{kind}.png", image_file(image, "PNG")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"{compression}.tif", image_file(grey, "TIFF", compression=compression)
    for lossless in (False, True):
        yield "a.webp", image_file(grey, "WEBP", lossless=lossless)
    for kind in ("GIF", "BMP", "PPM"):
        yield f"a.{kind}", image_file(grey, kind)


def judged(path, content, whole):
    """The outcome of a damaged file: refused, doubted, same or FALSE."""
    path.write_bytes(content)
    kind, *found = images.read(path)
    if kind == "refused":
        assert found[0].startswith(f"{path}: ")
        assert "\n" not in found[0]
        return kind
    if np.array_equal(found[0], whole):
        return "same"
    return "doubted" if found[2] else "FALSE"


def whole_greys(path, content):
    path.write_bytes(content)
    kind, *found = images.read(path)
    assert kind == "read", found
    return found[0]


def test_no_dicom_file_that_is_cut_is_read_as_if_it_were_whole(tmp_path):
    path, outcomes = tmp_path / "a.dcm", []
    for name, frame, syntax, bits in frames():
        content = film(frame, syntax, bits)
        whole = whole_greys(path, content)
        damaged = [cut(content, amount) for amount in CUTS]
        damaged += [film(cut(frame, amount), syntax, bits) for amount in CUTS]
        if syntax != uid.RLELossless:
            ended = [cut(frame, share) + END_OF_IMAGE for share in CUTS[:5]]
            damaged += [film(each, syntax, bits) for each in ended]
        outcomes += [(judged(path, each, whole), name, n) for n, each in enumerate(damaged)]
    plain = as_file(dicom_image(FILM, bits_stored=12))
    whole = whole_greys(path, plain)
    outcomes += [(judged(path, cut(plain, amount), whole), "plain", amount) for amount in CUTS]
    assert [each for each in outcomes if each[0] == "FALSE"] == []
    assert sum(each[0] == "refused" for each in outcomes) > 200


def test_no_other_image_file_that_is_cut_is_read_as_if_it_were_whole(tmp_path):
    outcomes = []
    for name, content in plain_files():
        path = tmp_path / name
        whole = whole_greys(path, content)
        damaged = [cut(content, amount) for amount in CUTS]
        if name.endswith("jpg"):
            damaged += [cut(content, share) + END_OF_IMAGE for share in CUTS[:5]]
        outcomes += [(judged(path, each, whole), name, n) for n, each in enumerate(damaged)]
    assert [each for each in outcomes if each[0] == "FALSE"] == []
    assert sum(each[0] == "refused" for each in outcomes) > 150


def mutated(content, draw):
    """One random damage: cut, flip, overwrite, extremes, move, or noise behind a valid start."""
    damaged, size = bytearray(content), len(content)
    end = min(size, 1200) if draw.random() < 0.5 else size  # headers matter more
    places = draw.integers(0, end, int(draw.integers(1, 9)))
    kind = int(draw.integers(6))
    if kind == 0:
        return content[: int(draw.integers(0, size))]
    if kind == 1:
        for place in places:
            damaged[place] ^= 1 << int(draw.integers(8))
    elif kind == 2:
        fill = int(draw.choice([0x00, 0x01, 0x7F, 0x80, 0xFF]))
        damaged[places[0] : places[0] + 4] = bytes([fill]) * 4
    elif kind == 3:
        start, stop = sorted(int(place) for place in draw.integers(0, end, 2))
        del damaged[start:stop]
    elif kind == 4:
        start, stop = sorted(int(place) for place in draw.integers(0, end, 2))
        damaged[places[0] : places[0]] = damaged[start:stop]
    else:
        kept = int(draw.choice([4, 12, 132, 400]))
        damaged[kept:] = draw.bytes(int(draw.integers(0, 2000)))
    return bytes(damaged)


def test_a_damaged_file_gives_one_line_or_an_image(tmp_path):
    seeds = list(plain_files())
    seeds += [("a.dcm", film(*each[1:])) for each in frames()]
    draw = np.random.default_rng(2)
    kinds = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none reaches the screen
        for number in range(600):
            name, content = seeds[number % len(seeds)]
            path = tmp_path / name
            path.write_bytes(mutated(content, draw))
            kind, *found = images.read(path)
            kinds.append(kind)
            if kind == "refused":
                assert found[0].startswith(f"{path}: ")
                assert "\n" not in found[0]
                assert len(found[0]) - len(str(path)) < 340
            else:
                assert (found[0].dtype, found[0].ndim) == (np.uint8, 2)
    assert kinds.count("refused") > 200
    assert kinds.count("read") > 50


# Names


NAME = "JANE"
WRITTEN = (
    "DOE^JANE", "DOE^JANE O'NEIL", "O'\"JANE^DOE\"'", 'D"OE^JANE', "JANE=\\\\JANE", "\x1b$JANE\xff"
)  # fmt: skip
READ_BY_THE_DECODER = (
    "BitsAllocated", "BitsStored", "BurnedInAnnotation", "BodyPartExamined", "Columns", "HighBit",
    "ImageType", "ImagerPixelSpacing", "LossyImageCompression", "Manufacturer", "Modality",
    "NumberOfFrames", "PatientAge", "PatientID", "PatientName", "PatientOrientation", "PatientSex",
    "PhotometricInterpretation", "PixelPaddingValue", "PixelRepresentation", "PixelSpacing",
    "PlanarConfiguration", "PresentationLUTShape", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "Rows", "SOPInstanceUID", "SamplesPerPixel", "SpecificCharacterSet",
    "StudyDate", "StudyInstanceUID", "VOILUTFunction", "ViewPosition", "WindowCenter",
    "WindowCenterWidthExplanation", "WindowWidth",
)  # fmt: skip


def write_with(path, keyword, value):
    """Write a good image, then put raw bytes into one element, whatever its type."""
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    write_dicom(path, pixels, Modality="DX", SOPClassUID=uid.DigitalXRayImageStorageForPresentation)
    whole = path.read_bytes()
    tag = int(tag_for_keyword(keyword) or 0)
    value += b" " * (len(value) % 2)
    kind = dictionary_VR(tag)[:2].encode()
    element = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, kind, len(value)) + value
    start, end = place_of(whole, tag), place_of(whole, tag + 1)  # what was there is replaced
    path.write_bytes(whole[:start] + element + whole[end:])
    return path


def place_of(whole, tag):
    """Return the position of an element, by walking over those before it."""
    place = 132 + 12 + int.from_bytes(whole[140:144], "little")
    while place < len(whole):
        group, element, kind, length = struct.unpack_from("<HH2sH", whole, place)
        if group << 16 | element >= tag:
            return place
        long = kind in (b"OB", b"OW", b"SQ", b"UN")
        place += 12 + struct.unpack_from("<L", whole, place + 8)[0] if long else 8 + length
    return place


@pytest.mark.parametrize("keyword", READ_BY_THE_DECODER)
def test_a_name_in_a_broken_element_stays_in_the_file(tmp_path, keyword):
    for number, name in enumerate(WRITTEN):
        path = write_with(tmp_path / f"{number}.dcm", keyword, name.encode("latin-1"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the readers keep them from the screen, too
            assert NAME not in images.told(path), name


# Other files


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_camera_rotation_is_applied_in_each_of_its_eight_forms(tmp_path, name):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    turned = {  # what EXIF 2.3 says of the first row and column: top left, top right, ...
        1: grey, 2: grey[:, ::-1], 3: grey[::-1, ::-1], 4: grey[::-1], 5: grey.T,
        6: np.rot90(grey, 3), 7: grey[::-1, ::-1].T, 8: np.rot90(grey),
    }  # fmt: skip
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 98}}.get(name, {})
    for turn, expected in turned.items():
        exif = Image.Exif()
        exif[0x0112] = turn
        exif[0x010E] = "Synthetic chest X-ray, drawn by cxr synth: no patient"
        Image.fromarray(grey).save(tmp_path / name, exif=exif, **options)
        _, greys, facts, _ = images.read(tmp_path / name)
        np.testing.assert_allclose(greys, expected, atol=8 if name == "a.jpg" else 0)
        assert facts["synthetic"]


def tiff(values, photometric, order):
    """An uncompressed grey TIFF of 16 bits in one strip."""
    height, width = values.shape
    body = values.astype(f"{order}u2").tobytes()
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, photometric),
            (273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, height), (279, len(body))]  # fmt: skip
    start = b"II*\0" if order == "<" else b"MM\0*"
    found = start + struct.pack(f"{order}IH", 8, len(tags))
    found += b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return found + bytes(4) + body


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff"])
def test_a_huge_image_is_refused_by_its_header(tmp_path, kind):
    content = bytearray(image_file(np.zeros((6, 8), np.uint8), kind))
    if kind == "png":
        content[16:24] = struct.pack(">II", 65535, 65535)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    elif kind == "jpeg":
        marker = content.index(b"\xff\xc0")
        content[marker + 5 : marker + 9] = struct.pack(">HH", 65535, 65535)
    elif kind == "gif":
        content[6:10] = struct.pack("<HH", 65535, 65535)
    elif kind == "bmp":
        content[18:26] = struct.pack("<ii", 65535, 65535)
    else:
        content = bytearray(tiff(np.zeros((6, 8), np.uint16), 1, "<"))
        content[18:22] = content[30:34] = struct.pack("<I", 65535)
    (tmp_path / "a").write_bytes(content)
    kind, line = images.read(tmp_path / "a")
    assert (kind, "larger than the limit" in line) == ("refused", True), line


# PNG


_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]


def png_rows(pixels, interlaced):
    """The lines of a PNG of 8-bit samples (H, W, C), each after the number of its filter."""
    passes = [*_PASSES, (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    parts = [pixels[y::step_y, x::step_x] for x, y, step_x, step_y in passes]
    return b"".join(b"\0" + line.tobytes() for part in parts if part.size for line in part)


def png_file(rows, width, height, colour, interlaced):
    """A PNG of 8-bit samples around lines, each of its chunks whole."""
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced)
    data = zlib.compress(rows)
    chunks = [(b"IHDR", head), (b"IDAT", data[:20]), (b"IDAT", data[20:]), (b"IEND", b"")]
    framed = (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("interlaced", [0, 1], ids=["plain", "interlaced"])
@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("size", [(1, 9), (13, 8), (64, 50)])
def test_a_png_is_read_only_if_its_data_fill_all_rows(colour, samples, interlaced, size, tmp_path):
    """Decoders leave the lower part black without a word; a black border is no sign of it."""
    width, height = size
    pixels = np.random.default_rng(1).integers(1, 255, (height, width, samples), dtype=np.uint8)
    pixels[-1] = 0
    rows = png_rows(pixels, interlaced)
    path = tmp_path / "a.png"
    path.write_bytes(png_file(rows, width, height, colour, interlaced))
    assert images.read(path)[0] == "read"
    for lacking in (1, width * samples + 1, len(rows) // 2):
        path.write_bytes(png_file(rows[:-lacking], width, height, colour, interlaced))
        kind, line = images.read(path)
        assert kind == "refused"
        assert "a.png" in line


# Squares


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    size=st.integers(16, 300),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_boxes_go_to_the_square_and_return(width, height, size, share):
    square, placement = storage.letterbox(np.full((height, width), 200, np.uint8), size)
    left, right = sorted((share[0] * width, share[1] * width))
    top, bottom = sorted((share[2] * height, share[3] * height))
    box = np.array([[left, top, right, bottom]])
    stored = placement.to_store(box)
    np.testing.assert_allclose(placement.to_original(stored, width, height), box, atol=1e-6)
    x1, y1, x2, y2 = placement.to_store(np.array([[0, 0, width, height]]))[0]
    inside = square[round(y1) : round(y2), round(x1) : round(x2)]
    assert (inside == 200).all()
    assert int(square.sum()) == 200 * inside.size
    assert abs((x2 - x1) - width * size / max(width, height)) <= 1
    assert abs((y2 - y1) - height * size / max(width, height)) <= 1


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (600, 400), (100, 80), (333, 517)])
def test_a_drawn_rectangle_stays_under_its_box(width, height):
    pixels = np.zeros((height, width), np.uint8)
    box = np.array([[width // 4, height // 3, width // 2, height * 3 // 4]], dtype=float)
    x1, y1, x2, y2 = box[0].astype(int)
    pixels[y1:y2, x1:x2] = 255
    square, placement = storage.letterbox(pixels, 256)
    rows, columns = np.nonzero(square > 127)
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(placement.to_store(box)[0], drawn, atol=0.75)
