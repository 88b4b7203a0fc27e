"""The PNG of one case: its panels side by side, the words below and never on the picture."""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from data_prep.contracts.folders import atomic_path
from evaluation.overlays.draw import draw_shapes
from evaluation.overlays.reading import (
    Reading,
    Truth,
    describe_score,
    describe_truth,
    outcome,
    reading_shapes,
    truth_shapes,
)
from evaluation.overlays.shapes import TRUTH_COLOUR

_PAPER, _INK, _QUIET = (255, 255, 255), (24, 28, 34), (95, 103, 115)
_SIGNS = {"right": "✓", "wrong": "✗", "open": "–"}


def draw_overlay(
    pixels: npt.NDArray[np.uint8],
    truth: Truth,
    readings: list[Reading],
    *,
    finding: str,
    title: str,
    facts: str = "",
    panel: int = 480,
) -> npt.NDArray[np.uint8]:
    """Draw the plain image, the truth and each system side by side, all on the same window.

    Args:
        pixels: Displayed 8-bit image, uint8, shape ``(H, W)``, original size.
        truth: What is known of the image.
        readings: One per system, in the order of the panels.
        finding: Display name of the target, for the words.
        title: The image id, below the plain image.
        facts: One more line there: view, window, inversion.
        panel: Longer side of each panel in pixels.

    Returns:
        RGB picture, uint8: the panels in a row, the text below them.

    Raises:
        ValueError: The image is not a grey uint8 array.

    Example:
        >>> plain = np.zeros((64, 64), np.uint8)
        >>> draw_overlay(plain, Truth(0.0), [], finding="Opacity", title="a", panel=64).shape[1]
        146
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(f"expected grey uint8 (H, W), but got {pixels.dtype} {pixels.shape}")
    side = max(pixels.shape)
    pictures = [
        draw_shapes(pixels, [], panel),
        draw_shapes(pixels, truth_shapes(truth), panel),
        *(draw_shapes(pixels, reading_shapes(each, truth, side), panel) for each in readings),
    ]
    captions = [
        ("Image", None, title, facts),
        ("Truth", TRUTH_COLOUR, describe_truth(truth, finding), ""),
        *(_caption(reading, truth) for reading in readings),
    ]
    return _compose(pictures, captions)


def save_overlay(picture: npt.NDArray[np.uint8], path: Path) -> None:
    """Write a picture as PNG.

    Args:
        picture: RGB, uint8, shape ``(h, w, 3)``.
        path: File to write; its folder must exist.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", compress_level=3)


def _caption(reading: Reading, truth: Truth) -> tuple[str, str, str, str]:
    sign, words = outcome(reading, truth)
    return reading.system, reading.colour, f"{_SIGNS[sign]} {words}", describe_score(reading)


def _compose(
    pictures: list[npt.NDArray[np.uint8]], captions: list[tuple[str, str | None, str, str]]
) -> npt.NDArray[np.uint8]:
    """Lay the pictures in a row with three lines of text below each."""
    height, width = pictures[0].shape[:2]
    gap = max(6, width // 80)
    size = max(9, min(round(width / 26), 30))
    total = len(pictures) * (width + gap) + gap
    sheet = Image.new("RGB", (total, height + gap + round(size * 4.9)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for position, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = gap + position * (width + gap)
        sheet.paste(Image.fromarray(picture), (left, gap))
        _write(pen, caption, (left, gap + height), size, width)
    return np.asarray(sheet)


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
        pen.rectangle(
            (left, top + size * 0.62, left + size * 0.7, top + size * 1.32),
            fill=colour,
            outline=_QUIET,
        )
        indent = size
    bold, plain = _font(size, bold=True), _font(size)
    pen.text((left + indent, top + size * 0.4), _fit(name, bold, width - indent), _INK, font=bold)
    for row, line in enumerate(lines):
        place = (left, top + size * (1.85 + 1.35 * row))
        pen.text(place, _fit(line, plain, width), _INK if row == 0 else _QUIET, font=plain)


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
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
