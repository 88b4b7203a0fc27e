"""What leaves a DICOM header: a few facts, and never a name, however broken the header is."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from cxr_compare.data_prep.images.dicom_header import burned_in_annotation, header_facts
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.radiograph_check import check_dicom_file
from cxr_compare.data_prep.images.refused_files import plain_reason
from tests.small_dicom import write_dicom

NAME = "JANE"
WRITTEN = (
    "DOE^JANE", "DOE^JANE O'NEIL", "O'\"JANE^DOE\"'", 'D"OE^JANE', "JANE=\\\\JANE", "\x1b$JANE\xff"
)  # fmt: skip
READ_BY_THE_DECODER = (
    "BitsAllocated", "BitsStored", "BurnedInAnnotation", "BodyPartExamined", "Columns", "HighBit",
    "ImageType", "ImagerPixelSpacing", "LossyImageCompression", "Modality", "NumberOfFrames",
    "PatientAge", "PatientID", "PatientName", "PatientOrientation", "PatientSex",
    "PhotometricInterpretation", "PixelPaddingValue", "PixelRepresentation", "PixelSpacing",
    "PlanarConfiguration", "PresentationLUTShape", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "Rows", "SOPInstanceUID", "SamplesPerPixel", "SpecificCharacterSet",
    "StudyDate", "StudyInstanceUID", "VOILUTFunction", "ViewPosition", "WindowCenter",
    "WindowCenterWidthExplanation", "WindowWidth",
)  # fmt: skip


def write_with(path: Path, keyword: str, value: bytes) -> Path:
    """Write a good image, then put raw bytes into one element, whatever its type."""
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    write_dicom(path, pixels, Modality="DX", SOPClassUID=uid.DigitalXRayImageStorageForPresentation)
    whole = path.read_bytes()
    tag = int(tag_for_keyword(keyword) or 0)
    value += b" " * (len(value) % 2)
    kind = dictionary_VR(tag)[:2].encode()
    element = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, kind, len(value)) + value
    start, end = _place_of(whole, tag), _place_of(whole, tag + 1)  # what was there is replaced
    path.write_bytes(whole[:start] + element + whole[end:])
    return path


def _place_of(whole: bytes, tag: int) -> int:
    """Where an element belongs, by walking over those before it."""
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
            try:
                image = read_image(path)
                said = str((image.record, image.header))
            except InputError as error:
                said = str(error)
            found = check_dicom_file(tmp_path, path.name)
        assert NAME not in said, (name, said)
        assert NAME not in str((found.reason, found.view, found.sex, found.age_years)), name


@pytest.mark.parametrize("name", [*WRITTEN, "x\"y'JANE", "JANE O'"])
def test_a_library_that_quotes_a_name_is_not_repeated(name):
    for message in (f"Invalid value: {name!r}. See", f"Invalid value '{name}'", f"bad '{name}"):
        assert NAME not in plain_reason(ValueError(message))
    told = plain_reason(ValueError("'utf-8' codec can't decode byte 0xff"))
    assert told == "'...' codec can't decode byte 0xff"


@pytest.mark.parametrize(
    ("text", "expected"), [("YES", "yes"), ("no", "no"), ("", None), ("DOE^JANE", None)]
)
def test_burned_in_annotation_is_yes_no_or_unknown(tmp_path, text, expected):
    path = write_with(tmp_path / "a.dcm", "BurnedInAnnotation", text.encode())
    assert read_image(path).record["burned_in_annotation"] == expected
    assert burned_in_annotation(Dataset()) is None


def test_only_modalities_of_the_standard_are_repeated():
    header = Dataset()
    for text, expected in (("DX", "DX"), ("CT", "CT"), ("JANE", None), ("", None)):
        header.Modality = text
        assert header_facts(header)["modality"] == expected


@pytest.mark.parametrize(
    ("orientation", "view"),
    [(["A", "F"], "LL"), (["P", "F"], "LL"), (["L", "F"], None), (["R", "H"], None), (None, None)],
)
def test_rows_that_run_to_the_front_or_back_are_a_lateral(orientation, view):
    header = Dataset()
    header.PatientOrientation = orientation
    assert header_facts(header)["view"] == view
    header.ViewPosition = "AP"  # what is said counts before what is seen
    assert header_facts(header)["view"] == "AP"
