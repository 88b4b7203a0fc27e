"""The score from which a detector's boxes are called, as validation images choose it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

BOX_CUT = "score cut of boxes"
_FAINT_CUTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03)
"""Cuts for detectors whose scores are low throughout."""
_CUTS = tuple(sorted({*_FAINT_CUTS, *(np.arange(1, 100) / 100).tolist()}))


@dataclass(frozen=True)
class BoxCutChoice:
    """Choice of the score cut with the highest RSNA score; among equals the lowest cut.

    Attributes:
        pairs: Predicted and true boxes of the validation images whose lesions are all boxed.
        patients: Patient of each of these images, shape ``(N,)``.
        cuts: Cuts to choose from, rising.
    """

    pairs: BoxPairs
    patients: npt.NDArray[np.str_]
    cuts: tuple[float, ...] = _CUTS

    @property
    def n_positive(self) -> int:
        """Number of images with a lesion."""
        return int((self.pairs.truth.per_image > 0).sum())

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """Prepare to choose the cut again; see `ValidationChoice.refit`."""
        score = WeightedRsnaScore(self.pairs, clusters, n_clusters, self.cuts)
        return lambda weights: {BOX_CUT: score.best_cut(weights)}

    @cached_property
    def chosen(self) -> float | None:
        """Cut that these images choose; `None` if no image has a lesion."""
        choose = self.refit(np.zeros(len(self.patients), dtype=np.int64), 1)
        cut = float(choose(np.ones((1, 1), dtype=np.int64))[BOX_CUT][0])
        return None if np.isnan(cut) else cut
