"""Record of one metric: its name, meaning, direction, needs and place in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Direction = Literal["higher", "lower", "ideal", "none"]
"""Better end of a metric. ``ideal``: the nearer to a record's ``ideal`` the better; ``none``:
neither end is better."""
Share = Literal["all", "positive", "negative", "called", "not_called"]
"""Images of which a metric is a share: all, those of a label, or those of a decision."""
Need = Literal["threshold", "boxes", "box_cut", "point", "cell", "probability", "triage"]
"""Something that a system must have for a metric."""
Part = Literal["first", "localisation", "rates", "further", "none"]
"""Table of the report: the opening one, localisation, sensitivities at single rates, all others."""
Test = Literal["obuchowski", "mcnemar", "bootstrap", "none"]
"""Test of a paired difference."""
Highlight = Literal["abstract", "paper", "subgroups", "summary", "targets", "verdict"]
"""Shorter list of the report that a metric is in, too."""

ALL = "all"
"""Subgroup of all images."""
VERSUS_NORMAL = "vs_normal"
"""Subgroup of positive images and normal ones, without other negative images."""

NEEDS: dict[Need, str] = {
    "threshold": "the system has no threshold for the policy",
    "boxes": "the system gives no boxes, and no map cut on validation",
    "box_cut": "validation chose no score from which boxes are called",
    "point": "the system gives neither boxes nor maps",
    "cell": "no system points by an activation map, so there is no cell to tolerate",
    "probability": "validation gives no probability to evaluate",
    "triage": "the system was not tuned to rule images out or in",
}
"""Reason why a system lacks a metric, by what the metric needs."""
_NOT_PRIMARY = {
    "higher": "",
    "lower": "lower is better",
    "none": "neither higher nor lower is better",
}
_PROPER_NAMES = frozenset({"Brier"})


@dataclass(frozen=True)
class Counts:
    """True and false decisions, whole or weighted: numbers, or arrays of one shape.

    Attributes:
        tp: Positive images called positive.
        fp: Negative images called positive.
        tn: Negative images called negative.
        fn: Positive images called negative.

    Example:
        >>> Counts(tp=8, fp=3, tn=20, fn=2).positive
        10
    """

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
        """Images without the finding."""
        return self.tn + self.fp

    @property
    def called(self) -> Any:
        """Images called positive."""
        return self.tp + self.fp

    @property
    def not_called(self) -> Any:
        """Images called negative."""
        return self.tn + self.fn


class TablePosition(NamedTuple):
    """Table of the report that a metric is in, and its rank there.

    Equal ranks keep the order of the registry.
    """

    part: Part
    rank: int


_FURTHER = TablePosition("further", 0)


@dataclass(frozen=True)
class Metric:
    """Record of one metric, from which tables, tests, documents and the schema follow.

    Attributes:
        name: Short name, as in ``metrics.csv``.
        title: Title of its column or row.
        meaning: What it says, in one sentence or two.
        family: Family of metrics that one function computes, see `registry.COMPUTED_BY`.
        undefined: Why it can be undefined on a set of images; notes of the table say this.
        direction: Better end.
        ideal: Ideal value, where the direction is ``ideal``.
        boxed: True if it is computed on images whose lesions are all boxed, False if on all.
        share_of: Images of which it is a share; None where it is no share of images.
        needs: What a system must have for it.
        formula: Value from counts, for a metric at a threshold.
        test: Test of its paired difference.
        table: Its table in the report, and its rank there.
        highlights: Shorter lists that it is in.
        unbounded: True if it can leave [-1, 1], so that it is drawn on no common axis.
        partners: For one half of an operating point, the metrics of which each is the other half.
            Any system can raise one half alone by calling more, or fewer, images positive.

    Example:
        >>> from cxr_compare.evaluation.metrics.registry import METRICS
        >>> METRICS["recall"].title_in_sentence, METRICS["recall"].share_of
        ('sensitivity (recall)', 'positive')
    """

    name: str
    title: str
    meaning: str
    family: str
    undefined: str = "undefined on these images"
    direction: Direction = "higher"
    ideal: float | None = None
    boxed: bool = False
    share_of: Share | None = None
    needs: tuple[Need, ...] = ()
    formula: Callable[[Counts], Any] | None = None
    test: Test = "bootstrap"
    table: TablePosition = _FURTHER
    highlights: tuple[Highlight, ...] = ()
    unbounded: bool = False
    partners: tuple[str, ...] = ()

    @property
    def why_not_primary(self) -> str:
        """Reason why it cannot decide which system is better; empty where it can."""
        if self.direction == "ideal":
            return f"neither higher nor lower is better, {self.ideal:g} is ideal"
        return _NOT_PRIMARY[self.direction]

    @property
    def title_in_sentence(self) -> str:
        """Title for use inside a sentence: names and abbreviations keep their capitals."""
        first = self.title.split()[0]
        is_abbreviation = first != first.capitalize() or not first.isalpha()
        if is_abbreviation or first in _PROPER_NAMES:
            return self.title
        return self.title[:1].lower() + self.title[1:]


class MetricKey(NamedTuple):
    """Name of a figure.

    Attributes:
        subgroup: Images on which it is computed, such as `ALL`.
        policy: Threshold policy; empty where the metric has no threshold.
        metric: Short name of the metric.

    Example:
        >>> MetricKey("all", "max_f1", "recall").policy
        'max_f1'
    """

    subgroup: str
    policy: str
    metric: str
