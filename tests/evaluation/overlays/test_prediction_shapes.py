"""Boxes and labels that an overlay draws of a prediction."""

from dataclasses import replace

import numpy as np
import pytest

from cxr_compare.evaluation.overlays.contours import ActivationGrid
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.outcomes import describe_score
from cxr_compare.evaluation.overlays.prediction_shapes import prediction_shapes
from cxr_compare.evaluation.overlays.shapes import (
    Label,
    Shape,
)

COLOUR = "#56B4E9"
FRAME = (0.0, 0.0, 64.0, 64.0)
SIZE = (64, 64)
LEVELS = (1.0, 2.0, 3.0)


def drawn_shapes(*args, **options):
    return [shape for shape in prediction_shapes(*args, **options) if isinstance(shape, Shape)]


def drawn_labels(*args, **options):
    return [shape for shape in prediction_shapes(*args, **options) if isinstance(shape, Label)]


def blob(height: float) -> np.ndarray:
    rows, columns = np.mgrid[:8, :8]
    return height * np.exp(-((rows - 3) ** 2 + (columns - 3) ** 2) / 3)


def test_boxes_from_the_cut_on_are_drawn():
    boxes = np.array([[0, 0, 9, 9, 0.3], [0, 0, 9, 9, 0.29]])
    prediction = ImagePrediction("A", COLOUR, boxes=boxes, box_cut=0.3)
    (drawn,) = drawn_shapes(prediction, ImageTruth(0.0), SIZE)
    assert drawn.colour == COLOUR


def test_called_boxes_bear_their_scores():
    boxes = np.array([[10, 10, 30, 30, 0.914], [40, 40, 60, 60, 0.02]])
    prediction = ImagePrediction("A", COLOUR, boxes=boxes, box_cut=0.5)
    shown = [(label.layer, label.text) for label in drawn_labels(prediction, ImageTruth(0.0), SIZE)]
    assert shown == [("boxes", "0.91")]


@pytest.mark.parametrize(
    ("grid", "lines"),
    [
        (ActivationGrid(blob(0.5), FRAME, LEVELS), ["no evidence above", "the first contour"]),
        (
            ActivationGrid(blob(4.0), (-64.0, -64.0, 0.0, 0.0), LEVELS),  # beyond the image
            ["no evidence above", "the first contour"],
        ),
        (ActivationGrid(blob(4.0), FRAME, LEVELS), []),
        (None, []),  # a system without maps
    ],
)
def test_empty_map_is_labelled_as_empty(grid, lines):
    prediction = ImagePrediction("A", COLOUR, grid=grid)
    assert [label.text for label in drawn_labels(prediction, None, SIZE)] == lines
    assert drawn_labels(prediction, ImageTruth(1.0), SIZE) == []  # it has a caption
    no_answer = replace(prediction, withheld=True)  # says nothing, nor that there is no evidence
    assert drawn_labels(no_answer, None, SIZE) == []


def test_right_and_wrong_boxes_differ_by_line_not_only_by_colour():
    truth = ImageTruth(1.0, np.array([[10.0, 10.0, 30.0, 30.0]]))
    boxes = np.array([[12, 12, 28, 28, 0.9], [40, 40, 60, 60, 0.8]])
    shapes = drawn_shapes(ImagePrediction("A", COLOUR, boxes=boxes, box_cut=0.5), truth, SIZE)
    dashed = {tuple(shape.paths[0][0]): shape.dashed for shape in shapes if shape.layer == "boxes"}
    assert dashed == {(12.0, 12.0): False, (40.0, 40.0): True}


def test_flood_of_boxes_is_bounded_and_counted():
    boxes = np.array([[0, 0, 9, 9, score] for score in np.linspace(0.5, 0.9, 30)])
    prediction = ImagePrediction("A", COLOUR, score=0.9, threshold=0.3, boxes=boxes, box_cut=0.3)
    assert len(drawn_shapes(prediction, ImageTruth(0.0), SIZE)) == 8
    assert describe_score(prediction) == "score 0.900 ≥ 0.300; 8 of 30 boxes"
    assert describe_score(replace(prediction, boxes=boxes[:8])) == "score 0.900 ≥ 0.300"


def test_truth_has_the_same_mark_on_its_own_panel_and_on_those_of_systems():
    truth = ImageTruth(1.0, np.array([[8.0, 8.0, 24.0, 40.0]]))
    (own,) = truth.shapes((64, 64))
    shapes = prediction_shapes(ImagePrediction("A", COLOUR), truth, (64, 64))
    (on_system,) = [shape for shape in shapes if shape.layer == "truth"]
    assert [path.tolist() for path in own.paths] == [path.tolist() for path in on_system.paths]
    assert (len(own.paths), own.closed, own.colour) == (4, False, on_system.colour)
