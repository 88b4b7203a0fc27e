"""Answers for uploads: an upload is decoded and predicted, and its answer is drawn."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Literal

import numpy as np
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record
from cxr_compare.hospital.dicom_objects.result_identity import RESEARCH_USE, to_bytes
from cxr_compare.serving.answer import Answer, render_answers
from cxr_compare.serving.guard import Warned
from cxr_compare.serving.image_files import note_answers
from cxr_compare.serving.joint_answers import answers_by_image
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import (
    AnalyzeAnswer,
    DicomObjects,
    ImageFacts,
    Refused,
    ReportFigures,
)
from cxr_compare.serving.web.systems import ServedSystem, disagreement, versions_of
from cxr_compare.serving.web.uploads import Decoded, decode_upload

_LOG = logging.getLogger("cxr.serve")
Include = Literal["overlay", "maps", "sr", "sc"]
_FAILED = (413, 415, 422)  # status of an upload that could not be read
_AGAIN = 10.0  # seconds after which a server that could not answer tries again


class Server:
    """State of the web server: its systems, its settings, and whether it is ready.

    Args:
        systems: Systems (trained networks with their thresholds) with which the server predicts.
        settings: Settings of the server.
        missed_together: Share of positive images that every system decides as negative; None if
            unknown.

    Attributes:
        status: ``starting`` until a first image was predicted, then ``ok``, at the end
            ``stopping``.
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
        self.status: Literal["ok", "starting", "stopping"] = "starting"
        self._runs = [system.run for system in systems]
        # One image at a time is decoded and predicted: that bounds the memory, and what decoders
        # and models warn of is caught for the whole process.
        self._working = threading.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Get ready in an ``async with`` block, at the end of which the server is stopping."""
        warming = asyncio.create_task(self._warm_up())
        try:
            yield
        finally:
            self.status = "stopping"
            warming.cancel()

    async def _warm_up(self) -> None:
        """Answer for a blank image, so that the first request need not wait for it."""
        blank = np.zeros((64, 64), np.uint8)
        image = DecodedImage(blank, decode_record([]))
        while True:
            try:
                await asyncio.to_thread(self._first_answer, image)
                break
            except Exception as error:  # noqa: BLE001 - such as a GPU's memory that others hold
                _LOG.error("not ready: %s: %s", type(error).__name__, error)
                await asyncio.sleep(_AGAIN)
        if self.status == "starting":
            self.status = "ok"

    def _first_answer(self, image: DecodedImage) -> None:
        with self._working:
            self._predict("blank", image, ())

    def _predict(
        self, name: str, image: DecodedImage, file_warnings: tuple[Warned, ...]
    ) -> list[Answer]:
        (outcome,) = answers_by_image(self._runs, [(name, image)], [file_warnings])
        if isinstance(outcome, InputError):
            raise outcome
        return outcome

    def _note(
        self, name: str, image: DecodedImage | None, answers: list[Answer] | None, start: float
    ) -> None:
        seconds = time.monotonic() - start
        note_answers(self.settings.log, self._runs, name, image, answers, seconds)

    def _note_failure(self, content: bytes, start: float) -> None:
        """Write an upload that could not be predicted into the log."""
        # Called by its content: clients may give one name to all that they send.
        self._note(hashlib.sha256(content).hexdigest(), None, None, start)

    def _answers(self, name: str, content: bytes, *, source: bool) -> tuple[Decoded, list[Answer]]:
        """Decode an upload and have each system answer for it."""
        start = time.monotonic()
        try:
            decoded = decode_upload(content, source=source)
            answers = self._predict(name, decoded.image, decoded.warnings)
        except InputError as error:
            self._note_failure(content, start)
            raise Refused(422, "not_finite", str(error).removeprefix(f"{name}: ")) from None
        except Exception as error:
            if not isinstance(error, Refused) or error.status in _FAILED:
                self._note_failure(content, start)
            raise
        self._note(name, decoded.image, answers, start)
        return decoded, answers

    def decode_deep(self, content: bytes) -> Decoded:
        """Decode an upload with all its bits.

        Args:
            content: Bytes of the upload.

        Returns:
            The decoded image, with its pixels at full depth.

        Raises:
            Refused: The upload is no image, is damaged, or has too many pixels.
        """
        with self._working:
            return decode_upload(content, deep=True)

    def analyze(
        self, request_id: str, name: str, content: bytes, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        """Decode one upload, and return the predictions of all systems for it.

        Args:
            request_id: Identifier of the request in the log.
            name: File name that the client gave.
            content: Bytes of the upload.
            include: Additional parts of the response: ``maps`` (activation maps), ``overlay`` (a
                PNG drawing), ``sr`` (DICOM structured report) or ``sc`` (DICOM Secondary Capture).

        Returns:
            The response, with facts about the image and one prediction of each system.

        Raises:
            Refused: The upload cannot be predicted; the error says why.
        """
        if include & {"sr", "sc"} and find_spec("highdicom") is None:
            raise Refused(
                400,
                "dicom_not_installed",
                "this server makes no DICOM objects; leave out include=sr and include=sc, or have "
                "the extra dicom of cxr-compare installed on it",
            )
        with self._working:
            return self._analyze(request_id, name, content, include)

    def _analyze(
        self, request_id: str, name: str, content: bytes, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        decoded, answers = self._answers(name, content, source=bool(include & {"sr", "sc"}))
        described = [
            system.describe(answer, maps="maps" in include)
            for system, answer in zip(self.systems, answers, strict=True)
        ]
        warnings = Answer.joint_warnings(answers)
        if warnings and self.settings.strict:
            raise Refused(422, "doubtful", warnings[0], kind=warnings[0].kind)
        objects = _dicom_objects(decoded, answers, self.systems, include)
        overlay = _overlay(answers) if "overlay" in include else None
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
    from cxr_compare.hospital.dicom_objects.results import KINDS, dicom_results

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
