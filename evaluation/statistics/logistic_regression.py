"""Logistic regression of many rows at once by Newton's method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats

_STEPS = 100
_CONVERGED = 1e-10  # largest gradient per image of a converged fit
_SMALLEST_STEP = 1e-10
_ROUNDING = 1e-13  # relative rise of a loss that counts as rounding
_LEAST_CURVATURE = 1e-12  # added so that separated classes give a finite step


class LogisticFit(NamedTuple):
    """Coefficients of R logistic regressions that were fitted together, shape ``(R, C)``.

    `gradient` is the largest absolute gradient of the loss before the last step, shape ``(R,)``;
    near 0 if the fit has converged.
    """

    coefficients: Floats
    gradient: Floats


def sigmoid(logits: Floats) -> Floats:
    """Compute probabilities from log-odds of any shape, without overflow at either end.

    Example:
        >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def fit_logistic(
    design: Floats,
    mass: Floats,
    positive_sums: Floats,
    *,
    start: Floats | None = None,
    ridge: float | Floats = 0.0,
    offset: Floats | float = 0.0,
) -> LogisticFit:
    """Fit R logistic regressions on the same variables, with different weights, by Newton's method.

    Each regression is one row of the arguments, such as one bootstrap resample; its fit does not
    depend on the other rows. A step is halved if it would raise the loss. Labels enter only through
    their sufficient statistic `positive_sums`, so they may be counts, weights or shares. If the
    classes are separated and no ridge keeps the coefficients finite, the coefficients of the last
    step are returned.

    `design` has C variables of N images, ``(N, C)``, a column of ones for an intercept; `mass` the
    weights of the images, ``(R, N)``; `positive_sums` the weighted sums of the variables over
    positive images, ``(R, C)``; `start` the first coefficients, ``(R, C)``. Half of `ridge` times
    each squared coefficient is added to the loss, and `offset` is a fixed part of the log-odds of
    each image.

    Source:
        Damped Newton method: Lin, Lin and Weng 2007, for Platt scaling.

    Example:
        >>> design = np.column_stack([np.ones(4), [0.0, 0.0, 1.0, 1.0]])
        >>> labels = np.array([0.0, 1.0, 1.0, 1.0])
        >>> fit = fit_logistic(design, np.ones((1, 4)), (labels @ design)[None], ridge=1.0)
        >>> fit.coefficients.round(3).tolist()
        [[0.376, 0.562]]
    """
    shape = positive_sums.shape
    fitted = np.zeros(shape)
    gradient_left = np.full(len(positive_sums), np.inf)
    current = fitted.copy() if start is None else np.array(start, dtype=np.float64)
    problem = _Problem(design, mass, positive_sums, np.broadcast_to(ridge, shape[1:]), offset)
    rows = np.arange(len(positive_sums))
    probability, loss = problem.loss(current)
    for _ in range(_STEPS):
        gradient, curvature = problem.slopes(current, probability)
        step = np.asarray(np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0], np.float64)
        current, probability, loss = problem.move(current, step, loss)
        fitted[rows] = current
        gradient_left[rows] = np.abs(gradient).max(axis=1)
        # The gradient is that before the step; near the solution, a Newton step about squares it.
        far = gradient_left[rows] > _CONVERGED * np.maximum(problem.mass.sum(axis=1), 1.0)
        if not far.any():
            break
        if not far.all():
            problem = problem.select(far)
            rows = rows[far]
            current = current[far]
            probability = probability[far]
            loss = loss[far]
    return LogisticFit(fitted, gradient_left)


class _Step(NamedTuple):
    """Coefficients, shape ``(R, C)``, with their probabilities ``(R, N)`` and losses ``(R,)``."""

    coefficients: Floats
    probability: Floats
    loss: Floats


class _Problem(NamedTuple):
    """The regressions to be fitted; the fields are the arguments of `fit_logistic`."""

    design: Floats
    mass: Floats
    positive_sums: Floats
    penalty: Floats
    offset: Floats | float

    def select(self, rows: npt.NDArray[np.bool_]) -> _Problem:
        return self._replace(mass=self.mass[rows], positive_sums=self.positive_sums[rows])

    def loss(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Return the probability at each line of the design, and the penalised loss."""
        # Each row has its own matrix product, so that its result does not depend on the other rows.
        logits = self.offset + (coefficients[:, None, :] @ self.design.T)[:, 0]
        small = np.exp(-np.abs(logits))
        probability = np.where(logits >= 0, 1.0, small) / (1 + small)
        softplus = np.maximum(logits, 0) + np.log1p(small)
        linear = self.penalty * coefficients**2 / 2 - self.positive_sums * coefficients
        return probability, np.einsum("rn,rn->r", self.mass, softplus) + linear.sum(axis=1)

    def slopes(self, coefficients: Floats, probability: Floats) -> tuple[Floats, Floats]:
        """Return gradient and curvature of the loss, shapes ``(R, C)`` and ``(R, C, C)``."""
        expected = self.mass * probability
        gradient = (expected[:, None, :] @ self.design)[:, 0] - self.positive_sums
        spread = (expected * (1 - probability))[:, :, None] * self.design
        curvature = np.swapaxes(spread, 1, 2) @ self.design
        ridge = np.diag(self.penalty + _LEAST_CURVATURE)
        return gradient + self.penalty * coefficients, curvature + ridge

    def move(self, coefficients: Floats, step: Floats, loss_before: Floats) -> _Step:
        """Take a step; in each row it is halved until the loss no longer rises."""
        size = np.ones(len(step))
        moved = coefficients - step
        probability, loss = self.loss(moved)
        highest = loss_before + _ROUNDING * (1 + np.abs(loss_before))
        while True:
            worse = (loss > highest) & (size > _SMALLEST_STEP)
            if not worse.any():
                return _Step(moved, probability, loss)
            size[worse] /= 2
            moved[worse] = coefficients[worse] - size[worse, None] * step[worse]
            probability[worse], loss[worse] = self.select(worse).loss(moved[worse])
