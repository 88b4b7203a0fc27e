"""Activation maps as contours on one fixed scale, so that a healthy lung stays dark."""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import contourpy
import numpy as np
import numpy.typing as npt

from evaluation.boxes.maps import upsample
from evaluation.overlays.shapes import Points, Shape

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

    Args:
        grid: The map; its values may be of any size and sign.
        colour: ``#RRGGBB`` of the system.

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
