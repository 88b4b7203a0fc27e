"""Record of one metric: its name, meaning, direction and needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Direction = Literal["higher", "lower", "ideal", "none"]
"""Better end of a metric. With ``ideal``, values near the record's ``ideal`` are better; with
``none``, neither end is better."""
Share = Literal["all", "positive", "negative", "called", "not_called"]
"""Images of which a metric is a share: all, those with a label, or those with a decision."""
Need = Literal["threshold", "boxes", "box_cut", "point", "probability", "scores"]
"""Output or decision that a system must have for a metric."""

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
    "probability": "validation gives no probability to evaluate",
    "scores": "its boxes have no scores, so nothing ranks its images or boxes",
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
    """The four counts of a confusion matrix: numbers, or arrays of one shape.

    The counts may be sums of weights of images instead of whole numbers.
    """

    tp: Any
    fp: Any
    tn: Any
    fn: Any

    @property
    def positive(self) -> Any:
        """Number of images with label 1 (finding present)."""
        return self.tp + self.fn

    @property
    def negative(self) -> Any:
        """Number of images with label 0 (finding absent)."""
        return self.tn + self.fp

    @property
    def called(self) -> Any:
        """Number of images called positive."""
        return self.tp + self.fp

    @property
    def not_called(self) -> Any:
        """Number of images called negative."""
        return self.tn + self.fn


@dataclass(frozen=True)
class Metric:
    """Description of one metric: its names and meaning, and what it needs.

    Tables, tests, documents and the JSON schema are made from these descriptions.

    Attributes:
        name: Short name of the metric, such as ``recall``, as in ``figures.csv``.
        title: Title of the metric's column or row, such as ``Sensitivity (recall)``.
        meaning: Explanation of the metric in one or two sentences.
        family: Name of the group of metrics that one function computes together, such as
            ``ranking``.
        undefined: Reason why the metric can be undefined on a set of images, a clause such as
            "no image is positive". The class that is absent is written ``{absent}`` where it may be
            either.
        direction: Which values are better: ``higher``, ``lower``, ``ideal`` (values near ``ideal``)
            or ``none`` (no end is better).
        ideal: Best value, such as 1.0 for a calibration slope; None unless ``direction`` is
            ``ideal``.
        boxed: True if the metric uses only images on which every lesion has a true box.
        share_of: Denominator of a metric that is a share of images: ``all`` images, the
            ``positive`` or ``negative`` images by label, or the images ``called`` or ``not_called``
            positive. None where the metric is not a share of images.
        needs: What a compared system (a detector or classifier) must have, keys of `NEEDS`:
            ``threshold`` (a threshold to call images positive), ``boxes``, ``box_cut`` (a score
            from which boxes count, chosen on validation images), ``point`` (a box centre or the
            peak of an activation map) or ``probability`` (a calibrated probability).
        formula: Function from `Counts` to the value; None for a metric that does not follow from
            the four counts.
        unbounded: True if values can lie outside [-1, 1]; such a metric is never drawn on an axis
            with other metrics.
        lowest: Smallest value of a metric that is not unbounded, such as -1 of a correlation.
        partners: Short names of the metrics to read together with this one, such as specificity for
            sensitivity. Calling more images positive raises sensitivity and lowers specificity, so
            that neither of them alone says which system is better.

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
    unbounded: bool = False
    lowest: float = 0.0
    partners: tuple[str, ...] = ()

    @property
    def of_stored_boxes(self) -> bool:
        """True for a figure of all boxes as they are stored, on which no claim rests."""
        return self.family == "coco"

    @property
    def why_not_primary(self) -> str:
        """Reason why the metric cannot say which of two systems is better; empty where it can."""
        if self.direction == "ideal":
            return f"neither higher nor lower is better, {self.ideal:g} is ideal"
        if self.of_stored_boxes:
            return "no claim rests on boxes as stored"
        return _NOT_PRIMARY[self.direction]

    @property
    def title_in_sentence(self) -> str:
        """Title in the form for the middle of a sentence, such as ``sensitivity (recall)``.

        The first letter is lowered except in names (``Brier``) and abbreviations (``AUROC``).
        """
        first = self.title.split()[0]
        is_abbreviation = first != first.capitalize() or not first.isalpha()
        if is_abbreviation or first in _PROPER_NAMES:
            return self.title
        return self.title[:1].lower() + self.title[1:]


class MetricKey(NamedTuple):
    """Key of one number of a comparison: which images, which threshold, which metric.

    Attributes:
        subgroup: Name of the subgroup of the test images on which the metric is computed; `ALL`
            (``all``) for all of them, or `VERSUS_NORMAL` for positive and normal images.
        policy: Rule by which the threshold was chosen on validation images, as in the option
            ``--policy``, such as ``max_f1``; empty where the metric has no threshold.
        metric: Short name of the metric, such as ``recall``.
    """

    subgroup: str
    policy: str
    metric: str
