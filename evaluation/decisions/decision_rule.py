"""What of a decision new images are called by, one image at a time, in numpy alone.

An exported network runs where pandas is not installed; `evaluation.decisions.decision` adds how
validation chose it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from data_prep.contracts.errors import InputError
from evaluation.boxes.box_rule import AS_STORED, BoxRule
from evaluation.boxes.fusion import scale_boxes
from evaluation.boxes.map_boxes import Frame, MapBoxRule
from evaluation.decisions.reduction import Reduction
from evaluation.decisions.thresholds import POLICIES, ThresholdChoice
from evaluation.statistics.calibration import Calibration, calibration_from_json
from evaluation.statistics.ranking import Floats, is_positive

_UNDECIDED_CUT = 0.5


class CalledBox(NamedTuple):
    """A box that counts, original px."""

    finding: str
    x1: float
    y1: float
    x2: float
    y2: float
    score: float


class CalledImage(NamedTuple):
    """What a system says of one image.

    Attributes:
        score: In [0, 1].
        probability: Calibrated; `None` where there is no calibration.
        threshold: On the score; `None` where there is none.
        decision: Whether it is positive; `None` undecided.
        boxes: Those that count, by falling score: none of a negative image; of an undecided one
            a detector's from 0.5 on.
    """

    score: float
    probability: float | None
    threshold: float | None
    decision: bool | None
    boxes: tuple[CalledBox, ...]


@dataclass(frozen=True)
class DecisionRule:
    """How the raw output of a system becomes scores, decisions and boxes.

    Attributes:
        target: The target's name.
        chosen_on: Ids of the predictions, labels and split it was chosen on, and counts.
        reduction: How a detector's boxes become an image score; `None` for image scores.
        boxes: How a detector's stored boxes become the ones that are judged.
        calibration: Score to probability; `None` where validation cannot give it.
        map_scale: Low and high end of the map scale, raw; `None` without maps.
        map_boxes: How maps become boxes; `None` without maps.
        thresholds: A choice per policy.
    """

    target: str
    chosen_on: dict[str, Any]
    reduction: Reduction | None = None
    boxes: BoxRule = AS_STORED
    calibration: Calibration | None = None
    map_scale: tuple[float, float] | None = None
    map_boxes: MapBoxRule | None = None
    thresholds: dict[str, ThresholdChoice] = field(default_factory=dict)

    def probability(self, scores: npt.ArrayLike) -> Floats | None:
        """The calibrated probability of image scores; `None` where validation cannot give it."""
        return None if self.calibration is None else self.calibration.probability(scores)

    def policy(self, wanted: str | None, where: object) -> str:
        """The policy that decides: the one wanted, else `max_f1` or the first there is.

        Args:
            wanted: A policy's name, or `None`.
            where: The folder, for the message.

        Raises:
            InputError: There is no operating point for the one wanted.
        """
        if wanted is None:
            return POLICIES[0] if POLICIES[0] in self.thresholds else next(iter(self.thresholds))
        if wanted not in self.thresholds:
            raise InputError(
                f"{where}: has no operating point for the policy '{wanted}'; it has "
                f"{', '.join(self.thresholds)}: choose one of them"
            )
        return wanted

    @classmethod
    def from_json(cls, payload: dict[str, Any]) -> Self:
        """Read it from the content of ``decisions/<target>.json``.

        Raises:
            InputError: A key is missing or holds another type, or the decision holds a search
                over map boxes, as versions before made.
        """
        if payload.get("map_boxes"):
            raise InputError(
                f"decision for {payload.get('target')}: its map boxes were searched for, which cxr "
                "tune no longer does; run cxr tune again"
            )
        try:
            scale, level = payload["map_scale"], payload["map_box_level"]
            return cls(
                target=payload["target"],
                chosen_on=dict(payload["chosen_on"]),
                reduction=Reduction.from_json(payload["reduction"]),
                boxes=BoxRule.from_json(payload["box_fusion"]),
                calibration=calibration_from_json(payload["calibration"]),
                map_scale=(scale[0], scale[1]) if scale else None,
                map_boxes=None if level is None else MapBoxRule(level),
                thresholds={
                    name: ThresholdChoice(name, spec["threshold"], spec["reason"])
                    for name, spec in payload["policies"].items()
                },
            )
        except (KeyError, TypeError, IndexError) as error:
            raise broken(error) from None


def broken(error: Exception) -> InputError:
    """What a decision file that lacks something is refused with."""
    return InputError(f"decision: broken at {error}; run cxr tune again")


def call_boxes(
    rule: DecisionRule | None,
    policy: str,
    findings: Sequence[str],
    corners: Floats,
    scores: Floats,
    size: tuple[int, int],
) -> CalledImage:
    """Call an image by a detector's boxes.

    Args:
        rule: `None` leaves it undecided.
        policy: One of the rule's.
        findings: Of each box, those of the target only, N.
        corners: Shape ``(N, 4)`` xyxy, original px.
        scores: Shape ``(N,)``.
        size: Width and height of the original, px; fused boxes keep to it.

    Example:
        >>> boxes = np.array([[0.0, 0, 4, 4], [4, 4, 8, 8]])
        >>> kept = ThresholdChoice("max_f1", 0.5)
        >>> rule = DecisionRule("mass", {}, Reduction("max"), thresholds={"max_f1": kept})
        >>> called = call_boxes(rule, "max_f1", ["mass"] * 2, boxes, np.array([0.2, 0.75]), (8, 8))
        >>> called.score, called.decision, [box.x1 for box in called.boxes]
        (0.75, True, [4.0])
    """
    names = np.asarray(findings, dtype=object)
    judged = AS_STORED if rule is None else rule.boxes
    if judged.changes_boxes:
        known, groups = np.unique(names.astype(str), return_inverse=True)
        fused = judged.fuse(corners, scores, groups)
        limits = np.tile(np.array(size, np.float64), (len(fused.scores), 1))
        corners, scores = scale_boxes(fused.corners, judged.scale, limits), fused.scores
        names = known[fused.groups]
    reduction = (rule and rule.reduction) or Reduction("max")
    score = float(reduction.reduce(np.zeros(len(scores), np.int64), scores, 1)[0])
    threshold, decision = _decide(rule, policy, score)
    shown = scores >= box_cut(scores, decision, threshold)
    boxes = _called(names[shown], corners[shown], scores[shown])
    return CalledImage(score, _probability(rule, score), threshold, decision, boxes)


def call_scores(
    rule: DecisionRule | None,
    policy: str,
    scores: Mapping[str, float],
    grids: Mapping[str, Floats],
    frame: Frame,
) -> CalledImage:
    """Call an image by a classifier's scores, with boxes cut out of its map.

    Args:
        rule: `None` leaves it undecided.
        policy: One of the rule's.
        scores: By finding of the target.
        grids: Maps by finding, raw; may be empty.
        frame: Where they lie in the original.

    Example:
        >>> kept = ThresholdChoice("max_f1", 0.5)
        >>> rule = DecisionRule("mass", {}, map_scale=(0.0, 4.0), map_boxes=MapBoxRule(0.5),
        ...                     thresholds={"max_f1": kept})
        >>> called = call_scores(rule, "max_f1", {"mass": 0.5}, {"mass": np.array([[0.0, 4.0]])},
        ...                      (0, 0, 16, 8))
        >>> called.decision, called.boxes
        (True, (CalledBox(finding='mass', x1=8.0, y1=0.0, x2=16.0, y2=8.0, score=0.5),))
    """
    # The highest decides; of equals the first by name, whose map is shown.
    finding = min(scores, key=lambda name: (-scores[name], name))
    score = float(scores[finding])
    threshold, decision = _decide(rule, policy, score)
    boxes: tuple[CalledBox, ...] = ()
    if rule and rule.map_boxes and rule.map_scale and finding in grids and decision is not False:
        corners, points = rule.map_boxes.cut(grids[finding], frame, score, rule.map_scale)
        boxes = _called([finding] * len(points), corners, points)
    return CalledImage(score, _probability(rule, score), threshold, decision, boxes)


def _decide(
    rule: DecisionRule | None, policy: str, score: float
) -> tuple[float | None, bool | None]:
    threshold = None if rule is None else rule.thresholds[policy].threshold
    return threshold, None if threshold is None else bool(is_positive(score, threshold))


def _probability(rule: DecisionRule | None, score: float) -> float | None:
    probability = None if rule is None else rule.probability([score])
    return None if probability is None else float(probability[0])


def _called(
    findings: Sequence[str] | npt.NDArray[Any], corners: Floats, scores: Floats
) -> tuple[CalledBox, ...]:
    boxes = []
    for place in np.argsort(-scores, kind="stable"):
        x1, y1, x2, y2 = corners[place].tolist()
        boxes.append(CalledBox(str(findings[place]), x1, y1, x2, y2, float(scores[place])))
    return tuple(boxes)


def box_cut(scores: Floats, decision: bool | None, threshold: float | None) -> float:
    """The score from which a detector's boxes count.

    A positive image shows the box that decided and every box at or above the threshold; a
    negative one shows none, whatever rule reduced the boxes to the image's score.

    Args:
        scores: Of the image's boxes.
        decision: On the image; `None` undecided.
        threshold: On the image's score.

    Example:
        >>> scores = np.array([0.4, 0.2])
        >>> box_cut(scores, True, 0.6), box_cut(scores, True, 0.3), box_cut(scores, False, 0.3)
        (0.4, 0.3, inf)
    """
    if decision is None:
        return _UNDECIDED_CUT
    if not decision:
        return math.inf
    highest = float(scores.max(initial=0.0))
    return highest if threshold is None else min(threshold, highest)
