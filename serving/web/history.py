"""The answers of a visit as a table or as pages to print; nothing of them is kept."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from evaluation.metrics.words import policy_words, score_words
from serving.web.schemas import RESEARCH_USE, HistoryEntry, SystemAnswer
from serving.web.uploads import Refused

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = (
    "time", "image", "view", "width", "height", "system", "finding", "decision", "probability",
    "threshold_probability", "score", "threshold", "policy", "boxes", "warnings",
    "systems_disagree", "undecided_because", "backend", "model_id", "request_id", "note",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PAPER = (8.27, 11.69)  # inches: A4
_INK, _QUIET, _LINE, _WARN = "#1a2027", "#59636e", "#c9cdc9", "#b84a00"
_COLOURS = ("#c65200", "#0068a6", "#a84f86", "#00795a")
_LEFT, _RIGHT = 0.07, 0.93
_MOST_PIXELS = 12_000_000  # of an overlay that comes back
_TALLEST = 0.42  # of the page, the overlay
_DRAWING = threading.Lock()  # matplotlib is not made for threads
_POINT = 1 / 72 / _PAPER[1]  # of the page's height


def as_csv(entries: Sequence[HistoryEntry]) -> bytes:
    """A row an image and system; text that a spreadsheet would run is quoted."""
    sheet = io.StringIO(newline="")
    rows = csv.writer(sheet)
    rows.writerow(_COLUMNS)
    for entry in entries:
        for system in entry.systems:
            rows.writerow([_inert(cell) for cell in _row(entry, system)])
    return sheet.getvalue().encode("utf-8-sig")  # so that a spreadsheet reads it as UTF-8


def as_pdf(entries: Sequence[HistoryEntry], is_wanted: Callable[[], bool] = lambda: True) -> bytes:
    """A page of A4 an image: the overlay, each system's decision, warnings first.

    Args:
        entries: The answers.
        is_wanted: Asked before each page; what nobody wants any more is not finished.

    Raises:
        Refused: An overlay is no PNG file, or nobody wants the pages any more.
    """
    with _DRAWING:
        from matplotlib import rc_context
        from matplotlib.backends.backend_pdf import PdfPages

        file = io.BytesIO()
        facts = {"Title": "Chest X-ray answers", "Creator": "cxr-compare", "CreationDate": None}
        with rc_context({"pdf.fonttype": 42}), PdfPages(file, metadata=facts) as pages:
            for number, entry in enumerate(entries, 1):
                if not is_wanted():
                    raise Refused(499, "client_gone", "nobody waits for these pages any more")
                pages.savefig(_page(entry, _overlay(entry), f"{number} / {len(entries)}"))
        return file.getvalue()


def _row(entry: HistoryEntry, system: SystemAnswer) -> list[object]:
    boxes = [
        f"{box.x1:.1f},{box.y1:.1f},{box.x2:.1f},{box.y2:.1f},{box.score:.4f}"
        for box in system.boxes
    ]
    return [
        entry.time, entry.image.name, entry.image.view, entry.image.width, entry.image.height,
        system.system, system.finding, system.decision, system.probability,
        system.threshold_probability, system.score, system.threshold, system.policy,
        ";".join(boxes), "; ".join(entry.warnings), entry.disagreement, system.undecided_because,
        system.backend, system.model_id, entry.request_id, RESEARCH_USE,
    ]  # fmt: skip


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _overlay(entry: HistoryEntry) -> np.ndarray | None:
    if entry.overlay_png is None:
        return None
    refusal = Refused(
        400, "bad_overlay", f"overlay_png of {entry.request_id}: send it as it was answered"
    )
    try:
        content = base64.b64decode(entry.overlay_png, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise refusal
            return np.asarray(image.convert("RGB"))
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise refusal from None


def _page(entry: HistoryEntry, overlay: np.ndarray | None, number: str) -> Figure:
    from matplotlib.figure import Figure

    page = Figure(figsize=_PAPER)
    pen = _Pen(page)
    pen.write("Chest X-ray: what the systems say", 10, _QUIET)
    pen.write(entry.image.name, 17, weight="bold")
    image = entry.image
    facts = [f"{image.width} x {image.height} px", image.format, f"{image.bits} bits"]
    facts += [f"view {image.view}"] if image.view else []
    facts += ["stored as a negative (MONOCHROME1), turned"] if image.monochrome1 else []
    pen.write(", ".join([*([entry.time] if entry.time else []), *facts]), 9, _QUIET)
    for text in entry.warnings:
        pen.write(f"WARNING: {text}", 11, _WARN, weight="bold")
    if entry.disagreement:
        pen.write("THE SYSTEMS DISAGREE", 13, _WARN, weight="bold")
    pen.skip(8)
    for place, system in enumerate(entry.systems):
        _system(pen, system, _COLOURS[place % len(_COLOURS)])
    if overlay is None:
        pen.write("Without an image: none was sent along.", 9, _QUIET)
    else:
        pen.draw(overlay)
    _foot(page, entry, number)
    return page


def _system(pen: _Pen, system: SystemAnswer, colour: str) -> None:
    decision = {"positive": "POSITIVE", "negative": "negative", None: "undecided"}
    words = f"{system.system}: {decision[system.decision]} for {system.finding.lower()}"
    pen.write(words, 13, colour if system.decision == "positive" else _INK, weight="bold")
    if system.undecided_because:
        pen.write(f"Undecided: {system.undecided_because}", 9, _WARN)
    if system.probability is not None:
        pen.bar(system.probability, system.threshold_probability, colour)
    limit = "" if system.threshold is None else f", threshold {score_words(system.threshold)}"
    count = len(system.boxes)
    boxes = f"; {count} box{'' if count == 1 else 'es'}" if count else ""
    pen.write(
        f"Score {score_words(system.score)}{limit} ({policy_words(system.policy)}){boxes}",
        9,
        _QUIET,
    )
    pen.skip(7)


def _drawable(text: str) -> str:
    """The text with a question mark for each sign that the font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(sign if font.get_char_index(ord(sign)) else "?" for sign in text)


def _foot(page: Figure, entry: HistoryEntry, number: str) -> None:
    models = ", ".join(f"{s.system} {s.model_id} ({s.backend})" for s in entry.systems)
    version = entry.versions.get("cxr-compare", "")
    lines = [
        f"{RESEARCH_USE} Nothing here may inform the care of a patient.",
        *textwrap.wrap(f"Models: {models}", 130),
        f"cxr-compare {version}, request {entry.request_id}",
    ]
    for place, line in enumerate(reversed(lines)):
        weight = "bold" if place == len(lines) - 1 else "normal"
        page.text(
            _LEFT, 0.03 + 11 * place * _POINT, _drawable(line), size=7.5, color=_QUIET,
            weight=weight, parse_math=False,
        )  # fmt: skip
    page.text(_RIGHT, 0.03, number, size=7.5, color=_QUIET, ha="right")


class _Pen:
    """Writes a page from its top to its foot."""

    def __init__(self, page: Figure) -> None:
        self._page, self._y = page, 0.955

    def write(self, text: str, size: float, colour: str = _INK, weight: str = "normal") -> None:
        """Lines of text, broken where the page ends."""
        width = int(_PAPER[0] * 72 * (_RIGHT - _LEFT) / (size * 0.56))
        for line in textwrap.wrap(_drawable(text), width) or [""]:
            self._page.text(
                _LEFT, self._y, line, size=size, color=colour, weight=weight, va="top",
                parse_math=False,
            )  # fmt: skip
            self._y -= 1.35 * size * _POINT

    def skip(self, points: float) -> None:
        """Leave room."""
        self._y -= points * _POINT

    def bar(self, probability: float, threshold: float | None, colour: str) -> None:
        """A probability on a scale from 0 to 1, with the threshold marked."""
        height = 11 * _POINT
        axes = self._axes(_LEFT, self._y - height, 0.46, height)
        axes.barh(0, 1, 1, color="#eceeec")
        axes.barh(0, probability, 1, color=colour)
        words = f"probability {probability:.2f}"
        if threshold is not None:
            axes.plot([threshold, threshold], [-0.8, 0.8], color=_INK, lw=2, clip_on=False)
            words += f"  (threshold {threshold:.2f}, the mark)"
        self._page.text(
            _LEFT + 0.475, self._y - height / 2, words, size=9.5, color=_INK, va="center"
        )
        axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))
        self._y -= height + 5 * _POINT

    def draw(self, overlay: np.ndarray) -> None:
        """The overlay as large as the room allows."""
        rows, columns = overlay.shape[:2]
        width = _RIGHT - _LEFT
        room = min(_TALLEST, self._y - 0.09)
        height = width * _PAPER[0] / _PAPER[1] * rows / columns
        scale = min(1.0, max(room, 0.1) / height)
        axes = self._axes(_LEFT, self._y - height * scale, width * scale, height * scale)
        axes.imshow(overlay, aspect="auto", interpolation="none")
        self._y -= height * scale + 6 * _POINT

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        axes = self._page.add_axes((x, y, width, height))
        axes.set_axis_off()
        return axes
