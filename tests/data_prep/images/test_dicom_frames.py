"""Frames: which decoder reads which syntax, which bits count, and what colours mean."""

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from cxr_compare.data_prep.images.dicom_frame import DECODERS
from cxr_compare.data_prep.images.image import read_image

WriteDicom = Callable[..., Path]

READ_BY = {  # transfer syntax: decoder, most greys that it may be off
    uid.ImplicitVRLittleEndian: ("native", 0),
    uid.ExplicitVRLittleEndian: ("native", 0),
    uid.ExplicitVRBigEndian: ("native", 0),
    uid.DeflatedExplicitVRLittleEndian: ("native", 0),
    uid.RLELossless: ("pydicom", 0),
    uid.JPEGBaseline8Bit: ("simplejpeg", 3),
    uid.JPEGExtended12Bit: ("gdcm-12bit", 1),
    uid.JPEGLossless: ("gdcm", 0),
    uid.JPEGLosslessSV1: ("gdcm", 0),
    uid.JPEGLSLossless: ("pyjpegls", 0),
    uid.JPEGLSNearLossless: ("pyjpegls", 1),
    uid.JPEG2000Lossless: ("pylibjpeg", 0),
    uid.JPEG2000: ("pylibjpeg", 3),
    uid.HTJ2KLossless: ("pylibjpeg", 0),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg", 0),
    uid.HTJ2K: ("pylibjpeg", 0),
}


def test_every_decoder_is_tried_on_a_file_of_its_syntax(coded_files):
    assert set(DECODERS) < set(READ_BY)
    assert {str(syntax) for syntax in READ_BY} == set(coded_files)


@pytest.mark.parametrize("syntax", READ_BY, ids=[syntax.name for syntax in READ_BY])
def test_every_transfer_syntax_gives_the_same_image(coded_files, ramp, syntax):
    decoder, tolerance = READ_BY[syntax]
    image = read_image(coded_files[str(syntax)])
    shown = (ramp >> 4) if syntax == uid.JPEGBaseline8Bit else np.rint(ramp / 3750 * 255)
    assert np.abs(image.pixels - shown.astype(int)).max() <= tolerance
    assert image.record["decoder"] == decoder
    assert image.record["transfer_syntax"] == syntax


def test_signed_12_bit_jpeg_keeps_its_sign(coded_files, ramp, tmp_path):
    header = pydicom.dcmread(coded_files[str(uid.JPEGExtended12Bit)])
    header.PixelRepresentation = 1
    header.save_as(tmp_path / "a.dcm")
    values = ramp.astype(int) - 4096 * (ramp >= 2048)
    expected = (values - values.min()) / np.ptp(values) * 255
    assert np.abs(read_image(tmp_path / "a.dcm").pixels - expected).max() <= 1


def test_second_decoder_is_tried_and_recorded(coded_files, ramp, monkeypatch):
    for syntax in (uid.JPEGLSLossless, uid.JPEG2000Lossless):
        order = reversed(DECODERS[syntax])
        monkeypatch.setitem(DECODERS, syntax, ("not there", *order))
        image = read_image(coded_files[str(syntax)])
        assert image.record["decoder"] == "gdcm"
        np.testing.assert_array_equal(image.pixels, np.rint(ramp / 3750 * 255))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (b"1.2.840.10008.1.2.4.100\0", "MPEG2 .* is not read"),
        (b"1.2.840.99999.1.2.4.91\0\0", "its transfer syntax is not read"),
        (b"1.2.840.10008.1.2.1\0\0\0\0\0", "compressed and its header does not say how"),
    ],
    ids=["video", "private", "uncompressed"],
)
def test_syntax_that_does_not_read_the_pixels_is_refused(coded_files, tmp_path, named, said):
    content = coded_files[str(uid.HTJ2KLossless)].read_bytes()
    written = str(uid.HTJ2KLossless).encode() + b"\0"
    assert content.count(written) == 1
    (tmp_path / "a.dcm").write_bytes(content.replace(written, named[: len(written)]))
    with pytest.raises(InputError, match=said):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"Columns": 8}, "16 x 16 px, grey, 8 bits.* 8 x 16 px"),
        ({"BitsAllocated": 16, "BitsStored": 16}, "cannot be decoded"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
         "says 16 x 16 px, colour"),
    ],
)  # fmt: skip
def test_codestream_that_contradicts_its_header_is_refused(coded_files, tmp_path, elements, said):
    header = pydicom.dcmread(coded_files[str(uid.JPEGBaseline8Bit)])
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=said):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGBaseline8Bit, uid.JPEGLSLossless])
def test_huge_codestream_in_a_small_header_is_refused(coded_files, tmp_path, syntax):
    content = bytearray(get_frame(pydicom.dcmread(coded_files[syntax]).PixelData, 0,
                                  number_of_frames=1))  # fmt: skip
    if syntax == uid.JPEG2000Lossless:
        content[8:16] = struct.pack(">II", 65535, 65535)
    else:
        marker = content.index(b"\xff\xc0" if syntax == uid.JPEGBaseline8Bit else b"\xff\xf7")
        content[marker + 5 : marker + 9] = struct.pack(">HH", 65535, 65535)
    header = pydicom.dcmread(coded_files[syntax])
    header.PixelData = encapsulate([bytes(content)])
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="65535 x 65535 px"):
        read_image(tmp_path / "a.dcm")
    header.Rows = header.Columns = 65535
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="65535 x 65535 px"):
        read_image(tmp_path / "a.dcm")


# Bits


STORED = np.array([[0, 1, 1000, 4095], [5, 2048, 3000, 4000]], np.uint16)
BITS_CASES = [
    ("overlay above the value", STORED | 0x8000, {"HighBit": 11}, STORED),
    ("value at the top, overlay below", (STORED << 4) | 1, {"HighBit": 15}, STORED),
    ("value in the middle, overlays around", (STORED << 2) | 0x8001, {"HighBit": 13}, STORED),
    ("high bit that is not true of the values", STORED, {"HighBit": 15}, STORED),
    ("high bit that cannot be", STORED, {"HighBit": 7}, STORED),
    ("high bit missing", STORED | 0xF000, {"HighBit": None}, STORED),
    ("signed, overlay above", (STORED.astype(np.int16) - 2048) & 0x0FFF | 0x4000,
     {"HighBit": 11, "PixelRepresentation": 1}, STORED),
    ("signed, at the top", (STORED.astype(np.int32) - 2048 << 4).astype(np.int16) | 5,
     {"HighBit": 15}, STORED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "elements", "stored"), [c[1:] for c in BITS_CASES], ids=[c[0] for c in BITS_CASES]
)
def test_only_the_bits_of_the_value_are_shown(write_dicom, tmp_path, values, elements, stored):
    path = write_dicom(tmp_path / "a.dcm", values, bits_stored=12, **elements)
    shown = np.rint(stored / 4095 * 255)
    np.testing.assert_array_equal(read_image(path).pixels, shown)
    header = pydicom.dcmread(path)
    header.compress(uid.RLELossless, encoding_plugin="pydicom")
    header.save_as(path)
    np.testing.assert_array_equal(read_image(path).pixels, shown)


# Colours


GREYS = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
COLOURS = np.stack([255 - GREYS, GREYS, GREYS[::-1]], axis=-1)


def jpeg(rgb: np.ndarray, adobe_transform: int | None) -> bytes:
    """YCbCr JPEG with a JFIF marker, or with an Adobe marker in its place."""
    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=98, subsampling=0)
    content = buffer.getvalue()
    if adobe_transform is None:
        return content
    (length,) = struct.unpack(">H", content[4:6])
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([adobe_transform])
    return content[:2] + marker + content[4 + length :]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("adobe_transform", [None, 1], ids=["JFIF", "Adobe"])
def test_colour_jpeg_is_turned_to_rgb_once(write_dicom, tmp_path, adobe_transform, photometric):
    frame = encapsulate([jpeg(COLOURS, adobe_transform)])
    path = write_dicom(
        tmp_path / "a.dcm", COLOURS, syntax=uid.JPEGBaseline8Bit, pixel_data=frame,
        PhotometricInterpretation=photometric,
    )  # fmt: skip
    expected = np.asarray(Image.fromarray(COLOURS).convert("L")).astype(int)
    assert np.abs(read_image(path).pixels - expected).max() <= 2


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


SMALL = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)


def ybr(rgb: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2, YBR_FULL."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip(np.rint(rgb @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_by_pixel_and_by_plane(write_dicom, tmp_path, planar, photometric):
    values = SMALL if photometric == "RGB" else ybr(SMALL)
    content = (values.transpose(2, 0, 1) if planar else values).tobytes()
    path = write_dicom(
        tmp_path / "a.dcm", values, PhotometricInterpretation=photometric,
        PlanarConfiguration=planar, content=content,
    )  # fmt: skip
    assert np.abs(read_image(path).pixels - luma(SMALL)).max() <= 1.5


def test_subsampled_colours(write_dicom, tmp_path):
    greys = np.array([[10, 200, 30, 40], [50, 60, 70, 255]], np.uint8)
    colour = np.repeat(greys[..., None], 3, axis=2)
    pairs = greys.reshape(2, 2, 2)
    half = np.concatenate([pairs, np.full((2, 2, 2), 128, np.uint8)], axis=2)  # Y1 Y2 Cb Cr
    path = write_dicom(
        tmp_path / "a.dcm", colour, PhotometricInterpretation="YBR_FULL_422", content=half.tobytes()
    )
    np.testing.assert_array_equal(read_image(path).pixels, greys)


@pytest.mark.parametrize("photometric", ["YBR_RCT", "YBR_ICT", "RGB"])
def test_colour_jpeg_2000(write_dicom, tmp_path, photometric):
    plain = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", COLOURS))
    plain.PhotometricInterpretation = photometric
    lossy = photometric == "YBR_ICT"
    syntax = uid.JPEG2000 if lossy else uid.JPEG2000Lossless
    plain.compress(syntax, COLOURS, **({"j2k_cr": [2]} if lossy else {}))
    plain.save_as(tmp_path / "b.dcm")
    image = read_image(tmp_path / "b.dcm")
    assert np.abs(image.pixels - luma(COLOURS)).max() <= (4 if lossy else 1)
    assert image.record["photometric"] == photometric


@pytest.mark.parametrize(
    ("entries", "bits"),
    [
        (np.array([0, 10, 128, 255], "u1"), 8),
        (np.array([0, 10, 128, 255], "<u2"), 16),
        (np.array([0, 2570, 32896, 65535], "<u2"), 16),
    ],
    ids=["8 bits", "8 bits kept in 16", "16 bits"],
)
def test_palettes(write_dicom, tmp_path, entries, bits):
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    path = write_dicom(tmp_path / "a.dcm", np.array([[3, 2, 1, 0]], np.uint8), **elements)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, [[255, 128, 10, 0]])
    assert image.record["warnings"] == "grey stored as colour"


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "PALETTE COLOR", "HSV", "YBR_PARTIAL_420"])
def test_three_channels_that_are_no_known_colour_are_refused(write_dicom, tmp_path, photometric):
    path = write_dicom(tmp_path / "a.dcm", SMALL, PhotometricInterpretation=photometric)
    with pytest.raises(InputError, match=r"interpretation cannot be|colour image cannot be"):
        read_image(path)
    path = write_dicom(tmp_path / "b.dcm", GREYS, PhotometricInterpretation="RGB")
    with pytest.raises(InputError, match="interpretation cannot be"):
        read_image(path)


def test_enhanced_object_has_its_window_from_the_first_frame(write_dicom, tmp_path):
    def group(**sequences: Dataset) -> Dataset:
        item = Dataset()
        for name, inner in sequences.items():
            setattr(item, name, [inner])
        return item

    rescale, windows = Dataset(), [Dataset(), Dataset()]
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, 0
    for number, item in enumerate(windows):
        item.WindowCenter, item.WindowWidth = 4095 * (number + 1), 8191
    path = write_dicom(
        tmp_path / "a.dcm", STORED, bits_stored=12,
        SharedFunctionalGroupsSequence=[group(PixelValueTransformationSequence=rescale)],
        PerFrameFunctionalGroupsSequence=[group(FrameVOILUTSequence=w) for w in windows],
    )  # fmt: skip
    image = read_image(path)
    assert image.record["modality_transform"] == "rescale"
    assert image.record["window_center"] == 4095
    np.testing.assert_allclose(image.pixels, STORED / 4095 * 255, atol=0.6)
