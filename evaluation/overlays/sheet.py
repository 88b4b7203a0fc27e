"""One X-ray as a sheet: its panels side by side, with captions and a legend below them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cxr_compare.evaluation.overlays.colours import SystemMark
from cxr_compare.evaluation.overlays.draw import (
    MOST_SYSTEMS,
    Pixels,
    draw_panel,
)
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth

SIDE = 480
"""Longer side of each panel in px."""
_COLUMNS = 5  # most panels in a row
_SIZE = 17  # of letters, px
_NARROWEST = 4  # letter, px
_GAP = 8
_BLACK, _INK, _QUIET = "#000000", "#3A424A", "#5F6773"
_MEANINGS = {
    "lesion": "White corners: true lesion.",
    "solid": "Solid box: centred in a true box, or truth unknown.",
    "dashed": "Dashed box: centred outside true boxes.",
    "reader": "Yellow: boxes of single readers.",
    "point": "Cross: highest-scored place (in a true box: on the lesion).",
    "many": f"Boxes and maps of more than {MOST_SYSTEMS} systems are not drawn here.",
    "map": "Tint or thin line: high in the heat map of a classifier, above 90 % of all cells of "
    "its validation images; thick line: above 97 %.",
}
"""Meaning of each mark of `draw_panel`."""
_BOXES = {"solid", "dashed"}


def legend(marks: Collection[str], *, lesions: bool = False) -> str:
    """Return what the marks on panels mean; `lesions` says if any true lesion is known.

    Else boxes need no word.
    """
    drawn_marks = {*marks} - (set() if lesions else _BOXES)
    return " ".join(text for mark, text in _MEANINGS.items() if mark in drawn_marks)


@dataclass(frozen=True, eq=False)
class Panel:
    """One drawing of an image: its name, the mark of a system, lines below it, marks on it."""

    name: str
    mark: SystemMark | None
    lines: tuple[str, ...]
    pixels: Pixels
    marks: frozenset[str] = frozenset()


def marks_on(panels: Iterable[Panel]) -> frozenset[str]:
    """Return the kinds of marks on panels."""
    return frozenset().union(*(panel.marks for panel in panels))


def panels_of(
    pixels: Pixels,
    predictions: Sequence[ImagePrediction],
    *,
    title: str,
    finding: str,
    truth: ImageTruth,
    facts: str = "",
    side: int = SIDE,
) -> list[Panel]:
    """Draw the plain image (grey, uint8), true boxes if any are known, and each system's answer."""
    label = truth.words(finding)
    has_boxes = truth.boxes is not None or len(truth.readers) > 0
    first = title, facts, "" if has_boxes else label
    panels = [Panel("Image", None, first, *draw_panel(pixels, side))]
    if has_boxes:
        of_readers = (f"{name}: {len(boxes)}" for name, boxes in truth.readers.items())
        lines = (label, *of_readers)
        panels.append(Panel("Truth", None, lines, *draw_panel(pixels, side, truth)))
    for answer in predictions:
        said = tuple(answer_lines(answer, truth, finding))
        drawn = draw_panel(pixels, side, truth, answer)
        panels.append(Panel(answer.system, answer.mark, said, *drawn))
    return panels


def answer_lines(answer: ImagePrediction, truth: ImageTruth | None, finding: str) -> list[str]:
    """Return the outcome of an answer in words, and its score beside the threshold."""
    score_lines = answer.score_words(), answer.map_words(truth)
    if truth is not None:
        return [" ".join(answer.outcome(truth)), *filter(None, score_lines)]
    called = {True: "POSITIVE", False: "negative", None: "undecided"}[answer.decision]
    chance = "" if answer.probability is None else f", probability {answer.probability:.2f}"
    return [f"{finding}: {called}{chance}", *filter(None, score_lines)]


def draw_sheet(panels: Sequence[Panel], below: str = "") -> Image.Image:
    """Place panels in rows that are about equally full, each above its caption, over a text.

    Examples:
        >>> import numpy as np
        >>> from cxr_compare.evaluation.overlays.colours import system_mark
        >>> answer = ImagePrediction("A", system_mark(0), score=0.9, threshold=0.5, decision=True)
        >>> pixels, truth = np.zeros((64, 64), np.uint8), ImageTruth(np.nan)
        >>> panels = panels_of(pixels, [answer], title="x", finding="nodule", truth=truth)
        >>> draw_sheet(panels).width
        984
    """
    columns, wide = _columns(panels)
    height = panels[0].pixels.shape[0]
    lines_below = _wrapped(below, min(columns, 2) * wide - _GAP)
    captions = [
        _wrapped(panel.name, wide - _GAP - _SIZE, bold=True)
        + [part for line in panel.lines for part in _wrapped(line, wide - _GAP)]
        for panel in panels
    ]
    high = height + round(1.4 * _SIZE * max(map(len, captions))) + 2 * _GAP
    rows = math.ceil(len(panels) / columns)
    total = rows * high + round(1.4 * _SIZE * (len(lines_below) + 1))
    canvas = Image.new("RGB", (wide * columns + _GAP, total), "white")
    pen = ImageDraw.Draw(canvas)
    for position, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left, top = _GAP + position % columns * wide, _GAP + position // columns * high
        canvas.paste(Image.fromarray(panel.pixels), (left, top))
        for number, line in enumerate(caption):
            x, y = left, top + height + round(1.4 * _SIZE * number) + 4
            colour = _INK if number else _BLACK
            if panel.mark is not None and not number:
                colour = panel.mark.colour
                pen.polygon(_symbol(panel.mark, x, y + _SIZE // 4), colour)
                x += _SIZE
            pen.text((x, y), line, colour, font=_font(bold=not number))
    for number, line in enumerate(lines_below):
        spot = _GAP, rows * high + round(1.4 * _SIZE * number)
        pen.text(spot, line, _QUIET, font=_font())
    return canvas


def _columns(panels: Sequence[Panel]) -> tuple[int, int]:
    """Return the number of panels in a row of a sheet, and how wide each is with its gap, px."""
    columns = math.ceil(len(panels) / math.ceil(len(panels) / _COLUMNS))
    return columns, max(panels[0].pixels.shape[1], 2 * SIDE // 3) + _GAP


def first_answer(panels: Sequence[Panel]) -> int:
    """Return where the first panel of a system begins in a sheet, px from the left."""
    columns, wide = _columns(panels)
    position = next((at for at, panel in enumerate(panels) if panel.mark is not None), 0)
    return position % columns * wide


def _symbol(mark: SystemMark, left: int, top: int) -> list[tuple[float, float]]:
    """Return the corners of a symbol at a position, px."""
    side = 0.7 * _SIZE / 100
    return [(left + x * side, top + y * side) for x, y in mark.polygon]


def _wrapped(text: str, width: int, *, bold: bool = False) -> list[str]:
    """Break a text into lines of at most `width` px."""
    letters = width // _NARROWEST
    lines = textwrap.wrap(text, letters)
    while any(_font(bold=bold).getlength(line) > width for line in lines):
        letters -= 1
        lines = textwrap.wrap(text, letters)
    return lines


@cache
def _font(*, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans of matplotlib, which is located without importing it."""
    spec = find_spec("matplotlib")
    package = Path(str(spec and spec.origin)).parent
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(package / "mpl-data" / "fonts" / "ttf" / name, _SIZE)
