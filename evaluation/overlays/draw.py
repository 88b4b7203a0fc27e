"""Draw shapes on pixels, antialiased, for the PNG overlays."""

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.overlays.shapes import Points, Shape

_SHIFT = 4  # cv2 takes fixed-point coordinates: 1/16 px
_DASH = (9.0, 7.0)  # on, off, at a panel of 512 px
_REFERENCE = 512.0
_RIM = 0.6  # opacity of the dark rim


def fit_panel(pixels: npt.NDArray[np.uint8], panel: int) -> tuple[npt.NDArray[np.uint8], float]:
    """Resize an image so that its longer side has ``panel`` pixels, keeping the aspect.

    Args:
        pixels: Grey image, uint8, shape ``(H, W)``.
        panel: Longer side in pixels.

    Returns:
        The resized image and the scale (panel px per original px).

    Example:
        >>> small, scale = fit_panel(np.zeros((200, 100), np.uint8), 50)
        >>> small.shape, scale
        ((50, 25), 0.25)
    """
    height, width = pixels.shape
    scale = panel / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=method), dtype=np.uint8), scale


def draw_shapes(
    pixels: npt.NDArray[np.uint8], shapes: list[Shape], panel: int
) -> npt.NDArray[np.uint8]:
    """Draw shapes over a grey image.

    Args:
        pixels: Grey image, uint8, shape ``(H, W)``, original size.
        shapes: In original pixels, drawn in this order.
        panel: Longer side of the result in pixels.

    Returns:
        RGB image, uint8, shape ``(h, w, 3)``.

    Example:
        >>> draw_shapes(np.zeros((8, 8), np.uint8), [], 16).shape
        (16, 16, 3)
    """
    grey, scale = fit_panel(pixels, panel)
    canvas = np.repeat(grey[:, :, None], 3, axis=2)
    unit = panel / _REFERENCE
    for shape in shapes:
        paths = [np.asarray(path) * scale for path in shape.paths]
        if shape.tint:
            canvas = _tint(canvas, paths, shape)
        if shape.width:
            _stroke(canvas, paths, shape, unit)
    return canvas


def _tint(
    canvas: npt.NDArray[np.uint8], paths: list[Points], shape: Shape
) -> npt.NDArray[np.uint8]:
    """Blend the shape's colour into its inside (all paths at once: even-odd, holes stay clear)."""
    mask = np.zeros(canvas.shape[:2], dtype=np.uint8)
    cv2.fillPoly(mask, [_fixed(path) for path in paths], 255, cv2.LINE_AA, _SHIFT)
    share = (mask.astype(np.float32) / 255 * shape.tint)[:, :, None]
    blended = canvas * (1 - share) + np.asarray(_rgb(shape.colour), dtype=np.float32) * share
    return np.rint(blended).astype(np.uint8)


def _stroke(canvas: npt.NDArray[np.uint8], paths: list[Points], shape: Shape, unit: float) -> None:
    """Draw the lines in place: first the dark rim, then the colour."""
    width = max(1, round(shape.width * unit))
    lines = [np.vstack([path, path[:1]]) if shape.closed else path for path in paths]
    if shape.dashed:
        lines = [dash for line in lines for dash in dashes(line, unit)]
    fixed = [_fixed(line) for line in lines]
    if shape.rim:
        rim = canvas.copy()
        cv2.polylines(
            rim,
            fixed,
            False,
            (0, 0, 0),
            width + max(1, round(shape.rim * unit)),
            cv2.LINE_AA,
            _SHIFT,
        )
        cv2.addWeighted(rim, _RIM, canvas, 1 - _RIM, 0, dst=canvas)
    cv2.polylines(canvas, fixed, False, _rgb(shape.colour), width, cv2.LINE_AA, _SHIFT)


def dashes(line: Points, unit: float = 1.0) -> list[Points]:
    """Cut a polyline into dashes of 9 px with gaps of 7 px (times ``unit``).

    Example:
        >>> [dash.tolist() for dash in dashes(np.array([[0.0, 0.0], [20.0, 0.0]]))]
        [[[0.0, 0.0], [9.0, 0.0]], [[16.0, 0.0], [20.0, 0.0]]]
    """
    on, off = (length * unit for length in _DASH)
    steps = np.hypot(*np.diff(line, axis=0).T)
    distance = np.concatenate([[0.0], np.cumsum(steps)])
    pieces = []
    for start in np.arange(0.0, distance[-1], on + off):
        end = min(start + on, distance[-1])
        inner = distance[(distance > start) & (distance < end)]
        stops = np.concatenate([[start], inner, [end]])
        pieces.append(
            np.column_stack([np.interp(stops, distance, line[:, axis]) for axis in (0, 1)])
        )
    return pieces


def _fixed(path: Points) -> npt.NDArray[np.int32]:
    """Turn continuous coordinates into cv2's fixed point; its pixel centres lie at integers."""
    return np.rint((path - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _rgb(colour: str) -> tuple[int, int, int]:
    """``#RRGGBB`` as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
