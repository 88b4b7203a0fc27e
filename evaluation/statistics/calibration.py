"""A probability from a score: temperature, Platt scaling or isotonic curve; logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic, sigmoid

CLIP = 1e-4
"""Scores are held inside [CLIP, 1 - CLIP] where a logarithm is taken of them, nowhere else."""


_Method = Literal["none", "temperature", "platt", "isotonic"]


METHODS: tuple[_Method, ...] = ("none", "temperature", "platt", "isotonic")
"""The simpler first: among equals the earlier is chosen."""


def clipped_logit(scores: npt.ArrayLike) -> Floats:
    """Log-odds of scores, held inside [`CLIP`, 1 - `CLIP`]."""
    held = np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)
    return np.asarray(np.log(held) - np.log1p(-held))


@dataclass(frozen=True)
class _RawScores:
    """The score itself as the probability."""

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """The scores, unchanged."""
        return np.asarray(scores, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        return {"method": "none"}


@dataclass(frozen=True)
class _PlattScaling:
    """``probability = sigmoid(slope * logit(score) + intercept)``; a score of 0 has its own level.

    A score of 0 is an image without a box: its log-odds are unknown, so it takes no part in the
    slope. A temperature is the same without an intercept, ``slope = 1 / temperature``.
    """

    slope: float  # on the logit of the score
    intercept: float  # likewise
    method: _Method = "platt"  # how the two were found
    # probability of a score of 0, the lowest; `None` where no validation image had that score
    no_box: float | None = None

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """The calibrated probability of the positive class, shape as `scores`."""
        given = np.asarray(scores, dtype=np.float64)
        chance = sigmoid(self.slope * clipped_logit(given) + self.intercept)
        if self.no_box is None:
            return chance
        return np.where(given == 0, self.no_box, np.maximum(chance, self.no_box))

    def to_dict(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        facts: dict[str, Any] = {"method": self.method, "slope": self.slope}
        if self.method == "temperature":
            facts["temperature"] = 1 / self.slope
        return facts | {"intercept": self.intercept, "no_box": self.no_box, "clip": CLIP}


@dataclass(frozen=True)
class _IsotonicScaling:
    """A rising curve through knots, straight between them and level beyond.

    It keeps the order of scores; those between knots of equal probability become ties.
    """

    scores: tuple[float, ...]  # where the knots are, rising
    probabilities: tuple[float, ...]  # their probabilities, never falling

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """The calibrated probability of the positive class, shape as `scores`.

        Example:
            >>> _IsotonicScaling((0.25, 0.75), (0.0, 0.5)).probability([0.0, 0.5, 1.0]).tolist()
            [0.0, 0.25, 0.5]
        """
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)

    def to_dict(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        return {
            "method": "isotonic",
            "scores": list(self.scores),
            "probabilities": list(self.probabilities),
            "levels": len(set(self.probabilities)),
        }


Calibration = _RawScores | _PlattScaling | _IsotonicScaling


def calibration_from_dict(payload: dict[str, Any] | None) -> Calibration | None:
    """Read what ``to_dict`` of a calibration wrote."""
    if not payload:
        return None
    if payload["method"] == "none":
        return _RawScores()
    if payload["method"] == "isotonic":
        return _IsotonicScaling(tuple(payload["scores"]), tuple(payload["probabilities"]))
    slope, intercept = payload["slope"], payload["intercept"]
    return _PlattScaling(slope, intercept, payload["method"], payload.get("no_box"))


_STEEPEST = 100.0
"""A temperature lies between 1 / _STEEPEST and _STEEPEST."""


def _fit_temperature(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> _PlattScaling | None:
    """Learn one temperature by the least log loss, between 1 / `_STEEPEST` and `_STEEPEST`.

    Source:
        Guo, Pleiss, Sun and Weinberger 2017.
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        return None
    from scipy.optimize import brentq

    boxed = scores > 0
    logits, wanted = clipped_logit(scores[boxed]), truth[boxed]

    def gradient(slope: float) -> float:
        return float(((sigmoid(slope * logits) - wanted) * logits).sum())

    least, most = 1 / _STEEPEST, _STEEPEST
    if gradient(least) >= 0:
        slope = least
    elif gradient(most) <= 0:
        slope = most
    else:
        slope = float(brentq(gradient, least, most, xtol=1e-14, rtol=1e-14))
    return _with_no_box(_PlattScaling(slope, 0.0, "temperature"), truth, scores)


def _fit_isotonic(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> _IsotonicScaling | None:
    """Learn the rising step curve of least squared error, joined by straight lines.

    Source:
        Zadrozny and Elkan 2002, by scikit-learn's pool of adjacent violators.
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        return None
    from sklearn.isotonic import IsotonicRegression

    fit = IsotonicRegression(y_min=0.0, y_max=1.0).fit(scores, truth.astype(np.float64))
    knots = (fit.X_thresholds_.tolist(), fit.y_thresholds_.tolist())
    return _IsotonicScaling(tuple(knots[0]), tuple(knots[1]))


def fit_calibration(
    method: _Method, y_true: npt.ArrayLike, y_score: npt.ArrayLike
) -> Calibration | None:
    """Learn a calibration by its name; `None` where one of the classes is absent."""
    if method not in METHODS:
        raise InputError(f"unknown calibration {method!r}: use {', '.join(METHODS)}")
    if method == "none":
        return _RawScores()
    fits = {"temperature": _fit_temperature, "platt": fit_platt, "isotonic": _fit_isotonic}
    fitted: Calibration | None = fits[method](y_true, y_score)
    return fitted


def fit_platt(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> _PlattScaling | None:
    """Learn Platt scaling; the labels are smoothed as Platt does, so it always exists.

    It never falls: where the likeliest slope is negative, the likeliest without one is taken, which
    is the share of positives.

    Scores of 0 (no box) are a level of their own: the smoothed share of positives among them,
    pooled with the images of lower probability so that the order of scores is kept.

    Returns the scaling, or `None` where one of the classes is absent.

    Source:
        Platt 2000; pool of adjacent violators, Ayer et al. 1955.
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        return None
    boxed, wanted = scores > 0, _smoothed(truth)
    design = np.column_stack([clipped_logit(scores[boxed]), np.ones(int(boxed.sum()))])
    start = np.array([[0.0, np.log(wanted.mean() / (1 - wanted.mean()))]])
    fit = fit_logistic(
        design, np.ones((1, len(design))), (wanted[boxed] @ design)[None], start=start
    )
    slope, intercept = fit.coefficients[0].tolist()
    if slope < 0:
        share = wanted[boxed].mean()
        slope, intercept = 0.0, float(np.log(share / (1 - share)))
    return _with_no_box(_PlattScaling(slope, intercept), truth, scores)


def _smoothed(truth: npt.NDArray[np.bool_]) -> Floats:
    """Platt's labels: none is quite 0 or 1."""
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    return np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))


def _with_no_box(
    scaling: _PlattScaling, truth: npt.NDArray[np.bool_], scores: Floats
) -> _PlattScaling:
    """Add the level of the scores of 0, where there are any.

    The share is pooled with the lowest of the other probabilities as long as they lie below the
    pooled share: the lowest of all such means. So a few images without a box raise no other much.
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
    methods: Sequence[_Method] = ("none", "platt"),
) -> tuple[Calibration, dict[str, float]]:
    """Choose a calibration by the log loss of held-out folds, probabilities held inside `CLIP`."""
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        raise InputError("calibration needs positive and negative images")
    losses = dict.fromkeys(methods, 0.0)
    for fold in np.unique(folds):
        held = folds == fold
        wanted = truth[held].astype(np.float64)
        for method in methods:
            learned = fit_calibration(method, truth[~held], scores[~held]) or _RawScores()
            logits = clipped_logit(learned.probability(scores[held]))
            losses[method] += _loss(logits, wanted) / len(truth)
    chosen = min(methods, key=losses.__getitem__)  # the first of equals
    # What the score gives as it is has been called so since before there were other choices.
    record = {"as_it_is" if method == "none" else method: loss for method, loss in losses.items()}
    return fit_calibration(chosen, truth, scores) or _RawScores(), record


def _loss(logits: Floats, wanted: Floats) -> float:
    return float((np.logaddexp(0, logits) - wanted * logits).sum())
