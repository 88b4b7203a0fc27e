"""The result of a learning-curve study: points, differences, fitted curves and crossings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.studies.curve.learning_curve import Crossing, LearningCurve, crossing

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
    """A model in a learning-curve study, with its description for the result page.

    Attributes:
        kind: ``detector``, ``classifier`` or ``mixed`` (a detector that starts from the
            classifier's weights).
        name: Name of the model, such as "RetinaNet".
        settings: Settings of the training as a text, such as the number of epochs; may be empty.
        note: A further sentence about the model; may be empty.
    """

    kind: Kind
    name: str
    settings: str = ""
    note: str = ""


@dataclass(frozen=True)
class SizeFigure:
    """Value of one metric for one model at one size of the training data.

    `interval` is the mean over training seeds and splits, with its 95 % interval; `seeds` has the
    value of each seed, as a mean over the splits, and is empty if not known.
    """

    interval: Interval
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class SizePoint:
    """Results of one model that was trained with one share of the training data.

    Attributes:
        share: Share of the training and validation patients that were used, in (0, 1].
        n_images: Number of labelled images for training and validation, as mean over splits and
            training seeds.
        n_boxes: Number of boxes drawn on these images.
        n_boxed: Number of these images on which all lesions have boxes, or that have no lesion.
        n_positive: Number of these images with the disease.
        figures: Value of each metric by its short name, such as ``auroc``; without metrics that the
            model lacks.
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
        """Number of annotated images that grows with the share of the training data.

        For the mixed model (a detector that starts from the classifier's weights) it is the number
        of images with boxes, because this model learns from all labels at every size. For the other
        models it is the number of labelled images.
        """
        return self.n_boxed if self.kind == "mixed" else self.n_images


@dataclass(frozen=True)
class Difference:
    """A metric of a first model minus that of a second model, on the same test patients.

    Attributes:
        metric: Short name of the metric, such as ``auroc``.
        share: Share of the training data that the first model was trained with, in (0, 1].
        gap: Difference with its 95 % interval.
        p_value: p-value of the hypothesis of no difference; None if it cannot be computed. In the
            results of `CurveStudy.compared` it is corrected for several sizes by Holm's method.
        n_images: Number of images that the first model was trained on; NaN until
            `CurveStudy.compared` sets it.
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
        """True if the difference is statistically shown.

        Its interval then excludes 0, and its p-value, corrected for several comparisons, is below
        0.05.
        """
        return self.gap.excludes_zero and self.p_value is not None and self.p_value < _ALPHA

    @staticmethod
    def with_all_labels(first: Kind, second: Kind) -> bool:
        """Return True if the second model is trained on all data, whatever the first one has.

        This is so for the mixed model against the classifier, because the mixed model has all
        labels at every size.
        """
        return (first, second) == ("mixed", "classifier")


@dataclass(frozen=True)
class CurveStudy:
    """Result of the command `cxr curve`: learning curves of models on one data set.

    A learning curve shows how good a model is if it is trained on more and more annotated images. A
    split is a division of the patients into training, validation and test patients.

    Attributes:
        target: Name of the disease finding that the models detect, as it is printed, such as "lung
            opacity".
        folds: Names of the splits; models of each size are trained and evaluated in each of them.
        n_seeds: Number of trainings of each model at each size in each split.
        models: Descriptions of the models in the order in which they are shown.
        points: Results of every model at every size.
        differences: Differences of two models at every size.
        fits: Fitted curves, by short name of the metric and then by kind of model. The curves of
            one metric were fitted together.
        absent: Reason why a model lacks a metric. The key has the short name of the metric and the
            kind of model.
        commands: Command lines that made the study.
        notes: Sentences on the design and its limits.
        provenance: Versions of programs and ids of the data, as the JSON file stores them.
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
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Short names of the metrics that at least one model has, in the order of the page."""
        available = {metric for point in self.points for metric in point.figures}
        return [metric for metric in CURVE_METRICS if metric in available]

    def sizes(self, kind: Kind) -> list[SizePoint]:
        """Return the results of a model at each size of the training data, the smallest first.

        The list is empty if the study has no such model.
        """
        return sorted((p for p in self.points if p.kind == kind), key=lambda p: p.share)

    def fitted(self, metric: str, kind: Kind) -> LearningCurve | None:
        """Return the fitted learning curve of a model for a metric; None if none was fitted.

        The parameters of the curve are rounded to six decimals, as the page stores them.
        """
        curve = self.fits.get(metric, {}).get(kind)
        if curve is None or curve.line is None:
            return None
        line = round(curve.line[0], _DECIMALS), round(curve.line[1], _DECIMALS)
        return replace(curve, line=line, draws=curve.draws.round(_DECIMALS))

    def crossing(self, metric: str) -> Crossing | None:
        """Find the number of images at which the curves of detector and classifier cross.

        Efforts are in annotated images. None if one of the curves is missing.
        """
        first, second = (self.fitted(metric, kind) for kind in MAIN)
        if first is None or second is None:
            return None
        return crossing(first, second)

    def pairs(self, metric: str) -> list[tuple[Kind, Kind]]:
        """Return the kinds of each two models that are compared by a metric."""
        of_metric = [row for row in self.differences if row.metric == metric]
        return list(dict.fromkeys((row.first, row.second) for row in of_metric))

    def compared(self, metric: str, first: Kind, second: Kind) -> list[Difference]:
        """Return the differences of two models with p-values that are corrected over all sizes.

        The differences are first model minus second, the smallest size first, with the number of
        training images of the first model.

        Source:
            Holm 1979.
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
        """Return the reason why the learning curves of detector and classifier allow no conclusion.

        They allow a conclusion on their crossing only if both models have several trainings at each
        size, and a power law fits the points of both.

        The reason is empty if they allow a conclusion, or if one of them is missing.
        """
        where = self.crossing(metric)
        curves = [self.fitted(metric, kind) for kind in MAIN]
        usable = all(curve and curve.fits and curve.seeds == "random" for curve in curves)
        return "" if where is None or usable else where.reason

    def never_crossing(self, metric: str) -> str:
        """Return why the study cannot show that the curves of detector and classifier cross.

        The reason is empty if it depends on the measured range, or if a crossing is shown.
        """
        where = self.crossing(metric)
        anywhere = where is not None and where.interval == (0.0, math.inf)
        return where.reason if where and anywhere else self.unclaimed(metric)
