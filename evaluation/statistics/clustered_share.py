"""Exact interval of a share of images that come in patients."""

from __future__ import annotations

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_variance import (
    effective_patients,
    without_leverage,
)
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval


def exact_share(hits: Floats, images: Floats) -> tuple[float, float]:
    """Compute the exact 95 % interval of a share of images that come in patients.

    With one image per patient it is the interval of Clopper and Pearson. Otherwise it is that of
    as many independent images as the variance by patient implies, and never of more images than
    there are. Two rules keep it from being too narrow:

    - Each end of the exact interval has one trial more on the other side. The variance therefore
      has one patient of usual size more, too; without it, a few patients who have all the errors
      would give too narrow an end.
    - Patients with many images decide the variance, and where these happen to be right it is too
      small. The number of independent images is therefore at most the one that follows from how
      alike the images of all patients are.

    Args:
        hits: Images of each patient that count (weights allowed), shape ``(patients,)``.
        images: All images of each patient, shape ``(patients,)``; their sum is above 0.

    Returns:
        Lower and upper end, in [0, 1].

    Source:
        Clopper and Pearson 1934; Korn and Graubard 1998 (patients with several images).

    Example:
        >>> low, high = exact_share(np.array([1.0] * 18 + [0.0] * 2), np.ones(20))
        >>> round(low, 3), round(high, 3)
        (0.683, 0.988)
    """
    hits = hits[images > 0]
    images = images[images > 0]
    total = images.sum()
    share = float(hits.sum() / total)
    if total == len(images):
        single = Interval.from_share(share, total)
        return single.low, single.high
    most_trials = total / _design_effect(hits, images)

    def exact_with_patient(share_of_patient: float) -> Interval:
        """Return the interval with one patient of usual size more."""
        images_with = np.append(images, (images**2).sum() / total)
        hits_with = np.append(hits, share_of_patient * images_with[-1])
        mean = hits_with.sum() / images_with.sum()
        deviations = (hits_with - mean * images_with) / images_with.sum()
        variance = (without_leverage(deviations, images_with) ** 2).sum()
        freedom = [total - 1, effective_patients(images_with) - 1]
        t_images, t_patients = scipy.special.stdtrit(freedom, (1 + LEVEL) / 2)
        one_image_variance = mean * (1 - mean) * (t_images / t_patients) ** 2
        if total * variance <= one_image_variance:
            trials = float(total)
        else:
            trials = float(one_image_variance / variance)
        return Interval.from_share(share, min(trials, most_trials))

    return exact_with_patient(0.0).low, exact_with_patient(1.0).high


def _design_effect(hits: Floats, images: Floats) -> float:
    """Return how many images carry the information of one, if all patients' images are as alike.

    Source:
        Ridout, Demetrio and Firth 1999, Biometrics 55:137 (analysis of variance).
    """
    total = images.sum()
    share = hits.sum() / total
    freedom = max(len(images) - 1, 1)
    mean_square_size = (images**2).sum() / total
    between = (images * (hits / images - share) ** 2).sum() / freedom
    within = (hits * (1 - hits / images)).sum() / (total - len(images))
    both = between + ((total - mean_square_size) / freedom - 1) * within
    correlation = np.clip((between - within) / both, 0, 1) if both > 0 else 0.0
    return float(1 + (mean_square_size - 1) * correlation)
