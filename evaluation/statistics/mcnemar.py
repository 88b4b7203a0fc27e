"""Paired decisions: do two systems get different images right, and is it more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr

from data_prep.contracts.errors import InputError
from evaluation.statistics.auroc_variance import (
    ClusteredEstimate,
    SeedSpread,
    add_seeds,
    effective_patients,
    freedom_of,
    without_leverage,
)
from evaluation.statistics.bootstrap import NO_WIDTH, cluster_index, per_cluster
from evaluation.statistics.ranking import Floats, Integers


@dataclass(frozen=True)
class McNemar:
    """Two systems' decisions on the same images.

    Attributes:
        difference: Share right of the first minus that of the second, with the clustered
            standard error of the observed difference.
        p_value: Of equal shares, by patient; `None` where no patient tells the two apart.
        p_exact: Of equal shares, images taken as independent; `None` with several seeds.
        first_only: Images that only the first gets right (a mean over seeds).
        second_only: Images that only the second gets right.
        n_images: How many images.
    """

    difference: ClusteredEstimate
    p_value: float | None
    p_exact: float | None
    first_only: float
    second_only: float
    n_images: int


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
        >>> test = mcnemar_test([1, 1, 1, 0], [1, 0, 0, 0], ["a", "b", "c", "d"])
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
    first_right: Floats,
    second_right: Floats,
    clusters: Integers,
    n_clusters: int,
    seeds: Sequence[SeedSpread] = (),
) -> McNemar:
    """As `mcnemar_test`, of patients that are numbered already.

    With ``d`` a patient's images right for the first only, less those right for the second only,
    ``N`` images and ``K`` patients, the variance under equal shares is ``K / (K - 1) x sum of
    d^2 / N^2`` (the pooled share cancels). Around the observed difference ``D`` it is the sum of
    ``((d - n D) / N)^2`` for a patient of ``n`` images, each corrected for its share of the
    images (`without_leverage`); with equal shares that is ``K / (K - 1)`` times the plain sum.
    The interval is Student's t with the patients' degrees of freedom.

    Args:
        first_right: 1 where the system is right, 0 where it is not, or the share of its seeds
            that are, shape ``(N,)``.
        second_right: Likewise.
        clusters: Patient of each image, shape ``(N,)``.
        n_clusters: Patients are numbered below this; those without an image do not count.
        seeds: The spread between seeds of each system that has several.
    """
    gap = np.asarray(first_right - second_right, dtype=np.float64)
    table = per_cluster(np.column_stack([gap, np.ones(len(gap))]), clusters, n_clusters)
    table = table[table[:, 1] > 0]
    difference = float(gap.mean())
    first_only, second_only = float(gap[gap > 0].sum()), float(-gap[gap < 0].sum())
    p_exact = _exact_mcnemar(int(first_only), int(second_only)) if not len(seeds) else None
    if len(table) < 2:
        alone = ClusteredEstimate(difference, None, note="one patient gives no interval")
        return McNemar(alone, None, p_exact, first_only, second_only, len(gap))
    scale = len(table) / (len(table) - 1) / len(gap) ** 2
    added = (table[:, 0] - difference * table[:, 1]) / len(gap)
    added = without_leverage(added, table[:, 1])
    effective = effective_patients(table[:, 1])
    freedom = min(effective - 1, freedom_of(added)) if added.any() else effective - 1
    under_equal, _ = add_seeds(scale * float((table[:, 0] ** 2).sum()), freedom, seeds)
    total, freedom = add_seeds(float((added**2).sum()), freedom, seeds)
    estimate = (
        ClusteredEstimate(difference, float(np.sqrt(total)), freedom, effective_patients=effective)
        if total > 0
        else ClusteredEstimate(difference, None, note=NO_WIDTH, effective_patients=effective)
    )
    p_value = None
    if under_equal > 0:
        p_value = float(2 * ndtr(-abs(difference) / np.sqrt(under_equal)))
        if len(seeds):
            p_value = ClusteredEstimate(difference, float(np.sqrt(under_equal)), freedom).p_value
    return McNemar(estimate, p_value, p_exact, first_only, second_only, len(gap))


def _exact_mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value of McNemar's test, images taken as independent.

    Example:
        >>> _exact_mcnemar(6, 0), _exact_mcnemar(0, 0)
        (0.03125, 1.0)
    """
    n = first_only + second_only
    return min(1.0, 2 * float(bdtr(min(first_only, second_only), n, 0.5)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of a family of tests, in its order.

    Args:
        p_values: `None` for a test that could not be made; it does not count.

    Source:
        Holm 1979.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = highest
    return adjusted
