"""McNemar test of two systems' decisions on images that come in patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.notebook import html_table
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, as_array
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

_METHOD = "Obuchowski 1998, clustered by patient"


@dataclass(frozen=True)
class McNemar:
    """Result of a paired test of two systems' yes-or-no decisions on the same images.

    A system is a model with a decision threshold.

    Attributes:
        difference: Share of the images that the first system decides correctly minus the share that
            the second decides correctly, with a standard error that allows for several images of a
            patient.
        p_value: p-value of the hypothesis of equal shares, by patient; None if the systems are
            correct equally often in every patient, or if there is only one patient.
        p_exact: Exact p-value with images taken as independent; None if the systems have several
            training seeds.
        first_only: Number of images that only the first system decides correctly, as a mean over
            training seeds.
        second_only: Number of images that only the second system decides correctly, as a mean over
            training seeds.
        n_images: Number of images.
    """

    difference: ClusteredEstimate
    p_value: float | None
    p_exact: float | None
    first_only: float
    second_only: float
    n_images: int

    def __repr__(self) -> str:
        parts = [f"{self._difference_text}, {p_equation(self.p_value)}", _METHOD]
        if self.p_exact is not None:
            parts.append(f"images independent: {p_equation(self.p_exact)}")
        parts.append(
            f"right with one alone: {self.first_only:g} to {self.second_only:g} of "
            f"{self.n_images:,} images"
        )
        return "; ".join(parts)

    def _repr_html_(self) -> str:
        rows = {
            "Difference of shares right": self._difference_text,
            "p": p_value_text(self.p_value),
        }
        if self.p_exact is not None:
            rows["p, images independent (exact)"] = p_value_text(self.p_exact)
        rows["Right with the first alone"] = f"{self.first_only:g} images"
        rows["Right with the second alone"] = f"{self.second_only:g} images"
        rows["Images"] = f"{self.n_images:,}"
        return html_table({**rows, "Method": _METHOD})

    @property
    def _difference_text(self) -> str:
        gap = self.difference
        interval = gap.note or "no interval"
        if gap.has_interval:
            interval = f"95 % CI {range_text(gap.ci_low, gap.ci_high)}"
        return f"{number(gap.estimate)} ({interval})"


@with_known_keywords
def mcnemar_test(
    first_right: npt.ArrayLike, second_right: npt.ArrayLike, patients: npt.ArrayLike
) -> McNemar:
    """Test whether two systems decide equally many images correctly: McNemar's test by patient.

    A system is a model with a decision threshold, or a reader.

    The p-value and the interval use two different variances, so they may disagree if p is near
    0.05: the p-value uses the variance under equal shares and the normal distribution, the interval
    the variance around the observed difference and Student's t.

    On all images this is a test of accuracy, on the positive images a test of sensitivity, and on
    the negative images a test of specificity.

    Args:
        first_right: 1 if the first system decides the image correctly, else 0, shape ``(N,)``.
        second_right: 1 if the second system decides the image correctly, else 0, shape ``(N,)``.
        patients: Name of each image's patient, shape ``(N,)``.

    Returns:
        The difference of the shares of correct decisions with its interval, and the p-values.

    Raises:
        InputError: The arguments differ in length, there is no image, or a decision is neither 0
            nor 1.

    Source:
        Obuchowski 1998, "On the comparison of correlated proportions for clustered data", as
        published there, not the modified test of Yang, Sun and Hardin 2010; McNemar 1947.

    Example:
        >>> from cxr_compare import metrics
        >>> test = metrics.mcnemar_test([1, 1, 1, 0], [1, 0, 0, 0], ["a", "b", "c", "d"])
        >>> test.difference.estimate, test.first_only, test.p_exact
        (0.5, 2.0, 0.5)
    """
    clusters, n_clusters = cluster_index(patients)
    first = _right_decisions(first_right, "first_right")
    second = _right_decisions(second_right, "second_right")
    if not len(clusters) or first.shape != clusters.shape or second.shape != clusters.shape:
        raise InputError(
            f"a paired test needs one decision a system and image, got {first.shape} and "
            f"{second.shape} for {len(clusters)} images"
        )
    return clustered_mcnemar(first, second, clusters, n_clusters)


def _right_decisions(values: npt.ArrayLike, name: str) -> Floats:
    """Return decisions as numbers; refuse what is outside [0, 1], such as a missing one."""
    cells = as_array(values)
    try:
        right = cells.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: must be 1 (right) or 0 (wrong) for each image") from None
    is_wrong = ~((right >= 0) & (right <= 1))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise InputError(f"{name}: row {row} is {right[row]}; 1 is right, and 0 is wrong")
    return right


def clustered_mcnemar(
    first_right: Floats, second_right: Floats, clusters: Integers, n_clusters: int
) -> McNemar:
    """Test whether two systems decide equally many images correctly, by patient and training seed.

    This is the test of `mcnemar_test`, for patients that are numbered from 0 and for models that
    were trained with several random seeds. There are ``N`` images of ``K`` patients. Let ``n`` be a
    patient's number of images, and let ``d`` be the number that only the first system gets right
    minus the number that only the second gets right. If both systems had equal true shares of
    correct decisions, the variance of the difference of the shares is ``K / (K - 1) x sum of d^2 /
    N^2`` (the pooled share cancels). Around the observed difference ``D`` the variance is the sum
    of ``((d - n D) / N)^2`` over patients, with each term corrected for the patient's share of the
    images (`without_leverage`). If all patients have equally many images, this is ``K / (K - 1)``
    times the plain sum. The interval uses Student's t with degrees of freedom from the patients.

    Args:
        first_right: 1 if the first system decides the image correctly, else 0, shape ``(N,)``, or
            ``(seeds, N)`` for several training seeds; difference and test are then those of
            Obuchowski and Rockette.
        second_right: Likewise for the second system, shape ``(N,)`` or ``(seeds, N)``.
        clusters: Number of the patient of each image, from 0, shape ``(N,)``.
        n_clusters: Number of patients.

    Returns:
        The difference of the shares with its interval, and the p-values. There is no interval if
        there is only one patient.

    Source:
        Obuchowski 1998; for several seeds, Obuchowski and Rockette 1995.

    Example:
        >>> right = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])
        >>> clustered_mcnemar(*right, np.arange(4), 4).difference.estimate
        0.5
    """
    seeds = [np.atleast_2d(first_right), np.atleast_2d(second_right)]
    has_several_seeds = max(map(len, seeds)) > 1
    gap = np.asarray(seeds[0].mean(axis=0) - seeds[1].mean(axis=0), dtype=np.float64)
    table = per_cluster(np.column_stack([gap, np.ones(len(gap))]), clusters, n_clusters)
    table = table[table[:, 1] > 0]
    gap_of_patient, images = table.T
    n_images = len(gap)
    n_patients = len(table)
    difference = float(gap.mean())
    first_only = float(gap[gap > 0].sum())
    second_only = abs(float(gap[gap < 0].sum()))
    p_exact = None
    if not has_several_seeds:
        p_exact = exact_mcnemar(int(first_only), int(second_only))
    if n_patients < 2:
        alone = ClusteredEstimate(difference, None, note="one patient gives no interval")
        return McNemar(alone, None, p_exact, first_only, second_only, n_images)
    deviations = without_leverage((gap_of_patient - difference * images) / n_images, images)
    effective = effective_patients(images)
    freedom = effective - 1
    if deviations.any():
        freedom = min(freedom, satterthwaite_freedom(deviations))
    if has_several_seeds:
        estimate = _estimate_share_over_seeds(seeds, clusters, n_clusters, freedom)
        return McNemar(estimate, estimate.p_value, None, first_only, second_only, n_images)
    variance = float((deviations**2).sum())
    if variance > 0:
        estimate = ClusteredEstimate(
            difference, float(np.sqrt(variance)), freedom, effective_patients=effective
        )
    else:
        estimate = ClusteredEstimate(difference, None, note=NO_WIDTH, effective_patients=effective)
    scale = n_patients / (n_patients - 1) / n_images**2
    variance_if_equal = scale * float((gap_of_patient**2).sum())
    p_value = None
    if variance_if_equal > 0:
        statistic = abs(difference) / np.sqrt(variance_if_equal)
        p_value = float(2 * scipy.special.ndtr(-statistic))
    return McNemar(estimate, p_value, p_exact, first_only, second_only, n_images)


def _estimate_share_over_seeds(
    systems: Sequence[Floats], clusters: Integers, n_clusters: int, freedom: float
) -> ClusteredEstimate:
    """Estimate the difference of two shares, each the mean over seeds of shape ``(seeds, N)``."""
    right = np.concatenate(list(systems))
    n_images = right.shape[1]
    images = per_cluster(np.ones((n_images, 1)), clusters, n_clusters)[:, 0]
    deviations = per_cluster((right - right.mean(axis=1, keepdims=True)).T, clusters, n_clusters)
    has_images = images > 0
    columns = np.column_stack(
        [
            without_leverage(of_seed / n_images, images[has_images])
            for of_seed in deviations[has_images].T
        ]
    )
    values = [seeds.mean(axis=1).tolist() for seeds in systems]
    return estimate_over_seeds(values, columns.T @ columns, freedom)


def exact_mcnemar(first_only: int, second_only: int) -> float:
    """Compute the exact two-sided p-value of McNemar's test, with images taken as independent.

    Args:
        first_only: Number of images that only the first of two systems decides correctly.
        second_only: Number of images that only the second system decides correctly.

    Returns:
        The p-value, in (0, 1].

    Source:
        McNemar 1947, with the binomial distribution.

    Example:
        >>> exact_mcnemar(5, 0)
        0.0625
    """
    n = first_only + second_only
    return min(1.0, 2 * float(scipy.special.bdtr(min(first_only, second_only), n, 0.5)))
