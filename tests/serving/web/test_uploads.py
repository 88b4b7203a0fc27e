"""Uploads: their type by content alone, limits before decoding, and one line for damaged ones."""

import io
import os
import resource
import tempfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid

from cxr_compare.data_prep.images.image import read_image
from cxr_compare.serving.guard import file_warnings
from cxr_compare.serving.web.uploads import Refused, decode_upload, detect_format
from tests.data_prep.images.test_image import huge, png_of_size
from tests.small_dicom import as_file, dicom_image, image_file

GREYS = np.random.default_rng(3).integers(0, 256, (48, 64), dtype=np.uint8)


encoded = partial(image_file, GREYS)


def dicom(values: np.ndarray = GREYS, *, preamble: bytes = bytes(128), **elements: Any) -> bytes:
    header = dicom_image(values, **elements)
    header.preamble = preamble
    return as_file(header)


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (encoded("PNG"), "PNG"),
        (encoded("JPEG"), "JPEG"),
        (encoded("JPEG") + bytes(4000), "JPEG"),  # padded, as scanners do
        (encoded("TIFF"), "TIFF"),
        (dicom(), "DICOM"),
        (dicom()[132:], "DICOM"),  # without a preamble
        (dicom(preamble=b"II*\0" + bytes(124)), "DICOM"),  # slides are TIFF as well
        (dicom(preamble=b"a vendor's own words".ljust(128)), "DICOM"),
    ],
)
def test_the_content_decides(content: bytes, format_: str) -> None:
    assert detect_format(content) == format_


REFUSED = {
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "zip": b"PK\x05\x06" + bytes(18),
    "PDF": b"%PDF-1.7\n" + bytes(40),
    "GIF": encoded("GIF"),
    "program": b"\x7fELF" + bytes(200),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_another_type_is_refused_before_a_decoder_sees_it(content: bytes) -> None:
    with pytest.raises(Refused) as refused:
        detect_format(content)
    assert (refused.value.status, refused.value.error.code) == (415, "type")
    assert "DICOM, PNG, JPEG or TIFF" in refused.value.error.message


def refusal(content: bytes) -> tuple[int, str, str]:
    with pytest.raises(Refused) as refused:
        decode_upload(content)
    error = refused.value.error
    return refused.value.status, error.code, error.message


@pytest.mark.parametrize(
    "content",
    [
        encoded("PNG"),
        encoded("JPEG"),
        encoded("TIFF"),
        dicom(ViewPosition="PA", PatientAge="045Y", PatientSex="F", PixelSpacing=[0.1, 0.2]),
        dicom(GREYS.astype(np.uint16) * 16, WindowCenter=2000, WindowWidth=900, Modality="CT"),
        dicom(PhotometricInterpretation="MONOCHROME1"),
    ],
)
def test_an_upload_is_what_the_file_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    expected = read_image(path, deep=True)
    plain, deep = decode_upload(content), decode_upload(content, deep=True)
    for got in (plain, deep):
        np.testing.assert_array_equal(got.image.pixels, expected.pixels)
        assert (got.image.record, got.image.header) == (expected.record, expected.header)
        assert got.image.spacing_row_mm == expected.spacing_row_mm
        assert got.image.spacing_col_mm == expected.spacing_col_mm
        assert (got.warnings, got.bits) == (file_warnings(path, expected), expected.record["bits"])
    assert plain.image.deep is None
    assert deep.image.deep is not None
    assert expected.deep is not None
    np.testing.assert_array_equal(deep.image.deep.values, expected.deep.values)
    assert (deep.image.deep.black, deep.image.deep.white) == (
        expected.deep.black,
        expected.deep.white,
    )


def test_a_system_without_files_in_memory_reads_uploads_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create")  # as on a Mac
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    np.testing.assert_array_equal(decode_upload(encoded("PNG")).image.pixels, GREYS)
    assert not any(tmp_path.iterdir())


def deflated_bomb() -> bytes:
    content = dicom(syntax=uid.DeflatedExplicitVRLittleEndian)
    end = 144 + pydicom.dcmread(io.BytesIO(content)).file_meta.FileMetaInformationGroupLength
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    mebibyte = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return content[:end] + mebibyte * 600 + deflater.flush()


def many_frames() -> bytes:
    return dicom(NumberOfFrames=2_000_000_000)


TOO_LARGE = {
    "PNG header of 65535 x 65535": lambda: huge("png"),
    "PNG of 2^31 rows": lambda: png_of_size(64, 2**31 - 1),
    "PNG of 101 megapixels": lambda: png_of_size(10_000, 10_100),
    "JPEG header of 65535 x 65535": lambda: huge("jpeg"),
    "DICOM header of 65535 x 65535": lambda: dicom(Rows=65535, Columns=65535),
    "TIFF header of 65535 x 65535": lambda: huge("tiff"),
    "DICOM that inflates to 600 MiB": deflated_bomb,
}


@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large_is_refused_before_it_is_decoded(make):
    content = make()
    before = _peak_mib()
    status, code, message = refusal(content)
    assert (status, code) == (413, "too_large"), message
    assert _peak_mib() - before < 256


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


UNREADABLE = {
    "cut PNG": lambda: encoded("PNG")[:900],
    "cut JPEG": lambda: encoded("JPEG")[:600],
    "cut DICOM": lambda: dicom()[:-200],
    "frames that are not there": many_frames,
    "PNG without an image": lambda: b"\x89PNG\r\n\x1a\n" + bytes(40),
    "DICOM without an image": lambda: dicom()[:300],
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_damaged_gets_one_line_without_paths(make):
    status, code, message = refusal(make())
    assert (status, code) == (422, "unreadable")
    assert not message.startswith("this image")  # the page names the file before
    assert "/proc" not in message
    assert "\n" not in message


def test_no_file_of_an_upload_stays_open_or_on_a_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    decode_upload(encoded("PNG"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        decode_upload(encoded("PNG"))
        refusal(encoded("PNG")[:900])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []
