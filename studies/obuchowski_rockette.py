"""Several readers and several systems: the analysis of Obuchowski and Rockette.

A figure of reader ``j`` with system ``i`` is modelled as (Obuchowski and Rockette 1995)::

    figure[i, j] = mean[i] + R[j] + TR[i, j] + error[i, j]

The errors come from the cases and are correlated: ``Cov1`` between systems of one reader, ``Cov2``
between readers of one system, ``Cov3`` between different readers of different systems. These
covariances are estimated over cases (jackknife) and taken as known. The mean squares between
readers are estimated as well, and they give the degrees of freedom (Hillis 2007). With ``MS`` the
usual mean squares of ``t`` systems and ``r`` readers, the variance of a difference of two systems
is::

    readers random   2 / r x (MS(TR) + r max(Cov2 - Cov3, 0))
    readers fixed    2 / r x (Var(error) - Cov1 + (r - 1) max(Cov2 - Cov3, 0))

Readers nested in systems (radiologists who each read with one system) have a mean square
``MS(R[i])`` in each system. The difference of systems 1 and 2 has the variance::

    MS(R[1]) / r[1] + MS(R[2]) / r[2] + max(Cov2[1] + Cov2[2] - 2 Cov3, 0)

A system whose readers are fixed (one program) adds the variance of its mean over cases instead of
``MS(R[i]) / r[i] + Cov2[i]``. To compare readers with a stand-alone program, the program
is such a system with one reader. Degrees of freedom follow from Satterthwaite (1946): the square of
the variance is divided by the sum of ``m^2 / f`` over the parts ``m`` of the variance that are
multiples of a mean square, where ``f`` is the degrees of freedom of that mean square.

Source:
    Obuchowski and Rockette 1995, Commun Stat Simul Comput 24:285. Hillis 2007, Stat Med 26:596
    (degrees of freedom, single systems, variance components). Obuchowski, Gallas and Hillis 2012,
    Acad Radiol 19:1508, and Hillis 2014, Stat Med 33:330 (nested readers; there with one pooled
    mean square, here one for each system, since the spread between readers may differ).
    Chakraborty 2017, "Observer Performance Methods", and method 1T-RRRC of RJafroc (stand-alone
    program). The degrees of freedom from which published intervals and tests decide come from
    simulations (docs/validity.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate

Effect = Literal["random", "fixed"]
"""Random: results hold for readers like these. Fixed: they hold for these alone."""
FREEDOM_OF_A_CLAIM = 4
"""Degrees of freedom between readers from which a published interval decides.

With fewer, such an interval is too narrow, and claims rest on `cautious_interval_at`. A crossed
study has (systems - 1) x (readers - 1) of them; a mean, or readers against a program, has
readers - 1; two systems with readers of their own have twice readers - 1 of the one with fewer.
"""
FREEDOM_OF_THE_OVERALL_TEST = 6
"""Degrees of freedom between readers from which the overall test of a crossed study decides.

With fewer, it shows a difference too often, and some pair must be shown as well.
"""
_LEAST_VARIANCE = 1e-24
"""Smaller variances are rounding errors: about 1e-33 is left where two systems always agree."""


@dataclass(frozen=True, repr=False)
class ReaderEstimate(ClusteredEstimate):
    """A figure of readers, or a difference, whose variance has parts between readers.

    Attributes:
        squares: Parts of the variance that are mean squares between readers, each as a pair of
            value and degrees of freedom; empty if there are none.
    """

    squares: tuple[tuple[float, float], ...] = ()

    def cautious_interval_at(self, level: float) -> tuple[float, float]:
        """Compute an interval that stays valid if few readers were measured.

        Each part of the variance has its own quantile of Student's t. The interval is therefore
        wider than the usual one.

        Source:
            Zou and Donner 2008.
        """
        reach = self._cautious_reach((1 - level) / 2)
        return self.estimate - reach, self.estimate + reach

    def _cautious_reach(self, tail: float) -> float:
        """Return how far the cautious interval that leaves out such a tail reaches."""
        squared_reach = sum(
            scipy.special.stdtrit(freedom, tail) ** 2 * variance
            for variance, freedom in self.squares
        )
        between_readers = sum(variance for variance, _ in self.squares)
        over_cases = max((self.error or 0.0) ** 2 - between_readers, 0.0)
        return float(np.sqrt(squared_reach + scipy.special.ndtri(tail) ** 2 * over_cases))

    @property
    def freedom_between(self) -> float:
        """Degrees of freedom of the variance between readers.

        The variance may have several parts between readers (mean squares), one for each of the
        compared systems. The result is the number of parts times the smallest of their degrees of
        freedom: if one system has two readers only, a test is too liberal, however many readers
        the other system has. The value is 0 if there is no such part.
        """
        fewest = min((freedom for _, freedom in self.squares), default=0.0)
        return len(self.squares) * fewest

    @property
    def cautious_p_value(self) -> float | None:
        """Two-sided p-value that belongs to `cautious_interval_at`; None without a standard error.

        It is below 0.05 if the cautious 95 % interval excludes 0. The smallest value that is given
        is 1e-12.
        """
        if not self.error:
            return None
        smallest = 1e-12
        if self.estimate == 0:
            return 1.0
        if self._cautious_reach(smallest / 2) <= abs(self.estimate):
            return smallest

        def beyond(exponent: float) -> float:
            return self._cautious_reach(10**exponent / 2) - abs(self.estimate)

        return float(10 ** scipy.optimize.brentq(beyond, np.log10(smallest), 0.0, xtol=1e-10))


@dataclass(frozen=True)
class OverallTest:
    """Test of the hypothesis that all systems of a reader study have the same mean.

    A system is a way of reading, such as with or without a program's help; the mean is that of a
    metric, such as the AUROC, over readers.

    Attributes:
        statistic: The F statistic, or the chi-square statistic if readers are fixed (the results
            hold for these readers only).
        freedom: Degrees of freedom of numerator and denominator. The second one is infinite for
            chi-square.
        p_value: None if it is not known.
    """

    statistic: float
    freedom: tuple[int, float]
    p_value: float | None


@dataclass(frozen=True)
class Components:
    """Variance components of a metric in a study in which every reader reads with every system.

    The metric, such as the AUROC, is computed for each reader and system. A system is a way of
    reading, such as with or without a program's help. A case is what is read at once, such as an
    image; "over cases" means: due to the sampling of cases. The components are estimates, so
    `reader` and `interaction` may be negative.

    Attributes:
        reader: ``Var(R)``, variance between readers.
        interaction: ``Var(TR)``, variance between readers in the difference that a system makes.
        cov1: Covariance over cases of the metric with two systems and the same reader.
        cov2: Covariance over cases of the metric of two readers with the same system.
        cov3: Covariance over cases of the metric of two readers with different systems.
        error: Variance over cases of the metric of one reader with one system.
    """

    reader: float
    interaction: float
    cov1: float
    cov2: float
    cov3: float
    error: float


@dataclass(frozen=True)
class MultiReaderAnalysis:
    """Results of a reader study: mean of each system, their differences, and a test of all systems.

    In a crossed study (`analyse_crossed`) every reader reads with every system. In a nested one
    (`analyse_nested`) every system has its own readers.

    Attributes:
        systems: Mean over readers of each system, with its interval, in the order of the systems.
        differences: Difference of each two systems, first minus second. The key has the positions
            of both systems, from 0, such as ``(0, 1)``.
        overall: Test of the hypothesis that all systems have the same mean; None for a single
            system, or if nothing varies. For nested readers, the test compares unweighted means.
        components: Variance components of a crossed study with at least two systems; otherwise
            None.
    """

    systems: tuple[ReaderEstimate, ...]
    differences: dict[tuple[int, int], ReaderEstimate]
    overall: OverallTest | None
    components: Components | None = None


def jackknife_covariance(replicates: npt.ArrayLike) -> Floats:
    """Compute the covariance of several metrics over cases, from leave-one-case-out values.

    A case is a unit that is sampled, such as a patient. The covariance, ``(figures, figures)``, is
    that of estimates from samples of so many cases. `replicates` has the value of each metric when
    each case is left out in turn, shape ``(cases, figures)``; NaN if the metric does not use the
    case. Only cases that two metrics both use add to their covariance. InputError if a metric uses
    fewer than two cases.

    Source:
        Efron and Stein 1981.

    Examples:
        >>> values = np.array([1.0, 2.0, 6.0])
        >>> means_without_one = (values.sum() - values) / 2
        >>> jackknife_covariance(means_without_one[:, None]).round(3).tolist()
        [[2.333]]
    """
    table = np.asarray(replicates, dtype=np.float64)
    defined = ~np.isnan(table)
    counts = defined.sum(axis=0)
    if table.ndim != 2 or (counts < 2).any():
        raise InputError(
            f"a jackknife needs at least two cases of every figure, got shape {table.shape}"
        )
    filled = np.where(defined, table, 0.0)
    deviations = np.where(defined, filled - filled.sum(axis=0) / counts, 0.0)
    deviations *= np.sqrt((counts - 1) / counts)
    return np.asarray(deviations.T @ deviations, dtype=np.float64)


def analyse_crossed(
    figures: npt.ArrayLike,
    covariance: npt.ArrayLike,
    *,
    readers: Effect = "random",
) -> MultiReaderAnalysis:
    """Analyse a reader study in which every reader reads all cases with every system.

    A system is a way of reading, such as with or without a program's help. A case is what is read
    at once, such as an image. For differences, mean squares and covariances are pooled over all
    systems, as in published programs. For the mean of one system, those of this system are used.

    `figures` is a metric, such as the AUROC, of each system (row) and reader (column), and
    `covariance` that of all these values over cases, in the order of the rows. Readers are
    "random" if the results shall hold for all readers like these, "fixed" if for these only.
    InputError if there are fewer than two readers, or the covariance has another shape.

    Source:
        Obuchowski and Rockette 1995; Hillis 2007.

    Examples:
        >>> figures = [[0.80, 0.84, 0.82], [0.86, 0.88, 0.90]]
        >>> study = analyse_crossed(figures, 1e-4 * np.eye(6))
        >>> round(study.differences[0, 1].estimate, 3), round(study.overall.p_value, 3)
        (-0.06, 0.035)
    """
    table = np.asarray(figures, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise InputError(f"a crossed study needs two readers or more, got shape {table.shape}")
    single = analyse_nested(list(table), covariance, readers=readers)
    n_systems, n_readers = table.shape
    if n_systems < 2:
        return single
    parts = _components(table, np.asarray(covariance, dtype=np.float64))
    shared = max(parts.cov2 - parts.cov3, 0.0)
    # Expected mean square between equal systems, pooled over systems and divided by r.
    if readers == "fixed":
        squares: list[_MeanSquare] = []
        over_cases = (parts.error - parts.cov1 + (n_readers - 1) * shared) / n_readers
    else:
        square = _interaction_square(table)
        squares = [_MeanSquare(square / n_readers, (n_systems - 1) * (n_readers - 1))]
        over_cases = shared
    means = table.mean(axis=1)
    doubled = [square.times(2) for square in squares]
    differences = {
        (i, k): _estimate(means[i] - means[k], doubled, 2 * over_cases)
        for i, k in combinations(range(n_systems), 2)
    }
    overall = _overall(means, squares, over_cases)
    return MultiReaderAnalysis(single.systems, differences, overall, parts)


def analyse_nested(
    figures: Sequence[npt.ArrayLike],
    covariance: npt.ArrayLike,
    *,
    readers: Effect | Sequence[Effect] = "random",
) -> MultiReaderAnalysis:
    """Analyse a reader study in which every system has its own readers.

    All readers see the same cases (images or patients). The reader of a system with a single reader
    must be fixed, because the spread between readers is then unknown.

    `figures` has, for each system, a metric of each of its readers, and `covariance` is that of all
    these values over cases, system by system. Readers are as in `analyse_crossed`, one effect for
    all systems or one for each. InputError if shapes disagree, a value is not finite, or a system
    with random readers has one reader.

    Source:
        Obuchowski, Gallas and Hillis 2012; Hillis 2014.

    Examples:
        >>> study = analyse_nested([[0.80, 0.84], [0.90]], 1e-4 * np.eye(3),
        ...     readers=["random", "fixed"])
        >>> round(study.differences[0, 1].estimate, 3), round(study.differences[0, 1].error, 4)
        (-0.08, 0.0224)
    """
    groups = [np.asarray(of_system, dtype=np.float64).ravel() for of_system in figures]
    effects: list[str] = [readers] * len(groups) if isinstance(readers, str) else list(readers)
    matrix = np.asarray(covariance, dtype=np.float64)
    _check(groups, matrix, effects)
    ends = np.cumsum([0, *map(len, groups)])
    rows = [slice(ends[i], ends[i + 1]) for i in range(len(groups))]
    squares: list[list[_MeanSquare]] = []
    for group, effect in zip(groups, effects, strict=True):
        squares.append([_between_readers(group)] if effect == "random" else [])
    # `own` is the variance over cases of each system's mean that its mean square does not contain;
    # `shared` is the covariance of the means of two systems.
    own = np.zeros(len(groups))
    shared = np.zeros((len(groups), len(groups)))
    for i, own_rows in enumerate(rows):
        block = matrix[own_rows, own_rows]
        own[i] = _off_diagonal(block) if effects[i] == "random" else block.mean()
        shared[i] = [matrix[own_rows, other].mean() for other in rows]
    means = np.array([group.mean() for group in groups])
    pairs = list(combinations(range(len(groups)), 2))
    over_cases = {(i, k): float(own[i] + own[k] - 2 * shared[i, k]) for i, k in pairs}
    differences = {
        (i, k): _estimate(means[i] - means[k], squares[i] + squares[k], over_cases[i, k])
        for i, k in pairs
    }
    overall = None
    if pairs:
        averaged = [square.times(1 / len(groups)) for of_system in squares for square in of_system]
        overall = _overall(means, averaged, float(np.mean(list(over_cases.values()))) / 2)
    systems = [
        _estimate(mean, of_system, over_cases_of_mean)
        for mean, of_system, over_cases_of_mean in zip(means, squares, own, strict=True)
    ]
    return MultiReaderAnalysis(tuple(systems), differences, overall)


@dataclass(frozen=True)
class _MeanSquare:
    """A multiple of a mean square between readers, with its degrees of freedom."""

    variance: float
    freedom: int

    def times(self, factor: float) -> _MeanSquare:
        return _MeanSquare(self.variance * factor, self.freedom)


def _between_readers(figures: Floats) -> _MeanSquare:
    """Return the mean square between the readers of a system, divided by their number."""
    return _MeanSquare(float(figures.var(ddof=1)) / len(figures), len(figures) - 1)


class _Variance(NamedTuple):
    """A variance and its degrees of freedom."""

    value: float
    freedom: float


def _satterthwaite(squares: Sequence[_MeanSquare], over_cases: float) -> _Variance:
    """Add mean squares and the variance over cases, which is taken as at least 0."""
    total = sum(square.variance for square in squares) + max(over_cases, 0.0)
    spread = sum(square.variance**2 / square.freedom for square in squares)
    return _Variance(total, total**2 / spread if spread > _LEAST_VARIANCE**2 else np.inf)


def _estimate(value: float, squares: Sequence[_MeanSquare], over_cases: float) -> ReaderEstimate:
    variance, freedom = _satterthwaite(squares, over_cases)
    error = float(np.sqrt(variance)) if variance > _LEAST_VARIANCE else None
    parts = tuple((square.variance, float(square.freedom)) for square in squares)
    parts = parts if error else ()
    return ReaderEstimate(float(value), error, float(freedom), span=np.inf, squares=parts)


def _overall(
    means: Floats, squares: Sequence[_MeanSquare], over_cases: float
) -> OverallTest | None:
    """Compare the variance between the means with its expectation for equal systems."""
    expected, freedom = _satterthwaite(squares, over_cases)
    if expected <= _LEAST_VARIANCE:
        return None
    upper = len(means) - 1
    ratio = float(np.var(means, ddof=1)) / expected
    if np.isinf(freedom):
        p_value = scipy.special.chdtrc(upper, upper * ratio)
        return OverallTest(upper * ratio, (upper, np.inf), float(p_value))
    return OverallTest(ratio, (upper, freedom), float(scipy.special.fdtrc(upper, freedom, ratio)))


def _components(table: Floats, covariance: Floats) -> Components:
    """Estimate the variance components of a crossed study, ``(systems, readers)``; Hillis 2007."""
    n_systems = len(table)
    system, reader = (index.ravel() for index in np.indices(table.shape))
    same_system = system[:, None] == system
    same_reader = reader[:, None] == reader
    error = float(covariance[same_system & same_reader].mean())
    cov1 = float(covariance[~same_system & same_reader].mean())
    cov2 = float(covariance[same_system & ~same_reader].mean())
    cov3 = float(covariance[~same_system & ~same_reader].mean())
    interaction_square = _interaction_square(table)
    reader_square = n_systems * float(np.var(table.mean(axis=0), ddof=1))
    return Components(
        reader=(reader_square - interaction_square) / n_systems - cov1 + cov3,
        interaction=interaction_square - error + cov1 + max(cov2 - cov3, 0.0),
        cov1=cov1,
        cov2=cov2,
        cov3=cov3,
        error=error,
    )


def _interaction_square(table: Floats) -> float:
    """Return the mean square of systems x readers."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)))


def _off_diagonal(block: Floats) -> float:
    """Return the mean covariance of two readers of one system."""
    n = len(block)
    return float((block.sum() - np.trace(block)) / (n * (n - 1)))


def _check(groups: Sequence[Floats], matrix: Floats, effects: Sequence[str]) -> None:
    n_figures = sum(map(len, groups))
    if matrix.shape != (n_figures, n_figures) or len(effects) != len(groups):
        raise InputError(
            f"{n_figures} figures of {len(groups)} systems need a covariance of shape "
            f"({n_figures}, {n_figures}), got {matrix.shape}, and {len(groups)} effects of "
            f"readers, got {len(effects)}"
        )
    if not all(np.isfinite(values).all() for values in (*groups, matrix)):
        raise InputError("figures and their covariance must be finite")
    for position, (group, effect) in enumerate(zip(groups, effects, strict=True)):
        if len(group) < (2 if effect == "random" else 1):
            raise InputError(
                f"system {position} has {len(group)} reader; readers that are random are two or "
                "more"
            )
