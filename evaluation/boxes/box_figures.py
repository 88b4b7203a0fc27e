"""Figures of ranked boxes for many weightings of the patients: one entry for each family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.afroc import WeightedAfroc
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.froc import WeightedFroc
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, Hit, find_lesions
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.metrics.registry import METRICS, family
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

FigureOfWeights = Callable[[Integers], Floats]
"""Function from weights of P patients, shape ``(R, P)``, to figures, ``(R,)`` or ``(R, k)``."""
FAINT_CUTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03)
"""Score cuts for detectors whose scores are low throughout."""
CUTS = tuple(sorted({*FAINT_CUTS, *(np.arange(1, 100) / 100).tolist()}))
"""Score cuts of called boxes that validation chooses from."""


def _precision(pairs: BoxPairs, patients: Integers, n_patients: int) -> FigureOfWeights:
    at_iou = WeightedAveragePrecision(match_pairs(pairs), patients, n_patients)

    def figures(weights: Integers) -> Floats:
        values = at_iou(weights)
        return np.column_stack([values[:, 0], values.mean(axis=1)])

    return figures


def _froc(hit: Hit, pairs: BoxPairs, patients: Integers, n_patients: int) -> FigureOfWeights:
    return WeightedFroc(find_lesions(pairs, HIT_RULES[hit]), patients, n_patients).figures


def _afroc(pairs: BoxPairs, patients: Integers, _: int) -> FigureOfWeights:
    return WeightedAfroc.shared(find_lesions(pairs), patients)


def _highest_rsna(pairs: BoxPairs, patients: Integers, n_patients: int) -> FigureOfWeights:
    score = WeightedRsnaScore(pairs, patients, n_patients, CUTS)
    return lambda weights: score(weights).max(axis=1)


RANKED: dict[str, Callable[[BoxPairs, Integers, int], FigureOfWeights]] = {
    "coco_decided": _precision,
    "froc_iou": partial(_froc, "iou"),
    "froc_centre": partial(_froc, "centre"),
    "afroc": _afroc,
}
"""Function of pairs of boxes, patients and their number, by family of metrics.

It returns a function of weights, whose columns are the metrics of the family in their order.
"""
_CHOOSING = {"coco": _precision, **RANKED, "rsna": _highest_rsna}
"""The same for all families by which validation can choose a rule of boxes."""


def choosing_figures() -> tuple[str, ...]:
    """Return the names of the figures by whose highest value the rule for boxes can be chosen.

    They are the metrics that rank boxes by score: average precision, FROC, AFROC and the RSNA 2018
    score, which is the highest over all score cuts.
    """
    return tuple(name for group in _CHOOSING for name in family(group))


def check_boxes_by(metric: str) -> None:
    """Raise InputError unless the metric is one of `choosing_figures`."""
    if metric not in choosing_figures():
        raise InputError(
            f"--boxes-by {metric}: give a figure of ranked boxes: {', '.join(choosing_figures())}"
        )


def box_figure(
    metric: str, pairs: BoxPairs, patients: Integers, n_patients: int
) -> FigureOfWeights:
    """Return one of `choosing_figures` as a function of the weights of P patients, ``(R, P)``.

    The function returns the figure, shape ``(R,)``, NaN where it is undefined. `patients` numbers
    the patient of each image from 0.
    """
    if metric.startswith("ap50"):  # which needs one IoU threshold only
        precision = WeightedAveragePrecision(match_pairs(pairs, [0.5]), patients, n_patients)
        return lambda weights: precision(weights)[:, 0]
    of_family = METRICS[metric].family
    figures = _CHOOSING[of_family](pairs, patients, n_patients)
    column = family(of_family).index(metric)
    return lambda weights: figures(weights).reshape(len(weights), -1)[:, column]
