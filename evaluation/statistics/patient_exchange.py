"""Permutation test of a group of images against all others, by exchanging patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_BATCH, _MOST_EXCHANGES, _ENOUGH = 1000, 20_000, 10


_CELLS = 2_000_000


_ROUNDING = 1e-9


class _Exchanges(NamedTuple):
    """Which images are inside after each of `n` exchanges, exchange by exchange."""

    n: int
    row: npt.NDArray[np.int64]  # number of the exchange, of each image inside
    image: npt.NDArray[np.int64]

    def sums(self, values: npt.NDArray[Any]) -> Floats:
        """Sums over the images inside, shape ``(n,)``."""
        return np.bincount(self.row, values[self.image], self.n).astype(np.float64)


_Gap = Callable[[_Exchanges], Floats]
"""A figure of the images inside minus that of all others, ``(n,)``."""


class ExchangedPatients:
    """Patients who change places between a group of images and all others.

    They change places who have like numbers (0, 1, more) of positive and of negative images, so
    both sides keep theirs. A patient with images on both sides keeps the number of each class on
    either; which of them these are is drawn. An exchange takes the time of the images inside.

    Shapes: `inside` (the group), `y_true`, `patients` (an index from 0) ``(N,)``.
    """

    def __init__(
        self, inside: npt.NDArray[np.bool_], y_true: npt.NDArray[np.bool_], patients: Integers
    ) -> None:
        self._truth, self._inside = y_true, np.flatnonzero(inside)
        positive, negative, n_inside = (
            np.bincount(patients[of], minlength=patients.max() + 1)
            for of in (y_true, ~y_true, inside)
        )
        self._images, self._by_patient = positive + negative, np.argsort(patients, kind="stable")
        whole = (n_inside == 0) | (n_inside == self._images)
        kind = np.where(whole, np.minimum(positive, 2) * 3 + np.minimum(negative, 2), 0)
        alike = [np.flatnonzero(kind == like) for like in np.unique(kind[kind > 0])]
        self._alike = [(who, int(np.count_nonzero(n_inside[who]))) for who in alike]
        owner = np.where(whole[patients], -1, 2 * patients + y_true)
        self._mixed = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
        self._owner, self._mixed_inside = owner[self._mixed], inside[self._mixed]

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Which images are inside after so many exchanges, shape ``(count, N)``."""
        members, drawn = np.zeros((count, len(self._truth)), dtype=bool), self._draw(count, rng)
        members[drawn.row, drawn.image] = True
        return members

    def _draw(self, count: int, rng: np.random.Generator) -> _Exchanges:
        drawn = [who[_subsets(len(who), inside, count, rng)] for who, inside in self._alike]
        patients = np.hstack([np.empty((count, 0), dtype=np.int64), *drawn])
        size, rows = self._images[patients], np.arange(count)
        before = (np.cumsum(self._images) - self._images)[patients].ravel()
        place = np.repeat(before - np.cumsum(size) + size.ravel(), size.ravel())
        order = np.argsort(self._owner + rng.random((count, len(self._owner))), axis=1)
        mixed = self._mixed[order[:, self._mixed_inside]]
        return _Exchanges(
            count,
            np.append(np.repeat(rows, size.sum(axis=1)), np.repeat(rows, mixed.shape[1])),
            np.append(self._by_patient[place + np.arange(len(place))], mixed),
        )

    def auroc_gap(self, scores: Floats) -> _Gap:
        """Of AUROC; what is outside follows from all images and those inside."""
        truth, ranks = self._truth, np.unique(scores, return_inverse=True)[1]
        at = [np.bincount(ranks[of], minlength=ranks.max() + 1) for of in (truth, ~truth)]
        positive_below, negative_below = (np.cumsum(n) - n / 2 for n in at)
        n_positive, n_negative = (n.sum() for n in at)
        won = np.where(truth, negative_below[ranks], n_positive - positive_below[ranks])

        def gap(drawn: _Exchanges) -> Floats:
            place = drawn.row * (ranks.max() + 1) + ranks[drawn.image]
            of, positive, negative = truth[drawn.image], drawn.sums(truth), drawn.sums(~truth)
            rivals = np.sort(place[~of])  # those of earlier exchanges are below all
            upto = sum(np.searchsorted(rivals, place[of], side=s) for s in ("left", "right")) / 2
            earlier = positive * (np.cumsum(negative) - negative)
            inside = np.bincount(drawn.row[of], upto, drawn.n) - earlier
            outside = won[truth].sum() - drawn.sums(won) + inside
            pairs = (n_positive - positive) * (n_negative - negative)
            return np.asarray(inside / (positive * negative) - outside / pairs)

        return gap

    def share_gap(self, counted: Floats, drawn: _Exchanges) -> Floats:
        """The share of images that count inside minus that outside, ``(n,)``."""
        hits, size = drawn.sums(counted), np.bincount(drawn.row, minlength=drawn.n)
        return np.asarray(hits / size - (counted.sum() - hits) / (len(counted) - size))

    def p_values(self, gaps: Mapping[str, Sequence[_Gap]], seed: int = 0) -> dict[str, float]:
        """Two-sided p-values of gaps, the mean over seeds, of systems and of the first minus each.

        Patients are exchanged until 10 exchanges give at least as large a gap of each, 20,000
        times at most. A gap that is undefined counts as large in an exchange, and has no p-value
        where it is that of the images as they are.

        Source:
            Besag and Clifford 1991, when to stop; Davison and Hinkley 1997, section 4.3.
        """

        def sizes(drawn: _Exchanges) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                seeds = [[gap(drawn) for gap in of_system] for of_system in gaps.values()]
            means = np.transpose([np.mean(each, axis=0) for each in seeds])
            return np.abs(np.hstack([means, means[:, :1] - means[:, 1:]]))

        rng, (first, *others) = np.random.default_rng(seed), gaps
        as_they_are = _Exchanges(1, np.zeros_like(self._inside), self._inside)
        least = sizes(as_they_are)[0] - _ROUNDING
        known, extreme, done = ~np.isnan(least), np.zeros(len(least)), 0
        rows = max(1, min(_BATCH, _CELLS // len(self._inside)))
        while done < _BATCH or (done < _MOST_EXCHANGES and (extreme[known] < _ENOUGH).any()):
            extreme += (~(sizes(self._draw(rows, rng)) < least)).sum(axis=0)
            done += rows
        p_values = np.where(known, (extreme + 1) / (done + 1), np.nan).tolist()
        return dict(zip([*gaps, *(f"{first} - {n}" for n in others)], p_values, strict=True))


def _subsets(n: int, k: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `k` of `n` numbers from 0 without replacement, so many times, ``(count, k)``."""
    if 3 * k > n:
        return np.argpartition(rng.random((count, n)), k - 1, axis=1)[:, :k]
    drawn = rng.integers(n, size=(count, k))
    while True:
        drawn.sort(axis=1)
        twice = np.nonzero(drawn[:, 1:] == drawn[:, :-1])
        if not len(twice[0]):
            return drawn
        drawn[twice] = rng.integers(n, size=len(twice[0]))
