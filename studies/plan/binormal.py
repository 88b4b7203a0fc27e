"""Covariance of AUROCs under the binormal model, and published sample sizes that rest on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its parts load when they are first used

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
    """Compute the covariance of the empirical AUROCs of systems (models) on the same test images.

    The scores are binormal: a system's scores are normal with variance 1 in both classes; the
    scores of positive images are higher by ``sqrt(2) probit(AUROC)`` on average. All images of a
    patient are of one class. Nothing is approximated: an AUROC is a mean over pairs of images, and
    the covariance of two pairs follows from the bivariate normal distribution.

    `correlation` is that of two systems' scores of the same image, among the images of one class,
    and `within` that of one system's scores of two images of the same patient. `images` are the
    mean number of images per patient, and the mean of the squared number. AUROCs are in (0, 1); the
    result is ``(systems, systems)``.

    Source:
        The moments of a U statistic (Hoeffding 1948; Hanley and McNeil 1982) of two correlated
        binormal tests; Obuchowski and McClish 1997 give an approximation.

    Example:
        >>> covariance = binormal_auroc_covariance([0.85, 0.80], 100, 400, correlation=0.5)
        >>> np.sqrt(np.diagonal(covariance)).round(4).tolist()
        [0.021, 0.0243]
    """
    heights = scipy.special.ndtri(np.asarray(aurocs, dtype=np.float64))
    n_systems = len(heights)
    of_positives = _pairings(positives, images)
    of_negatives = _pairings(negatives, images)
    covariance = np.empty((n_systems, n_systems))
    for first in range(n_systems):
        for second in range(n_systems):
            same_image = 1.0 if first == second else correlation
            # Correlation of two scores for each way in which their images belong together
            # (`_pairings`).
            alike = np.array([same_image, same_image * within, 0.0])
            of_two_pairs = (alike[:, None] + alike) / 2
            joint = bivariate_normal_below(heights[first], heights[second], of_two_pairs)
            alone = scipy.special.ndtr(heights[first]) * scipy.special.ndtr(heights[second])
            covariance[first, second] = (
                of_positives[:, None] * of_negatives * (joint - alone)
            ).sum()
    return covariance


def obuchowski_positives(
    aurocs: Sequence[float],
    *,
    correlation: float,
    negatives_per_positive: float,
    power: float,
    level: float = LEVEL,
) -> float:
    """Compute how many positive patients published tables ask for, to compare two AUROCs.

    The variance that these tables use leaves out the covariance of the two binormal parameters. The
    tables therefore ask for more patients than a simulated study needs (docs/plan.md), and the
    result is reported only beside the number that `studies.plan.sample_size` computes.

    The two true AUROCs differ. `correlation` is that of the systems' scores of the same image,
    among the images of one class. `level` is 1 minus the two-sided error of the test. The number is
    not rounded.

    Source:
        Obuchowski and McClish 1997, Stat Med 16:1529; Obuchowski 2000, AJR 175:603. The result
        equals that of ``power.roc.test`` of the R package pROC with parameters of binormal curves.

    Example:
        >>> round(obuchowski_positives(
        ...     (0.85, 0.80), correlation=0.5, negatives_per_positive=1, power=0.8))
        409
    """
    kappa = negatives_per_positive
    r = correlation
    a = np.sqrt(2) * scipy.special.ndtri(np.asarray(aurocs, dtype=np.float64))
    f = np.exp(-(a**2) / 4) / np.sqrt(4 * np.pi)
    g = -a * f / 2
    variances = f**2 * (1 + 1 / kappa + a**2 / 2) + g**2 * (1 + kappa) / (2 * kappa)
    covariance = (
        f[0] * f[1] * (r + r / kappa + r**2 * a[0] * a[1] / 2)
        + g[0] * g[1] * r**2 * (1 + kappa) / (2 * kappa)
        + (f[0] * g[1] * a[0] + f[1] * g[0] * a[1]) * r**2 / 2
    )
    variance_if_equal = 2 * variances[0] - 2 * covariance
    variance_if_not = variances.sum() - 2 * covariance
    quantiles = scipy.special.ndtri([(1 + level) / 2, power])
    reach = quantiles[0] * np.sqrt(variance_if_equal) + quantiles[1] * np.sqrt(variance_if_not)
    return float((reach / (aurocs[0] - aurocs[1])) ** 2)


def _pairings(patients: int, images: tuple[float, float]) -> Floats:
    """Return the shares of three kinds of pairs of images.

    The kinds are an image with itself, two images of one patient, and images of two patients.
    `images` holds the mean number of images per patient and the mean of the squared number.
    """
    n = patients * images[0]
    one_patient = patients * (images[1] - images[0])
    return np.array([n, one_patient, n * n - n - one_patient]) / (n * n)


def bivariate_normal_below(h: float, k: float, correlation: Floats) -> Floats:
    """Compute P(X < h and Y < k) for standard normal variables X and Y with a correlation.

    Source:
        Drezner and Wesolowsky 1990, integrated over the angle.

    Example:
        >>> bivariate_normal_below(0.0, 0.0, np.array([0.0, 1.0])).round(6).tolist()
        [0.25, 0.5]
    """
    angle = np.arcsin(correlation)[..., None]
    nodes = angle * (_NODES + 1) / 2
    sine = np.sin(nodes)
    cosine = np.cos(nodes)
    density = np.exp(-(h * h + k * k - 2 * h * k * sine) / (2 * cosine**2)) / (2 * np.pi)
    independent = scipy.special.ndtr(h) * scipy.special.ndtr(k)
    return np.asarray(independent + (density * _WEIGHTS).sum(axis=-1) * angle[..., 0] / 2)
