"""McNemar test of two systems' decisions on images that come in patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.notebook import html_table
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import cluster_index, per_cluster
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import (
    effective_patients,
    satterthwaite_freedom,
    without_leverage,
)
from cxr_compare.evaluation.statistics.figure_text import (
    number,
    p_equation,
    p_value_text,
    range_text,
)
from cxr_compare.evaluation.statistics.intervals import NO_WIDTH
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds

_MCNEMAR = "Obuchowski 1998, clustered by patient"


@dataclass(frozen=True)
class McNemar:
    """Two systems' decisions on the same images."""

    # share right of the first minus that of the second, with the clustered standard error
    difference: ClusteredEstimate
    p_value: float | None  # of equal shares, by patient; `None` where no patient tells them apart
    p_exact: float | None  # likewise, images taken as independent; `None` with several seeds
    first_only: float  # images that only the first gets right, a mean over seeds
    second_only: float  # images that only the second gets right
    n_images: int

    def __repr__(self) -> str:
        return "; ".join([f"{self._difference}, {p_equation(self.p_value)}", *self._rest])

    def _repr_html_(self) -> str:
        rows = {"Difference of shares right": self._difference, "p": p_value_text(self.p_value)}
        if self.p_exact is not None:
            rows["p, images independent (exact)"] = p_value_text(self.p_exact)
        rows["Right with the first alone"] = f"{self.first_only:g} images"
        rows["Right with the second alone"] = f"{self.second_only:g} images"
        rows["Images"] = f"{self.n_images:,}"
        return html_table({**rows, "Method": _MCNEMAR})

    @property
    def _difference(self) -> str:
        ends = self.difference.interval
        span = f"95 % CI {range_text(*ends)}" if ends else self.difference.note or "no interval"
        return f"{number(self.difference.value)} ({span})"

    @property
    def _rest(self) -> list[str]:
        alone = f"{self.first_only:g} to {self.second_only:g} of {self.n_images:,} images"
        exact = [] if self.p_exact is None else [f"images independent: {p_equation(self.p_exact)}"]
        return [_MCNEMAR, *exact, f"right with one alone: {alone}"]


def mcnemar_test(
    first_right: npt.ArrayLike, second_right: npt.ArrayLike, patients: npt.ArrayLike
) -> McNemar:
    """Clustered McNemar test of Obuchowski (1998), with the exact one beside it.

    Of all images it is a test of accuracy, of the positive ones of sensitivity, of the negative
    ones of specificity.

    Args:
        first_right: Whether the first system gets each image right, shape ``(N,)``.
        second_right: The same of the second.
        patients: A name per image, shape ``(N,)``.

    Raises:
        InputError: The three disagree about the number of images, or there is none.

    Source:
        Obuchowski 1998, "On the comparison of correlated proportions for clustered data", in the
        form of Yang, Sun and Hardin 2010; McNemar 1947.

    Example:
        >>> from cxr_compare import metrics
        >>> test = metrics.mcnemar_test([1, 1, 1, 0], [1, 0, 0, 0], ["a", "b", "c", "d"])
        >>> test.difference.value, test.first_only, test.p_exact
        (0.5, 2.0, 0.5)
    """
    owner, count = cluster_index(patients)
    right = [np.asarray(each, dtype=np.float64) for each in (first_right, second_right)]
    if not len(owner) or any(each.shape != owner.shape for each in right):
        raise InputError(
            f"a paired test needs one decision a system and image, got {right[0].shape} and "
            f"{right[1].shape} for {len(owner)} images"
        )
    return clustered_mcnemar(right[0], right[1], owner, count)


def clustered_mcnemar(
    first_right: Floats, second_right: Floats, clusters: Integers, n_clusters: int
) -> McNemar:
    """As `mcnemar_test`, of patients that are numbered already.

    With ``d`` a patient's images right for the first only, less those right for the second only,
    ``N`` images and ``K`` patients, the variance under equal shares is ``K / (K - 1) x sum of
    d^2 / N^2`` (the pooled share cancels). Around the observed difference ``D`` it is the sum of
    ``((d - n D) / N)^2`` for a patient of ``n`` images, each corrected for its share of the
    images (`without_leverage`); with equal shares that is ``K / (K - 1)`` times the plain sum.
    The interval is Student's t with the patients' degrees of freedom.

    Right is 1, shape ``(N,)``, or of each of several seeds, ``(seeds, N)``: then difference and
    test are those of Obuchowski and Rockette.
    """
    seeds = [np.atleast_2d(first_right), np.atleast_2d(second_right)]
    several = max(map(len, seeds)) > 1
    gap = np.asarray(seeds[0].mean(axis=0) - seeds[1].mean(axis=0), dtype=np.float64)
    table = per_cluster(np.column_stack([gap, np.ones(len(gap))]), clusters, n_clusters)
    table = table[table[:, 1] > 0]
    difference = float(gap.mean())
    first_only, second_only = float(gap[gap > 0].sum()), abs(float(gap[gap < 0].sum()))
    p_exact = _exact_mcnemar(int(first_only), int(second_only)) if not several else None
    if len(table) < 2:
        alone = ClusteredEstimate(difference, None, note="one patient gives no interval")
        return McNemar(alone, None, p_exact, first_only, second_only, len(gap))
    scale = len(table) / (len(table) - 1) / len(gap) ** 2
    added = (table[:, 0] - difference * table[:, 1]) / len(gap)
    added = without_leverage(added, table[:, 1])
    effective = effective_patients(table[:, 1])
    freedom = min(effective - 1, satterthwaite_freedom(added)) if added.any() else effective - 1
    if several:
        estimate = _of_seeds(seeds, clusters, n_clusters, freedom)
        return McNemar(estimate, estimate.p_value, None, first_only, second_only, len(gap))
    under_equal = scale * float((table[:, 0] ** 2).sum())
    total = float((added**2).sum())
    estimate = (
        ClusteredEstimate(difference, float(np.sqrt(total)), freedom, effective_patients=effective)
        if total > 0
        else ClusteredEstimate(difference, None, note=NO_WIDTH, effective_patients=effective)
    )
    p_value = None
    if under_equal > 0:
        p_value = float(2 * scipy.special.ndtr(-abs(difference) / np.sqrt(under_equal)))
    return McNemar(estimate, p_value, p_exact, first_only, second_only, len(gap))


def _of_seeds(
    systems: Sequence[Floats], clusters: Integers, n_clusters: int, freedom: float
) -> ClusteredEstimate:
    """The difference of two shares right, each the mean over seeds, shape ``(seeds, N)``."""
    right = np.concatenate(list(systems))
    images = per_cluster(np.ones((right.shape[1], 1)), clusters, n_clusters)[:, 0]
    around = per_cluster((right - right.mean(axis=1, keepdims=True)).T, clusters, n_clusters)
    held = images > 0
    columns = np.column_stack(
        [without_leverage(of / right.shape[1], images[held]) for of in around[held].T]
    )
    values = [seeds.mean(axis=1).tolist() for seeds in systems]
    return estimate_over_seeds(values, columns.T @ columns, freedom)


def _exact_mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value of McNemar's test, images taken as independent."""
    n = first_only + second_only
    return min(1.0, 2 * float(scipy.special.bdtr(min(first_only, second_only), n, 0.5)))
