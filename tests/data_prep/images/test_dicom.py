"""DICOM: the right grey for each stored value, and one clear line for each bad file."""

import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_windowing

from cxr_compare.data_prep.images import decoded_image, dicom
from cxr_compare.data_prep.images.dicom_header import age_in_years
from cxr_compare.data_prep.images.image import read_image
from tests.small_dicom import image_file, lut

WriteDicom = Callable[..., Path]


RAMP8 = np.array([[0, 1, 100], [128, 254, 255]], np.uint8)
RAMP12 = np.array([[0, 1024, 2047], [2048, 3072, 4095]], np.uint16)

DISPLAY_CASES = [
    ("8-bit image keeps its values", RAMP8, {}, RAMP8),
    ("6 bits fill 8", np.array([[0, 21, 63]], np.uint8), {"bits_stored": 6}, [[0, 85, 255]]),
    ("8 bits with a rescale keep their values: the range moves along", RAMP8,
     {"RescaleSlope": 2, "RescaleIntercept": -100}, RAMP8),
    ("a negative slope turns the image over", RAMP8,
     {"RescaleSlope": -1, "RescaleIntercept": 255}, 255 - RAMP8),

    ("the first of several windows counts", RAMP12,
     {"bits_stored": 12, "WindowCenter": [2048, 1], "WindowWidth": [2048, 2]},
     [[0, 0, 127], [128, 255, 255]]),

    ("a width of 1 is a step", RAMP12,
     {"bits_stored": 12, "WindowCenter": 2048, "WindowWidth": 1}, [[0, 0, 0], [255, 255, 255]]),
    ("padding is black and does not stretch the range",
     np.array([[100, 150, 200, 60000]], np.uint16), {"PixelPaddingValue": 60000},
     [[0, 128, 255, 0]]),
    ("a padding range, MONOCHROME1",
     np.array([[0, 3, 100, 200]], np.uint16),
     {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 5,
      "PhotometricInterpretation": "MONOCHROME1"}, [[0, 0, 255, 0]]),
    ("modality LUT of 10 bits, which pydicom's own function refuses",
     np.array([[0, 1, 2, 3]], np.uint8), {"ModalityLUTSequence": lut([0, 1023, 512, 256], 0, 10)},
     [[0, 255, 128, 64]]),
    ("modality LUT that starts above 0 clamps below and above",
     np.array([[0, 10, 11, 200]], np.uint8), {"ModalityLUTSequence": lut([0, 255], 10, 8)},
     [[0, 0, 255, 255]]),
    ("VOI LUT before window", np.array([[0, 1, 2, 3]], np.uint8),
     {"VOILUTSequence": lut([255, 0, 0, 255], 0, 8), "WindowCenter": 1, "WindowWidth": 2},
     [[255, 0, 0, 255]]),
    ("VOI LUT that says 16 bits and uses 12 is not shown black",
     np.array([[0, 1, 2, 3]], np.uint8), {"VOILUTSequence": lut([0, 1365, 2730, 4095], 0, 16)},
     [[0, 85, 170, 255]]),

    ("one value only is black", np.full((2, 2), 700, np.uint16), {}, np.zeros((2, 2))),
    ("equal colour channels are that grey", np.repeat(RAMP8[..., None], 3, axis=2), {}, RAMP8),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "elements", "expected"),
    [case[1:] for case in DISPLAY_CASES],
    ids=[case[0] for case in DISPLAY_CASES],
)
def test_stored_values_become_the_greys_of_the_standard(
    write_dicom, tmp_path, values, elements, expected
):
    image = read_image(write_dicom(tmp_path / "a.dcm", values, **elements))

    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, np.asarray(expected))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (600, 300), (40.5, 3.25)])
def test_windows_agree_with_pydicom(write_dicom, tmp_path, function, center, width):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    elements = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    path = write_dicom(tmp_path / "a.dcm", values, bits_stored=12, **elements)

    expected = apply_windowing(values, pydicom.dcmread(path)) / 4095 * 255

    assert np.abs(read_image(path).pixels - expected).max() <= 0.5 + 1e-9


NOTE_CASES = [
    ("window that shows nothing", {"WindowCenter": 60000, "WindowWidth": 10}, "shows nothing"),
    ("window of no width", {"WindowCenter": 10, "WindowWidth": 0}, "window width 0 ignored"),
    ("slope 0", {"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope 0 ignored"),
    ("unknown function", {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "CUBIC"},
     "unknown VOI LUT function"),
    ("mirrored image", {"PatientOrientation": ["R", "F"]}, "mirrored"),
    ("no sign given", {"PixelRepresentation": None}, "no PixelRepresentation, 0 assumed"),
    ("no channels given", {"SamplesPerPixel": None}, "no SamplesPerPixel, 1 assumed"),
    ("all of it padding", {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("elements", "note"), [case[1:] for case in NOTE_CASES], ids=[case[0] for case in NOTE_CASES]
)
def test_odd_headers_are_noted_and_the_image_stays_visible(write_dicom, tmp_path, elements, note):
    image = read_image(write_dicom(tmp_path / "a.dcm", RAMP12, bits_stored=12, **elements))

    assert np.ptp(image.pixels) == 255
    assert (note in image.record["warnings"]) if note else image.record["warnings"] is None


def test_record_says_what_was_done(write_dicom, tmp_path):
    elements = {"RescaleSlope": 2, "RescaleIntercept": 0, "WindowCenter": 4000, "WindowWidth": 800}
    path = write_dicom(tmp_path / "a.dcm", RAMP12, bits_stored=12, **elements)

    image = read_image(path)
    record = image.record

    assert tuple(record) == decoded_image.DECODE_COLUMNS
    assert len(image.pixel_sha256) == 64
    assert record == {
        "transfer_syntax": uid.ExplicitVRLittleEndian,
        "decoder": "native",
        "bits": 12,
        "photometric": "MONOCHROME2",
        "modality_transform": "rescale",
        "voi": "window",
        "window_center": 4000.0,
        "window_width": 800.0,
        "inverted": False,
        "orientation": None,
        "burned_in_annotation": None,
        "warnings": None,
    }


@pytest.mark.parametrize("implicit", [True, False])
def test_file_without_preamble_and_meta_header_is_read_by_a_noted_guess(
    write_dicom, tmp_path, implicit
):
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", RAMP8))
    bare = Dataset(data)
    bare.save_as(tmp_path / "b", implicit_vr=implicit, little_endian=True)

    image = read_image(tmp_path / "b")
    np.testing.assert_array_equal(image.pixels, RAMP8)
    assert "no DICOM preamble" in image.record["warnings"]
    kind = "Implicit" if implicit else "Explicit"
    assert f"{kind} VR Little Endian assumed" in image.record["warnings"]


def test_first_frame_of_several_is_read_and_noted(write_dicom, tmp_path):
    frames = np.stack([RAMP8, 255 - RAMP8])
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", RAMP8, NumberOfFrames=2))
    data.PixelData = frames.tobytes()
    path = tmp_path / "b.dcm"
    data.save_as(path)

    image = read_image(path)

    np.testing.assert_array_equal(image.pixels, RAMP8)
    assert image.record["warnings"] == "first of 2 frames"


def test_header_facts_and_spacing_are_read(write_dicom, tmp_path):
    elements = {
        "ViewPosition": "PA", "PatientSex": "F", "PatientAge": "045Y", "Modality": "DX",
        "PixelSpacing": [0.2, 0.1], "ConversionType": "SYN", "Manufacturer": "Agfa HealthCare",
    }  # fmt: skip
    image = read_image(write_dicom(tmp_path / "a.dcm", RAMP8, **elements))

    facts = {"view": "PA", "sex": "F", "age_years": 45.0, "modality": "DX", "synthetic": True}
    assert image.header == facts | {"maker": "agfa"}
    assert (image.spacing_row_mm, image.spacing_col_mm) == (0.2, 0.1)


@pytest.mark.parametrize(
    ("text", "years"),
    [("051Y", 51), ("6", 6), ("018M", 1.5), ("000D", 0), ("", None), ("Y", None), ("12X", None)],
)
def test_ages_of_every_form(text, years):
    assert age_in_years(text) == years


@pytest.mark.parametrize(
    ("position", "view"),
    [("pa", "PA"), ("AP ", "AP"), ("LATERAL", "LL"), ("LLO", "other"), ("", None)],
)
def test_views_of_every_form(write_dicom, tmp_path, position, view):
    image = read_image(write_dicom(tmp_path / "a.dcm", RAMP8, ViewPosition=position))
    assert image.header["view"] == view


@pytest.mark.parametrize(
    ("code", "view"),
    [("272479007", "PA"), ("R-10206", "AP"), ("399173006", "LL"), ("399182000", "other")],
    ids=["posteroanterior", "anteroposterior, old code", "left lateral", "oblique"],
)
def test_view_code_counts_where_the_position_is_not_given(write_dicom, tmp_path, code, view):
    item = Dataset()
    item.CodeValue = code
    image = read_image(write_dicom(tmp_path / "a.dcm", RAMP8, ViewCodeSequence=[item]))
    assert image.header["view"] == view


@pytest.mark.parametrize("spacing", [[0, 0.1], [-1, 1], None], ids=["zero", "negative", "absent"])
def test_impossible_spacing_is_unknown(write_dicom, tmp_path, spacing):
    image = read_image(write_dicom(tmp_path / "a.dcm", RAMP8, PixelSpacing=spacing))
    assert (image.spacing_row_mm, image.spacing_col_mm) == (None, None)


# Bad files


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 20_000, "Columns": 20}, "10,000 px"),
        ({"Rows": 0}, "not an image"),
        ({"Rows": 500}, "cut short: 6 of"),
        ({"BitsAllocated": 32}, "32 bits per value"),
        ({"SamplesPerPixel": 2}, "2 values per pixel"),
        ({"PhotometricInterpretation": ""}, "PhotometricInterpretation"),
    ],
)
def test_impossible_headers_are_refused(write_dicom, tmp_path, elements, reason):
    path = write_dicom(tmp_path / "a.dcm", RAMP8, **elements)

    with pytest.raises(InputError, match=reason) as error:
        read_image(path)

    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("syntax", "inside", "reason"),
    [
        (
            uid.JPEGBaseline8Bit,
            image_file(np.zeros((32, 64), np.uint8), "JPEG"),
            "inside is 64 x 32 px, grey, 8 bits, the header",
        ),
        (uid.RLELossless, bytes(2 << 20), "larger than the image"),
    ],
    ids=["another image", "more data than the image can have"],
)  # fmt: skip
def test_an_image_inside_that_the_header_does_not_announce_is_refused(
    write_dicom, tmp_path, syntax, inside, reason
):
    pixels, data = np.zeros((8, 8), np.uint8), encapsulate([inside])
    path = write_dicom(tmp_path / "a.dcm", pixels, syntax=syntax, pixel_data=data)
    with pytest.raises(InputError, match=reason):
        read_image(path)


def test_deflated_file_that_inflates_without_end_is_refused(write_dicom, tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", RAMP8, syntax=uid.DeflatedExplicitVRLittleEndian)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(16 << 20)) + deflater.flush()
    meta_end = 132 + 12 + pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
    path.write_bytes(path.read_bytes()[:meta_end] + bomb)
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 1 << 20)

    with pytest.raises(InputError, match="inflates to more than"):
        read_image(path)


# Real files


def test_rsna_pixels_are_those_of_the_jpeg_inside(shared_data):
    path = sorted((shared_data / "rsna" / "stage_2_train_images").glob("*.dcm"))[0]
    frame = get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)

    image = read_image(path)

    np.testing.assert_array_equal(image.pixels, np.asarray(Image.open(BytesIO(frame))))
    assert image.record["decoder"] == "simplejpeg"
    assert image.record["warnings"] is None
    assert set(image.header) == {"view", "sex", "age_years", "modality", "maker", "synthetic"}
    assert not image.header["synthetic"]
    assert path.stem not in str((image.record, image.header))
