"""Claims about the difference of two systems in one figure, with the interval that decides them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cxr_compare.evaluation.figures import Figure, Figures, family_level

_ROUNDING = 1e-9

Standing = Literal["first", "second", "same", "open", "unknown"]
"""Result of a comparison of two systems in one figure.

``first`` or ``second``: this system was shown to have the higher figure. ``same``: the figures are
equal. ``open``: no difference was shown. ``unknown``: the difference has no interval.
"""


CHANCE = 0.5
"""AUROC of a system whose scores are random."""
_ERROR = 0.05


def against_chance(auroc: Figure) -> Literal["above", "below", "open", "unknown"]:
    """Return whether a system was shown to be better or worse than chance by its AUROC.

    The rank test by patient decides (`evaluation.statistics.rank_test`), whose p-value the AUROC
    has, and not the interval that is printed beside it. ``open`` means that no difference from 0.5
    was shown, ``unknown`` that there is no test.

    Example:
        >>> against_chance(Figure(0.83, 0.49, 0.97, p_value=0.002))
        'above'
    """
    if auroc.p_value is None:
        return "unknown"
    if auroc.p_value >= _ERROR or auroc.estimate == CHANCE:
        return "open"
    return "above" if auroc.estimate > CHANCE else "below"


def same(one: float, other: float) -> bool:
    """Return True if two figures differ by less than 1e-9, as by rounding errors."""
    return abs(one - other) < _ROUNDING


@dataclass(frozen=True)
class Claim:
    """Difference of two systems in one figure, with the interval that decides if it is shown.

    A difference is shown if its interval excludes 0.

    Attributes:
        policy: Rule by which the threshold was chosen, such as ``max_f1``; empty for a figure
            without a threshold.
        values: Value of the figure for the first and for the second system.
        difference: Figure of the first system minus that of the second, with the interval for
            `comparisons` comparisons.
        comparisons: Number of comparisons for which the interval is widened; 1 for a difference
            that is considered alone.

    Example:
        >>> claim = Claim("A", "B", "auroc", "", (0.9, 0.8), Figure(0.1, 0.04, 0.16))
        >>> claim.standing, claim.leader
        ('first', 'A')
    """

    first: str
    second: str
    metric: str
    policy: str
    values: tuple[float, float]
    difference: Figure = field(default_factory=Figure)
    comparisons: int = 1

    @classmethod
    def from_estimates(
        cls, estimates: Figures, first: str, second: str, metric: str, policy: str = ""
    ) -> Claim:
        """Make the claim about the difference of two systems in one figure, as a single comparison.

        Its interval is not widened for further comparisons.
        """
        values = (
            estimates.get(first, metric, policy).estimate,
            estimates.get(second, metric, policy).estimate,
        )
        difference = estimates.difference(first, second, metric, policy)
        if difference.no_claim:
            reason = difference.no_claim
            difference = replace(difference, ci_low=np.nan, ci_high=np.nan, note=reason)
        return cls(first, second, metric, policy, values, difference)

    @property
    def standing(self) -> Standing:
        """Result of the comparison: ``first``, ``second``, ``same``, ``open`` or ``unknown``.

        With ``first`` or ``second``, that system was shown to have the higher figure, because the
        printed interval of the difference excludes 0. ``same``: the figures are equal. ``open``: no
        difference was shown. ``unknown``: the difference has no interval.
        """
        if self.difference.excludes_zero:
            return "first" if self.difference.estimate > 0 else "second"
        if self.equal:
            return "same"
        return "open" if self.difference.bounded else "unknown"

    @property
    def no_interval(self) -> str:
        """Reason why the difference has no interval, in words."""
        return self.difference.note or "the paired difference has no interval"

    @property
    def equal(self) -> bool:
        """True if both systems have the same value of the figure, apart from rounding errors."""
        return same(*self.values)

    @property
    def decided(self) -> bool:
        """True if one system was shown to have a higher figure than the other."""
        return self.standing in ("first", "second")

    @property
    def leader(self) -> str:
        """Name of the system that was shown to have the higher figure.

        Empty if no difference was shown.
        """
        return {"first": self.first, "second": self.second}.get(self.standing, "")

    @property
    def key(self) -> tuple[str, str]:
        """Short name of the metric, and the rule that chose the threshold.

        An example is ``("recall", "max_f1")``. The rule is empty for a figure without a threshold.
        """
        return self.metric, self.policy

    @property
    def level(self) -> float:
        """Coverage of the interval of the difference, such as 0.95 for a single comparison."""
        return family_level(self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return the claim for ``answer.json``; ``higher`` is None if no difference is shown."""
        bounded = self.difference.bounded
        return {
            "first": self.first,
            "second": self.second,
            "metric": self.metric,
            "policy": self.policy,
            "estimate": None if np.isnan(self.difference.estimate) else self.difference.estimate,
            "ci_low": self.difference.ci_low if bounded else None,
            "ci_high": self.difference.ci_high if bounded else None,
            "level": self.level,
            "higher": self.leader or None,
        }

    def among(self, comparisons: int) -> Claim:
        """Return the claim with the interval that it has among several comparisons."""
        difference = self.difference.within(comparisons)
        return replace(self, difference=difference, comparisons=comparisons)

    @property
    def falling(self) -> Claim:
        """The same difference, turned so that the system with the higher figure comes first."""
        if self.equal or not self.values[0] < self.values[1]:
            return self
        return replace(
            self,
            first=self.second,
            second=self.first,
            values=(self.values[1], self.values[0]),
            difference=self.difference.reversed(),
        )


def decide_together(claims: Sequence[Claim]) -> list[Claim]:
    """Widen the intervals of several claims by Holm's method, for the number of claims.

    A family is a set of claims that are corrected together for their number. With 95 % probability
    no claim of the family is shown falsely. A claim is shown if its widened interval excludes 0, so
    a sentence about a claim always agrees with the interval that is printed beside it. Claims
    without an interval are not counted and stay unchanged. The order stays.

    Source:
        Holm 1979.

    Example:
        >>> narrow = Figure(0.1, 0.04, 0.16, interval_at=lambda level: (0.03, 0.17))
        >>> wide = Figure(0.1, 0.01, 0.19, interval_at=lambda level: (-0.01, 0.21))
        >>> claims = [
        ...     Claim("A", "B", "auroc", "", (0.9, 0.8), narrow),
        ...     Claim("A", "C", "auroc", "", (0.9, 0.8), wide),
        ... ]
        >>> [(claim.standing, claim.comparisons) for claim in decide_together(claims)]
        [('first', 2), ('first', 1)]
    """
    decided = decide_groups([[claim] for claim in claims], lambda group: group[0].decided)
    return [claim for (claim,) in decided]


def decide_groups(
    groups: Sequence[Sequence[Claim]], is_shown: Callable[[Sequence[Claim]], bool]
) -> list[list[Claim]]:
    """Widen the intervals of claims that are shown in groups, for the number of groups.

    All groups are tested at the widest interval; each that is shown leaves the others fewer to be
    corrected for, until no more is shown. Groups with a claim without an interval stay unchanged.
    """
    decided = [list(group) for group in groups]
    still_open = [
        position
        for position, group in enumerate(groups)
        if all(claim.difference.bounded for claim in group)
    ]
    while still_open:
        size = len(still_open)
        for position in still_open:
            decided[position] = [claim.among(size) for claim in groups[position]]
        remaining = [position for position in still_open if not is_shown(decided[position])]
        if len(remaining) == size:
            break
        still_open = remaining
    return decided
