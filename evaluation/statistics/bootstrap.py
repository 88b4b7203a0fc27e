"""Patient-cluster bootstrap: the same resamples for every figure of every system.

Patients are drawn with replacement, all images of a drawn patient together.
A resample is a row of whole-number weights, one per patient, and a statistic takes a chunk of
rows at once, so no Python loop runs over the replicates and memory does not grow with them.
Along a ranking (`SegmentSums`, `RunningRows`) weights are small whole numbers, so sums of 16 bits
serve as long as they fit, and one running sum over all rows is searched for all rows at once.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.ranking import Floats, Integers

Name = TypeVar("Name", bound=Hashable)
Statistic = Callable[..., Mapping[Name, Floats]]
"""Patient weights ``(R, patients)`` in; figures by name out, each shape ``(R,)``.

What else the resamples bring comes second, shape ``(R, k)``.
"""

BOOTSTRAP = "patient-cluster bootstrap percentile"
LEVEL = 0.95
NO_WIDTH = "no interval: every bootstrap resample gave the same value"
_CHUNK_CELLS = 500_000
_ROUNDING = 1e-12
_SMALL = np.uint16
_MOST = 4095
"""A segment of no more boxes fits 16 bits as long as no weight is above 16."""
MOST_UNDEFINED = 0.1
"""With more resamples than this without a value, a figure gets no interval."""


@dataclass(frozen=True)
class Resamples:
    """A reproducible set of resamples of patients."""

    n_clusters: int  # number of patients
    n_replicates: int = 2000  # number of resamples
    seed: int = 0  # the same seed gives the same resamples, whatever they are used for
    stream: int = 0  # resamples of another number owe nothing to these, though the seed is the same

    def __repr__(self) -> str:
        return (
            f"<{self.n_replicates:,} resamples of {self.n_clusters:,} patients, seed {self.seed}>"
        )

    @property
    def method(self) -> str:
        """What an interval of these resamples is called, as in ``ci_method``."""
        return f"{BOOTSTRAP}, {self.n_replicates} resamples"

    def chunks(self) -> Iterator[npt.NDArray[np.int16]]:
        """Yield weights in chunks, together shape ``(n_replicates, n_clusters)``.

        Example:
            >>> weights = np.concatenate(list(Resamples(3, n_replicates=4).chunks()))
            >>> weights.shape, set(weights.sum(axis=1).tolist())
            ((4, 3), {3})
        """
        if self.n_clusters < 1:
            return
        rng = np.random.default_rng([self.seed, self.stream] if self.stream else self.seed)
        step = max(1, min(self.n_replicates, _CHUNK_CELLS // self.n_clusters))
        for start in range(0, self.n_replicates, step):
            rows = min(step, self.n_replicates - start)
            drawn = rng.integers(0, self.n_clusters, size=(rows, self.n_clusters))
            cells = drawn + np.arange(rows)[:, None] * self.n_clusters
            counts = np.bincount(cells.ravel(), minlength=rows * self.n_clusters)
            yield counts.reshape(rows, self.n_clusters).astype(np.int16)


def _thread_count() -> int:
    """Return the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cluster_bootstrap(
    statistic: Statistic[Name],
    resamples: Resamples,
    advance: Callable[[int], None] | None = None,
    beside: Floats | None = None,
) -> dict[Name, Floats]:
    """Compute figures on every resample, one chunk of them on each processor.

    Args:
        statistic: See `Statistic`; called from several threads, since numpy lets others work
            while it computes.
        resamples: Which patients count how often.
        advance: Called with the number of replicates done in each step.
        beside: What else each resample brings, such as its thresholds, shape
            ``(n_replicates, k)``; left out: nothing.

    Returns:
        Figures by name, each shape ``(n_replicates,)``, in the order of the resamples.

    Source:
        Field and Welsh 2007, the cluster bootstrap.

    Example:
        >>> from cxr_compare import metrics
        >>> draws = metrics.Resamples(2, 3)
        >>> totals = metrics.cluster_bootstrap(lambda w: {"n": w @ np.array([1.0, 1.0])}, draws)
        >>> totals["n"].tolist()
        [2.0, 2.0, 2.0]
    """
    parts: list[Mapping[Name, Floats]] = []
    workers = _thread_count()
    under_way: deque[tuple[int, Future[Mapping[Name, Floats]]]] = deque()

    def take() -> None:
        n_rows, part = under_way.popleft()
        parts.append(part.result())
        if advance is not None:
            advance(n_rows)

    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for weights in resamples.chunks():
            rest = [] if beside is None else [beside[done : done + len(weights)]]
            done += len(weights)
            under_way.append((len(weights), pool.submit(statistic, weights, *rest)))
            if len(under_way) > workers:
                take()
        while under_way:
            take()
    names = parts[0].keys() if parts else ()
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; NaN where one is unknown."""

    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""  # why it is undefined or has no interval, or what to know about it
    # Whether it has no interval because every resample gave the same value, or because that of the
    # resamples leaves the estimate out.
    unmoved: bool = field(default=False, repr=False, kw_only=True)
    shifted: bool = field(default=False, repr=False, kw_only=True)

    @classmethod
    def of_share(cls, share: float, trials: float, level: float = LEVEL) -> Self:
        """The exact interval of a share of so many trials, whole or not.

        Source:
            Clopper and Pearson 1934.
        """
        hits, misses, tail = share * trials, (1 - share) * trials, (1 - level) / 2
        inverse = scipy.special.betaincinv
        low = inverse(hits, misses + 1, tail) if hits > 0 else 0.0
        high = inverse(hits + 1, misses, 1 - tail) if misses > 0 else 1.0
        return cls(share, float(low), float(high))

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """A figure of a row of ``where.csv``, whatever the row is read as."""
        low, estimate, high = (
            math.nan if pd.isna(row[name]) else float(row[name])
            for name in ("ci_low", "estimate", "ci_high")
        )
        note = row["note"]
        return cls(estimate, low, high, note if isinstance(note, str) else "")

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return not math.isnan(self.estimate)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def excludes_zero(self) -> bool:
        """Whether estimate and interval lie on one side of 0, also as they are printed.

        An end that rounds to 0.000 does not exclude 0: no claim hangs on a digit that nobody sees.
        Nor is anything claimed where a percentile interval leaves its estimate on the other side.
        """
        if not (self.known and self.bounded):
            return False
        low, estimate, high = (round(each, 3) for each in (self.low, self.estimate, self.high))
        return min(low, estimate) > 0 or max(high, estimate) < 0

    @property
    def p_value(self) -> float | None:
        """Two-sided, of a true 0, by how far the interval reaches towards it."""
        reach = self.estimate - self.low if self.estimate > 0 else self.high - self.estimate
        if not (self.bounded and reach > 0):
            return None
        quantile = scipy.special.ndtri((1 + LEVEL) / 2)
        return float(2 * scipy.special.ndtr(-abs(self.estimate) / reach * quantile))

    def to_dict(self) -> dict[str, float | None]:
        """``estimate``, ``low`` and ``high`` for JSON, which knows no NaN: that is `None`."""
        ends = {"estimate": self.estimate, "low": self.low, "high": self.high}
        return {name: float(end) if math.isfinite(end) else None for name, end in ends.items()}

    def reversed(self) -> Interval:
        """Return the same difference, taken the other way round."""
        return Interval(-self.estimate, -self.high, -self.low, self.note)

    def minus(self, other: Interval, correlation: float = 0.0) -> Interval:
        """The difference of two figures; its interval follows from both, and needs both.

        Source:
            MOVER: Newcombe 1998; Zou and Donner 2008. The correlation is of the two figures.

        Example:
            >>> gap = Interval(1.0, 0.69, 1.0).minus(Interval(0.8, 0.7, 0.9))
            >>> round(gap.low, 3), round(gap.high, 3)
            (-0.126, 0.3)
        """
        gap = Interval(self.estimate - other.estimate, note=self.note or other.note)
        if not (self.bounded and other.bounded):
            return gap

        def reach(own: float, others: float) -> float:
            both = own**2 + others**2 - 2 * correlation * own * others
            return math.sqrt(max(both, 0.0))

        low = reach(self.estimate - self.low, other.high - other.estimate)
        high = reach(self.high - self.estimate, other.estimate - other.low)
        if correlation == 1 or not (low or high):
            return replace(gap, note=NO_WIDTH, unmoved=True)
        return replace(gap, low=gap.estimate - low, high=gap.estimate + high)


def percentile_interval(
    replicates: Floats, level: float = LEVEL, *, estimate: float = math.nan
) -> Interval:
    """The percentile interval of a figure's replicates, NaN where the figure was undefined.

    None where over 10 % are undefined, where it leaves the estimate out, or where it has no width:
    a figure that no resample moves is not known exactly, and the bootstrap cannot say how well.
    """
    defined = replicates[~np.isnan(replicates)]
    lost = len(replicates) - len(defined)
    if not len(defined) or lost > MOST_UNDEFINED * len(replicates):
        return Interval(estimate, note=f"undefined in {lost} of {len(replicates)} resamples")
    tail = round((1 - level) / 2, 12)  # 0.025, and not 0.025000000000000022
    low, high = np.quantile(defined, [tail, 1 - tail])
    if low == high:
        return Interval(estimate, note=NO_WIDTH, unmoved=True)
    if estimate < low - _ROUNDING or estimate > high + _ROUNDING:
        # As of ECE near 0: a resample adds noise to every bin, by which the mean gap only grows.
        note = (
            f"no interval: resampling itself shifts this figure (middle {100 * level:.4g} % of "
            f"resamples: {low:.3f} to {high:.3f})"
        )
        return Interval(estimate, note=note, shifted=True)
    note = f"undefined in {lost} of {len(replicates)} resamples, left out" if lost else ""
    return Interval(estimate, float(low), float(high), note)


def expanded_level(level: float, patients: float | None) -> float:
    """Coverage to ask of percentiles, so that they hold with few patients, too.

    Resamples of n patients vary by (n - 1) / n of the variance, and their tails are those of the
    normal distribution: percentiles further out make up for both.

    Source:
        Hesterberg 2015, "What teachers should know about the bootstrap", expanded percentiles.
    """
    if patients is None or not patients > 1:
        return level
    t = scipy.special.stdtrit(patients - 1, (1 + level) / 2)
    reach = math.sqrt(patients / (patients - 1)) * t
    return float(1 - 2 * scipy.special.ndtr(-reach))


def cluster_index(clusters: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], int]:
    """Number the clusters from 0 in sorted order, so that row order cannot change a resample."""
    names, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return index.astype(np.int64), len(names)


def per_cluster(values: npt.ArrayLike, clusters: Integers, n_clusters: int) -> Floats:
    """Sum columns of per-image values ``(N, K)`` over the images of each cluster.

    ``weights @ per_cluster(...)`` is then the counts of every resample.
    """
    table = np.asarray(values, dtype=np.float64)
    if len(table) != len(clusters):
        raise InputError(f"values of {len(table)} images, clusters of {len(clusters)}")
    ones = np.ones(len(clusters))
    membership = scipy.sparse.csr_matrix(
        (ones, (clusters, np.arange(len(clusters)))), shape=(n_clusters, len(clusters))
    )
    return np.asarray(membership @ table)


class SegmentSums:
    """How much weight lies in each segment of a ranking; `segment` and `clusters`: of each box."""

    def __init__(
        self, segment: Integers, clusters: Integers, n_segments: int, n_clusters: int
    ) -> None:
        boxes = np.bincount(segment, minlength=n_segments)
        self._crowded = np.flatnonzero(boxes > _MOST)
        crowded = boxes[segment] > _MOST
        shape = (n_segments, n_clusters)
        self._sparse = _table(segment[~crowded], clusters[~crowded], shape, _SMALL)
        place = np.searchsorted(self._crowded, segment[crowded])
        shape = (len(self._crowded), n_clusters)
        self._dense = _table(place, clusters[crowded], shape, np.float64)

    def __call__(self, weights: Integers) -> npt.NDArray[Any]:
        """The weight in each segment, shape ``(R, n_segments)``, row by row in memory."""
        fits = _MOST * int(weights.max(initial=1)) <= np.iinfo(_SMALL).max
        kind: type = _SMALL if fits else np.float64  # whole numbers below 2 ** 53 are exact in it
        columns: npt.NDArray[Any] = np.ascontiguousarray(weights.T, dtype=kind)
        sums = np.ascontiguousarray((self._sparse.astype(kind, copy=False) @ columns).T)
        if len(self._crowded):
            sums = sums.astype(np.int64)
            sums[:, self._crowded] = (self._dense @ columns.astype(np.float64)).T
        return sums


def _table(
    segment: Integers, clusters: Integers, shape: tuple[int, int], kind: type
) -> scipy.sparse.csr_matrix:
    """How many boxes a cluster has in each segment."""
    ones = np.ones(len(segment), dtype=np.int64)
    return scipy.sparse.csr_matrix((ones, (segment, clusters)), shape=shape).astype(kind)


class RunningRows:
    """Running sums along rows of whole numbers, none below 0, shape ``(R, n)``."""

    def __init__(self, counts: npt.NDArray[Any]) -> None:
        self._shape = counts.shape
        # On over the ends of the rows: it rises throughout, so that one search serves all.
        self._all = np.cumsum(counts, dtype=np.int64)
        n_rows, length = counts.shape
        ends = self._all[length - 1 :: length] if length else np.zeros(n_rows, dtype=np.int64)
        self._before = np.append(0, ends)[:n_rows, None]

    @property
    def sums(self) -> npt.NDArray[np.int64]:
        """The running sums, shape ``(R, n)``."""
        return self._all.reshape(self._shape) - self._before

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each row starts in the rows laid end to end, shape ``(R, 1)``."""
        return np.arange(self._shape[0])[:, None] * self._shape[1]

    def place(
        self, sought: npt.NDArray[Any], side: Literal["left", "right"] = "left"
    ) -> npt.NDArray[np.int64]:
        """Where values belong in their row, as `numpy.searchsorted` says.

        Shapes: `sought`, returned ``(R, k)``.
        """
        values = (sought + self._before).astype(np.int64)
        found = np.searchsorted(self._all, values.ravel(), side=side).reshape(values.shape)
        return np.clip(found - self.starts, 0, self._shape[1])


_Band = tuple[Floats, Floats]
"""The low and the high end at each place; NaN where no resample has a value."""


def roc_band(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, patients: npt.ArrayLike, at: Floats,
    *, resamples: int = 500, seed: int = 0,
) -> _Band:  # fmt: skip
    """Return the 95 % band of sensitivity at each false positive rate.

    Each resample of patients gives a curve, its points joined by straight lines; the band holds
    the middle 95 % of their sensitivities at each rate (vertical averaging). Resamples of one
    label are left out.

    Shapes: `y_true`, `y_score`, `patients` ``(N,)``; `at` ``(M,)``.

    Source:
        Vertical averaging: Fawcett 2006, An introduction to ROC analysis, algorithm 3.
    """
    scores = np.asarray(y_score, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # ties move together
    positive = np.asarray(y_true, dtype=bool)[order]
    of, count = cluster_index(np.asarray(patients)[order])
    curves = []
    for weights in Resamples(count, resamples, seed).chunks():
        drawn = weights[:, of].astype(np.int64)  # (R, N)
        true, false = (
            np.pad(np.cumsum(drawn * chosen, axis=1)[:, ends], ((0, 0), (1, 0)))
            for chosen in (positive, ~positive)
        )
        curves += [
            np.interp(at, x / x[-1], y / y[-1])
            for x, y in zip(false, true, strict=True)
            if x[-1] and y[-1]
        ]
    return _middle(np.array(curves).reshape(-1, len(at)))


def share_band(
    y_true: npt.ArrayLike, groups: Integers, patients: npt.ArrayLike,
    *, resamples: int = 500, seed: int = 0,
) -> _Band:  # fmt: skip
    """Return the 95 % band of the share of positives in each group of images.

    Of 0 and 1, which no resample moves, it is the exact interval with patients as trials.

    Shapes: `y_true`, `groups`, `patients` ``(N,)``.
    """
    of, count = cluster_index(patients)
    size = np.zeros((count, int(np.max(groups)) + 1))
    positive = size.copy()
    np.add.at(size, (of, groups), 1)
    np.add.at(positive, (of, groups), np.asarray(y_true, dtype=np.float64))
    parts = [
        np.divide(weights @ positive, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
        for weights in Resamples(count, resamples, seed).chunks()
        for whole in [weights @ size]
    ]
    low, high = _middle(np.concatenate(parts))
    counted, whole = positive.sum(axis=0), size.sum(axis=0)
    for group in np.flatnonzero((whole > 0) & np.isin(counted / np.maximum(whole, 1), (0, 1))):
        exact = Interval.of_share(float(counted[group] > 0), float((size[:, group] > 0).sum()))
        low[group], high[group] = exact.low, exact.high
    return low, high


def _middle(values: Floats) -> _Band:
    """The ends of the middle 95 % of each column of ``(R, M)``, without what is undefined."""
    if not len(values):
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    known = ~np.isnan(values).all(axis=0)
    ends = np.full((2, values.shape[1]), np.nan)
    tail = (1 - LEVEL) / 2
    ends[:, known] = np.nanquantile(values[:, known], (tail, 1 - tail), axis=0)
    return ends[0], ends[1]


MOST_FOLDS = 5


_HASH_KEY = "0" * 16


def patient_folds(
    patients: npt.NDArray[np.str_], y_true: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Assign patients to folds: all images of a patient are in one.

    With labels, patients with a positive image and the others are each assigned in turn, in the
    order of a digest of their name: the folds are balanced, and the same on every machine and in
    any order of rows. Without, the fold is a hash of the name: the same whoever else is there.

    With labels there are as many folds as both kinds have patients, at most 5; without always 5.
    """
    if y_true is None:
        hashes = pd.util.hash_array(np.asarray(patients, dtype=object), hash_key=_HASH_KEY)
        return (hashes % MOST_FOLDS).astype(np.int64)
    names, owner = np.unique(patients, return_inverse=True)
    positive = np.bincount(owner, weights=y_true) > 0
    n_folds = min(MOST_FOLDS, int(positive.sum()), int((~positive).sum()))
    if n_folds < 2:
        raise InputError(
            f"validation has {int(positive.sum())} patients with and {int((~positive).sum())} "
            "without a positive image; folds need two of each: tune without --calibration choose"
        )
    digests = np.array([hashlib.sha256(str(name).encode()).hexdigest() for name in names])
    fold = np.zeros(len(names), dtype=np.int64)
    for kind in (positive, ~positive):
        members = np.flatnonzero(kind)
        fold[members[np.argsort(digests[members])]] = np.arange(len(members)) % n_folds
    return fold[owner]
