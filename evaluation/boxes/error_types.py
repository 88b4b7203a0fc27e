"""Types of errors of predicted boxes: missed or poorly boxed lesions, duplicates, background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs, greedy_matches

Counts = npt.NDArray[np.int64]
"""Number of lesions or boxes of each image, shape ``(images,)``."""
_FOREGROUND_IOU = 0.5
_BACKGROUND_IOU = 0.1


def count_error_types(pairs: BoxPairs, cut: float) -> dict[str, Counts]:
    """Count the lesions and the called boxes of each image by outcome, shape ``(images,)`` each.

    A box is called if its score is at least the cut. Called boxes are matched in the order of
    falling scores, each to the unmatched lesion with which its IoU is highest, if that IoU is at
    least 0.5. A called box that matches no lesion is one of three errors, by its highest IoU with
    any lesion: a ``duplicate`` from 0.5, a ``poor_box`` from 0.1 to 0.5, or ``background`` below
    0.1.

    Of the ``lesions``, one that a box matches is ``found``. One that no box matches is
    ``poorly_boxed`` if some poor box has its highest IoU with it; otherwise it is ``missed``.

    Source:
        Bolya et al. 2020 (TIDE), restricted to one class, so without classification errors.

    Examples:
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
    called = pairs.boxes.score >= cut
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
