"""Calibration of scores to probabilities: temperature, Platt scaling or an isotonic curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic, sigmoid

CLIP = 1e-4
"""Scores are limited to [CLIP, 1 - CLIP] where a logarithm is taken of them, nowhere else."""
CalibrationMethod = Literal["none", "temperature", "platt", "isotonic"]
METHODS: tuple[CalibrationMethod, ...] = ("none", "temperature", "platt", "isotonic")
"""All methods, the simpler first: among equals the earlier is chosen."""
_STEEPEST = 100.0
"""A temperature lies between 1 / _STEEPEST and _STEEPEST."""


def clipped_logit(scores: npt.ArrayLike) -> Floats:
    """Compute the log-odds (logit) of scores of any shape, after limiting them to [0.0001, 0.9999].

    The limits keep the log-odds of the scores 0 and 1 finite.

    Example:
        >>> clipped_logit([0.0, 0.5, 1.0]).round(2).tolist()
        [-9.21, 0.0, 9.21]
    """
    clipped = np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


@dataclass(frozen=True)
class RawScores:
    """Calibration of method ``none``: the score itself is taken as the probability of disease."""

    method: Literal["none"] = "none"

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """Return the scores as float64, unchanged."""
        return np.asarray(scores, dtype=np.float64)


@dataclass(frozen=True)
class PlattScaling:
    """Calibration ``probability = sigmoid(slope * logit(score) + intercept)`` of image scores.

    Temperature scaling is the same formula with an intercept of 0 and ``slope = 1 / temperature``.
    An image in which a detector finds no box has the score 0. The log-odds of this score are
    unknown, so these images take no part in the fit of slope and intercept, and their score has a
    separate probability.

    Attributes:
        slope: Factor of the logit of the score.
        intercept: Log-odds of the probability where the logit of the score is 0.
        method: Name of the method that fitted slope and intercept: ``platt`` or ``temperature``.
        no_box: Probability of an image with the score 0 (no box); no other score gets a lower
            probability. None if no validation image had a score of 0.

    Example:
        >>> PlattScaling(1.0, 0.0, no_box=0.1).probability([0.0, 0.05, 0.5]).round(3).tolist()
        [0.1, 0.1, 0.5]
    """

    slope: float
    intercept: float
    method: Literal["platt", "temperature"] = "platt"
    no_box: float | None = None

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """Compute the calibrated probability of the positive class, in the shape of the scores."""
        raw = np.asarray(scores, dtype=np.float64)
        probability = sigmoid(self.slope * clipped_logit(raw) + self.intercept)
        if self.no_box is None:
            return probability
        return np.where(raw == 0, self.no_box, np.maximum(probability, self.no_box))


@dataclass(frozen=True)
class IsotonicScaling:
    """Calibration by a rising curve of straight lines between points (isotonic regression).

    Below the first and above the last point, called knots, the curve is level. It keeps the order
    of the scores. Scores between two knots of equal probability get the same probability.

    Attributes:
        scores: Score at each knot, in rising order.
        probabilities: Probability at each knot, never falling.

    Example:
        >>> IsotonicScaling((0.25, 0.75), (0.0, 0.5)).probability([0.0, 0.5, 1.0]).tolist()
        [0.0, 0.25, 0.5]
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    method: Literal["isotonic"] = "isotonic"

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """Compute the calibrated probability of the positive class, in the shape of the scores."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)


Calibration = RawScores | PlattScaling | IsotonicScaling
"""Fitted calibration: ``probability`` applies it, and ``method`` names it."""


def fit_calibration(
    method: CalibrationMethod, y_true: npt.ArrayLike, y_score: npt.ArrayLike
) -> Calibration | None:
    """Fit a calibration, which turns scores into probabilities, with a method given by its name.

    None if all labels are 0 or all are 1; the method ``none`` never gives None. A score of 0 is
    that of an image in which a detector found no box. InputError for an unknown method, and for a
    label or score that is missing, invalid or of another shape.

    Source:
        Guo, Pleiss, Sun and Weinberger 2017 (temperature); Platt 2000; Zadrozny and Elkan 2002
        (isotonic).
    """
    if method not in METHODS:
        raise InputError(f"unknown calibration {method!r}: use {', '.join(METHODS)}")
    if method == "none":
        return RawScores()
    fits = {"temperature": _fit_temperature, "platt": fit_platt, "isotonic": _fit_isotonic}
    fitted: Calibration | None = fits[method](y_true, y_score)
    return fitted


def _fit_temperature(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> PlattScaling | None:
    """Fit the temperature with the least log loss (Guo, Pleiss, Sun and Weinberger 2017)."""
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        return None
    from scipy.optimize import brentq

    boxed = scores > 0
    logits = clipped_logit(scores[boxed])
    labels = truth[boxed]

    def gradient(slope: float) -> float:
        return float(((sigmoid(slope * logits) - labels) * logits).sum())

    least = 1 / _STEEPEST
    most = _STEEPEST
    if gradient(least) >= 0:
        slope = least
    elif gradient(most) <= 0:
        slope = most
    else:
        slope = float(brentq(gradient, least, most, xtol=1e-14, rtol=1e-14))
    return _with_no_box(PlattScaling(slope, 0.0, "temperature"), truth, scores)


def _fit_isotonic(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> IsotonicScaling | None:
    """Fit the rising step curve with the least squared error, its steps joined by straight lines.

    Source:
        Zadrozny and Elkan 2002; scikit-learn computes it by pooling adjacent violators.
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        return None
    from sklearn.isotonic import IsotonicRegression

    fit = IsotonicRegression(y_min=0.0, y_max=1.0).fit(scores, truth.astype(np.float64))
    return IsotonicScaling(tuple(fit.X_thresholds_.tolist()), tuple(fit.y_thresholds_.tolist()))


def fit_platt(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> PlattScaling | None:
    """Fit Platt scaling, ``probability = sigmoid(slope * logit(score) + intercept)``, to labels.

    The labels are smoothed as Platt does, so that the fit always exists; None if all labels are 0
    or all are 1. The curve never falls: if the maximum-likelihood slope is negative, the slope is
    set to 0 and the curve is level at the smoothed share of positives. Scores of 0 (images in which
    a detector found no box) have a separate probability: the smoothed share of positives among
    them, pooled with the images of lower probability so that the order of scores is kept.

    Source:
        Platt 2000; Ayer et al. 1955, for pooling adjacent violators.

    Example:
        >>> scaling = fit_platt([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9])
        >>> scaling.probability([0.1, 0.9]).round(2).tolist()
        [0.24, 0.82]
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        return None
    boxed = scores > 0
    targets = _smoothed(truth)
    design = np.column_stack([clipped_logit(scores[boxed]), np.ones(int(boxed.sum()))])
    start = np.array([[0.0, np.log(targets.mean() / (1 - targets.mean()))]])
    fit = fit_logistic(
        design, np.ones((1, len(design))), (targets[boxed] @ design)[None], start=start
    )
    slope, intercept = fit.coefficients[0].tolist()
    if slope < 0:
        share = targets[boxed].mean()
        slope = 0.0
        intercept = float(np.log(share / (1 - share)))
    return _with_no_box(PlattScaling(slope, intercept), truth, scores)


def _smoothed(truth: npt.NDArray[np.bool_]) -> Floats:
    """Return Platt's smoothed labels, which lie strictly between 0 and 1."""
    n_positive = int(truth.sum())
    n_negative = int((~truth).sum())
    return np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))


def _with_no_box(
    scaling: PlattScaling, truth: npt.NDArray[np.bool_], scores: Floats
) -> PlattScaling:
    """Add the probability of a score of 0, if there are such scores.

    The share of positives among the images with this score is pooled with the lowest of the other
    probabilities as long as these lie below the pooled share; the result is the lowest of all such
    means. A few images without a box therefore hardly raise any other probability.
    """
    empty = scores == 0
    if not empty.any():
        return scaling
    shares = _smoothed(truth)[empty]
    others = np.sort(scaling.probability(scores[~empty]))
    totals = shares.sum() + np.append(0.0, np.cumsum(others))
    pooled = totals / (len(shares) + np.arange(len(totals)))
    return replace(scaling, no_box=float(pooled.min()))


def choose_calibration(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    folds: Integers,
    methods: Sequence[CalibrationMethod] = ("none", "platt"),
) -> tuple[Calibration, dict[str, float]]:
    """Choose the calibration method with the smallest log loss in cross-validation.

    All images of a patient should be in one fold. Of several methods with the same loss, the first
    one is chosen. Returned are its calibration, fitted on all images, and the mean log loss of each
    method; there probabilities are limited to [0.0001, 0.9999]. InputError if all labels are 0 or
    all are 1, or a label or score is invalid.
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        raise InputError("calibration needs positive and negative images")
    losses: dict[str, float] = dict.fromkeys(methods, 0.0)
    for fold in np.unique(folds):
        held_out = folds == fold
        labels = truth[held_out].astype(np.float64)
        for method in methods:
            fitted = fit_calibration(method, truth[~held_out], scores[~held_out]) or RawScores()
            logits = clipped_logit(fitted.probability(scores[held_out]))
            losses[method] += _log_loss_sum(logits, labels) / len(truth)
    chosen = min(methods, key=lambda method: losses[method])  # the first with the least loss
    return fit_calibration(chosen, truth, scores) or RawScores(), losses


def _log_loss_sum(logits: Floats, labels: Floats) -> float:
    return float((np.logaddexp(0, logits) - labels * logits).sum())
