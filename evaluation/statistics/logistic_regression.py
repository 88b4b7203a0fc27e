"""Logistic regression of many rows at once by Newton's method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats

_STEPS = 100


_CONVERGED = 1e-10  # of the gradient, per image


_SMALLEST_STEP = 1e-10


_ROUNDING = 1e-13  # by which a loss may rise


_LEAST_CURVATURE = 1e-12  # so that separated classes give a step at all


class _LogisticFit(NamedTuple):
    """Coefficients, shape ``(R, C)``, and the largest gradient that was left, shape ``(R,)``."""

    coefficients: Floats
    gradient: Floats


def sigmoid(logits: Floats) -> Floats:
    """Probabilities from log-odds, without overflow at either end."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def fit_logistic(
    design: Floats,
    mass: Floats,
    wanted: Floats,
    *,
    start: Floats | None = None,
    ridge: float | Floats = 0.0,
    offset: Floats | float = 0.0,
) -> _LogisticFit:
    """Fit logistic regressions by Newton's method, one per row, with halved steps where needed.

    A row's fit does not depend on what other rows there are. Labels enter by their sufficient
    statistic alone, so they may be counts, weights or shares.

    Shapes: `design` ``(N, C)``; `mass`, the weight at each of its lines, ``(R, N)``; `wanted`, the
    weighted sum of the design over positives, and `start` ``(R, C)``; `ridge` ``(C,)``; `offset`
    ``(N,)``. Where classes are separated and no ridge holds them, coefficients of the last step.

    Source:
        The damped Newton method for Platt scaling of Lin, Lin and Weng 2007.
    """
    fitted, left = np.zeros(wanted.shape), np.full(len(wanted), np.inf)
    now = fitted.copy() if start is None else np.array(start, dtype=np.float64)
    problem = _Problem(design, mass, wanted, np.broadcast_to(ridge, wanted.shape[1:]), offset)
    rows = np.arange(len(wanted))
    chance, loss = problem.loss(now)
    for _ in range(_STEPS):
        gradient, curvature = problem.slopes(now, chance)
        step = np.asarray(np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0], np.float64)
        now, chance, loss = problem.move(now, step, loss)
        fitted[rows], left[rows] = now, np.abs(gradient).max(axis=1)
        # That is the gradient before the step, which squares what was left of it.
        far = left[rows] > _CONVERGED * np.maximum(problem.mass.sum(axis=1), 1.0)
        if not far.any():
            break
        if not far.all():
            problem, rows = problem.of(far), rows[far]
            now, chance, loss = now[far], chance[far], loss[far]
    return _LogisticFit(fitted, left)


class _Problem(NamedTuple):
    """What is fitted; see `fit_logistic`."""

    design: Floats
    mass: Floats
    wanted: Floats
    penalty: Floats
    offset: Floats | float

    def of(self, rows: npt.NDArray[np.bool_]) -> _Problem:
        """Some of the rows."""
        return self._replace(mass=self.mass[rows], wanted=self.wanted[rows])

    def loss(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Probability at each line of the design, and penalised loss."""
        # Matrix products row by row: a row must not depend on how many others there are.
        logits = self.offset + (coefficients[:, None, :] @ self.design.T)[:, 0]
        small = np.exp(-np.abs(logits))
        chance = np.where(logits >= 0, 1.0, small) / (1 + small)
        softplus = np.maximum(logits, 0) + np.log1p(small)
        held = self.penalty * coefficients**2 / 2 - self.wanted * coefficients
        return chance, np.einsum("rn,rn->r", self.mass, softplus) + held.sum(axis=1)

    def slopes(self, coefficients: Floats, chance: Floats) -> tuple[Floats, Floats]:
        """Gradient and curvature of the loss, shapes ``(R, C)`` and ``(R, C, C)``."""
        expected = self.mass * chance
        gradient = (expected[:, None, :] @ self.design)[:, 0] - self.wanted
        spread = (expected * (1 - chance))[:, :, None] * self.design
        curvature = np.swapaxes(spread, 1, 2) @ self.design
        held = np.diag(self.penalty + _LEAST_CURVATURE)
        return gradient + self.penalty * coefficients, curvature + held

    def move(
        self, coefficients: Floats, step: Floats, before: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Coefficients, probabilities and loss after a step, halved until no loss rises."""
        size, moved = np.ones(len(step)), coefficients - step
        chance, loss = self.loss(moved)
        highest = before + _ROUNDING * (1 + np.abs(before))
        while (worse := (loss > highest) & (size > _SMALLEST_STEP)).any():
            size[worse] /= 2
            moved[worse] = coefficients[worse] - size[worse, None] * step[worse]
            chance[worse], loss[worse] = self.of(worse).loss(moved[worse])
        return moved, chance, loss
