"""What answers for uploads: they are decoded, read in batches, drawn, and counted."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Literal

import numpy as np
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from data_prep.contracts.errors import InputError
from data_prep.images.decoded_image import DecodedImage, decode_record
from serving.answer import Answer, render_answers
from serving.dicom_objects.instance import Algorithm, Source, to_bytes
from serving.web.batcher import Batcher, Busy, Places
from serving.web.schemas import (
    RESEARCH_USE,
    AnalyzeAnswer,
    DicomObjects,
    ImageFacts,
    Refused,
)
from serving.web.settings import ServeSettings
from serving.web.systems import ServedSystem, disagreement, versions_of
from serving.web.uploads import Decoded, Decoder

Include = Literal["overlay", "maps", "sr", "sc"]
_MOST_BYTES = 512 << 20  # of all uploads under way
_MOST_REPORTS = 2  # under way
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32)


class _Metrics:
    """What Prometheus reads of one server: counts and seconds, never names."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cxr_requests", "Requests by route and status.", ["route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "cxr_request_seconds", "Seconds of a request.", ["route"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batch_images = Histogram(
            "cxr_batch_images", "Images that were answered at a time.", buckets=_IMAGES,
            registry=self._registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "cxr_batch_seconds", "Seconds that the systems took for them.", buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._decisions = Counter(
            "cxr_decisions", "Answers by system and decision.", ["system", "decision"],
            registry=self._registry,
        )  # fmt: skip
        gauge = Gauge("cxr_waiting_images", "Images that wait.", registry=self._registry)
        gauge.set_function(waiting)

    def count(self, route: str, status: int, seconds: float) -> None:
        """A request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, images: int, seconds: float) -> None:
        """A batch that the systems answered."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def count_decision(self, system: str, decision: str | None) -> None:
        """An answer of a system."""
        self._decisions.labels(system, decision or "undecided").inc()

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)


class Server:
    """What answers for uploads, how far it is, and what bounds and counts its work."""

    def __init__(self, systems: Sequence[ServedSystem], settings: ServeSettings) -> None:
        self.systems, self.settings = systems, settings
        self.decoder = Decoder(settings)
        # What waits, and what is decoded or answered at the time.
        under_way = settings.queue + settings.batch + settings.workers
        self.places = Places(under_way, max(_MOST_BYTES, settings.max_bytes))
        self.reports = Places(_MOST_REPORTS, _MOST_REPORTS * settings.max_bytes)
        self.status: Literal["ok", "starting", "stopping"] = "starting"
        self.metrics = _Metrics(lambda: self.batcher.waiting)
        runs = [system.run for system in systems]
        self.batcher = Batcher(runs, settings, self.metrics.count_batch)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Decode and answer while the block runs."""
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
        await self.batcher.answer("blank", DecodedImage(blank, decode_record(blank, [])))
        if self.status == "starting":
            self.status = "ok"

    async def analyze(
        self, request_id: str, name: str, content: bytes, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        """Answer for one upload."""
        wanted = include & {"sr", "sc"}
        if wanted:
            _require_highdicom()
        with self.batcher.coming():
            decoded = await self.decoder.decode(content, source=bool(wanted))
        try:
            answers = await self.batcher.answer(name, decoded.image, decoded.warnings)
        except InputError as error:
            raise Refused(422, "not_finite", str(error).removeprefix(f"{name}: ")) from None
        except Busy as busy:
            raise too_busy(busy.retry_after) from None
        pairs = list(zip(self.systems, answers, strict=True))
        described = [system.describe(answer, maps="maps" in include) for system, answer in pairs]
        for said in described:
            self.metrics.count_decision(said.system, said.decision)
        algorithms = [system.algorithm for system in self.systems]
        objects = (
            await asyncio.to_thread(_dicom_objects, source, answers, algorithms, wanted)
            if (source := decoded.source) is not None
            else None
        )
        overlay = await asyncio.to_thread(_overlay, answers) if "overlay" in include else None
        return AnalyzeAnswer(
            request_id=request_id,
            image=_facts(name, decoded),
            warnings=list(
                dict.fromkeys(text for one in answers for text in (*one.warnings, *one.notes))
            ),
            disagreement=disagreement(described),
            systems=described,
            overlay_png=overlay,
            dicom=objects,
            versions=versions_of(frozenset(system.facts.backend for system in self.systems)),
            research_use=RESEARCH_USE,
        )


def too_busy(retry_after: int) -> Refused:
    """The refusal of a request for which there is no place now."""
    return Refused(
        429, "busy", "as many images wait as may; try again", {"Retry-After": str(retry_after)}
    )


def _require_highdicom() -> None:
    if find_spec("highdicom") is None:
        raise Refused(
            400,
            "dicom_not_installed",
            "this server makes no DICOM objects; leave out include=sr and include=sc, or have "
            "'cxr-compare[dicom]' installed on it",
        )


def _dicom_objects(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    wanted: frozenset[Include],
) -> DicomObjects:
    from serving.dicom_objects.secondary_capture import overlay_capture
    from serving.dicom_objects.structured_report import structured_report

    made: dict[str, str] = {}
    try:
        if "sr" in wanted:
            made["sr"] = _base64(to_bytes(structured_report(source, answers, algorithms)))
        if "sc" in wanted:
            made["sc"] = _base64(to_bytes(overlay_capture(source, answers, algorithms)))
    except InputError as error:
        raise Refused(422, "no_reference", str(error)) from None
    return DicomObjects(sr=made.get("sr"), sc=made.get("sc"))


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
