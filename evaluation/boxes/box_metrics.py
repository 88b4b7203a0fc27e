"""Average precision, RSNA score, IoBB, FROC and AFROC of boxes, for many image weightings at once.

COCO's average precision comes also as pycocotools itself computes it, for the estimate.

Boxes of an image are visited in falling score (equal scores in the order of their rows), each
takes the free true box of highest IoU if that reaches the threshold (among equal IoU the later
true box), negative images take part. Average precision is COCO's 101-point interpolation.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # whose parts load when they are first used
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_compare.evaluation.boxes.box_checks import check_arguments
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.matching import (
    HITS,
    IOU_THRESHOLDS,
    MAX_BOXES,
    BoxMatches,
    BoxPairs,
    Finds,
    Hit,
    find_lesions,
    match_pairs,
    pair_boxes,
)
from cxr_compare.evaluation.statistics.bootstrap import RunningRows, SegmentSums, per_cluster
from cxr_compare.evaluation.statistics.ranking import FallingScores, Floats, Integers

_RECALL_POINTS = np.linspace(0.0, 1.0, 101)


class WeightedAveragePrecision:
    """COCO average precision of matched boxes, for many image weightings at once.

    Precision matters only where a true box is found, so the boxes that find none at any
    threshold, most of them, are summed per patient beforehand.
    """

    def __init__(self, matches: BoxMatches, clusters: Integers, n_clusters: int) -> None:
        owner = np.asarray(clusters)
        self._n_true = np.bincount(owner, weights=matches.n_true, minlength=n_clusters)
        of_box = owner[matches.image]
        finds = matches.hit.any(axis=1)
        self._finder = of_box[finds]
        self._hits = [np.flatnonzero(hit) for hit in matches.hit[finds].T]
        # Boxes that find nothing: above the first find, between the first and the second, ...
        segment: npt.NDArray[np.int64] = np.cumsum(finds) - finds
        counted = ~finds & (segment < finds.sum())
        self._idle = SegmentSums(segment[counted], of_box[counted], int(finds.sum()), n_clusters)

    def __call__(self, weights: Integers) -> Floats:
        """Average precision, shape ``(R, thresholds)``; NaN where a weighting has no true box."""
        n_true = np.asarray(weights, dtype=np.float64) @ self._n_true  # (R,)
        finder = np.take(weights, self._finder, axis=1)  # (R, finds)
        called = np.cumsum(self._idle(weights) + finder, axis=1, dtype=np.int64) + np.spacing(1)
        needed = _needed(n_true)  # (R, 101)
        figures = np.full((len(weights), len(self._hits)), np.nan)
        for column, hit in enumerate(self._hits):
            true = RunningRows(np.take(finder, hit, axis=1))
            figures[:, column] = _interpolated(true, np.take(called, hit, axis=1), needed)
        figures[n_true == 0] = np.nan
        return figures


def _interpolated(true: RunningRows, called: Floats, needed: Floats) -> Floats:
    """Mean over 101 recall levels of the best precision at that recall or beyond."""
    n_finds = called.shape[1]
    if not n_finds:
        return np.zeros(len(called))
    precision = np.zeros(called.size + 1)  # row behind row, and an end
    np.divide(true.sums, called, out=precision[:-1].reshape(called.shape))
    place = true.place(needed)  # (R, 101), rising
    # The best between one recall level and the next, then the best from there on. The first level
    # is at the start of its row, so that no stretch runs into the next row.
    best = np.maximum.reduceat(precision, (place + true.starts).ravel()).reshape(place.shape)
    best[place == n_finds] = 0.0
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(best.sum(axis=1) / len(_RECALL_POINTS))


def _needed(n_true: Floats) -> Floats:
    """The fewest finds whose recall, as a float, reaches each recall point: shape ``(R, 101)``."""
    total = np.maximum(n_true, 1.0)[:, None]
    needed = np.ceil(_RECALL_POINTS * total)
    needed = np.where((needed - 1) / total >= _RECALL_POINTS, needed - 1, needed)
    return np.where(needed / total < _RECALL_POINTS, needed + 1, needed)


_MARGIN = 1e-6  # around a threshold pycocotools decides itself


def average_precision(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None
) -> dict[str, float | None]:
    """COCO's AP50 and AP[.5:.95] of one class, by pycocotools itself.

    Negative images take part, no prediction at all scores 0, and of the boxes of an image the
    100 most confident count. Equal scores are ranked in the order of `image_ids`.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``; or outputs of a detection library, as `cxr_compare.boxes_table` takes them,
            one for each of `image_ids`. May be empty; boxes of other images are ignored.
        truth: True boxes, the same without scores.
        image_ids: Every image evaluated, with and without boxes, unique; any sequence. Left out:
            boxes and truth are lists with an output for each image, in the same order.

    Returns:
        ``ap50`` and ``ap`` in [0, 1]; `None` where no image has a true box.

    Raises:
        InputError: A value is no box or no score, an id repeats, or ids match nothing.

    Source:
        Lin et al. 2014, as computed by pycocotools.

    Example:
        >>> from cxr_compare import metrics
        >>> true = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
        >>> found = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> figures = metrics.box_average_precision(found, true)
        >>> {name: round(figure, 6) for name, figure in figures.items()}
        {'ap50': 1.0, 'ap': 1.0}
    """
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    ids = check_arguments(boxes, truth, ids)
    return unchecked_average_precision(boxes, truth, ids)


def unchecked_average_precision(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index
) -> dict[str, float | None]:
    """Return the figures of `average_precision` of boxes that a network of ours has just made."""
    return coco_figures(pair_boxes(boxes, truth, image_ids))


def coco_figures(pairs: BoxPairs) -> dict[str, float | None]:
    """The figures of `average_precision` from boxes that are paired already.

    A box that overlaps no true box by half can match none, so pycocotools is asked about the
    others alone, and only where two compete. Its loop over all is replaced: the same, to the last
    digit.
    """
    n_true = len(pairs.truth.image)
    if not n_true:
        return {"ap50": None, "ap": None}
    precision = _precision(_matched(pairs), pairs.boxes.score, n_true)
    return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}


def _matched(pairs: BoxPairs) -> npt.NDArray[np.bool_]:
    """Which boxes pycocotools matches, shape ``(thresholds, boxes)``."""
    hit = np.zeros((len(IOU_THRESHOLDS), len(pairs.boxes.score)), dtype=bool)
    near = pairs.iou >= IOU_THRESHOLDS.min() - _MARGIN
    box, true, iou = pairs.box[near], pairs.true[near], pairs.iou[near]
    # A box and a true box with no other near either of them match where they overlap enough.
    plain = (np.bincount(box)[box] == 1) & (np.bincount(true)[true] == 1)
    plain &= np.abs(iou[:, None] - IOU_THRESHOLDS).min(axis=1) > _MARGIN
    hit[:, box[plain]] = iou[plain] >= IOU_THRESHOLDS[:, None]
    near = np.unique(box[~plain])
    images = np.unique(pairs.boxes.image[near])
    if not len(images):
        return hit
    boxes, scores = pairs.boxes, pairs.boxes.score[near]
    found = _annotations(boxes.image[near], boxes.corners[near], scores)
    evaluated = np.isin(pairs.truth.image, images)
    true = _annotations(pairs.truth.image[evaluated], pairs.truth.corners[evaluated])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(_coco(true, images), _coco(found, images), "bbox")
        evaluator.params.maxDets = [MAX_BOXES]
        # Without the three ranges of sizes, which would take three times as long again.
        evaluator.params.areaRng, evaluator.params.areaRngLbl = (
            evaluator.params.areaRng[:1],
            ["all"],
        )
        evaluator.evaluate()
    matches = np.concatenate([image["dtMatches"] for image in evaluator.evalImgs], axis=1)
    ids = np.concatenate([image["dtIds"] for image in evaluator.evalImgs])
    hit[:, near[ids - 1]] = matches > 0
    return hit


def _precision(hit: npt.NDArray[np.bool_], scores: Floats, n_true: int) -> Floats:
    """Precision as pycocotools accumulates it, shape ``(thresholds, recall points)``."""
    falling = np.argsort(-scores, kind="stable")
    places = [np.flatnonzero(of_threshold[falling]) + 1 for of_threshold in hit]
    return np.array([best_precision(called, n_true, _RECALL_POINTS) for called in places])


def best_precision(
    called: Integers, n_true: int, recall: Floats, *, beyond: bool = False
) -> Floats:
    """The best precision at each recall or above it (strictly, if beyond); 0 past the last hit.

    `called` are the places of the hits, from 1, among the boxes in falling score.
    """
    true = np.arange(1, len(called) + 1)
    best = np.maximum.accumulate((true / (called + np.spacing(1)))[::-1])[::-1]
    side: Literal["left", "right"] = "right" if beyond else "left"
    return np.append(best, 0)[np.searchsorted(true / n_true, recall, side=side)]


def _annotations(
    image: Integers, corners: Floats, scores: Floats | None = None
) -> list[dict[str, Any]]:
    """COCO annotations; ids start at 1, since pycocotools takes 0 for "not matched"."""
    given = np.ones(len(image)) if scores is None else scores
    sizes = corners[:, 2:] - corners[:, :2]
    columns = (image, np.hstack([corners[:, :2], sizes]), sizes.prod(axis=1), given)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"id": number, "image_id": place, "category_id": 1, "bbox": bbox, "area": area,
         "iscrowd": 0, "score": score}
        for number, (place, bbox, area, score) in enumerate(rows, start=1)
    ]  # fmt: skip


def _coco(annotations: list[dict[str, Any]], images: Integers) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images.tolist()],
        "categories": [{"id": 1, "name": "target"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


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

    def __init__(self, pairs: BoxPairs, clusters: Integers, n_clusters: int) -> None:
        owner, self._n_clusters = np.asarray(clusters), n_clusters
        corners, true = pairs.boxes.corners[pairs.box], pairs.truth.corners[pairs.true]
        shared = np.minimum(corners[:, 2:], true[:, 2:]) - np.maximum(corners[:, :2], true[:, :2])
        area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        iobb = np.prod(np.maximum(shared, 0), axis=1) / area
        self._score, self._most = pairs.boxes.score, np.zeros(len(pairs.boxes.score))
        np.maximum.at(self._most, pairs.box, iobb)
        self._of_box, self._of_lesion = owner[pairs.boxes.image], owner[pairs.truth.image]
        self._best = np.full((len(_IOBB_THRESHOLDS), len(self._of_lesion)), -np.inf)
        for best, least in zip(self._best, _IOBB_THRESHOLDS, strict=True):
            on = iobb >= least  # the highest score of a box on a lesion
            np.maximum.at(best, pairs.true[on], pairs.boxes.score[pairs.box[on]])
        self._images = np.bincount(owner, minlength=n_clusters)
        self._lesions = np.bincount(owner, weights=pairs.truth.per_image, minlength=n_clusters)
        self._counted = cache(self._counts)

    def _counts(self, cut: float) -> scipy.sparse.csr_matrix:
        """Lesions found and false boxes of each cluster at a cut, ``(2 x 3, clusters)``."""
        called = np.flatnonzero(self._score >= cut)
        false = [self._of_box[called[self._most[called] < least]] for least in _IOBB_THRESHOLDS]
        kinds = [*(self._of_lesion[best >= cut] for best in self._best), *false]
        counts = [np.bincount(owner, minlength=self._n_clusters) for owner in kinds]
        return scipy.sparse.csr_matrix(np.array(counts, dtype=np.float64))

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Accuracies, then false positives per image, ``(R, 2 x 3)``, each row at its own cut."""
        own = _at_own_cut(self._counted, 2 * len(_IOBB_THRESHOLDS), weight, cuts)
        size = np.stack([weight @ self._lesions, weight @ self._images], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return own / np.repeat(size, len(_IOBB_THRESHOLDS), axis=1)


def _at_own_cut(
    counted: Callable[[float], scipy.sparse.csr_matrix], kinds: int, weight: Floats, own: Floats
) -> Floats:
    """Weighted sums of counts ``(kinds, clusters)``, each row at its own cut; NaN without one."""
    sums = np.full((len(weight), kinds), np.nan)
    for cut in np.unique(own[~np.isnan(own)]).tolist():
        rows = own == cut
        sums[rows] = (counted(cut) @ weight[rows].T).T
    return sums


_RSNA_IOU = np.nextafter(np.linspace(0.4, 0.75, 8), 1.0)
"""IoU thresholds of the RSNA score; just above, since an IoU must exceed them."""
FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which sensitivity is given and averaged."""


class WeightedRsnaScore:
    """The RSNA 2018 score at several score cuts.

    Boxes at or above the cut are called. An image scores the mean over IoU thresholds of
    ``TP / (TP + FP + FN)``: a call where nothing is true scores 0, an image without calls and
    lesions is left out. The figure is the mean over images.

    Source:
        RSNA Pneumonia Detection Challenge 2018, evaluation page.
    """

    def __init__(
        self, pairs: BoxPairs, clusters: Integers, n_clusters: int, cuts: Iterable[float] = ()
    ) -> None:
        self.cuts, self._n_clusters = np.array([*cuts], dtype=np.float64), n_clusters
        self._matches, self._owner = match_pairs(pairs, _RSNA_IOU), np.asarray(clusters)
        self._lesions = per_cluster(pairs.truth.per_image[:, None], clusters, n_clusters)[:, 0]
        self._counted = cache(self._counts)

    def _counts(self, cut: float) -> scipy.sparse.csr_matrix:
        """Sum of scores and number of images of each cluster at a cut, ``(2, clusters)``."""
        called = slice(np.searchsorted(-self._matches.score, -cut, side="right"))
        image, hits = self._matches.image[called], self._matches.hit[called]
        n_lesions = self._matches.n_true
        marks = np.bincount(image, minlength=len(n_lesions)) + n_lesions
        score = np.zeros(len(marks))
        for hit in hits.T:
            found = np.bincount(image[hit], minlength=len(marks))
            score += found / np.maximum(marks - found, 1) / hits.shape[1]
        sums = [np.bincount(self._owner, of, self._n_clusters) for of in (score, marks > 0)]
        return scipy.sparse.csr_matrix(np.array(sums))

    @cached_property
    def _tables(self) -> Floats:
        return np.stack([self._counts(cut).toarray() for cut in self.cuts.tolist()], axis=1)

    def __call__(self, weights: Integers) -> Floats:
        """The score per weighting and cut, ``(R, cuts)``; NaN where every image is left out."""
        weight = np.asarray(weights, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weight @ self._tables[0].T) / (weight @ self._tables[1].T))

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """The score of each row of weights at its own cut, both ``(R,)``; NaN without one."""
        value, counted = _at_own_cut(self._counted, 2, weight, cuts).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(value / counted)

    def best_cut(self, weights: Integers) -> Floats:
        """The cut of the highest score of each row, of equals the lowest; NaN without a lesion."""
        scores = self(weights)
        best = self.cuts[np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)]
        return np.where(weights @ self._lesions > 0, best, np.nan)


class WeightedFroc:
    """Sensitivity per lesion at 1/8 to 8 false positives per image, and its mean.

    A lesion is found by any mark that hits it; a mark that hits no lesion is false; further marks
    on a lesion are neither. Of the operating points that keep a rate (marks from a score up, equal
    scores together), the most sensitive counts: a step, never a line between points.

    Source:
        Chakraborty 1989; the rates are those of LUNA16 (Setio et al. 2017).
    """

    def __init__(self, finds: Finds, clusters: Integers, n_clusters: int) -> None:
        owner, best = np.asarray(clusters), finds.best
        found = np.flatnonzero(best > -np.inf)
        found = found[np.argsort(-best[found], kind="stable")]
        self._finder = owner[finds.lesion_image[found]]
        # A false mark is called wherever a lesion of no higher score is: add up over lesions.
        segment = np.searchsorted(-best[found], -finds.mark_score[finds.false], side="left")
        of_box = owner[finds.mark_image[finds.false]]
        counted = segment < len(found)
        self._false = SegmentSums(segment[counted], of_box[counted], len(found), n_clusters)
        self._images = np.bincount(owner, minlength=n_clusters)
        self._lesions = np.bincount(owner[finds.lesion_image], minlength=n_clusters)

    def figures(self, weights: Integers, rates: Sequence[float] = FROC_RATES) -> Floats:
        """The mean, then the sensitivity at each of the rates; NaN without a lesion."""
        weight = np.asarray(weights, dtype=np.float64)
        n_images, n_lesions = weight @ self._images, weight @ self._lesions
        false = RunningRows(self._false(weights))
        found = np.cumsum(np.take(weights, self._finder, axis=1), axis=1, dtype=np.int64)
        found = np.pad(found, ((0, 0), (1, 0)))  # before the first find, nothing is found
        kept = false.place(np.floor(np.outer(n_images, rates)), side="right")  # (R, rates)
        at_rates = np.take_along_axis(found, kept, axis=1)
        mean = at_rates.sum(axis=1, keepdims=True) / len(rates)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.hstack([mean, at_rates]) / n_lesions[:, None])


class WeightedAfroc:
    """Area under the AFROC curve: lesions against images without one.

    A lesion that is found with a higher score than the most confident false mark of a normal image
    counts 1, with an equal one 1/2; a lesion that nothing finds and a normal image without a mark
    rank lowest. `worth` is of each lesion: ones give the AFROC, where every lesion counts alike.

    Source:
        Chakraborty and Berbaum 2004 (JAFROC); Chakraborty and Zhai 2016 (weights).
    """

    def __init__(self, finds: Finds, worth: Floats, clusters: Integers) -> None:
        owner, normal = np.asarray(clusters), finds.normal
        self._normals = FallingScores(finds.highest_false[normal], owner[normal])
        self._lesion_owner, self._worth = owner[finds.lesion_image], worth
        # How many normal images rank strictly above, or at least as high as, each lesion.
        self._above, self._upto = (
            np.searchsorted(self._normals.negated, -finds.best, side=side)
            for side in ("left", "right")
        )

    @classmethod
    def shared(cls, finds: Finds, clusters: Integers) -> WeightedAfroc:
        """The weighted AFROC: all lesions of an image share its weight alike."""
        return cls(finds, 1 / np.bincount(finds.lesion_image)[finds.lesion_image], clusters)

    def __call__(self, weights: Integers) -> Floats:
        """The area per weighting, ``(R,)``; NaN without a lesion or without a normal image."""
        normals = self._normals.sums(weights)
        on_lesion = np.take(weights, self._lesion_owner, axis=1) * self._worth
        lost = np.take(normals, self._above, axis=1) + np.take(normals, self._upto, axis=1)
        losses = np.einsum("rl,rl->r", on_lesion, lost) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - losses / (on_lesion.sum(axis=1) * normals[:, -1]))


class FrocCurve(NamedTuple):
    """Sensitivity per lesion against false positives per image, rising; empty without lesions."""

    false_marks: Floats
    sensitivity: Floats

    def __repr__(self) -> str:
        if not len(self.sensitivity):
            return "<FROC curve without a true box>"
        return (
            f"<FROC curve of {len(self.sensitivity)} points, up to sensitivity "
            f"{self.sensitivity[-1]:.3f} at {self.false_marks[-1]:.3f} false positives per image>"
        )


def froc(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None, *, hit: Hit = "iou"
) -> FrocCurve:
    """Sensitivity against false positives per image, a point per score that adds a lesion.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``; or outputs of a detection library, as `cxr_compare.boxes_table` takes them.
            The 100 most confident of an image count. Other images are ignored.
        truth: True boxes, the same without scores.
        image_ids: Every image evaluated, with and without boxes, unique; any sequence. Left out:
            boxes and truth are lists with an output for each image, in the same order.
        hit: What finds a lesion: ``iou``, an overlap of at least 0.2; ``centre``, the centre of a
            box that lies in it.

    Returns:
        Both figures start at 0, and the last point calls every box. Empty where no image has a
        true box.

    Raises:
        InputError: A value is no box or no score, an id repeats, or ids match nothing.

    Source:
        Chakraborty 1989.

    Example:
        >>> from cxr_compare import metrics
        >>> true = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [9], "y2": [9]})
        >>> marks = pd.concat([true.assign(score=0.4), true.assign(score=0.8, image_id="b")])
        >>> curve = metrics.froc(marks, true, ["a", "b"])
        >>> curve.false_marks.tolist(), curve.sensitivity.tolist()
        ([0.0, 0.5, 0.5], [0.0, 1.0, 1.0])
    """
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    ids = check_arguments(boxes, truth, ids)
    return froc_curve(find_lesions(pair_boxes(boxes, truth, ids), HITS[hit]))


def froc_curve(finds: Finds) -> FrocCurve:
    """See `froc`; of boxes of which is known what they find."""
    best = finds.best
    if not len(best):
        return FrocCurve(np.empty(0), np.empty(0))
    rising = np.sort(-best[best > -np.inf])
    cuts, wrong = np.unique(rising), np.sort(-finds.mark_score[finds.false])
    found = np.searchsorted(rising, cuts, side="right")
    called = np.searchsorted(wrong, cuts, side="right")
    return FrocCurve(
        np.concatenate([[0], called, [len(wrong)]]) / finds.n_images,
        np.concatenate([[0], found, [len(rising)]]) / len(best),
    )
