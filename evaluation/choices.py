"""Decision rule of one system for one target, as ``decisions/<target>.json`` stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.notebook import html_lines
from cxr_compare.evaluation.box_choice import MAP_CUT, BoxChoice, BoxRule
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.metrics.metric import Need
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.calibration import Calibration, calibration_from_dict
from cxr_compare.evaluation.thresholds import (
    DECLARED,
    POLICIES,
    ThresholdChoice,
    ValidationScores,
)
from cxr_compare.evaluation.tuning_options import TuningOptions

_SUMMARY_METRICS = ("recall", "specificity", "precision", "f1")


class Declared(NamedTuple):
    """Threshold that somebody declared for a system, such as one that a study of its own gave.

    It is the threshold of the policy ``declared`` and is taken as it is.

    Attributes:
        name: Short name of the aim, such as ``sensitivity>=0.90@0.90``.
        threshold: Images with ``score >= threshold`` are positive.
        source: Sentence part that says on what grounds the threshold was declared.

    Example:
        >>> Declared("screening", 0.3, "our study of 2025").text
        'declared: screening; our study of 2025'
    """

    name: str
    threshold: float
    source: str

    @property
    def text(self) -> str:
        """Name and source as a part of a sentence."""
        return f"declared: {self.name}; {self.source}"


@dataclass(frozen=True)
class Choices:
    """Thresholds, calibration and rules for boxes of one system, as chosen on validation images.

    Together they turn the raw output of the system into scores, probabilities, decisions and boxes.
    A policy is a rule that chooses a threshold, such as ``max_f1``.

    Attributes:
        target: Name of the finding, or group of findings, that the decision is for, such as
            ``opacity``.
        chosen_on: Ids of the predictions, the labels and the split (the division into training,
            validation and test images) that the decision was chosen on, and numbers of the
            validation images, such as ``n_images``.
        reduction: Rule that combines the scores of an image's boxes to the score of the image;
            `None` for a system that gives image scores.
        calibration: Map from scores to probabilities; `None` if validation has no positive or no
            negative image to fit it to.
        map_scale: Low and high end of the raw values on which all activation maps are shown; `None`
            without maps.
        map_boxes: Rule that cuts activation maps into boxes; `None` without maps.
        overlap: Largest IoU (intersection over union) of two boxes of a detector that both stay;
            `None` keeps all boxes.
        thresholds: Threshold by policy, or the reason why the policy has no threshold.
        box_cut: Score from which a box counts as called in the RSNA 2018 score; `None` if no
            validation image has a lesion.
        validation: Figures on the validation images: for each policy, a dictionary from the short
            name of a figure to its value. The figures that need no threshold are under the key
            ``""``.
        tried: Every rule for reducing the boxes of an image to one image score that was tried, with
            its AUROC.
        boxes_tried: Every rule for selecting or making boxes that was tried, with its figures.
        options: Options with which thresholds and rules were chosen, such as the method of
            calibration.
        declared: Threshold that was declared for the system, with its name and source; `None` if
            none was.
        losses: Log loss of each calibration method on held-out folds, by name of the method; empty
            unless the method was chosen on the validation images.
        chosen_scores: Validation scores, by image, study or patient, that the thresholds were
            chosen on; None if the decision was read from a file. This attribute and those below are
            not stored in the file.
        box_choice: Object that chose `map_boxes` or `overlap`, and `box_cut`, on the validation
            images; None for a system without boxes.
        system: Name of the system.
        path: File that stores the decision; None if it is not stored.
        notes: Sentences about the validation images for readers of the decision, such as that some
            images were left out.
        next_steps: Commands of the program ``cxr`` that usually follow, as a user would type them.

    Example:
        >>> import cxr_compare
        >>> decision = cxr_compare.Choices("opacity", {"n_images": 40}, box_cut=0.3)
        >>> decision.box_cut, decision.thresholds
        (0.3, {})
    """

    target: str
    chosen_on: dict[str, Any]
    reduction: Reduction | None = None
    calibration: Calibration | None = None
    map_scale: tuple[float, float] | None = None
    map_boxes: MapBoxRule | None = None
    overlap: float | None = None
    thresholds: dict[str, ThresholdChoice] = field(default_factory=dict)
    box_cut: float | None = None
    validation: dict[str, dict[str, float | None]] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)
    boxes_tried: list[dict[str, Any]] = field(default_factory=list)
    options: TuningOptions = field(default_factory=TuningOptions)
    declared: Declared | None = None
    losses: dict[str, float] = field(default_factory=dict)
    chosen_scores: ValidationScores | None = field(default=None, compare=False)
    box_choice: BoxChoice | None = field(default=None, compare=False)
    system: str = field(default="", compare=False)
    path: Path | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    next_steps: tuple[str, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        thresholds = [
            f"{name} from {choice.threshold:.4g}"
            for name, choice in self.thresholds.items()
            if choice.threshold is not None
        ]
        chosen_on = f"chosen on {counted(self.chosen_on.get('n_images', 0), 'image')}"
        return f"<Choices on {self.target}: {', '.join(thresholds) or 'no threshold'}; {chosen_on}>"

    def __str__(self) -> str:
        return "\n".join(_summary(self))

    def _repr_html_(self) -> str:
        return html_lines(str(self))

    @property
    def fixed_choices(self) -> dict[Need, str]:
        """Choices on validation images that the bootstrap does not make again on its resamples.

        The interval of a metric that depends on such a choice leaves out the uncertainty of the
        choice. The result is a dictionary from what a metric needs (a key of
        `evaluation.metrics.metric.NEEDS`, such as ``probability``) to the name of the choice on
        which this depends (such as ``calibration``).
        """
        choices: dict[Need, str] = {}
        if self.map_boxes and self.box_choice is None:
            choices["boxes"] = MAP_CUT
        if self.calibration is not None and self.calibration.to_dict()["method"] != "none":
            choices["probability"] = "calibration"
        return choices

    @property
    def box_rule(self) -> BoxRule:
        """Rule that selects or makes the boxes that are evaluated and drawn."""
        return OverlapRule(self.overlap) if self.map_boxes is None else self.map_boxes

    @property
    def _box_rule_text(self) -> str | None:
        """Rule of the boxes in words; None for a system without boxes and maps."""
        has_boxes = self.reduction is not None or self.map_boxes is not None
        return self.box_rule.description if has_boxes else None

    def probability(self, scores: npt.ArrayLike) -> Floats | None:
        """Convert image scores to calibrated probabilities of the finding.

        Args:
            scores: Image scores, shape ``(N,)``.

        Returns:
            Probabilities in [0, 1], shape ``(N,)``; `None` if the decision has no calibration.

        Example:
            >>> from cxr_compare import Choices
            >>> Choices("opacity", {"n_images": 0}).probability([0.5]) is None
            True
        """
        return None if self.calibration is None else self.calibration.probability(scores)

    def policy(self, requested: str | None, source: object) -> str:
        """Return the name of the rule for the threshold (policy) that decides on images.

        Args:
            requested: Policy that the user asks for, such as ``max_f1``. If it is `None`, the
                declared threshold decides, or else ``max_f1``, or else the first policy.
            source: Folder or file of the predictions, to name in an error message.

        Returns:
            Name of the policy, such as ``max_f1``.

        Raises:
            InputError: The decision has no threshold for the requested policy.
        """
        if requested is None and self.declared is not None:
            return DECLARED
        if requested is None:
            return POLICIES[0] if POLICIES[0] in self.thresholds else next(iter(self.thresholds))
        if requested not in self.thresholds:
            raise InputError(
                f"{source}: has no operating point for the policy '{requested}'; it has "
                f"{', '.join(self.thresholds)}: choose one of them"
            )
        return requested

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as a dictionary of JSON values, as its file stores it.

        The file is ``decisions/TARGET.json`` in the folder of the predictions, where TARGET is the
        name of the finding, or group of findings, that the decision is for.

        Returns:
            A dictionary of plain JSON values, which `from_dict` reads.

        Example:
            >>> from cxr_compare import Choices
            >>> Choices("opacity", {"n_images": 40}, box_cut=0.3).to_dict()["box_cut"]
            0.3
        """
        return {
            "target": self.target,
            "chosen_on": self.chosen_on,
            "options": self.options.to_dict(),
            "choices": {"calibration": self.losses} if self.losses else {},
            "reduction": self.reduction and asdict(self.reduction),
            "box_cut": self.box_cut,
            "calibration": self.calibration and self.calibration.to_dict(),
            "map_scale": self.map_scale and list(self.map_scale),
            "map_boxes": self.map_boxes and asdict(self.map_boxes),
            "overlap": self.overlap,
            "policies": {
                name: {
                    "threshold": choice.threshold,
                    "reason": choice.reason,
                    "validation": self.validation.get(name, {}),
                }
                for name, choice in self.thresholds.items()
                if name != DECLARED
            },
            "declared": self.declared
            and {**self.declared._asdict(), "validation": self.validation.get(DECLARED, {})},
            "validation": self.validation.get("", {}),
            "settings_tried": len(self.tried),
            "tried": self.tried,
            "box_rule": self._box_rule_text,
            "boxes_tried": self.boxes_tried,
        }

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> Self:
        """Read a decision from the dictionary that `to_dict` returned.

        Args:
            payload: Content of the file ``decisions/TARGET.json``, which the command ``cxr tune``
                wrote; TARGET is the name of the finding that the decision is for.

        Returns:
            The decision, without the attributes that are not stored.

        Example:
            >>> from cxr_compare import Choices
            >>> Choices.from_dict(Choices("opacity", {"n_images": 40}).to_dict()).target
            'opacity'
        """
        scale = payload["map_scale"]
        policies = payload["policies"]
        validation = {name: spec["validation"] for name, spec in policies.items()}
        thresholds = {
            name: ThresholdChoice(name, spec["threshold"], spec["reason"])
            for name, spec in policies.items()
        }
        declared = None
        if stored := payload.get("declared"):
            declared = Declared(stored["name"], stored["threshold"], stored["source"])
            thresholds[DECLARED] = ThresholdChoice(DECLARED, declared.threshold)
            validation[DECLARED] = stored.get("validation") or {}
        return cls(
            target=payload["target"],
            chosen_on=payload["chosen_on"],
            reduction=Reduction.from_dict(payload["reduction"]),
            calibration=calibration_from_dict(payload["calibration"]),
            map_scale=scale and (scale[0], scale[1]),
            map_boxes=MapBoxRule.from_dict(payload.get("map_boxes")),
            overlap=payload.get("overlap"),
            thresholds=thresholds,
            declared=declared,
            options=TuningOptions.from_dict(payload.get("options")),
            box_cut=payload.get("box_cut"),
            validation=validation | {"": payload["validation"]},
            tried=payload["tried"],
            boxes_tried=payload.get("boxes_tried") or [],
            losses=(payload.get("choices") or {}).get("calibration") or {},
        )


def _summary(decision: Choices) -> list[str]:
    """Return the lines that `cxr tune` prints."""
    facts = decision.chosen_on
    system = f"{decision.system}, " if decision.system else ""
    first = (
        f"{system}{decision.target}: chosen on {counted(facts['n_images'], 'validation image')} of "
        f"{counted(facts['n_patients'], 'patient')}, {facts['n_positive']} positive"
    )
    lines = []
    if decision.reduction:
        lowest = decision.reduction.min_score
        boxes_from = f", boxes from score {lowest:g}" if lowest else ""
        lines.append(f"image score: {decision.reduction.rule}{boxes_from}")
    if decision.boxes_tried:
        source = "cut from the maps " if decision.map_boxes else ""
        lines.append(f"boxes: {source}{decision.box_rule.description}")
    if decision.options.calibration:
        lines.append(_probability_line(decision))
    for policy, choice in decision.thresholds.items():
        lines.append(_threshold_line(choice, decision.validation.get(policy, {})))
    if decision.declared is not None:
        lines.append(f"aim: {decision.declared.name}; {decision.declared.source}")
    lines += decision.notes
    summary = [first, *(f"  {line}" for line in lines)]
    if decision.path is not None:
        summary.append(f"Decision: {decision.path}")
    return summary


def _probability_line(decision: Choices) -> str:
    method = "none possible"
    if decision.calibration:
        method = str(decision.calibration.to_dict()["method"])
        method = "the score as it is" if method == "none" else method
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in decision.losses.items())
    return f"probability: {method}{f' (held-out log loss: {losses})' if losses else ''}"


def _threshold_line(choice: ThresholdChoice, figures: Mapping[str, float | None]) -> str:
    if choice.threshold is None:
        return f"{choice.policy}: no threshold ({choice.reason})"
    values = [(name, figures.get(name)) for name in _SUMMARY_METRICS]
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values if value is not None)
    return f"{choice.policy}: score >= {choice.threshold:.6g} ({shown})"
