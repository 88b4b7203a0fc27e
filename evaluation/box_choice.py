"""Choose on validation which boxes of a system are evaluated, and from which score a box is called.

A detector stores overlapping boxes, and a classifier's activation maps can be cut in many ways.
Each candidate rule turns the stored output into boxes in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.box_figures import CUTS, FigureOfWeights, box_figure
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

BoxRule = OverlapRule | MapBoxRule
"""Rule that turns the stored output of a system into its boxes."""
BOX_CUT = "score cut of boxes"
BOX_RULE = "rule of boxes"
"""Names of the two choices on boxes, as the bootstrap makes them again on resampled patients."""
MAP_CUT = "cut of map boxes"
OVERLAP = "overlap of boxes"
"""Names of the rule of boxes in the description of an interval: with maps, and for a detector."""
BOXES_BY = "froc_mean"
"""Default figure by which the rule of boxes is chosen."""
_TIE_BREAKER = "ap50"
_SAME = 1e-9


class BoxCandidate(NamedTuple):
    """One rule that selects or makes a system's boxes, with its boxes on validation images.

    `pairs` has only the validation images whose lesions are all boxed.
    """

    rule: BoxRule
    pairs: BoxPairs


@dataclass(frozen=True)
class BoxChoice:
    """Choice, on validation images, of the rule that selects or makes a system's boxes.

    The rule removes boxes of a detector that overlap too much, or cuts boxes out of a classifier's
    activation maps. The rule with the highest value of a figure is chosen; then the score from
    which a box counts as called (the cut) is chosen by the RSNA 2018 score.

    Among rules with equal figures, the one with the highest AP50 (average precision at IoU 0.5) is
    chosen, and among rules that are equal in AP50 too, the earliest. Among cuts with equal RSNA
    scores, the lowest is chosen. If no image has a lesion, the first rule is chosen, and there is
    no cut.

    Attributes:
        candidates: Rules to choose from, the simplest first.
        patients: Patient of each validation image whose lesions are all boxed, shape ``(N,)``.
        metric: Short name of the figure by which the rule is chosen; one of `choosing_figures`.
        cuts: Score cuts to choose from, rising, in (0, 1).
    """

    candidates: Sequence[BoxCandidate]
    patients: npt.NDArray[np.str_]
    metric: str = BOXES_BY
    cuts: tuple[float, ...] = CUTS

    @property
    def n_positive(self) -> int:
        """Number of validation images that have a lesion."""
        return int((self.candidates[0].pairs.truth.per_image > 0).sum())

    @property
    def is_open(self) -> bool:
        """True if there are several rules to choose from, and a validation image has a lesion."""
        return len(self.candidates) > 1 and self.n_positive > 0

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """Prepare to choose the rule for boxes and the score cut again on weighted patients.

        `clusters` has the patient of each image as an index from 0, shape ``(N,)``. The function
        that is returned takes R weightings of the P patients by whole numbers (how often the
        bootstrap drew each), shape ``(R, P)``. It returns two arrays of shape ``(R,)``: under
        `BOX_RULE` the index of the chosen candidate, and under `BOX_CUT` the chosen cut (NaN if no
        image with a weight above 0 has a lesion).
        """
        best_of = self._best_rule(clusters, n_clusters)
        scores: dict[int, WeightedRsnaScore] = {}

        def choose(weights: Integers) -> dict[str, Floats]:
            best = best_of(weights)
            cuts = np.full(len(weights), np.nan)
            for index in np.unique(best).tolist():
                if index not in scores:
                    pairs = self.candidates[index].pairs
                    scores[index] = WeightedRsnaScore(pairs, clusters, n_clusters, self.cuts)
                rows = best == index
                cuts[rows] = scores[index].best_cut(weights[rows])
            return {BOX_RULE: best.astype(np.float64), BOX_CUT: cuts}

        return choose

    def _best_rule(
        self, clusters: Integers, n_clusters: int
    ) -> Callable[[Integers], npt.NDArray[np.int64]]:
        """Return a function from weights of patients to the best candidate of each row."""
        if not self.is_open:
            return lambda weights: np.zeros(len(weights), dtype=np.int64)
        figures = [
            box_figure(self.metric, candidate.pairs, clusters, n_clusters)
            for candidate in self.candidates
        ]
        tie_breakers: dict[int, FigureOfWeights] = {}

        def tie_breaker(index: int, weights: Integers) -> Floats:
            if index not in tie_breakers:
                pairs = self.candidates[index].pairs
                tie_breakers[index] = box_figure(_TIE_BREAKER, pairs, clusters, n_clusters)
            return np.nan_to_num(tie_breakers[index](weights), nan=-1.0)

        def best(weights: Integers) -> npt.NDArray[np.int64]:
            values = np.stack([np.nan_to_num(figure(weights), nan=-1.0) for figure in figures])
            highest = values >= values.max(axis=0) - _SAME  # (candidates, R)
            tied = highest.sum(axis=0) > 1
            second = np.where(highest, 0.0, -np.inf)
            for index in np.flatnonzero(highest[:, tied].any(axis=1)).tolist():
                rows = tied & highest[index]
                second[index, rows] = tie_breaker(index, weights[rows])
            preferred = second >= second.max(axis=0) - _SAME
            return np.asarray(preferred.argmax(axis=0), dtype=np.int64)

        return best

    @cached_property
    def _chosen(self) -> dict[str, Floats]:
        choose = self.refit(np.zeros(len(self.patients), dtype=np.int64), 1)
        return choose(np.ones((1, 1), dtype=np.int64))

    @property
    def index(self) -> int:
        """Position of the chosen rule among the candidates, from 0."""
        return int(self._chosen[BOX_RULE][0])

    @property
    def rule(self) -> BoxRule:
        """Chosen rule for boxes, which has the highest figure on the validation images."""
        return self.candidates[self.index].rule

    @property
    def cut(self) -> float | None:
        """Score from which a box counts as called: the one with the highest RSNA 2018 score.

        The score is computed on the validation images. None if no image has a lesion.
        """
        cut = float(self._chosen[BOX_CUT][0])
        return None if np.isnan(cut) else cut

    def figures(self) -> list[dict[str, str | float | None]]:
        """Return the figures of each candidate rule on the validation images.

        The key ``boxes`` has the rule in words. The other keys are the short names of the figure
        that chooses the rule, such as ``froc_mean``, and of AP50 (``ap50``); a value is None if it
        is undefined.
        """
        together = np.zeros(len(self.patients), dtype=np.int64)
        once = np.ones((1, 1), dtype=np.int64)
        tried: list[dict[str, str | float | None]] = []
        for candidate in self.candidates:
            row: dict[str, str | float | None] = {"boxes": candidate.rule.description}
            for metric in dict.fromkeys((self.metric, _TIE_BREAKER)):
                value = float(box_figure(metric, candidate.pairs, together, 1)(once)[0])
                row[metric] = None if np.isnan(value) else value
            tried.append(row)
        return tried
