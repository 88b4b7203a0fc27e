"""Types of errors of predicted boxes: missed, poorly boxed, duplicate, background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs, greedy_matches
from cxr_compare.evaluation.statistics.arrays import is_positive

Counts = npt.NDArray[np.int64]
"""Number of lesions or boxes of each image, shape ``(images,)``."""
_FOREGROUND_IOU = 0.5
_BACKGROUND_IOU = 0.1


def count_error_types(pairs: BoxPairs, cut: float) -> dict[str, Counts]:
    """Count lesions and called boxes by outcome, image by image.

    Called boxes choose in falling score, each the unmatched lesion of highest IoU of at least 0.5.
    Of the other called boxes, one that overlaps a lesion by at least 0.5 is a duplicate, one
    between 0.1 and 0.5 is a poor box, and the rest are background. A lesion that no box matches is
    missed, unless it is the one that a poor box overlaps most.

    Args:
        pairs: Predicted with true boxes.
        cut: Score from which boxes are called.

    Returns:
        Counts of ``lesions`` (the sum of ``found``, ``poorly_boxed`` and ``missed``) and of the
        boxes ``poor_box``, ``duplicate`` and ``background``, shape ``(images,)`` each.

    Source:
        Bolya et al. 2020, TIDE, for one class: there are no classification errors.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.boxes.matching import pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(score=0.9), truth.assign(score=0.8)])
        >>> counts = count_error_types(pair_boxes(boxes, truth, pd.Index(["a"])), cut=0.5)
        >>> {name: int(count[0]) for name, count in counts.items() if count[0]}
        {'lesions': 1, 'found': 1, 'duplicate': 1}
    """
    n_images = len(pairs.truth.per_image)
    called = is_positive(pairs.boxes.score, cut)
    usable = called[pairs.box]
    matches = greedy_matches(pairs, usable, np.array([_FOREGROUND_IOU]))
    is_found = matches.taken[:, 0]
    wrong = called & ~matches.hit[:, 0]
    box = pairs.box[usable]
    true = pairs.true[usable]
    iou = pairs.iou[usable]
    best_iou = np.zeros(len(called))
    np.maximum.at(best_iou, box, iou)
    is_poor = wrong & (best_iou >= _BACKGROUND_IOU) & (best_iou < _FOREGROUND_IOU)
    is_nearest = is_poor[box] & (iou == best_iou[box])
    is_covered = np.zeros(len(is_found), dtype=bool)
    is_covered[true[is_nearest]] = True

    def lesions_per_image(chosen: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(pairs.truth.image[chosen], minlength=n_images)

    def boxes_per_image(chosen: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(pairs.boxes.image[chosen], minlength=n_images)

    return {
        "lesions": np.asarray(pairs.truth.per_image, dtype=np.int64),
        "found": lesions_per_image(is_found),
        "poorly_boxed": lesions_per_image(is_covered & ~is_found),
        "missed": lesions_per_image(~is_found & ~is_covered),
        "poor_box": boxes_per_image(is_poor),
        "duplicate": boxes_per_image(wrong & (best_iou >= _FOREGROUND_IOU)),
        "background": boxes_per_image(wrong & (best_iou < _BACKGROUND_IOU)),
    }
