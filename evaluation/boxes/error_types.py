"""Types of errors of predicted boxes: missed, poorly boxed, duplicate, background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs, greedy_matches
from cxr_compare.evaluation.statistics.arrays import is_positive

_FOREGROUND_IOU, _BACKGROUND_IOU = 0.5, 0.1


Counts = npt.NDArray[np.int64]


def count_error_types(pairs: BoxPairs, cut: float) -> dict[str, Counts]:
    """Count lesions and called boxes by outcome, image by image.

    Called boxes choose in falling score, each the unmatched lesion of highest IoU of at least 0.5.
    Of the others, one that overlaps a lesion by at least 0.5 is a duplicate, one between 0.1 and
    0.5 a poor box, the rest are background. A lesion that nobody took is missed, unless it is the
    one that a poor box overlaps most.

    ``lesions`` (the sum of ``found``, ``poorly_boxed`` and ``missed``) and the boxes ``poor_box``,
    ``duplicate`` and ``background``, each per image.

    Source:
        Bolya et al. 2020, TIDE, for one class: no classification errors.
    """
    n_images = len(pairs.truth.per_image)
    called = is_positive(pairs.boxes.score, cut)
    kept = called[pairs.box]
    box, true, iou = pairs.box[kept], pairs.true[kept], pairs.iou[kept]
    right, taken = (of[:, 0] for of in greedy_matches(pairs, kept, np.array([_FOREGROUND_IOU])))
    best = np.zeros(len(called))
    np.maximum.at(best, box, iou)
    wrong = called & ~right
    poor = wrong & (best >= _BACKGROUND_IOU) & (best < _FOREGROUND_IOU)
    nearest = poor[box] & (iou == best[box])
    covered = np.zeros(len(taken), dtype=bool)
    covered[true[nearest]] = True

    def of_lesions(chosen: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(pairs.truth.image[chosen], minlength=n_images)

    def of_boxes(chosen: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(pairs.boxes.image[chosen], minlength=n_images)

    return {
        "lesions": np.asarray(pairs.truth.per_image, dtype=np.int64),
        "found": of_lesions(taken),
        "poorly_boxed": of_lesions(covered & ~taken),
        "missed": of_lesions(~taken & ~covered),
        "poor_box": of_boxes(poor),
        "duplicate": of_boxes(wrong & (best >= _FOREGROUND_IOU)),
        "background": of_boxes(wrong & (best < _BACKGROUND_IOU)),
    }
