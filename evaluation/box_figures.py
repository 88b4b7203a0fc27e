"""AP and FROC of one set of boxes, under many weightings of the patients at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.froc import LesionHits, WeightedFroc, find_lesions
from cxr_compare.evaluation.boxes.matching import (
    IOU_THRESHOLDS,
    BoxMatches,
    BoxPairs,
    match_pairs,
)
from cxr_compare.evaluation.metrics import FROC, RATES
from cxr_compare.evaluation.statistics.arrays import Floats, Integers


@dataclass(frozen=True)
class BoxFigures:
    """AP and FROC of one set of boxes; with `only_50`, AP50 in place of the mean AP, too."""

    pairs: BoxPairs
    only_50: bool = False

    @cached_property
    def _matches(self) -> BoxMatches:
        return match_pairs(self.pairs, IOU_THRESHOLDS[:1] if self.only_50 else IOU_THRESHOLDS)

    @cached_property
    def _hits(self) -> LesionHits:
        return find_lesions(self.pairs)

    def with_patients(
        self, patients: Integers, n_patients: int
    ) -> Callable[[Integers], dict[str, Floats]]:
        """Return a function from weights of the patients, ``(R, P)``, to figures by name."""
        precision = WeightedAveragePrecision(self._matches, patients, n_patients)
        froc = WeightedFroc(self._hits, patients, n_patients)

        def figures(weights: Integers) -> dict[str, Floats]:
            at_iou = precision(weights)
            froc_values = dict(zip(FROC, froc.figures(weights, [*RATES.values()]).T, strict=True))
            return {"ap50": at_iou[:, 0], "ap": at_iou.mean(axis=1), **froc_values}

        return figures
