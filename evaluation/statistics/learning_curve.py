"""Learning curves: a figure against the number of annotated images, and where two curves cross.

What a figure lacks to 1 is taken to fall with a power of the number of images ``n``::

    1 - figure = a n^-b        ln(1 - figure) = ln a - b ln n, a straight line

A third parameter, the level at which more images no longer help, is left out: with four sizes it
leaves one degree of freedom, and a high level with a small ``b`` describes the same points as a low
level with a large one. Beyond the largest size, where curves end, one would guarantee too much.

Each arm's line is the ordinary least squares line of its means over seeds; no arm moves the line of
another. Its uncertainty follows from the joint covariance of all means, which is that of
`obuchowski_rockette.analyse_nested` with ``floor_mean_square=True``: patients are shared by all arms and sizes,
each size of an arm has seeds of its own. It is kept as draws of ``(ln a, b)``, multivariate t: one
chi-square for the patients, one for each arm's seeds with Satterthwaite's degrees of freedom.

``docs/curve.md`` has how often bands and intervals hold. Trainings of one seed that vary together
over its nested sizes are not modelled. Generalised least squares, with the same covariance as
weights, gave intervals of the same width on RSNA: estimated weights bring errors of their own.

Source:
    Power law: Hestness et al. 2017, "Deep learning scaling is predictable, empirically"; Viering
    and Loog 2023, "The shape of learning curves" (IEEE TPAMI 45:7799), who also name what departs
    from it. Where two lines cross: Fieller 1954, J R Stat Soc B 16:175.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.statistics.obuchowski_rockette import Effect, analyse_nested

_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class _CurveBand:
    """A fitted curve with its 95 % band, pointwise, each of shape ``(N,)`` and within [0, 1]."""

    values: Floats  # the curve
    low: Floats  # low end of the band
    high: Floats  # high end


@dataclass(frozen=True)
class LearningCurve:
    """The curve of one arm, see `fit_learning_curves`."""

    amounts: Floats  # annotated images at each size that was fitted, ascending
    # `(ln a, b)`; `None` without a fit. `b` is below 0 where more images give less
    line: tuple[float, float] | None
    draws: Floats  # of the line, shape `(draws, 2)`; row by row jointly with those of other arms
    # "random", or "fixed" with one training at each size: the curve is that of these trained
    # models, its uncertainty that over patients alone
    seeds: Effect
    # p-value of the test that the means lie on such a line; `None` with two sizes, through which a
    # line always goes
    lack_of_fit: float | None = None
    left_out: tuple[str, ...] = ()  # why sizes were left out, a sentence each
    reason: str = ""  # why there is no fit; empty where there is one

    @property
    def fits(self) -> bool:
        """Whether there is a line, and the points are not shown to depart from it."""
        return self.line is not None and (self.lack_of_fit is None or self.lack_of_fit > 1 - LEVEL)

    def at(self, amounts: npt.ArrayLike) -> _CurveBand:
        """The curve at numbers of annotated images."""
        if self.line is None:
            raise InputError(f"no learning curve: {self.reason}")
        n = np.asarray(amounts, dtype=np.float64).ravel()
        if not (n > 0).all():
            raise InputError(f"a learning curve begins above 0 images, got {n.min():g}")
        lines = np.vstack([self.line, self.draws])
        # A tiny number of images may lack more than everything.
        figures = 1 - np.exp(np.minimum(lines[:, :1] - lines[:, 1:] * np.log(n), 0.0))
        low, high = np.quantile(figures[1:], [_TAIL, 1 - _TAIL], axis=0)
        return _CurveBand(figures[0], low, high)


@dataclass(frozen=True)
class Crossing:
    """Where along the annotation effort one fitted curve overtakes another; see `crossing`."""

    # the estimate; `None` without two curves, or where they are parallel. Infinite, or 0, where it
    # is beyond all numbers
    effort: float | None
    # the 95 % interval; `(0, inf)` where it is not shown which curve is the steeper: they may cross
    # anywhere or nowhere. `None` without two curves
    interval: tuple[float, float] | None
    ahead: Literal["first", "second"] | None  # the arm whose curve is higher beyond the estimate
    # the effort, from and to, at which both arms have sizes; `None` if there is none
    measured: tuple[float, float] | None
    reason: str  # why a crossing is not shown; empty where it is

    @property
    def shown(self) -> bool:
        """Whether the whole interval lies where both arms were measured, and both curves fit."""
        return not self.reason


def fit_learning_curves(
    amounts: Sequence[npt.ArrayLike],
    figures: Sequence[npt.ArrayLike],
    covariance: npt.ArrayLike,
    freedom: float,
    *,
    draws: int = 1024,
    seed: int = 0,
) -> tuple[LearningCurve, ...]:
    """Fit a power law to each arm, with the joint uncertainty of all.

    A size of which a figure is NaN, or whose mean is 1 (it has no logarithm), is left out.

    Of each arm `amounts` has shape ``(S,)`` and `figures`, one for each seed, ``(S, R)``.
    `covariance` is over patients, of all figures in the order arm, size, seed.
    """
    sizes = [np.asarray(each, dtype=np.float64) for each in amounts]
    tables = [np.asarray(each, dtype=np.float64) for each in figures]
    matrix = np.asarray(covariance, dtype=np.float64)
    ends = np.cumsum([0, *(table.size for table in tables)])
    arms = [_arm(*each) for each in zip(sizes, tables, ends, strict=False)]
    fitted = [arm for arm in arms if len(arm.amounts) > 1]
    curves = iter(_curves(fitted, matrix, freedom, draws, seed) if fitted else ())
    return tuple(next(curves) if len(arm.amounts) > 1 else arm.without_fit() for arm in arms)


def crossing(
    first: LearningCurve,
    second: LearningCurve,
    seconds_per_image: tuple[float, float] = (1.0, 1.0),
) -> Crossing:
    """Where along the annotation effort the fitted curve of one arm overtakes that of another.

    The difference of two lines is a line, too: it is 0 at an effort in closed form. The interval
    holds all efforts at which the difference is not shown (two-sided, pointwise, by the draws), as
    Fieller's does. A crossing is shown where that interval lies within the effort that both arms
    measured: at either end of it the other arm is then shown to be ahead, each with an error of
    2.5 %, so that curves which do not cross there are said to do so in at most 5 % of studies. It
    is not shown with one seed, whose curve is that of a few trained models, nor where a power law
    does not fit the points.
    """
    if not all(math.isfinite(each) and each > 0 for each in seconds_per_image):
        raise InputError(f"seconds per image must be positive, got {seconds_per_image}")
    for name, curve in (("first", first), ("second", second)):
        if curve.line is None:
            return Crossing(None, None, None, None, f"no curve of the {name} arm: {curve.reason}")
    if first.draws.shape != second.draws.shape:
        raise InputError("curves that may cross must come from one fit of both arms")
    estimates = np.array([[first.line], [second.line]])
    height, slope = _difference(estimates[0], estimates[1], seconds_per_image)
    heights, slopes = _difference(first.draws, second.draws, seconds_per_image)
    efforts = first.amounts * seconds_per_image[0], second.amounts * seconds_per_image[1]
    low, high = (float(max(at[0] for at in efforts)), float(min(at[-1] for at in efforts)))
    measured = (low, high) if low < high else None
    effort: float | None = None
    ahead: Literal["first", "second"] | None = None
    interval = 0.0, math.inf
    if slope[0]:
        effort, ahead = _exp(height[0] / slope[0]), "first" if slope[0] > 0 else "second"
        interval = _efforts_not_shown(heights, slopes)
    return Crossing(effort, interval, ahead, measured, _reason(first, second, interval, measured))


@dataclass(frozen=True)
class _Arm:
    """The sizes of an arm that can be fitted, ascending, and their rows in the covariance."""

    amounts: Floats
    figures: Floats  # (S, R)
    rows: npt.NDArray[np.int64]  # (S, R)
    left_out: tuple[str, ...]

    @property
    def seeds(self) -> Effect:
        return "random" if self.figures.shape[1] > 1 else "fixed"

    @property
    def design(self) -> Floats:
        """What ``(ln a, b)`` is multiplied with, shape ``(S, 2)``."""
        return np.column_stack([np.ones(len(self.amounts)), -np.log(self.amounts)])

    @property
    def logarithms(self) -> Floats:
        return np.asarray(np.log(1 - self.figures.mean(axis=1)))

    def without_fit(self) -> LearningCurve:
        count, total = len(self.amounts), len(self.amounts) + len(self.left_out)
        reason = f"{count} of {total} sizes have a figure below 1; a curve needs two"
        none = np.empty((0, 2))
        return LearningCurve(
            self.amounts, None, none, self.seeds, left_out=self.left_out, reason=reason
        )


def _arm(amounts: Floats, figures: Floats, start: int) -> _Arm:
    order = np.argsort(amounts)
    means = figures.mean(axis=1)
    left_out = [
        f"{amounts[i]:g} images: "
        + (
            f"no figure of seed {', '.join(str(j) for j in np.flatnonzero(np.isnan(figures[i])))}"
            if np.isnan(means[i])
            else "a figure of 1 has no logarithm"
        )
        for i in order
        if not means[i] < 1
    ]
    kept = order[means[order] < 1]
    rows = start + np.arange(figures.size).reshape(figures.shape)
    return _Arm(amounts[kept], figures[kept], rows[kept], tuple(left_out))


def _curves(
    arms: Sequence[_Arm], matrix: Floats, freedom: float, draws: int, seed: int
) -> list[LearningCurve]:
    """The curves of arms with two sizes or more."""
    root, estimate_over_seeds = _log_covariance(arms, matrix)
    fits = [np.asarray(np.linalg.pinv(arm.design), np.float64) for arm in arms]
    ends = np.cumsum([0, *(len(arm.amounts) for arm in arms)])
    weights = scipy.linalg.block_diag(*fits) @ root
    columns = [2 * len(arms) + 1] + [3 if arm.seeds == "random" else 0 for arm in arms]
    uniform = np.split(_uniform(draws, sum(columns), seed), np.cumsum(columns[:-1]), axis=1)
    joint = _t_draws(uniform[0], weights @ weights.T, freedom)
    found = []
    for i, (arm, fit) in enumerate(zip(arms, fits, strict=True)):
        of = slice(ends[i], ends[i + 1])
        line, around = fit @ arm.logarithms, joint[:, 2 * i : 2 * i + 2]
        if arm.seeds == "random":
            of_curve = ((arm.design @ fit) ** 2).sum(axis=0) * estimate_over_seeds[of]
            own = _freedom(of_curve, arm.figures.shape[1] - 1)
            around = around + _t_draws(uniform[i + 1], (fit * estimate_over_seeds[of]) @ fit.T, own)
        lack = _lack_of_fit(arm, root[of], freedom, estimate_over_seeds[of])
        at = float(line[0]), float(line[1])
        found.append(LearningCurve(arm.amounts, at, line + around, arm.seeds, lack, arm.left_out))
    return found


def _log_covariance(arms: Sequence[_Arm], matrix: Floats) -> tuple[Floats, Floats]:
    """Of ln(1 - mean), in a row: root of the covariance over patients, variances over seeds."""
    rows = np.concatenate([arm.rows.ravel() for arm in arms])
    kept = matrix[np.ix_(rows, rows)]
    groups = [of_size for arm in arms for of_size in arm.figures]
    average = scipy.linalg.block_diag(*[np.full((1, len(each)), 1 / len(each)) for each in groups])
    readers: list[Effect] = [arm.seeds for arm in arms for _ in arm.amounts]
    both = analyse_nested(groups, kept, readers=readers, floor_mean_square=True).systems
    over_patients = average @ kept @ average.T
    estimate_over_seeds = np.zeros(len(groups))
    if "random" in readers:
        alone = analyse_nested(
            groups, kept, readers=readers, cases="fixed", floor_mean_square=True
        ).systems
        estimate_over_seeds = np.array([(each.error or 0.0) ** 2 for each in alone])
    total = np.array([(each.error or 0.0) ** 2 for each in both])
    np.fill_diagonal(over_patients, np.maximum(total - estimate_over_seeds, 0.0))
    slopes = 1 / (1 - np.array([each.mean() for each in groups]))  # of the logarithm
    return _root(over_patients * np.outer(slopes, slopes)), estimate_over_seeds * slopes**2


def _root(covariance: Floats) -> Floats:
    """``root @ root.T`` is the covariance, or the nearest to what is not quite one."""
    squares, directions = np.linalg.eigh(covariance)
    return np.asarray(directions * np.sqrt(np.maximum(squares, 0.0)))


def _uniform(draws: int, columns: int, seed: int) -> Floats:
    """Sobol's points with a random shift, inside (0, 1): fewer are needed than of random draws."""
    sobol = scipy.stats.qmc.Sobol(columns, scramble=False)
    shift = np.random.default_rng(seed).random(columns)
    points = (sobol.random_base2(math.ceil(math.log2(draws))) + shift) % 1
    return np.asarray(np.clip(points, 2.0**-40, 1 - 2.0**-40))


def _t_draws(uniform: Floats, covariance: Floats, freedom: float) -> Floats:
    """Multivariate t around 0; the last column is for its chi-square."""
    found = scipy.special.ndtri(uniform[:, :-1]) @ _root(covariance).T
    if math.isfinite(freedom):
        found *= np.sqrt(freedom / scipy.special.chdtri(freedom, uniform[:, -1]))[:, None]
    return np.asarray(found)


def _freedom(variances: Floats, each: float) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances, each with as many."""
    spread = float((variances**2).sum())
    return float(variances.sum() ** 2 / spread * each) if spread else math.inf


def _lack_of_fit(
    arm: _Arm, root: Floats, freedom: float, estimate_over_seeds: Floats
) -> float | None:
    """p-value of what the means depart from a line by, F; seeds' variance is that of all sizes."""
    spare = len(arm.amounts) - 2
    if not spare:
        return None
    aside = scipy.linalg.null_space(arm.design.T)  # (S, S - 2): all that is not on a line
    of_patients = aside.T @ root @ root.T @ aside
    pooled = float(estimate_over_seeds.mean())
    expected = of_patients + pooled * np.eye(spare)
    if np.linalg.eigvalsh(expected)[0] <= 1e-24:
        return None
    departs = aside.T @ arm.logarithms
    ratio = float(departs @ np.linalg.solve(expected, departs)) / spare
    parts = np.array([np.trace(of_patients), spare * pooled])
    degrees = np.array([freedom, max(estimate_over_seeds.size * (arm.figures.shape[1] - 1), 1)])
    below = float(parts.sum() ** 2 / (parts**2 / degrees).sum())
    return float(scipy.special.fdtrc(spare, below, ratio))


def _difference(
    first: Floats, second: Floats, seconds_per_image: tuple[float, float]
) -> tuple[Floats, Floats]:
    """``(height, slope)``: first minus second line is ``height - slope ln(effort)``."""
    heights = [
        lines[:, 0] + lines[:, 1] * math.log(seconds)
        for lines, seconds in zip((first, second), seconds_per_image, strict=True)
    ]
    return heights[0] - heights[1], first[:, 1] - second[:, 1]


def _efforts_not_shown(heights: Floats, slopes: Floats) -> tuple[float, float]:
    """From and to which effort draws of ``height - slope ln(effort)`` are of either sign.

    Beyond all efforts a draw's sign is that of its slope. If more than 2.5 % have either sign, no
    end is shown.
    """
    rises = slopes > 0
    if _TAIL <= rises.mean() <= 1 - _TAIL:
        return 0.0, math.inf
    onwards = rises == (rises.mean() > 0.5)  # draws with the direction of nearly all
    places = heights / slopes
    order = np.argsort(places)
    # The share of draws past their crossing, before and after each crossing.
    steps = np.where(onwards[order], 1.0, -1.0)
    after = (np.count_nonzero(~onwards) + np.cumsum(steps)) / len(slopes)
    before = after - steps / len(slopes)
    low = places[order[np.flatnonzero(after > _TAIL)[0]]]
    high = places[order[np.flatnonzero(before < 1 - _TAIL)[-1]]]
    return _exp(low), _exp(high)


def _exp(logarithm: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.exp(logarithm))


def _reason(
    first: LearningCurve,
    second: LearningCurve,
    interval: tuple[float, float],
    measured: tuple[float, float] | None,
) -> str:
    """Why a crossing is not shown."""
    if "fixed" in (first.seeds, second.seeds):
        return "one training at each size: how trainings differ is not known"
    if not (first.fits and second.fits):
        return "the points do not lie on a power law"
    if measured is None:
        return "no effort was measured by both arms"
    if interval == (0.0, math.inf):
        return "the curves are not shown to differ in slope"
    if not (measured[0] <= interval[0] and interval[1] <= measured[1]):
        return "the interval reaches beyond the effort that both arms measured"
    return ""
