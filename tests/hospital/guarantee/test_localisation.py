"""Predictions located on lesions, for guarantees."""

import numpy as np

from cxr_compare.evaluation.systems.stored_predictions import (
    read_output,
)
from cxr_compare.hospital.guarantee.localisation import locate_predictions


def test_a_shown_box_is_one_from_the_threshold_on_or_the_highest(predict, test_set, evaluation_set):
    system, ids = predict("A", "boxes", seed=1), evaluation_set.image_ids("val")
    output = read_output(system, test_set.target, ids)
    boxes, scores = output.predicted_boxes, output.scores(None) * 0.5  # as if reduced otherwise
    image, shown = locate_predictions(output, scores.to_numpy(), test_set.truth, None).false_boxes
    of_box = boxes.groupby("image_id")["score"].max().reindex(ids).to_numpy()
    alone = np.bincount(image, minlength=len(ids)) == 1
    highest = np.full(len(ids), -1.0)
    np.maximum.at(highest, image, shown)
    assert (highest[alone] <= scores.to_numpy()[alone] + 1e-12).all()
    assert len(image) <= len(boxes)
    assert (of_box[np.unique(image)] > 0).all()
