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
    """Options of the choices on validation; by default each choice is made in the usual way.

    Attributes:
        calibration: One of `evaluation.statistics.calibration.METHODS`; ``choose`` takes the method
            with the lowest log loss on held-out folds of patients. `None`: Platt's.
        reductions: Rules to choose from, by which boxes become an image score; empty for all.
        rule_out: Guarantee below whose threshold images are ruled out.
        rule_in: Guarantee from whose threshold on images are ruled in.
        boxes_by: Figure by which the rule of the boxes is chosen, see `check_boxes_by`.
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
        """Guarantees of triage; empty without triage."""
        return tuple(guarantee for guarantee in (self.rule_out, self.rule_in) if guarantee)

    def to_dict(self) -> dict[str, Any] | None:
        """Return the options for ``decisions/<target>.json``; None if all are the default."""
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
        """Read what `to_dict` returned."""
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
