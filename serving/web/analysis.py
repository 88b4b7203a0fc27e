"""Answers for uploads: an upload is decoded and predicted in a batch, and its answer is drawn."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Literal

import numpy as np
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record
from cxr_compare.data_prep.store.answer_log import AnswerLog
from cxr_compare.serving.answer import Answer, render_answers
from cxr_compare.serving.dicom_objects.result_identity import RESEARCH_USE, to_bytes
from cxr_compare.serving.guard import Warned
from cxr_compare.serving.image_files import note_answers
from cxr_compare.serving.joint_answers import answers_by_image
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import (
    AnalyzeAnswer,
    DicomObjects,
    ImageFacts,
    Refused,
    ReportFigures,
)
from cxr_compare.serving.web.systems import ServedSystem, disagreement, versions_of
from cxr_compare.serving.web.uploads import Decoded, Decoder

_LOG = logging.getLogger("cxr.serve")
Include = Literal["overlay", "maps", "sr", "sc"]
_MOST_REPORTS = 2  # under way
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32)
_WAKE = 0.2  # seconds after which a thread without work looks whether it shall end
_LOOK = 0.004  # seconds after which a thread that waits for more looks whether more is coming
_LONGEST_WAIT = 0.05  # seconds that the first image of a batch waits for others
_FAILED = (413, 415, 422)  # status of an upload that could not be read
_AGAIN = 10.0  # seconds after which a server that could not answer tries again


def _too_busy(retry_after: int) -> Refused:
    """Return the refusal of a request for which there is no place for so many seconds."""
    message = "as many images wait as may; try again"
    return Refused(429, "busy", message, {"Retry-After": str(retry_after)})


class RequestPlaces:
    """Limit on the number of HTTP requests that are worked on at the same time.

    A request is counted once its body has arrived; `serving.web.gate` limits those whose body still
    arrives.

    Args:
        most: Largest number of requests that are worked on at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Count a request during a ``with`` block.

        Raises:
            Refused: As many requests are in progress as are allowed (status 429).
        """
        if self._taken >= self._most:
            raise _too_busy(1)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@dataclass(frozen=True, eq=False)
class _Waiting:
    called: str
    image: DecodedImage
    of_file: tuple[Warned, ...]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[list[Answer]]

    def deliver(self, outcome: list[Answer] | Exception) -> None:
        """Give the outcome to the request, unless nobody waits for it any more."""
        self.loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: list[Answer] | Exception) -> None:
        if self.result.done():
            return
        if isinstance(outcome, Exception):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)


class Batcher:
    """Queue of uploaded images, which a thread predicts in batches with all systems.

    Images that wait at the same time are predicted together. After each batch the function
    `on_batch` is called with its number of images and its duration in seconds.

    Args:
        systems: Loaded runs or exports that predict each image.
        settings: Settings of the server, of which the size of the queue and of a batch are used.
        on_batch: Function that is called after each batch with its number of images and its
            duration in seconds.

    Attributes:
        seconds_per_image: Moving average of the time for one image, in seconds.
    """

    def __init__(
        self,
        systems: Sequence[Run],
        settings: ServeSettings,
        on_batch: Callable[[int, float], object] = lambda images, seconds: None,
    ) -> None:
        self._systems = tuple(systems)
        self._batch = settings.batch
        self._on_batch = on_batch
        self._queue: queue.Queue[_Waiting] = queue.Queue(settings.queue)
        self._ended = threading.Event()
        self._coming = 0
        self.seconds_per_image = 0.1
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        """Start the thread that predicts the images of the queue."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present batch. The requests of images that still wait are refused."""
        self._ended.set()
        self._thread.join()
        while not self._queue.empty():
            self._queue.get_nowait().deliver(_too_busy(1))

    @property
    def waiting(self) -> int:
        """Number of images that wait in the queue."""
        return self._queue.qsize()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Announce an image that is being decoded, so that a batch waits briefly for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def answer(
        self, called: str, image: DecodedImage, of_file: tuple[Warned, ...] = ()
    ) -> list[Answer]:
        """Return the prediction of each system for one image. A cancelled request leaves the queue.

        Args:
            called: Name of the image in the predictions, such as its file name.
            image: The decoded image.
            of_file: Warnings about the file, from `serving.guard.file_warnings`.

        Raises:
            Refused: The queue is full.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(called, image, of_file, loop, loop.create_future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise _too_busy(max(1, round(self._queue.maxsize * self.seconds_per_image))) from None
        return await waiting.result

    def _run(self) -> None:
        while not self._ended.is_set():
            if some := self._next():
                self._answer(some)

    def _next(self) -> list[_Waiting]:
        """Return the images that wait, at most a batch; drop those of cancelled requests."""
        some: list[_Waiting] = []
        with suppress(queue.Empty):
            some.append(self._queue.get(timeout=_WAKE))
        # No longer than an image takes: together they take less than one by one.
        end = time.monotonic() + min(self.seconds_per_image, _LONGEST_WAIT)
        while some and len(some) < self._batch:
            left = end - time.monotonic() if self._coming else 0.0
            try:
                some.append(self._queue.get(timeout=max(0.0, min(left, _LOOK))))
            except queue.Empty:
                if left <= 0:
                    break
        return [request for request in some if not request.result.done()]

    def _answer(self, some: Sequence[_Waiting]) -> None:
        start = time.monotonic()
        try:
            images = [(request.called, request.image) for request in some]
            of_files = [request.of_file for request in some]
            outcomes: Sequence[list[Answer] | Exception]
            outcomes = answers_by_image(self._systems, images, of_files)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            if len(some) > 1:  # one image must not take the answers of others along
                for request in some:
                    self._answer([request])
                return
            outcomes = [error]
        seconds = time.monotonic() - start
        self.seconds_per_image += 0.1 * (seconds / len(some) - self.seconds_per_image)
        self._on_batch(len(some), seconds)
        for request, outcome in zip(some, outcomes, strict=True):
            request.deliver(outcome)


class _Metrics:
    """Metrics of one server for Prometheus: counts and seconds, never names."""

    def __init__(self, waiting: Callable[[], float], log: AnswerLog | None) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        seconds = partial(Histogram, registry=self._registry, buckets=_SECONDS)
        self._requests = counter("cxr_requests", "Requests that came.", ["route", "status"])
        self._seconds = seconds("cxr_request_seconds", "Seconds of a request.", ["route"])
        self._batch_images = seconds("cxr_batch_images", "Images of a batch.", buckets=_IMAGES)
        self._batch_seconds = seconds("cxr_batch_seconds", "Seconds that a batch took.")
        self._decisions = counter("cxr_decisions", "Answers given.", ["system", "decision"])
        gauge = Gauge("cxr_waiting_images", "Images that wait.", registry=self._registry)
        gauge.set_function(waiting)
        lost = Gauge("cxr_log_lost_rows", "Rows that the log misses.", registry=self._registry)
        lost.set_function(lambda: 0 if log is None else log.lost)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, images: int, seconds: float) -> None:
        """Count a batch that the systems answered."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def count_decision(self, system: str, decision: str | None) -> None:
        """Count the decision of a system."""
        self._decisions.labels(system, decision or "undecided").inc()

    def text(self) -> bytes:
        """Return all metrics in the format of Prometheus."""
        return generate_latest(self._registry)


class Server:
    """State of the web server: its systems, its queue of images, its limits and its metrics.

    Args:
        systems: Runs or exports with which the server predicts.
        settings: Settings of the server.
        missed_together: Share of positive images that every system decides as negative; None if
            unknown.
    """

    def __init__(
        self,
        systems: Sequence[ServedSystem],
        settings: ServeSettings,
        missed_together: ReportFigures | None = None,
    ) -> None:
        self.systems = systems
        self.settings = settings
        self.missed_together = missed_together
        self.decoder = Decoder(settings)
        # What waits, and what is decoded or answered at the time.
        under_way = settings.queue + settings.batch + settings.workers
        self.places = RequestPlaces(under_way)
        self.reports = RequestPlaces(_MOST_REPORTS)
        self.status: Literal["ok", "starting", "stopping"] = "starting"
        self.metrics = _Metrics(lambda: self.batcher.waiting, settings.log)
        runs = [system.run for system in systems]
        self.batcher = Batcher(runs, settings, self.metrics.count_batch)
        self._note = partial(note_answers, settings.log, runs)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the decoder and the batcher in an ``async with`` block, and stop both at its end."""
        await self.decoder.start()
        self.batcher.start()
        warming = asyncio.create_task(self._warm_up())
        try:
            yield
        finally:
            self.status = "stopping"
            await asyncio.to_thread(self.batcher.stop)
            await self.decoder.stop()
            warming.cancel()

    async def _warm_up(self) -> None:
        """Answer for a blank image, so that the first request need not wait for it."""
        blank = np.zeros((64, 64), np.uint8)
        image = DecodedImage(blank, decode_record([]))
        while True:
            try:
                await self.batcher.answer("blank", image)
                break
            except Refused:  # it stops
                return
            except Exception as error:  # noqa: BLE001 - such as a GPU's memory that others hold
                _LOG.error("not ready: %s: %s", type(error).__name__, error)
                await asyncio.sleep(_AGAIN)
        if self.status == "starting":
            self.status = "ok"

    def note_failure(self, content: bytes, start: float) -> None:
        """Write an upload that could not be predicted into the log.

        Args:
            content: Bytes of the upload; the log names it by their digest.
            start: Time at which the upload came, as `time.monotonic` gives it.
        """
        # Called by its content: clients may give one name to all that they send.
        name = hashlib.sha256(content).hexdigest()
        self._note(name, None, None, time.monotonic() - start)

    async def _answers(
        self, name: str, content: bytes, *, source: bool
    ) -> tuple[Decoded, list[Answer]]:
        """Decode an upload and have each system answer for it."""
        start = time.monotonic()
        try:
            with self.batcher.coming():
                decoded = await self.decoder.decode(content, source=source)
            answers = await self.batcher.answer(name, decoded.image, decoded.warnings)
        except InputError as error:
            self.note_failure(content, start)
            raise Refused(422, "not_finite", str(error).removeprefix(f"{name}: ")) from None
        except Exception as error:
            if not isinstance(error, Refused) or error.status in _FAILED:
                self.note_failure(content, start)
            raise
        self._note(name, decoded.image, answers, time.monotonic() - start)
        return decoded, answers

    async def analyze(
        self, request_id: str, name: str, content: bytes, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        """Decode one upload, and return the predictions of all systems for it.

        Args:
            request_id: Identifier of the request in the log.
            name: File name that the client gave.
            content: Bytes of the upload.
            include: Additional parts of the response: ``maps``, ``overlay``, ``sr`` or ``sc``
                (DICOM objects).

        Raises:
            Refused: The upload cannot be predicted, or the queue is full; the error says why.
        """
        formats = include & {"sr", "sc"}
        if formats and find_spec("highdicom") is None:
            raise Refused(
                400,
                "dicom_not_installed",
                "this server makes no DICOM objects; leave out include=sr and include=sc, or have "
                "the extra dicom of cxr-compare installed on it",
            )
        decoded, answers = await self._answers(name, content, source=bool(formats))
        described = [
            system.describe(answer, maps="maps" in include)
            for system, answer in zip(self.systems, answers, strict=True)
        ]
        warnings = Answer.joint_warnings(answers)
        if warnings and self.settings.strict:
            for said in described:
                self.metrics.count_decision(said.system, "refused")
            raise Refused(422, "doubtful", warnings[0], kind=warnings[0].kind)
        for said in described:
            decision = said.decision if said.status == "ok" else said.status
            self.metrics.count_decision(said.system, decision)
        objects = await asyncio.to_thread(_dicom_objects, decoded, answers, self.systems, include)
        overlay = await asyncio.to_thread(_overlay, answers) if "overlay" in include else None
        return AnalyzeAnswer(
            request_id=request_id,
            image=_facts(name, decoded),
            status="doubtful" if warnings else "ok",
            warnings=list(warnings),
            warning_kinds=[warned.kind for warned in warnings],
            cautions=Answer.joint_cautions(answers),
            notes=list(dict.fromkeys(text for answer in answers for text in answer.notes)),
            disagreement=disagreement(described),
            systems=described,
            overlay_png=overlay,
            dicom=objects,
            versions=versions_of(frozenset(system.facts.backend for system in self.systems)),
            research_use=RESEARCH_USE,
        )


def _dicom_objects(
    decoded: Decoded,
    answers: Sequence[Answer],
    systems: Sequence[ServedSystem],
    include: frozenset[Include],
) -> DicomObjects | None:
    if decoded.source is None:
        return None
    from cxr_compare.serving.dicom_objects.results import KINDS, dicom_results

    algorithms = [system.algorithm for system in systems]
    try:
        results = dicom_results(
            decoded.source, answers, algorithms, [kind for kind in KINDS if kind in include]
        )
    except InputError as error:
        raise Refused(422, "no_reference", str(error)) from None
    encoded = {kind: _base64(to_bytes(result)) for kind, result in results.items()}
    return DicomObjects(sr=encoded.get("sr"), sc=encoded.get("sc"))


def _facts(name: str, decoded: Decoded) -> ImageFacts:
    image = decoded.image
    height, width = image.pixels.shape
    return ImageFacts(
        name=name,
        width=width,
        height=height,
        format=decoded.format,
        bits=decoded.bits,
        monochrome1=image.record["photometric"] == "MONOCHROME1",
        view=image.header.get("view"),
    )


def _overlay(answers: Sequence[Answer]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(render_answers(answers)).save(buffer, format="PNG")
    return _base64(buffer.getvalue())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
