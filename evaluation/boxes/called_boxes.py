"""Boxes as a decision: those of a score of at least a threshold, or all boxes without scores."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from cxr_compare.evaluation.boxes.matching import BoxMatches, BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers, undefined_is_nan

_IOU = 0.5  # from which a called box finds a lesion


class CalledBoxes:
    """Figures of the called boxes of one system, of any threshold and weighting of the patients.

    Each is a ratio of sums over patients, as `ratios` gives them. `patients` are those of the
    images of `pairs`.
    """

    def __init__(self, pairs: BoxPairs, patients: Integers, n_patients: int) -> None:
        self.pairs, self.patients, self.n_patients = pairs, patients, n_patients

    @cached_property
    def _matches(self) -> BoxMatches:
        return match_pairs(self.pairs, [_IOU])

    def ratios(self, threshold: float) -> dict[str, tuple[Floats, Floats]]:
        """Return what each patient adds to the numerator and denominator of each figure, ``(P,)``.

        Boxes are matched by falling score, so those below the threshold change no match above it.
        """
        matches, pairs = self._matches, self.pairs
        called = matches.score >= threshold
        lesions = self._sum(pairs.truth.image, np.ones(len(pairs.truth.image)))
        hits = self._sum(matches.image, called & matches.hit[:, 0])
        boxes = self._sum(matches.image, called & ~matches.is_ignored[:, 0])
        best = np.zeros(len(pairs.truth.image))
        counted = pairs.boxes.score[pairs.box] >= threshold
        np.maximum.at(best, pairs.true[counted], pairs.iou[counted])
        return {
            "box_precision_50": (hits, boxes),
            "box_recall_50": (hits, lesions),
            "box_f1_50": (2 * hits, boxes + lesions),
            "mean_iou": (self._sum(pairs.truth.image, best), lesions),
        }

    def _sum(self, image: Integers, values: Floats | Flags) -> Floats:
        return np.bincount(self.patients[image], values, self.n_patients).astype(np.float64)

    def figures(self, weights: Integers, cuts: Floats) -> Mapping[str, Floats]:
        """Return each figure under weightings ``(R, P)``, each at a threshold of its own, ``(R,)``.

        A threshold that is NaN leaves its figures undefined.
        """
        values: dict[str, Floats] = {}
        for cut in np.unique(cuts[~np.isnan(cuts)]):
            rows = cuts == cut
            drawn = weights[rows].astype(np.float64)
            for name, (top, bottom) in self.ratios(float(cut)).items():
                with undefined_is_nan():
                    share = (drawn @ top) / (drawn @ bottom)
                values.setdefault(name, np.full(len(cuts), np.nan))[rows] = share
        return values
