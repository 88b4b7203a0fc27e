"""Record of one metric: its name, meaning, direction, needs and place in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Direction = Literal["higher", "lower", "ideal", "none"]
"""``ideal``: the nearer to a record's ``ideal`` the better; ``none``: neither end is better."""


Share = Literal["all", "positive", "negative", "called", "not_called"]
"""Of which images a metric is a share: all, by their label, or by the decision on them."""


Need = Literal["threshold", "boxes", "box_cut", "point", "cell", "probability", "triage"]
"""What a system must have for a metric."""


Part = Literal["first", "place", "rates", "further", "none"]
"""Table of the report: the opening one, localisation, sensitivities at single rates, all others."""


Test = Literal["obuchowski", "mcnemar", "bootstrap", "none"]
"""How a paired difference is tested."""


Highlight = Literal["abstract", "paper", "subgroups", "summary", "targets", "verdict"]
"""Shorter lists of the report that a metric stands in, too."""


NEEDS: dict[Need, str] = {
    "threshold": "the system has no threshold for the policy",
    "boxes": "the system gives no boxes, and no map cut on validation",
    "box_cut": "validation chose no score from which boxes are called",
    "point": "the system gives neither boxes nor maps",
    "cell": "no system points by an activation map, so there is no cell to tolerate",
    "probability": "validation gives no probability to evaluate",
    "triage": "the system was not tuned to rule images out or in",
}
"""Why a system lacks a metric, by what it needs."""


@dataclass(frozen=True)
class Counts:
    """True and false decisions, whole or weighted: numbers, or arrays of one shape."""

    tp: Any
    fp: Any
    tn: Any
    fn: Any

    @property
    def positive(self) -> Any:
        """Images with the finding."""
        return self.tp + self.fn

    @property
    def negative(self) -> Any:
        """Images without it."""
        return self.tn + self.fp

    @property
    def called(self) -> Any:
        """Images called positive."""
        return self.tp + self.fp

    @property
    def not_called(self) -> Any:
        """Images called negative."""
        return self.tn + self.fn


@dataclass(frozen=True)
class Metric:
    """Everything that is known of one metric."""

    name: str  # short name, as in ``metrics.csv``
    title: str  # column or row title
    meaning: str  # what it says
    family: str  # the function that computes it, see `evaluation.metrics.registry`
    # Why it can be undefined on a set of images; notes of the table say this.
    undefined: str = "undefined on these images"
    direction: Direction = "higher"  # which end is better
    ideal: float | None = None  # what it should be, where the direction is ``ideal``
    boxed: bool = False  # whether it is computed on images whose lesions are all boxed, else on all
    # Of which images it is a share; `None` where it is no share of images.
    share_of: Share | None = None
    needs: tuple[Need, ...] = ()  # what a system must have for it
    # Of a metric at a threshold: its value from counts.
    formula: Callable[[Counts], Any] | None = None
    test: Test = "bootstrap"  # how its paired difference is tested
    # Its table in the report and its rank there; equal ranks keep the registry's order.
    place: tuple[Part, int] = ("further", 0)
    also: tuple[Highlight, ...] = ()  # shorter lists that it stands in
    unbounded: bool = False  # whether it can leave [-1, 1], so that it is drawn on no common axis
    # Of one half of an operating point: the metrics of which each is the other half. Any system can
    # raise a half alone by calling more, or fewer, images positive.
    partners: tuple[str, ...] = ()

    @property
    def why_not_primary(self) -> str:
        """Why it cannot decide which system is better; empty where it can."""
        if self.direction == "ideal":
            return f"neither higher nor lower is better, {self.ideal:g} is ideal"
        return {
            "higher": "", "lower": "lower is better", "none": "neither higher nor lower is better",
        }[self.direction]  # fmt: skip

    @property
    def inside(self) -> str:
        """The title as it stands inside a sentence: names and abbreviations keep their capitals."""
        first = self.title.split()[0]
        proper = first != first.capitalize() or not first.isalpha() or first in _PROPER_NAMES
        return self.title if proper else self.title[:1].lower() + self.title[1:]


_PROPER_NAMES = frozenset({"Brier"})

ALL = "all"


VERSUS_NORMAL = "vs_normal"


class MetricKey(NamedTuple):
    """The name of a figure: on which images, at which policy (``""``: none), which metric."""

    subgroup: str
    policy: str
    metric: str
