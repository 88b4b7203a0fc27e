"""Shapes that lie on an X-ray: one description, drawn as pixels or as SVG.

Everything an overlay shows is a set of polylines in original pixels. Right and wrong differ by
line (solid, dashed) and not by colour alone; colours are Okabe and Ito's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import contourpy
import numpy as np
import numpy.typing as npt

from evaluation.boxes.map_boxes import upsample

Points = npt.NDArray[np.float64]  # (N, 2) x, y in original px

TRUTH_COLOUR = "#F0E442"
FAINT_COLOUR = "#C8C8C8"
_SYSTEM_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73")
"""On dark X-rays, in the order of the systems; source: Okabe and Ito 2008."""


@dataclass(frozen=True)
class Shape:
    """Polylines that share one look."""

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
    return _SYSTEM_COLOURS[position % len(_SYSTEM_COLOURS)]


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

    Example:
        >>> on_lesion(10, 5, np.array([[0, 0, 10, 10]])), on_lesion(11, 5, np.empty((0, 4)))
        (True, False)
    """
    inside = (truth[:, 0] <= x) & (x <= truth[:, 2]) & (truth[:, 1] <= y) & (y <= truth[:, 3])
    return bool(inside.any())


LEVELS = (0.25, 0.5, 0.75)
"""Where contours lie, as fractions of the system's fixed scale."""

_TINT_PER_LEVEL = 0.09
_OuterOffset = tuple[list[Points], list[npt.NDArray[np.uint32]]]


@dataclass(frozen=True)
class ActivationGrid:
    """One activation map and the scale it is drawn on.

    Args:
        values: Raw contributions, shape ``(grid_h, grid_w)``.
        frame: The grid's outer frame ``xyxy`` in original pixels.
        scale: Values of the empty and of the full scale, fixed per system on validation.
    """

    values: npt.NDArray[np.float64]
    frame: tuple[float, float, float, float]
    scale: tuple[float, float]

    @property
    def levels(self) -> tuple[float, ...]:
        """Raw values at which contours are drawn, rising.

        Example:
            >>> ActivationGrid(np.zeros((2, 2)), (0, 0, 8, 8), (0.0, 4.0)).levels
            (1.0, 2.0, 3.0)
        """
        low, high = self.scale
        return tuple(low + fraction * (high - low) for fraction in LEVELS)


def map_shapes(grid: ActivationGrid, colour: str) -> list[Shape]:
    """Return the map's tinted areas and contour lines; none where it stays below the scale.

    Nothing is normalised per image: two images with equal values look equal.

    Example:
        >>> quiet = ActivationGrid(np.full((4, 4), 0.1), (0, 0, 64, 64), (0.0, 1.0))
        >>> map_shapes(quiet, "#56B4E9")
        []
    """
    low, high = grid.scale
    if not (np.isfinite([low, high]).all() and high > low):
        return []
    x, y, z = _refine(grid)
    generator = contourpy.contour_generator(x, y, z, fill_type=contourpy.FillType.OuterOffset)
    shapes = []
    for position, level in enumerate(grid.levels):
        areas = _areas(generator, level, float(z.max()))
        if areas:
            width = 1.0 + 0.4 * position
            shapes.append(Shape("map", areas, colour, width=width, tint=_TINT_PER_LEVEL, rim=0.0))
    return shapes


def _refine(grid: ActivationGrid) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Interpolate as the map boxes do; coordinates in original pixels."""
    values = np.asarray(grid.values, dtype=np.float64)
    z = upsample(np.where(np.isfinite(values), values, grid.scale[0]))
    x1, y1, x2, y2 = grid.frame
    x = x1 + (np.arange(z.shape[1]) + 0.5) / z.shape[1] * (x2 - x1)
    y = y1 + (np.arange(z.shape[0]) + 0.5) / z.shape[0] * (y2 - y1)
    return x, y, z


def _areas(
    generator: contourpy.ContourGenerator, level: float, highest: float
) -> tuple[Points, ...]:
    """Return the rings (outer and holes) of the area at or above a level."""
    if highest < level:
        return ()
    # OuterOffset: the points of each polygon, and where its rings begin and end among them.
    polygons, offsets = cast(_OuterOffset, generator.filled(level, np.inf))
    return tuple(
        np.asarray(points[start:end], dtype=np.float64)
        for points, ends in zip(polygons, offsets, strict=True)
        for start, end in pairwise(ends)
    )
