"""Slope and intercept of calibration, with intervals by patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import satterthwaite_freedom

FIT = "logistic regression, clustered by patient"
"""Name of the method in results."""
_MOST_STEPS = 100
_SMALL_STEP = 1e-12
_SINGULAR = 1e12
_ONE_PATIENT = "no interval: without one of the patients there is no fit"


def calibration_slope(
    positive: npt.NDArray[np.bool_], log_odds: Floats, patients: Integers, n_patients: int
) -> ClusteredEstimate | None:
    """Fit the slope of the log-odds of being positive on the predicted log-odds: 1 is right.

    None if no slope is finite: all log-odds are equal, or a cut separates the classes, which may
    both lie on the cut.

    Source:
        Cox 1958; Van Calster et al. 2019.
    """
    of_positive, of_negative = log_odds[positive], log_odds[~positive]
    if not (len(of_positive) and len(of_negative)):
        return None
    overlap = of_positive.min() < of_negative.max() and of_negative.min() < of_positive.max()
    if not overlap:
        return None
    design = np.column_stack([log_odds, np.ones(len(log_odds))])
    return _fitted(design, np.zeros(len(log_odds)), positive, patients, n_patients)


def calibration_in_the_large(
    positive: npt.NDArray[np.bool_], log_odds: Floats, patients: Integers, n_patients: int
) -> ClusteredEstimate | None:
    """Fit what is to be added to the predicted log-odds: 0 is right; None if a class is absent.

    Source:
        Cox 1958; Van Calster et al. 2019, calibration intercept: the slope is fixed at 1.
    """
    if positive.all() or not positive.any():
        return None
    return _fitted(np.ones((len(log_odds), 1)), log_odds, positive, patients, n_patients)


def _fitted(
    design: Floats,
    offset: Floats,
    positive: npt.NDArray[np.bool_],
    patients: Integers,
    n_patients: int,
) -> ClusteredEstimate:
    """Fit a logistic regression; return the first coefficient with its error over patients.

    The variance is that of the jackknife, in which one step of Newton's method from the fit leaves
    out a patient.
    """
    coefficients = _most_likely(design, offset, positive)
    expected = scipy.special.expit(offset + design @ coefficients)
    score = per_cluster(design * (positive - expected)[:, None], patients, n_patients)
    of_images = (design[:, :, None] * design[:, None, :]) * (expected * (1 - expected))[
        :, None, None
    ]
    size = design.shape[1]
    curvature = per_cluster(of_images.reshape(-1, size**2), patients, n_patients)
    curvature = curvature.reshape(-1, size, size)
    known = np.bincount(patients, minlength=n_patients) > 0
    without = curvature.sum(axis=0) - curvature[known]
    if np.linalg.cond(without).max() > _SINGULAR:
        return ClusteredEstimate(float(coefficients[0]), None, note=_ONE_PATIENT)
    moved = np.linalg.solve(without, score[known][:, :, None])[:, 0, 0]
    contributions = moved * np.sqrt((known.sum() - 1) / known.sum())
    error = float(np.sqrt((contributions**2).sum()))
    freedom = satterthwaite_freedom(contributions)
    return ClusteredEstimate(float(coefficients[0]), error, freedom, span=np.inf)


def _most_likely(design: Floats, offset: Floats, positive: npt.NDArray[np.bool_]) -> Floats:
    """Return the coefficients with the highest likelihood, by Newton's method."""

    def loss(coefficients: Floats) -> float:
        log_odds = offset + design @ coefficients
        return float((np.logaddexp(0, log_odds) - positive * log_odds).sum())

    found = np.zeros(design.shape[1])
    for _ in range(_MOST_STEPS):
        expected = scipy.special.expit(offset + design @ found)
        curvature = design.T @ (design * (expected * (1 - expected))[:, None])
        step = np.linalg.lstsq(curvature, design.T @ (positive - expected))[0]
        while loss(found + step) > loss(found) and np.abs(step).max() > _SMALL_STEP:
            step = step / 2
        found = found + step
        if np.abs(step).max() <= _SMALL_STEP:
            break
    return found
