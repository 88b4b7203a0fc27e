"""Claims: differences of two systems in one figure, as the table of figures decides them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval
from cxr_compare.evaluation.verdict.prose import listing

CHANCE = 0.5
"""AUROC of a system whose scores are random."""
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
        self._places = {key: place for place, key in enumerate(keys)}
        self._columns = {name: figures[name].tolist() for name in _READ}
        self._figures: dict[tuple[str, str, str], Interval] = {}

    def _row(self, first: str, second: str, metric: str, policy: str) -> dict[str, Any] | None:
        place = self._places.get((first, second, metric, policy))
        if place is None:
            return None
        return {name: column[place] for name, column in self._columns.items()}

    def get(self, system: str, metric: str, policy: str = "") -> Interval:
        """Return a figure of a system; NaN if there is none."""
        key = (system, metric, policy)
        if key not in self._figures:
            row = self._row(system, "", metric, policy)
            self._figures[key] = Interval() if row is None else Interval.from_row(row)
        return self._figures[key]

    def count(self, system: str, metric: str, policy: str = "") -> int:
        """Return the number of images on which a figure rests."""
        row = self._row(system, "", metric, policy)
        return 0 if row is None or pd.isna(row["n_images"]) else int(row["n_images"])

    def claim(
        self, family: Family, first: str, second: str, metric: str, policy: str = ""
    ) -> Claim:
        """Return the claim about two systems in one figure, first minus second."""
        one, other = self.get(first, metric, policy), self.get(second, metric, policy)
        values = one.estimate, other.estimate
        row = self._row(first, second, metric, policy)
        stored = row or self._row(second, first, metric, policy)
        if stored is None:
            return Claim(family, first, second, metric, policy, values, Interval())
        difference = Interval.from_row(stored)
        difference = difference if row else difference.reversed()
        p_values = float(stored["p_value"]), float(stored["p_holm"])
        return Claim(family, first, second, metric, policy, values, difference, *p_values)


def against_chance(auroc: Interval) -> Literal["above", "below", "open", "unknown"]:
    """Return whether the interval of an AUROC shows a system to be better or worse than chance.

    An AUROC of chance without an interval, as scores have that are all equal, shows neither.
    """
    if not auroc.bounded:
        return "open" if abs(auroc.estimate - CHANCE) < ROUNDING else "unknown"
    if auroc.ci_low > CHANCE:
        return "above"
    return "below" if auroc.ci_high < CHANCE else "open"


@dataclass(frozen=True)
class Claim:
    """Difference of two systems, first minus second, in one figure.

    It is shown if its p-value, corrected by Holm's method, is below 0.05 and its 95 % interval
    excludes 0.
    """

    family: Family
    first: str
    second: str
    metric: str
    policy: str
    values: tuple[float, float]
    difference: Interval
    p_value: float = float("nan")
    p_holm: float = float("nan")

    @property
    def tested(self) -> bool:
        """True if the difference has an interval and a p-value."""
        return self.difference.bounded and not pd.isna(self.p_holm)

    @property
    def equal(self) -> bool:
        """True if both systems have the same figure."""
        first, second = self.values
        return abs(first - second) < ROUNDING

    @property
    def higher(self) -> str:
        """System that was shown to have the higher figure; empty if no difference was shown."""
        if not (self.tested and self.p_holm < 1 - LEVEL and self.difference.excludes_zero):
            return ""
        return self.first if self.difference.estimate > 0 else self.second

    def untested(self, why: str) -> Claim:
        """Return the claim without its p-values, for a reason that stands in its place."""
        nan = float("nan")
        noted = replace(self.difference, note=why)
        return replace(self, difference=noted, p_value=nan, p_holm=nan)

    @property
    def falling(self) -> Claim:
        """Difference with the system of the higher figure first."""
        first, second = self.values
        if self.equal or first >= second:
            return self
        return replace(
            self,
            first=self.second,
            second=self.first,
            values=(second, first),
            difference=self.difference.reversed(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the claim for ``answer.json``."""
        return {
            "family": self.family,
            "first": self.first,
            "second": self.second,
            "metric": self.metric,
            "policy": self.policy,
            **self.difference.to_dict(),
            "p_value": None if pd.isna(self.p_value) else self.p_value,
            "p_holm": None if pd.isna(self.p_holm) else self.p_holm,
            "higher": self.higher or None,
        }


def of_own_boxes(
    claim: Claim, figures: Lookup, with_boxes: Collection[str], primary: Collection[str]
) -> Claim:
    """Return a claim, untested if it is of boxes which are not both systems' own, or are no better.

    Boxes are no better if those of both systems are worse than constant positions with the same
    scores. The primary figure of boxes, or AP50, comes before the others: their ``p_holm`` is at
    least its own.
    """
    pair = claim.first, claim.second
    if METRICS[claim.metric].needs != "boxes":
        return claim
    if lacking := [name for name in pair if name not in with_boxes]:
        return claim.untested(f"no own boxes of {listing(lacking)}")
    blind = [figures.get(image_blind_name(name), claim.metric, claim.policy) for name in pair]
    if all(value < each.estimate for value, each in zip(claim.values, blind, strict=True)):
        return claim.untested("both are worse than constant positions with their scores")
    of_boxes = [name for name in primary if METRICS[name].needs == "boxes"] or ["ap50"]
    if claim.metric in of_boxes:
        return claim
    before = figures.claim("places", *pair, of_boxes[0])
    return replace(claim, p_holm=np.maximum(claim.p_holm, before.p_holm))


def tested_differences(
    figures: pd.DataFrame,
    systems: Collection[str],
    with_boxes: Collection[str],
    primary: Collection[str],
) -> pd.DataFrame:
    """Return the differences of a table of figures, as claims: `of_own_boxes` between systems."""
    tests = figures[figures["second"] != ""].reset_index(drop=True)
    lookup = Lookup(figures)
    of_boxes = [name for name, metric in METRICS.items() if metric.needs == "boxes"]
    asked = tests["metric"].isin(of_boxes) & tests["p_value"].notna()
    asked &= tests["first"].isin(systems) & tests["second"].isin(systems)
    for row in tests.index[asked]:
        claim = lookup.claim("further", *tests.loc[row, list(_KEYS)])
        claim = of_own_boxes(claim, lookup, with_boxes, primary)
        tests.at[row, "note"] = claim.difference.note
        tests.at[row, "p_value"] = claim.p_value
        tests.at[row, "p_holm"] = claim.p_holm
    return tests
