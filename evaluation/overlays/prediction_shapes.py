"""Shapes of one system's answer: map, boxes and scored point.

`prediction_shapes` decides how a prediction looks, both in PNG files and in the report.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.overlays.contours import map_shapes
from cxr_compare.evaluation.overlays.image_prediction import NO_BOXES, ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.shapes import (
    LINE_SHARE,
    TRUTH_COLOUR,
    Label,
    LabelRequest,
    Shape,
    corner_brackets,
    cross,
    place_labels,
    rectangle,
)


def _on_lesion(x: float, y: float, truth: npt.NDArray[np.float64]) -> bool:
    """Return True if a point lies inside or on the border of any true box."""
    inside = (truth[:, 0] <= x) & (x <= truth[:, 2]) & (truth[:, 1] <= y) & (y <= truth[:, 3])
    return bool(inside.any())


def boxes_on_lesions(prediction: ImagePrediction, truth: ImageTruth) -> bool:
    """Return True if every box from `box_cut` on has its centre on a true lesion."""
    lesions = NO_BOXES if truth.boxes is None else truth.boxes
    full = prediction.boxes[prediction.boxes[:, 4] >= prediction.box_cut]
    centres = (full[:, :2] + full[:, 2:4]) / 2
    return all(_on_lesion(x, y, lesions) for x, y in centres.tolist())


MAX_FULL_BOXES = 8
"""Largest number of boxes that are drawn in full, because more would hide the lungs. The caption
says how many there are."""
NO_EVIDENCE = ("no evidence above", "the first contour")
"""Lines of the text on a map without contours, where the image has no caption."""
NO_CONTOUR = "map below its lowest level"
"""Text in the caption of a map of which nothing is drawn."""


def prediction_shapes(
    prediction: ImagePrediction, truth: ImageTruth | None, size: tuple[int, int]
) -> list[Shape | Label]:
    """Return what is drawn on an image for one prediction: map, boxes and point, and true lesions.

    The eight most confident boxes that score at least ``prediction.box_cut`` are drawn in the
    system's colour with their scores. Such a box is solid if its centre lies on a true lesion and
    dashed if not; where no true boxes are known all are solid. An activation map is drawn as
    contours or as the cell of its peak. A cross marks the most suspicious point (box centre or peak
    of the map), unless the system calls the image negative. True lesions are white corners; None as
    `truth` shows none. `size` is width and height of the original image in px.
    """
    lesions = NO_BOXES if truth is None or truth.boxes is None else truth.boxes
    side = max(size)
    shapes: list[Shape | Label] = []
    grid = prediction.grid
    if grid is not None and grid.levels:  # a map without contours is not drawn
        visible = [area for area in map_shapes(grid, prediction.colour) if _is_visible(area, size)]
        shapes += visible
        if not visible and truth is None and not prediction.withheld:
            shapes += _no_evidence(prediction.colour, size, side * LINE_SHARE)
    shapes += [
        Shape("truth", corner_brackets(box), TRUTH_COLOUR, width=1.5, closed=False)
        for box in lesions
    ]
    evaluated = None if truth is None else truth.boxes
    shapes += _box_shapes(prediction, evaluated, size, side * LINE_SHARE)
    if prediction.point is not None and prediction.decision is not False:
        arms = cross(*prediction.point, arm=side / 48)
        shapes.append(Shape("point", arms, prediction.colour, width=2.4, closed=False))
    return shapes


def _is_visible(area: Shape, size: tuple[int, int]) -> bool:
    """Return True if part of an area lies on the image; a map's frame may reach beyond it."""
    least = 0.001 * size[0] * size[1]
    for path in area.paths:
        low = path.min(axis=0).clip(0, size)
        high = path.max(axis=0).clip(0, size)
        if float((high - low).prod()) >= least:
            return True
    return False


def _no_evidence(colour: str, size: tuple[int, int], line: float) -> list[Label]:
    """Return the text for a map without contours, in two lines at the foot of the image."""
    width, height = size
    least = min(line, *(width / (0.6 * len(text)) for text in NO_EVIDENCE))
    lines = []
    for below, text in enumerate(reversed(NO_EVIDENCE)):
        label = Label("map", text, (0.0, 0.0), least, colour)
        corner = ((width - label.width) / 2, height - (1.2 + below) * least)
        lines.append(replace(label, corner=corner))
    return lines[::-1]


def _box_shapes(
    prediction: ImagePrediction,
    lesions: npt.NDArray[np.float64] | None,
    size: tuple[int, int],
    line: float,
) -> list[Shape | Label]:
    """Return the boxes with their scores; solid if `lesions` is None."""
    ordered = prediction.boxes[np.argsort(-prediction.boxes[:, 4], kind="stable")]
    called = ordered[ordered[:, 4] >= prediction.box_cut][:MAX_FULL_BOXES]
    strong = []
    for box in called[::-1]:
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        dashed = lesions is not None and not _on_lesion(*centre, lesions)
        corners = (rectangle(box),)
        strong.append(Shape("boxes", corners, prediction.colour, width=2.4, dashed=dashed))
    scores = [LabelRequest("boxes", box, f"{box[4]:.2f}", prediction.colour) for box in called]
    return [*strong, *place_labels(scores, size, line)]
