"""Record of one metric: its name, meaning, direction, needs and place in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Direction = Literal["higher", "lower", "ideal", "none"]
"""Better end of a metric. With ``ideal``, values near the record's ``ideal`` are better; with
``none``, neither end is better."""
Share = Literal["all", "positive", "negative", "called", "not_called"]
"""Images of which a metric is a share: all, those with a label, or those with a decision."""
Need = Literal["threshold", "boxes", "box_cut", "point", "cell", "probability", "triage"]
"""Output or decision that a system must have for a metric."""
Part = Literal["first", "localisation", "rates", "further", "none"]
"""Table of the report: the first one, localisation, sensitivities at single rates, the others."""
Test = Literal["obuchowski", "mcnemar", "bootstrap", "none"]
"""Test of a paired difference."""
Highlight = Literal["abstract", "paper", "subgroups", "summary", "targets", "verdict"]
"""Shorter list of the report that also contains a metric."""

ALL = "all"
"""Subgroup of all images."""
VERSUS_NORMAL = "vs_normal"
"""Subgroup of positive images and normal images, without other negative images."""

NEEDS: dict[Need, str] = {
    "threshold": "the system has no threshold for the policy",
    "boxes": (
        "the system gives no boxes, and validation did not choose how to cut boxes out of its maps"
    ),
    "box_cut": "validation images chose no score from which boxes count",
    "point": "the system gives neither boxes nor maps",
    "cell": "no system points by an activation map, so no cell can be the tolerance",
    "probability": "validation gives no probability to evaluate",
    "triage": "the system was not tuned to rule images out or in",
}
"""Reason why a system lacks a metric, for each need of a metric."""
_NOT_PRIMARY = {
    "higher": "",
    "lower": "lower is better",
    "none": "neither higher nor lower is better",
}
_PROPER_NAMES = frozenset({"Brier"})


@dataclass(frozen=True)
class Counts:
    """Counts of true and false decisions, whole or weighted: numbers, or arrays of one shape.

    Attributes:
        tp: Number of positive images called positive.
        fp: Number of negative images called positive.
        tn: Number of negative images called negative.
        fn: Number of positive images called negative.

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
        """Number of images with the finding."""
        return self.tp + self.fn

    @property
    def negative(self) -> Any:
        """Number of images without the finding."""
        return self.tn + self.fp

    @property
    def called(self) -> Any:
        """Number of images called positive."""
        return self.tp + self.fp

    @property
    def not_called(self) -> Any:
        """Number of images called negative."""
        return self.tn + self.fn


class TablePosition(NamedTuple):
    """Table of the report that contains a metric, and the metric's rank in the table.

    Metrics of equal rank keep the order of the registry.
    """

    part: Part
    rank: int


_FURTHER = TablePosition("further", 0)


@dataclass(frozen=True)
class Metric:
    """Record of one metric, from which tables, tests, documents and the schema are made.

    Attributes:
        name: Short name of the metric, as in ``metrics.csv``.
        title: Title of the metric's column or row.
        meaning: Explanation of the metric in one or two sentences.
        family: Family of metrics that one function computes, see `registry.COMPUTED_BY`.
        undefined: Reason why the metric can be undefined on a set of images, for the table's notes.
        direction: Better end of the metric.
        ideal: Ideal value, where the direction is ``ideal``.
        boxed: True if the metric uses only images whose lesions are all boxed.
        share_of: Images of which the metric is a share; None where it is not a share of images.
        needs: Outputs and decisions that a system must have for the metric.
        formula: Function from counts to the value, for a metric at a threshold.
        test: Test of the paired difference of two systems.
        table: Table of the report that contains the metric, and the metric's rank in the table.
        highlights: Shorter lists of the report that contain the metric.
        unbounded: True if values can lie outside [-1, 1]; they get no axis shared with others.
        partners: Metrics that are the other half of an operating point, for a metric that is one
            half. Any system can raise one half by calling more, or fewer, images positive.

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
        """Reason why the metric cannot decide which system is better; empty where it can."""
        if self.direction == "ideal":
            return f"neither higher nor lower is better, {self.ideal:g} is ideal"
        return _NOT_PRIMARY[self.direction]

    @property
    def title_in_sentence(self) -> str:
        """Title for use inside a sentence; names and abbreviations keep their capitals."""
        first = self.title.split()[0]
        is_abbreviation = first != first.capitalize() or not first.isalpha()
        if is_abbreviation or first in _PROPER_NAMES:
            return self.title
        return self.title[:1].lower() + self.title[1:]


class MetricKey(NamedTuple):
    """Key of a figure.

    Attributes:
        subgroup: Name of the images on which the figure is computed, such as `ALL`.
        policy: Threshold policy; empty where the metric has no threshold.
        metric: Short name of the metric.

    Example:
        >>> MetricKey("all", "max_f1", "recall").policy
        'max_f1'
    """

    subgroup: str
    policy: str
    metric: str
