"""From an upload to an answer: decode, read, draw."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from PIL import Image

from data_prep.contracts.errors import InputError
from serving.answer import Answer, render_answers
from serving.dicom_objects.instance import Algorithm, Source, to_bytes
from serving.web.batcher import Batcher, Busy
from serving.web.schemas import (
    RESEARCH_USE,
    AnalyzeAnswer,
    DicomObjects,
    ImageFacts,
    Refused,
)
from serving.web.systems import ServedSystem, disagreement, versions_of
from serving.web.uploads import Decoded, Decoder

if TYPE_CHECKING:
    from serving.web.metrics import Metrics

Include = Literal["overlay", "maps", "sr", "sc"]


@dataclass(frozen=True)
class Analysis:
    """What answers for an upload."""

    systems: Sequence[ServedSystem]
    decoder: Decoder
    batcher: Batcher
    metrics: Metrics

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
        described = [each.describe(answer, maps="maps" in include) for each, answer in pairs]
        for each in described:
            self.metrics.count_decision(each.system, each.decision)
        algorithms = [each.algorithm for each in self.systems]
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
            versions=versions_of(frozenset(each.run.model.backend for each in self.systems)),
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
