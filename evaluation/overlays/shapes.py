"""Shapes on an X-ray: polylines and short texts in original pixels, and their colours.

Overlays consist of these shapes and texts, which `draw` draws as pixels. Right and wrong
differ by the line (solid or dashed), not by colour alone. The truth is white, and a system has the
same colour on X-rays, pages and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""Points x, y in original px, shape ``(N, 2)``."""

TRUTH_COLOUR = "#FFFFFF"
SYSTEM_COLOURS = (
    "#E06C00",
    "#1F8FD6",
    "#C763A2",
    "#009E73",
    "#8424FC",
    "#D8003C",
    "#30783C",
    "#C018A8",
    "#6054D8",
)
"""Colours in the order of the systems: four hues of Okabe and Ito 2008, then the colours that are
furthest from all earlier ones, also for colour-blind readers. All have a contrast of at least 3 to
paper and to black. As that leaves little difference in grey, a system also has a dash pattern in
charts and a shape in legends and tables. ``page.css.jinja`` and the page of `cxr serve` contain the
same colours."""
LINE_SHARE = 1 / 20
"""Height of a line of text on an image, as a share of the image's longer side."""
LETTER_SHARE = 0.8
"""Font size of a text, as a share of the height of the line."""
_GLYPH = 0.6  # width of a character, as a share of the height of a line


@dataclass(frozen=True)
class Shape:
    """Polylines in one style, drawn over an image.

    Attributes:
        layer: Kind of what is drawn: ``boxes``, ``map``, ``point`` or ``truth``.
        paths: Polylines, points x, y in px of the original image, shape ``(N, 2)`` each.
        colour: Colour of the line and of the inside, ``#RRGGBB``.
        width: Width of the line in screen px where the image is 512 px long; 0 for no line.
        closed: True if the last point of each polyline is joined to the first.
        tint: Opacity with which the inside is filled, from 0 (not filled) to 1.
        rim: Width of the dark rim around the line, screen px; 0 for no rim.
    """

    layer: str
    paths: tuple[Points, ...]
    colour: str
    width: float = 2.0
    closed: bool = True
    dashed: bool = False
    tint: float = 0.0
    rim: float = 2.0


@dataclass(frozen=True)
class Label:
    """One line of text on an image.

    Attributes:
        layer: Kind of what the text belongs to, such as ``boxes``.
        corner: Upper left corner x, y of the text in px of the original image.
        size: Height of the line of text in px of the original image.
        colour: Colour of the text, ``#RRGGBB``.
    """

    layer: str
    text: str
    corner: tuple[float, float]
    size: float
    colour: str

    @property
    def width(self) -> float:
        """Approximate width of the text in px of the original image."""
        return _GLYPH * self.size * len(self.text)


class LabelRequest(NamedTuple):
    """A text to be placed at a box; `place_labels` chooses the position.

    Attributes:
        layer: Kind of what the text belongs to, such as ``boxes``.
        box: Box ``x1, y1, x2, y2`` in px of the original image; further values, such as a score,
            are ignored.
        colour: Colour of the text, ``#RRGGBB``.
    """

    layer: str
    box: npt.NDArray[np.float64]
    text: str
    colour: str


def place_labels(
    requests: Sequence[LabelRequest], image: tuple[float, float], size: float
) -> list[Label]:
    """Place a text at a corner of each box, inside the image and clear of earlier texts.

    A text goes above the box's upper left corner where there is space, else below the lower left
    corner, else inside the box. If all of these positions are taken, the right end of the box is
    tried in the same way. A text without a free position is left out. `image` is width and height
    of the original image, and `size` the height of a line of text, in its px.

    Example:
        >>> box = np.array([10.0, 40.0, 60.0, 90.0])
        >>> (label,) = place_labels([LabelRequest("boxes", box, "0.91", "#E06C00")], (99, 99), 20)
        >>> label.corner
        (10.0, 20.0)
    """
    width, height = image
    placed: list[Label] = []
    for layer, box, text, colour in requests:
        label = Label(layer, text, (0.0, 0.0), size, colour)
        x1, y1, x2, y2 = (float(edge) for edge in box[:4])
        rightmost = max(width - label.width, 0.0)
        for x in (x1, x2 - label.width):
            rows = [y for y in (y1 - size, y2, y1, y2 - size) if 0 <= y <= height - size]
            options = [replace(label, corner=(min(max(x, 0.0), rightmost), y)) for y in rows]
            free = [one for one in options if not any(_overlap(one, other) for other in placed)]
            if free:
                placed.append(free[0])
                break
    return placed


def _overlap(one: Label, other: Label) -> bool:
    across = one.corner[0] < other.corner[0] + other.width and (
        other.corner[0] < one.corner[0] + one.width
    )
    return across and abs(one.corner[1] - other.corner[1]) < one.size


def system_colour(position: int) -> str:
    """Return the colour, ``#RRGGBB``, of the system at a position in the comparison, from 0.

    The nine colours of `SYSTEM_COLOURS` repeat from the tenth system on.
    """
    return SYSTEM_COLOURS[position % len(SYSTEM_COLOURS)]


def rectangle(box: Sequence[float] | npt.NDArray[np.float64]) -> Points:
    """Return the four corners of a box (xyxy), clockwise from the top left, shape ``(4, 2)``.

    Further values of the box, such as a score, are ignored.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def corner_brackets(box: Sequence[float] | npt.NDArray[np.float64]) -> tuple[Points, ...]:
    """Return four right angles that mark the corners of a box, so that its inside stays visible.

    They are one open polyline for each corner, from the top left clockwise, whose arms are a
    quarter of the box's shorter side long. Further values of the box (xyxy), such as a score, are
    ignored.

    Example:
        >>> corner_brackets([0, 0, 8, 8])[0].tolist()
        [[0.0, 2.0], [0.0, 0.0], [2.0, 0.0]]
    """
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    arm = min(x2 - x1, y2 - y1) / 4
    corners = ((x1, y1, 1, 1), (x2, y1, -1, 1), (x2, y2, -1, -1), (x1, y2, 1, -1))
    return tuple(
        np.array([[x, y + arm * down], [x, y], [x + arm * right, y]])
        for x, y, right, down in corners
    )


def cross(x: float, y: float, arm: float) -> tuple[Points, ...]:
    """Return the horizontal and the vertical line of a cross whose arms are `arm` px long.

    The centre x, y and the arm are in px of the original image.
    """
    return (
        np.array([[x - arm, y], [x + arm, y]], dtype=np.float64),
        np.array([[x, y - arm], [x, y + arm]], dtype=np.float64),
    )
