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
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.notebook import html_table
from cxr_compare.evaluation.statistics.bootstrap import LEVEL, Interval
from cxr_compare.evaluation.statistics.figure_text import number, p_equation, p_words, span_words
from cxr_compare.evaluation.statistics.ranking import Floats

Effect = Literal["random", "fixed"]
FEW_READERS = 5
"""With fewer, published intervals over readers are too narrow, and claims rest on wider ones."""
_POWER = 0.8
_LEAST = 1e-24
"""Rounding leaves some 1e-33 of variance where two systems always agree."""


@dataclass(frozen=True)
class ClusteredEstimate:
    """A figure or a difference, its standard error, and what follows from the two.

    It prints its value, its 95 % interval and, of a difference, the p-value of no difference.
    """

    value: float  # the estimate
    error: float | None  # standard error; `None` where there is none
    freedom: float = np.inf  # degrees of freedom of its t distribution; infinite: the normal one
    # Whether the figure lies in [0, 1]; its interval is then taken on the logit.
    bounded: bool = False
    note: str = ""  # why there is no standard error
    # Of the rarer class (`clustered_tests`); `None` where unknown.
    effective_patients: float | None = None
    # Of an AUROC: pairs of a positive and a negative patient, no patient in two pairs, and no more
    # than the effective patients of the rarer class. Its interval reaches no further than the exact
    # one of so many trials, which it is at 0 and 1.
    trials: float = 0
    span: float = 1.0  # a figure that is not bounded lies between minus this and this
    # Parts of the variance that are mean squares, each with its degrees of freedom.
    squares: tuple[tuple[float, float], ...] = ()
    method: str = field(default="", compare=False)  # what gave it, in words

    def __repr__(self) -> str:
        ends = self.interval
        span = f"95 % CI {span_words(*ends)}" if ends else self.note or "no interval"
        p_value = "" if self.bounded or self.p_value is None else f", {p_equation(self.p_value)}"
        method = f"; {self.method}" if self.method else ""
        return f"{number(self.value)} ({span}){p_value}{method}"

    def _repr_html_(self) -> str:
        low, high = self.interval or (None, None)
        rows = {
            "AUROC" if self.bounded else "Difference": number(self.value),
            "95 % CI": span_words(low, high),
            "p": "" if self.bounded else p_words(self.p_value),
            "Method": self.method,
            "Note": self.note,
        }
        return html_table({name: text for name, text in rows.items() if text})

    @property
    def exact(self) -> bool:
        """Whether the interval is the exact one of an AUROC of 0 or 1."""
        return self.bounded and self.value in (0.0, 1.0) and self.trials > 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; on the logit for an AUROC, so that it stays inside [0, 1]."""
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> tuple[float, float] | None:
        """As `interval`, with another coverage."""
        if not self.error:
            return self._exact_interval(level) if self.exact else None
        reach = float(scipy.special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        if not self.bounded:
            return max(self.value - reach, -self.span), min(self.value + reach, self.span)
        exact = self._exact_interval(level)
        if not 0 < self.value < 1:
            return exact
        reach /= self.value * (1 - self.value)
        middle = scipy.special.logit(self.value)
        low, high = scipy.special.expit([middle - reach, middle + reach])
        ends = float(low), float(high)
        return ends if exact is None else (max(ends[0], exact[0]), min(ends[1], exact[1]))

    def cautious_interval_at(self, level: float) -> tuple[float, float]:
        """As `interval_at`, each part of the variance by its own t (Zou and Donner 2008)."""
        tail, squares = (1 + level) / 2, self.squares
        own = sum(scipy.special.stdtrit(df, tail) ** 2 * variance for variance, df in squares)
        over_cases = max((self.error or 0.0) ** 2 - sum(variance for variance, _ in squares), 0.0)
        reach = float(np.sqrt(own + scipy.special.ndtri(tail) ** 2 * over_cases))
        return self.value - reach, self.value + reach

    @property
    def as_interval(self) -> Interval:
        """The estimate with its 95 % interval."""
        return Interval(self.value, *(self.interval or (np.nan, np.nan)), note=self.note)

    def intervals_at(self, levels: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """As `interval_at`, at several levels; empty without an interval."""
        return tuple(ends for level in levels if (ends := self.interval_at(level)) is not None)

    def _exact_interval(self, level: float) -> tuple[float, float] | None:
        """Clopper and Pearson's, of pairs of patients, in which each ranks rightly or wrongly."""
        if self.trials <= 1:
            return None
        exact = Interval.of_share(self.value, self.trials, level)
        return exact.low, exact.high

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of a difference of 0; `None` without a standard error."""
        if not self.error:
            return None
        return float(2 * scipy.special.stdtr(self.freedom, -abs(self.value) / self.error))

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that 80 % of such test sets would show; see below.

        `None` where even the largest possible difference would not be shown so often.
        """
        if not self.error:
            return None
        reach = smallest_detectable(self.error, freedom=self.freedom)
        return reach if reach <= self.span else None


def smallest_detectable(error: float, freedom: float = np.inf) -> float:
    """The smallest true difference that a test set of this kind shows with a power of 80 %.

    ``(t[1 - alpha / 2] + t[power]) x standard error of the paired difference``, two-sided: the
    usual sample size formula, solved for the difference.
    """
    return float(scipy.special.stdtrit(freedom, [(1 + LEVEL) / 2, _POWER]).sum()) * error


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
