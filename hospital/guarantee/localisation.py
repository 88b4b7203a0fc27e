"""Points and boxes of a system, compared with the lesions, for guarantees of localisation."""

from __future__ import annotations

import numpy as np

from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.hospital.guarantee.guaranteed_threshold import FalseBoxes, Localisation


def locate_predictions(
    output: Output, scores: Floats, truth: LabelledImages, box_rule: OverlapRule | MapBoxRule | None
) -> Localisation:
    """Find where a system points on each image, and compare the point with the lesions.

    The point is the centre of the most confident box, or the peak of the activation map. Guarantees
    (figures that hold for new patients with a stated confidence) of the localised sensitivity
    (share of positive images that are called positive and whose point lies on a lesion) and of
    false positives per image use the result.

    A box of a detector is shown on an image that is called positive if the box score is not below
    the threshold. The box with the highest score of such an image is always shown. The scores,
    ``(N,)``, are those of the images; `box_rule` selects or makes the system's boxes, and None
    keeps all stored boxes.
    """
    ids = output.image_ids
    boxed = ids.isin(truth.boxes_trusted)
    points = output.points()
    on_lesion = None if points is None else points_in_boxes(points, truth.true_boxes)
    if not output.gives_boxes:
        return Localisation(boxed, on_lesion)
    boxes = output.predicted_boxes
    if isinstance(box_rule, OverlapRule):
        boxes = output.overlapping.left(box_rule.limit)
    finds = find_lesions(pair_boxes(boxes, truth.true_boxes, ids))
    image = finds.mark_image[finds.false]
    box_score = finds.mark_score[finds.false]
    image_score = scores[image]
    highest = np.full(len(ids), -np.inf)
    np.maximum.at(highest, finds.mark_image, finds.mark_score)
    is_highest = box_score == highest[image]
    shown_up_to = np.where(is_highest, image_score, np.minimum(box_score, image_score))
    return Localisation(boxed, on_lesion, FalseBoxes(image, shown_up_to))
