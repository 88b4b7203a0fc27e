"""Claims: differences of two systems in one figure, as the table of figures decides them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import pandas as pd

from cxr_compare.evaluation.statistics.clustered_auroc import CHANCE
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

ROUNDING = 1e-9
"""Difference below which two figures are equal."""
NOT_EQUAL = "Not shown is not the same as equal."
"""Sentence that belongs to each difference that was tested and not shown."""
_KEYS = ("first", "second", "metric", "policy")
_READ = ("estimate", "ci_low", "ci_high", "note", "p_value", "p_holm", "n_images")
Family = Literal["answer", "joint", "places", "further"]
"""Kinds of claims: the question, the joint system, constant positions, and a further figure."""


class Lookup:
    """Figures and differences of a table by their names."""

    def __init__(self, figures: pd.DataFrame) -> None:
        keys = zip(*(figures[name] for name in _KEYS), strict=True)
        self._rows = dict(zip(keys, figures[[*_READ]].to_dict("records"), strict=True))

    def get(self, system: str, metric: str, policy: str = "") -> Interval:
        """Return a figure of a system; NaN if there is none."""
        row = self._rows.get((system, "", metric, policy))
        return Interval() if row is None else Interval.from_row(row)

    def values(self, claim: Claim) -> tuple[float, float]:
        """Return the figures of both systems of a claim."""
        key = claim.metric, claim.policy
        return self.get(claim.first, *key).estimate, self.get(claim.second, *key).estimate

    def count(self, system: str, metric: str, policy: str = "") -> int:
        """Return the number of images on which a figure rests."""
        row = self._rows.get((system, "", metric, policy))
        return 0 if row is None or pd.isna(row["n_images"]) else int(row["n_images"])

    def claim(
        self, family: Family, first: str, second: str, metric: str, policy: str = ""
    ) -> Claim:
        """Return the claim about two systems in one figure, first minus second."""
        row = self._rows.get((first, second, metric, policy))
        if row is None and (second, first, metric, policy) in self._rows:
            return self.claim(family, second, first, metric, policy).reversed()
        claim = Claim(family=family, first=first, second=second, metric=metric, policy=policy)
        if row is None:
            return claim
        return replace(
            claim,
            **vars(Interval.from_row(row)),
            p_value=float(row["p_value"]),
            p_holm=float(row["p_holm"]),
        )


def against_chance(auroc: Interval) -> Literal["above", "below", "open", "unknown"]:
    """Return whether the interval of an AUROC shows a system to be better or worse than chance.

    An AUROC of chance without an interval, as scores have that are all equal, shows neither.
    """
    if not auroc.bounded:
        return "open" if abs(auroc.estimate - CHANCE) < ROUNDING else "unknown"
    if auroc.ci_low > CHANCE:
        return "above"
    return "below" if auroc.ci_high < CHANCE else "open"


@dataclass(frozen=True, kw_only=True)
class Claim(Interval):
    """Difference of two systems, first minus second, in one figure, with its interval.

    It is shown if its p-value, corrected by Holm's method, is below 0.05 and its 95 % interval
    excludes 0.
    """

    family: Family
    first: str
    second: str
    metric: str
    policy: str
    p_value: float = math.nan
    p_holm: float = math.nan

    @property
    def tested(self) -> bool:
        """True if the difference has an interval and a p-value."""
        return self.bounded and not math.isnan(self.p_holm)

    @property
    def corrected(self) -> bool:
        """True if its p-value is corrected for others."""
        return self.tested and self.p_holm != self.p_value

    @property
    def equal(self) -> bool:
        """True if both systems have the same figure."""
        return abs(self.estimate) < ROUNDING

    @property
    def higher(self) -> str:
        """System that was shown to have the higher figure; empty if no difference was shown."""
        if not (self.tested and self.p_holm < 1 - LEVEL and self.excludes_zero):
            return ""
        return self.first if self.estimate > 0 else self.second

    @property
    def falling(self) -> Claim:
        """Difference with the system of the higher figure first."""
        return self.reversed() if self.estimate <= -ROUNDING else self

    def reversed(self) -> Self:
        """Return the claim about the same systems in the other order."""
        return replace(super().reversed(), first=self.second, second=self.first)

    def to_dict(self) -> dict[str, Any]:
        """Return the claim for ``answer.json``."""
        p_values = {"p_value": self.p_value, "p_holm": self.p_holm}
        return {
            **{name: getattr(self, name) for name in ("family", *_KEYS)},
            **super().to_dict(),
            **{name: None if math.isnan(p) else p for name, p in p_values.items()},
            "note": self.note,
            "higher": self.higher or None,
        }
