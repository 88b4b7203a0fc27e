"""Answers for single images: score, decision, boxes, activation map, and the overlay."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from PIL import Image

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


ANSWER_COLUMNS = (
    "image",
    "system",
    "finding",
    "status",
    "decision",
    "probability",
    "score",
    "policy",
    "threshold",
    "computed_decision",
    "n_boxes",
    "boxes",
    "warnings",
    "seen_in_training",
    "cautions",
)
"""Columns of an answer in the tables of ``cxr predict --csv`` and of a visit to ``cxr serve``."""
BOX_COLUMNS = ("finding", *EDGES, "score")
"""Columns of the table of an answer's boxes: finding, edges in px of the original, and score."""
Status = Literal["ok", "doubtful"]
"""State of an answer: ``ok``, or ``doubtful`` if the image has a warning and no decision."""
_KEYS = (
    "image",
    "system",
    "kind",
    "finding",
    "status",
    "decision",
    "undecided_because",
    "probability",
    "score",
    "policy",
    "threshold",
    "computed_decision",
    "declared",
    "boxes",
    "warnings",
    "notes",
    "seen_in_training",
    "cautions",
)
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


@dataclass(frozen=True, eq=False)
class Answer:
    """Prediction of one system for one image, with its decision and its warnings.

    A system is a trained detector or classifier. It decides for or against one finding by comparing
    the image score with a threshold that was chosen on validation images. There is a decision only
    if there is no warning. A warning says why the image may not be one that the system can predict,
    such as an image that is no frontal chest X-ray.

    Attributes:
        image: Path of the image file as the user gave it, or ``array`` for pixels without a file.
        system: Name of the system for people.
        kind: ``boxes`` for a detector, ``scores`` for a classifier.
        finding: Name for people of the finding that is decided, such as ``Lung opacity``.
        score: Score of the image in [0, 1], before calibration.
        probability: Calibrated probability in [0, 1]; None if the system has no calibration.
        policy: Name of the rule that chose the threshold on validation images, such as ``max_f1``
            (the threshold with the highest F1).
        threshold: Lowest score at which an image is positive; None if the system has no threshold.
        computed_decision: Decision by score and threshold, also if there is a warning: True
            positive, False negative, None undecided. The attribute `decision` is the one to show.
        boxes: Boxes of a positive image, by falling score, with columns ``finding, x1, y1, x2, y2,
            score`` in px of the original. A detector's boxes score at least the threshold; a
            classifier's are cut out of its activation map. A negative image has none. An undecided
            image has a detector's boxes with a score of at least 0.5.
        warnings: Reasons not to trust the prediction; empty if there are none.
        declared: Name and source of the threshold if somebody declared it for the system; None if
            it was chosen otherwise.
        undecided_because: Reason why the system cannot decide on any image, such as a missing
            threshold; None if it can decide.
        notes: Facts about the image that the reader should know, such as that its grey values were
            inverted. Unlike warnings they are no reason against the decision.
        run_cautions: Sentences on what limits all predictions of the system, such as that it was
            not shown to be better than guessing.
        seen: How the training used this image or a near copy of it: for learning, or for selecting
            the weights and the threshold. None if no use is known.
        seen_in_training: The use in `seen` as one word: ``train``, ``val``, ``no``, or ``unknown``
            if the training images are not known.
        guard_distance: Log odds that the image is no frontal chest X-ray, by the system's
            out-of-distribution check; None if the system has no check.
        finding_scores: Score of each finding that the model learned. For a detector it is that of
            the highest box of the finding, or 0 without a box.
        prediction: Boxes, activation map and texts that the overlay shows.
        pixels: The image as displayed, uint8 ``(H, W)``.
    """

    image: str
    system: str
    kind: str
    finding: str
    score: float
    probability: float | None
    policy: str
    threshold: float | None
    computed_decision: bool | None
    boxes: pd.DataFrame
    warnings: tuple[Warned, ...] = ()
    declared: str | None = None
    undecided_because: str | None = None
    notes: tuple[str, ...] = ()
    run_cautions: tuple[str, ...] = ()
    seen: SeenImage | None = None
    seen_in_training: SeenState = "unknown"
    guard_distance: float | None = None
    finding_scores: Mapping[str, float] = field(default_factory=dict, repr=False)
    prediction: ImagePrediction = field(
        default_factory=lambda: ImagePrediction("", COLOUR), repr=False
    )
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), np.uint8), repr=False)

    @classmethod
    def of_prediction(
        cls, prediction: ImagePrediction, findings: np.ndarray, **described: Any
    ) -> Answer:
        """Make an `Answer` from the network's prediction for an image.

        Args:
            prediction: Score, boxes and activation map of the image.
            findings: Name of the finding of each box of `prediction`, in their order, str ``(N,)``.
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
        columns = findings[order], *boxes.T
        return cls(
            score=cast(float, prediction.score),
            probability=prediction.probability,
            threshold=prediction.threshold,
            computed_decision=prediction.decision,
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

    @property
    def status(self) -> Status:
        """``doubtful`` if there is a warning, and therefore no decision; else ``ok``."""
        return "doubtful" if self.warnings else "ok"

    @property
    def decision(self) -> bool | None:
        """Decision to show: True positive, False negative, None if undecided or doubtful.

        It is doubtful if there is a warning.
        """
        return self.computed_decision if self.status == "ok" else None

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

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as a dictionary of values that JSON can hold.

        Returns:
            Values of the attributes of `Answer` that describe the prediction, by name. A decision
            is ``positive``, ``negative`` or None. ``boxes`` is a list with one dictionary for each
            box.
        """
        return {key: getattr(self, key) for key in _KEYS} | {
            "decision": _DECISIONS[self.decision],
            "computed_decision": _DECISIONS[self.computed_decision],
            "boxes": self.boxes[list(BOX_COLUMNS)].to_dict("records"),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "cautions": list(self.cautions),
        }

    @staticmethod
    def refused(image: str, problem: str) -> dict[str, Any]:
        """Return the dictionary for a file that could not be predicted.

        It has the keys of `to_dict`, with empty values, and the key ``problem``.

        Args:
            image: Path of the file.
            problem: Reason in one line, such as that the file is no image.
        """
        known = {"image": image, "status": "refused", "problem": problem}
        lists = ("boxes", "warnings", "notes", "cautions")
        empty: dict[str, Any] = {key: [] for key in lists}
        return {**dict.fromkeys(_KEYS), **empty, **known}

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
    def map(self) -> ActivationGrid | None:
        """Activation map of a classifier with its position in the image; None for a detector."""
        return self.prediction.grid

    def figure(self) -> Figure:
        """Draw the image beside its overlay (boxes or map) as a matplotlib figure."""
        return draw_answers([self])


def answer_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prediction of one system for one image as a row of a CSV file.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.

    Args:
        entry: Keys and values of one `Answer`, from `Answer.to_dict`; keys may be missing.

    Returns:
        Value by name of the column, for all of `ANSWER_COLUMNS`.

    Example:
        >>> row = answer_row({"image": "=1.png", "score": 0.5, "warnings": ["odd", "dark"],
        ...                   "boxes": [{"x1": 8, "y1": 0, "x2": 16, "y2": 8, "score": 0.5}]})
        >>> row["image"], row["n_boxes"], row["boxes"], row["warnings"]
        ("'=1.png", 1, '8.0,0.0,16.0,8.0,0.5000', 'odd; dark')
    """
    boxes = [
        ",".join(f"{box[edge]:.1f}" for edge in EDGES) + f",{box['score']:.4f}"
        for box in entry.get("boxes", [])
    ]
    row = {column: entry.get(column) for column in ANSWER_COLUMNS} | {
        "n_boxes": len(boxes),
        "boxes": ";".join(boxes),
        "warnings": "; ".join(entry.get("warnings", [])),
        "cautions": "; ".join(entry.get("cautions", [])),
    }
    return {column: inert_cell(value) for column, value in row.items()}


def render_answers(
    answers: Sequence[Answer], *, panel: int | None = None, draws_doubtful: bool = True
) -> np.ndarray:
    """Draw an image beside the boxes or activation map of each system, with a legend.

    Args:
        answers: Predictions of one or more systems (detectors or classifiers) for this one image.
        panel: Longer side of each panel, px; None takes what the image has and a sheet of 2,000 px
            holds.
        draws_doubtful: True also draws, in grey, the boxes and maps of predictions with a warning.

    Returns:
        RGB image, uint8, shape ``(h, w, 3)``.
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
