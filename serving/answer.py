"""Answers for single images: score, decision, boxes, activation map, and the overlay."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, computed_field
from pydantic.json_schema import SkipJsonSchema

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.csv_files import inert_cell
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.duplicates.seen_images import SeenImage
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.overlays.contours import ActivationGrid
from cxr_compare.evaluation.overlays.draw import as_figure
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction
from cxr_compare.evaluation.overlays.shapes import system_colour
from cxr_compare.evaluation.overlays.sheet import draw_predictions
from cxr_compare.evaluation.statistics.figure_text import score_text
from cxr_compare.serving.guard import Warned, WarningKind
from cxr_compare.serving.known_limits import SeenState, seen_caution

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Status = Literal["ok", "doubtful"]
"""State of an answer: ``ok``, or ``doubtful`` if the image has a warning and no decision."""
RESEARCH_USE = "Research use only, not a medical device."
_DECISIONS = {True: "positive", False: "negative", None: None}
_SYSTEM = "\0"  # placeholder for the name of a system in a sentence
_GREY = "#9E9E9E"  # of what does not count
_SHOWN_BOXES = 3  # largest number of boxes in a line of text
COLOUR = system_colour(0)  # colour of the shapes of a single answer
ARRAY = "array"  # name of an image that was given as pixels, without a file
_NOTEBOOK_PANEL = 360  # px
_NOTE = (
    "Probability and threshold: chosen on the run's validation images ({policy}). Research use "
    "only, not a medical device."
)


class Frame(BaseModel):
    """Edges of a rectangle in px of the original image; those of a map may lie outside it."""

    x1: float = Field(examples=[312.0])
    y1: float = Field(examples=[401.5])
    x2: float = Field(examples=[498.0])
    y2: float = Field(examples=[655.0])


class Box(Frame):
    """Predicted box in px of the original image, with its finding and its score in [0, 1]."""

    finding: str = Field(examples=["lung_opacity"])
    score: float = Field(examples=[0.81])


class ActivationMap(BaseModel):
    """Map that shows where a classifier sees the finding."""

    finding: str = Field(examples=["lung_opacity"])
    values: list[list[float]] = Field(examples=[[[0.0, 0.1], [0.2, 0.9]]])
    """Rows of cells from above, each cell in [0, 1] on one scale for all images."""
    frame: Frame
    """Outer edges of the cells."""


BOX_COLUMNS = ("finding", *EDGES, "score")
"""Columns of the table of an answer's boxes: finding, edges in px of the original, and score."""


def _box_list(boxes: pd.DataFrame) -> list[Box]:
    return [Box.model_validate(row) for row in boxes[list(BOX_COLUMNS)].to_dict("records")]


_Value = TypeVar("_Value")
_Boxes = Annotated[pd.DataFrame, PlainSerializer(_box_list, return_type=list[Box])]
_Decision = Annotated[
    bool | None,
    PlainSerializer(_DECISIONS.get, return_type=Literal["positive", "negative"] | None),
]
_Warning = Annotated[Warned, PlainSerializer(str, return_type=str)]
if TYPE_CHECKING:
    _Kept = Annotated[_Value, Field()]
else:

    class _Kept:
        """Type of what an answer holds besides the fields that are sent and written.

        To pydantic and FastAPI it is any value: they would describe the classes inside.
        """

        def __class_getitem__(cls, kind: Any) -> Any:
            """Return a type for pydantic, in place of `kind`."""
            return Annotated[Any, SkipJsonSchema(), Field(exclude=True, repr=False)]


class SystemFields(BaseModel):
    """Description of the system, in every answer of it."""

    model_config = ConfigDict(allow_inf_nan=False)

    system: str = Field(
        examples=["RetinaNet"],
        description="Name of the system for people.",
    )
    kind: Literal["boxes", "scores", "both"] = Field(
        description=(
            "``boxes`` for a detector, ``scores`` for a classifier, ``both`` for the two joined."
        ),
    )
    finding: str = Field(
        examples=["Lung opacity"],
        description="Name for people of the finding that is decided.",
    )
    policy: str = Field(
        examples=["max_f1"],
        description="Name of the rule that chose the threshold on validation images.",
    )
    threshold: float | None = Field(
        default=None,
        examples=[0.26],
        description=(
            "Lowest score at which an image is positive; null if the system has no threshold."
        ),
    )
    threshold_probability: float | None = Field(
        default=None,
        ge=0,
        le=1,
        examples=[0.33],
        description="Calibrated probability at the threshold; null without calibration.",
    )
    undecided_because: str | None = Field(
        default=None,
        examples=[None],
        description="Reason why the system cannot decide on any image; null if it can.",
    )


class Answer(SystemFields):
    """Prediction of one system for one image, with its decision and its warnings.

    A system is a trained detector or classifier, or both together. It decides for or against one
    finding by comparing the image score with a threshold that was chosen on validation images.
    There is a decision only if there is no warning. A warning says why the image may not be one
    that the system can predict, such as an image that is no frontal chest X-ray.

    The fields are those of ``cxr predict --json`` and ``--csv``, of the HTTP interface and of its
    OpenAPI document, which all are made from this class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    image: str = Field(
        examples=["chest.dcm"],
        description=(
            "Path of the image file as the user gave it, or ``array`` for pixels without a file."
        ),
    )
    probability: float | None = Field(
        default=None,
        ge=0,
        le=1,
        examples=[0.74],
        description="Calibrated probability; null if the system has no calibration.",
    )
    score: float = Field(
        ge=0,
        le=1,
        examples=[0.81],
        description="Score of the image before calibration.",
    )
    computed_decision: _Decision = Field(
        default=None,
        description=(
            "Decision that score and threshold give, also if there is a warning; not meant for use."
        ),
    )
    declared: str | None = Field(
        default=None,
        examples=[None],
        description=(
            "Name and source of the threshold if somebody declared it; null if it was chosen."
        ),
    )
    findings: dict[str, float] = Field(
        default={},
        examples=[{"lung_opacity": 0.81}],
        repr=False,
        description=(
            "Score of each finding that the model learned; a detector's is that of its highest box."
        ),
    )
    boxes: _Boxes = Field(
        description=(
            "Boxes by falling score. A positive image has those that count for the decision, "
            "which are cut out of the map if the system is a classifier. A negative image has "
            "none. An undecided image has a detector's boxes with a score of at least 0.5. In "
            "Python they are a table with the columns ``finding, x1, y1, x2, y2, score``."
        ),
    )
    map: ActivationMap | None = Field(
        default=None,
        repr=False,
        description=(
            "Activation map of a classifier, if a client of the HTTP interface asked for maps."
        ),
    )
    warnings: tuple[_Warning, ...] = Field(
        default=(),
        examples=[[]],
        description=(
            "Reasons not to trust the prediction, such as that the image is no frontal chest X-ray."
        ),
    )
    notes: tuple[str, ...] = Field(
        default=(),
        examples=[[]],
        description=(
            "Facts about the image, such as that its grey values were inverted. They are no "
            "warnings."
        ),
    )
    seen_in_training: SeenState = Field(
        default="unknown",
        examples=["no"],
        description=(
            "``train`` if the system learned from this image or a near copy, ``val`` if its "
            "weights and threshold were chosen with it, ``no`` for neither, ``unknown`` if "
            "the images of the training are not known."
        ),
    )

    run_cautions: _Kept[tuple[str, ...]] = ()
    """Sentences on what limits all predictions of the system."""
    seen: _Kept[SeenImage | None] = None
    """Use that the training made of this image or a near copy of it; None if no use is known."""
    guard_distance: _Kept[float | None] = None
    """Log odds that the image is no frontal chest X-ray; None if the system has no check."""
    prediction: _Kept[ImagePrediction] = ImagePrediction("", COLOUR)
    """Boxes, activation map and texts that the overlay shows."""
    pixels: _Kept[np.ndarray] = Field(default_factory=lambda: np.zeros((1, 1), np.uint8))
    """The image as displayed, uint8 ``(H, W)``."""

    __eq__ = object.__eq__  # an answer equals itself alone: tables and pixels have no single truth
    __hash__ = object.__hash__

    @classmethod
    def of_prediction(
        cls, prediction: ImagePrediction, box_findings: np.ndarray, **described: Any
    ) -> Answer:
        """Make an `Answer` from the network's prediction for an image.

        Args:
            prediction: Score, boxes and activation map of the image.
            box_findings: Finding of each box of `prediction`, in their order, str ``(N,)``.
            described: Values of the other attributes of `Answer`, by name, such as
                ``system="CheXNet"``. The image ``pixels`` is required.

        Returns:
            The `Answer`. Its boxes are those that count for the decision, by falling score and cut
            at the edges of the image.
        """
        counts = np.flatnonzero(prediction.boxes[:, 4] >= prediction.box_cut)
        order = counts[np.argsort(-prediction.boxes[counts, 4], kind="stable")]
        boxes = prediction.boxes[order]
        height, width = described["pixels"].shape
        # Boxes from a map may extend beyond the image.
        boxes[:, :4] = boxes[:, :4].clip(0, [width, height, width, height])
        columns = box_findings[order], *boxes.T
        return cls(
            score=cast(float, prediction.score),
            probability=prediction.probability,
            computed_decision=None if prediction.decision is None else bool(prediction.decision),
            boxes=pd.DataFrame(dict(zip(BOX_COLUMNS, columns, strict=True))),
            prediction=prediction,
            **described,
        )

    def __repr__(self) -> str:
        return f"<Answer: {self}>"

    def __str__(self) -> str:
        """Return the answer in one line, as the terminal shows it."""
        parts = [self.image, self.system, self.called]
        if self.probability is not None:
            parts.append(f"probability {self.probability:.2f}")
        limit = "" if self.threshold is None else f"threshold {score_text(self.threshold)}"
        parts.append(f"score {score_text(self.score)}" + (f" ({limit})" if limit else ""))
        if len(self.boxes) and self.status == "ok":
            parts.append(self._boxes_in_words())
        return "  ".join(parts)

    def _boxes_in_words(self) -> str:
        words = [
            f"{box.x1:.0f},{box.y1:.0f}-{box.x2:.0f},{box.y2:.0f} ({box.score:.2f})"
            for box in self.boxes.head(_SHOWN_BOXES).itertuples()
        ]
        count = len(self.boxes)
        if count > _SHOWN_BOXES:
            words.append(f"{count - _SHOWN_BOXES} more")
        return f"{counted(count, 'box')}: {', '.join(words)}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> Status:
        """``doubtful`` if there is a warning, and therefore no decision; else ``ok``."""
        return "doubtful" if self.warnings else "ok"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def decision(self) -> _Decision:
        """Decision at the threshold; none if the system is undecided or there is a warning.

        In Python it is True for positive, False for negative, or None.
        """
        return self.computed_decision if self.status == "ok" else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences on what limits how far the prediction can be trusted; empty if none are known.

        They are those that hold for all images of the system, and one if this image was used in its
        training. A caution does not remove the decision; a warning does.
        """
        caution = seen_caution(self.seen, self.system)
        return self.run_cautions if caution is None else (*self.run_cautions, caution)

    @property
    def called(self) -> str:
        """The decision as text for people, such as ``POSITIVE``, ``negative`` or ``no answer``.

        "no answer" means that there is a warning, so that the prediction must not be used.
        """
        withheld = self.status != "ok"
        return replace(self.prediction, decision=self.decision, withheld=withheld).called

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are sent, by name, as values that JSON can hold; without a map."""
        return self.model_dump(mode="json", exclude={"map"})

    def to_row(self) -> dict[str, Any]:
        """Return the prediction as a row of a CSV file.

        Text that a spreadsheet would run as a formula gets an apostrophe in front.

        Returns:
            Value by name of the column, for all of `ANSWER_COLUMNS`.
        """
        entry = self.to_json()
        texts = {name: "; ".join(entry[name]) for name in ("warnings", "notes", "cautions")}
        boxes = [
            ",".join(f"{box[edge]:.1f}" for edge in EDGES) + f",{box['score']:.4f}"
            for box in entry["boxes"]
        ]
        row = {**entry, **texts, "boxes": ";".join(boxes)}
        return {column: inert_cell(row[column]) for column in ANSWER_COLUMNS}

    @staticmethod
    def joint_warnings(answers: Sequence[Answer]) -> list[Warned]:
        """Return the warnings of all systems for an image without repetition.

        The warnings say why an image may not be one that the systems can predict. A warning that
        several systems share names all of them.

        Args:
            answers: Predictions of all systems for this one image.

        Returns:
            One text with its kind for each warning; empty if there is none.
        """
        systems: dict[str, list[str]] = {}
        kinds: dict[str, WarningKind] = {}
        for answer in answers:
            for warned in answer.warnings:
                text = warned.replace(answer.system, _SYSTEM)
                systems.setdefault(text, []).append(answer.system)
                kinds.setdefault(text, warned.kind)
        joint = (
            Warned(text.replace(_SYSTEM, listing(names)), kinds[text])
            for text, names in sorted(systems.items(), key=lambda item: item[0][:1] == _SYSTEM)
        )
        return list(dict.fromkeys(joint))

    @staticmethod
    def joint_cautions(answers: Sequence[Answer]) -> list[str]:
        """Return the cautions (limits of the predictions) of all systems for one image, each once.

        If several systems used the image in their training, one sentence names all of them.

        Args:
            answers: Predictions of all systems for this one image.

        Returns:
            Sentences without a full stop at the end; empty if no limit is known.
        """
        systems: dict[str, list[str]] = {}
        for answer in answers:
            if caution := seen_caution(answer.seen, _SYSTEM):
                systems.setdefault(caution, []).append(answer.system)
        joint = [text.replace(_SYSTEM, listing(names)) for text, names in systems.items()]
        of_runs = [caution for answer in answers for caution in answer.run_cautions]
        return list(dict.fromkeys([*of_runs, *joint]))

    @staticmethod
    def image_cautions(answers: Sequence[Answer]) -> list[str]:
        """Return the cautions of one image alone, such as that a system learned from it.

        The cautions of all predictions of a system are left out, because they are shown once.
        """
        of_runs = {text for answer in answers for text in answer.run_cautions}
        return [text for text in Answer.joint_cautions(answers) if text not in of_runs]

    @staticmethod
    def declared_lines(answers: Iterable[Answer]) -> list[str]:
        """Return one sentence for each system whose threshold was declared, each once."""
        return [*dict.fromkeys(f"{a.system}, {a.declared}." for a in answers if a.declared)]

    def _repr_png_(self) -> bytes:
        """Return the image beside its overlay as PNG, for a notebook."""
        buffer = io.BytesIO()
        Image.fromarray(render_answers([self], panel=_NOTEBOOK_PANEL)).save(buffer, format="PNG")
        return buffer.getvalue()

    @property
    def grid(self) -> ActivationGrid | None:
        """Activation map with its position in the image, as computed; None for a detector."""
        return self.prediction.grid

    def figure(self) -> Figure:
        """Draw the image beside its overlay (boxes or map) as a matplotlib figure."""
        return draw_answers([self])


_FIRST_COLUMNS = ("image", "system", "finding", "status", "decision", "probability", "score")
_SENT = (
    *(name for name, field in Answer.model_fields.items() if not field.exclude),
    *Answer.model_computed_fields,
)
ANSWER_COLUMNS = tuple(
    name for name in dict.fromkeys((*_FIRST_COLUMNS, *_SENT)) if name not in ("findings", "map")
)
"""Columns of an answer in a table: its fields with a single value."""
TABLE_COLUMNS = (*ANSWER_COLUMNS, "problem")
"""Columns of the table of ``cxr predict --csv`` and of the page of ``cxr serve``.

The row of a file without an answer has ``image``, ``status`` and ``problem`` alone.
"""


def render_answers(
    answers: Sequence[Answer], *, panel: int | None = None, draws_doubtful: bool = True
) -> np.ndarray:
    """Draw an image beside the boxes or activation map of each system, with a legend.

    The drawing is uint8 (h, w, 3), RGB.
    `panel` is the longer side of each panel in px; None takes what the image has and a sheet of
    2,000 px holds. `draws_doubtful` also draws, in grey, the boxes and maps of predictions with a
    warning.
    """
    first = answers[0]
    undrawn: dict[str, Any] = {"boxes": np.empty((0, 5)), "grid": None, "point": None}
    doubtful = {"colour": _GREY, "withheld": True, **({} if draws_doubtful else undrawn)}
    predictions = [
        replace(answer.prediction, colour=system_colour(position))
        if answer.status == "ok"
        else replace(answer.prediction, **doubtful)
        for position, answer in enumerate(answers)
    ]
    policies = dict.fromkeys(policy_text(answer.policy) for answer in answers)
    warnings: list[str] = [*Answer.joint_warnings(answers)]
    warnings += dict.fromkeys(
        f"{answer.system} is undecided: {answer.undecided_because}"
        for answer in answers
        if answer.undecided_because
    )
    note = _NOTE.format(policy="; ".join(policies))
    cautions = [f"{text[:1].upper()}{text[1:]}." for text in Answer.joint_cautions(answers)]
    return draw_predictions(
        first.pixels,
        predictions,
        findings=[answer.finding for answer in answers],
        title=Path(first.image).name,
        warnings=warnings,
        note=" ".join([*cautions, note, *Answer.declared_lines(answers)]),
        panel=panel,
    ).sheet()


@with_known_keywords
def draw_answers(answers: Sequence[Answer], *, panel: int = 480) -> Figure:
    """Draw predictions for an image as a matplotlib figure, for notebooks and `Figure.savefig`.

    Args:
        answers: Predictions of one or more systems (detectors or classifiers) for this one image.
        panel: Longer side of each panel, px.

    Returns:
        The figure, with the image and one panel for each system.
    """
    return as_figure([render_answers(answers, panel=panel)])
