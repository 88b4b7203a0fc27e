"""What is wrong with a system's boxes, in the manner of TIDE, and which lesions it reaches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluation.boxes.iou import BoxPairs
from evaluation.statistics.ranking import is_positive

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
_REACHED_IOU = 0.2
"""A lesion is reached by a called box that overlaps it this much, as in FROC."""
Counts = npt.NDArray[np.int64]


def error_kinds(pairs: BoxPairs, cut: float) -> dict[str, Counts]:
    """Count lesions and called boxes by outcome, image by image.

    Called boxes choose in falling score, each the unmatched lesion of highest IoU of at least 0.5.
    Of the others, one that overlaps a lesion by at least 0.5 is a duplicate, one between 0.1 and
    0.5 a poor box, the rest are background. A lesion that nobody took is missed, unless it is the
    one that a poor box overlaps most.

    Args:
        pairs: Every predicted with every true box of its image.
        cut: Boxes from this score are called.

    Returns:
        ``lesions``, ``found``, ``poorly_boxed``, ``missed`` (they add up to the lesions) and
        ``poor_box``, ``duplicate``, ``background``, each per image, shape ``(images,)``.

    Source:
        Bolya et al. 2020, TIDE, for one class: no classification errors.

    Example:
        >>> import pandas as pd
        >>> from evaluation.boxes.iou import pair_boxes
        >>> true = pd.DataFrame({"image_id": ["a"], "x1": [0.], "y1": [0.], "x2": [9.], "y2": [9.]})
        >>> boxes = pd.concat([true.assign(score=0.9), true.assign(score=0.8)])
        >>> kinds = error_kinds(pair_boxes(boxes, true, pd.Index(["a"])), 0.5)
        >>> {name: int(count[0]) for name, count in kinds.items() if count[0]}
        {'lesions': 1, 'found': 1, 'duplicate': 1}
    """
    n_images = len(pairs.n_true)
    called = is_positive(pairs.boxes.score, cut)
    kept = called[pairs.box]
    box, true, iou = pairs.box[kept], pairs.true[kept], pairs.iou[kept]
    taken, right = _take(box, true, iou, len(pairs.true_image), len(called))
    best = np.zeros(len(called))
    np.maximum.at(best, box, iou)
    wrong = called & ~right
    poor = wrong & (best >= BACKGROUND_IOU) & (best < FOREGROUND_IOU)
    nearest = poor[box] & (iou == best[box])
    covered = np.zeros(len(taken), dtype=bool)
    covered[true[nearest]] = True

    def of_lesions(chosen: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(pairs.true_image[chosen], minlength=n_images)

    def of_boxes(chosen: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(pairs.boxes.image[chosen], minlength=n_images)

    return {
        "lesions": np.asarray(pairs.n_true, dtype=np.int64),
        "found": of_lesions(taken),
        "poorly_boxed": of_lesions(covered & ~taken),
        "missed": of_lesions(~taken & ~covered),
        "poor_box": of_boxes(poor),
        "duplicate": of_boxes(wrong & (best >= FOREGROUND_IOU)),
        "background": of_boxes(wrong & (best < BACKGROUND_IOU)),
    }


def _take(
    box: Counts, true: Counts, iou: npt.NDArray[np.float64], n_true: int, n_boxes: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which lesions are taken and which boxes took one; boxes stand in falling score."""
    taken, right = np.zeros(n_true, dtype=bool), np.zeros(n_boxes, dtype=bool)
    near = iou >= FOREGROUND_IOU
    box, true, iou = box[near], true[near], iou[near]
    order = np.lexsort((-iou, box))  # few pairs reach 0.5, so a loop will do
    for one, lesion in zip(box[order].tolist(), true[order].tolist(), strict=True):
        if not right[one] and not taken[lesion]:
            taken[lesion] = right[one] = True
    return taken, right


def lesions_reached(pairs: BoxPairs, cut: float) -> npt.NDArray[np.bool_]:
    """Which lesions a called box overlaps by at least 0.2.

    Args:
        pairs: Every predicted with every true box of its image.
        cut: Boxes from this score are called.

    Returns:
        Shape ``(lesions,)``, in the order of ``pairs.true_image``.
    """
    near = (pairs.iou >= _REACHED_IOU) & is_positive(pairs.boxes.score[pairs.box], cut)
    reached = np.zeros(len(pairs.true_image), dtype=bool)
    reached[pairs.true[near]] = True
    return reached
