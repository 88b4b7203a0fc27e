"""A third answer, "refer to a reader": the most doubtful images, and what the others then reach.

Doubt is the spread of an ensemble's scores where there is one, else nearness of the score to the
threshold. The cut is chosen on validation, like any threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.decisions.thresholds import threshold_candidates
from evaluation.metrics.image_metrics import rates
from evaluation.statistics.bootstrap import per_cluster
from evaluation.statistics.calibration import clipped_logit
from evaluation.statistics.ranking import Floats, Integers

_POINTS = 200


class CoverageCurve(NamedTuple):
    """Accuracy of the images that are not referred, against their share, which rises."""

    coverage: list[float]
    accuracy: list[float]


@dataclass(frozen=True)
class Referral:
    """From which doubt on images are referred, or why none are."""

    share: float  # of validation images, at most so many are referred
    by: str  # what doubt is: `spread` or `nearness`
    cut: float | None  # `doubt >= cut` is referred; `None` where there is none
    reason: str | None = None  # why there is none

    def to_dict(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        return {"share": self.share, "by": self.by, "cut": self.cut, "reason": self.reason}


def doubt_of(scores: npt.ArrayLike, threshold: float, spread: Floats | None = None) -> Floats:
    """How doubtful a decision is: the spread of several scores of an image, where there are any.

    Else the nearness ``exp(-|logit(score) - logit(threshold)|)``, which is 1 at the threshold.
    """
    if spread is not None:
        return np.asarray(spread, dtype=np.float64)
    return np.asarray(np.exp(-np.abs(clipped_logit(scores) - clipped_logit([threshold]))))


def choose_referral(doubt: Floats, share: float, by: str) -> Referral:
    """The lowest cut that refers at most a share of (validation) images."""
    cuts = threshold_candidates(doubt)
    referred = 1 - np.searchsorted(np.sort(doubt), cuts, side="left") / max(len(doubt), 1)
    kept = np.flatnonzero(referred <= share + 1e-12)
    if not len(kept):
        reason = f"more than {share:g} of the validation images are equally doubtful"
        return Referral(share, by, None, reason)
    return Referral(share, by, float(cuts[kept[0]]))


class ReferralFigures:
    """What is left where doubtful images are referred, under any patient weights.

    ``coverage`` is the share not referred, ``…_covered`` the figures of these images alone;
    ``aurc`` is the area under the risk-coverage curve: the mean, over images from the surest to
    the most doubtful, of the share of wrong decisions among all that are at most as doubtful
    (equal doubt together). It needs no cut.

    Attributes:
        referred: Which images are referred, shape ``(N,)``; `None` without a cut.

    Source:
        Geifman and El-Yaniv 2017.
    """

    def __init__(
        self,
        y_true: npt.NDArray[np.bool_],
        called: npt.NDArray[np.bool_],
        doubt: Floats,
        cut: float | None,
        clusters: Integers,
    ) -> None:
        self.n_clusters = int(clusters.max()) + 1 if len(clusters) else 0
        order = np.argsort(doubt, kind="stable")
        self._of_image, self._wrong = clusters[order], (called != y_true)[order]
        self._upto = np.searchsorted(doubt[order], doubt[order], side="right")
        self._counts = None
        self.referred = None if cut is None else doubt >= cut
        if self.referred is not None:
            kept = ~self.referred
            columns = (
                called & y_true & kept,
                called & ~y_true & kept,
                ~called & ~y_true & kept,
                ~called & y_true & kept,
                np.ones(len(kept), dtype=bool),
            )
            self._counts = per_cluster(np.column_stack(columns), clusters, self.n_clusters)

    def figures(self, weights: Integers | None = None) -> dict[str, Floats]:
        """Every figure for every row of weights.

        Returns ``aurc``, and with a cut ``coverage`` and the figures of what is decided, each shape
        ``(R,)``; NaN where undefined.
        """
        once = np.ones((1, self.n_clusters)) if weights is None else weights
        used = np.asarray(once, dtype=np.float64)[:, : self.n_clusters]
        of_image = np.take(used, self._of_image, axis=1)  # (R, N), the surest first
        counted = np.cumsum(of_image, axis=1)
        wrong = np.cumsum(of_image * self._wrong, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            risk = np.take(wrong / np.maximum(counted, 1), self._upto - 1, axis=1)
            figures = {"aurc": np.einsum("rn,rn->r", of_image, risk) / of_image.sum(axis=1)}
        if self._counts is not None:
            tp, fp, tn, fn, n = (used @ self._counts).T
            found = rates(tp, fp, tn, fn)
            with np.errstate(invalid="ignore", divide="ignore"):
                figures["coverage"] = (tp + fp + tn + fn) / n
            for name in ("accuracy", "recall", "specificity"):
                figures[f"{name}_covered"] = found[name]
        return figures

    def curve(self) -> CoverageCurve:
        """The accuracy-coverage curve, at most 200 points."""
        ends = np.unique(self._upto)
        if len(ends) > _POINTS:
            ends = ends[np.unique(np.linspace(0, len(ends) - 1, _POINTS).round().astype(int))]
        wrong = np.cumsum(self._wrong)[ends - 1]
        return CoverageCurve(
            (ends / max(len(self._wrong), 1)).tolist(), (1 - wrong / ends).tolist()
        )
