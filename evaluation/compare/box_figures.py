"""Figures of one set of predicted boxes on the evaluated images, for any weights of patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cxr_compare.evaluation.boxes.afroc import WeightedAfroc
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.froc import WeightedFroc
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, Hit, LesionHits, find_lesions
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.statistics.arrays import Floats, Integers


class BoxFigures:
    """All figures of one system's predicted boxes, for many weightings of the patients at once.

    Some figures depend on the ranking of the boxes by score: average precision, FROC (share of the
    lesions that are found, against false positives per image) and AFROC (the same share, against
    images without a lesion that have a false positive). The RSNA 2018 score uses called boxes,
    whose score is at least a cut.

    Args:
        pairs: Pairs of predicted and true boxes of the same image, with their IoU. The images are
            those of `evaluated` whose lesions are all boxed.
        evaluated: The evaluated images with their labels and patients.
        called: True if the system has a score cut, so that the RSNA score is computed as well.

    Attributes:
        pairs: Pairs of predicted and true boxes, as in the argument.
        finds: Lesions with the boxes that hit them, by the rule of a hit: ``iou`` (IoU of at least
            0.2) or ``centre`` (centre of the predicted box in the true box).
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
        self._rsna = WeightedRsnaScore(self.pairs, patients, n_patients) if called else None

    def precision(self, weights: Integers, names: Sequence[str]) -> dict[MetricKey, Floats]:
        """Compute AP50 and AP for each row of weights.

        Args:
            weights: Whole-number weights of P patients in R weightings, shape ``(R, P)``, such as
                how often each patient was drawn in each of R bootstrap resamples.
            names: Short names under which AP50 and AP (average precision at IoU 0.5, and its mean
                over the IoU thresholds 0.50 to 0.95) are returned, in this order, such as
                ``["ap50", "ap"]``.

        Returns:
            AP50 and AP in [0, 1] by key (group of images, rule for the threshold, metric), shape
            ``(R,)`` each.
        """
        at_iou = self._precision(weights)
        values = (at_iou[:, 0], at_iou.mean(axis=1))
        return {
            MetricKey(ALL, "", name): column for name, column in zip(names, values, strict=True)
        }

    def ranked(self, weights: Integers) -> dict[MetricKey, Floats]:
        """Compute the figures of ranked boxes other than average precision: FROC and AFROC.

        Args:
            weights: Whole-number weights of P patients in R weightings, shape ``(R, P)``, such as
                how often each patient was drawn in each of R bootstrap resamples.

        Returns:
            Values of the figures by key (group of images, rule for the threshold, metric), shape
            ``(R,)`` each; NaN where a figure is undefined.
        """
        figures: dict[MetricKey, Floats] = {}
        for names, evaluate in self._ranked:
            figures |= named_columns(names, evaluate(weights))
        return figures

    def called(self, weights: Floats, cuts: Floats) -> dict[MetricKey, Floats]:
        """Compute the RSNA score for each row of weights at the row's own score cut.

        Args:
            weights: Weights of P patients in R weightings, shape ``(R, P)``, such as how often each
                patient was drawn in each of R bootstrap resamples.
            cuts: Score cut of each row of `weights`, shape ``(R,)``; NaN where a row has no cut.

        Returns:
            Values of the score by key (group of images, rule for the threshold, metric), shape
            ``(R,)``; NaN where it is undefined. The dictionary is empty if the object was made with
            the argument `called` False.
        """
        if self._rsna is None:
            return {}
        return named_columns(family("rsna"), self._rsna.at(weights, cuts))


def named_columns(metrics: Sequence[str], columns: Floats) -> dict[MetricKey, Floats]:
    """Split an array of figures into its columns, one for each metric.

    Args:
        metrics: Short name of the metric of each column, such as ``ap50``. The metrics need no
            threshold.
        columns: Figures, shape ``(R, metrics)``, or ``(R,)`` for a single metric.

    Returns:
        Column of each metric, shape ``(R,)``, by key: figures on all images, without a threshold.

    Example:
        >>> import numpy as np
        >>> list(named_columns(["ap50"], np.array([0.5])).values())
        [array([0.5])]
    """
    table = columns.reshape(len(columns), -1).T
    return {MetricKey(ALL, "", m): values for m, values in zip(metrics, table, strict=True)}
