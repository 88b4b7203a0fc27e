"""Calibration figures of probabilities: Brier score, log loss, ECE, slope and intercepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.calibration import CLIP, clipped_logit
from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic

_CONVERGED = 1e-6  # largest gradient per image of a converged fit
_FARTHEST = 500.0  # log-odds that no finite fit of probabilities in [CLIP, 1 - CLIP] reaches
_N_BINS = 10
_KNOTS = 256


class _Overlap:
    """Overlap of the classes along a variable; if a cut separates them, no fit is finite.

    Source:
        Albert and Anderson 1984.
    """

    def __init__(
        self, position: Integers, truth: npt.NDArray[np.bool_], clusters: Integers
    ) -> None:
        self._ends = {
            (label, sign): _Lowest(sign * position[truth == label], clusters[truth == label])
            for label in (False, True)
            for sign in (1, -1)
        }

    def separated(self, weights: npt.NDArray[np.floating | np.integer]) -> npt.NDArray[np.bool_]:
        """Return True if a class is absent or a cut separates the classes, shape ``(R,)``.

        Classes that share only the value at the cut count as separated, too.
        """
        lowest = {label: self._ends[label, 1](weights) for label in (False, True)}
        highest = {label: -self._ends[label, -1](weights) for label in (False, True)}
        return (lowest[True] >= highest[False]) | (lowest[False] >= highest[True])


class _Lowest:
    """Lowest value among the patients with a weight above 0; infinite where there is none."""

    def __init__(self, values: Integers, clusters: Integers) -> None:
        order = np.lexsort((values, clusters))
        patients, first = np.unique(clusters[order], return_index=True)
        lowest = values[order][first]
        rising = np.argsort(lowest, kind="stable")
        self._patients = patients[rising]
        self._values = lowest[rising].astype(np.float64)

    def __call__(self, weights: npt.NDArray[np.floating | np.integer]) -> Floats:
        if not len(self._patients):
            return np.full(len(weights), np.inf)
        counts = weights[:, self._patients] > 0
        return np.where(counts.any(axis=1), self._values[counts.argmax(axis=1)], np.inf)


class _Lines(NamedTuple):
    """Slopes and intercepts, shape ``(R,)`` each; NaN where there is no finite fit."""

    slope: Floats
    intercept: Floats


def _fit_lines(x: Floats, mass: Floats, positive: Floats, positive_x: Floats) -> _Lines:
    """Fit one logistic regression on one variable for each row of weights (Cox 1958)."""
    n = mass.sum(axis=1)
    coefficients = np.full((len(n), 2), np.nan)
    done = np.zeros(len(n), dtype=bool)
    has_both = (positive > 0) & (positive < n)
    if has_both.any():
        fit = fit_logistic(
            np.column_stack([np.ones(len(x)), x]),
            mass[has_both],
            np.column_stack([positive, positive_x])[has_both],
            start=np.tile([0.0, 1.0], (int(has_both.sum()), 1)),  # the line of a perfect fit
        )
        coefficients[has_both] = fit.coefficients
        done[has_both] = fit.gradient <= _CONVERGED * n[has_both]
    intercept, slope = coefficients.T
    farthest = np.abs(intercept[:, None] + slope[:, None] * x[[0, -1]]).max(axis=1)
    done &= farthest < _FARTHEST
    return _Lines(np.where(done, slope, np.nan), np.where(done, intercept, np.nan))


def _fit_offsets(x: Floats, mass: Floats, positive: Floats) -> Floats:
    """Fit the shift of log-odds that makes each row expect its number of positives, ``(R,)``."""
    shift = np.full(len(mass), np.nan)
    has_both = (positive > 0) & (positive < mass.sum(axis=1))
    if has_both.any():
        fit = fit_logistic(np.ones((len(x), 1)), mass[has_both], positive[has_both, None], offset=x)
        shift[has_both] = fit.coefficients[:, 0]
    return shift


def equal_width_bins(probability: Floats) -> npt.NDArray[np.int64]:
    """Assign probabilities to ten bins of equal width: 0 is [0, 0.1], 1 is (0.1, 0.2], and so on.

    Source:
        Naeini, Cooper and Hauskrecht 2015.

    Example:
        >>> equal_width_bins(np.array([0.0, 0.1, 0.11, 1.0])).tolist()
        [0, 0, 1, 9]
    """
    return np.searchsorted(np.arange(1, _N_BINS) / _N_BINS, probability, side="left")


def equal_mass_bins(probability: Floats, n_bins: int = _N_BINS) -> npt.NDArray[np.int64]:
    """Assign probabilities to bins with about equally many images; equal values share a bin.

    The bins, numbered from 0, are cut at quantiles of the probabilities and are closed on the
    right; some stay empty where many probabilities are equal. The quantile for a share is the
    smallest value such that at least this share of all values is equal to it or smaller.

    Source:
        Naeini, Cooper and Hauskrecht 2015.

    Example:
        >>> equal_mass_bins(np.array([0.1, 0.1, 0.1, 0.9]), n_bins=2).tolist()
        [0, 0, 0, 1]
    """
    if not len(probability):
        return np.zeros(0, dtype=np.int64)
    shares = np.arange(1, n_bins) / n_bins
    cuts = np.quantile(probability, shares, method="inverted_cdf")
    return np.searchsorted(cuts, probability, side="left")


class CalibrationFigures:
    """Calibration metrics of predicted probabilities, fast to recompute for any patient weights.

    The constructor sums over the images of each patient once, so that a bootstrap over patients
    only multiplies these sums by weights.

    ``brier`` and ``log_loss`` are mean losses over the images. ``ece`` is the mean gap between the
    observed share of positive images and the mean probability over bins (`equal_width_bins`),
    weighted by the number of images in each bin. ``calibration_slope`` and
    ``calibration_intercept`` are fitted jointly: ``logit P(y) = intercept + slope * logit(p)``.
    ``calibration_in_the_large`` is the intercept with a slope of 1. Where a logarithm is taken,
    probabilities are limited to [`CLIP`, 1 - `CLIP`], with `CLIP` = 0.0001. The bins are formed
    from the images without weights and stay the same under all weights.

    `clusters` numbers the patient of each image from 0 to `n_clusters` - 1; without it every image
    counts as a separate patient. InputError for a probability outside [0, 1].

    Source:
        Brier 1950; Naeini, Cooper and Hauskrecht 2015 (ECE); Cox 1958 and Van Calster et al. 2019
        (slope, intercept, in the large).

    Example:
        >>> figures = CalibrationFigures([0, 1, 1, 0], [0.2, 0.7, 0.4, 0.3]).figures()
        >>> round(float(figures["brier"][0]), 3), round(float(figures["ece"][0]), 3)
        (0.145, 0.35)
    """

    def __init__(
        self,
        y_true: npt.ArrayLike,
        probability: npt.ArrayLike,
        clusters: Integers | Sequence[int] | None = None,
    ) -> None:
        truth = np.asarray(y_true, dtype=bool)
        p = np.asarray(probability, dtype=np.float64)
        outside = np.flatnonzero(~((p >= 0) & (p <= 1)))
        if outside.size:
            raise InputError(f"probability must be in [0, 1]; row {outside[0]} is {p[outside[0]]}")
        self._patients = np.arange(len(p)) if clusters is None else np.asarray(clusters)
        self.n_clusters = int(self._patients.max()) + 1 if len(p) else 0
        logit = clipped_logit(p)
        label = truth.astype(np.float64)
        clipped = np.clip(p, CLIP, 1 - CLIP)
        loss = -np.where(truth, np.log(clipped), np.log1p(-clipped))
        # Number of images, number of positives, sum of the positives' logits, Brier score, log
        # loss.
        columns = [np.ones(len(p)), label, label * logit, (p - label) ** 2, loss]
        self._sums = per_cluster(np.column_stack(columns), self._patients, self.n_clusters)
        # Each bin contributes the absolute value of the sum of its residuals.
        self._residuals = self._by_patient(equal_width_bins(p), label - p, _N_BINS + 1)
        self._exact_logits, self._position = np.unique(logit, return_inverse=True)
        self._grid = self._grid_of_logits()
        self._overlap = _Overlap(self._position, truth, self._patients)

    def _grid_of_logits(self) -> _Grid:
        """Divide each image between the two nearest of at most `_KNOTS` knots."""
        exact = self._exact_logits
        if len(exact) <= _KNOTS:
            once = np.ones(len(self._position))
            return _Grid(exact, self._by_patient(self._position, once, len(exact)))
        knots = np.linspace(exact[0], exact[-1], _KNOTS)
        logit = exact[self._position]
        lower = np.clip(np.searchsorted(knots, logit, side="right") - 1, 0, _KNOTS - 2)
        upper_share = (logit - knots[lower]) / (knots[1] - knots[0])
        mass = self._by_patient(lower, 1 - upper_share, _KNOTS)
        return _Grid(knots, mass + self._by_patient(lower + 1, upper_share, _KNOTS))

    def _by_patient(self, columns: npt.NDArray[np.int64], values: Floats, n_columns: int) -> Floats:
        """Sum the values of images by patient and by the column of each, ``(P, n_columns)``."""
        cells = self._patients * n_columns + columns
        sums = np.bincount(cells, values, minlength=self.n_clusters * n_columns)
        return np.asarray(sums.reshape(self.n_clusters, n_columns), dtype=np.float64)

    def figures(self, weights: Integers | None = None) -> dict[str, Floats]:
        """Compute the six calibration metrics under every row of patient weights, ``(R, P)``.

        Without weights, each patient counts once, and slope and intercepts are fitted on the
        probabilities themselves. With weights and more than 256 distinct probabilities, each image
        is divided between the two nearest of 256 grid points of the log-odds; slope and intercepts
        change by less than one unit of their third digit.

        A value, shape ``(R,)``, is NaN where the metric is undefined, for example a slope where a
        cut of the probabilities separates positive from negative images.
        """
        once = np.ones((1, self.n_clusters)) if weights is None else weights
        used = np.asarray(once, dtype=np.float64)[:, : self.n_clusters]
        n, positive, positive_logit, brier, loss = (used @ self._sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = {"brier": brier / n, "log_loss": loss / n}
            figures["ece"] = np.abs(used @ self._residuals).sum(axis=1) / n
        if weights is None:
            knots = self._exact_logits
            mass = np.bincount(self._position)[None, :].astype(np.float64)
        else:
            knots = self._grid.knots
            mass = used @ self._grid.mass
        lines = _fit_lines(knots, mass, positive, positive_logit)
        separated = self._overlap.separated(used)
        figures["calibration_slope"] = np.where(separated, np.nan, lines.slope)
        figures["calibration_intercept"] = np.where(separated, np.nan, lines.intercept)
        figures["calibration_in_the_large"] = _fit_offsets(knots, mass, positive)
        return figures


class _Grid(NamedTuple):
    """Knots of log-odds, shape ``(K,)``, and each patient's images on them, shape ``(P, K)``."""

    knots: Floats
    mass: Floats
