"""Calibration error of probabilities: Brier score, log loss, ECE, slope and intercepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.calibration import CLIP, clipped_logit
from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic

_CONVERGED = 1e-6  # gradient an image beyond which a fit has not ended


_FARTHEST = 500.0  # log-odds that no probability in [CLIP, 1 - CLIP] asks for


class _Overlap:
    """Whether the classes overlap on the variable; where a cut parts them, no fit is finite.

    Source:
        Albert and Anderson 1984.
    """

    def __init__(self, place: Integers, truth: npt.NDArray[np.bool_], clusters: Integers) -> None:
        self._ends = {
            (label, sign): _Lowest(sign * place[truth == label], clusters[truth == label])
            for label in (False, True)
            for sign in (1, -1)
        }

    def parted(self, weights: npt.NDArray[np.floating | np.integer]) -> npt.NDArray[np.bool_]:
        """Whether a class is absent or a cut parts the classes, one shared value allowed."""
        lowest = {label: self._ends[label, 1](weights) for label in (False, True)}
        highest = {label: -self._ends[label, -1](weights) for label in (False, True)}
        return (lowest[True] >= highest[False]) | (lowest[False] >= highest[True])


class _Lowest:
    """The lowest value among the clusters that count, infinite where none does."""

    def __init__(self, values: Integers, clusters: Integers) -> None:
        order = np.lexsort((values, clusters))
        owners, first = np.unique(clusters[order], return_index=True)
        lowest = values[order][first]
        rising = np.argsort(lowest, kind="stable")
        self._owners, self._values = owners[rising], lowest[rising].astype(np.float64)

    def __call__(self, weights: npt.NDArray[np.floating | np.integer]) -> Floats:
        if not len(self._owners):
            return np.full(len(weights), np.inf)
        counts = weights[:, self._owners] > 0
        return np.where(counts.any(axis=1), self._values[counts.argmax(axis=1)], np.inf)


def _fit_line(
    x: Floats, mass: Floats, positive: Floats, positive_x: Floats
) -> tuple[Floats, Floats]:
    """Logistic regressions on one variable, one per row: slopes and intercepts.

    Source:
        Cox 1958.
    """
    n = mass.sum(axis=1)
    coefficients, done = np.full((len(n), 2), np.nan), np.zeros(len(n), dtype=bool)
    some = (positive > 0) & (positive < n)
    if some.any():
        start = np.log(positive[some] / (n - positive)[some])
        fit = fit_logistic(
            np.column_stack([np.ones(len(x)), x]),
            mass[some],
            np.column_stack([positive, positive_x])[some],
            start=np.column_stack([start, np.zeros(len(start))]),
        )
        coefficients[some] = fit.coefficients
        done[some] = fit.gradient <= _CONVERGED * n[some]
    intercept, slope = coefficients.T
    farthest = np.abs(intercept[:, None] + slope[:, None] * x[[0, -1]]).max(axis=1)
    done &= farthest < _FARTHEST
    return np.where(done, slope, np.nan), np.where(done, intercept, np.nan)


def _fit_offset(x: Floats, mass: Floats, positive: Floats) -> Floats:
    """The shifts of log-odds that give each row its number of positives."""
    shift, some = np.full(len(mass), np.nan), (positive > 0) & (positive < mass.sum(axis=1))
    if some.any():
        fit = fit_logistic(np.ones((len(x), 1)), mass[some], positive[some, None], offset=x)
        shift[some] = fit.coefficients[:, 0]
    return shift


_N_BINS = 10


_KNOTS = 256


def _equal_width_bins(probability: Floats) -> npt.NDArray[np.int64]:
    """Bin of each probability: tenths of [0, 1], closed on the right (0 is in the first)."""
    return np.searchsorted(np.arange(1, _N_BINS) / _N_BINS, probability, side="left")


def equal_mass_bins(probability: Floats, n_bins: int = _N_BINS) -> npt.NDArray[np.int64]:
    """Bin of each probability: cut at quantiles, closed on the right, equal values in one bin.

    A decile is the smallest value that at least so many tenths of all values do not exceed.
    """
    if not len(probability):
        return np.zeros(0, dtype=np.int64)
    shares = np.arange(1, n_bins) / n_bins
    cuts = np.quantile(probability, shares, method="inverted_cdf")
    return np.searchsorted(cuts, probability, side="left")


class CalibrationFigures:
    """Probabilities and labels, summed once per patient, ready for any weights.

    ``ece`` and ``ece_equal_mass`` are the mean gap between observed and expected share of
    positives over bins, weighted by their images. ``calibration_slope`` and
    ``calibration_intercept`` are fitted jointly, ``logit P(y) = intercept + slope * logit(p)``;
    ``calibration_in_the_large`` is the intercept with the slope held at 1. Probabilities are held
    inside [`CLIP`, 1 - `CLIP`] for logarithms only. Under other weights the bins stay where the
    images as they are put them.

    Source:
        Brier 1950; Naeini, Cooper and Hauskrecht 2015 (ECE); Cox 1958 and Van Calster et al. 2019
        (slope, intercept, in the large).
    """

    def __init__(
        self,
        y_true: npt.ArrayLike,
        probability: npt.ArrayLike,
        clusters: Integers | Sequence[int] | None = None,
    ) -> None:
        truth, p = np.asarray(y_true, dtype=bool), np.asarray(probability, dtype=np.float64)
        outside = np.flatnonzero(~((p >= 0) & (p <= 1)))
        if outside.size:
            raise InputError(f"probability must be in [0, 1]; row {outside[0]} is {p[outside[0]]}")
        of_image = np.arange(len(p)) if clusters is None else np.asarray(clusters)
        self.n_clusters = int(of_image.max()) + 1 if len(of_image) else 0
        x, y = clipped_logit(p), truth.astype(np.float64)
        held = np.clip(p, CLIP, 1 - CLIP)
        loss = -np.where(truth, np.log(held), np.log1p(-held))
        # n, positives, sum of their logits, Brier, log loss
        columns = [np.ones(len(p)), y, y * x, (p - y) ** 2, loss]
        self._sums = per_cluster(np.column_stack(columns), of_image, self.n_clusters)
        # What a bin contributes is the size of its summed residual.
        self._residuals = {
            name: per_cluster(_spread(bins, y - p), of_image, self.n_clusters)
            for name, bins in (
                ("ece", _equal_width_bins(p)),
                ("ece_equal_mass", equal_mass_bins(p)),
            )
        }
        self._exact, place = np.unique(x, return_inverse=True)
        self._place, self._of_image = place, of_image
        self._grid, self._on_grid = self._gridded()
        self._overlap = _Overlap(place, truth, of_image)

    def _gridded(self) -> tuple[Floats, Floats]:
        """The logits on at most `_KNOTS` knots, each image shared between its two neighbours."""
        if len(self._exact) <= _KNOTS:
            at = _spread(self._place, np.ones(len(self._place)), len(self._exact))
            return self._exact, per_cluster(at, self._of_image, self.n_clusters)
        knots = np.linspace(self._exact[0], self._exact[-1], _KNOTS)
        x = self._exact[self._place]
        lower = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, _KNOTS - 2)
        upper = (x - knots[lower]) / (knots[1] - knots[0])
        shares = _spread(lower, 1 - upper, _KNOTS) + _spread(lower + 1, upper, _KNOTS)
        return knots, per_cluster(shares, self._of_image, self.n_clusters)

    def figures(self, weights: Integers | None = None) -> dict[str, Floats]:
        """The seven figures by their short names for every row of weights, NaN where undefined.

        With weights, shape ``(R, clusters)``, slope and intercepts are fitted on 256 knots, which
        moves them by less than their third digit; without, on the probabilities themselves.
        """
        once = np.ones((1, self.n_clusters)) if weights is None else weights
        used = np.asarray(once, dtype=np.float64)[:, : self.n_clusters]
        n, positive, positive_logit, brier, loss = (used @ self._sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = {"brier": brier / n, "log_loss": loss / n}
            for name, residuals in self._residuals.items():
                figures[name] = np.abs(used @ residuals).sum(axis=1) / n
        if weights is None:
            knots, mass = self._exact, np.bincount(self._place)[None, :].astype(np.float64)
        else:
            knots, mass = self._grid, used @ self._on_grid
        slope, intercept = _fit_line(knots, mass, positive, positive_logit)
        parted = self._overlap.parted(used)
        figures["calibration_slope"] = np.where(parted, np.nan, slope)
        figures["calibration_intercept"] = np.where(parted, np.nan, intercept)
        figures["calibration_in_the_large"] = _fit_offset(knots, mass, positive)
        return figures


def _spread(columns: npt.NDArray[np.int64], values: Floats, width: int = _N_BINS + 1) -> Floats:
    """Each value in its column, shape ``(N, width)``."""
    table = np.zeros((len(columns), width))
    table[np.arange(len(columns)), columns] = values
    return table
