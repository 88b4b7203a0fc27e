"""Patient-cluster bootstrap: the same resamples for every figure of every system.

Patients are drawn with replacement, all images of a drawn patient together.
A resample is a row of whole-number weights, one per patient, and a statistic takes a chunk of
rows at once, so no Python loop runs over the replicates and memory does not grow with them.
Along a ranking (`SegmentSums`, `RunningRows`) weights are small whole numbers, so sums of 16 bits
serve as long as they fit, and one running sum over all rows is searched for all rows at once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

Name = TypeVar("Name", bound=Hashable)


Statistic = Callable[..., Mapping[Name, Floats]]
"""Patient weights ``(R, patients)`` in; figures by name out, each shape ``(R,)``.

What else the resamples bring comes second, shape ``(R, k)``.
"""


BOOTSTRAP = "patient-cluster bootstrap percentile"


_CHUNK_CELLS = 500_000


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
