"""RSNA 2018 score and FROC of paired boxes, for many image weightings at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.boxes.matching import BoxPairs, match_pairs, pair_boxes
from evaluation.statistics.bootstrap import RunningRows, SegmentSums, per_cluster
from evaluation.statistics.ranking import Floats, Integers, is_positive

_IOBB_THRESHOLDS = (0.1, 0.25, 0.5)


class WeightedIobb:
    """Share of true boxes found, and false positives per image, where IoBB decides.

    Boxes at or above the cut are called. A true box is found where a called box has at least a
    share of its own area on it; a called box that has that on no true box is false. The share of
    found boxes alone rewards marking everything, so it never stands without the false marks.

    Source:
        Wang et al. 2017, ChestX-ray8, section 4.3 (accuracy and average false positives at
        T(IoBB)).
    """

    def __init__(
        self,
        pairs: BoxPairs,
        clusters: Integers,
        n_clusters: int,
        cut: float,
        thresholds: Sequence[float] = _IOBB_THRESHOLDS,
    ) -> None:
        owner, called = np.asarray(clusters), is_positive(pairs.boxes.score, cut)
        corners, true = pairs.boxes.corners[pairs.box], pairs.truth.corners[pairs.true]
        shared = np.minimum(corners[:, 2:], true[:, 2:]) - np.maximum(corners[:, :2], true[:, :2])
        area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        iobb = np.prod(np.maximum(shared, 0), axis=1) / area
        found = np.zeros((len(pairs.truth.image), len(thresholds)), dtype=bool)
        false = np.repeat(called[:, None], len(thresholds), axis=1)
        for column, least in enumerate(thresholds):
            on = (iobb >= least) & called[pairs.box]
            found[pairs.true[on], column] = True
            false[pairs.box[on], column] = False
        self._found = per_cluster(found, owner[pairs.truth.image], n_clusters)
        self._false = per_cluster(false, owner[pairs.boxes.image], n_clusters)
        self._images = np.bincount(owner, minlength=n_clusters)
        self._lesions = np.bincount(owner, weights=pairs.truth.per_image, minlength=n_clusters)

    def __call__(self, weights: Integers) -> Floats:
        """The figures per weighting.

        Returns accuracies, then false positives per image, shape ``(R, 2 x thresholds)``; accuracy
        is NaN where a weighting has no true box.
        """
        weight = np.asarray(weights, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = (weight @ self._found) / (weight @ self._lesions)[:, None]
            false = (weight @ self._false) / (weight @ self._images)[:, None]
        return np.hstack([accuracy, false])


_RSNA_IOU = np.nextafter(np.linspace(0.4, 0.75, 8), 1.0)
"""IoU thresholds of the RSNA score; just above, since an IoU must exceed them."""
FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which sensitivity is given and averaged."""
_FROC_IOU = 0.2
Hit = Literal["iou", "centre"]
"""What finds a lesion: a mark's overlap of at least 0.2 (IoU), or its centre, borders included."""
HITS: tuple[Hit, ...] = ("iou", "centre")
RATE_WORDS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")


class WeightedRsnaScore:
    """The RSNA 2018 score at several score cuts.

    Boxes at or above the cut are called. An image scores the mean over IoU thresholds of
    ``TP / (TP + FP + FN)``: a call where nothing is true scores 0, an image without calls and
    lesions is left out. The figure is the mean over images.

    Source:
        RSNA Pneumonia Detection Challenge 2018, evaluation page.
    """

    def __init__(
        self, pairs: BoxPairs, clusters: Integers, n_clusters: int, cuts: Sequence[float] | Floats
    ) -> None:
        matches = match_pairs(pairs, _RSNA_IOU)
        n_images, n_cuts = len(pairs.truth.per_image), len(cuts)
        # A box is called at the cuts up to its score: count by the highest, add up from behind.
        last = np.searchsorted(np.asarray(cuts), matches.score, side="right")
        cell = matches.image * (n_cuts + 1) + last

        def at_cuts(weights: Floats | None = None) -> Floats:
            counted = np.bincount(cell, weights, minlength=n_images * (n_cuts + 1))
            table = counted.reshape(n_images, n_cuts + 1)
            return np.asarray(table[:, :0:-1].cumsum(axis=1)[:, ::-1], dtype=np.float64)

        total = at_cuts() + pairs.truth.per_image[:, None]  # calls and lesions, (images, cuts)
        value = np.zeros((n_images, n_cuts))
        for hit in matches.hit.T:
            found = at_cuts(hit.astype(np.float64))
            value += found / np.maximum(total - found, 1) / matches.hit.shape[1]
        self._sum = per_cluster(value, clusters, n_clusters)
        self._counted = per_cluster(total > 0, clusters, n_clusters)

    def __call__(self, weights: Integers) -> Floats:
        """The score per weighting and cut.

        Returns shape ``(R, cuts)``; NaN where every image is left out.
        """
        weight = np.asarray(weights, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weight @ self._sum) / (weight @ self._counted))


def _hits(pairs: BoxPairs, hit: Hit) -> npt.NDArray[np.bool_]:
    """Which pairs are a mark that finds a lesion, shape ``(pairs,)``."""
    if hit == "iou":
        return np.asarray(pairs.iou >= _FROC_IOU)
    mark, lesion = pairs.boxes.corners[pairs.box], pairs.truth.corners[pairs.true]
    centre = (mark[:, :2] + mark[:, 2:]) / 2
    return np.asarray(((centre >= lesion[:, :2]) & (centre <= lesion[:, 2:])).all(axis=1))


def _first_finds(pairs: BoxPairs, hit: Hit) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The highest score that finds each lesion (-inf: none), and which marks are false."""
    near = _hits(pairs, hit)
    best = np.full(len(pairs.truth.image), -np.inf)
    np.maximum.at(best, pairs.true[near], pairs.boxes.score[pairs.box[near]])
    false = np.ones(len(pairs.boxes.score), dtype=bool)
    false[pairs.box[near]] = False
    return best, false


class WeightedFroc:
    """Sensitivity per lesion at 1/8 to 8 false positives per image, and its mean.

    A lesion is found by any mark that hits it; a mark that hits no lesion is false; further marks
    on a lesion are neither. Of the operating points that keep a rate (marks from a score up, equal
    scores together), the most sensitive counts: a step, never a line between points.

    Source:
        Chakraborty 1989; the rates are those of LUNA16 (Setio et al. 2017).
    """

    def __init__(
        self, pairs: BoxPairs, clusters: Integers, n_clusters: int, hit: Hit = "iou"
    ) -> None:
        owner, boxes = np.asarray(clusters), pairs.boxes
        best, false = _first_finds(pairs, hit)
        found = np.flatnonzero(best > -np.inf)
        found = found[np.argsort(-best[found], kind="stable")]
        self._finder = owner[pairs.truth.image[found]]
        # A false mark is called wherever a lesion of no higher score is: add up over lesions.
        segment = np.searchsorted(-best[found], -boxes.score[false], side="left")
        of_box = owner[boxes.image[false]]
        counted = segment < len(found)
        self._false = SegmentSums(segment[counted], of_box[counted], len(found), n_clusters)
        self._images = np.bincount(owner, minlength=n_clusters)
        self._lesions = np.bincount(owner, weights=pairs.truth.per_image, minlength=n_clusters)

    def figures(self, weights: Integers) -> Floats:
        """The figures per weighting.

        Returns the mean, then the sensitivity at each of `FROC_RATES`, shape ``(R, 1 + rates)``;
        NaN where a weighting has no lesion.
        """
        weight = np.asarray(weights, dtype=np.float64)
        n_images, n_lesions = weight @ self._images, weight @ self._lesions
        false = RunningRows(self._false(weights))
        found = np.cumsum(np.take(weights, self._finder, axis=1), axis=1, dtype=np.int64)
        found = np.pad(found, ((0, 0), (1, 0)))  # before the first find, nothing is found
        kept = false.place(np.floor(np.outer(n_images, FROC_RATES)), side="right")  # (R, rates)
        at_rates = np.take_along_axis(found, kept, axis=1)
        mean = at_rates.sum(axis=1, keepdims=True) / len(FROC_RATES)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.hstack([mean, at_rates]) / n_lesions[:, None])

    def __call__(self, weights: Integers) -> Floats:
        """The mean per weighting, shape ``(R,)``: see `figures`."""
        return np.asarray(self.figures(weights)[:, 0])


class FrocCurve(NamedTuple):
    """Sensitivity per lesion against false positives per image, rising; empty without lesions."""

    false_marks: Floats
    sensitivity: Floats


def froc(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index, *, hit: Hit = "iou"
) -> FrocCurve:
    """Sensitivity against false positives per image, a point per score that adds a lesion.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``. The 100 most confident of an image count. Other images are ignored.
        truth: True boxes, the same columns without ``score``.
        image_ids: Every image judged, with and without boxes, unique.
        hit: What finds a lesion: ``iou``, an overlap of at least 0.2; ``centre``, the centre of a
            box that lies in it.

    Returns:
        Both figures start at 0, and the last point calls every box. Empty where no image has a
        true box.

    Source:
        Chakraborty 1989.

    Example:
        >>> true = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> marks = pd.concat([true.assign(score=0.4), true.assign(score=0.8, image_id="b")])
        >>> curve = froc(marks, true, pd.Index(["a", "b"]))
        >>> curve.false_marks.tolist(), curve.sensitivity.tolist()
        ([0.0, 0.5, 0.5], [0.0, 1.0, 1.0])
    """
    return froc_curve(pair_boxes(boxes, truth, image_ids), hit)


def froc_curve(pairs: BoxPairs, hit: Hit = "iou") -> FrocCurve:
    """See `froc`; of boxes that are paired already."""
    if not len(pairs.truth.image):
        return FrocCurve(np.empty(0), np.empty(0))
    best, false = _first_finds(pairs, hit)
    rising = np.sort(-best[best > -np.inf])
    cuts, wrong = np.unique(rising), np.sort(-pairs.boxes.score[false])
    found = np.searchsorted(rising, cuts, side="right")
    called = np.searchsorted(wrong, cuts, side="right")
    return FrocCurve(
        np.concatenate([[0], called, [len(wrong)]]) / len(pairs.truth.per_image),
        np.concatenate([[0], found, [len(rising)]]) / len(best),
    )
