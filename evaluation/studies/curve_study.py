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
"""Kind of a model: it learns from boxes, from labels, or from labels and some boxes."""


CURVE_METRICS = ("auroc", "average_precision", "localised_sensitivity", "froc_mean")
"""Metrics by which the models are compared; the answer at the head of the page is for the first."""


KINDS: Mapping[Kind, str] = {
    "detector": "detector",
    "classifier": "classifier",
    "mixed": "mixed model",
}
"""Name of each kind in a sentence; the order is that of the colours."""


MAIN: tuple[Kind, Kind] = ("detector", "classifier")
"""The two kinds whose fitted curves are compared with each other."""


_ALPHA = 0.05


_DECIMALS = 6


@dataclass(frozen=True)
class CurveModel:
    """Model of a study with the annotation that it learns from; at most one of each kind.

    Attributes:
        kind: Kind of the model.
        name: Name of the model.
        settings: Settings of the training, for the page.
        note: Sentence about the model, for the page.

    Example:
        >>> CurveModel("classifier", "CheXNet").settings
        ''
    """

    kind: Kind
    name: str
    settings: str = ""
    note: str = ""


@dataclass(frozen=True)
class SizeFigure:
    """Figure of one model at one size.

    Attributes:
        interval: Mean over seeds and folds, with its interval.
        seeds: Figure of each seed, as mean over the folds.

    Example:
        >>> SizeFigure(Interval(0.8, 0.7, 0.9), (0.79, 0.81)).interval.low
        0.7
    """

    interval: Interval
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class SizePoint:
    """Figures of one model that was trained with one share of the data.

    Attributes:
        kind: Kind of the model.
        share: Share of the images for training and validation, in (0, 1].
        n_images: Number of images that the model learns from, as mean over folds and seeds.
        n_boxes: Number of boxes on these images.
        n_boxed: Number of these images whose boxes are complete, or that have no lesion.
        n_positive: Number of these images with the finding.
        figures: Figure of each metric that the model has.

    Example:
        >>> SizePoint("mixed", 0.5, 200, 40, 100, 60, {}).n_grown
        100
    """

    kind: Kind
    share: float
    n_images: float
    n_boxes: float
    n_boxed: float
    n_positive: float
    figures: Mapping[str, SizeFigure]

    @property
    def n_grown(self) -> float:
        """Number of images that grows with the share.

        For the mixed model this is the number of images with boxes, since it learns from all labels
        at every size.
        """
        return self.n_boxed if self.kind == "mixed" else self.n_images


@dataclass(frozen=True)
class Difference:
    """Figure of a first model minus the figure of a second model, on the same test patients.

    Attributes:
        metric: Short name of the metric.
        share: Share of the data that the first model was trained with, in (0, 1].
        first: Kind of the first model.
        second: Kind of the second model.
        gap: Difference with its interval.
        p_value: p-value of no difference; `CurveStudy.compared` corrects it by Holm's method.
        n_images: Number of images of the first model; `CurveStudy.compared` sets it.

    Example:
        >>> gap = Interval(0.1, 0.05, 0.15)
        >>> Difference("auroc", 1.0, "detector", "classifier", gap, 0.01).shown
        True
    """

    metric: str
    share: float
    first: Kind
    second: Kind
    gap: Interval
    p_value: float | None
    n_images: float = math.nan

    @property
    def shown(self) -> bool:
        """True if the interval excludes 0 and the adjusted p-value is below 0.05."""
        return self.gap.excludes_zero and self.p_value is not None and self.p_value < _ALPHA

    @staticmethod
    def with_all_labels(first: Kind, second: Kind) -> bool:
        """Return True if the second model is compared at its largest size.

        This is so for the mixed model against the classifier: the mixed model has all labels at
        every size.

        Args:
            first: Kind of the first model.
            second: Kind of the second model.

        Returns:
            True for the pair mixed and classifier.

        Example:
            >>> Difference.with_all_labels("mixed", "detector")
            False
        """
        return (first, second) == ("mixed", "classifier")


@dataclass(frozen=True)
class CurveStudy:
    """Result of `cxr curve`.

    Attributes:
        data_set: Name of the data set.
        target: Name of the target for people.
        folds: Names of the splits; each size is trained and evaluated in all of them.
        n_seeds: Number of trainings of each model, size and fold.
        models: Models in the order in which they are shown.
        points: Point of every model at every size.
        differences: Differences of two models at every size.
        fits: Fitted curves by metric and model. The curves of one metric were fitted together.
        absent: Reason why there is no figure, by metric and model.
        times: Annotation times of the charts when the page opens.
        commands: Command lines that made the study.
        notes: Sentences on the design and its limits.
        provenance: Versions and ids, as the JSON file stores them.

    Example:
        >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [CurveModel("detector", "A")], [])
        >>> study.metrics
        []
    """

    data_set: str
    target: str
    folds: Sequence[str]
    n_seeds: int
    models: Sequence[CurveModel]
    points: Sequence[SizePoint]
    differences: Sequence[Difference] = ()
    fits: Mapping[str, Mapping[Kind, LearningCurve]] = field(default_factory=dict)
    absent: Mapping[tuple[str, Kind], str] = field(default_factory=dict)
    times: Times = PRESETS[0]
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Metrics that at least one model has, in the order of the page."""
        available = {metric for point in self.points for metric in point.figures}
        return [metric for metric in CURVE_METRICS if metric in available]

    def sizes(self, kind: Kind) -> list[SizePoint]:
        """Return the points of a model, the smallest share first.

        Args:
            kind: Kind of the model.

        Returns:
            The points; empty if the study has no such model.

        Example:
            >>> large = SizePoint("detector", 1.0, 100, 0, 0, 0, {})
            >>> small = SizePoint("detector", 0.5, 50, 0, 0, 0, {})
            >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [], [large, small])
            >>> [point.share for point in study.sizes("detector")]
            [0.5, 1.0]
        """
        return sorted((p for p in self.points if p.kind == kind), key=lambda p: p.share)

    def boxes_per_image(self, kind: Kind) -> float:
        """Return the mean number of boxes that are drawn on an annotated image of a model.

        Args:
            kind: Kind of the model.

        Returns:
            Boxes divided by images, over all sizes; 0 without images.

        Example:
            >>> point = SizePoint("detector", 1.0, 100, 40, 100, 30, {})
            >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [], [point])
            >>> study.boxes_per_image("detector")
            0.4
        """
        images = sum(point.n_images for point in self.sizes(kind))
        return sum(point.n_boxes for point in self.sizes(kind)) / images if images else 0.0

    def fitted(self, metric: str, kind: Kind) -> LearningCurve | None:
        """Return the fitted curve of a model, rounded to six decimals as the page stores it.

        Args:
            metric: Short name of the metric.
            kind: Kind of the model.

        Returns:
            The curve; None if none was fitted.

        Example:
            >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [], [])
            >>> study.fitted("auroc", "detector") is None
            True
        """
        curve = self.fits.get(metric, {}).get(kind)
        if curve is None or curve.line is None:
            return None
        line = round(curve.line[0], _DECIMALS), round(curve.line[1], _DECIMALS)
        return replace(curve, line=line, draws=curve.draws.round(_DECIMALS))

    def seconds_per_image(self, kind: Kind, times: Times | None) -> float:
        """Return the effort of annotating one image for a model.

        Args:
            kind: Kind of the model.
            times: Seconds of annotation; None to count images.

        Returns:
            Seconds for the label and the mean number of boxes; 1 to count images.

        Example:
            >>> point = SizePoint("detector", 1.0, 100, 50, 100, 30, {})
            >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [], [point])
            >>> study.seconds_per_image("detector", Times(2.0, 10.0))
            7.0
        """
        return 1.0 if times is None else times.label + times.box * self.boxes_per_image(kind)

    @property
    def hours_at_hand(self) -> float:
        """Longest annotation time at which both main models were measured, rounded to two digits.

        The number is rounded down.
        """
        ends = [
            self.sizes(kind)[-1].n_images * self.seconds_per_image(kind, self.times) / 3600
            for kind in MAIN
            if self.sizes(kind)
        ]
        shortest = min(ends, default=1.0)
        step = 10.0 ** (math.floor(math.log10(shortest)) - 1)
        return round(math.floor(shortest / step + 1e-9) * step, 6)

    def crossing(self, metric: str, times: Times | None = None) -> Crossing | None:
        """Find the effort at which the curves of detector and classifier cross.

        Args:
            metric: Short name of the metric.
            times: Seconds of annotation; None to count images.

        Returns:
            The crossing in seconds of annotation or in images; None if one of the curves is
            missing.

        Example:
            >>> CurveStudy("NIH", "opacity", ["default"], 1, [], []).crossing("auroc") is None
            True
        """
        first, second = (self.fitted(metric, kind) for kind in MAIN)
        if first is None or second is None:
            return None
        costs = [self.seconds_per_image(kind, times) for kind in MAIN]
        return crossing(first, second, (costs[0], costs[1]))

    def pairs(self, metric: str) -> list[tuple[Kind, Kind]]:
        """Return the pairs of models that are compared by a metric.

        Args:
            metric: Short name of the metric.

        Returns:
            Kinds of the first and the second model, in the order of the differences.

        Example:
            >>> gap = Interval(0.1, 0.05, 0.15)
            >>> row = Difference("auroc", 1.0, "detector", "classifier", gap, 0.01)
            >>> CurveStudy("NIH", "opacity", ["default"], 1, [], [], [row]).pairs("auroc")
            [('detector', 'classifier')]
        """
        of_metric = [row for row in self.differences if row.metric == metric]
        return list(dict.fromkeys((row.first, row.second) for row in of_metric))

    def compared(self, metric: str, first: Kind, second: Kind) -> list[Difference]:
        """Return the differences of two models with p-values that are corrected over all sizes.

        Args:
            metric: Short name of the metric.
            first: Kind of the first model.
            second: Kind of the second model.

        Returns:
            The differences, the smallest size first, with the number of images of the first model.

        Source:
            Holm 1979.

        Example:
            >>> point = SizePoint("detector", 1.0, 100, 40, 100, 30, {})
            >>> gap = Interval(0.1, 0.05, 0.15)
            >>> row = Difference("auroc", 1.0, "detector", "classifier", gap, 0.01)
            >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [], [point], [row])
            >>> study.compared("auroc", "detector", "classifier")[0].n_images
            100
        """
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
        """Return the reason why the two fitted curves allow no conclusion.

        Args:
            metric: Short name of the metric.

        Returns:
            The reason; empty if the curves allow a conclusion, or if one of them is missing.

        Example:
            >>> CurveStudy("NIH", "opacity", ["default"], 1, [], []).unclaimed("auroc")
            ''
        """
        where = self.crossing(metric)
        curves = [self.fitted(metric, kind) for kind in MAIN]
        usable = all(curve and curve.fits and curve.seeds == "random" for curve in curves)
        return "" if where is None or usable else where.reason

    def never_crossing(self, metric: str) -> str:
        """Return the reason why no crossing can be shown, whatever the annotation times are.

        Args:
            metric: Short name of the metric.

        Returns:
            The reason; empty if it depends on the times, or if a crossing is shown.

        Example:
            >>> CurveStudy("NIH", "opacity", ["default"], 1, [], []).never_crossing("auroc")
            ''
        """
        where = self.crossing(metric)
        anywhere = where is not None and where.interval == (0.0, math.inf)
        return where.reason if where and anywhere else self.unclaimed(metric)
