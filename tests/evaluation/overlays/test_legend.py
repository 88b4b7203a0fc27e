"""Legend of overlays, of the report and of the page of `cxr serve`."""

import numpy as np

from cxr_compare.evaluation.overlays.contours import ActivationGrid
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.legend import MARKS, drawn_marks, legend
from cxr_compare.evaluation.overlays.prediction_shapes import prediction_shapes

SIZE = (64, 64)
TRUTH = ImageTruth(1.0, np.array([[10.0, 10.0, 30.0, 30.0]]))


def marks_of(predictions, truth=TRUTH):
    shapes = [prediction_shapes(one, truth, SIZE) for one in predictions]
    return drawn_marks(predictions, shapes, None if truth is None else truth.shapes(SIZE))


def classifier(name: str, cells: int, probability: float | None = 0.8) -> ImagePrediction:
    values = np.zeros((cells, cells))
    values[2, 2] = 4.0
    grid = ActivationGrid(values, (0.0, 0.0, 64.0, 64.0), (1.0, 2.0))
    return ImagePrediction(
        name, "#56B4E9", probability=probability, grid=grid, contours=(0.25, 0.5)
    )


def test_every_mark_that_is_drawn_has_an_entry_and_no_other_one():
    boxes = np.array([[12, 12, 28, 28, 0.9], [40, 40, 60, 60, 0.8], [1, 1, 9, 9, 0.1]])
    detector = ImagePrediction("A", "#E06C00", boxes=boxes, box_cut=0.5, point=(20.0, 20.0))
    shown = {mark.name for mark in marks_of([detector])}
    assert shown == {"truth", "on_lesion", "elsewhere", "point"}
    assert [entry.text for entry in legend(marks_of([detector]))] == [
        MARKS[name].text for name in MARKS if name in shown
    ]
    assert {mark.name for mark in marks_of([detector], None)} == {"box", "point"}


def test_boxes_of_single_radiologists_are_no_agreed_lesions():
    truth = ImageTruth(1.0, readers={"R1": np.array([[1.0, 1.0, 9.0, 9.0]])})
    assert [mark.name for mark in marks_of([], truth)] == ["reader"]


def test_systems_whose_maps_are_drawn_alike_share_an_entry():
    alike = legend(marks_of([classifier("A", 5), classifier("B", 5)]))
    assert len(alike) == 2  # with the truth
    assert "A and B" in alike[1].text
    assert "25 %" in alike[1].text
    different = [classifier("A", 5), classifier("B", 5, None), classifier("C", 20)]
    assert len(legend(marks_of(different))) == 4


def test_cells_of_a_map_are_named_where_asked():
    marks = marks_of([classifier("A", 5)])
    assert "5 × 5" in legend(marks, cells=True)[1].text
    assert not any("5 × 5" in entry.text for entry in legend(marks))


def test_levels_are_those_of_the_contours_that_are_drawn():
    values = np.full((10, 10), 1.5)
    values[4:6, 4:6] = 4.0
    grid = ActivationGrid(values, (0.0, 0.0, 64.0, 64.0), (1.0, 2.0, 3.0))
    levels = (0.25, 0.5, 0.75)
    prediction = ImagePrediction("A", "#56B4E9", probability=0.8, grid=grid, contours=levels)
    (contours,) = [entry for entry in legend(marks_of([prediction])) if "contours" in entry.text]
    assert "50 % and 75 %" in contours.text
    assert "25 %" not in contours.text
