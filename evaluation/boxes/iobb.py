"""IoBB: lesions are found if a large enough share of a called box's area lies on them.

IoBB is the intersection of a predicted and a true box over the area of the predicted bounding box.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.boxes.matching import BoxPairs, pair_boxes
from cxr_compare.evaluation.statistics.arrays import Floats

IOBB_THRESHOLDS = (0.1, 0.25, 0.5)
"""IoBB thresholds: least share of a called box's area that must lie on a true box."""


@with_known_keywords
def iobb(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None, *, cut: float
) -> dict[str, float | None]:
    """Compute the share of true boxes found by IoBB, and the false positives per image.

    IoBB (intersection over the detected bounding box) is the share of a predicted box's area that
    lies on a true box. Boxes with a score of at least a cut are called. A true box is found if the
    IoBB of some called box with it reaches a threshold; the thresholds are 0.1, 0.25 and 0.5. A
    called box whose IoBB with every true box is below the threshold is a false positive. Read both
    figures together, because a system that covers the whole image with boxes finds every true box.

    Args:
        boxes: Predicted boxes, as a table with the columns ``image_id``, ``x1``, ``y1``, ``x2``,
            ``y2`` (original px) and ``score`` (in [0, 1]), or as a list of the outputs of a
            detection library (torchvision, Ultralytics or supervision), one for each image. The 100
            most confident boxes of each image count. Boxes of images that are not in `image_ids`
            are ignored.
        truth: True boxes, one for each lesion, in one of the same two forms, without scores.
        image_ids: Ids of all images that are evaluated, with and without boxes, each once. None is
            allowed if `boxes` and `truth` are lists that hold one output for each image, in the
            same order.
        cut: A box is called if its score is equal to this value, in [0, 1], or higher.

    Returns:
        ``accuracy_10``, ``accuracy_25`` and ``accuracy_50``: the share of the true boxes that are
        found at each IoBB threshold, None without a true box; then ``false_positives_10``,
        ``false_positives_25`` and ``false_positives_50``: false positives per image, None without
        an image.

    Raises:
        InputError: A box or a score is invalid, an id in `image_ids` repeats, no image of a table
            is in `image_ids`, or a table spells the id of an image in another way than `image_ids`.

    Source:
        Wang et al. 2017 (ChestX-ray8), section 4.3: accuracy and average number of false positives
        at T(IoBB).

    Example:
        >>> import pandas as pd
        >>> from cxr_compare import metrics
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [4], "y2": [2]})
        >>> boxes = truth.assign(x2=12, score=0.9)
        >>> figures = metrics.iobb(boxes, truth, ["a"], cut=0.5)
        >>> figures["accuracy_25"], figures["accuracy_50"], figures["false_positives_50"]
        (1.0, 0.0, 1.0)
    """
    cut = float(cut)
    if not 0 <= cut <= 1:
        raise InputError(f"cut: {cut} is no score; give a number in [0, 1]")
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    pairs = pair_boxes(boxes, truth, ids)
    shares = _iobb(pairs)
    is_called = pairs.boxes.score >= cut
    highest = np.zeros(len(pairs.boxes.score))
    np.maximum.at(highest, pairs.box, shares)
    n_lesions = len(pairs.truth.image)
    accuracy: dict[str, float | None] = {}
    false: dict[str, float | None] = {}
    for threshold in IOBB_THRESHOLDS:
        finds = (shares >= threshold) & is_called[pairs.box]
        n_found = len(np.unique(pairs.true[finds]))
        n_false = int((is_called & (highest < threshold)).sum())
        percent = f"{100 * threshold:.0f}"
        accuracy[f"accuracy_{percent}"] = n_found / n_lesions if n_lesions else None
        false[f"false_positives_{percent}"] = n_false / len(ids) if len(ids) else None
    return accuracy | false


def _iobb(pairs: BoxPairs) -> Floats:
    """Return the IoBB of each pair: the share of the predicted box's area on the true box."""
    box = pairs.boxes.corners[pairs.box]
    true = pairs.truth.corners[pairs.true]
    sides = np.minimum(box[:, 2:], true[:, 2:]) - np.maximum(box[:, :2], true[:, :2])
    area = np.prod(box[:, 2:] - box[:, :2], axis=1)
    return np.asarray(np.prod(np.maximum(sides, 0), axis=1) / area)
