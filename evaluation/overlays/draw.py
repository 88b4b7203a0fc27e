"""Shapes as pixels over an image: the one renderer of lesions, boxes, maps and points.

Pillow and OpenCV draw the overlays. To import matplotlib takes as long as to compute an answer, so
matplotlib only provides the file of the font, and a figure where one is requested.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageColor import getrgb

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.evaluation.overlays.legend import KEY_GROUND, KEY_SIZE, Mark
from cxr_compare.evaluation.overlays.shapes import (
    LETTER_SHARE,
    Label,
    Points,
    Shape,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Pixels = npt.NDArray[np.uint8]
"""Grey pixels, shape ``(H, W)``, or RGB, shape ``(H, W, 3)``."""
_SHIFT = 4  # cv2 takes fixed-point coordinates in units of 1/16 px
_DASH_LENGTH = 9.0  # px at a panel of 512 px
_GAP_LENGTH = 7.0
_REFERENCE = 512.0  # panel px for which widths of lines are given
_SMALLEST_SHOWN = 200  # px at which a page shows a panel; a line has at least 1 px there
_RIM_OPACITY = 0.6
_DPI = 100  # resolution of a matplotlib figure
# To search for the best filter of each line takes as long as everything else, and the files are no
# smaller. OpenCV before 4.12 has no such option, and searches.
_PNG_FILTER = (
    (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
    if hasattr(cv2, "IMWRITE_PNG_FILTER")
    else ()
)


def draw_panel(pixels: Pixels, shapes: Sequence[Shape | Label], panel: int) -> Pixels:
    """Resize a grey image so that its longer side has ``panel`` px, and draw over it.

    The result is RGB; both are uint8. Shapes have coordinates in px of the original image; later
    ones are drawn over earlier ones.
    """
    height, width = pixels.shape
    scale = panel / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.resize(pixels, size, interpolation=method)
    canvas = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    for shape in shapes:
        if isinstance(shape, Label):
            canvas = _letter(canvas, shape, scale)
            continue
        paths = [np.asarray(path) * scale for path in shape.paths]
        if shape.tint:
            canvas = _tint(canvas, paths, shape)
        if shape.width:
            _stroke(canvas, paths, shape, panel)
    return canvas


def _letter(canvas: Pixels, label: Label, scale: float) -> Pixels:
    """Write a text on the image, with a dark rim."""
    sheet = Image.fromarray(canvas)
    height = max(7, round(label.size * scale))
    font = find_font(round(height * LETTER_SHARE), bold=True)
    x, y = (edge * scale for edge in label.corner)
    middle = (x + label.width * scale / 2, y + height / 2)
    ImageDraw.Draw(sheet).text(
        middle,
        label.text,
        label.colour,
        font=font,
        anchor="mm",
        stroke_width=max(1, height // 9),
        stroke_fill=(0, 0, 0),
    )
    return np.array(sheet)


def _tint(canvas: Pixels, paths: list[Points], shape: Shape) -> Pixels:
    """Blend the colour into the shape's inside; paths are filled together, so holes stay clear."""
    mask = np.zeros(canvas.shape[:2], dtype=np.uint8)
    cv2.fillPoly(mask, [_fixed(path) for path in paths], 255, cv2.LINE_AA, _SHIFT)
    left, top, width, height = cv2.boundingRect(mask)
    window = (slice(top, top + height), slice(left, left + width))
    share = (mask[window].astype(np.float32) / 255 * shape.tint)[:, :, None]
    colour = np.asarray(getrgb(shape.colour), dtype=np.float32)
    canvas[window] = np.rint(canvas[window] * (1 - share) + colour * share)
    return canvas


def _stroke(canvas: Pixels, paths: list[Points], shape: Shape, panel: int) -> None:
    """Draw the lines onto the canvas: first the dark rim, then the colour."""
    unit = panel / _REFERENCE
    width = max(1, round(shape.width * unit), round(panel / _SMALLEST_SHOWN))
    lines = [np.vstack([path, path[:1]]) if shape.closed else path for path in paths]
    if shape.dashed:
        lines = [dash for line in lines for dash in _dashes(line, unit)]
    fixed = [_fixed(line) for line in lines]
    if shape.rim:
        rim = canvas.copy()
        rim_width = width + max(1, round(shape.rim * unit))
        cv2.polylines(rim, fixed, False, (0, 0, 0), rim_width, cv2.LINE_AA, _SHIFT)
        cv2.addWeighted(rim, _RIM_OPACITY, canvas, 1 - _RIM_OPACITY, 0, dst=canvas)
    cv2.polylines(canvas, fixed, False, getrgb(shape.colour), width, cv2.LINE_AA, _SHIFT)


def _dashes(line: Points, unit: float = 1.0) -> list[Points]:
    """Cut a polyline into dashes of 9 px with gaps of 7 px (times ``unit``)."""
    on = _DASH_LENGTH * unit
    off = _GAP_LENGTH * unit
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
    """Convert coordinates to cv2's fixed-point numbers, in which integers are centres of pixels."""
    return np.rint((path - 0.5) * (1 << _SHIFT)).astype(np.int32)


def as_figure(images: Sequence[Pixels]) -> Figure:
    """Place RGB images one below the other in a matplotlib figure, without resampling them.

    It is as wide as the widest image; narrower images are padded with white.
    """
    width = max(image.shape[1] for image in images)
    rows = [
        np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255)
        for image in images
    ]
    sheet = np.concatenate(rows)
    from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure

    figure = NotebookFigure(figsize=(width / _DPI, len(sheet) / _DPI), dpi=_DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(sheet, interpolation="none")
    axes.set_axis_off()
    return figure


def to_png(image: Pixels, path: Path) -> None:
    """Write an RGB image (uint8) as a PNG file.

    An existing file is replaced only when the new file is complete, so that nobody reads half a
    file.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(_png(image))


def _png(image: Pixels) -> bytes:
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3, *_PNG_FILTER]
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def mark_pixels(mark: Mark, width: int) -> Pixels:
    """Draw the example of a mark on the grey of an X-ray, large at first, so that it is smooth."""
    ground = np.full(KEY_SIZE[::-1], KEY_GROUND, np.uint8)
    drawn = draw_panel(ground, mark.shapes, 8 * KEY_SIZE[0])
    height = round(width * KEY_SIZE[1] / KEY_SIZE[0])
    resized = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def mark_source(mark: Mark) -> str:
    """Return the example of a mark as the ``src`` of an HTML image."""
    return _data_url("png", _png(mark_pixels(mark, 3 * KEY_SIZE[0])))


def encode_jpeg(pixels: Pixels, side: int, quality: int) -> bytes:
    """Encode an RGB image as JPEG, made smaller where necessary; a small image is not enlarged.

    Colours keep their resolution, because lines are thin. `side` is the largest length of the
    longer side in px, and `quality` goes from 0 (smallest file) to 100 (best image).
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "444")
    return bytes(encoded)


def jpeg_source(pixels: Pixels, side: int, quality: int) -> str:
    """Return an RGB image as the ``src`` of an HTML image; see `encode_jpeg`."""
    return _data_url("jpeg", encode_jpeg(pixels, side, quality))


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@cache
def find_font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font DejaVu Sans from matplotlib, so that letters are equal on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    package = find_spec("matplotlib")  # located without an import
    if package is None or package.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed: pip install matplotlib")
    fonts = Path(package.origin).with_name("mpl-data") / "fonts" / "ttf"
    return ImageFont.truetype(fonts / name, size)
