"""Contours of activation maps, at the same map values for all images of a system.

A contour that fills the chest points at nothing. The cell of the peak is drawn in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import cast

import contourpy
import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.map_boxes import upsample
from cxr_compare.evaluation.overlays.shapes import Points, Shape, rectangle

CONTOUR_PROBABILITIES = (0.25, 0.5, 0.75)
"""Mean probabilities of images whose map peaks at the value of a contour, for each contour."""


LEAST_CONTOURED_CELLS = 8
"""Smallest number of cells along each side from which contours of a map are drawn. Between the
centres of fewer cells, most of a contour would be interpolation."""
MOST_CONTOURED = 1 / 3
"""Largest share of the map's frame that the area inside a contour may have; a lung has about as
much."""
_TINT_PER_LEVEL = 0.09  # opacity that each level adds
_CELL_TINT = 0.2
_ROUNDING = 1e-9  # sums of probabilities that are equal differ by less
_OuterOffset = tuple[list[Points], list[npt.NDArray[np.uint32]]]
"""Points of each polygon, and the positions at which its rings begin and end among them."""


def contour_levels(peaks: npt.ArrayLike, probabilities: npt.ArrayLike) -> dict[float, float]:
    """Find the activation-map values at which contours are drawn, the same for all images.

    The values of a class activation map add up to a logit, so a single value is not a probability.
    To give the values a meaning, the image probabilities of the same classifier are regressed on
    the peaks of the maps (NaN is left out) by a rising (isotonic) regression. Labels are not used.

    The result has the map value by probability, for each of `CONTOUR_PROBABILITIES` (0.25, 0.5,
    0.75) that the regression reaches. In the example, images whose map peaks at 3.0 or higher have
    a mean probability of at least 0.25. All values are above 0, because only such values are
    evidence for the finding.

    Source:
        Zhou et al. 2016 (class activation maps); Ayer et al. 1955 (isotonic regression).

    Example:
        >>> contour_levels([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.6, 0.7])
        {0.25: 3.0, 0.5: 3.0}
    """
    peak = np.asarray(peaks, np.float64)
    probability = np.asarray(probabilities, np.float64)
    defined = np.isfinite(peak) & np.isfinite(probability)
    if not defined.any():
        return {}
    rising, inverse = np.unique(peak[defined], return_inverse=True)
    levels = {}
    for contour in CONTOUR_PROBABILITIES:
        # The regression reaches a value where the sum of what lies above it is largest.
        excess = np.bincount(inverse, probability[defined] - contour)
        above = np.append(np.cumsum(excess[::-1])[::-1], 0.0)
        first = int(np.argmax(above >= above.max() - _ROUNDING))
        reached = rising[first:][rising[first:] > 0]
        if len(reached):
            levels[contour] = float(reached[0])
    return levels


@dataclass(frozen=True)
class ActivationGrid:
    """Class activation map of one image, with the map values at which its contours are drawn.

    Attributes:
        values: Raw values of the grid cells of the map, shape ``(grid_h, grid_w)``.
        frame: Outer frame of the map, ``x1, y1, x2, y2`` in px of the original image; it may reach
            beyond the image.
        levels: Map values of the contours in rising order, the same for all images of one
            classifier; see `contour_levels`.
    """

    values: npt.NDArray[np.float64]
    frame: tuple[float, float, float, float]
    levels: tuple[float, ...]

    @property
    def cell(self) -> tuple[float, float]:
        """Width and height of one grid cell in px of the original image."""
        x1, y1, x2, y2 = self.frame
        rows, columns = self.values.shape
        return (x2 - x1) / columns, (y2 - y1) / rows

    @property
    def size_text(self) -> str:
        """Number of grid cells down and across as text, such as ``5 × 5``."""
        return " × ".join(map(str, self.values.shape))

    @cached_property
    def reached(self) -> tuple[float, ...]:
        """Contour levels that are not above the highest value of the interpolated map."""
        highest = float(self._fine_values.max())
        return tuple(level for level in self.levels if level <= highest)

    @cached_property
    def contoured(self) -> tuple[float, ...]:
        """Contour levels that are drawn, in rising order.

        A level is drawn if the map reaches it and the area at or above it has at most a third of
        the map's frame. A map with fewer than 8 grid cells along one side has no contours.
        """
        if min(self.values.shape) < LEAST_CONTOURED_CELLS:
            return ()
        shares = [float((self._fine_values >= level).mean()) for level in self.reached]
        return tuple(
            level
            for level, share in zip(self.reached, shares, strict=True)
            if share <= MOST_CONTOURED
        )

    @property
    def shows_cell(self) -> bool:
        """True if the grid cell with the highest value is drawn instead of contours.

        This is so where the map reaches a level, but has fewer than 8 grid cells along one side, or
        the area of every contour would be larger than a third of the map's frame.
        """
        return bool(self.reached) and not self.contoured

    @property
    def peak_cell(self) -> tuple[float, float, float, float]:
        """Grid cell with the highest value, ``x1, y1, x2, y2`` in px of the original image.

        Of several cells with the highest value, the first in reading order.
        """
        values = np.where(np.isfinite(self.values), self.values, -np.inf)
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        width, height = self.cell
        x = self.frame[0] + float(column) * width
        y = self.frame[1] + float(row) * height
        return x, y, x + width, y + height

    @cached_property
    def _fine_values(self) -> npt.NDArray[np.float64]:
        """Values interpolated in the same way as for map boxes; a broken value counts as 0."""
        values = np.asarray(self.values, dtype=np.float64)
        return upsample(np.where(np.isfinite(values), values, 0.0))


def map_shapes(grid: ActivationGrid, colour: str) -> list[Shape]:
    """Return what is drawn for an activation map: contour areas, or the grid cell of its peak.

    Maps are not normalised per image, so images with equal values look equal. A map with few cells,
    and a map whose every contour would hold more than a third of its frame, shows the cell of its
    peak instead. A map that stays below the lowest level shows nothing.
    """
    if grid.shows_cell:
        corners = (rectangle(grid.peak_cell),)
        return [Shape("map", corners, colour, width=1.0, tint=_CELL_TINT, rim=0.0)]
    if not grid.contoured:
        return []
    z = grid._fine_values
    x1, y1, x2, y2 = grid.frame
    x = x1 + (np.arange(z.shape[1]) + 0.5) / z.shape[1] * (x2 - x1)
    y = y1 + (np.arange(z.shape[0]) + 0.5) / z.shape[0] * (y2 - y1)
    generator = contourpy.contour_generator(x, y, z, fill_type=contourpy.FillType.OuterOffset)
    shapes = []
    for level in grid.contoured:
        areas = _areas(generator, level)
        width = 1.0 + 0.4 * grid.levels.index(level)
        shapes.append(Shape("map", areas, colour, width=width, tint=_TINT_PER_LEVEL, rim=0.0))
    return shapes


def _areas(generator: contourpy.ContourGenerator, level: float) -> tuple[Points, ...]:
    """Return the rings (outer rings and holes) of the area at or above a level."""
    polygons, offsets = cast(_OuterOffset, generator.filled(level, np.inf))
    return tuple(
        np.asarray(points[start:end], dtype=np.float64)
        for points, ends in zip(polygons, offsets, strict=True)
        for start, end in pairwise(ends)
    )
