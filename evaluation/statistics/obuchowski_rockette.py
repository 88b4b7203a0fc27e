"""Several readers, or training seeds, and several systems: the analysis of Obuchowski and Rockette.

A figure of reader ``j`` with system ``i`` is modelled as (Obuchowski and Rockette 1995)::

    figure[i, j] = mean[i] + R[j] + TR[i, j] + error[i, j]

The errors come from the cases and are correlated: ``Cov1`` between systems of one reader, ``Cov2``
between readers of one system, ``Cov3`` between different readers of different systems. They are
estimated over cases (jackknife, DeLong, bootstrap) and taken as known; the mean squares between
readers are not, and give the degrees of freedom (Hillis 2007). With ``MS`` the usual mean squares
of ``t`` systems and ``r`` readers, the variance of a difference of two systems is::

    readers and cases random   2 / r x (MS(TR) + r max(Cov2 - Cov3, 0))
    readers fixed              2 / r x (Var(error) - Cov1 + (r - 1) max(Cov2 - Cov3, 0))
    cases fixed                2 / r x MS(TR)

Readers nested in systems (training seeds; radiologists who each read with one system) have a mean
square ``MS(R[i])`` in each system, and the difference of systems 1 and 2 has the variance::

    MS(R[1]) / r[1] + MS(R[2]) / r[2] + max(Cov2[1] + Cov2[2] - 2 Cov3, 0)

A system whose readers are fixed (one program, one seed) adds the variance of its mean over cases in
place of ``MS(R[i]) / r[i] + Cov2[i]``. Fixing one system of one reader is the comparison of readers
with a stand-alone program. Degrees of freedom follow from Satterthwaite (1946): the square of the
variance by the sum of the squares of its parts that are mean squares, each by its own degrees.

Source:
    Obuchowski and Rockette 1995, Commun Stat Simul Comput 24:285. Hillis 2007, Stat Med 26:596
    (degrees of freedom, single systems, variance components). Obuchowski, Gallas and Hillis 2012,
    Acad Radiol 19:1508, and Hillis 2014, Stat Med 33:330 (nested readers; there with one pooled
    mean square, here one a system, since the spread between readers need not be the same).
    Chakraborty 2017, "Observer Performance Methods", and method 1T-RRRC of RJafroc (stand-alone
    program).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import NO_WIDTH

Effect = Literal["random", "fixed"]


FEW_READERS = 5
"""With fewer, published intervals over readers are too narrow, and claims rest on wider ones."""


_LEAST = 1e-24
"""Rounding leaves some 1e-33 of variance where two systems always agree."""


@dataclass(frozen=True)
class _OverallTest:
    """Test that all systems have the same mean."""

    statistic: float  # f, or chi-square where readers are fixed
    freedom: tuple[int, float]  # of the numerator, and of the denominator; infinite for chi-square
    p_value: float | None  # `None` where nothing varies


@dataclass(frozen=True)
class Components:
    """Variance components of a crossed study; ``reader`` and ``interaction`` may be negative."""

    reader: float  # `Var(R)`, between readers
    interaction: float  # `Var(TR)`, between readers in what a system changes
    cov1: float  # covariance over cases of two systems, same reader
    cov2: float  # of two readers, same system
    cov3: float  # of two readers, each with another system
    error: float  # variance over cases of one figure


@dataclass(frozen=True)
class OrAnalysis:
    """What `analyse_crossed` and `analyse_nested` give."""

    systems: tuple[ClusteredEstimate, ...]  # the mean over readers of each system
    # first minus second, by the positions of two systems
    differences: dict[tuple[int, int], ClusteredEstimate]
    # test that all systems are equal; `None` of a single one, or where nothing varies. For nested
    # readers, of unweighted means
    overall: _OverallTest | None
    components: Components | None = None  # of a crossed study with at least two systems


def jackknife_covariance(replicates: npt.ArrayLike) -> Floats:
    """Covariance over cases of figures that were computed with each case left out in turn.

    Shapes: `replicates` ``(cases, figures)``; returned ``(figures, figures)``. NaN where a figure
    has nothing of the patient: two figures vary together only in patients that both have.

    Source:
        Efron and Stein 1981.
    """
    table = np.asarray(replicates, dtype=np.float64)
    held = ~np.isnan(table)
    counts = held.sum(axis=0)
    if table.ndim != 2 or (counts < 2).any():
        raise InputError(
            f"a jackknife needs at least two cases of every figure, got shape {table.shape}"
        )
    filled = np.where(held, table, 0.0)
    around = np.where(held, filled - filled.sum(axis=0) / counts, 0.0)
    around *= np.sqrt((counts - 1) / counts)
    return np.asarray(around.T @ around, dtype=np.float64)


def analyse_crossed(
    figures: npt.ArrayLike,
    covariance: npt.ArrayLike,
    *,
    readers: Effect = "random",
    cases: Effect = "random",
    least: bool = False,
) -> OrAnalysis:
    """Every reader reads with every system.

    Mean squares and covariances of differences are pooled over all systems, as published programs
    do; those of one system's mean are its own. With `least` the mean square of systems x readers is
    no less than of readers whom a system changes alike: few are often closer by chance.

    Shapes: `figures` ``(systems, readers)``; `covariance` ``(systems x readers,) x 2``.
    """
    table = np.asarray(figures, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise InputError(f"a crossed study needs two readers or more, got shape {table.shape}")
    single = analyse_nested(list(table), covariance, readers=readers, cases=cases)
    n_systems, n_readers = table.shape
    if n_systems < 2:
        return single
    parts = _components(table, np.asarray(covariance, dtype=np.float64))
    both = max(parts.cov2 - parts.cov3, 0.0)
    # Pooled: the expected mean square between systems that are equal, times 1 / r.
    if readers == "fixed":
        squares: list[_Square] = []
        over_cases = (parts.error - parts.cov1 + (n_readers - 1) * both) / n_readers
    else:
        freedom = (n_systems - 1) * (n_readers - 1)
        square = _interaction_square(table)
        square = max(square, parts.error - parts.cov1 - both) if least else square
        squares = [_Square(square / n_readers, freedom)]
        over_cases = both if cases == "random" else 0.0
    means = table.mean(axis=1)
    differences = {
        (i, k): _estimate(means[i] - means[k], [each.times(2) for each in squares], 2 * over_cases)
        for i, k in combinations(range(n_systems), 2)
    }
    overall = _overall(means, squares, over_cases)
    return OrAnalysis(single.systems, differences, overall, parts)


def analyse_nested(
    figures: Sequence[npt.ArrayLike],
    covariance: npt.ArrayLike,
    *,
    readers: Effect | Sequence[Effect] = "random",
    cases: Effect = "random",
    freedom: float = np.inf,
    least: bool = False,
) -> OrAnalysis:
    """Every system has readers, or training seeds, of its own; all see the same cases.

    A system of a single reader must be fixed: its spread is unknown. `freedom` is that of the
    covariance, where cases are too few to take it as known. With `least` the mean square between
    readers is at least ``Var(error) - Cov2``, as expected of readers that do not differ: two or
    three are often closer together than that by chance.
    """
    groups = [np.asarray(each, dtype=np.float64).ravel() for each in figures]
    effects: list[str] = [readers] * len(groups) if isinstance(readers, str) else list(readers)
    matrix = np.asarray(covariance, dtype=np.float64)
    _check(groups, matrix, effects, cases)
    ends = np.cumsum([0, *map(len, groups)])
    rows = [slice(ends[i], ends[i + 1]) for i in range(len(groups))]
    random = [effect == "random" for effect in effects]
    squares = [
        [_between(each, matrix[of, of] if least else None)] if varies else []
        for each, of, varies in zip(groups, rows, random, strict=True)
    ]
    own, shared = np.zeros(len(groups)), np.zeros((len(groups), len(groups)))
    if cases == "random":
        for i, of in enumerate(rows):
            block = matrix[of, of]
            own[i] = _off_diagonal(block) if random[i] else block.mean()
            shared[i] = [matrix[of, other].mean() for other in rows]
    means = np.array([each.mean() for each in groups])
    pairs = list(combinations(range(len(groups)), 2))
    over_cases = {(i, k): float(own[i] + own[k] - 2 * shared[i, k]) for i, k in pairs}
    differences = {
        (i, k): _estimate(means[i] - means[k], squares[i] + squares[k], over_cases[i, k], freedom)
        for i, k in pairs
    }
    overall = None
    if pairs:
        each = [square.times(1 / len(groups)) for of in squares for square in of]
        overall = _overall(means, each, float(np.mean(list(over_cases.values()))) / 2)
    systems = [_estimate(*each, freedom) for each in zip(means, squares, own, strict=True)]
    return OrAnalysis(tuple(systems), differences, overall)


@dataclass(frozen=True)
class _Square:
    """A multiple of a mean square between readers, and its degrees of freedom."""

    variance: float
    freedom: int

    def times(self, factor: float) -> _Square:
        return _Square(self.variance * factor, self.freedom)


def _between(figures: Floats, covariance: Floats | None) -> _Square:
    """The mean square between the readers of a system, by their number; see `analyse_nested`."""
    square = float(figures.var(ddof=1))
    if covariance is not None:
        square = max(square, float(np.diagonal(covariance).mean()) - _off_diagonal(covariance))
    return _Square(square / len(figures), len(figures) - 1)


def _satterthwaite(
    squares: Sequence[_Square], over_cases: float, of_cases: float = np.inf
) -> tuple[float, float]:
    """The variance with that over cases, which is at least 0, and its degrees of freedom."""
    total = sum(each.variance for each in squares) + max(over_cases, 0.0)
    spread = sum(each.variance**2 / each.freedom for each in squares)
    spread += max(over_cases, 0.0) ** 2 / of_cases
    return total, total**2 / spread if spread > _LEAST**2 else np.inf


def _estimate(
    value: float, squares: Sequence[_Square], over_cases: float, of_cases: float = np.inf
) -> ClusteredEstimate:
    variance, freedom = _satterthwaite(squares, over_cases, of_cases)
    error = float(np.sqrt(variance)) if variance > _LEAST else None
    parts = tuple((each.variance, float(each.freedom)) for each in squares)
    parts = parts if error else ()
    return ClusteredEstimate(float(value), error, float(freedom), span=np.inf, squares=parts)


def _overall(means: Floats, squares: Sequence[_Square], over_cases: float) -> _OverallTest | None:
    """Variance between the means against what it is expected to be when systems are equal."""
    expected, freedom = _satterthwaite(squares, over_cases)
    if expected <= _LEAST:
        return None
    upper = len(means) - 1
    ratio = float(np.var(means, ddof=1)) / expected
    if np.isinf(freedom):
        p_value = scipy.special.chdtrc(upper, upper * ratio)
        return _OverallTest(upper * ratio, (upper, np.inf), float(p_value))
    return _OverallTest(ratio, (upper, freedom), float(scipy.special.fdtrc(upper, freedom, ratio)))


def _components(table: Floats, covariance: Floats) -> Components:
    """Variance components of a crossed study, shape ``(systems, readers)``; Hillis 2007."""
    n_systems = len(table)
    system, reader = (index.ravel() for index in np.indices(table.shape))
    same_system = system[:, None] == system
    same_reader = reader[:, None] == reader
    error, cov1, cov2, cov3 = (
        float(covariance[where].mean())
        for where in (
            same_system & same_reader,
            ~same_system & same_reader,
            same_system & ~same_reader,
            ~same_system & ~same_reader,
        )
    )
    interaction = _interaction_square(table)
    readers = n_systems * float(np.var(table.mean(axis=0), ddof=1))
    return Components(
        reader=(readers - interaction) / n_systems - cov1 + cov3,
        interaction=interaction - error + cov1 + max(cov2 - cov3, 0.0),
        cov1=cov1,
        cov2=cov2,
        cov3=cov3,
        error=error,
    )


def _interaction_square(table: Floats) -> float:
    """Mean square of systems x readers."""
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)))


def _off_diagonal(block: Floats) -> float:
    """Mean covariance of two readers of one system."""
    n = len(block)
    return float((block.sum() - np.trace(block)) / (n * (n - 1)))


def _check(groups: Sequence[Floats], matrix: Floats, effects: Sequence[str], cases: str) -> None:
    n_figures = sum(map(len, groups))
    if matrix.shape != (n_figures, n_figures) or len(effects) != len(groups):
        raise InputError(
            f"{n_figures} figures of {len(groups)} systems need a covariance of shape "
            f"({n_figures}, {n_figures}), got {matrix.shape}, and {len(groups)} effects of "
            f"readers, got {len(effects)}"
        )
    if not all(np.isfinite(each).all() for each in (*groups, matrix)):
        raise InputError("figures and their covariance must be finite")
    for position, (each, effect) in enumerate(zip(groups, effects, strict=True)):
        if len(each) < (2 if effect == "random" else 1):
            raise InputError(
                f"system {position} has {len(each)} reader; readers that are random are two or more"
            )
    if cases == "fixed" and "random" not in effects:
        raise InputError("with readers and cases fixed nothing varies; let one be random")


def estimate_over_seeds(
    figures: Sequence[Sequence[float]],
    covariance: Floats,
    freedom: float,
    *,
    bounded: bool = False,
    span: float = 1.0,
) -> ClusteredEstimate:
    """A figure as the mean over training seeds, or the difference of two such means.

    Seeds are readers nested in systems: a seed of one has nothing to do with one of another. They
    are random where a system has several; one alone is that trained model.

    Source:
        Obuchowski and Rockette 1995; Hillis 2007; see `obuchowski_rockette.analyse_nested`.
    """
    found = analyse_nested(
        figures,
        covariance,
        readers=["random" if len(each) > 1 else "fixed" for each in figures],
        freedom=freedom,
        least=True,
    )
    one = found.systems[0] if len(figures) == 1 else found.differences[0, 1]
    note = NO_WIDTH if one.error is None else ""
    return replace(one, bounded=bounded, note=note, span=span)
