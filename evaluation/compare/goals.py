"""Goals of a protocol, compared with the exact intervals of one system's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.printed_digits import distinguishing_digits
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.compare.scorecard import Scorecard
from cxr_compare.evaluation.compare.sentences import sentence
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.clustered_share import exact_share

GoalStanding = Literal["met", "missed", "open"]


@dataclass(frozen=True)
class GoalResult:
    """A goal of a protocol, and a system's figure with its exact interval at a fixed threshold.

    Attributes:
        metric: ``recall`` or ``specificity``.
        at_least: The goal.
        case: Empty, or ``all_against`` or ``all_for`` if images that are not counted otherwise
            count against the system or for it.
        n_images: Number of images that the figure counts; of studies or patients if these are the
            unit.
        n_patients: Number of patients who have them.
        estimate: The figure.
        ci_low: Lower end of its 95 % interval.
        ci_high: Upper end.
    """

    metric: str
    at_least: float
    case: str
    n_images: int
    n_patients: int
    estimate: float
    ci_low: float
    ci_high: float

    @classmethod
    def from_scorecard(
        cls, scorecard: Scorecard, metric: str, protocol: Protocol, case: str
    ) -> GoalResult:
        """Compare a figure at the protocol's threshold with its goal.

        Raises:
            InputError: The figure is undefined.
        """
        if reason := scorecard.why_undefined(metric, protocol.policy):
            raise InputError(f"protocol: the goal of '{metric}' cannot be evaluated: {reason}")
        evaluated = scorecard.evaluated
        is_counted = evaluated.y_true == (metric == "recall")
        is_right = is_counted & (scorecard.called(protocol.policy) == evaluated.y_true)
        counts = np.stack([is_right, is_counted], axis=1)
        right, images = per_cluster(counts, evaluated.patients, evaluated.n_patients).T
        low, high = exact_share(right, images)
        return cls(
            metric=metric,
            at_least=protocol.goals[metric],
            case=case,
            n_images=int(images.sum()),
            n_patients=int(np.count_nonzero(images)),
            estimate=float(right.sum() / images.sum()),
            ci_low=low,
            ci_high=high,
        )

    @property
    def standing(self) -> GoalStanding:
        """``met`` if the interval lies above the goal, ``missed`` if below, both unrounded."""
        if self.ci_low > self.at_least:
            return "met"
        return "missed" if self.ci_high < self.at_least else "open"

    @property
    def method(self) -> str:
        """Method of the interval."""
        method = "exact (Clopper-Pearson)"
        if self.n_images > self.n_patients:
            method += " of the effective number of images by patient (Korn and Graubard)"
        return f"{method}, fixed threshold"

    @property
    def values(self) -> dict[str, Any]:
        """Values for sentences, with enough decimals to show on which side of the goal they lie."""
        return {
            "figure": METRICS[self.metric].title_in_sentence,
            "estimate": self.estimate,
            "low": self.ci_low,
            "high": self.ci_high,
            "at_least": self.at_least,
            "standing": self.standing,
            "digits": distinguishing_digits((self.ci_low, self.ci_high), (self.at_least,)),
        }

    @property
    def text(self) -> str:
        """Figure, interval and goal in words."""
        return sentence("goal", **self.values)


def standing_together(
    results: Sequence[GoalResult],
) -> Literal["met", "missed", "partly", "open"]:
    """Return the standing of several goals, which are met only together.

    ``partly`` means that at least one goal was missed, but not all of them.
    """
    standings = {result.standing for result in results}
    if standings == {"met"}:
        return "met"
    if "missed" in standings:
        return "missed" if standings == {"missed"} else "partly"
    return "open"
