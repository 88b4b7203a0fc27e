"""Sample size of a guarantee: how many validation patients give a threshold that is guaranteed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.patient_images import IMAGES_PER_PATIENT

_SIMULATED, _MOST_SCORES = 1000, 4_000_000  # validation sets, and scores of them at once


MOST_SIMULATED = 5_000  # patients of a plan of a guarantee


@dataclass(frozen=True)
class GuaranteedShare:
    """A share of images that is to be guaranteed, at a threshold of which it is expected."""

    floor: float  # what is guaranteed; of false marks the share not made of as many as count
    error: float  # how often the guarantee may be wrong
    expected: float  # the true figure at the threshold
    images: int | str  # of each patient that count, or as in `IMAGES_PER_PATIENT`
    within: float  # correlation of the normal scores of a patient's images
    p_values: Callable[..., Floats]  # of good and counted images by patient, floor and error
    most_marks: int = 0  # so many of an image count, where their mean is guaranteed
    simulated: Callable[[int], float] | None = None  # the chance, where it is no share

    def chance(self, patients: int) -> float:
        """How often so many patients show it: exact with one image each, else simulated."""
        if self.simulated is not None:
            return self.simulated(patients)
        sizes = np.full(patients, self.images if isinstance(self.images, int) else 1)
        if isinstance(self.images, str):
            table = IMAGES_PER_PATIENT[self.images]
            every = np.repeat(list(table), list(table.values()))
            sizes = every[((np.arange(patients) + 0.5) / patients * len(every)).astype(int)]
        if sizes.max() == 1 and not self.most_marks:
            good = np.arange(patients + 1)
            enough = scipy.stats.binom.sf(good - 1, patients, self.floor) <= self.error
            shown = scipy.stats.binom.pmf(good, patients, self.expected)
            return float(shown[enough].sum())
        rng, rows = np.random.default_rng(0), max(1, _MOST_SCORES // int(sizes.sum()))
        # Of marks, Poisson, an image's goodness is the share of these that it has fewer than.
        below = scipy.special.pdtr(np.arange(self.most_marks), self.expected)
        levels = scipy.special.ndtri(below if self.most_marks else [self.expected])
        first, owner, shown = np.cumsum(sizes) - sizes, np.repeat(np.arange(patients), sizes), []
        for begin in range(0, _SIMULATED, rows):
            count = min(rows, _SIMULATED - begin)
            scores = np.sqrt(self.within) * rng.standard_normal((count, patients))[:, owner]
            scores += np.sqrt(1 - self.within) * rng.standard_normal(scores.shape)
            right = np.mean([scores < level for level in levels], axis=0)
            good = np.add.reduceat(right, first, axis=1)
            shown += (self.p_values(good, sizes, self.floor, self.error) <= self.error).tolist()
        return float(np.mean(shown))

    def fewest(self, chance: float) -> int | None:
        """How many patients have such a chance; `None` where it takes too many to simulate."""
        few, many = 0, 8
        while self.chance(many) < chance:
            few, many = many, 2 * many
            if many > MOST_SIMULATED:
                return None
        while many - few > (1 if self.simulated is None else 1 + many // 100):
            middle = (few + many) // 2
            few, many = (few, middle) if self.chance(middle) >= chance else (middle, many)
        if self.images != 1 or self.most_marks or self.simulated is not None:
            return many
        # A few more patients may have less chance, since good images are counted in whole numbers.
        below = [n for n in range(many, 2 * many + 50) if self.chance(n) < chance]
        return max(below, default=many - 1) + 1
