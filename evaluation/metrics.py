"""Metrics of a comparison: one record for each, in the order of the tables."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar

import numpy as np

from cxr_compare.evaluation.statistics.arrays import Floats, undefined_is_nan

P = ParamSpec("P")
T = TypeVar("T")
Outcomes = tuple[int, int, int, int]
"""Outcomes tp, fp, tn and fn: 1 for those that count."""
OF_CLASSES: tuple[Outcomes, Outcomes] = ((1, 0, 0, 1), (0, 1, 1, 0))
"""Outcomes of the positive and of the negative images."""
CALLED_RIGHTLY: Outcomes = (1, 0, 1, 0)
Family = Literal["ranking", "decision", "place", "calibration", "count"]


@dataclass(frozen=True)
class Metric:
    """One metric: its names, and what it needs.

    Attributes:
        formula: Function of the counts tp, fp, tn and fn; None for figures of scores or boxes.
        share_of: Outcomes of whose images the metric is the share that is called rightly.
        lowest: Lowest value that is possible.
        alone: True if the metric can decide which system is better.
        compared: False if it has no differences and no image-blind baseline unless it decides.
        of_class: Label of the images of which it is a share; None if the rarer class limits it.
        needs: What it needs of the system's answer beside scores.
        called: True for a point or boxes of images that are called positive.
        undefined: When there is no such figure, as a clause.
        interval: How its interval is made: of a score by `ranks` (Obuchowski), of mean `losses`, of
            the `hits` of points, of `points` (resampled, exact at 0 and 1), of the `overlap` of the
            calls and the positive images, of both `classes`; empty for the rule of its family.
        averages_precision: True if few positive images make it too high on average.
        mean: True if it has a mean over findings.
        claimed: True if systems are compared in it beside the primary one.
    """

    name: str
    title: str
    family: Family
    formula: Callable[..., Floats] | None = None
    share_of: Outcomes | None = None
    lowest: float = 0.0
    alone: bool = True
    compared: bool = True
    of_class: int | None = None
    needs: Literal["", "point", "boxes"] = ""
    called: bool = False
    undefined: str = "there is no image"
    interval: Literal["", "ranks", "losses", "hits", "points", "overlap", "classes"] = ""
    averages_precision: bool = False
    mean: bool = False
    claimed: bool = False

    @property
    def boxed(self) -> bool:
        """True if it is computed on images whose lesions all have boxes."""
        return self.needs != ""

    @property
    def of_places(self) -> bool:
        """True if it says where lesions are, whether the image is called positive or not."""
        return self.family == "place" and (not self.called or self.of_called_boxes)

    @property
    def of_called_boxes(self) -> bool:
        """True if the boxes of a score of at least the threshold are the decision."""
        return self.called and self.needs == "boxes"

    @property
    def at_threshold(self) -> bool:
        """True if each policy has its own figure."""
        return self.called or self.family in ("decision", "count")

    @property
    def inside(self) -> str:
        """Name of the metric inside a sentence."""
        first, rest = self.title[:1], self.title[1:]
        keeps = self.title.split()[0].rstrip(",").upper() == self.title.split()[0].rstrip(",")
        return self.title if keeps else first.lower() + rest


ONE_CLASS = "no image is positive or none is negative"
"""When there is no figure of both classes."""
_NO_POSITIVE = "no image is positive"
NO_BOX = "no image that is evaluated has a true box"
"""When there is no figure of points or boxes."""
_DECISIONS = (
    Metric(
        "accuracy",
        "Accuracy",
        "decision",
        lambda tp, fp, tn, fn: (tp + tn) / (tp + fp + tn + fn),
        (1, 1, 1, 1),
        claimed=True,
    ),
    Metric(
        "precision",
        "Precision",
        "decision",
        lambda tp, fp, _tn, _fn: tp / (tp + fp),
        (1, 1, 0, 0),
        alone=False,
        undefined="no image is called positive",
        claimed=True,
    ),
    Metric(
        "recall",
        "Sensitivity (recall)",
        "decision",
        lambda tp, _fp, _tn, fn: tp / (tp + fn),
        OF_CLASSES[0],
        alone=False,
        of_class=1,
        undefined=_NO_POSITIVE,
        claimed=True,
    ),
    Metric(
        "specificity",
        "Specificity",
        "decision",
        lambda _tp, fp, tn, _fn: tn / (tn + fp),
        OF_CLASSES[1],
        alone=False,
        of_class=0,
        undefined="no image is negative",
        claimed=True,
    ),
    Metric(
        "npv",
        "Negative predictive value",
        "decision",
        lambda _tp, _fp, tn, fn: tn / (tn + fn),
        (0, 0, 1, 1),
        alone=False,
        undefined="no image is called negative",
    ),
    Metric(
        "f1",
        "F1",
        "decision",
        lambda tp, fp, _tn, fn: 2 * tp / (2 * tp + fp + fn),
        undefined="no image is positive, and none is called positive",
        interval="overlap",
        claimed=True,
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        "decision",
        lambda tp, fp, tn, fn: (tp / (tp + fn) + tn / (tn + fp)) / 2,
        undefined=ONE_CLASS,
        interval="classes",
    ),
    Metric(
        "mcc",
        "MCC",
        "decision",
        lambda tp, fp, tn, fn: (
            (tp * tn - fp * fn)
            / ((tp + fn) ** 0.5 * (tn + fp) ** 0.5 * (tp + fp) ** 0.5 * (tn + fn) ** 0.5)
        ),
        lowest=-1.0,
        undefined=f"{ONE_CLASS}, or all images are called alike",
    ),
)
RATES = {"1_8": 1 / 8, "1_4": 1 / 4, "1_2": 1 / 2, "1": 1.0, "2": 2.0, "4": 4.0, "8": 8.0}
"""False positives per image at which FROC is reported, by name (LUNA16: Setio et al. 2017)."""
_PLACES = (
    Metric(
        "pointing_accuracy",
        "Pointing accuracy",
        "place",
        of_class=1,
        needs="point",
        undefined=NO_BOX,
        interval="points",
    ),
    Metric(
        "localised_sensitivity",
        "Localised sensitivity",
        "place",
        alone=False,
        of_class=1,
        needs="point",
        called=True,
        undefined=NO_BOX,
        interval="hits",
        claimed=True,
    ),
    Metric(
        "ap50",
        "AP50",
        "place",
        needs="boxes",
        undefined=NO_BOX,
        averages_precision=True,
        mean=True,
        claimed=True,
    ),
    Metric(
        "ap",
        "AP[.5:.95]",
        "place",
        needs="boxes",
        undefined=NO_BOX,
        averages_precision=True,
        claimed=True,
    ),
    Metric(
        "froc_mean",
        "FROC, mean",
        "place",
        needs="boxes",
        undefined=NO_BOX,
        mean=True,
        claimed=True,
    ),
    *(
        Metric(
            f"froc_at_{name}",
            f"FROC at {name.replace('_', '/')}",
            "place",
            compared=False,
            needs="boxes",
            undefined=NO_BOX,
        )
        for name in RATES
    ),
    *(
        Metric(
            f"box_{name}_50",
            f"{name.capitalize()} of boxes (IoU 0.5)",
            "place",
            alone=name == "f1",
            of_class=None if name == "precision" else 1,
            needs="boxes",
            called=True,
            undefined="no box is called" if name == "precision" else NO_BOX,
            interval="overlap" if name == "f1" else "",
            claimed=name == "f1",
        )
        for name in ("f1", "precision", "recall")
    ),
    Metric(
        "mean_iou",
        "Mean IoU of lesions",
        "place",
        of_class=1,
        needs="boxes",
        called=True,
        undefined=NO_BOX,
        claimed=True,
    ),
)
BOX_F1 = "box_f1_50"
"""Primary figure of boxes if those of a system have no scores."""
_COUNTS = {
    "tp": "True positives",
    "fp": "False positives",
    "tn": "True negatives",
    "fn": "False negatives",
}
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "auroc",
            "AUROC",
            "ranking",
            undefined=ONE_CLASS,
            interval="ranks",
            mean=True,
            claimed=True,
        ),
        Metric(
            "average_precision",
            "Average precision of images",
            "ranking",
            undefined=_NO_POSITIVE,
            averages_precision=True,
            mean=True,
            claimed=True,
        ),
        *_DECISIONS,
        *_PLACES,
        Metric(
            "brier",
            "Brier score",
            "calibration",
            alone=False,
            interval="losses",
        ),
        *(Metric(name, title, "count", alone=False) for name, title in _COUNTS.items()),
    )
}
FROC = tuple(name for name in METRICS if name.startswith("froc"))
_OTHERS = {
    "lesion_recall": "Lesions found (IoU of 0.2)",
}


def metric_title(name: str) -> str:
    """Return the name of a metric for readers, also of those in groups alone."""
    return METRICS[name].title if name in METRICS else _OTHERS.get(name, name.replace("_", " "))


def claimed(*, of_boxes: bool) -> list[str]:
    """Return the figures in which systems are compared beside the primary one."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.claimed and (metric.needs == "boxes") == of_boxes
    ]


def rates(counts: Mapping[str, Floats]) -> dict[str, Floats]:
    """Compute every metric of the four counts of a confusion matrix; NaN where undefined."""
    numbers = [np.asarray(counts[name], dtype=np.float64) for name in _COUNTS]
    with undefined_is_nan():
        values = {
            name: metric.formula(*numbers) for name, metric in METRICS.items() if metric.formula
        }
    return {name: np.where(np.isfinite(value), value, np.nan) for name, value in values.items()}


def rates_of(counts: Floats) -> dict[str, Floats]:
    """Compute `rates` of counts in one array, shape ``(..., 4)``: tp, fp, tn and fn."""
    return rates(dict(zip(_COUNTS, np.moveaxis(counts, -1, 0), strict=True)))


def with_reason(metric: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a public function warn why a figure is undefined, where it returns None for it.

    Of a function that returns several figures by name, each that is undefined is named.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> T:
            result = function(*args, **kwargs)
            figures = result if isinstance(result, dict) else {metric: result}
            absent = [name for name, value in figures.items() if value is None]
            if absent:
                reasons = (f"{name} is undefined: {METRICS[name].undefined}" for name in absent)
                warnings.warn("; ".join(reasons), UserWarning, stacklevel=2)
            return result

        return warned

    return decorate
