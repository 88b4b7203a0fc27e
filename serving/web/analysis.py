"""Answers for uploads: an upload is decoded and predicted, and its answer is drawn."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record
from cxr_compare.serving.answer import TABLE_COLUMNS, Answer, render_answers
from cxr_compare.serving.guard import Warned
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import AnalyzeAnswer, ImageFacts, Refused, ReportFigures
from cxr_compare.serving.web.systems import ServedSystem, disagreement, versions_of
from cxr_compare.serving.web.uploads import Decoded, decode_upload

Include = Literal["overlay", "maps", "csv"]
_IN_MEMORY = 4  # images at a time: received, decoded and predicted; further requests wait
_Made = TypeVar("_Made")


class Server:
    """State of the web server: its systems and its settings.

    `missed_together` is the share of positive images that every system decides as negative. A
    request holds the semaphore `places` while its image is in memory.
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
        self.places = asyncio.Semaphore(_IN_MEMORY)
        # One thread: what decoders warn of is caught for the whole process.
        self._decoders = ThreadPoolExecutor(1, "decode")
        self._predictors = ThreadPoolExecutor(len(systems), "predict")
        self._locks = [threading.Lock() for _ in systems]  # a model predicts one image at a time

    def warm_up(self) -> None:
        """Answer for a blank image, so that the first request need not wait for it."""
        self._predict("blank", DecodedImage(np.zeros((64, 64), np.uint8), decode_record([])), ())

    async def decode(self, content: bytes, *, deep: bool = False) -> Decoded:
        """Decode an upload in a thread, with all its bits if `deep`; see `decode_upload`."""
        return await _in_thread(self._decoders, lambda: decode_upload(content, deep=deep))

    async def analyze(
        self, request_id: str, name: str, content: bytes, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        """Decode one upload, and return the predictions of all systems for it.

        `request_id` identifies the request in the log, and `name` is the client's file name.
        `include` adds ``maps`` (activation maps), ``overlay`` (a PNG drawing) or ``csv`` (a table)
        to the response. Raises Refused if the upload cannot be predicted.
        """
        decoded = await self.decode(content)
        return await _in_thread(
            self._predictors, lambda: self._analyze(request_id, name, decoded, include)
        )

    def _predict(
        self, name: str, image: DecodedImage, file_warnings: tuple[Warned, ...]
    ) -> list[Answer]:
        answers = []
        for system, lock in zip(self.systems, self._locks, strict=True):
            with lock:
                (answer,) = system.run.answer([(name, image)], [file_warnings])
            if isinstance(answer, InputError):
                raise Refused(422, "not_finite", str(answer).removeprefix(f"{name}: "))
            answers.append(answer)
        return answers

    def _analyze(
        self, request_id: str, name: str, decoded: Decoded, include: frozenset[Include]
    ) -> AnalyzeAnswer:
        answers = self._predict(name, decoded.image, decoded.warnings)
        warnings = Answer.joint_warnings(answers)
        if warnings and self.settings.strict:
            raise Refused(422, "doubtful", warnings[0], kind=warnings[0].kind)
        sent = answers
        if "maps" in include:
            sent = [
                system.with_map(answer)
                for system, answer in zip(self.systems, answers, strict=True)
            ]
        return AnalyzeAnswer(
            request_id=request_id,
            image=_facts(name, decoded),
            status="doubtful" if warnings else "ok",
            warnings=[str(warned) for warned in warnings],
            warning_kinds=[warned.kind for warned in warnings],
            cautions=Answer.joint_cautions(answers),
            notes=list(dict.fromkeys(text for answer in answers for text in answer.notes)),
            disagreement=disagreement(answers),
            systems=sent,
            overlay_png=_overlay(answers) if "overlay" in include else None,
            csv=_table(answers) if "csv" in include else None,
            versions=versions_of(frozenset(system.facts.backend for system in self.systems)),
        )


async def _in_thread(pool: Executor, work: Callable[[], _Made]) -> _Made:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


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


def _table(answers: Sequence[Answer]) -> str:
    sheet = io.StringIO(newline="")
    rows = csv.DictWriter(sheet, TABLE_COLUMNS)
    rows.writeheader()
    rows.writerows(answer.to_row() for answer in answers)
    return sheet.getvalue()
