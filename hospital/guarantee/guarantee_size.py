"""Sample size of a guarantee: validation patients needed to find a guaranteed threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.patient_images import IMAGES_PER_PATIENT

MOST_SIMULATED = 5_000
"""Largest number of validation patients that is simulated."""
_VALIDATION_SETS = 1000  # number of validation sets that are simulated for each number of patients
_SCORES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class GuaranteedShare:
    """A share of images that validation shall guarantee, to plan how many patients it needs.

    A guarantee says, for example: with an error probability of 10 %, the sensitivity is at least
    0.8. Validation gives it if a test rejects that the true share is at most `floor`. An image
    counts if it enters the share (for a sensitivity: a positive image), and is good if it has the
    counted property (a correct decision).

    Attributes:
        floor: Share that is guaranteed, in (0, 1), such as a sensitivity of 0.8. If the mean number
            of false positives per image is guaranteed, this is 1 minus that number divided by
            `most_marks`.
        error: Accepted probability that the guarantee is wrong, in (0, 1).
        expected: Value that the guaranteed quantity is assumed to have in the whole population, at
            the threshold that validation will choose: a share, such as a sensitivity of 0.9, or the
            mean number of false positives of an image. It must be better than what is guaranteed.
        images: Number of images of each patient that count, or the name of a data set (``rsna`` or
            ``nih``) whose measured numbers of images per patient are used.
        within: How much alike two images of a patient are, in [0, 1). In the simulation, each image
            has a normal random number and is good if this number is below a limit; this is the
            correlation of the numbers of two images of one patient.
        p_values: Test by which validation decides whether the share exceeds `floor`, such as
            `share_below_p_values`. R validation sets are simulated at a time; the function returns
            one p-value for each, shape ``(R,)``. Its arguments are the number of good images of
            each patient (shape ``(R, patients)``), the number of images of each patient that count
            (shape ``(patients,)``), `floor` and `error`. It is not called if the probability is
            computed without these simulated sets: for a share with one image per patient, and if
            `simulated` is given.
        most_marks: Largest number of false positives that are counted in one image, if their mean
            number is guaranteed; 0 if a share is guaranteed.
        simulated: Function that returns, for a number of patients, the probability that validation
            gives the guarantee, if the guaranteed quantity is neither a share nor a mean number of
            false positives; None otherwise.

    Example:
        >>> from cxr_compare.hospital.guarantee.clustered_share import share_below_p_values
        >>> test = share_below_p_values
        >>> share = GuaranteedShare(0.8, 0.1, 0.9, images=1, within=0.0, p_values=test)
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
        """Compute the probability that validation on so many patients gives the guarantee.

        The patients are those who have images that count. The probability is exact for a share with
        one image per patient; otherwise it is simulated.
        """
        if self.simulated is not None:
            return self.simulated(patients)
        sizes = self._image_counts(patients)
        if sizes.max() == 1 and not self.most_marks:
            return self._exact_chance(patients)
        rng = np.random.default_rng(0)
        rows = max(1, _SCORES_AT_ONCE // int(sizes.sum()))
        if self.most_marks:
            # An image is good by the share of the `most_marks` counted marks that it does not have;
            # the number of marks is Poisson.
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
        """Return the probability with one image per patient, by the binomial distribution."""
        good = np.arange(patients + 1)
        is_shown = scipy.stats.binom.sf(good - 1, patients, self.floor) <= self.error
        probability = scipy.stats.binom.pmf(good, patients, self.expected)
        return float(probability[is_shown].sum())

    def fewest(self, chance: float) -> int | None:
        """Find the smallest number of patients for which validation often gives the guarantee.

        It gives it with a probability of at least `chance`. None means that more than 5,000
        patients would have to be simulated.
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
        # A few more patients may have a lower probability, since good images are whole numbers.
        too_few = [n for n in range(many, 2 * many + 50) if self.chance(n) < chance]
        return max(too_few, default=many - 1) + 1
