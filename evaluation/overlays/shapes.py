"""Shapes that lie on an X-ray: one description, drawn as pixels or as SVG.

Everything an overlay shows is a set of polylines in original pixels. Right and wrong differ by
line (solid, dashed) and not by colour alone; colours are Okabe and Ito's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # (N, 2) x, y in original px

TRUTH_COLOUR = "#F0E442"
FAINT_COLOUR = "#C8C8C8"
SYSTEM_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73")
"""On dark X-rays, in the order of the systems; source: Okabe and Ito 2008."""


@dataclass(frozen=True)
class Shape:
    """Polylines that share one look.

    Args:
        layer: What it shows: ``truth``, ``boxes``, ``map`` or ``point``; readers may hide one.
        paths: Polylines in original pixels, each ``(N, 2)``.
        colour: ``#RRGGBB``.
        width: Stroke in screen pixels at a panel of 512 px; 0 draws none.
        closed: Whether each path ends where it began.
        dashed: Dashes say "not on a lesion".
        tint: Opacity of the filled inside, 0 to 1 (even-odd rule, so holes stay clear).
        rim: Extra width of a dark line below, which keeps the line visible on bright bone.
    """

    layer: str
    paths: tuple[Points, ...]
    colour: str
    width: float = 2.0
    closed: bool = True
    dashed: bool = False
    tint: float = 0.0
    rim: float = 2.0


def system_colour(position: int) -> str:
    """Return the colour of the system at this position on X-rays (repeats after four).

    Example:
        >>> system_colour(0), system_colour(4)
        ('#E69F00', '#E69F00')
    """
    return SYSTEM_COLOURS[position % len(SYSTEM_COLOURS)]


def rectangle(box: Sequence[float] | npt.NDArray[np.float64]) -> Points:
    """Return the four corners of an ``xyxy`` box, clockwise from the top left.

    Example:
        >>> rectangle([0, 0, 2, 1]).tolist()
        [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]
    """
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def corner_brackets(box: Sequence[float] | npt.NDArray[np.float64]) -> tuple[Points, ...]:
    """Return the four corners of a box as open angles: a truth that does not hide a finding.

    Example:
        >>> corner_brackets([0, 0, 40, 80])[0].tolist()
        [[0.0, 10.0], [0.0, 0.0], [10.0, 0.0]]
    """
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    arm = min(x2 - x1, y2 - y1) / 4
    corners = ((x1, y1, 1, 1), (x2, y1, -1, 1), (x2, y2, -1, -1), (x1, y2, 1, -1))
    return tuple(
        np.array([[x, y + arm * down], [x, y], [x + arm * right, y]])
        for x, y, right, down in corners
    )


def cross(x: float, y: float, arm: float) -> tuple[Points, ...]:
    """Return an upright cross centred on a point, ``arm`` original pixels each way.

    Example:
        >>> [path.tolist() for path in cross(5, 5, 1)]
        [[[4.0, 5.0], [6.0, 5.0]], [[5.0, 4.0], [5.0, 6.0]]]
    """
    return (
        np.array([[x - arm, y], [x + arm, y]], dtype=np.float64),
        np.array([[x, y - arm], [x, y + arm]], dtype=np.float64),
    )


def on_lesion(x: float, y: float, truth: npt.NDArray[np.float64]) -> bool:
    """Say whether a point lies in any truth box, borders included.

    Args:
        x: Column in original pixels.
        y: Row in original pixels.
        truth: Boxes ``xyxy``, shape ``(N, 4)``.

    Example:
        >>> on_lesion(10, 5, np.array([[0, 0, 10, 10]])), on_lesion(11, 5, np.empty((0, 4)))
        (True, False)
    """
    inside = (truth[:, 0] <= x) & (x <= truth[:, 2]) & (truth[:, 1] <= y) & (y <= truth[:, 3])
    return bool(inside.any())
