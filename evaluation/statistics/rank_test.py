"""Rank test of an AUROC of 0.5 by patient: are the scores better than chance?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.special

from cxr_compare.evaluation.statistics.arrays import Floats, Integers

PERMUTATIONS = 1999
"""Number of permutations of the patients' labels."""
_CHUNK_CELLS = 2_000_000  # permutations x patients in memory at once
MANY_PATIENTS = 2000
"""Number of patients above which the normal distribution stands for the permutations."""
FEW_PATIENTS = 100
"""Patients of the rarer class below which there are permutations, however many patients there are.

The divided statistic of m patients cannot exceed the square root of m, so the normal distribution
would never show that two patients rank above all others.
"""
_ROUNDING = 1e-9


def chance_p_value(
    y_true: npt.NDArray[np.bool_],
    seeds: Sequence[Floats],
    clusters: Integers,
    n_clusters: int,
    *,
    permutations: int = PERMUTATIONS,
) -> float | None:
    """Test the hypothesis that scores say nothing about the labels, by patient; two-sided p-value.

    The statistic is the difference of the mean ranks of positive and negative images, so it rises
    with the AUROC. Its distribution comes from random permutations of the patients' labels: each
    patient keeps the images and scores and gets the label of another patient. If all images of each
    patient have one label, this is exact, and with one image each it is the rank-sum test.

    If a patient has images of both labels, patients exchange the share of their images that is
    positive, the difference of the ranks within a patient gets a random sign, and the statistic is
    divided by its standard error, which is summed by patient. Without this division, an exchange
    between patients with one and with many images would hide a difference.

    With more than 2,000 patients, and at least 100 in the rarer class, the divided statistic is
    compared with the normal distribution in place of permutations.

    The ranks are averaged over `seeds`, the scores of each training of a system. The p-value is at
    least ``2 / (permutations + 1)``; None if fewer than two patients have a positive image, or
    fewer than two a negative one.

    Source:
        Mann and Whitney 1947 (one image each); Datta and Satten 2005 (rank sum by patient); Chung
        and Romano 2013 (permutation of a statistic divided by its standard error).
    """
    images = np.bincount(clusters, minlength=n_clusters)
    positive = np.bincount(clusters[y_true], minlength=n_clusters)
    rarer = min(np.count_nonzero(positive), np.count_nonzero(images - positive))
    if rarer < 2:
        return None
    used = images > 0
    ranks = np.mean([pd.Series(scores).rank().to_numpy() for scores in seeds], axis=0)
    ranks -= ranks.mean()
    share = (positive[used] / images[used]).astype(np.float64)
    rank_sum = np.bincount(clusters, ranks, minlength=n_clusters).astype(np.float64)
    of_positive = np.bincount(clusters[y_true], ranks[y_true], minlength=n_clusters)
    within = None
    if ((share > 0) & (share < 1)).any():
        within = of_positive[used] - share * rank_sum[used]
    patients = _Patients(images[used].astype(np.float64), rank_sum[used], within)
    if len(share) > MANY_PATIENTS and rarer >= FEW_PATIENTS:
        return max(patients.large_sample_p_value(share), 2 / (permutations + 1))
    observed = patients.statistic(share[None], 1.0)[0]
    rng = np.random.default_rng(0)
    above = below = 0
    left = permutations
    while left:
        rows = min(left, max(1, _CHUNK_CELLS // len(share)))
        left -= rows
        shares = np.stack([rng.permutation(share) for _ in range(rows)])
        signs = 1.0 if within is None else rng.choice([-1.0, 1.0], size=shares.shape)
        drawn = patients.statistic(shares, signs)
        above += int((drawn >= observed - _ROUNDING).sum())
        below += int((drawn <= observed + _ROUNDING).sum())
    return min(1.0, 2 * (min(above, below) + 1) / (permutations + 1))


class _Patients:
    """Images and ranks of patients, and the ranks that set a patient's positive images apart."""

    def __init__(self, images: Floats, rank_sum: Floats, within: Floats | None) -> None:
        self._images = images
        self._rank_sum = rank_sum
        self._within = within

    def statistic(self, shares: Floats, signs: Floats | float) -> Floats:
        """Return the statistic for rows of shares of positive images, ``(R, patients)``."""
        n_positive = (shares @ self._images)[:, None]
        n_negative = self._images.sum() - n_positive
        added = self._between(shares, n_positive, n_negative)
        if self._within is None:
            return np.asarray(added.sum(axis=1))
        added += signs * self._within * (1 / n_positive + 1 / n_negative)
        error = np.sqrt((added**2).sum(axis=1))
        total = added.sum(axis=1)
        return np.divide(total, error, out=np.zeros_like(total), where=error > 0)

    def _between(self, shares: Floats, n_positive: Floats, n_negative: Floats) -> Floats:
        added = shares * self._rank_sum / n_positive
        return np.asarray(added - (1 - shares) * self._rank_sum / n_negative)

    def large_sample_p_value(self, share: Floats) -> float:
        """Return the two-sided p-value of the studentised statistic by the normal distribution."""
        n_positive = share @ self._images
        n_negative = self._images.sum() - n_positive
        added = self._between(share, n_positive, n_negative)
        if self._within is not None:
            added = added + self._within * (1 / n_positive + 1 / n_negative)
        error = np.sqrt((added**2).sum())
        return float(2 * scipy.special.ndtr(-abs(added.sum()) / error)) if error > 0 else 1.0
