"""One X-ray with what is drawn over it: true lesions, boxes, activation map and scored point."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from PIL.ImageColor import getrgb

from cxr_compare.evaluation.overlays.image_prediction import (
    NO_BOXES,
    Boxes,
    ImagePrediction,
    ImageTruth,
)

Pixels = npt.NDArray[np.uint8]
MOST_BOXES = 8
"""Largest number of boxes that are drawn, because more would hide the lungs."""
_MOST_BESIDE = 3
"""Largest number of boxes of each of several systems on one image."""
_WHITE = (255, 255, 255)
_READER = (240, 228, 66)
_DEEPEST = 0.45
"""Opacity of the highest value of an activation map."""
_HIGH, _BROAD = 0.5, 1 / 3


def draw_panel(
    pixels: Pixels,
    side: int,
    truth: ImageTruth | None = None,
    *predictions: ImagePrediction,
) -> Pixels:
    """Resize a grey image to a longer side of `side` px, and draw over it in RGB.

    True lesions are white corners. A box of a system is solid if its centre lies on a true lesion,
    or no lesion is known, and dashed if not. The activation map and the scores of boxes are drawn
    for a single system only.
    """
    canvas, scale = _canvas(pixels, side)
    for prediction in predictions[:1] if len(predictions) == 1 else ():
        if prediction.heat is not None:
            canvas = _draw_map(canvas, prediction, prediction.heat, scale)
    lesions = NO_BOXES if truth is None or truth.boxes is None else truth.boxes
    for boxes in {} if truth is None or predictions else truth.readers.values():
        for box in boxes * scale:
            _polyline(canvas, _corners(box), _READER)
    for box in lesions * scale:
        _brackets(canvas, box)
    is_known = truth is not None and truth.boxes is not None
    for prediction in predictions:
        known = lesions if is_known else None
        _draw_prediction(canvas, prediction, known, scale, alone=len(predictions) == 1)
    return np.asarray(canvas, dtype=np.uint8)


def draw_boxes(pixels: Pixels, side: int, boxes: Iterable[tuple[str, Boxes]]) -> Pixels:
    """Resize a grey image to a longer side of `side` px, and draw boxes in a colour each.

    Edges of boxes are shares of the sides of the image.
    """
    canvas, _ = _canvas(pixels, side)
    for colour, box in boxes:
        x1, y1, x2, y2 = np.rint(box * np.tile(canvas.shape[1::-1], 2)).astype(int).tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), getrgb(colour), 2)
    return canvas


def _canvas(pixels: Pixels, side: int) -> tuple[Pixels, float]:
    """Resize a grey image to a longer side of `side` px, in RGB, and return the scale, too."""
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected grey uint8 (H, W), but got {pixels.dtype} {pixels.shape}")
    scale = side / max(pixels.shape)
    size = tuple(max(1, round(length * scale)) for length in pixels.shape[::-1])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, size, interpolation=method)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB), np.uint8), scale


def _draw_prediction(
    canvas: Pixels,
    prediction: ImagePrediction,
    lesions: Boxes | None,
    scale: float,
    *,
    alone: bool,
) -> None:
    most = MOST_BOXES if alone else _MOST_BESIDE
    colour = getrgb(prediction.colour)
    ordered = prediction.boxes[np.argsort(-prediction.boxes[:, 4], kind="stable")]
    for box in ordered[ordered[:, 4] >= prediction.box_cut][:most][::-1]:
        centre = (box[:2] + box[2:4]) / 2
        is_dashed = lesions is not None and not on_lesion(centre, lesions)
        corners = _corners(box * scale)
        _polyline(canvas, corners, colour, dashed=is_dashed)
        if alone:
            _write(canvas, f"{box[4]:.2f}", corners[0], colour)
    if prediction.point is not None and prediction.decision is not False:
        centre, arm = np.array(prediction.point) * scale, max(canvas.shape) / 48
        for across in (np.array([arm, 0.0]), np.array([0.0, arm])):
            _polyline(canvas, np.array([centre - across, centre + across]), colour)


def on_lesion(point: Boxes, lesions: Boxes) -> bool:
    """Return True if a point lies inside or on the border of a true box."""
    return bool(((lesions[:, :2] <= point) & (point <= lesions[:, 2:4])).all(axis=1).any())


def _draw_map(canvas: Pixels, prediction: ImagePrediction, heat: Boxes, scale: float) -> Pixels:
    """Blend the colour of a system into the image, the more the higher its map is.

    A map that is high in more than a third of its cells points at nothing: of it the cell of the
    peak is outlined.
    """
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = np.array(prediction.frame) * scale
    rows, columns = heat.shape
    # From cells of the map to pixels of the panel; beyond the outermost centres it is constant.
    step = np.array([(x2 - x1) / columns, (y2 - y1) / rows])
    if (heat >= _HIGH).mean() > _BROAD:
        row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        corner = np.array([x1 + column * step[0], y1 + row * step[1]])
        _polyline(
            canvas, _corners(np.concatenate([corner, corner + step])), getrgb(prediction.colour)
        )
        return canvas
    matrix = np.array([[step[0], 0, x1 + step[0] / 2], [0, step[1], y1 + step[1] / 2]])
    warped = cv2.warpAffine(heat, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    share = _DEEPEST * np.asarray(warped, np.float64)[:, :, None]
    return np.rint(canvas * (1 - share) + np.array(getrgb(prediction.colour)) * share).astype("u1")


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
    canvas: Pixels, points: Boxes, colour: tuple[int, ...], *, dashed: bool = False
) -> None:
    """Draw a line with a dark rim."""
    width = max(1, round(max(canvas.shape) / 250))
    pieces = [points]
    if dashed:
        pieces = [
            np.linspace(start, end, 2 * max(2, int(np.hypot(*(end - start)) // (8 * width))))
            for start, end in pairwise(points)
        ]
        pieces = [piece[at : at + 2] for piece in pieces for at in range(0, len(piece), 2)]
    lines = [np.rint(piece * 16).astype(np.int32) for piece in pieces]
    for shade, wide in (((0, 0, 0), width + 2), (colour, width)):
        cv2.polylines(canvas, lines, False, shade, wide, cv2.LINE_AA, 4)


def _write(canvas: Pixels, text: str, corner: Boxes, colour: tuple[int, ...]) -> None:
    """Write a number above a corner, or inside the image where there is no space above."""
    size = max(canvas.shape) / 750
    place = int(max(corner[0], 0)), int(max(corner[1] - 8 * size, 24 * size))
    for shade, wide in (((0, 0, 0), 5), (colour, 2)):
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, shade, wide, cv2.LINE_AA)
