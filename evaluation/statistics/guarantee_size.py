"""Sample size of a guarantee: validation patients needed for a threshold that is guaranteed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.patient_images import IMAGES_PER_PATIENT

MOST_SIMULATED = 5_000
"""Largest number of validation patients that is simulated."""
_VALIDATION_SETS = 1000  # simulated for each number of patients
_SCORES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class GuaranteedShare:
    """A share of images that is to be guaranteed, at a threshold with an expected share.

    Attributes:
        floor: The share that is guaranteed. Where false positives per image are guaranteed, it is
            1 minus their number, divided by the most that count.
        error: Chance that the guarantee may be wrong, in (0, 1).
        expected: True figure at the threshold.
        images: Images of each patient that count, or a data set of `IMAGES_PER_PATIENT`.
        within: Correlation of the normal scores of a patient's images.
        p_values: Function from good images by patient (``(R, patients)``), counted images by
            patient (``(patients,)``), floor and error to p-values, shape ``(R,)``.
        most_marks: Most false positives of an image that count, where their mean is guaranteed;
            0 for a share.
        simulated: Function from a number of patients to the chance of a guarantee, where the figure
            is no share.

    Example:
        >>> share = GuaranteedShare(0.8, 0.1, 0.9, images=1, within=0.0, p_values=None)
        >>> round(share.chance(50), 3), share.fewest(0.8)
        (0.616, 75)
    """

    floor: float
    error: float
    expected: float
    images: int | str
    within: float
    p_values: Callable[..., Floats]
    most_marks: int = 0
    simulated: Callable[[int], float] | None = None

    def chance(self, patients: int) -> float:
        """Compute how often so many validation patients show the guarantee.

        The chance is exact with one image per patient, else simulated.

        Args:
            patients: Number of patients whose images count.

        Returns:
            Chance in [0, 1].
        """
        if self.simulated is not None:
            return self.simulated(patients)
        sizes = self._image_counts(patients)
        if sizes.max() == 1 and not self.most_marks:
            return self._exact_chance(patients)
        rng = np.random.default_rng(0)
        rows = max(1, _SCORES_AT_ONCE // int(sizes.sum()))
        if self.most_marks:
            # An image's goodness is the share of the marks that count (Poisson) which it has not.
            below = scipy.special.pdtr(np.arange(self.most_marks), self.expected)
            levels = scipy.special.ndtri(below)
        else:
            levels = scipy.special.ndtri([self.expected])
        first_image = np.cumsum(sizes) - sizes
        patient = np.repeat(np.arange(patients), sizes)
        shown: list[bool] = []
        for start in range(0, _VALIDATION_SETS, rows):
            count = min(rows, _VALIDATION_SETS - start)
            scores = np.sqrt(self.within) * rng.standard_normal((count, patients))[:, patient]
            scores += np.sqrt(1 - self.within) * rng.standard_normal(scores.shape)
            goodness = np.mean([scores < level for level in levels], axis=0)
            good = np.add.reduceat(goodness, first_image, axis=1)
            p_values = self.p_values(good, sizes, self.floor, self.error)
            shown += (p_values <= self.error).tolist()
        return float(np.mean(shown))

    def _image_counts(self, patients: int) -> npt.NDArray[np.int64]:
        """Return the number of images of each patient."""
        if isinstance(self.images, int):
            return np.full(patients, self.images)
        table = IMAGES_PER_PATIENT[self.images]
        every_patient = np.repeat(list(table), list(table.values()))
        quantiles = (np.arange(patients) + 0.5) / patients
        return every_patient[(quantiles * len(every_patient)).astype(int)]

    def _exact_chance(self, patients: int) -> float:
        """Return the chance with one image per patient, by the binomial distribution."""
        good = np.arange(patients + 1)
        is_shown = scipy.stats.binom.sf(good - 1, patients, self.floor) <= self.error
        probability = scipy.stats.binom.pmf(good, patients, self.expected)
        return float(probability[is_shown].sum())

    def fewest(self, chance: float) -> int | None:
        """Find the fewest patients who show the guarantee with a chance.

        Args:
            chance: Chance that is wanted, in (0, 1).

        Returns:
            Number of patients; None if more than `MOST_SIMULATED` would have to be simulated.
        """
        few = 0
        many = 8
        while self.chance(many) < chance:
            few = many
            many = 2 * many
            if many > MOST_SIMULATED:
                return None
        while many - few > (1 if self.simulated is None else 1 + many // 100):
            middle = (few + many) // 2
            if self.chance(middle) >= chance:
                many = middle
            else:
                few = middle
        if self.images != 1 or self.most_marks or self.simulated is not None:
            return many
        # A few more patients may have less chance, since good images are counted in whole numbers.
        too_few = [n for n in range(many, 2 * many + 50) if self.chance(n) < chance]
        return max(too_few, default=many - 1) + 1
