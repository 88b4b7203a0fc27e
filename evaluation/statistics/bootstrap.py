"""Patient-cluster bootstrap: the same resamples for every figure of every system.

Patients are drawn with replacement, all images of a drawn patient together. A resample is a row of
whole-number weights, one weight per patient. A statistic takes a chunk of rows at once, so no
Python loop runs over the replicates and memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

BOOTSTRAP = "patient-cluster bootstrap percentile"
"""Name of the method, as in the column ``method``."""
_CHUNK_CELLS = 500_000  # most weights (resamples x patients) of a chunk
_FEWEST_CHUNKS = 4  # so that never all resamples are in memory


@dataclass(frozen=True)
class Resamples:
    """Reproducible random samples of patients, drawn with replacement (bootstrap).

    Attributes:
        n_clusters: Number of patients.
        n_replicates: Number of resamples; each draws as many patients as there are.
        seed: Random seed. The same seed gives the same resamples, whatever they are used for.
        stream: Number of the stream of random numbers. Resamples with the same seed and another
            stream are independent of each other.

    Examples:
        >>> from cxr_compare import metrics
        >>> metrics.Resamples(n_clusters=120, seed=1)
        <2,000 resamples of 120 patients, seed 1>
    """

    n_clusters: int
    n_replicates: int = 2000
    seed: int = 0
    stream: int = 0

    def __repr__(self) -> str:
        return (
            f"<{self.n_replicates:,} resamples of {self.n_clusters:,} patients, seed {self.seed}>"
        )

    def chunks(self) -> Iterator[npt.NDArray[np.int16]]:
        """Yield the weights of the patients in every resample, some resamples at a time.

        The weight of a patient is the number of times that the resample drew this patient.

        Yields:
            Weights of one chunk, shape ``(rows, n_clusters)``; all chunks together have
            ``n_replicates`` rows.

        Examples:
            >>> import numpy as np
            >>> from cxr_compare import metrics
            >>> weights = np.concatenate(list(metrics.Resamples(3, n_replicates=4).chunks()))
            >>> weights.shape, set(weights.sum(axis=1).tolist())
            ((4, 3), {3})
        """
        if self.n_clusters < 1:
            return
        rng = np.random.default_rng([self.seed, self.stream] if self.stream else self.seed)
        most = -(-self.n_replicates // _FEWEST_CHUNKS)
        step = max(1, min(most, _CHUNK_CELLS // self.n_clusters))
        for start in range(0, self.n_replicates, step):
            rows = min(step, self.n_replicates - start)
            drawn = rng.integers(0, self.n_clusters, size=(rows, self.n_clusters))
            cells = drawn + np.arange(rows)[:, None] * self.n_clusters
            counts = np.bincount(cells.ravel(), minlength=rows * self.n_clusters)
            yield counts.reshape(rows, self.n_clusters).astype(np.int16)


def cluster_bootstrap(
    statistic: Callable[[Integers], Mapping[str, Floats]], resamples: Resamples
) -> dict[str, Floats]:
    """Compute statistics, such as an AUROC, on every bootstrap resample of the patients.

    `statistic` takes weights of the patients (how often each resample drew each patient), shape
    ``(R, patients)``, to the values of each figure by its name, shape ``(R,)``. The result has
    these of all resamples, in their order.

    Source:
        Field and Welsh 2007, on the cluster bootstrap.

    Examples:
        >>> import numpy as np
        >>> from cxr_compare import metrics
        >>> draws = metrics.Resamples(2, 3)
        >>> totals = metrics.cluster_bootstrap(lambda w: {"n": w @ np.array([1.0, 1.0])}, draws)
        >>> totals["n"].tolist()
        [2.0, 2.0, 2.0]
    """
    parts = [statistic(weights) for weights in resamples.chunks()]
    names = parts[0] if parts else ()
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def cluster_index(clusters: npt.ArrayLike) -> tuple[Integers, int]:
    """Number the patients from 0 in the order of their names, and count them.

    The order of the rows has no influence on the numbers, so it cannot change a resample.

    Examples:
        >>> index, count = cluster_index(["b", "a", "b"])
        >>> index.tolist(), count
        ([1, 0, 1], 2)
    """
    names, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return index.astype(np.int64), len(names)


def per_cluster(values: npt.ArrayLike, clusters: Integers, n_clusters: int) -> Floats:
    """Sum K values of each image, shape ``(N, K)``, over the images of each patient, ``(P, K)``.

    For the weights of resampled patients, ``weights @ per_cluster(...)`` then gives the sums of
    every resample. A patient without an image has 0. InputError if `values` and `clusters` differ
    in length.

    Examples:
        >>> per_cluster([[1.0], [2.0], [4.0]], np.array([0, 1, 0]), 2).tolist()
        [[5.0], [2.0]]
    """
    table = np.asarray(values, dtype=np.float64)
    if len(table) != len(clusters):
        raise InputError(f"values of {len(table)} images, clusters of {len(clusters)}")
    sums = np.empty((n_clusters, table.shape[1]))
    for column, of_column in zip(table.T, sums.T, strict=True):
        of_column[:] = np.bincount(clusters, column, n_clusters)
    return sums
