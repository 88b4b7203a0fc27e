"""Goals of a protocol: bounds that the sensitivity or specificity of one system must exceed."""

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
    """One goal that a protocol states, and the system's figure with its exact interval.

    A goal is a bound that the true sensitivity or specificity must exceed, at a fixed threshold.

    Attributes:
        metric: Metric of the goal: ``recall`` (sensitivity) or ``specificity``.
        at_least: Bound that the true figure must exceed, in (0, 1).
        case: Empty if images without a result or a known label are left out, as in all other
            figures; ``all_against`` or ``all_for`` if such images are counted too, against the
            system or in its favour.
        n_images: Number of images of which the figure is a share, such as the positive images for a
            sensitivity; number of studies or patients if these are evaluated.
        n_patients: Number of patients who have these images.
        estimate: The figure, in [0, 1].
        ci_low: Lower end of the 95 % interval of the figure.
        ci_high: Upper end of the 95 % interval of the figure.

    Example:
        >>> goal = GoalResult("recall", 0.85, "", 100, 90, 0.94, 0.88, 0.98)
        >>> goal.standing
        'met'
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
        """Compare a figure of a system at the protocol's threshold with its goal.

        Args:
            scorecard: Object that computes all figures of the system.
            metric: Metric of the goal: ``recall`` or ``specificity``.
            protocol: Question of the comparison, with the goals and the rule for the threshold.
            case: Images that are counted: empty, ``all_against`` or ``all_for``, as described at
                the class.

        Returns:
            The figure with its exact interval, and the goal.

        Raises:
            InputError: The figure is undefined.

        Source:
            Clopper and Pearson 1934; Korn and Graubard 1998 for patients with several images.
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
        """Result of the comparison of the unrounded interval with the goal.

        It is ``met`` if the whole interval lies above the goal, ``missed`` if the whole interval
        lies below it, and ``open`` otherwise.
        """
        if self.ci_low > self.at_least:
            return "met"
        return "missed" if self.ci_high < self.at_least else "open"

    @property
    def method(self) -> str:
        """Name of the method of the interval, another one if patients have several images."""
        method = "exact (Clopper-Pearson)"
        if self.n_images > self.n_patients:
            method += " of the effective number of images by patient (Korn and Graubard)"
        return f"{method}, fixed threshold"

    @property
    def values(self) -> dict[str, Any]:
        """Values that the template of a sentence about the goal needs, by name.

        They are ``figure`` (title of the metric), ``estimate``, ``low``, ``high``, ``at_least``,
        ``standing`` and ``digits``, a number of decimals at which the printed ends of the interval
        lie on the same side of the goal as the unrounded ones.
        """
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
        """Phrase for a report with the figure, its interval and the goal."""
        return sentence("goal", **self.values)


def standing_together(
    results: Sequence[GoalResult],
) -> Literal["met", "missed", "partly", "open"]:
    """Return the common result of several goals, which count as met only if all of them are met.

    Args:
        results: Results of the goals of one protocol, at least one.

    Returns:
        ``met`` if all goals are met, ``missed`` if all are missed, ``partly`` if at least one but
        not all are missed, and ``open`` otherwise.

    Example:
        >>> met = GoalResult("recall", 0.85, "", 100, 90, 0.94, 0.88, 0.98)
        >>> missed = GoalResult("specificity", 0.85, "", 100, 90, 0.7, 0.6, 0.8)
        >>> standing_together([met, missed])
        'partly'
    """
    standings = {result.standing for result in results}
    if standings == {"met"}:
        return "met"
    if "missed" in standings:
        return "missed" if standings == {"missed"} else "partly"
    return "open"
