"""Draw overlays: shapes on the pixels of a PNG panel figure, or as SVG for the report.

Pillow and OpenCV draw. matplotlib, which takes as long to import as an image takes to answer, gives
the font's file, and a figure where one is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageColor import getrgb

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.legend import KEY_SIZE, KeyEntry, legend
from cxr_compare.evaluation.overlays.outcomes import describe_score, describe_truth, outcome
from cxr_compare.evaluation.overlays.prediction_shapes import NO_CONTOUR, prediction_shapes
from cxr_compare.evaluation.overlays.shapes import LETTER_SHARE, TRUTH_COLOUR, Label, Points, Shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SHIFT = 4  # cv2 takes fixed-point coordinates: 1/16 px


_DASH = (9.0, 7.0)  # on, off, at a panel of 512 px


_REFERENCE = 512.0


_RIM = 0.6  # opacity of the dark rim


_DPI = 100  # of a figure of matplotlib


def fit_panel(pixels: npt.NDArray[np.uint8], panel: int) -> tuple[npt.NDArray[np.uint8], float]:
    """Resize a grey image so that its longer side has ``panel`` pixels, keeping the aspect.

    Gives the scale, too (panel px per original px).
    """
    height, width = pixels.shape
    scale = panel / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=method), dtype=np.uint8), scale


def draw_panel(
    pixels: npt.NDArray[np.uint8], shapes: Sequence[Shape | Label], panel: int
) -> npt.NDArray[np.uint8]:
    """Draw shapes, given in original pixels, over a grey image; ``panel`` is its longer side."""
    grey, scale = fit_panel(pixels, panel)
    canvas = np.repeat(grey[:, :, None], 3, axis=2)
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


def _letter(canvas: npt.NDArray[np.uint8], label: Label, scale: float) -> npt.NDArray[np.uint8]:
    """Write a text on the image, with a dark rim."""
    sheet = Image.fromarray(canvas)
    height = max(7, round(label.size * scale))
    font = _font(round(height * LETTER_SHARE), bold=True)
    x, y = (edge * scale for edge in label.corner)
    middle = (x + label.width * scale / 2, y + height / 2)
    ImageDraw.Draw(sheet).text(
        middle, label.text, label.colour, font=font, anchor="mm",
        stroke_width=max(1, height // 9), stroke_fill=(0, 0, 0),
    )  # fmt: skip
    return np.array(sheet)


def _tint(
    canvas: npt.NDArray[np.uint8], paths: list[Points], shape: Shape
) -> npt.NDArray[np.uint8]:
    """Blend the shape's colour into its inside (all paths at once: even-odd, holes stay clear)."""
    mask = np.zeros(canvas.shape[:2], dtype=np.uint8)
    cv2.fillPoly(mask, [_fixed(path) for path in paths], 255, cv2.LINE_AA, _SHIFT)
    share = (mask.astype(np.float32) / 255 * shape.tint)[:, :, None]
    blended = canvas * (1 - share) + np.asarray(getrgb(shape.colour), dtype=np.float32) * share
    return np.rint(blended).astype(np.uint8)


def _stroke(canvas: npt.NDArray[np.uint8], paths: list[Points], shape: Shape, unit: float) -> None:
    """Draw the lines in place: first the dark rim, then the colour."""
    width = max(1, round(shape.width * unit))
    lines = [np.vstack([path, path[:1]]) if shape.closed else path for path in paths]
    if shape.dashed:
        lines = [dash for line in lines for dash in _dashes(line, unit)]
    fixed = [_fixed(line) for line in lines]
    if shape.rim:
        rim, around = canvas.copy(), width + max(1, round(shape.rim * unit))
        cv2.polylines(rim, fixed, False, (0, 0, 0), around, cv2.LINE_AA, _SHIFT)
        cv2.addWeighted(rim, _RIM, canvas, 1 - _RIM, 0, dst=canvas)
    cv2.polylines(canvas, fixed, False, getrgb(shape.colour), width, cv2.LINE_AA, _SHIFT)


def _dashes(line: Points, unit: float = 1.0) -> list[Points]:
    """Cut a polyline into dashes of 9 px with gaps of 7 px (times ``unit``)."""
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


_PAPER, _INK, _QUIET = (255, 255, 255), (24, 28, 34), (95, 103, 115)


_WARNING = (178, 24, 24)


_SIGNS = {"right": "✓", "wrong": "✗", "open": "–"}


def draw_overlay(
    pixels: npt.NDArray[np.uint8],
    truth: ImageTruth,
    predictions: list[ImagePrediction],
    *,
    finding: str,
    title: str,
    facts: str = "",
    panel: int = 480,
    faint: bool = False,
) -> npt.NDArray[np.uint8]:
    """Draw the plain image, the truth and each system side by side, as RGB.

    `pixels` are grey, uint8, in the original size; `finding` is the target's display name. `title`
    and `facts` stand below the plain image. `panel` is the longer side of each panel in pixels.
    `faint`: boxes below the threshold are drawn, too, thin and grey.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected grey uint8 (H, W), but got {pixels.dtype} {pixels.shape}")
    size = pixels.shape[1], pixels.shape[0]
    shown = [prediction_shapes(one, truth, size, faint=faint) for one in predictions]
    of_panels: list[Sequence[Shape | Label]] = [[], truth.shapes(size, 1 / 20), *shown]
    panels = [draw_panel(pixels, of_panel, panel) for of_panel in of_panels]
    captions = [
        ("Image", None, title, facts),
        (truth.title, TRUTH_COLOUR, describe_truth(truth, finding), ""),
        *(_caption(one, truth, of_one) for one, of_one in zip(predictions, shown, strict=True)),
    ]
    return _panel_figure(panels, captions)


def draw_predictions(
    pixels: npt.NDArray[np.uint8],
    predictions: Sequence[ImagePrediction],
    *,
    findings: Sequence[str],
    title: str,
    warnings: Sequence[str] = (),
    note: str = "",
    panel: int = 480,
) -> npt.NDArray[np.uint8]:
    """Draw the plain image and each system side by side, as RGB, with a legend; no truth is known.

    `pixels` are grey, uint8, in the original size; `findings` are the display names of what each
    system is asked for. `title` stands below the plain image, `warnings` speak against the answers,
    `note` stands under the legend. `panel` is the longer side of each panel in pixels.
    """
    size = pixels.shape[1], pixels.shape[0]
    shapes: list[list[Shape | Label]] = [[]]
    shapes += [prediction_shapes(one, None, size, faint=False) for one in predictions]
    drawn = [draw_panel(pixels, of_panel, panel) for of_panel in shapes]
    panels = [_at_least_wide(image, panel * 2 // 3) for image in drawn]
    facts = f"{size[0]} x {size[1]} px"
    captions = [("Image", None, title, facts), *map(_answer, predictions, findings)]
    figure = _panel_figure(panels, captions)
    text = max(9, min(round(panels[0].shape[1] / 30), 26))
    entries = legend(predictions, shapes[1:])
    strip = _legend_strip(entries, warnings, note, figure.shape[1], text)
    return np.vstack([figure, strip])


def _at_least_wide(image: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Set a narrow image on black, so that there is room for the words below it."""
    lacking = max(0, width - image.shape[1])
    return np.pad(image, ((0, 0), (lacking // 2, lacking - lacking // 2), (0, 0)))


def _answer(prediction: ImagePrediction, finding: str) -> tuple[str, str, str, str]:
    """The caption of a system's panel: what it says of the finding, and by which score."""
    sure = "" if prediction.probability is None else f", probability {prediction.probability:.2f}"
    words = f"{finding}: {prediction.called}{sure}"
    return prediction.system, prediction.colour, words, describe_score(prediction)


def _legend_strip(
    entries: Sequence[KeyEntry], warnings: Sequence[str], note: str, width: int, size: int
) -> npt.NDArray[np.uint8]:
    """Warnings, the legend and a note, on lines as wide as the figure."""
    bold, plain = _font(size, bold=True), _font(size)
    edge, line = max(6, size // 2), round(size * 1.7)
    room = width - 2 * edge
    lines: list[list[tuple[KeyEntry, int]]] = [[]] if entries else []
    swatch, across = round(line * 1.1), 0
    for entry in entries:
        wide = min(room, swatch + size + round(plain.getlength(entry.text)) + size)
        if lines[-1] and across + wide > room:
            lines, across = [*lines, []], 0
        lines[-1].append((entry, across))
        across += wide
    warned = [row for text in warnings for row in _wrap(f"Warning: {text}", bold, room)]
    noted = _wrap(note, plain, room)
    height = line * (len(warned) + len(lines) + len(noted)) + edge
    canvas = Image.new("RGB", (width, height), _PAPER)
    pen, top = ImageDraw.Draw(canvas), 0
    for row in warned:
        pen.text((edge, top), row, _WARNING, font=bold)
        top += line
    for entries_of_line in lines:
        for entry, left in entries_of_line:
            canvas.paste(_swatch(entry, swatch), (edge + left, top))
            corner = (edge + left + swatch + size // 2, top)
            words = _fit(entry.text, plain, room - left - swatch - size // 2)
            pen.text(corner, words, _INK, font=plain)
        top += line
    for row in noted:
        pen.text((edge, top), row, _QUIET, font=plain)
        top += line
    return np.asarray(canvas)


def _swatch(entry: KeyEntry, width: int) -> Image.Image:
    """An entry's shapes on the grey of an X-ray."""
    ground = np.full((KEY_SIZE[1], KEY_SIZE[0]), 60, np.uint8)
    return Image.fromarray(draw_panel(ground, entry.shapes, width))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text into lines that fit; a word that is too long is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_fit(word, font, width))
    return lines


def as_figure(images: Sequence[npt.NDArray[np.uint8]]) -> Figure:
    """Drawn RGB images one below the other as a figure of matplotlib, pixel for pixel."""
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


def to_png(image: npt.NDArray[np.uint8], path: Path) -> None:
    """Write an RGB image as PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=3)


def encode_webp(pixels: npt.NDArray[np.uint8], side: int, *, quality: int, method: int) -> bytes:
    """A grey image as WebP, its longer side at most `side` pixels; never enlarged."""
    small, _ = fit_panel(pixels, min(side, max(pixels.shape)))
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format="WEBP", quality=quality, method=method)
    return buffer.getvalue()


def _caption(
    prediction: ImagePrediction, truth: ImageTruth, shapes: Sequence[Shape | Label]
) -> tuple[str, str, str, str]:
    sign, words = outcome(prediction, truth)
    score = describe_score(prediction)
    if prediction.grid is not None and prediction.contours:
        drawn = any(shape.layer == "map" for shape in shapes)
        score += f"; contours {prediction.contour_percentages}" if drawn else f"; {NO_CONTOUR}"
    return prediction.system, prediction.colour, f"{_SIGNS[sign]} {words}", score


def _panel_figure(
    panels: list[npt.NDArray[np.uint8]], captions: list[tuple[str, str | None, str, str]]
) -> npt.NDArray[np.uint8]:
    """Lay the panels in a row with three lines of text below each."""
    height, width = panels[0].shape[:2]
    gap = max(6, width // 80)
    size = max(9, min(round(width / 26), 30))
    total = len(panels) * (width + gap) + gap
    canvas = Image.new("RGB", (total, height + gap + round(size * 4.9)), _PAPER)
    pen = ImageDraw.Draw(canvas)
    for position, (image, caption) in enumerate(zip(panels, captions, strict=True)):
        left = gap + position * (width + gap)
        canvas.paste(Image.fromarray(image), (left, gap))
        _write(pen, caption, (left, gap + height), size, width)
    return np.asarray(canvas)


def _write(
    pen: ImageDraw.ImageDraw,
    caption: tuple[str, str | None, str, str],
    corner: tuple[int, int],
    size: int,
    width: int,
) -> None:
    name, colour, *lines = caption
    left, top = corner
    indent = 0
    if colour is not None:
        square = (left, top + size * 0.62, left + size * 0.7, top + size * 1.32)
        pen.rectangle(square, fill=colour, outline=_QUIET)
        indent = size
    bold, plain = _font(size, bold=True), _font(size)
    pen.text((left + indent, top + size * 0.4), _fit(name, bold, width - indent), _INK, font=bold)
    for row, line in enumerate(lines):
        start = (left, top + size * (1.85 + 1.35 * row))
        pen.text(start, _fit(line, plain, width), _INK if row == 0 else _QUIET, font=plain)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a text that is wider than its panel, with an ellipsis in the middle."""
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(text[: keep // 2] + "…" + text[-(keep // 2) :]) > width:
        keep -= 1
    return text[: keep // 2] + "…" + text[-(keep // 2) :]


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    package = find_spec("matplotlib")  # found, not imported
    if package is None or package.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed: pip install matplotlib")
    fonts = Path(package.origin).with_name("mpl-data") / "fonts" / "ttf"
    return ImageFont.truetype(fonts / name, size)
