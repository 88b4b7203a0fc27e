"""Figures of one set of boxes of a system on the evaluated images, for any weights of patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cxr_compare.evaluation.boxes.afroc import WeightedAfroc
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.froc import WeightedFroc
from cxr_compare.evaluation.boxes.iobb import WeightedIobb
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, Hit, LesionHits, find_lesions
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.boxes.miou import WeightedMeanIou
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_CALLED_FAMILIES = (
    ("rsna", WeightedRsnaScore),
    ("iobb", WeightedIobb),
    ("miou", WeightedMeanIou),
)


class BoxFigures:
    """Figures of boxes that are ranked by score, and of boxes called from a score on.

    Args:
        pairs: Predicted and true boxes of the evaluated images whose lesions are all boxed.
        evaluated: The evaluated images.
        called: Whether there is a score cut from which boxes are called.

    Attributes:
        pairs: Predicted and true boxes.
        finds: Lesions that boxes find, by rule of a hit.
    """

    def __init__(self, pairs: BoxPairs, evaluated: EvaluationSet, *, called: bool) -> None:
        trusted = evaluated.boxes_trusted
        patients = evaluated.patients[trusted]
        n_patients = evaluated.n_patients
        self.pairs = pairs
        self.finds: dict[Hit, LesionHits] = {
            hit: find_lesions(self.pairs, rule) for hit, rule in HIT_RULES.items()
        }
        self._precision = WeightedAveragePrecision(match_pairs(self.pairs), patients, n_patients)
        self._ranked: list[tuple[Sequence[str], Callable[[Integers], Floats]]] = [
            (family(f"froc_{hit}"), WeightedFroc(finds, patients, n_patients).figures)
            for hit, finds in self.finds.items()
        ]
        self._ranked.append((family("afroc"), WeightedAfroc.shared(self.finds["iou"], patients)))
        self._called: list[tuple[Sequence[str], Callable[[Floats, Floats], Floats]]] = []
        if called:
            self._called = [
                (family(name), figures_of(self.pairs, patients, n_patients).at)
                for name, figures_of in _CALLED_FAMILIES
            ]

    def precision(self, weights: Integers, names: Sequence[str]) -> dict[MetricKey, Floats]:
        """Compute AP50 and AP of each row of weights.

        Args:
            weights: How often each patient counts, shape ``(R, patients)``.
            names: Names for AP50 and AP.

        Returns:
            Both figures, shape ``(R,)`` each.
        """
        at_iou = self._precision(weights)
        values = (at_iou[:, 0], at_iou.mean(axis=1))
        return {
            MetricKey(ALL, "", name): column for name, column in zip(names, values, strict=True)
        }

    def ranked(self, weights: Integers) -> dict[MetricKey, Floats]:
        """Compute the figures of ranked boxes other than average precision, shape ``(R,)`` each."""
        figures: dict[MetricKey, Floats] = {}
        for names, evaluate in self._ranked:
            figures |= named_columns(names, evaluate(weights))
        return figures

    def called(self, weights: Floats, cuts: Floats) -> dict[MetricKey, Floats]:
        """Compute the figures of called boxes, each row at its own score cut, shape ``(R,)``."""
        figures: dict[MetricKey, Floats] = {}
        for names, evaluate in self._called:
            figures |= named_columns(names, evaluate(weights, cuts))
        return figures


def named_columns(metrics: Sequence[str], columns: Floats) -> dict[MetricKey, Floats]:
    """Name columns of figures without a policy, shape ``(R, metrics)``, or ``(R,)`` for one.

    Example:
        >>> import numpy as np
        >>> list(named_columns(["ap50"], np.array([0.5])).values())
        [array([0.5])]
    """
    table = columns.reshape(len(columns), -1).T
    return {MetricKey(ALL, "", m): values for m, values in zip(metrics, table, strict=True)}
