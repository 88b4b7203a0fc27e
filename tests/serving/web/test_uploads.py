"""Uploads: their type by content alone, limits before decoding, processes that can be ended."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Awaitable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid

from cxr_compare.data_prep.images.image import read_image
from cxr_compare.serving.guard import file_warnings
from cxr_compare.serving.web.decode_worker import READY
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.uploads import Decoded, Decoder, Refused, detect_format
from tests.data_prep.images.test_image import huge, png_of_size
from tests.small_dicom import as_file, dicom_image, image_file

T = TypeVar("T")
GREYS = np.random.default_rng(3).integers(0, 256, (48, 64), dtype=np.uint8)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


encoded = partial(image_file, GREYS)


def dicom(values: np.ndarray = GREYS, *, preamble: bytes = bytes(128), **elements: Any) -> bytes:
    header = dicom_image(values, **elements)
    header.preamble = preamble
    return as_file(header)


def archive(comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.html", "<script>alert(1)</script>")
        made.comment = comment
    return file.getvalue()


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
    "SVG": SVG,
    "SVG behind blanks": b" \n\t" + SVG,
    "HTML": b"<!DOCTYPE html><html><img src='x.png'></html>",
    "XML": b"<?xml version='1.0'?>" + SVG,
    "zip": archive(),
    "empty zip": b"PK\x05\x06" + bytes(18),
    "gzip": b"\x1f\x8b\x08" + bytes(40),
    "PDF": b"%PDF-1.7\n" + bytes(40),
    "GIF": encoded("GIF"),
    "WebP": encoded("WEBP"),
    "BMP": encoded("BMP"),
    "PPM": encoded("PPM"),
    "program": b"\x7fELF" + bytes(200),
    "text": b"patient,score\n1,0.5\n",
    "PNG and zip": encoded("PNG") + archive(),
    "PNG and zip with a comment": encoded("PNG") + archive(b"x" * 5000),
    "JPEG and zip": encoded("JPEG") + archive(),
    "DICOM and zip": dicom() + archive(),
    "TIFF and zip": encoded("TIFF") + archive(),
    "PNG and start of a zip": encoded("PNG") + b"PK\x03\x04" + bytes(9),
    "PNG and HTML": encoded("PNG") + b"<html><script>alert(1)</script>",
    "JPEG and HTML": encoded("JPEG") + b"\n< script >alert(1)</script>",
    "JPEG and PHP": encoded("JPEG") + b"<?php system($_GET[1]);",
    "JPEG that is a PDF": encoded("JPEG", comment=b"%PDF-1.4 ..."),
    "PNG and a program": encoded("PNG") + b"\x7fELF" + bytes(50),
    "DICOM and a program": dicom(preamble=b"MZ" + bytes(126)),
    "DICOM and a page": dicom(preamble=b"<html><script>".ljust(128)),
    "animated PNG": encoded("PNG", save_all=True, append_images=[Image.fromarray(255 - GREYS)]),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_what_is_no_still_image_alone_is_refused(content: bytes) -> None:
    with pytest.raises(Refused) as refused:
        detect_format(content)
    assert (refused.value.status, refused.value.code) == (415, "type")
    assert "DICOM, PNG, JPEG or TIFF" in refused.value.message


class Decoding:
    """A decoder, in an event loop that goes on."""

    def __init__(self, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.decoder = Decoder(ServeSettings(**options))
        self.loop.run_until_complete(self.decoder.start())

    def run(self, work: Awaitable[T]) -> T:
        async def limited() -> T:
            return await asyncio.wait_for(work, 60)

        return self.loop.run_until_complete(limited())

    @property
    def pids(self) -> list[int]:
        return self.decoder.pids

    def decode(self, content: bytes) -> Decoded:
        return self.run(self.decoder.decode(content))

    def refusal(self, content: bytes) -> tuple[int, str, str]:
        with pytest.raises(Refused) as refused:
            self.decode(content)
        return refused.value.status, refused.value.code, refused.value.message

    def close(self) -> None:
        self.run(self.decoder.stop())
        self.loop.close()


@pytest.fixture(scope="module")
def decoding() -> Iterator[Decoding]:
    decoding = Decoding(max_bytes=8 << 20, max_pixels=4_000_000)
    yield decoding
    decoding.close()


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
def test_an_upload_is_what_the_file_is(decoding: Decoding, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    expected = read_image(path, deep=True)
    plain, deep = (
        decoding.decode(content),
        decoding.run(decoding.decoder.decode(content, deep=True)),
    )
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
    "PNG bomb of 9 megapixels": lambda: png_of_size(3000, 3000, rows=[bytes(3000)] * 3000),
    "JPEG header of 65535 x 65535": lambda: huge("jpeg"),
    "DICOM header of 65535 x 65535": lambda: dicom(Rows=65535, Columns=65535),
    "TIFF header of 65535 x 65535": lambda: huge("tiff"),
    "DICOM that inflates to 600 MiB": deflated_bomb,
    "file of 9 MiB": lambda: encoded("PNG") + bytes(9 << 20),
}


@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large_is_refused_before_it_is_decoded(decoding, make):
    before = decoding.pids
    status, code, message = decoding.refusal(make())
    assert (status, code) == (413, "too_large"), message
    assert decoding.pids == before
    assert _peak_mib(before[0]) < 512


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1]
    return int(status.split()[0]) / 1024


UNREADABLE = {
    "cut PNG": lambda: encoded("PNG")[:900],
    "cut JPEG": lambda: encoded("JPEG")[:600],
    "cut DICOM": lambda: dicom()[:-200],
    "frames that are not there": many_frames,
    "PNG without an image": lambda: b"\x89PNG\r\n\x1a\n" + bytes(40),
    "DICOM without an image": lambda: dicom()[:300],
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_damaged_gets_one_line_without_paths(decoding, make):
    status, code, message = decoding.refusal(make())
    assert (status, code) == (422, "unreadable")
    assert not message.startswith("this image")  # the page names the file before
    assert "/proc" not in message
    assert "\n" not in message


def test_a_process_killed_while_idle_costs_no_answer(decoding: Decoding) -> None:
    (old,) = decoding.pids
    os.kill(old, signal.SIGKILL)
    np.testing.assert_array_equal(decoding.decode(encoded("PNG")).image.pixels, GREYS)
    assert decoding.pids != [old]


def test_a_process_killed_in_the_middle_costs_no_answer(decoding: Decoding) -> None:
    """The file goes to another process; so does what waits."""
    contents = [encoded("PNG"), encoded("TIFF")] * 4

    async def decode_all() -> list[Decoded]:
        tasks = [asyncio.create_task(decoding.decoder.decode(content)) for content in contents]
        await asyncio.sleep(0)  # the first is under way
        os.kill(decoding.pids[0], signal.SIGSTOP)
        await asyncio.sleep(0.05)
        os.kill(decoding.pids[0], signal.SIGKILL)
        return await asyncio.gather(*tasks)

    for got in decoding.run(decode_all()):
        np.testing.assert_array_equal(got.image.pixels, GREYS)


def test_file_that_takes_too_long_is_aborted_and_the_next_is_read() -> None:
    decoding = Decoding()
    decoding.decoder.seconds = 1.0
    try:
        (stopped,) = decoding.pids
        os.kill(stopped, signal.SIGSTOP)  # as a decoder that never ends
        assert decoding.refusal(encoded("PNG"))[:2] == (422, "too_hard")
        decoding.decoder.seconds = 30.0
        np.testing.assert_array_equal(decoding.decode(encoded("PNG")).image.pixels, GREYS)
        assert stopped not in decoding.pids
    finally:
        decoding.close()


def test_more_files_than_may_wait_are_refused_with_a_time_to_come_again() -> None:
    decoding = Decoding(queue=2)

    async def ask() -> list[Any]:
        decodes = (decoding.decoder.decode(encoded("PNG")) for _ in range(5))
        return await asyncio.gather(*decodes, return_exceptions=True)

    try:
        got = decoding.run(ask())
    finally:
        decoding.close()
    assert sum(isinstance(one, Decoded) for one in got) == 2
    refused = [one for one in got if isinstance(one, Refused)]
    assert {(one.status, one.headers["Retry-After"]) for one in refused} == {(429, "2")}


def test_a_client_that_leaves_costs_no_process(decoding: Decoding) -> None:
    before = decoding.pids

    async def leave() -> None:
        task = asyncio.create_task(decoding.decoder.decode(encoded("PNG")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for _ in range(5):
        decoding.run(leave())
    np.testing.assert_array_equal(decoding.decode(encoded("PNG")).image.pixels, GREYS)
    assert decoding.pids == before


def test_processes_end_with_their_decoder() -> None:
    decoding = Decoding(workers=2)
    pids = decoding.pids
    assert len(pids) == 2
    decoding.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_process_ends_when_its_server_is_killed() -> None:
    code = (
        "import asyncio, os, signal\n"
        "from cxr_compare.serving.web.limits import ServeSettings\n"
        "from cxr_compare.serving.web.uploads import Decoder\n"
        "async def serve():\n"
        "    decoder = Decoder(ServeSettings())\n"
        "    await decoder.start()\n"
        "    print(*decoder.pids, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(serve())\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -signal.SIGKILL
    status = Path(f"/proc/{int(killed.stdout)}/status")
    deadline = time.monotonic() + 30
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        asyncio.run(Decoder(ServeSettings()).start())


def test_nothing_is_left_in_temporary_folders(decoding, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fresh = Decoding()
    fresh.decode(encoded("PNG"))
    fresh.refusal(encoded("PNG")[:900])
    fresh.close()
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_flat_over_many_uploads(decoding: Decoding) -> None:
    content = encoded("PNG")
    (pid,) = decoding.pids

    def resident() -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

    for _ in range(50):
        decoding.decode(content)
    before = resident()
    for _ in range(300):
        decoding.decode(content)
    assert resident() - before < 8 << 20
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < 16


def test_client_that_leaves_counts_as_waiting_until_noticed_and_costs_no_decoding(
    monkeypatch, tmp_path
) -> None:
    content = encoded("PNG")
    process = tmp_path / "ends_when_asked"
    process.write_text(f"#!/bin/sh\nprintf {READY.decode()}\nhead -c 1 >/dev/null\n")
    process.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(process))

    async def scenario() -> None:
        decoder = Decoder(ServeSettings(queue=1))  # without a process so far
        left = asyncio.create_task(decoder.decode(content))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        with pytest.raises(Refused) as refused:
            await decoder.decode(content)
        assert refused.value.status == 429
        await decoder.start()
        pids = decoder.pids
        while decoder.waiting:
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)  # a process that was asked would have ended by now
        assert decoder.pids == pids
        assert all(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
        await decoder.stop()

    asyncio.run(scenario())
