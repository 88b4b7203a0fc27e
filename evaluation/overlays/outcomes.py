"""Outcome of one image in one system, and captions of truth and score."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.prediction_shapes import MAX_FULL_BOXES
from cxr_compare.evaluation.statistics.figure_text import score_text

Sign = Literal["right", "wrong", "open"]


class Outcome(NamedTuple):
    """Short statement whether one system (a detector or classifier) is right on one image.

    The sign ``open`` means that it is undecided, or that the truth is unknown.
    """

    sign: Sign
    text: str


OUTCOMES = {
    "placed": Outcome("right", "found, on the lesion"),
    "found": Outcome("right", "found"),
    "misplaced": Outcome("wrong", "right image, wrong place"),
    "missed": Outcome("wrong", "missed"),
    "alarm": Outcome("wrong", "false alarm"),
    "clear": Outcome("right", "correctly clear"),
    "undecided": Outcome("open", "undecided"),
    "unknown": Outcome("open", "truth unknown"),
}
"""Outcomes by kind."""


def outcome_kind(prediction: ImagePrediction, truth: ImageTruth) -> str:
    """Return the code that says how one system's prediction for one image compares with the truth.

    It is a key of `OUTCOMES`: ``placed``, ``found`` or ``misplaced`` (called positive and positive;
    the point lies on a lesion, at a position that was not evaluated, or elsewhere), ``missed``
    (called negative, but positive), ``alarm`` (called positive, but negative), ``clear`` (called
    negative and negative), ``undecided`` (no decision) or ``unknown`` (no label).
    """
    if prediction.decision is None:
        return "undecided"
    if np.isnan(truth.label):
        return "unknown"
    if truth.label < 1:
        return "alarm" if prediction.decision else "clear"
    if not prediction.decision:
        return "missed"
    if prediction.localised is None:
        return "found"
    if prediction.localised:
        return "placed"
    return "misplaced"


def outcome(prediction: ImagePrediction, truth: ImageTruth) -> Outcome:
    """Return whether one system's prediction for one image is right, with a short text.

    Example:
        >>> outcome(ImagePrediction("A", "#E06C00", decision=False), ImageTruth(1.0))
        Outcome(sign='wrong', text='missed')
    """
    return OUTCOMES[outcome_kind(prediction, truth)]


def describe_score(prediction: ImagePrediction) -> str:
    """Describe the score of an image beside its threshold, as in ``score 0.910 ≥ 0.300``.

    If more than eight boxes have a score of at least ``prediction.box_cut``, the text also says
    that eight of them are drawn. The score has more digits where score and threshold differ but
    would look equal.

    Example:
        >>> describe_score(ImagePrediction("A", "#E06C00", score=0.91, threshold=0.3))
        'score 0.910 ≥ 0.300'
    """
    if prediction.score is None:
        return "no score"
    score = score_text(prediction.score)
    if prediction.threshold is None:
        return f"score {score}, no threshold{_drawn_boxes(prediction)}"
    sign = "≥" if prediction.score >= prediction.threshold else "<"
    threshold = score_text(prediction.threshold)
    if score == threshold and prediction.score != prediction.threshold:
        score = f"{prediction.score:.7g}"
        threshold = f"{prediction.threshold:.7g}"
    return f"score {score} {sign} {threshold}{_drawn_boxes(prediction)}"


def _drawn_boxes(prediction: ImagePrediction) -> str:
    """Return a text on how many boxes from `box_cut` on are drawn; empty if all are drawn."""
    count = int((prediction.boxes[:, 4] >= prediction.box_cut).sum())
    return f"; {MAX_FULL_BOXES} of {count} boxes" if count > MAX_FULL_BOXES else ""


def describe_truth(truth: ImageTruth, finding: str) -> str:
    """Describe in words the label and the true boxes of an image.

    Where there are boxes of single radiologists, the text also says how many each of them drew.

    Example:
        >>> describe_truth(ImageTruth(0.0, kind="not_normal"), "Opacity")
        'Opacity: absent (not normal)'
    """
    parts = [f"{finding}: {_state(truth)}"]
    by_reader = [
        f"{reader} {counted(len(boxes), 'box')}" for reader, boxes in truth.readers.items()
    ]
    if by_reader:
        parts.append(", ".join(by_reader))
    return "; ".join(parts)


def _state(truth: ImageTruth) -> str:
    if np.isnan(truth.label):
        return "unknown"
    if truth.label < 1:
        kind = truth.kind.replace("_", " ")
        return f"absent ({kind})" if kind else "absent"
    boxes = "not boxed" if truth.boxes is None else counted(len(truth.boxes), "box")
    return f"present, {boxes}"
