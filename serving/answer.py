"""One answer of one system for one image: as JSON, a row of a table, a sentence, an overlay."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PrivateAttr

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.loose_images import DICOM_IDS
from cxr_compare.evaluation.overlays.draw import draw_panel
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction
from cxr_compare.evaluation.overlays.sheet import (
    SIDE,
    Panel,
    answer_lines,
    draw_sheet,
    legend,
    marks_on,
)
from cxr_compare.evaluation.policies import policy_text
from cxr_compare.evaluation.statistics.figure_text import score_text

RESEARCH_USE = "Research use only, not a medical device."
_SHOWN_BOXES = 3
_NOTEBOOK_PANEL = 360


class Box(BaseModel):
    """Box of a lesion, px of the image."""

    finding: str
    x1: float
    y1: float
    x2: float
    y2: float
    score: float


_CALLED = {True: "POSITIVE", False: "negative", None: "undecided"}
_DECISIONS = {True: "positive", False: "negative", None: None}


def _box_list(boxes: pd.DataFrame) -> list[Box]:
    return [Box.model_validate(row) for row in boxes.to_dict("records")]


_Boxes = Annotated[pd.DataFrame, PlainSerializer(_box_list, return_type=list[Box])]
_Decision = Annotated[
    bool | None,
    PlainSerializer(_DECISIONS.get, return_type=Literal["positive", "negative"] | None),
]


class Answer(BaseModel):
    """Answer of one system for one image.

    With a warning it is withheld: it has no decision, no score, no probability and no boxes.

    Attributes:
        image: Path of the image as it was given, or ``array``.
        run: First digits of the SHA-256 of the run's weights.
        kind: ``boxes`` of a detector, ``scores`` of a classifier.
        policy: Rule that chose the threshold on validation images; empty for classes.
        score: Score of the finding that is decided, of several the highest; None with a warning.
        probability: Calibrated probability; None without calibration, and with a warning.
        threshold: Lowest score that is positive; None where the system cannot decide.
        undecided_because: Why it cannot.
        findings: Score of each finding that the model learned; none with a warning.
        classes: Score of each class by its name, the reference class (images without a finding)
            first, where classes exclude each other; they sum to 1, and the highest is called.
        boxes: Table of those that count for the decision, by falling score: ``finding``, ``x1``,
            ``y1``, ``x2``, ``y2`` in px of the image, ``score``. A negative image has none, and so
            has one with a warning, and any of a classifier, whose place is its heat map.
        warnings: Reasons not to trust the answer, which then is withheld.
        no_chest_xray: True if the guard of the system says that the image is no chest X-ray.
        notes: Facts about the image, which are no warnings.
        cautions: What limits all answers of the system, or this one for its use in training.
        seen_in_training: ``train`` if the system learned from this image, ``val`` if weights or
            threshold were chosen with it, ``no``, or ``unknown``.
        status: ``doubtful`` with a warning: the answer is withheld.
        decision: True for positive; None with a warning, and where the system cannot decide.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )

    image: str
    system: str
    run: str
    kind: Literal["boxes", "scores"]
    finding: str
    policy: str
    score: float | None = Field(ge=0, le=1)
    probability: float | None = Field(ge=0, le=1)
    threshold: float | None
    threshold_probability: float | None
    undecided_because: str | None
    findings: dict[str, float]
    classes: dict[str, float]
    boxes: _Boxes
    warnings: list[str]
    no_chest_xray: bool
    notes: list[str]
    cautions: list[str]
    seen_in_training: Literal["train", "val", "no", "unknown"]
    status: Literal["ok", "doubtful"]
    decision: _Decision
    _prediction: ImagePrediction = PrivateAttr()
    _pixels: np.ndarray | None = PrivateAttr(default=None)

    @classmethod
    def of_prediction(
        cls,
        prediction: ImagePrediction,
        box_findings: np.ndarray,
        pixels: np.ndarray,
        **described: Any,
    ) -> Answer:
        """Make an answer of what a system says of an image, and of the image as displayed.

        With a warning nothing of what it says is kept, so that no face of the answer shows it.
        """
        if described["warnings"]:
            prediction = ImagePrediction(prediction.system, prediction.mark)
            described["findings"] = described["classes"] = {}
        elif described["classes"]:  # the reference class, of no finding, is the first
            reference_score, *finding_scores = described["classes"].values()
            prediction = replace(prediction, decision=max(finding_scores) > reference_score)
        above_cut = np.flatnonzero(prediction.boxes[:, 4] >= prediction.box_cut)
        order = above_cut[np.argsort(-prediction.boxes[above_cut, 4], kind="stable")]
        rows = prediction.boxes[order]
        boxes = pd.DataFrame(rows, columns=[*EDGES, "score"])
        boxes.insert(0, "finding", box_findings[order])
        answer = cls(
            boxes=boxes,
            score=prediction.score,
            probability=prediction.probability,
            status="doubtful" if described["warnings"] else "ok",
            decision=prediction.decision,
            **described,
        )
        answer._prediction, answer._pixels = replace(prediction, boxes=rows), pixels
        return answer

    def without_pixels(self) -> Answer:
        """Return the answer without the pixels of its file, which are read again to draw it."""
        answer = self.model_copy()
        answer._pixels = None
        return answer

    @property
    def pixels(self) -> np.ndarray:
        """Grey values of the image as a viewer displays it, uint8 ``(H, W)``."""
        return read_image(Path(self.image)).pixels if self._pixels is None else self._pixels

    @property
    def class_text(self) -> str:
        """Classes with their scores, the called one first."""
        ranked = sorted(self.classes.items(), key=lambda name_and_score: -name_and_score[1])
        return ", ".join(f"{name} {score:.2f}" for name, score in ranked)

    def __str__(self) -> str:
        """Return the answer as one line."""
        called = self.class_text or _CALLED[self.decision]
        parts = [self.image, self.system, "no answer" if self.warnings else called]
        if self.probability is not None:
            parts.append(f"probability {self.probability:.2f}")
        if self.score is not None and not self.classes:
            limit = "" if self.threshold is None else f" (threshold {score_text(self.threshold)})"
            parts.append(f"score {score_text(self.score)}{limit}")
        if len(self.boxes):
            box_texts = [
                f"{box.x1:.0f},{box.y1:.0f}-{box.x2:.0f},{box.y2:.0f} ({box.score:.2f})"
                for box in _box_list(self.boxes.head(_SHOWN_BOXES))
            ]
            n_more = len(self.boxes) - _SHOWN_BOXES
            box_texts += [f"{n_more} more"] if n_more > 0 else []
            parts.append(f"{counted(len(self.boxes), 'box')}: {', '.join(box_texts)}")
        return "  ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        return self.model_dump(mode="json")

    def to_row(self) -> dict[str, Any]:
        """Return the answer as a row: boxes as x1,y1,x2,y2,score with semicolons between."""
        row = self.to_json()
        boxes = [
            ",".join(f"{box[edge]:.1f}" for edge in EDGES) + f",{box['score']:.4f}"
            for box in row["boxes"]
        ]
        texts = {name: "; ".join(row[name]) for name in ("warnings", "notes", "cautions")}
        row |= {**texts, "boxes": ";".join(boxes)}
        return {column: row[column] for column in COLUMNS} | self.classes

    def _repr_png_(self) -> bytes:
        return to_png_bytes([self], panel=_NOTEBOOK_PANEL)


_FIRST = ("image", "system", "finding", "status", "decision", "probability", "score")
COLUMNS = (
    *_FIRST,
    *(
        field_name
        for field_name in Answer.model_fields
        if field_name not in (*_FIRST, "findings", "classes")
    ),
)
"""Columns of an answer in the table of ``cxr predict --csv``."""


class Answers(list[Answer]):
    """Answers for images, and the reasons for files without one.

    Attributes:
        left_out: Reason by path.
        overlays: Picture in the folder of the overlays, by path.
        dicom_ids: Identifiers in the header of each file by path; None if they were not asked for.
    """

    def __init__(self, answers: Sequence[Answer] = ()) -> None:
        super().__init__(answers)
        self.left_out: dict[str, str] = {}
        self.overlays: dict[str, str] = {}
        self.dicom_ids: dict[str, dict[str, str | None]] | None = None

    @property
    def exit_status(self) -> int:
        """1 where a file was left out."""
        return int(bool(self.left_out))

    def __str__(self) -> str:
        """Return a line an answer, with what speaks against it before it."""
        lines = []
        for answer in self:
            lines += [f"{answer.image}  WARNING: {text}" for text in answer.warnings]
            lines += [f"{answer.image}  NOTE: {text}" for text in answer.notes]
            lines.append(str(answer))
        n_images = len({answer.image for answer in self})
        cautioned: dict[str, set[str]] = {}
        for answer in self:
            for text in answer.cautions:
                cautioned.setdefault(text, set()).add(answer.image)
        for text, images in cautioned.items():
            part = f" ({len(images):,} of {n_images:,} images)" if len(images) < n_images else ""
            lines.append(f"CAUTION{part}: {text}")
        lines += [f"left out: {reason}" for reason in self.left_out.values()]
        return "\n".join(dict.fromkeys(lines)) or "no images"

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the answers for JSON, behind them the files that were left out."""
        return self._with_files([answer.to_json() for answer in self])

    def to_frame(self) -> pd.DataFrame:
        """Return the answers as a table, behind them the files that were left out.

        Classes have a column each, in which their scores are.
        """
        rows = self._with_files([answer.to_row() for answer in self])
        columns = [*COLUMNS, "problem", "overlay", *(() if self.dicom_ids is None else DICOM_IDS)]
        columns += dict.fromkeys(name for answer in self for name in answer.classes)
        return pd.DataFrame(rows, columns=columns)

    def _with_files(self, answered: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the entry of each answer and of each file without one: overlay, identifiers."""
        refused = [
            {"image": path, "status": "refused", "problem": why}
            for path, why in self.left_out.items()
        ]
        images = [*(answer.image for answer in self), *self.left_out]
        ids = self.dicom_ids or {}
        entries = zip([*answered, *refused], images, strict=True)
        return [
            entry | {"overlay": self.overlays.get(image)} | ids.get(image, {})
            for entry, image in entries
        ]

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(notebook=True)


def draw_answers(
    answers: Sequence[Answer], title: str | None = None, panel: int = SIDE
) -> Image.Image:
    """Draw an image, titled by the name of its file, and beside it what each system says of it.

    An answer with a warning, or negative, marks nothing: it is a line below the image.
    """
    first = answers[0]
    shown = [] if all(answer.warnings for answer in answers) else answers
    plain = draw_panel(first.pixels, panel)
    panels = [Panel("Image", None, (title or Path(first.image).name,), *plain)]
    image_lines: list[str] = []
    for answer in shown:
        prediction = answer._prediction
        lines = answer_lines(prediction, None, answer.finding)
        if answer.classes:
            lines = [answer.class_text, *filter(None, [prediction.map_words(None)])]
        if answer.warnings:
            image_lines.append(f"{answer.system}: no answer, see the warning")
            continue
        if answer.decision is False:
            image_lines.append(f"{answer.system}: {', '.join(lines)}")
            continue
        drawn = draw_panel(first.pixels, panel, None, prediction)
        panels.append(Panel(answer.system, prediction.mark, tuple(lines), *drawn))
    panels[0] = replace(panels[0], lines=(*panels[0].lines, *image_lines))
    warnings = [f"WARNING: {text}." for answer in answers for text in answer.warnings]
    warnings += [
        f"{answer.system} is undecided: {answer.undecided_because}."
        for answer in answers
        if answer.undecided_because
    ]
    policies = "; ".join(
        dict.fromkeys(policy_text(answer.policy) for answer in answers if answer.policy)
    )
    cautions = [f"{text[:1].upper()}{text[1:]}." for answer in answers for text in answer.cautions]
    rule = "The class of the highest score is called."
    if policies:
        rule = f"Probability and threshold: chosen on the run's validation images ({policies})."
    sentences = [*dict.fromkeys(warnings), *dict.fromkeys(cautions)]
    sentences += [rule, RESEARCH_USE, legend(marks_on(panels))] if shown else [RESEARCH_USE]
    return draw_sheet(panels, " ".join(sentences))


def to_png_bytes(answers: Sequence[Answer], title: str | None = None, panel: int = SIDE) -> bytes:
    """Draw answers for one image as a PNG file."""
    buffer = io.BytesIO()
    draw_answers(answers, title, panel).save(buffer, format="PNG")
    return buffer.getvalue()
