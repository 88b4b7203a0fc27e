"""A probability from a score, by a temperature, Platt scaling or an isotonic curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from evaluation.statistics.ranking import Floats

CLIP = 1e-4
"""Scores are held inside [CLIP, 1 - CLIP] before their logit is taken."""
Method = Literal["none", "temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = ("none", "temperature", "platt", "isotonic")
"""The simpler first: among equals the earlier is chosen."""


def clipped_logit(scores: npt.ArrayLike) -> Floats:
    """Log-odds of scores, held inside [`CLIP`, 1 - `CLIP`].

    Args:
        scores: In [0, 1], shape ``(N,)``.

    Returns:
        Shape ``(N,)``.

    Example:
        >>> clipped_logit([0.5, 0.0]).round(2).tolist()
        [0.0, -9.21]
    """
    held = np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)
    return np.asarray(np.log(held) - np.log1p(-held))


@dataclass(frozen=True)
class PlattScaling:
    """``probability = sigmoid(slope * logit(score) + intercept)``.

    A temperature is the same without an intercept, ``slope = 1 / temperature``.

    Attributes:
        slope: On the logit of the clipped score.
        intercept: Likewise.
        method: How the two were found.
    """

    slope: float
    intercept: float
    method: Method = "platt"

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """The calibrated probability of the positive class, shape as `scores`.

        Example:
            >>> PlattScaling(slope=1.0, intercept=0.0).probability([0.25]).round(6).tolist()
            [0.25]
        """
        return sigmoid(self.slope * clipped_logit(scores) + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        facts: dict[str, Any] = {"method": self.method, "slope": self.slope}
        if self.method == "temperature":
            facts["temperature"] = 1 / self.slope
        return facts | {"intercept": self.intercept, "clip": CLIP}


@dataclass(frozen=True)
class IsotonicScaling:
    """A rising curve through knots, straight between them and level beyond.

    It keeps the order of scores; those between knots of equal probability become ties.

    Attributes:
        scores: Where the knots are, rising.
        probabilities: Their probabilities, never falling.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """The calibrated probability of the positive class, shape as `scores`.

        Example:
            >>> IsotonicScaling((0.25, 0.75), (0.0, 0.5)).probability([0.0, 0.5, 1.0]).tolist()
            [0.0, 0.25, 0.5]
        """
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)

    def to_json(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        return {
            "method": "isotonic",
            "scores": list(self.scores),
            "probabilities": list(self.probabilities),
            "levels": len(set(self.probabilities)),
        }


AS_IT_IS = PlattScaling(slope=1.0, intercept=0.0)
"""The score itself, held inside [`CLIP`, 1 - `CLIP`], as the probability."""
Calibration = PlattScaling | IsotonicScaling


def calibration_from_json(payload: dict[str, Any] | None) -> Calibration | None:
    """Read what ``to_json`` of a calibration wrote.

    Raises:
        KeyError: Something is missing.
    """
    if not payload:
        return None
    if payload["method"] == "isotonic":
        return IsotonicScaling(tuple(payload["scores"]), tuple(payload["probabilities"]))
    return PlattScaling(payload["slope"], payload["intercept"], payload["method"])


def sigmoid(logits: Floats) -> Floats:
    """Probabilities from log-odds, without overflow at either end."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))
