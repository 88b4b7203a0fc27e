"""Closed intervals of the figures at a threshold, such as sensitivity, F1 and MCC.

The interval of a single figure is that of the printed threshold: how exactly these test patients
show the figure at this threshold. It says nothing about other thresholds that other validation
patients would have chosen; paired differences of systems, which are resampled, include that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.metrics.metric import Counts, Metric, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS, family
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.clustered_counts import (
    ShareParts,
    confusion_by_patient,
    function_over_seeds,
    rarer_class_inflation,
    share_over_seeds,
)
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

_JACCARD = "positive_or_called"
_OUTCOMES = {
    "all": (1, 1, 1, 1),
    "positive": (1, 0, 0, 1),
    "negative": (0, 1, 1, 0),
    "called": (1, 1, 0, 0),
    "not_called": (0, 0, 1, 1),
    _JACCARD: (1, 1, 0, 1),
}
"""Outcomes (tp, fp, tn, fn) of the images of which a figure is a share."""
_OF_BOTH_CLASSES = ("called", "not_called", _JACCARD)
"""Denominators whose share of positive images varies with the patients who are drawn."""
_RIGHT = np.array([1, 0, 1, 0])
"""Outcomes of right decisions: each share is that of the right decisions."""
_NO_END = "no interval: it has no upper end"
_NEGLIGIBLE = 1e-6
"""Difference to 1 below which the share R / (1 + R) of a ratio R gives no end."""


class ClosedFigure(NamedTuple):
    """Interval of a figure at a threshold; `exact` for that of a share of 0 or 1."""

    interval: Interval
    exact: bool = False


def is_closed(key: MetricKey) -> bool:
    """Return True for figures at a threshold, whose interval is a closed formula."""
    return bool(key.policy) and key.metric not in family("counts")


def closed_figure(
    members: Sequence[EvaluatedModel], key: MetricKey, value: float, chosen: npt.NDArray[np.bool_]
) -> ClosedFigure:
    """Compute the interval of a figure at the thresholds of its models.

    `members` are the models of one system, one for each training seed; `value` is the figure, the
    mean over seeds; `chosen` is True for the images that count, shape ``(N,)``. Without an
    interval, the note says why.
    """
    metric = METRICS[key.metric]
    if "point" not in metric.needs:
        counts = [confusion(model, key.policy, chosen) for model in members]
        return figure_of_counts(metric, value, counts)
    localised = [_localised_share(model, key.policy, chosen) for model in members]
    estimate = share_over_seeds(localised)
    return ClosedFigure(interval_of(value, estimate), estimate.exact)


def figure_of_counts(metric: Metric, value: float, seeds: Sequence[Floats]) -> ClosedFigure:
    """Compute the interval of a figure that follows from the four counts of each patient.

    `value` is the figure, the mean over training seeds. `seeds` has the counts by patient for each
    training seed, shape ``(patients, 4)``.
    """
    if metric.share_of is not None:
        estimate = share_over_seeds([_share_right(counts, metric.share_of) for counts in seeds])
        return ClosedFigure(interval_of(value, estimate), estimate.exact)
    if metric.name == "f1":  # F1 = 2 J / (1 + J), J = TP / (TP + FP + FN)
        estimate = share_over_seeds([_share_right(counts, _JACCARD) for counts in seeds])
        return ClosedFigure(interval_of(value, estimate, _f1_of_jaccard), estimate.exact)
    scale = _scale_of(metric)
    inflation = rarer_class_inflation(seeds[0]) if metric.name == "mcc" else 1.0
    estimate = function_over_seeds(scale.formula, seeds, inflation)
    return ClosedFigure(interval_of(value, estimate, scale.figure), estimate.exact)


def _f1_of_jaccard(share: float) -> float:
    return 2 * share / (1 + share)


def share_parts(
    members: Sequence[EvaluatedModel], key: MetricKey, chosen: npt.NDArray[np.bool_]
) -> list[ShareParts] | None:
    """Return a figure at a threshold with the patients' contributions, one item for each seed.

    The arguments are those of `closed_figure`. None if the figure is no share of images.
    """
    metric = METRICS[key.metric]
    share_of = metric.share_of
    if share_of is None:
        return None
    if "point" in metric.needs:
        return [_localised_share(model, key.policy, chosen) for model in members]
    return [_share_right(confusion(model, key.policy, chosen), share_of) for model in members]


def confusion(model: EvaluatedModel, policy: str, chosen: npt.NDArray[np.bool_]) -> Floats:
    """Count the four outcomes by patient on the chosen images, shape ``(patients, 4)``."""
    images = model.images
    called = _called(model, policy)[chosen]
    patients = images.patients[chosen]
    return confusion_by_patient(images.y_true[chosen], called, patients, images.n_patients)


def _share_right(counts: Floats, of: str) -> ShareParts:
    """Return the share of right decisions among images, such as the ``positive`` ones."""
    outcomes = np.array(_OUTCOMES[of])
    inflation = rarer_class_inflation(counts) if of in _OF_BOTH_CLASSES else 1.0
    return ShareParts.from_sums(counts @ (outcomes * _RIGHT), counts @ outcomes, inflation)


def _localised_share(
    model: EvaluatedModel, policy: str, chosen: npt.NDArray[np.bool_]
) -> ShareParts:
    """Return the share of boxed positive images that are called with a point on a lesion."""
    images = model.images
    boxed = images.y_true & images.is_boxed & chosen
    hit = boxed & _called(model, policy)
    if model.localised is not None:
        hit &= model.localised
    sums = per_cluster(np.column_stack([hit, boxed]), images.patients, images.n_patients)
    return ShareParts.from_sums(sums[:, 0], sums[:, 1])


def _called(model: EvaluatedModel, policy: str) -> npt.NDArray[np.bool_]:
    called = model.called(policy)
    assert called is not None  # noqa: S101 - there is a figure, so there is a threshold
    return called


class _Scale(NamedTuple):
    """A figure of counts as a value in [0, 1], and the way back."""

    formula: Callable[[Floats], Floats]
    figure: Callable[[float], float]


def _scale_of(metric: Metric) -> _Scale:
    """Return the scale on which a figure is in [0, 1]: a ratio R of rates as R / (1 + R)."""

    def value(counts: Floats) -> Floats:
        assert metric.formula is not None  # noqa: S101 - it follows from the four counts
        return np.asarray(metric.formula(Counts(*np.moveaxis(counts, -1, 0))))

    if metric.unbounded:
        return _Scale(
            lambda counts: 1 - 1 / (1 + value(counts)),
            lambda share: share / (1 - share) if share < 1 - _NEGLIGIBLE else np.inf,
        )
    span = 1 - metric.lowest
    return _Scale(
        lambda counts: (value(counts) - metric.lowest) / span,
        lambda share: metric.lowest + span * share,
    )


def interval_of(
    value: float, estimate: ClusteredEstimate, figure: Callable[[float], float] = float
) -> Interval:
    """Return a figure with the interval of its estimate on a scale of [0, 1].

    `figure` is a rising function from this scale to the figure. The interval contains the figure;
    without one, the note says why.
    """
    ends = estimate.interval_at(LEVEL)
    if ends is None or np.isnan(value):
        return Interval(value, note=estimate.note)
    low, high = (figure(end) for end in ends)
    if not np.isfinite(high):
        return Interval(value, note=_NO_END)
    return Interval(value, min(low, value), max(high, value))
