"""Test of a share of images that come in patients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_variance import (
    effective_patients,
    without_leverage,
)


def share_below_p_values(
    hits: Floats, images: Floats, floor: npt.ArrayLike, error: float
) -> Floats:
    """Compute p-values of the hypothesis that a share of images is at most a given share.

    The share is, for example, a sensitivity; the images come in patients. The test is the exact
    binomial test with as many independent images as the variance by patient implies. The variance
    assumes one further patient, who has the mean number of images and no hit, because a few
    patients may have all the errors, and `design_effects` limits the number of independent images.
    With one image per patient, this is the binomial test of the images.

    Args:
        hits: Number of each patient's images that have the counted property, such as a correct
            decision (weights allowed). Each row is one sample, shape ``(R, patients)``.
        images: Number of images of each patient, at least 1, shape ``(patients,)``.
        floor: Largest share under the hypothesis, in (0, 1), one for all rows or one for each,
            shape ``(R,)``.
        error: Significance level with which the p-values will be compared, in (0, 1). The quantile
            of Student's t that corrects the variance is taken at this level.

    Returns:
        One p-value for each row, shape ``(R,)``.

    Source:
        Korn and Graubard 1998, Survey Methodology 24:193, here as a one-sided test.

    Example:
        >>> hits = np.array([[2.0, 2.0, 1.0, 2.0, 2.0, 2.0], [1.0, 2.0, 0.0, 2.0, 1.0, 1.0]])
        >>> share_below_p_values(hits, np.full(6, 2), 0.5, 0.1).round(3).tolist()
        [0.032, 0.427]
    """
    sizes = np.asarray(images, dtype=np.float64)
    total = sizes.sum()
    share = hits.sum(axis=1) / total
    trials = np.full(len(hits), total)
    if total > len(sizes):
        trials = np.minimum(
            _independent_images(hits, sizes, error), total / design_effects(hits, sizes)
        )
    counted = np.maximum(share * trials, 0)
    with np.errstate(invalid="ignore"):
        tail = scipy.special.betainc(counted, trials - counted + 1, np.asarray(floor, np.float64))
    return np.where(counted > 0, tail, 1.0)


def _independent_images(hits: Floats, images: Floats, error: float) -> Floats:
    """Return the number of independent images that each row's variance implies, shape ``(R,)``."""
    total = images.sum()
    images_with = np.append(images, images.mean())
    hits_with = np.column_stack([hits, np.zeros(len(hits))])
    mean = hits_with.sum(axis=1) / images_with.sum()
    deviations = (hits_with - mean[:, None] * images_with) / images_with.sum()
    variance = (without_leverage(deviations, images_with) ** 2).sum(axis=1)
    freedom = [total - 1, effective_patients(images_with) - 1]
    t_images, t_patients = scipy.special.stdtrit(freedom, 1 - error)
    one_image_variance = mean * (1 - mean) * (t_images / t_patients) ** 2
    return np.minimum(total, one_image_variance / np.maximum(variance, 1e-300))


def design_effects(hits: Floats, images: Floats) -> Floats:
    """Compute how many images of patients give the information of one independent image.

    This number is the design effect. The images of every patient are taken as equally alike (one
    intraclass correlation).

    Args:
        hits: Number of each patient's images that have the counted property, such as a correct
            decision. Each row is one sample, shape ``(R, patients)``.
        images: Number of images of each patient, above 0, shape ``(patients,)``.

    Returns:
        Design effect of each sample, at least 1, shape ``(R,)``.

    Source:
        Ridout, Demetrio and Firth 1999, Biometrics 55:137 (estimator by analysis of variance).

    Example:
        >>> design_effects(np.array([[2.0, 0.0, 2.0]]), np.array([2.0, 2.0, 2.0])).tolist()
        [2.0]
    """
    total = images.sum()
    share = hits.sum(axis=1, keepdims=True) / total
    freedom = max(len(images) - 1, 1)
    mean_square_size = (images**2).sum() / total
    between = (images * (hits / images - share) ** 2).sum(axis=1) / freedom
    within = (hits * (1 - hits / images)).sum(axis=1) / (total - len(images))
    both = between + ((total - mean_square_size) / freedom - 1) * within
    alike = np.divide(between - within, both, out=np.zeros_like(both), where=both > 0)
    return np.asarray(1 + (mean_square_size - 1) * np.clip(alike, 0, 1))
