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
    """Options for choosing a decision on validation images; by default the usual choices are made.

    Attributes:
        calibration: One of `evaluation.statistics.calibration.METHODS`; ``choose`` takes the method
            with the lowest log loss on held-out folds of patients. `None` takes Platt's method.
        reductions: Names of the rules to choose from that reduce boxes to an image score; empty for
            all rules.
        rule_out: Guarantee of sensitivity. Images that score below its threshold are ruled out;
            `None` rules out no image.
        rule_in: Guarantee of specificity or predictive value. Images that score at or above its
            threshold are ruled in; `None` rules in no image.
        boxes_by: Figure by which the rule of the boxes is chosen, see `check_boxes_by`.

    Raises:
        InputError: `boxes_by` cannot choose boxes, `rule_out` is no guarantee of sensitivity, or
            `rule_in` is no guarantee of specificity or positive predictive value.

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
        """Guarantees of triage, first the one that rules out; empty without triage."""
        return tuple(guarantee for guarantee in (self.rule_out, self.rule_in) if guarantee)

    def to_dict(self) -> dict[str, Any] | None:
        """Return the options as the file ``decisions/<finding>.json`` stores them.

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
            payload: Entry ``options`` of the decision; None or empty for the default.

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
