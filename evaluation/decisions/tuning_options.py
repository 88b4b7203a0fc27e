"""Options of `cxr tune`: calibration, reductions of boxes, choice of boxes, and triage."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.decisions.box_choice import BOXES_BY, check_boxes_by
from cxr_compare.evaluation.decisions.guarantees import read_guarantee


@dataclass(frozen=True)
class TuningOptions:
    """Options for choosing a system's thresholds, calibration and rules on validation images.

    By default the usual choices are made.

    Attributes:
        calibration: Method that turns scores into probabilities, one of
            `evaluation.statistics.calibration.METHODS`, such as ``platt``; ``choose`` takes the
            method with the lowest log loss on held-out folds of patients. `None` takes ``platt``.
        reductions: Names of the rules to try for combining the box scores of an image to its score:
            ``max``, ``noisy_or``, ``top_k`` (see `Reduction`); empty for all three.
        rule_out: Guarantee of sensitivity for triage, such as ``sensitivity>=0.95@0.90`` (at least
            0.95 with 90 % confidence). Images that score below its threshold are called negative
            without a reader; `None` rules out no image.
        rule_in: Guarantee of specificity or positive predictive value for triage, such as
            ``specificity>=0.95@0.90``. Images that score at or above its threshold are called
            positive without a reader; `None` rules in no image.
        boxes_by: Short name of the figure with whose highest value the rule for boxes is chosen,
            such as ``froc_mean``; `check_boxes_by` checks it.

    Raises:
        InputError: `boxes_by` is not a figure of ranked boxes, `rule_out` is not a guarantee of
            sensitivity, or `rule_in` is not a guarantee of specificity or positive predictive
            value.

    Example:
        >>> TuningOptions(rule_out="sensitivity>=0.95@0.90").triage
        ('sensitivity>=0.95@0.90',)
    """

    calibration: str | None = None
    reductions: tuple[str, ...] = ()
    rule_out: str | None = None
    rule_in: str | None = None
    boxes_by: str = BOXES_BY

    def __post_init__(self) -> None:
        check_boxes_by(self.boxes_by)
        if self.rule_out:
            _check_guarantee("--rule-out", self.rule_out, ("sensitivity",))
        if self.rule_in:
            _check_guarantee("--rule-in", self.rule_in, ("specificity", "ppv"))

    @property
    def triage(self) -> tuple[str, ...]:
        """Guarantees of triage: the one that rules images out, then the one that rules them in.

        Empty without triage.
        """
        return tuple(guarantee for guarantee in (self.rule_out, self.rule_in) if guarantee)

    def to_dict(self) -> dict[str, Any] | None:
        """Return the options as a dictionary, as ``cxr tune`` stores them with the thresholds.

        Returns:
            A dictionary of plain JSON values; None if all options have their default.

        Example:
            >>> TuningOptions().to_dict() is None
            True
        """
        if self == TuningOptions():
            return None
        options: dict[str, Any] = {
            "calibration": self.calibration,
            "reductions": list(self.reductions),
        }
        if self.boxes_by != BOXES_BY:
            options["boxes_by"] = self.boxes_by
        if self.triage:
            options |= {"rule_out": self.rule_out, "rule_in": self.rule_in}
        return options

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> TuningOptions:
        """Read the options from the dictionary that `to_dict` returned.

        Args:
            payload: Entry ``options`` of the file ``decisions/TARGET.json``, which the command
                ``cxr tune`` wrote (TARGET is the name of a finding); None or empty for the default
                options.

        Returns:
            The options.

        Example:
            >>> options = TuningOptions(calibration="choose")
            >>> TuningOptions.from_dict(options.to_dict()) == options
            True
        """
        if not payload:
            return cls()
        return cls(
            calibration=payload["calibration"],
            reductions=tuple(payload["reductions"]),
            rule_out=payload.get("rule_out"),
            rule_in=payload.get("rule_in"),
            boxes_by=payload.get("boxes_by", BOXES_BY),
        )


def _check_guarantee(option: str, policy: str, figures: Collection[str]) -> None:
    guarantee = read_guarantee(policy)
    if guarantee is None or any(part.figure not in figures for part in guarantee.parts):
        example = next(iter(figures))
        raise InputError(
            f"{option} {policy}: give a guarantee of {' or '.join(figures)} with its confidence, "
            f"such as {example}>=0.95@0.90"
        )
