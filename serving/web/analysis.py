"""From an upload to an answer: decode, read, draw."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from PIL import Image

from data_prep.contracts.errors import InputError
from serving.answer import Answer, render_answers
from serving.web.decoding import Decoded, Refused
from serving.web.reader import Busy, Reader
from serving.web.schemas import RESEARCH_USE, AnalyzeAnswer, ImageFacts
from serving.web.systems import ServedSystem, disagreement, versions_of

if TYPE_CHECKING:
    from serving.web.metrics import Metrics

Include = Literal["overlay", "maps", "sr", "sc"]


class Decoder(Protocol):
    """What reads an upload."""

    async def decode(self, content: bytes) -> Decoded:
        """Read an upload, or raise `Refused`."""


@dataclass(frozen=True)
class Analysis:
    """What answers for an upload.

    Attributes:
        systems: What answers, in the order of the answers.
        decoder: Reads uploads.
        reader: Asks the systems.
        metrics: Counts decisions.
    """

    systems: Sequence[ServedSystem]
    decoder: Decoder
    reader: Reader
    metrics: Metrics

    async def analyze(
        self, request_id: str, name: str, content: bytes, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        """Answer for one upload.

        Args:
            request_id: Of the request.
            name: As the client called the file; echoed and drawn, never opened.
            content: The file.
            include: What else is wanted.

        Raises:
            Refused: It gets no answer.
        """
        decoded = await self.decoder.decode(content)
        try:
            answers = await self.reader.answer(name, decoded.image, decoded.warnings)
        except InputError as error:
            raise Refused(422, "not_finite", str(error).removeprefix(f"{name}: ")) from None
        except Busy as busy:
            raise too_busy(busy.retry_after) from None
        pairs = list(zip(self.systems, answers, strict=True))
        described = [each.describe(answer, maps="maps" in include) for each, answer in pairs]
        for each in described:
            self.metrics.count_decision(each.system, each.decision)
        overlay = await asyncio.to_thread(_overlay, answers) if "overlay" in include else None
        return AnalyzeAnswer(
            request_id=request_id,
            image=_facts(name, decoded),
            warnings=list(dict.fromkeys(text for one in answers for text in one.warnings)),
            disagreement=disagreement(described),
            systems=described,
            overlay_png=overlay,
            dicom=None,
            versions=versions_of(frozenset(each.run.model.backend for each in self.systems)),
            research_use=RESEARCH_USE,
        )


def too_busy(retry_after: int) -> Refused:
    """The refusal of a request for which there is no place now."""
    return Refused(
        429, "busy", "as many images wait as may; try again", {"Retry-After": str(retry_after)}
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
    return base64.b64encode(buffer.getvalue()).decode()
