"""Choose on validation which boxes of a system count, and from which score they are called.

A detector stores overlapping boxes, and a classifier's maps can be cut in many ways. Each candidate
is one way from the stored output to boxes. Validation takes the one with the highest figure, then
the score cut with the highest RSNA score of these boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.afroc import WeightedAfroc
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.froc import WeightedFroc
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, Hit, find_lesions
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

BoxRule = OverlapRule | MapBoxRule
"""Rule from the stored output of a system to its boxes."""
BOX_CUT = "score cut of boxes"
BOX_RULE = "rule of boxes"
"""Names of the two choices among those that resamples make again."""
MAP_CUT = "cut of map boxes"
OVERLAP = "overlap of boxes"
"""Names of the rule of boxes in the method of an interval: of a system with maps, of a detector."""
BOXES_BY = "froc_mean"
"""Figure by which boxes are chosen unless another one is named."""
_TIE_BREAKER = "ap50"
_SAME = 1e-9
_FAINT_CUTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03)
"""Cuts for detectors whose scores are low throughout."""
_CUTS = tuple(sorted({*_FAINT_CUTS, *(np.arange(1, 100) / 100).tolist()}))
_FIGURE_FAMILIES = ("coco", "coco_decided", "froc_iou", "froc_centre", "afroc", "rsna")
_FigureOfWeights = Callable[[Integers], Floats]


class BoxCandidate(NamedTuple):
    """One rule, with the boxes that it gives on the validation images.

    Attributes:
        rule: The rule.
        pairs: Predicted and true boxes of the validation images whose lesions are all boxed.
    """

    rule: BoxRule
    pairs: BoxPairs


@dataclass(frozen=True)
class BoxChoice:
    """Choice of the rule of boxes with the highest figure, and of the score cut of its boxes.

    Among rules of equal figure the one with the highest AP50 is taken, then the earliest. Among
    equal cuts the lowest is taken. Images without a lesion choose the first rule and no cut.

    Attributes:
        candidates: Rules to choose from, the simplest first.
        patients: Patient of each validation image whose lesions are all boxed, shape ``(N,)``.
        metric: Figure that chooses the rule.
        cuts: Score cuts to choose from, rising.
    """

    candidates: Sequence[BoxCandidate]
    patients: npt.NDArray[np.str_]
    metric: str = BOXES_BY
    cuts: tuple[float, ...] = _CUTS

    @property
    def n_positive(self) -> int:
        """Number of images with a lesion."""
        return int((self.candidates[0].pairs.truth.per_image > 0).sum())

    @property
    def is_open(self) -> bool:
        """True if these images can prefer one rule to another."""
        return len(self.candidates) > 1 and self.n_positive > 0

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """Prepare to choose rule and cut again; see `ValidationChoice.refit`."""
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
        tie_breakers: dict[int, _FigureOfWeights] = {}

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
        """Position of the chosen rule among the candidates."""
        return int(self._chosen[BOX_RULE][0])

    @property
    def rule(self) -> BoxRule:
        """Rule that these images choose."""
        return self.candidates[self.index].rule

    @property
    def cut(self) -> float | None:
        """Score cut that these images choose; `None` if no image has a lesion."""
        cut = float(self._chosen[BOX_CUT][0])
        return None if np.isnan(cut) else cut

    def figures(self) -> list[dict[str, str | float | None]]:
        """Return the figures of each candidate on these images, for the record of what was tried.

        Returns:
            For each candidate the rule in words, the figure that chooses, and AP50; None where a
            figure is undefined.
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


def choosing_figures() -> tuple[str, ...]:
    """Return the names of the figures that can choose boxes: those of ranked boxes.

    Example:
        >>> "froc_mean" in choosing_figures(), "auroc" in choosing_figures()
        (True, False)
    """
    return tuple(name for group in _FIGURE_FAMILIES for name in family(group))


def check_boxes_by(metric: str) -> None:
    """Refuse a figure that cannot choose boxes.

    Raises:
        InputError: The figure is not one of ranked boxes.
    """
    if metric not in choosing_figures():
        raise InputError(
            f"--boxes-by {metric}: give a figure of ranked boxes: {', '.join(choosing_figures())}"
        )


def box_figure(
    metric: str, pairs: BoxPairs, clusters: Integers, n_clusters: int
) -> _FigureOfWeights:
    """Prepare a figure of ranked boxes for many weightings of the patients.

    Args:
        metric: Name of the figure, as `check_boxes_by` knows it. The RSNA score is that of the best
            score cut.
        pairs: Predicted with true boxes.
        clusters: Number of each image's patient from 0, shape ``(images,)``.
        n_clusters: Number of patients, P.

    Returns:
        A function of whole-number weights, shape ``(R, P)``, that returns the figure of each row,
        shape ``(R,)``; NaN where it is undefined.
    """
    if metric in (*family("coco"), *family("coco_decided")):
        # AP50 needs one IoU threshold only.
        matches = match_pairs(pairs, [0.5]) if metric.startswith("ap50") else match_pairs(pairs)
        precision = WeightedAveragePrecision(matches, clusters, n_clusters)
        return lambda weights: precision(weights).mean(axis=1)
    if metric in family("rsna"):
        score = WeightedRsnaScore(pairs, clusters, n_clusters, _CUTS)
        return lambda weights: score(weights).max(axis=1)
    if metric in family("afroc"):
        return WeightedAfroc.shared(find_lesions(pairs), clusters)
    hit: Hit = "iou" if metric in family("froc_iou") else "centre"
    froc = WeightedFroc(find_lesions(pairs, HIT_RULES[hit]), clusters, n_clusters)
    column = family(f"froc_{hit}").index(metric)
    return lambda weights: froc.figures(weights)[:, column]
