"""Overlays as pixels: panels with shapes, side by side, with captions and a legend.

Pillow and OpenCV draw the overlays. To import matplotlib takes as long as to compute an answer, so
matplotlib only provides the file of the font, and a figure where one is requested.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageColor import getrgb

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.legend import (
    KEY_GROUND,
    KEY_SIZE,
    MARKS,
    Mark,
    drawn_marks,
    legend,
)
from cxr_compare.evaluation.overlays.outcomes import describe_score, describe_truth, outcome
from cxr_compare.evaluation.overlays.prediction_shapes import NO_CONTOUR, prediction_shapes
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
_RIM_OPACITY = 0.6
_DPI = 100  # resolution of a matplotlib figure
_PAPER = (255, 255, 255)
_INK = (24, 28, 34)
_QUIET = (95, 103, 115)
_WARNING = (178, 24, 24)
_SIGNS = {"right": "✓", "wrong": "✗", "open": "–"}
# To search for the best filter of each line takes as long as everything else, and the files are no
# smaller. OpenCV before 4.12 has no such option, and searches.
_PNG_FILTER = (
    (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
    if hasattr(cv2, "IMWRITE_PNG_FILTER")
    else ()
)


class Panel(NamedTuple):
    """A resized grey image and its scale.

    Attributes:
        pixels: Grey pixels after resizing, shape ``(H, W)``, uint8.
        scale: Number of px of the resized image for each px of the original image, such as 0.2.
    """

    pixels: Pixels
    scale: float


class _Text(NamedTuple):
    """A piece of a line below the images, and the mark that is drawn before it."""

    text: str
    colour: tuple[int, int, int]
    left: int = 0  # px
    bold: bool = False
    mark: Mark | None = None
    square: str | None = None  # colour


class Caption(NamedTuple):
    """Text below one of the images of a figure: a name in bold, and two further lines.

    Attributes:
        name: First line, in bold, such as the name of a detector.
        colour: Colour of the square before the name, ``#RRGGBB``; None for no square.
        line: Second line.
        second_line: Third line, in grey; may be empty.
        is_truth: True for the image with the true lesions; white corners, as drawn around these
            lesions, then stand before the name instead of a square.
    """

    name: str
    colour: str | None
    line: str
    second_line: str
    is_truth: bool = False


def fit_panel(pixels: Pixels, panel: int) -> Panel:
    """Resize a grey image so that its longer side has ``panel`` px; its aspect stays the same.

    Args:
        pixels: Grey pixels of the original image, shape ``(H, W)``, uint8.
        panel: Longer side of the result in px.

    Returns:
        The resized pixels and the number of result px for each original px.

    Example:
        >>> fitted = fit_panel(np.zeros((100, 50), np.uint8), 20)
        >>> fitted.pixels.shape, fitted.scale
        ((20, 10), 0.2)
    """
    height, width = pixels.shape
    scale = panel / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, size, interpolation=method)
    return Panel(np.asarray(resized, dtype=np.uint8), scale)


def draw_panel(pixels: Pixels, shapes: Sequence[Shape | Label], panel: int) -> Pixels:
    """Resize a grey image and draw lines and short texts over it.

    Args:
        pixels: Grey pixels of the original image, shape ``(H, W)``, uint8.
        shapes: Lines and texts with coordinates in px of the original image; later ones are drawn
            over earlier ones.
        panel: Longer side of the result in px.

    Returns:
        RGB pixels, shape ``(height, width, 3)``, uint8.

    Example:
        >>> draw_panel(np.zeros((100, 50), np.uint8), [], 20).shape
        (20, 10, 3)
    """
    return _draw_shapes(fit_panel(pixels, panel), shapes, panel)


def _draw_shapes(fitted: Panel, shapes: Sequence[Shape | Label], panel: int) -> Pixels:
    """Draw lines and short texts over a grey image that was resized to ``panel`` px."""
    grey, scale = fitted
    canvas = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    unit = panel / _REFERENCE
    for shape in shapes:
        if isinstance(shape, Label):
            canvas = _letter(canvas, shape, scale)
            continue
        paths = [np.asarray(path) * scale for path in shape.paths]
        if shape.tint:
            canvas = _tint(canvas, paths, shape)
        if shape.width:
            _stroke(canvas, paths, shape, unit)
    return canvas


def _letter(canvas: Pixels, label: Label, scale: float) -> Pixels:
    """Write a text on the image, with a dark rim."""
    sheet = Image.fromarray(canvas)
    height = max(7, round(label.size * scale))
    font = _font(round(height * LETTER_SHARE), bold=True)
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


def _stroke(canvas: Pixels, paths: list[Points], shape: Shape, unit: float) -> None:
    """Draw the lines onto the canvas: first the dark rim, then the colour."""
    width = max(1, round(shape.width * unit))
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


def draw_overlay(
    pixels: Pixels,
    truth: ImageTruth,
    predictions: list[ImagePrediction],
    *,
    finding: str,
    title: str,
    facts: str = "",
    panel: int = 480,
    faint: bool = False,
) -> Pixels:
    """Draw side by side the plain image, the true lesions and the prediction of each system.

    A system is a detector or a classifier. The text below its image says whether it is right, and a
    legend below explains what is drawn.

    Args:
        pixels: Grey pixels of the original image, uint8, shape ``(H, W)``.
        truth: Label and true boxes of the image.
        predictions: What each system predicts for the image; one image is drawn for each.
        finding: Name of the finding as shown to readers, such as ``Lung opacity``.
        title: First line of the text below the plain image, such as the image's id.
        facts: Second line of the text below the plain image; may be empty.
        panel: Longer side of each of the images in px.
        faint: True to draw also boxes that score below ``box_cut`` of the prediction, thin and
            grey.

    Returns:
        RGB pixels, shape ``(height, width, 3)``.

    Raises:
        ValueError: The pixels are not grey uint8.

    Example:
        >>> pixels = np.zeros((64, 64), np.uint8)
        >>> answer = ImagePrediction("A", "#E06C00", score=0.9, threshold=0.5, decision=True)
        >>> figure = draw_overlay(pixels, ImageTruth(1.0), [answer], finding="Opacity", title="x")
        >>> figure.dtype, figure.shape[2]
        (dtype('uint8'), 3)
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected grey uint8 (H, W), but got {pixels.dtype} {pixels.shape}")
    size = (pixels.shape[1], pixels.shape[0])
    by_system = [prediction_shapes(answer, truth, size, faint=faint) for answer in predictions]
    of_truth = truth.shapes(size, 1 / 20)
    panels = _draw_panels(pixels, [[], of_truth, *by_system], panel)
    captions = [
        Caption("Image", None, title, facts),
        Caption(truth.title, None, describe_truth(truth, finding), "", is_truth=True),
        *(
            _caption_with_outcome(answer, truth, shapes)
            for answer, shapes in zip(predictions, by_system, strict=True)
        ),
    ]
    marks = drawn_marks(predictions, by_system, of_truth, located=truth.boxes is not None)
    entries = legend(marks, cells=True)
    return _panel_figure(panels, captions, entries)


def draw_predictions(
    pixels: Pixels,
    predictions: Sequence[ImagePrediction],
    *,
    findings: Sequence[str],
    title: str,
    warnings: Sequence[str] = (),
    note: str = "",
    panel: int = 480,
) -> Pixels:
    """Draw side by side the plain image and the prediction of each system, for unlabelled images.

    A system is a detector or a classifier. Below the images is a legend of the shapes.

    Args:
        pixels: Grey pixels of the original image, uint8, shape ``(H, W)``.
        predictions: What each system predicts for the image; one image is drawn for each.
        findings: Name of the finding that each system predicts, such as ``Lung opacity``, in the
            order of ``predictions``.
        title: Text below the plain image, such as the file's name.
        warnings: Reasons why the predictions may be wrong, one sentence each, shown above the
            legend.
        note: Text below the legend; may be empty.
        panel: Longer side of each of the images in px.

    Returns:
        RGB pixels, shape ``(height, width, 3)``.

    Example:
        >>> answer = ImagePrediction("A", "#E06C00", decision=True)
        >>> figure = draw_predictions(np.zeros((64, 64), np.uint8), [answer],
        ...     findings=["Opacity"], title="x")
        >>> figure.shape[2]
        3
    """
    size = (pixels.shape[1], pixels.shape[0])
    by_system = [prediction_shapes(answer, None, size, faint=False) for answer in predictions]
    panels = _draw_panels(pixels, [[], *by_system], panel)
    facts = f"{size[0]} x {size[1]} px"
    captions = [Caption("Image", None, title, facts), *map(_answer_caption, predictions, findings)]
    entries = legend(drawn_marks(predictions, by_system), cells=True)
    return _panel_figure(panels, captions, entries, warnings, note)


def _draw_panels(
    pixels: Pixels, by_panel: Sequence[Sequence[Shape | Label]], panel: int
) -> list[Pixels]:
    """Draw the shapes of each panel; a narrow image is padded with black, for the text below it."""
    fitted = fit_panel(pixels, panel)
    lacking = max(0, panel * 2 // 3 - fitted.pixels.shape[1])
    padding = ((0, 0), (lacking // 2, lacking - lacking // 2), (0, 0))
    return [np.pad(_draw_shapes(fitted, shapes, panel), padding) for shapes in by_panel]


def _answer_caption(prediction: ImagePrediction, finding: str) -> Caption:
    """Return the caption of a system's panel, with its decision on the finding and its score."""
    decision = f"{finding}: {prediction.called}"
    if prediction.probability is not None:
        decision += f", probability {prediction.probability:.2f}"
    return Caption(prediction.system, prediction.colour, decision, describe_score(prediction))


def _legend_lines(
    entries: Sequence[Mark], warnings: Sequence[str], note: str, width: int, size: int
) -> list[list[_Text]]:
    """Return warnings, the legend and a note in lines that are as wide as the figure."""
    plain = _font(size)
    bold = _font(size, bold=True)
    lines = [
        [_Text(row, _WARNING, bold=True)]
        for text in warnings
        for row in _wrap(f"Warning: {text}", bold, width)
    ]
    across = width
    for entry in entries:
        indent = _indent(size, entry)
        first, *rest = _wrap(entry.text, plain, width - indent)
        wide = indent + round(plain.getlength(first)) + 2 * size
        if across + wide > width:
            across = 0
            lines.append([])
        lines[-1].append(_Text(first, _INK, across, mark=entry))
        lines += [[_Text(row, _INK, indent)] for row in rest]
        across = width if rest else across + wide
    return lines + [[_Text(row, _QUIET)] for row in _wrap(note, plain, width)]


def _caption_lines(caption: Caption, width: int, size: int) -> list[list[_Text]]:
    """Return the text below one image in lines that are as wide as the image."""
    mark = MARKS["truth"] if caption.is_truth else None
    square = caption.colour
    indent = _indent(size, mark, square)
    first, *rest = _wrap(caption.name, _font(size, bold=True), width - indent) or [""]
    return [
        [_Text(first, _INK, bold=True, mark=mark, square=square)],
        *([_Text(row, _INK, indent, bold=True)] for row in rest),
        *([_Text(row, _INK)] for row in _wrap(caption.line, _font(size), width)),
        *([_Text(row, _QUIET)] for row in _wrap(caption.second_line, _font(size), width)),
    ]


def _indent(size: int, mark: Mark | None = None, square: str | None = None) -> int:
    """Return the width that a mark or a square takes before its text, px."""
    if mark is not None and mark.shapes:
        return _sample_width(size) + size // 2
    return 0 if square is None else size


def _sample_width(size: int) -> int:
    return round(size * 1.8)


def _write_lines(
    canvas: Image.Image, lines: Sequence[Sequence[_Text]], corner: tuple[int, int], size: int
) -> None:
    """Write lines of text, with the upper left corner of the first one at `corner`."""
    pen = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        top = corner[1] + row * _line_height(size)
        for piece in line:
            left = corner[0] + piece.left
            if piece.square is not None:
                edges = (left, top + size * 0.25, left + size * 0.7, top + size * 0.95)
                pen.rectangle(edges, fill=piece.square, outline=_QUIET)
            if piece.mark is not None and piece.mark.shapes:
                canvas.paste(_swatch(piece.mark, _sample_width(size)), (left, top))
            start = left + _indent(size, piece.mark, piece.square)
            pen.text((start, top), piece.text, piece.colour, font=_font(size, bold=piece.bold))


def _line_height(size: int) -> int:
    return round(size * 1.5)


def _swatch(mark: Mark, width: int) -> Image.Image:
    """Draw the example of a mark on the grey of an X-ray, large at first, so that it is smooth."""
    large = 8
    ground = np.full((large * KEY_SIZE[1], large * KEY_SIZE[0]), KEY_GROUND, np.uint8)
    panel = Panel(ground, float(large))
    drawn = _draw_shapes(panel, mark.shapes, round(large * _REFERENCE))
    height = round(width * KEY_SIZE[1] / KEY_SIZE[0])
    return Image.fromarray(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text into lines that fit the width; a word that is wider is broken, too."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        rest = word
        while font.getlength(rest) > width and len(rest) > 1:
            fitting = max(
                (end for end in range(1, len(rest)) if font.getlength(rest[:end]) <= width),
                default=1,
            )
            lines.append(rest[:fitting])
            rest = rest[fitting:]
        lines.append(rest)
    return lines


def as_figure(images: Sequence[Pixels]) -> Figure:
    """Place RGB images one below the other in a matplotlib figure, without resampling them.

    Args:
        images: RGB pixels, uint8, shape ``(H, W, 3)`` each; at least one image.

    Returns:
        The figure, as wide as the widest image; narrower images are padded with white.

    Example:
        >>> figure = as_figure([np.zeros((20, 40, 3), np.uint8)])
        >>> figure.get_size_inches().tolist()
        [0.4, 0.2]
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
    """Write an RGB image as a PNG file.

    Args:
        image: RGB pixels, uint8, shape ``(H, W, 3)``.
        path: PNG file to write. An existing file is replaced only when the new file is complete, so
            that nobody reads half a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     to_png(np.zeros((20, 40, 3), np.uint8), Path(folder, "a.png"))
        ...     with Image.open(Path(folder, "a.png")) as image:
        ...         image.size
        (40, 20)
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3, *_PNG_FILTER]
    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def encode_webp(pixels: Pixels, side: int, *, quality: int, method: int) -> bytes:
    """Encode a grey image as WebP, made smaller where necessary; a small image is not enlarged.

    Args:
        pixels: Grey pixels, uint8, shape ``(H, W)``.
        side: Largest allowed length of the longer side of the result in px.
        quality: Quality setting of the WebP encoder, from 0 (smallest file) to 100 (best image).
        method: Speed setting of the WebP encoder, from 0 (fast) to 6 (slow, smaller file).

    Returns:
        Content of the WebP file.

    Example:
        >>> encode_webp(np.zeros((8, 8), np.uint8), 4, quality=80, method=0)[8:12]
        b'WEBP'
    """
    small, _ = fit_panel(pixels, min(side, max(pixels.shape)))
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format="WEBP", quality=quality, method=method)
    return buffer.getvalue()


def _caption_with_outcome(
    prediction: ImagePrediction, truth: ImageTruth, shapes: Sequence[Shape | Label]
) -> Caption:
    sign, text = outcome(prediction, truth)
    score = describe_score(prediction)
    if prediction.grid is not None and prediction.contours:
        is_drawn = any(shape.layer == "map" for shape in shapes)
        score += "" if is_drawn else f"; {NO_CONTOUR}"
    return Caption(prediction.system, prediction.colour, f"{_SIGNS[sign]} {text}", score)


def _panel_figure(
    panels: Sequence[Pixels],
    captions: Sequence[Caption],
    entries: Sequence[Mark],
    warnings: Sequence[str] = (),
    note: str = "",
) -> Pixels:
    """Place the panels in a row, with a caption below each, and the legend below all of them."""
    height, width = panels[0].shape[:2]
    gap = max(6, width // 80)
    size = max(9, min(round(width / 26), 30))
    small = max(9, min(round(width / 30), 26))
    total = len(panels) * (width + gap) + gap
    captioned = [_caption_lines(caption, width, size) for caption in captions]
    below = _legend_lines(entries, warnings, note, total - 2 * gap, small)
    top = 2 * gap + height
    foot = top + max(map(len, captioned)) * _line_height(size) + gap
    end = foot + len(below) * _line_height(small) + (gap if below else 0)
    canvas = Image.new("RGB", (total, end), _PAPER)
    for position, (image, lines) in enumerate(zip(panels, captioned, strict=True)):
        left = gap + position * (width + gap)
        canvas.paste(Image.fromarray(image), (left, gap))
        _write_lines(canvas, lines, (left, top), size)
    _write_lines(canvas, below, (gap, foot), small)
    return np.asarray(canvas)


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font DejaVu Sans from matplotlib, so that letters are equal on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    package = find_spec("matplotlib")  # located without an import
    if package is None or package.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed: pip install matplotlib")
    fonts = Path(package.origin).with_name("mpl-data") / "fonts" / "ttf"
    return ImageFont.truetype(fonts / name, size)
