"""The result of a learning-curve study: points, differences, fitted curves and crossings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cxr_compare.evaluation.compare.holm import holm
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.statistics.learning_curve import Crossing, LearningCurve, crossing
from cxr_compare.evaluation.studies.annotation_times import PRESETS, Times

Kind = Literal["detector", "classifier", "mixed"]


CURVE_METRICS = ("auroc", "average_precision", "localised_sensitivity", "froc_mean")
"""What the models are compared by; the answer at the head of the page is the first's."""


KINDS: Mapping[Kind, str] = {
    "detector": "detector",
    "classifier": "classifier",
    "mixed": "mixed model",
}
"""Each model in a sentence, and the order of colours."""


MAIN: tuple[Kind, Kind] = ("detector", "classifier")
"""The two that the curves are held against each other of."""


_ALPHA = 0.05


_DECIMALS = 6


@dataclass(frozen=True)
class CurveModel:
    """Model of a study with the annotation that it learns from; at most one of each kind."""

    kind: Kind
    name: str
    settings: str = ""
    note: str = ""


@dataclass(frozen=True)
class SizeFigure:
    """Figure of one model at one size: mean over seeds and folds, and each seed's figure."""

    interval: Interval
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class SizePoint:
    """One model at one size."""

    kind: Kind
    share: float  # share of the images for training and validation
    n_images: float  # number of images that it learns from, mean over folds and seeds
    n_boxes: float  # drawn on them
    n_boxed: float  # images whose boxes are complete, or without a lesion
    n_positive: float  # images
    figures: Mapping[str, SizeFigure]  # by metric

    @property
    def n_grown(self) -> float:
        """Number of images that grow with the share: those with boxes where all have labels."""
        return self.n_boxed if self.kind == "mixed" else self.n_images


@dataclass(frozen=True)
class Difference:
    """First model minus the second at one size, on the same test patients."""

    metric: str
    share: float
    first: Kind
    second: Kind
    gap: Interval
    p_value: float | None  # p-value; that of `CurveStudy.compared` by Holm over all sizes
    n_images: float = math.nan  # images of the first model, from `CurveStudy.compared`

    @property
    def shown(self) -> bool:
        """True if the interval excludes 0 and the adjusted p-value is below 0.05."""
        return self.gap.excludes_zero and self.p_value is not None and self.p_value < _ALPHA

    @staticmethod
    def with_all_labels(first: Kind, second: Kind) -> bool:
        """Return True if the second model has all labels at each size, as against mixed."""
        return (first, second) == ("mixed", "classifier")


@dataclass(frozen=True)
class CurveStudy:
    """Result of `cxr curve`."""

    data_set: str  # display name
    target: str  # display name
    folds: Sequence[str]  # splits; each size is trained and evaluated in all
    n_seeds: int  # trainings of each model, size and fold
    models: Sequence[CurveModel]  # in the order to show them
    points: Sequence[SizePoint]  # every model at every size
    differences: Sequence[Difference] = ()
    # By metric; all models of one from one call.
    fits: Mapping[str, Mapping[Kind, LearningCurve]] = field(default_factory=dict)
    # By metric and model, why there is no figure.
    absent: Mapping[tuple[str, Kind], str] = field(default_factory=dict)
    times: Times = PRESETS[0]  # for the charts as they are drawn first
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Metrics that any model has, in the order of the page."""
        available = {metric for point in self.points for metric in point.figures}
        return [metric for metric in CURVE_METRICS if metric in available]

    def sizes(self, kind: Kind) -> list[SizePoint]:
        """Return the points of a model, the smallest first."""
        return sorted((p for p in self.points if p.kind == kind), key=lambda p: p.share)

    def boxes_per_image(self, kind: Kind) -> float:
        """Return the mean number of boxes drawn on an annotated image of a model."""
        images = sum(point.n_images for point in self.sizes(kind))
        return sum(point.n_boxes for point in self.sizes(kind)) / images if images else 0.0

    def fitted(self, metric: str, kind: Kind) -> LearningCurve | None:
        """Return a model's curve with six decimals, as the page stores it; None without a line."""
        curve = self.fits.get(metric, {}).get(kind)
        if curve is None or curve.line is None:
            return None
        line = round(curve.line[0], _DECIMALS), round(curve.line[1], _DECIMALS)
        return replace(curve, line=line, draws=curve.draws.round(_DECIMALS))

    def seconds_per_image(self, kind: Kind, times: Times | None) -> float:
        """Return the seconds for an annotated image of a model; 1 to count images."""
        return 1.0 if times is None else times.label + times.box * self.boxes_per_image(kind)

    @property
    def hours_at_hand(self) -> float:
        """Longest time at which both main models were measured, rounded down to two digits."""
        ends = [
            self.sizes(kind)[-1].n_images * self.seconds_per_image(kind, self.times) / 3600
            for kind in MAIN
            if self.sizes(kind)
        ]
        shortest = min(ends, default=1.0)
        step = 10.0 ** (math.floor(math.log10(shortest)) - 1)
        return round(math.floor(shortest / step + 1e-9) * step, 6)

    def crossing(self, metric: str, times: Times | None = None) -> Crossing | None:
        """Return where detector and classifier cross, in images or seconds; None without curves."""
        first, second = (self.fitted(metric, kind) for kind in MAIN)
        if first is None or second is None:
            return None
        costs = [self.seconds_per_image(kind, times) for kind in MAIN]
        return crossing(first, second, (costs[0], costs[1]))

    def pairs(self, metric: str) -> list[tuple[Kind, Kind]]:
        """Return the compared pairs of models, in the order of the differences."""
        of_metric = [row for row in self.differences if row.metric == metric]
        return list(dict.fromkeys((row.first, row.second) for row in of_metric))

    def compared(self, metric: str, first: Kind, second: Kind) -> list[Difference]:
        """Return the differences of two models, the smallest size first, with Holm's p-values."""
        images = {point.share: point.n_grown for point in self.sizes(first)}
        pair = (metric, first, second)
        rows = [row for row in self.differences if (row.metric, row.first, row.second) == pair]
        rows.sort(key=lambda row: row.share)
        adjusted = holm([row.p_value for row in rows])
        return [
            replace(row, p_value=p, n_images=images[row.share])
            for row, p in zip(rows, adjusted, strict=True)
        ]

    def unclaimed(self, metric: str) -> str:
        """Return the reason why the two fitted curves allow no conclusion; empty if they may."""
        where = self.crossing(metric)
        curves = [self.fitted(metric, kind) for kind in MAIN]
        usable = all(curve and curve.fits and curve.seeds == "random" for curve in curves)
        return "" if where is None or usable else where.reason

    def never_crossing(self, metric: str) -> str:
        """Return the reason why no crossing is shown at any times; empty if it depends on them."""
        where = self.crossing(metric)
        anywhere = where is not None and where.interval == (0.0, math.inf)
        return where.reason if where and anywhere else self.unclaimed(metric)
