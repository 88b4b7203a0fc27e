"""Covariance of AUROCs under the binormal model, and published sample sizes that rest on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.intervals import LEVEL

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


def binormal_auroc_covariance(
    aurocs: Sequence[float],
    positives: int,
    negatives: int,
    *,
    correlation: float = 0.0,
    images: tuple[float, float] = (1, 1),
    within: float = 0.0,
) -> Floats:
    """Covariance of the AUROCs of systems on the same images, if their scores are binormal.

    A system's scores are normal with variance 1 in both classes, and further up by
    ``sqrt(2) probit(AUROC)`` in positives; a patient's images are all of one class. Nothing is
    approximated: an AUROC is a mean over pairs of images, and the covariance of two pairs follows
    from the bivariate normal distribution. `correlation` and `within`: see `AssumedPlan`.

    Source:
        The moments of a U statistic (Hoeffding 1948; Hanley and McNeil 1982) of two correlated
        binormal tests; Obuchowski and McClish 1997 approximate the same.
    """
    heights = scipy.special.ndtri(np.asarray(aurocs, dtype=np.float64))
    n_systems = len(heights)
    # Pairs of images of one class, by how their two images belong together: the same image, two
    # of one patient, two of different patients.
    shares = [_pairings(count, images) for count in (positives, negatives)]
    found = np.empty((n_systems, n_systems))
    for first in range(n_systems):
        for second in range(n_systems):
            same = 1.0 if first == second else correlation
            alike = np.array([same, same * within, 0.0])
            between = (alike[:, None] + alike) / 2
            joint = bivariate_normal_below(heights[first], heights[second], between)
            alone = scipy.special.ndtr(heights[first]) * scipy.special.ndtr(heights[second])
            found[first, second] = (shares[0][:, None] * shares[1] * (joint - alone)).sum()
    return found


def obuchowski_positives(
    aurocs: Sequence[float],
    *,
    correlation: float,
    negatives_per_positive: float,
    power: float,
    level: float = LEVEL,
) -> float:
    """Positive patients that the published tables ask for, to compare two AUROCs.

    Their variance of an AUROC leaves out the covariance of the two binormal parameters, so they ask
    for more patients than a simulated study needs (docs/plan.md); to be named beside our figure.

    Source:
        Obuchowski and McClish 1997, Stat Med 16:1529; Obuchowski 2000, AJR 175:603. The same as
        ``power.roc.test`` of the R package pROC with parameters of binormal curves.
    """
    kappa, r = negatives_per_positive, correlation
    a = np.sqrt(2) * scipy.special.ndtri(np.asarray(aurocs, dtype=np.float64))
    f = np.exp(-(a**2) / 4) / np.sqrt(4 * np.pi)
    g = -a * f / 2
    variances = f**2 * (1 + 1 / kappa + a**2 / 2) + g**2 * (1 + kappa) / (2 * kappa)
    covariance = (
        f[0] * f[1] * (r + r / kappa + r**2 * a[0] * a[1] / 2)
        + g[0] * g[1] * r**2 * (1 + kappa) / (2 * kappa)
        + (f[0] * g[1] * a[0] + f[1] * g[0] * a[1]) * r**2 / 2
    )
    if_equal = 2 * variances[0] - 2 * covariance
    if_not = variances.sum() - 2 * covariance
    ends = scipy.special.ndtri([(1 + level) / 2, power])
    reach = ends[0] * np.sqrt(if_equal) + ends[1] * np.sqrt(if_not)
    return float((reach / (aurocs[0] - aurocs[1])) ** 2)


def _pairings(patients: int, images: tuple[float, float]) -> Floats:
    """Shares of the pairs of images: the same one, of one patient, of two patients.

    `images` are the mean of their number, and of its square.
    """
    n = patients * images[0]
    same, of_patient = n, patients * (images[1] - images[0])
    return np.array([same, of_patient, n * n - same - of_patient]) / (n * n)


def bivariate_normal_below(h: float, k: float, correlation: Floats) -> Floats:
    """P(X < h and Y < k) of standard normals; Drezner and Wesolowsky 1990, in the angle."""
    angle = np.arcsin(correlation)[..., None]
    at = angle * (_NODES + 1) / 2
    sine, cosine = np.sin(at), np.cos(at)
    density = np.exp(-(h * h + k * k - 2 * h * k * sine) / (2 * cosine**2)) / (2 * np.pi)
    independent = scipy.special.ndtr(h) * scipy.special.ndtr(k)
    return np.asarray(independent + (density * _WEIGHTS).sum(axis=-1) * angle[..., 0] / 2)
