"""Answers for uploads: an upload is decoded and predicted, and its answer is drawn."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import numpy as np
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record
from cxr_compare.serving.answer import RESEARCH_USE, Answer, render_answers
from cxr_compare.serving.guard import Warned
from cxr_compare.serving.joint_answers import answers_by_image
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import (
    AnalyzeAnswer,
    ImageFacts,
    Refused,
    ReportFigures,
)
from cxr_compare.serving.web.systems import ServedSystem, disagreement, versions_of
from cxr_compare.serving.web.uploads import Decoded, decode_upload

_LOG = logging.getLogger("cxr.serve")
Include = Literal["overlay", "maps"]
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

    def _answers(self, name: str, content: bytes) -> tuple[Decoded, list[Answer]]:
        """Decode an upload and have each system answer for it."""
        decoded = decode_upload(content)
        try:
            return decoded, self._predict(name, decoded.image, decoded.warnings)
        except InputError as error:
            raise Refused(422, "not_finite", str(error).removeprefix(f"{name}: ")) from None

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
            include: Additional parts of the response: ``maps`` (activation maps) or ``overlay`` (a
                PNG drawing).

        Returns:
            The response, with facts about the image and one prediction of each system.

        Raises:
            Refused: The upload cannot be predicted; the error says why.
        """
        with self._working:
            return self._analyze(request_id, name, content, include)

    def _analyze(
        self, request_id: str, name: str, content: bytes, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        decoded, answers = self._answers(name, content)
        described = [
            system.describe(answer, maps="maps" in include)
            for system, answer in zip(self.systems, answers, strict=True)
        ]
        warnings = Answer.joint_warnings(answers)
        if warnings and self.settings.strict:
            raise Refused(422, "doubtful", warnings[0], kind=warnings[0].kind)
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
            versions=versions_of(frozenset(system.facts.backend for system in self.systems)),
            research_use=RESEARCH_USE,
        )


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
