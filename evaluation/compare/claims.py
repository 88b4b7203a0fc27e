"""Claims about differences of two systems, each with the interval that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cxr_compare.evaluation.compare.estimates import Estimate, Estimates, family_level
from cxr_compare.evaluation.compare.holm import step_down

_ROUNDING = 1e-9

Standing = Literal["first", "second", "same", "open", "unknown"]
"""Result of a comparison: the first or the second system has more, the figures are equal, no
difference was shown, or there is no interval."""


def same(one: float, other: float) -> bool:
    """Return True if two figures are equal, apart from rounding of their sums.

    Example:
        >>> same(0.1 + 0.2, 0.3)
        True
    """
    return abs(one - other) < _ROUNDING


@dataclass(frozen=True)
class Claim:
    """A difference of two systems in one figure, and the interval that decides about it.

    Attributes:
        first: Name of the first system.
        second: Name of the second system.
        metric: Short name of the metric.
        policy: Threshold policy; empty without one.
        values: Figures of both systems.
        difference: First - second, with the interval for `comparisons` comparisons.
        comparisons: Number of comparisons that the interval is widened for.
    """

    first: str
    second: str
    metric: str
    policy: str
    values: tuple[float, float]
    difference: Estimate = field(default_factory=Estimate)
    comparisons: int = 1

    @classmethod
    def from_estimates(
        cls, estimates: Estimates, first: str, second: str, metric: str, policy: str = ""
    ) -> Claim:
        """Make the claim about one figure of two systems as a single comparison."""
        values = (
            estimates.get(first, metric, policy).estimate,
            estimates.get(second, metric, policy).estimate,
        )
        difference = estimates.difference(first, second, metric, policy)
        return cls(first, second, metric, policy, values, difference)

    @property
    def standing(self) -> Standing:
        """Result: a system has more only if the interval, as printed, excludes 0."""
        if self.difference.excludes_zero:
            return "first" if self.difference.estimate > 0 else "second"
        if self.equal:
            return "same"
        return "open" if self.difference.bounded else "unknown"

    @property
    def equal(self) -> bool:
        """True if both systems have the same figure."""
        return same(*self.values)

    @property
    def decided(self) -> bool:
        """True if a difference was shown."""
        return self.standing in ("first", "second")

    @property
    def leader(self) -> str:
        """Name of the system that was shown to have more; empty if none was."""
        return {"first": self.first, "second": self.second}.get(self.standing, "")

    @property
    def key(self) -> tuple[str, str]:
        """Metric and policy."""
        return self.metric, self.policy

    @property
    def level(self) -> float:
        """Coverage of the interval."""
        return family_level(self.comparisons)

    @property
    def falling(self) -> Claim:
        """The same claim with the system of the higher figure first."""
        if self.equal or not self.values[0] < self.values[1]:
            return self
        return replace(
            self,
            first=self.second,
            second=self.first,
            values=(self.values[1], self.values[0]),
            difference=self.difference.reversed(),
        )

    @property
    def difference_values(self) -> dict[str, Any]:
        """Difference, interval and level, or the reason why there is no interval, for sentences."""
        return {
            "estimate": self.difference.estimate,
            "low": self.difference.low,
            "high": self.difference.high,
            "bounded": self.difference.bounded,
            "level": self.level,
            "reason": self.difference.note,
            "comparisons": self.comparisons,
        }


def decide_together(claims: Sequence[Claim]) -> list[Claim]:
    """Give each claim of a family the interval by which Holm's method decides it.

    A claim is shown if its interval excludes 0. A sentence and the interval beside it therefore
    never contradict each other, and with 95 % probability no claim of the family is false.

    Args:
        claims: Claims of one family; those without an interval do not count.

    Returns:
        The claims in the same order.
    """
    bounded = [position for position, claim in enumerate(claims) if claim.difference.bounded]

    def widened(position: int, comparisons: int) -> Claim:
        difference = claims[position].difference.within(comparisons)
        return replace(claims[position], difference=difference, comparisons=comparisons)

    sizes = step_down(
        len(bounded), lambda index, comparisons: widened(bounded[index], comparisons).decided
    )
    decided = list(claims)
    for position, size in zip(bounded, sizes, strict=True):
        decided[position] = widened(position, size)
    return decided
