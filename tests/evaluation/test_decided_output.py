"""Predictions with decisions, image by image."""

import numpy as np
import pytest

from cxr_compare.evaluation.decided_output import DecidedOutput, shown_box_cut

COLOUR = "#56B4E9"


@pytest.mark.parametrize(
    ("decision", "threshold", "cut", "why"),
    [
        (True, 0.3, 0.3, "all boxes at or above the threshold"),
        (True, 0.9, 0.6, "noisy-or: no box reaches the threshold, the best one decided"),
        (False, 0.3, np.inf, "a negative image shows no box in full"),
        (None, None, 0.5, "undecided"),
    ],
)
def test_boxes_in_full_follow_the_decision(decision, threshold, cut, why):
    assert shown_box_cut(np.array([0.6, 0.2]), decision, threshold) == cut, why


def test_all_boxes_of_a_positive_map_are_drawn_in_full(comparison):
    maps = comparison.systems["CheXNet"].maps
    boxes = comparison.systems["RetinaNet"].boxes
    decisions = comparison.decisions.query("system == 'CheXNet'").set_index("image_id")
    decisions = decisions.assign(decision=decisions["decision_max_f1"])
    output = DecidedOutput("CheXNet", decisions, boxes, maps, {0.5: 1.0}, threshold=0.5)
    assert output.prediction("p01", COLOUR).box_cut == 0.0
    assert output.prediction("p02", COLOUR).box_cut == np.inf


def test_image_without_any_output_reads_as_empty(comparison):
    output = DecidedOutput("A", comparison.decisions.iloc[:0], comparison.systems["CheXNet"].boxes)
    prediction = output.prediction("p01", COLOUR)
    assert (prediction.score, prediction.decision, len(prediction.boxes)) == (None, None, 0)
