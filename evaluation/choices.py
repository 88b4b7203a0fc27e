"""Decision rule of one system for one target, as ``decisions/<target>.json`` stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt
from pydantic import Field, InstanceOf, Strict

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.notebook import html_lines
from cxr_compare.data_prep.contracts.records import NumbersByName, Record
from cxr_compare.evaluation.box_choice import MAP_CUT, BoxChoice, BoxRule
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.metrics.metric import Need
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.calibration import Calibration
from cxr_compare.evaluation.thresholds import (
    DECLARED,
    POLICIES,
    ThresholdChoice,
    ValidationScores,
)
from cxr_compare.evaluation.tuning_options import TuningOptions

_SUMMARY_METRICS = ("recall", "specificity", "precision", "f1")


@dataclass(frozen=True)
class Declared:
    """Threshold that somebody declared for a system, such as one that a study of its own gave.

    It is the threshold of the policy ``declared`` and is taken as it is. `name` is the short name
    of the aim, such as ``sensitivity>=0.90@0.90``. `source` is a sentence part that says on what
    grounds the threshold was declared.
    """

    name: str
    threshold: float
    source: str

    @property
    def text(self) -> str:
        """Name and source as a part of a sentence."""
        return f"declared: {self.name}; {self.source}"


class Choices(Record, kind="decision"):
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

    Example:
        >>> from cxr_compare.evaluation.choices import Choices
        >>> facts = {"n_images": 40}
        >>> decision = Choices(target="opacity", chosen_on=facts, box_cut=0.3)
        >>> decision.box_cut, decision.thresholds
        (0.3, {})
    """

    target: str
    chosen_on: dict[str, Any]
    reduction: Reduction | None = None
    calibration: Annotated[Calibration, Field(discriminator="method")] | None = None
    map_scale: Annotated[tuple[float, float], Strict(False)] | None = None
    map_boxes: MapBoxRule | None = None
    overlap: float | None = None
    thresholds: dict[str, ThresholdChoice] = Field(default_factory=dict)
    box_cut: float | None = None
    validation: dict[str, NumbersByName] = Field(default_factory=dict)
    tried: list[dict[str, Any]] = Field(default_factory=list)
    boxes_tried: list[dict[str, Any]] = Field(default_factory=list)
    options: TuningOptions = Field(default_factory=TuningOptions)
    declared: Declared | None = None
    losses: dict[str, float] = Field(default_factory=dict)
    chosen_scores: InstanceOf[ValidationScores] | None = Field(default=None, exclude=True)
    box_choice: InstanceOf[BoxChoice] | None = Field(default=None, exclude=True)
    system: str = Field(default="", exclude=True)
    path: InstanceOf[Path] | None = Field(default=None, exclude=True)
    notes: tuple[str, ...] = Field(default=(), exclude=True)

    def __eq__(self, other: object) -> bool:
        """Return True for equal choices, whatever they were chosen on in memory."""
        return isinstance(other, Choices) and self.to_json() == other.to_json()

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
        if self.calibration is not None and self.calibration.method != "none":
            choices["probability"] = "calibration"
        return choices

    @property
    def box_rule(self) -> BoxRule:
        """Rule that selects or makes the boxes that are evaluated and drawn."""
        return OverlapRule(self.overlap) if self.map_boxes is None else self.map_boxes

    @property
    def box_rule_text(self) -> str | None:
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
            >>> from cxr_compare.evaluation.choices import Choices
            >>> Choices(target="opacity", chosen_on={}).probability([0.5]) is None
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


def _summary(decision: Choices) -> list[str]:
    """Return the lines that show a decision."""
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
        method = decision.calibration.method
        method = "the score as it is" if method == "none" else method
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in decision.losses.items())
    return f"probability: {method}{f' (held-out log loss: {losses})' if losses else ''}"


def _threshold_line(choice: ThresholdChoice, figures: Mapping[str, float | None]) -> str:
    if choice.threshold is None:
        return f"{choice.policy}: no threshold ({choice.reason})"
    values = [(name, figures.get(name)) for name in _SUMMARY_METRICS]
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values if value is not None)
    return f"{choice.policy}: score >= {choice.threshold:.6g} ({shown})"
