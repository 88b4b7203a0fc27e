"""Learning curves: a figure against the number of annotated images, and where two curves cross.

The distance of a figure from 1 is assumed to fall with a power of the number of images ``n``::

    1 - figure = a n^-b        ln(1 - figure) = ln a - b ln n, a straight line

A third parameter, the level at which more images no longer help, is left out. With four sizes it
would leave one degree of freedom, and a high level with a small ``b`` describes the same points as
a low level with a large ``b``. Beyond the largest size, where the curves end, a fitted level would
suggest more than is known.

Each model's line is the ordinary least squares line through the model's means over seeds; no model
changes the line of another. The uncertainty of the lines follows from the joint covariance of all
means, which `obuchowski_rockette.analyse_nested` gives with ``floor_mean_square=True``: all models
and sizes share the patients, and each size of a model has separate seeds. The uncertainty is stored
as draws of ``(ln a, b)`` from a multivariate t distribution. It has one chi-square for the
patients, and one for the seeds of each model with Satterthwaite's degrees of freedom.

``docs/curve.md`` says how often bands and intervals cover the truth. The model leaves out that
trainings with the same seed vary together over nested sizes. Generalised least squares, with the
same covariance as weights, gave intervals of the same width on RSNA, because estimated weights add
errors.

Source:
    Power law: Hestness et al. 2017, "Deep learning scaling is predictable, empirically"; Viering
    and Loog 2023, "The shape of learning curves" (IEEE TPAMI 45:7799), who also describe departures
    from a power law. Crossing of two lines: Fieller 1954, J R Stat Soc B 16:175.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.statistics.obuchowski_rockette import Effect, analyse_nested

_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class CurveBand:
    """A learning curve at N numbers of images, with its pointwise 95 % band, each ``(N,)``."""

    values: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class LearningCurve:
    """Learning curve of one model: a power law of its performance by number of annotated images.

    The performance is a metric in [0, 1], such as the AUROC, on test images. The curve is ``metric
    = 1 - a n^-b`` for n annotated training images. On logarithmic scales, ``1 - metric`` is a
    straight line. The function `fit_learning_curves` fits the curve.

    Attributes:
        amounts: Number of annotated training images at each size of the training set that was used
            in the fit, ascending, shape ``(S,)``.
        line: Parameters ``(ln a, b)`` of the power law; None if there is no fit. If ``b`` is below
            0, the performance falls with more images.
        draws: Random draws of ``(ln a, b)`` that show the uncertainty of the parameters, shape
            ``(draws, 2)``. The models of one fit are drawn jointly: row k of one model belongs to
            row k of every other model.
        seeds: "fixed" if the model was trained once at each size, "random" if it was trained
            several times with different random seeds. The uncertainty of a "fixed" curve is over
            test patients only, so the curve describes these trained models only.
        lack_of_fit: p-value of the hypothesis that the mean performances follow the power law. None
            with two sizes, because two points always lie on a line, or if there is no fit.
        left_out: Sizes that were not used in the fit, each with the reason, such as ``"100 images:
            a figure of 1 has no logarithm"``.
        reason: Reason why there is no fit; empty if there is one.
    """

    amounts: Floats
    line: tuple[float, float] | None
    draws: Floats
    seeds: Effect
    lack_of_fit: float | None = None
    left_out: tuple[str, ...] = ()
    reason: str = ""

    @property
    def fits(self) -> bool:
        """True if a curve was fitted, and the test `lack_of_fit` does not reject the power law."""
        return self.line is not None and (self.lack_of_fit is None or self.lack_of_fit > 1 - LEVEL)

    def at(self, amounts: npt.ArrayLike) -> CurveBand:
        """Evaluate the fitted curve and its band at numbers of annotated training images, ``(N,)``.

        Raises InputError if no curve was fitted, or a number of images is not above 0.
        """
        if self.line is None:
            raise InputError(f"no learning curve: {self.reason}")
        n = np.asarray(amounts, dtype=np.float64).ravel()
        if not (n > 0).all():
            raise InputError(f"a learning curve begins above 0 images, got {n.min():g}")
        lines = np.vstack([self.line, self.draws])
        # At a tiny number of images the line may give a figure below 0.
        figures = 1 - np.exp(np.minimum(lines[:, :1] - lines[:, 1:] * np.log(n), 0.0))
        low, high = np.quantile(figures[1:], [_TAIL, 1 - _TAIL], axis=0)
        return CurveBand(figures[0], low, high)


class EffortRange(NamedTuple):
    """Range of annotation effort, in seconds, in which two learning curves are compared.

    The effort is the number of annotated training images times the seconds that the annotation of
    one image takes (``seconds_per_image`` of `crossing`).
    """

    low: float
    high: float


@dataclass(frozen=True)
class Crossing:
    """Annotation effort at which one model's fitted learning curve overtakes that of another.

    The function `crossing` computes it from two learning curves. The effort is the time, in
    seconds, for annotating the training images: their number times the seconds that one image
    takes. With the default of `crossing`, 1 second for each image, the effort equals the number of
    images.

    Attributes:
        effort: Estimated effort at which the two curves cross, in seconds. None if one of the
            curves could not be fitted, or if the curves are parallel. It is infinite or 0 if the
            number is too large or too small for a float.
        interval: The 95 % confidence interval of the effort, in seconds, as lower and upper end. It
            is ``(0, inf)`` if it is not statistically shown which curve is steeper: the curves may
            then cross at any effort or at none. None if one of the curves could not be fitted.
        ahead: The model with the better performance beyond the estimated effort: "first" or
            "second", as in the arguments of `crossing`. None if there is no estimated effort.
        measured: Range of efforts, in seconds, in which the training sets of both models lie: the
            larger of the two models' smallest efforts, and the smaller of their largest efforts.
            Within it, neither curve is extrapolated. None if there is no such range.
        reason: Sentence part that says why the crossing is not statistically shown; empty if it is
            shown.
    """

    effort: float | None
    interval: tuple[float, float] | None
    ahead: Literal["first", "second"] | None
    measured: tuple[float, float] | None
    reason: str

    @property
    def shown(self) -> bool:
        """True if the crossing is statistically shown.

        The 95 % interval of the effort then lies within the range `measured`, each model has
        several trainings at each size, and a power law fits the points of both models.
        """
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
    """Fit a power law to each model's performance by number of annotated training images.

    The power law is ``1 - a n^-b`` for n images. The uncertainty of all models is estimated
    jointly, because they are evaluated on the same test patients. A size of the training set is
    left out if a performance is NaN there, or if the mean performance is 1, because ``ln(1 - 1)``
    is undefined.

    For each model, `amounts` are the numbers of annotated training images above 0 at each size,
    ``(S,)``, and `figures` its performance in [0, 1], such as the AUROC on test images, ``(S,
    seeds)``. `covariance` is that of all these values over test patients, with rows and columns in
    the order model, size, seed, and `freedom` its degrees of freedom, such as the number of test
    patients of the rarer class minus 1. The number of draws is a power of 2.

    Source:
        Hestness et al. 2017; for the covariance, Obuchowski and Rockette 1995.

    Example:
        >>> sizes = np.array([100.0, 200.0, 400.0])
        >>> auroc = 1 - 2 * sizes**-0.5
        >>> seeds = np.column_stack([auroc, auroc])
        >>> (curve,) = fit_learning_curves([sizes], [seeds], 1e-6 * np.eye(6), freedom=200)
        >>> round(curve.line[1], 3), curve.at([900]).values.round(4).tolist()
        (0.5, [0.9333])
    """
    sizes = [np.asarray(of_model, dtype=np.float64) for of_model in amounts]
    tables = [np.asarray(of_model, dtype=np.float64) for of_model in figures]
    matrix = np.asarray(covariance, dtype=np.float64)
    starts = np.cumsum([0, *(table.size for table in tables)])
    models = [
        _fitted_sizes(of_model, table, start)
        for of_model, table, start in zip(sizes, tables, starts, strict=False)
    ]
    with_a_line = [model for model in models if len(model.amounts) > 1]
    curves = iter(_curves(with_a_line, matrix, freedom, draws, seed) if with_a_line else ())
    return tuple(
        next(curves) if len(model.amounts) > 1 else model.without_fit() for model in models
    )


def crossing(
    first: LearningCurve,
    second: LearningCurve,
    seconds_per_image: tuple[float, float] = (1.0, 1.0),
) -> Crossing:
    """Find the annotation effort at which the curve of one model overtakes that of another.

    The effort is the number of annotated training images times the seconds that one image takes.

    On logarithmic scales, the curves are straight lines. The difference of two lines is a line,
    too, so its zero has a closed form. Like Fieller's interval, the interval holds all efforts at
    which no difference of the two models is shown (two-sided, pointwise, by the random draws of
    both curves). A crossing is shown if this interval lies within the range of efforts at which
    both models were trained. One model is then shown to be ahead at the lower end of that range and
    the other at the upper end, each with an error of 2.5 %. Curves that do not cross in that range
    are therefore said to cross in at most 5 % of studies. A crossing is not shown if a model has
    only one training at each size, because its curve then describes a few trained models only, or
    if a power law does not fit the points.

    Both curves are of the same call of `fit_learning_curves`. The seconds are above 0, for the
    first and the second model. If the crossing is not shown, the result has the reason. Raises
    InputError if a number of seconds is not finite or not above 0, or the curves have different
    numbers of draws.

    Source:
        Fieller 1954, J R Stat Soc B 16:175.

    Example:
        >>> sizes = np.array([100.0, 400.0, 1600.0])
        >>> steep, flat = 1 - 4 * sizes**-0.5, 1 - 0.8 * sizes**-0.2
        >>> tables = [np.column_stack([auroc, auroc]) for auroc in (steep, flat)]
        >>> curves = fit_learning_curves([sizes] * 2, tables, 1e-6 * np.eye(12), freedom=200)
        >>> overtaking = crossing(*curves)
        >>> round(overtaking.effort), overtaking.ahead, overtaking.shown
        (214, 'first', True)
    """
    if not all(math.isfinite(seconds) and seconds > 0 for seconds in seconds_per_image):
        raise InputError(f"seconds per image must be positive, got {seconds_per_image}")
    if first.line is None:
        return _no_crossing("first", first)
    if second.line is None:
        return _no_crossing("second", second)
    if first.draws.shape != second.draws.shape:
        raise InputError("curves that may cross must come from one fit of both models")
    line = _difference(np.array([first.line]), np.array([second.line]), seconds_per_image)
    lines = _difference(first.draws, second.draws, seconds_per_image)
    first_efforts = first.amounts * seconds_per_image[0]
    second_efforts = second.amounts * seconds_per_image[1]
    common = EffortRange(
        float(max(first_efforts[0], second_efforts[0])),
        float(min(first_efforts[-1], second_efforts[-1])),
    )
    measured = common if common.low < common.high else None
    effort: float | None = None
    ahead: Literal["first", "second"] | None = None
    interval = EffortRange(0.0, math.inf)
    slope = line.slope[0]
    if slope:
        effort = _exp(line.height[0] / slope)
        ahead = "first" if slope > 0 else "second"
        interval = _efforts_not_shown(lines)
    reason = _reason(first, second, interval, measured)
    return Crossing(effort, interval, ahead, measured, reason)


def _no_crossing(name: str, curve: LearningCurve) -> Crossing:
    reason = f"no curve of the {name} model: {curve.reason}"
    return Crossing(effort=None, interval=None, ahead=None, measured=None, reason=reason)


@dataclass(frozen=True)
class _FittedSizes:
    """The sizes of a model that can be fitted, ascending, and their rows in the covariance."""

    amounts: Floats
    figures: Floats  # (S, R)
    rows: npt.NDArray[np.int64]  # (S, R)
    left_out: tuple[str, ...]

    @property
    def seeds(self) -> Effect:
        return "random" if self.figures.shape[1] > 1 else "fixed"

    @property
    def design(self) -> Floats:
        """Design matrix of ``(ln a, b)``, shape ``(S, 2)``."""
        return np.column_stack([np.ones(len(self.amounts)), -np.log(self.amounts)])

    @property
    def logarithms(self) -> Floats:
        return np.asarray(np.log(1 - self.figures.mean(axis=1)))

    def without_fit(self) -> LearningCurve:
        count = len(self.amounts)
        total = count + len(self.left_out)
        return LearningCurve(
            self.amounts,
            line=None,
            draws=np.empty((0, 2)),
            seeds=self.seeds,
            left_out=self.left_out,
            reason=f"{count} of {total} sizes have a figure below 1; a curve needs two",
        )


def _fitted_sizes(amounts: Floats, figures: Floats, first_row: int) -> _FittedSizes:
    """Select the sizes whose mean figure is below 1, and give the reason for each size left out."""
    order = np.argsort(amounts)
    means = figures.mean(axis=1)
    left_out = []
    for size in order:
        if means[size] < 1:
            continue
        missing = np.flatnonzero(np.isnan(figures[size]))
        if len(missing):
            reason = f"no figure of seed {', '.join(str(seed) for seed in missing)}"
        else:
            reason = "a figure of 1 has no logarithm"
        left_out.append(f"{amounts[size]:g} images: {reason}")
    fitted = order[means[order] < 1]
    rows = first_row + np.arange(figures.size).reshape(figures.shape)
    return _FittedSizes(amounts[fitted], figures[fitted], rows[fitted], tuple(left_out))


def _curves(
    models: Sequence[_FittedSizes], matrix: Floats, freedom: float, draws: int, seed: int
) -> list[LearningCurve]:
    """Fit the curves of models that each have at least two sizes."""
    root, over_seeds = _log_covariance(models, matrix)
    fits = [np.asarray(np.linalg.pinv(model.design), np.float64) for model in models]
    ends = np.cumsum([0, *(len(model.amounts) for model in models)])
    weights = scipy.linalg.block_diag(*fits) @ root
    columns = [2 * len(models) + 1]
    columns += [3 if model.seeds == "random" else 0 for model in models]
    uniform = np.split(_uniform(draws, sum(columns), seed), np.cumsum(columns[:-1]), axis=1)
    joint = _t_draws(uniform[0], weights @ weights.T, freedom)
    curves = []
    for i, (model, fit) in enumerate(zip(models, fits, strict=True)):
        sizes = slice(ends[i], ends[i + 1])
        line = fit @ model.logarithms
        deviations = joint[:, 2 * i : 2 * i + 2]
        if model.seeds == "random":
            shares = ((model.design @ fit) ** 2).sum(axis=0) * over_seeds[sizes]
            freedom_of_seeds = _freedom(shares, model.figures.shape[1] - 1)
            covariance = (fit * over_seeds[sizes]) @ fit.T
            deviations = deviations + _t_draws(uniform[i + 1], covariance, freedom_of_seeds)
        curves.append(
            LearningCurve(
                model.amounts,
                (float(line[0]), float(line[1])),
                line + deviations,
                model.seeds,
                _lack_of_fit(model, root[sizes], freedom, over_seeds[sizes]),
                model.left_out,
            )
        )
    return curves


class _LogCovariance(NamedTuple):
    """Covariance of the logarithms ln(1 - mean) of all models' sizes.

    `root` is a matrix root of the covariance over patients, shape ``(sizes, sizes)``; `over_seeds`
    holds the variances over seeds, shape ``(sizes,)``.
    """

    root: Floats
    over_seeds: Floats


def _log_covariance(models: Sequence[_FittedSizes], matrix: Floats) -> _LogCovariance:
    rows = np.concatenate([model.rows.ravel() for model in models])
    covariance = matrix[np.ix_(rows, rows)]
    groups = [seeds for model in models for seeds in model.figures]
    average = scipy.linalg.block_diag(
        *[np.full((1, len(seeds)), 1 / len(seeds)) for seeds in groups]
    )
    readers: list[Effect] = [model.seeds for model in models for _ in model.amounts]
    both = analyse_nested(groups, covariance, readers=readers, floor_mean_square=True).systems
    over_patients = average @ covariance @ average.T
    over_seeds = np.zeros(len(groups))
    if "random" in readers:
        alone = analyse_nested(
            groups, covariance, readers=readers, cases="fixed", floor_mean_square=True
        ).systems
        over_seeds = np.array([(estimate.error or 0.0) ** 2 for estimate in alone])
    total = np.array([(estimate.error or 0.0) ** 2 for estimate in both])
    np.fill_diagonal(over_patients, np.maximum(total - over_seeds, 0.0))
    # Derivative of the logarithm at the mean.
    slopes = 1 / (1 - np.array([seeds.mean() for seeds in groups]))
    root = _root(over_patients * np.outer(slopes, slopes))
    return _LogCovariance(root, over_seeds * slopes**2)


def _root(covariance: Floats) -> Floats:
    """Return a matrix whose ``root @ root.T`` is the covariance, or the nearest valid one."""
    squares, directions = np.linalg.eigh(covariance)
    return np.asarray(directions * np.sqrt(np.maximum(squares, 0.0)))


def _uniform(draws: int, columns: int, seed: int) -> Floats:
    """Return randomly shifted Sobol points, which cover (0, 1) evenly, ``(draws, columns)``."""
    sobol = scipy.stats.qmc.Sobol(columns, scramble=False)
    shift = np.random.default_rng(seed).random(columns)
    points = (sobol.random_base2(math.ceil(math.log2(draws))) + shift) % 1
    return np.asarray(np.clip(points, 2.0**-40, 1 - 2.0**-40))


def _t_draws(uniform: Floats, covariance: Floats, freedom: float) -> Floats:
    """Turn points in (0, 1) into multivariate t around 0; the last column gives its chi-square."""
    normal = scipy.special.ndtri(uniform[:, :-1]) @ _root(covariance).T
    if math.isfinite(freedom):
        normal *= np.sqrt(freedom / scipy.special.chdtri(freedom, uniform[:, -1]))[:, None]
    return np.asarray(normal)


def _freedom(variances: Floats, freedom_of_one: float) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of variances with equal freedom."""
    spread = float((variances**2).sum())
    return float(variances.sum() ** 2 / spread * freedom_of_one) if spread else math.inf


def _lack_of_fit(
    model: _FittedSizes, root: Floats, freedom: float, over_seeds: Floats
) -> float | None:
    """Return the p-value of the hypothesis that the means lie on a line, by an F test.

    The variance over seeds is pooled over the sizes. None with two sizes, or if nothing varies.
    """
    spare = len(model.amounts) - 2
    if not spare:
        return None
    off_line = scipy.linalg.null_space(model.design.T)  # (S, S - 2): directions off the line
    over_patients = off_line.T @ root @ root.T @ off_line
    pooled = float(over_seeds.mean())
    expected = over_patients + pooled * np.eye(spare)
    if np.linalg.eigvalsh(expected)[0] <= 1e-24:
        return None
    departures = off_line.T @ model.logarithms
    ratio = float(departures @ np.linalg.solve(expected, departures)) / spare
    parts = np.array([np.trace(over_patients), spare * pooled])
    degrees = np.array([freedom, max(over_seeds.size * (model.figures.shape[1] - 1), 1)])
    denominator = float(parts.sum() ** 2 / (parts**2 / degrees).sum())
    return float(scipy.special.fdtrc(spare, denominator, ratio))


class _LineDifference(NamedTuple):
    """First line minus second, ``height - slope ln(effort)``; shape ``(lines,)`` each."""

    height: Floats
    slope: Floats


def _difference(
    first: Floats, second: Floats, seconds_per_image: tuple[float, float]
) -> _LineDifference:
    first_height = first[:, 0] + first[:, 1] * math.log(seconds_per_image[0])
    second_height = second[:, 0] + second[:, 1] * math.log(seconds_per_image[1])
    return _LineDifference(first_height - second_height, first[:, 1] - second[:, 1])


def _efforts_not_shown(lines: _LineDifference) -> EffortRange:
    """Return the range of efforts in which more than 2.5 % of the draws have either sign.

    For a very large effort, the sign of a draw is decided by its slope. If at least 2.5 % of the
    slopes have either sign, the range is unlimited.
    """
    rises = lines.slope > 0
    if _TAIL <= rises.mean() <= 1 - _TAIL:
        return EffortRange(0.0, math.inf)
    usual = rises == (rises.mean() > 0.5)  # draws whose slope has the more frequent sign
    log_efforts = lines.height / lines.slope
    order = np.argsort(log_efforts)
    # Share of the draws whose sign has changed to the usual one, before and after each crossing.
    steps = np.where(usual[order], 1.0, -1.0)
    after = (np.count_nonzero(~usual) + np.cumsum(steps)) / len(lines.slope)
    before = after - steps / len(lines.slope)
    low = log_efforts[order[np.flatnonzero(after > _TAIL)[0]]]
    high = log_efforts[order[np.flatnonzero(before < 1 - _TAIL)[-1]]]
    return EffortRange(_exp(low), _exp(high))


def _exp(logarithm: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.exp(logarithm))


def _reason(
    first: LearningCurve,
    second: LearningCurve,
    interval: EffortRange,
    measured: EffortRange | None,
) -> str:
    """Return the reason why a crossing is not shown; empty where it is shown."""
    if "fixed" in (first.seeds, second.seeds):
        return "one training at each size: how trainings differ is not known"
    if not (first.fits and second.fits):
        return "the points do not lie on a power law"
    if measured is None:
        return "the two curves have no number of images or epochs in common"
    if interval == (0.0, math.inf):
        return "the curves are not shown to differ in slope"
    if not (measured.low <= interval.low and interval.high <= measured.high):
        return "the interval reaches beyond the measured numbers of images or epochs"
    return ""
