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
    """The exact 95 % interval of a share, from each patient's images and those that count.

    Clopper and Pearson's (1934); where patients have several images theirs of as many independent
    images as the variance by patient says, never more than there are (Korn and Graubard 1998). As
    each of their ends has one trial more on the other side, so has that variance one patient of
    usual size more, without which few patients who have all that is wrong give too narrow an end.
    Patients with many images decide it, and where these happen to be right it is too small: so
    they are no more than by the likeness of all patients' images, either.

    Shapes: `hits`, `images` ``(patients,)``, some images in all.
    """
    hits, images = hits[images > 0], images[images > 0]
    total, share = images.sum(), float(hits.sum() / images.sum())
    if total == len(images):
        single = Interval.from_share(share, total)
        return single.low, single.high
    independent = total / _design_effect(hits, images)

    def exact(right: float) -> Interval:
        of_patients = np.append(images, (images**2).sum() / total)
        counted = np.append(hits, right * of_patients[-1])
        mean = counted.sum() / of_patients.sum()
        added = without_leverage((counted - mean * of_patients) / of_patients.sum(), of_patients)
        freedom = [total - 1, effective_patients(of_patients) - 1]
        narrow, wide = scipy.special.stdtrit(freedom, (1 + LEVEL) / 2)
        of_one_image = mean * (1 - mean) * (narrow / wide) ** 2
        variance = (added**2).sum()
        trials = float(total if total * variance <= of_one_image else of_one_image / variance)
        return Interval.from_share(share, min(trials, independent))

    return exact(0.0).low, exact(1.0).high


def _design_effect(hits: Floats, images: Floats) -> float:
    """How many images say as much as one, where all patients' images are equally alike.

    Source:
        Ridout, Demetrio and Firth 1999, Biometrics 55:137 (analysis of variance).
    """
    total, share, others = images.sum(), hits.sum() / images.sum(), max(len(images) - 1, 1)
    unequal = (images**2).sum() / total
    between = (images * (hits / images - share) ** 2).sum() / others
    within = (hits * (1 - hits / images)).sum() / (total - len(images))
    both = between + ((total - unequal) / others - 1) * within
    alike = np.clip((between - within) / both, 0, 1) if both > 0 else 0.0
    return float(1 + (unequal - 1) * alike)
