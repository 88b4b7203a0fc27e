"""Bootstrap bands around a ROC curve and around shares of groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_index
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval


class Band(NamedTuple):
    """Lower and upper end of a pointwise 95 % bootstrap band at each of M points, shape ``(M,)``.

    An end is NaN at a point where no resample of patients has a value.
    """

    low: Floats
    high: Floats


def roc_band(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    patients: npt.ArrayLike,
    at: Floats,
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Band:
    """Compute the 95 % bootstrap band of an ROC curve: sensitivity at false positive rates `at`.

    Each resample of patients gives a curve whose points are joined by straight lines. The band
    holds the middle 95 % of the sensitivities at each rate (vertical averaging). Resamples with
    images of one class only are left out.

    Source:
        Vertical averaging: Fawcett 2006, "An introduction to ROC analysis", algorithm 3.
    """
    scores = np.asarray(y_score, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # ties move together
    positive = np.asarray(y_true, dtype=bool)[order]
    patient, n_patients = cluster_index(np.asarray(patients)[order])
    curves = []
    for weights in Resamples(n_patients, resamples, seed).chunks():
        image_weights = weights[:, patient].astype(np.int64)  # (R, N)
        true_positives, false_positives = (
            np.pad(np.cumsum(image_weights * of_class, axis=1)[:, ends], ((0, 0), (1, 0)))
            for of_class in (positive, ~positive)
        )
        for x, y in zip(false_positives, true_positives, strict=True):
            if x[-1] and y[-1]:
                curves.append(np.interp(at, x / x[-1], y / y[-1]))
    return _middle(np.array(curves).reshape(-1, len(at)))


def share_band(
    y_true: npt.ArrayLike,
    groups: Integers,
    patients: npt.ArrayLike,
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Band:
    """Compute a 95 % interval of the share of positive images in each group of images, ``(G,)``.

    The groups, numbered from 0, are, for example, the bins of a calibration plot. The interval
    comes from a bootstrap of patients. A share of 0 or 1 is the same in every resample; it gets the
    exact binomial interval, with the group's patients as trials.

    Source:
        Clopper and Pearson 1934, for the shares 0 and 1.

    Example:
        >>> band = share_band([0, 0, 1, 0], np.array([0, 0, 1, 1]), list("abcd"))
        >>> band.low.round(3).tolist(), band.high.round(3).tolist()
        ([0.0, 0.0], [0.842, 1.0])
    """
    patient, n_patients = cluster_index(patients)
    n_images = np.zeros((n_patients, int(np.max(groups)) + 1))
    n_positive = n_images.copy()
    np.add.at(n_images, (patient, groups), 1)
    np.add.at(n_positive, (patient, groups), np.asarray(y_true, dtype=np.float64))
    chunks = []
    for weights in Resamples(n_patients, resamples, seed).chunks():
        drawn = weights @ n_images
        undefined = np.full(drawn.shape, np.nan)
        chunks.append(np.divide(weights @ n_positive, drawn, out=undefined, where=drawn > 0))
    band = _middle(np.concatenate(chunks))
    positives = n_positive.sum(axis=0)
    images = n_images.sum(axis=0)
    is_extreme = (images > 0) & np.isin(positives / np.maximum(images, 1), (0, 1))
    for group in np.flatnonzero(is_extreme):
        patients_in_group = float((n_images[:, group] > 0).sum())
        exact = Interval.from_share(float(positives[group] > 0), patients_in_group)
        band.low[group] = exact.ci_low
        band.high[group] = exact.ci_high
    return band


def _middle(values: Floats) -> Band:
    """Return the ends of the middle 95 % of the defined values in each column of ``(R, M)``."""
    ends = np.full((2, values.shape[1]), np.nan)
    if len(values):
        defined = ~np.isnan(values).all(axis=0)
        tail = (1 - LEVEL) / 2
        ends[:, defined] = np.nanquantile(values[:, defined], (tail, 1 - tail), axis=0)
    return Band(ends[0], ends[1])
