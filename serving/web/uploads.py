"""Uploads as images: detection of their type, and the processes that decode them.

Only pixels and a few facts come out of an upload; its bytes are never sent back. A file that other
programs would read as something else, such as an archive or a web page, is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.deep_pixels import DeepPixels
from cxr_compare.data_prep.images.dicom_header import starts_like_dicom
from cxr_compare.serving.dicom_objects.source_header import Source
from cxr_compare.serving.guard import Warned
from cxr_compare.serving.web.decode_worker import ANSWERED, ASKED, READY
from cxr_compare.serving.web.limits import MEBIBYTE, ServeSettings
from cxr_compare.serving.web.schemas import Refused

_LOG = logging.getLogger("cxr.serve")
_START_SECONDS = 60.0
_LEAST_SECONDS = 5.0  # to decode a file
_AGAIN_SECONDS = 2.0  # until a process that did not start is started again
_STREAM_BYTES = 1 << 20
_LONGEST_JSON = 1 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KINDS = ((_PNG, "PNG"), (_JPEG, "JPEG"), *((start, "TIFF") for start in _TIFFS))
_OTHERS = (
    (b"PK", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"%PDF", "a PDF file"),
    (b"GIF8", "a GIF file"),
    (b"BM", "a BMP file"),
    (b"RIFF", "a WebP or other RIFF file"),
    (b"P5", "a PPM file"),
    (b"P6", "a PPM file"),
    (b"MZ", "a program"),
    (b"\x7fELF", "a program"),
    (b"#!", "a program"),
)
_MARKUP = re.compile(rb"<\s*(!doctype|\?xml|html|svg|script|body|head|iframe|\?php)", re.IGNORECASE)
_BEHIND = re.compile(rb"PK\x03\x04|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|%PDF-|\x7fELF")
_ZIP_END = b"PK\x05\x06"
_ZIP_ENTRY = b"PK\x01\x02"
_ZIP_TAIL = 22 + 65535  # bytes from which a zip archive can be found, with its comment
_PDF_START = 1024  # bytes within which readers of PDF look for its start
_GIVE = "give a DICOM, PNG, JPEG or TIFF file"


@dataclass(frozen=True)
class Decoded:
    """An uploaded image after decoding.

    Attributes:
        image: The decoded image.
        format: File format, such as ``DICOM`` or ``PNG``.
        bits: Number of bits of a stored pixel value, such as 12.
        warnings: Warnings of `serving.guard.file_warnings` about the file.
        source: Facts that DICOM results copy; None if the upload is no DICOM file, or if no such
            result was requested.
    """

    image: DecodedImage
    format: str
    bits: int
    warnings: tuple[Warned, ...]
    source: Source | None = None


def detect_format(content: bytes) -> str:
    """Return the file type of an upload, such as ``DICOM``, detected from its bytes alone.

    Args:
        content: Bytes of the upload.

    Raises:
        Refused: The content is empty, is no still image, or could be read as another type as well.
    """
    if not content:
        raise Refused(400, "empty", f"the file is empty; {_GIVE}")
    if starts_like_dicom(content[:132]):
        kind = "DICOM"
        other = _other_kind(content[:128])
        if other is not None and not content.startswith(_TIFFS):
            raise _refuse(f"a DICOM file that starts as {other} is refused")
    else:
        kinds = [name for start, name in _KINDS if content.startswith(start)]
        if not kinds:
            other = _other_kind(content)
            raise _refuse(f"{other} is no image" if other else "this is no image that is known")
        kind = kinds[0]
    _refuse_hidden(content, kind)
    return kind


def _refuse(reason: str) -> Refused:
    return Refused(415, "type", f"{reason}; {_GIVE}")


def _other_kind(content: bytes) -> str | None:
    for start, name in _OTHERS:
        if content.startswith(start):
            return name
    return "text or markup" if _MARKUP.search(content, 0, 1024) else None


def _refuse_hidden(content: bytes, kind: str) -> None:
    """Refuse what other programs would open as something else."""
    if _is_zip(content):
        raise _refuse("an image that is a zip archive as well is refused")
    if content.find(b"%PDF-", 0, _PDF_START) >= 0:
        raise _refuse("an image that is a PDF file as well is refused")
    end = len(content)
    if kind == "PNG":
        end, is_animated = _png_end(content)
        if is_animated:
            raise _refuse("an animated PNG file is refused")
    elif kind == "JPEG":
        end = content.rfind(b"\xff\xd9") + 2
    if end >= 2 and (_MARKUP.search(content, end) or _BEHIND.search(content, end)):
        raise _refuse(f"a {kind} file with another file behind its image is refused")


def _is_zip(content: bytes) -> bool:
    """Return True if programs that read zip archives would find one."""
    end = content.rfind(_ZIP_END, max(0, len(content) - _ZIP_TAIL))
    if end < 0 or end + 22 > len(content):
        return False
    entries, size, _, comment = struct.unpack("<HIIH", content[end + 10 : end + 22])
    if end + 22 + comment > len(content):
        return False
    start = end - size
    return entries == 0 or (start >= 0 and content[start : start + 4] == _ZIP_ENTRY)


def _png_end(content: bytes) -> tuple[int, bool]:
    """Return the end of a PNG image, and whether it is animated; the decoder finds damage."""
    position = len(_PNG)
    is_animated = False
    while position + 12 <= len(content):
        length, name = struct.unpack(">I4s", content[position : position + 8])
        position += 12 + length
        is_animated |= name == b"acTL"
        if name == b"IEND":
            return position, is_animated
    return len(content), is_animated


class _Worker:
    """A process that decodes one file at a time, in memory that it shares with this one."""

    def __init__(self, running: asyncio.subprocess.Process, shared: tuple[int, int]) -> None:
        self._running = running
        (self._upload, self._pixels) = shared
        self._open = list(shared)

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._running.pid

    @classmethod
    async def start(cls, max_pixels: int, seconds: float) -> Self:
        shared = (os.memfd_create("upload"), os.memfd_create("pixels"))
        arguments = map(str, (max_pixels, max(1, round(seconds)), *shared))
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
        try:
            running = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "cxr_compare.serving.web.decode_worker",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_STREAM_BYTES,
                start_new_session=True,  # Ctrl-C ends the server, which then ends it
                pass_fds=shared,
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            )
        except BaseException:
            for file in shared:
                os.close(file)
            raise
        worker = cls(running, shared)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker._read(len(READY))
        except BaseException as error:
            await worker.end()
            if not isinstance(error, TimeoutError | EOFError):
                raise
            raise RuntimeError("a process that decodes images did not start") from None
        return worker

    async def _read(self, size: int) -> bytes:
        assert self._running.stdout is not None  # noqa: S101 - a pipe was asked for
        return await self._running.stdout.readexactly(size)

    async def ask(
        self, content: bytes, *, deep: bool, source: bool
    ) -> tuple[dict[str, Any], bytes]:
        """Have a file decoded."""
        assert self._running.stdin is not None  # noqa: S101 - a pipe was asked for
        os.ftruncate(self._upload, 0)
        os.pwrite(self._upload, content, 0)
        self._running.stdin.write(ASKED.pack(deep, source))
        await self._running.stdin.drain()
        (size,) = ANSWERED.unpack(await self._read(ANSWERED.size))
        if size > _LONGEST_JSON:
            raise EOFError
        answer = json.loads(await self._read(size))
        os.ftruncate(self._upload, 0)
        if answer["status"] != 200:
            return answer, b""
        height, width = answer["shape"]
        count = height * width * (3 if deep else 1)
        # Read, not mapped: the process could take the memory away.
        pixels = os.pread(self._pixels, count, 0)
        os.ftruncate(self._pixels, 0)
        if len(pixels) < count:
            raise EOFError
        return answer, pixels

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._running.kill()

    async def end(self) -> None:
        """End the process and wait for it."""
        self.kill()
        await self._running.wait()
        # The transport of its pipes would be closed too late, by the garbage collector.
        self._running._transport.close()  # type: ignore[attr-defined]
        while self._open:
            os.close(self._open.pop())


class Decoder:
    """Processes that decode uploads. A process that takes too long or ends is replaced.

    Args:
        settings: Settings of the server: number of processes, largest image and time limit.

    Attributes:
        seconds: Time limit for one file, in seconds.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self.seconds = max(settings.seconds / 2, _LEAST_SECONDS)
        self._waiting = 0
        self._stopped = False
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        self._all: set[_Worker] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def pids(self) -> list[int]:
        """Ids of the worker processes that decode uploads, in ascending order."""
        return sorted(worker.pid for worker in self._all)

    @property
    def waiting(self) -> int:
        """Number of uploads that wait or are being decoded."""
        return self._waiting

    async def start(self) -> None:
        """Start the worker processes that decode uploads."""
        await asyncio.gather(*(self._add() for _ in range(self._settings.workers)))

    async def stop(self) -> None:
        """End the worker processes that decode uploads."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._all))
        self._all.clear()

    async def decode(self, content: bytes, *, deep: bool = False, source: bool = False) -> Decoded:
        """Decode an uploaded file to 8-bit grey, as a viewer would show the image.

        Args:
            content: Bytes of the upload.
            deep: True also returns the pixels with all bits, before any window.
            source: True also returns the header facts that DICOM results copy.

        Returns:
            The decoded image with its warnings.

        Raises:
            Refused: The upload is too large, is no image, is damaged or takes too long; too many
                others wait; or `source` is True and the file is no DICOM file that results can
                refer to.
        """
        if len(content) > self._settings.max_bytes:
            limit = f"{self._settings.max_bytes / MEBIBYTE:,.4g} MiB"
            raise Refused(413, "too_large", f"the file is larger than the limit of {limit}")
        kind = detect_format(content)
        if source and kind != "DICOM":
            message = (
                f"include=sr and include=sc are for DICOM files, this is {kind}: it names no "
                "patient and no study; leave them out"
            )
            raise Refused(400, "no_dicom", message)
        if self._waiting >= self._settings.queue:
            again = {"Retry-After": "2"}
            raise Refused(429, "busy", "as many files wait as may; try again", again)
        self._waiting += 1
        is_wanted = asyncio.Event()
        is_wanted.set()
        # In a task of its own: a client that leaves does not cost a process, and keeps its place
        # until the task has seen it.
        task = self._begin(self._ask(content, is_wanted, deep=deep, source=source))
        task.add_done_callback(self._leave)
        try:
            answer, pixels = await asyncio.shield(task)
        except asyncio.CancelledError:
            is_wanted.clear()
            raise
        if answer["status"] == 413:
            raise Refused(413, "too_large", answer["reason"])
        if answer["status"] != 200:
            raise Refused(422, "unreadable", answer["reason"])
        if "no_source" in answer:
            raise Refused(422, "no_reference", answer["no_source"])
        return _decoded(kind, answer, pixels)

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._waiting -= 1

    async def _ask(
        self, content: bytes, is_wanted: asyncio.Event, *, deep: bool, source: bool
    ) -> tuple[dict[str, Any], bytes]:
        for _ in range(2):  # the process may have ended for reasons that are not the file's
            worker = await self._free.get()
            if not is_wanted.is_set():
                self._free.put_nowait(worker)
                raise Refused(499, "client_gone", "the client closed the connection")
            answered = None
            try:
                async with asyncio.timeout(self.seconds):
                    answered = await worker.ask(content, deep=deep, source=source)
                return answered
            except TimeoutError:
                raise Refused(
                    422, "too_hard", f"could not be decoded within {self.seconds:g} seconds"
                ) from None
            except (EOFError, OSError):
                _LOG.warning("a process that decodes images ended")
            finally:
                if answered is None:
                    self._replace(worker)
                else:
                    self._free.put_nowait(worker)
        raise Refused(422, "undecodable", "could not be decoded; it is damaged")

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # read here, because nobody reads the error of a client that left

    def _replace(self, worker: _Worker) -> None:
        worker.kill()
        if not self._stopped:
            self._begin(self._renew(worker))

    async def _renew(self, worker: _Worker) -> None:
        self._all.discard(worker)
        await worker.end()
        while True:
            try:
                await self._add()
            except (RuntimeError, OSError) as error:
                _LOG.error("a process that decodes images does not start: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _add(self) -> None:
        worker = await _Worker.start(self._settings.max_pixels, self.seconds)
        self._all.add(worker)
        self._free.put_nowait(worker)


def _decoded(kind: str, answer: Mapping[str, Any], content: bytes) -> Decoded:
    height, width = answer["shape"]
    count = height * width
    pixels = np.frombuffer(content, np.uint8, count).reshape(height, width)
    deep = None
    if "deep" in answer:
        values = np.frombuffer(content, "<u2", count, offset=count).reshape(height, width)
        deep = DeepPixels(values, *answer["deep"])
    row_mm, column_mm = answer["spacing"]
    patient, instance = answer["ids"]
    image = DecodedImage(
        pixels,
        answer["record"],
        row_mm,
        column_mm,
        answer["header"],
        answer["colour"],
        patient,
        instance,
        deep,
    )
    bits = int(answer["record"]["bits"] or 8)
    taken = Source.from_json(answer["source"]) if "source" in answer else None
    warnings = tuple(Warned(*warning) for warning in answer["warnings"])
    return Decoded(image, kind, bits, warnings, taken)
