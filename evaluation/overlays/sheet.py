"""Drawings of one image: its panels side by side, with captions and a legend.

`draw_case` and `draw_predictions` draw the panels once. Overlay files, notebooks and DICOM objects
show them as one sheet, and the page of a report shows the same panels with captions of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cxr_compare.evaluation.overlays.draw import (
    Pixels,
    draw_panel,
    find_font,
    mark_pixels,
)
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.legend import MARKS, DrawnMark, Mark, drawn_marks, legend
from cxr_compare.evaluation.overlays.outcomes import describe_score, describe_truth, outcome
from cxr_compare.evaluation.overlays.prediction_shapes import NO_CONTOUR, prediction_shapes
from cxr_compare.evaluation.overlays.shapes import Label, Shape

SHEET_WIDTH = 2000
"""Largest width of a sheet in px, where the size of its panels is not given."""
_COLUMNS = 4  # most panels in a row
_LEAST_PANEL = 480  # px; smaller images are enlarged
_PAPER = (255, 255, 255)
_INK = (24, 28, 34)
_QUIET = (95, 103, 115)
_WARNING = (178, 24, 24)
_SIGNS = {"right": "✓", "wrong": "✗", "open": "–"}


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
        second_line: Third line, in grey; may be empty.
        is_truth: True for the image with the true lesions; white corners, as drawn around these
            lesions, then stand before the name instead of a square.
        sign: ``right``, ``wrong`` or ``open``, which stands before the second line as a sign; empty
            for no sign.
    """

    name: str
    colour: str | None
    line: str
    second_line: str
    is_truth: bool = False
    sign: str = ""


@dataclass(frozen=True)
class Drawing:
    """Panels of one image with what is drawn on them, and the texts that belong to them.

    Attributes:
        panels: RGB pixels of each panel, uint8, shape ``(H, W, 3)``, all of one size.
        marks: What is drawn on the panels, for the legend.
        warnings: Reasons why the predictions may be wrong, shown above the legend.
        note: Text below the legend; may be empty.
    """

    panels: Sequence[Pixels]
    captions: Sequence[Caption]
    marks: Sequence[DrawnMark]
    warnings: Sequence[str] = ()
    note: str = ""

    def sheet(self) -> Pixels:
        """Return all panels, at most four in a row, with their captions and a legend, in RGB."""
        columns = _columns(len(self.panels))
        height, width = self.panels[0].shape[:2]
        gap = _gap(width)
        size = max(9, min(round(width / 26), 30))
        small = max(9, min(round(width / 30), 26))
        total = columns * (width + gap) + gap
        texts = [_caption_lines(caption, width, size) for caption in self.captions]
        entries = legend(self.marks, cells=True)
        below = _legend_lines(entries, self.warnings, self.note, total - 2 * gap, small)
        tops = []
        end = gap
        for first in range(0, len(texts), columns):
            tops.append(end)
            lines = max(map(len, texts[first : first + columns]))
            end += height + gap + lines * _line_height(size) + gap
        foot = end
        if below:
            end += len(below) * _line_height(small) + gap
        canvas = Image.new("RGB", (total, end), _PAPER)
        for position, (panel, lines_below) in enumerate(zip(self.panels, texts, strict=True)):
            left = gap + position % columns * (width + gap)
            top = tops[position // columns]
            canvas.paste(Image.fromarray(panel), (left, top))
            _write_lines(canvas, lines_below, (left, top + height + gap), size)
        _write_lines(canvas, below, (gap, foot), small)
        return np.asarray(canvas)


def _columns(panels: int) -> int:
    """Return how many panels stand in a row, so that the rows are about equally full."""
    return math.ceil(panels / math.ceil(panels / _COLUMNS))


def _gap(width: int) -> int:
    return max(6, width // 80)


def _panel_side(size: tuple[int, int], panels: int) -> int:
    """Return the longer side of each panel in px, for a sheet of at most `SHEET_WIDTH` px.

    A panel has no more px than the image, but at least 480, or what fits beside the others.
    """
    columns = _columns(panels)
    fitting = SHEET_WIDTH // columns
    fitting = (SHEET_WIDTH - _gap(fitting) * (columns + 1)) // columns
    longer = max(size)
    across = max(size[0] / longer, 2 / 3)  # a narrow image is padded
    return min(max(longer, _LEAST_PANEL), int(fitting / across))


def draw_case(
    pixels: Pixels,
    truth: ImageTruth,
    predictions: Sequence[ImagePrediction],
    *,
    finding: str,
    title: str,
    facts: str = "",
    panel: int | None = None,
) -> Drawing:
    """Draw the plain image (grey, uint8), the true lesions and the prediction of each system.

    The text below the image of a system says whether it is right, and a legend below explains what
    is drawn. Below the plain image are `title`, such as the image's id, and `facts`. `panel` is the
    longer side of each image in px; None takes what the image has and a sheet of 2,000 px holds.
    ValueError if the pixels are not grey uint8.

    Example:
        >>> pixels = np.zeros((64, 64), np.uint8)
        >>> answer = ImagePrediction("A", "#E06C00", score=0.9, threshold=0.5, decision=True)
        >>> drawn = draw_case(pixels, ImageTruth(1.0), [answer], finding="Opacity", title="x")
        >>> len(drawn.panels), drawn.captions[2].line
        (3, 'found')
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected grey uint8 (H, W), but got {pixels.dtype} {pixels.shape}")
    size = (pixels.shape[1], pixels.shape[0])
    by_system = [prediction_shapes(answer, truth, size) for answer in predictions]
    of_truth = truth.shapes(size)
    captions = [
        Caption("Image", None, title, facts),
        Caption(truth.title, None, describe_truth(truth, finding), "", is_truth=True),
        *(
            _caption_with_outcome(answer, truth, shapes)
            for answer, shapes in zip(predictions, by_system, strict=True)
        ),
    ]
    return Drawing(
        _draw_panels(pixels, [[], of_truth, *by_system], panel),
        captions,
        drawn_marks(predictions, by_system, of_truth, located=truth.boxes is not None),
    )


def draw_predictions(
    pixels: Pixels,
    predictions: Sequence[ImagePrediction],
    *,
    findings: Sequence[str],
    title: str,
    warnings: Sequence[str] = (),
    note: str = "",
    panel: int | None = None,
) -> Drawing:
    """Draw the plain image and the prediction of each system, for unlabelled images.

    `findings` has the finding of each prediction, and `title`, such as the file's name, is below
    the plain image. Below the images follow the `warnings` (reasons why the predictions may be
    wrong), a legend of the shapes and the `note`. `panel` is that of `draw_case`.
    """
    size = (pixels.shape[1], pixels.shape[0])
    by_system = [prediction_shapes(answer, None, size) for answer in predictions]
    facts = f"{size[0]} x {size[1]} px"
    captions = [Caption("Image", None, title, facts), *map(_answer_caption, predictions, findings)]
    panels = _draw_panels(pixels, [[], *by_system], panel)
    return Drawing(panels, captions, drawn_marks(predictions, by_system), warnings, note)


def _draw_panels(
    pixels: Pixels, by_panel: Sequence[Sequence[Shape | Label]], panel: int | None
) -> list[Pixels]:
    """Draw the shapes of each panel; a narrow image is padded with black, for the text below it."""
    side = panel or _panel_side((pixels.shape[1], pixels.shape[0]), len(by_panel))
    panels = [draw_panel(pixels, shapes, side) for shapes in by_panel]
    lacking = max(0, side * 2 // 3 - panels[0].shape[1])
    padding = ((0, 0), (lacking // 2, lacking - lacking // 2), (0, 0))
    return [np.pad(drawn, padding) for drawn in panels]


def _answer_caption(prediction: ImagePrediction, finding: str) -> Caption:
    """Return the caption of a system's panel, with its decision on the finding and its score."""
    decision = f"{finding}: {prediction.called}"
    if prediction.probability is not None:
        decision += f", probability {prediction.probability:.2f}"
    return Caption(prediction.system, prediction.colour, decision, describe_score(prediction))


def _caption_with_outcome(
    prediction: ImagePrediction, truth: ImageTruth, shapes: Sequence[Shape | Label]
) -> Caption:
    sign, text = outcome(prediction, truth)
    score = describe_score(prediction)
    if prediction.grid is not None and prediction.contours:
        is_drawn = any(shape.layer == "map" for shape in shapes)
        score += "" if is_drawn else f"; {NO_CONTOUR}"
    return Caption(prediction.system, prediction.colour, text, score, sign=sign)


def _legend_lines(
    entries: Sequence[Mark], warnings: Sequence[str], note: str, width: int, size: int
) -> list[list[_Text]]:
    """Return warnings, the legend and a note in lines that are as wide as the figure."""
    plain = find_font(size)
    bold = find_font(size, bold=True)
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
    line = f"{_SIGNS[caption.sign]} {caption.line}" if caption.sign else caption.line
    indent = _indent(size, mark, square)
    first, *rest = _wrap(caption.name, find_font(size, bold=True), width - indent) or [""]
    return [
        [_Text(first, _INK, bold=True, mark=mark, square=square)],
        *([_Text(row, _INK, indent, bold=True)] for row in rest),
        *([_Text(row, _INK)] for row in _wrap(line, find_font(size), width)),
        *([_Text(row, _QUIET)] for row in _wrap(caption.second_line, find_font(size), width)),
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
                sample = mark_pixels(piece.mark, _sample_width(size))
                canvas.paste(Image.fromarray(sample), (left, top))
            start = left + _indent(size, piece.mark, piece.square)
            pen.text((start, top), piece.text, piece.colour, font=find_font(size, bold=piece.bold))


def _line_height(size: int) -> int:
    return round(size * 1.5)


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
