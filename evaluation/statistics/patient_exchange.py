"""Permutation test of a group of images against all other images, by exchanging patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_BATCH = 1000  # exchanges between two checks of whether more are needed
_MOST_EXCHANGES = 20_000
_ENOUGH = 10  # no more exchanges are drawn after so many with at least as large a gap
_CELLS = 2_000_000  # entries (images inside the group, over all exchanges) in memory at once
_ROUNDING = 1e-9


class Exchanges(NamedTuple):
    """Result of random exchanges of patients between a group of images and all other images.

    The exchanges are those of a permutation test. The object lists, for each exchange, the images
    that are inside the group afterwards. Entry k says that image ``image[k]`` is inside the group
    after exchange ``row[k]``.

    Attributes:
        n: Number of exchanges.
        row: Number of the exchange of each entry, from 0, shape ``(entries,)``.
        image: Position of the image of each entry among all N images, from 0, shape ``(entries,)``.
    """

    n: int
    row: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]

    def sums(self, values: npt.NDArray[Any]) -> Floats:
        """Sum the values of the images that are inside the group after each exchange.

        Args:
            values: Values of all images, shape ``(N,)``.

        Returns:
            Sums, shape ``(n,)``.
        """
        return np.bincount(self.row, values[self.image], self.n).astype(np.float64)


Gap = Callable[[Exchanges], Floats]
"""Function from exchanges to a figure of the images inside minus that outside, shape ``(n,)``."""


class ExchangedPatients:
    """Random exchanges of patients between a group of images and all others (permutation test).

    A patient is exchanged with patients who have a similar number (0, 1, more) of positive and of
    negative images, so the numbers of both sides stay similar. A patient with images on both sides
    keeps the number of images of each class on either side; which images these are is drawn at
    random. The time of an exchange is proportional to the number of images inside.

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
        self._inside = np.flatnonzero(inside)
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

        The result is in the form of masks, one for each exchange.

        Args:
            count: Number of exchanges to draw.
            rng: Random generator.

        Returns:
            True for the images that are inside after each exchange, shape ``(count, N)``.
        """
        members = np.zeros((count, len(self._truth)), dtype=bool)
        exchanges = self.draw_exchanges(count, rng)
        members[exchanges.row, exchanges.image] = True
        return members

    def draw_exchanges(self, count: int, rng: np.random.Generator) -> Exchanges:
        """Draw random exchanges of patients between the group and all other images.

        The result lists the images that are inside the group after each exchange. The functions
        that `auroc_gap` returns take it in this form.

        Args:
            count: Number of exchanges to draw.
            rng: Random generator. In the same state it gives `draw` the same exchanges.

        Returns:
            Lists of the images that are inside the group after each exchange.
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
        return Exchanges(
            count,
            np.append(np.repeat(rows, n_images.sum(axis=1)), np.repeat(rows, mixed.shape[1])),
            np.append(self._images_by_patient[position], mixed),
        )

    def auroc_gap(self, scores: Floats) -> Gap:
        """Return a function that computes the AUROC inside minus that outside the group.

        The AUROC outside is computed from the AUROC of all images and from the pairs with an image
        inside.

        Args:
            scores: Scores of all images, shape ``(N,)``.

        Returns:
            Function whose argument is an `Exchanges` object and which returns one difference for
            each exchange, shape ``(n,)``; NaN if the images inside or those outside lack a class.
        """
        truth = self._truth
        ranks = np.unique(scores, return_inverse=True)[1]
        n_ranks = ranks.max() + 1
        positives_at, negatives_at = (
            np.bincount(ranks[of_class], minlength=n_ranks) for of_class in (truth, ~truth)
        )
        # Number of images below each rank; a tie counts half.
        positives_below = np.cumsum(positives_at) - positives_at / 2
        negatives_below = np.cumsum(negatives_at) - negatives_at / 2
        n_positive = positives_at.sum()
        n_negative = negatives_at.sum()
        won = np.where(truth, negatives_below[ranks], n_positive - positives_below[ranks])

        def gap(exchanges: Exchanges) -> Floats:
            # Ranks of later exchanges lie above those of earlier ones, so one search serves all.
            position = exchanges.row * n_ranks + ranks[exchanges.image]
            is_positive = truth[exchanges.image]
            positive = exchanges.sums(truth)
            negative = exchanges.sums(~truth)
            rivals = np.sort(position[~is_positive])
            below = np.searchsorted(rivals, position[is_positive], side="left")
            upto = (below + np.searchsorted(rivals, position[is_positive], side="right")) / 2
            earlier = positive * (np.cumsum(negative) - negative)
            won_inside = np.bincount(exchanges.row[is_positive], upto, exchanges.n) - earlier
            won_outside = won[truth].sum() - exchanges.sums(won) + won_inside
            pairs_outside = (n_positive - positive) * (n_negative - negative)
            return np.asarray(won_inside / (positive * negative) - won_outside / pairs_outside)

        return gap

    def share_gap(self, counted: Floats, exchanges: Exchanges) -> Floats:
        """Compute, for exchanges, the share of counted images inside minus that outside the group.

        Args:
            counted: 1 for the images that count, such as those that are called positive, 0 for the
                others, shape ``(N,)``.
            exchanges: The exchanges for which the difference is computed.

        Returns:
            One difference for each exchange, shape ``(n,)``.
        """
        hits = exchanges.sums(counted)
        size = np.bincount(exchanges.row, minlength=exchanges.n)
        return np.asarray(hits / size - (counted.sum() - hits) / (len(counted) - size))

    def p_values(self, gaps: Mapping[str, Sequence[Gap]], seed: int = 0) -> dict[str, float]:
        """Test, for each system (model), whether a metric differs between the group and the others.

        The metric inside the group minus that outside is called the gap. A system's gap is the mean
        over its training seeds. Differences between the gaps of two systems are tested as well.

        Exchanges are drawn until each tested number has had at least as large an absolute value in
        10 of them; there are about 1,000 exchanges at least and 20,000 at most. A gap that is
        undefined in an exchange counts as large. The p-value is NaN if the gap of the original
        images is undefined.

        Args:
            gaps: For each system by its name, one function for each training seed that computes the
                gap from an `Exchanges` object, such as the result of `auroc_gap`.
            seed: Random seed of the exchanges.

        Returns:
            p-values by name of the system, and by ``"first - other"`` for the gap of the first
            system minus that of each other system.

        Source:
            Besag and Clifford 1991 (when to stop); Davison and Hinkley 1997, section 4.3.
        """

        def absolute_gaps(exchanges: Exchanges) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                seeds = [[gap(exchanges) for gap in of_system] for of_system in gaps.values()]
            means = np.transpose([np.mean(of_system, axis=0) for of_system in seeds])
            return np.abs(np.hstack([means, means[:, :1] - means[:, 1:]]))

        rng = np.random.default_rng(seed)
        first, *others = gaps
        names = [*gaps, *(f"{first} - {other}" for other in others)]
        as_they_are = Exchanges(1, np.zeros_like(self._inside), self._inside)
        observed = absolute_gaps(as_they_are)[0] - _ROUNDING
        defined = ~np.isnan(observed)
        at_least_as_large = np.zeros(len(observed))
        done = 0
        rows = max(1, min(_BATCH, _CELLS // len(self._inside)))
        while done < _BATCH or (
            done < _MOST_EXCHANGES and (at_least_as_large[defined] < _ENOUGH).any()
        ):
            smaller = absolute_gaps(self.draw_exchanges(rows, rng)) < observed
            at_least_as_large += (~smaller).sum(axis=0)
            done += rows
        p_values = np.where(defined, (at_least_as_large + 1) / (done + 1), np.nan)
        return dict(zip(names, p_values.tolist(), strict=True))


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
