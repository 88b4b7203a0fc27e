"""One X-ray with what is drawn over it: true lesions, boxes, activation map and scored point."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL.ImageColor import getrgb

from cxr_compare.evaluation.overlays.image_prediction import (
    NO_BOXES,
    Boxes,
    HeatMap,
    ImagePrediction,
    ImageTruth,
)

Pixels = npt.NDArray[np.uint8]
MOST_BOXES = 8
"""Largest number of boxes that are drawn, because more would hide the lungs."""
MOST_BESIDE = 3
"""Largest number of boxes of each of several systems on one image."""
MOST_SYSTEMS = 4
"""Largest number of systems on one image that have more than their point."""
_WHITE = (255, 255, 255)
_READER = (240, 228, 66)
_DEEPEST = 0.5
"""Opacity of the highest value of an activation map."""


class Drawing(NamedTuple):
    """An image with what is drawn over it, in RGB, and the kinds of marks that are on it.

    They are ``lesion``, ``reader``, ``solid`` and ``dashed`` (boxes of systems), ``point``, ``map``
    and ``many``, of so many systems that only their points are drawn.
    """

    pixels: Pixels
    marks: frozenset[str]


def draw_panel(
    pixels: Pixels,
    side: int,
    truth: ImageTruth | None = None,
    *predictions: ImagePrediction,
) -> Drawing:
    """Resize a grey image to a longer side of `side` px, and draw over it in RGB.

    True lesions are white corners. A box of a system is solid if its centre lies on a true lesion,
    or no lesion is known, and dashed if not. A system has its activation map where `has_map` says
    so: a single map a tint and two lines, of several the inner line. More than four systems have
    their points alone.
    """
    canvas, scale = _canvas(pixels, side)
    marks: set[str] = set()
    are_few = len(predictions) <= MOST_SYSTEMS
    if not are_few:
        marks.add("many")
    mapped = [answer for answer in predictions if are_few and answer.has_map(truth)]
    for prediction in mapped:
        if prediction.heat is not None:
            colour, one = prediction.mark.colour, len(mapped) == 1
            canvas = _draw_map(canvas, prediction.heat, colour, scale, alone=one)
            marks |= {"map"} if prediction.high_share else set()
    lesions = None if truth is None else truth.boxes
    for boxes in {} if truth is None or predictions else truth.readers.values():
        for box in boxes * scale:
            _polyline(canvas, _corners(box), _READER)
            marks.add("reader")
    for box in (NO_BOXES if lesions is None else lesions) * scale:
        _brackets(canvas, box)
        marks.add("lesion")
    for prediction in predictions:
        if are_few and not prediction.has_map(truth):
            alone = len(predictions) == 1
            marks |= _draw_boxes(canvas, prediction, lesions, scale, alone=alone)
        if prediction.has_point(truth):
            _cross(canvas, prediction, scale)
            marks.add("point")
    return Drawing(np.asarray(canvas, dtype=np.uint8), frozenset(marks))


def draw_boxes(pixels: Pixels, side: int, boxes: Iterable[tuple[str, Boxes]]) -> Pixels:
    """Resize a grey image to a longer side of `side` px, and draw boxes in a colour each.

    Edges of boxes are shares of the sides of the image.
    """
    import cv2

    canvas, _ = _canvas(pixels, side)
    for colour, box in boxes:
        x1, y1, x2, y2 = np.rint(box * np.tile(canvas.shape[1::-1], 2)).astype(int).tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), getrgb(colour), 2)
    return canvas


def _canvas(pixels: Pixels, side: int) -> tuple[Pixels, float]:
    """Resize a grey image to a longer side of `side` px, in RGB, and return the scale, too."""
    import cv2

    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected grey uint8 (H, W), but got {pixels.dtype} {pixels.shape}")
    scale = side / max(pixels.shape)
    size = tuple(max(1, round(length * scale)) for length in pixels.shape[::-1])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, size, interpolation=method)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB), np.uint8), scale


def _draw_boxes(
    canvas: Pixels,
    prediction: ImagePrediction,
    lesions: Boxes | None,
    scale: float,
    *,
    alone: bool,
) -> set[str]:
    """Draw the best boxes of a system, the best one last, and of a single system their scores."""
    colour, marks = getrgb(prediction.mark.colour), set[str]()
    ordered = prediction.boxes[np.argsort(-prediction.boxes[:, 4], kind="stable")]
    most = MOST_BOXES if alone else MOST_BESIDE
    for box in ordered[ordered[:, 4] >= prediction.box_cut][:most][::-1]:
        centre, corners = (box[:2] + box[2:4]) / 2, _corners(box * scale)
        is_dashed = lesions is not None and not on_lesion(centre, lesions)
        _polyline(canvas, corners, colour, dashed=is_dashed)
        marks.add("dashed" if is_dashed else "solid")
        if alone:
            _write(canvas, f"{box[4]:.2f}", corners[0])
    return marks


def _cross(canvas: Pixels, prediction: ImagePrediction, scale: float) -> None:
    """Mark the point of a system."""
    centre, arm = np.array(prediction.point) * scale, max(canvas.shape) / 48
    for across in (np.array([arm, 0.0]), np.array([0.0, arm])):
        _polyline(
            canvas, np.array([centre - across, centre + across]), getrgb(prediction.mark.colour)
        )


def on_lesion(point: Boxes, lesions: Boxes) -> bool:
    """Return True if a point lies inside or on the border of a true box."""
    return bool(((lesions[:, :2] <= point) & (point <= lesions[:, 2:4])).all(axis=1).any())


def _draw_map(canvas: Pixels, heat: HeatMap, colour: str, scale: float, *, alone: bool) -> Pixels:
    """Draw a map: a tint that begins at what is high, and lines around this and the highest."""
    import cv2

    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = np.array(heat.frame) * scale
    rows, columns = heat.values.shape
    # From cells of the map to pixels of the panel; beyond the outermost centres it is constant.
    step = np.array([(x2 - x1) / columns, (y2 - y1) / rows])
    matrix = np.array([[step[0], 0, x1 + step[0] / 2], [0, step[1], y1 + step[1] / 2]])
    warped = cv2.warpAffine(heat.values, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    values, (high, highest, top) = np.asarray(warped, np.float64), heat.levels
    if alone:
        share = np.interp(values, [high, max(top, np.nextafter(high, np.inf))], [0, _DEEPEST])
        share = share[:, :, None]
        canvas = np.rint(canvas * (1 - share) + np.array(getrgb(colour)) * share).astype("u1")
        _outline(canvas, values > high, colour, 0.5)
    _outline(canvas, values > highest, colour, 1)
    return canvas


def _outline(canvas: Pixels, inside: npt.NDArray[np.bool_], colour: str, thickness: float) -> None:
    """Draw the border of a region, but not along the edge of the image."""
    import cv2

    beyond = 8  # px, where its border lies that is not drawn
    wider = np.pad(inside.astype(np.uint8), beyond, mode="edge")
    contours, _ = cv2.findContours(wider, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for points in contours:
        closed = np.concatenate([points, points[:1]])[:, 0].astype(np.float64) - beyond
        _polyline(canvas, closed, getrgb(colour), thickness=thickness)


def _corners(box: Boxes) -> Boxes:
    x1, y1, x2, y2 = box[:4]
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])


def _brackets(canvas: Pixels, box: Boxes) -> None:
    """Mark the corners of a box, so that its inside stays visible."""
    x1, y1, x2, y2 = box[:4]
    arm = min(x2 - x1, y2 - y1) / 4
    for x, y, across, down in ((x1, y1, 1, 1), (x2, y1, -1, 1), (x2, y2, -1, -1), (x1, y2, 1, -1)):
        corner = [[x, y + arm * down], [x, y], [x + arm * across, y]]
        _polyline(canvas, np.array(corner), _WHITE)


def _polyline(
    canvas: Pixels,
    points: Boxes,
    colour: tuple[int, ...],
    *,
    dashed: bool = False,
    thickness: float = 1,
) -> None:
    """Draw a line with a dark rim; `thickness` is a share of the usual one, a thin one has none."""
    import cv2

    width = max(1, round(thickness * max(canvas.shape) / 250))
    pieces = [points]
    if dashed:
        pieces = [
            np.linspace(start, end, 2 * max(2, int(np.hypot(*(end - start)) // (8 * width))))
            for start, end in pairwise(points)
        ]
        pieces = [piece[at : at + 2] for piece in pieces for at in range(0, len(piece), 2)]
    lines = [np.rint(piece * 16).astype(np.int32) for piece in pieces]
    for shade, wide in (((0, 0, 0), width + 2), (colour, width))[thickness < 1 :]:
        cv2.polylines(canvas, lines, False, shade, wide, cv2.LINE_AA, 4)


def _write(canvas: Pixels, text: str, corner: Boxes) -> None:
    """Write a number on a dark label that stands on a box, or in it where there is no space."""
    import cv2

    size, font = max(canvas.shape) / 750, cv2.FONT_HERSHEY_SIMPLEX
    weight = max(1, round(2 * size))
    (wide, high), _ = cv2.getTextSize(text, font, size, weight)
    gap = round(8 * size)
    rim = max(1, round(max(canvas.shape) / 250)) + 1  # of the box
    left = int(np.clip(corner[0] - rim / 2, 0, max(0, canvas.shape[1] - wide - 2 * gap)))
    top = int(corner[1]) - rim - high - 2 * gap
    if top < 0:
        top = int(max(corner[1], 0)) + rim
    cv2.rectangle(canvas, (left, top), (left + wide + 2 * gap, top + high + 2 * gap), (0, 0, 0), -1)
    position = left + gap, top + gap + high
    cv2.putText(canvas, text, position, font, size, _WHITE, weight, cv2.LINE_AA)
