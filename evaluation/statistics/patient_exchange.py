"""Random exchanges of patients between a group of images and all other images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Integers


class ExchangedPatients:
    """Random exchanges of patients between a group of images and all others (permutation test).

    A patient is exchanged with patients who have a similar number (0, 1, more) of positive and of
    negative images, so the numbers of both sides stay similar. A patient with images on both sides
    keeps the number of images of each class on either side; which images these are is drawn at
    random.

    Args:
        inside: True for the images of the group, such as images of one hospital, False for all
            others, shape ``(N,)``.
        y_true: True for positive images, shape ``(N,)``.
        patients: Number of each image's patient from 0, shape ``(N,)``.

    Example:
        >>> inside = np.array([True, True, False, False])
        >>> labels = np.array([True, False, True, False])
        >>> exchanged = ExchangedPatients(inside, labels, np.arange(4))
        >>> members = exchanged.draw(3, np.random.default_rng(0))
        >>> members.shape, members[:, labels].sum(axis=1).tolist()
        ((3, 4), [1, 1, 1])
    """

    def __init__(
        self, inside: npt.NDArray[np.bool_], y_true: npt.NDArray[np.bool_], patients: Integers
    ) -> None:
        self._truth = y_true
        positive, negative, n_inside = (
            np.bincount(patients[images], minlength=patients.max() + 1)
            for images in (y_true, ~y_true, inside)
        )
        self._n_images = positive + negative
        self._images_by_patient = np.argsort(patients, kind="stable")
        # Group the patients whose images are all on one side by their numbers of images.
        on_one_side = (n_inside == 0) | (n_inside == self._n_images)
        kind = np.where(on_one_side, np.minimum(positive, 2) * 3 + np.minimum(negative, 2), 0)
        self._kinds = []
        for code in np.unique(kind[kind > 0]):
            members = np.flatnonzero(kind == code)
            self._kinds.append((members, int(np.count_nonzero(n_inside[members]))))
        # Order the images of patients who are on both sides by patient and class.
        owner = np.where(on_one_side[patients], -1, 2 * patients + y_true)
        self._mixed = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
        self._mixed_owner = owner[self._mixed]
        self._mixed_inside = inside[self._mixed]

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Draw random exchanges of patients between the group and all other images.

        The result is a mask for each exchange.

        Args:
            count: Number of exchanges to draw.
            rng: Random generator.

        Returns:
            True for the images that are inside after each exchange, shape ``(count, N)``.
        """
        drawn = [
            members[_subsets(len(members), n_inside, count, rng)]
            for members, n_inside in self._kinds
        ]
        patients = np.hstack([np.empty((count, 0), dtype=np.int64), *drawn])
        n_images = self._n_images[patients]
        rows = np.arange(count)
        # The images of each drawn patient follow one another in `_images_by_patient`.
        first_image = (np.cumsum(self._n_images) - self._n_images)[patients].ravel()
        shift = first_image - np.cumsum(n_images) + n_images.ravel()
        position = np.repeat(shift, n_images.ravel())
        position = position + np.arange(len(position))
        noise = rng.random((count, len(self._mixed_owner)))
        order = np.argsort(self._mixed_owner + noise, axis=1)
        mixed = self._mixed[order[:, self._mixed_inside]]
        images = np.append(self._images_by_patient[position], mixed)
        of_patients = np.repeat(rows, n_images.sum(axis=1))
        inside = np.zeros((count, len(self._truth)), dtype=bool)
        inside[np.append(of_patients, np.repeat(rows, mixed.shape[1])), images] = True
        return inside


def _subsets(n: int, k: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `k` of `n` numbers from 0 without replacement, `count` times, shape ``(count, k)``."""
    if 3 * k > n:
        return np.argpartition(rng.random((count, n)), k - 1, axis=1)[:, :k]
    drawn = rng.integers(n, size=(count, k))
    while True:
        drawn.sort(axis=1)
        repeated = np.nonzero(drawn[:, 1:] == drawn[:, :-1])
        if not len(repeated[0]):
            return drawn
        drawn[repeated] = rng.integers(n, size=len(repeated[0]))
