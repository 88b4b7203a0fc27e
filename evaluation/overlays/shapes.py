"""Shapes that lie on an X-ray: one description, drawn as pixels or as SVG.

Everything an overlay shows is a set of polylines in original pixels. Right and wrong differ by
line (solid, dashed) and not by colour alone; colours are Okabe and Ito's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import contourpy
import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from evaluation.boxes.map_boxes import upsample

Points = npt.NDArray[np.float64]  # (N, 2) x, y in original px

TRUTH_COLOUR = "#F0E442"
FAINT_COLOUR = "#C8C8C8"
_SYSTEM_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73")
"""On dark X-rays, in the order of the systems; source: Okabe and Ito 2008."""
CHART_COLOURS = ("#D55E00", "#0072B2", "#CC79A7", "#009E73")
"""The same systems on white."""


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


@dataclass(frozen=True)
class Label:
    """A short text on the image, one line high, as its shape looks; lengths in original px."""

    layer: str
    text: str
    corner: tuple[float, float]  # upper left
    size: float  # height of the line
    colour: str

    @property
    def width(self) -> float:
        """About how wide the text is: figures are six tenths as wide as a line is high."""
        return _GLYPH * self.size * len(self.text)


_GLYPH = 0.6


def place_labels(
    wanted: Sequence[tuple[str, npt.NDArray[np.float64], str, str]],
    image: tuple[float, float],
    size: float,
) -> list[Label]:
    """Put a text at a corner of each box, inside the image and clear of the texts before it.

    Above the upper left corner where there is room, else below the lower left one, else inside
    the box, else at its right end; a text without a free place is left out. `wanted`: layer, box
    ``xyxy``, text and colour, the most important first; `image`: width and height; `size`: of a
    line; all lengths in original pixels.
    """
    width, height = image
    placed: list[Label] = []
    for layer, box, text, colour in wanted:
        label = Label(layer, text, (0.0, 0.0), size, colour)
        x1, y1, x2, y2 = (float(edge) for edge in box[:4])
        right = x2 - label.width
        corners = [(x, y) for x in (x1, right) for y in (y1 - size, y2, y1, y2 - size)]
        options = [
            replace(label, corner=(min(max(x, 0.0), max(width - label.width, 0.0)), y))
            for x, y in corners
            if 0 <= y <= height - size
        ]
        free = [option for option in options if not any(_meet(option, other) for other in placed)]
        placed += free[:1]
    return placed


def _meet(one: Label, other: Label) -> bool:
    across = one.corner[0] < other.corner[0] + other.width and (
        other.corner[0] < one.corner[0] + one.width
    )
    return across and abs(one.corner[1] - other.corner[1]) < one.size


def system_colour(position: int) -> str:
    """The colour of the system at this position on X-rays (repeats after four)."""
    return _SYSTEM_COLOURS[position % len(_SYSTEM_COLOURS)]


def rectangle(box: Sequence[float] | npt.NDArray[np.float64]) -> Points:
    """The four corners of an ``xyxy`` box, clockwise from the top left."""
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def corner_brackets(box: Sequence[float] | npt.NDArray[np.float64]) -> tuple[Points, ...]:
    """The four corners of a box as open angles: a truth that does not hide a finding."""
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    arm = min(x2 - x1, y2 - y1) / 4
    corners = ((x1, y1, 1, 1), (x2, y1, -1, 1), (x2, y2, -1, -1), (x1, y2, 1, -1))
    return tuple(
        np.array([[x, y + arm * down], [x, y], [x + arm * right, y]])
        for x, y, right, down in corners
    )


def cross(x: float, y: float, arm: float) -> tuple[Points, ...]:
    """An upright cross centred on a point, ``arm`` original pixels each way."""
    return (
        np.array([[x - arm, y], [x + arm, y]], dtype=np.float64),
        np.array([[x, y - arm], [x, y + arm]], dtype=np.float64),
    )


def on_lesion(x: float, y: float, truth: npt.NDArray[np.float64]) -> bool:
    """Whether a point lies in any truth box, borders included."""
    inside = (truth[:, 0] <= x) & (x <= truth[:, 2]) & (truth[:, 1] <= y) & (y <= truth[:, 3])
    return bool(inside.any())


CONTOUR_PROBABILITIES = (0.25, 0.5, 0.75)
"""Contours lie where images whose map peaks there have these probabilities on average."""

_TINT_PER_LEVEL = 0.09
_OuterOffset = tuple[list[Points], list[npt.NDArray[np.uint32]]]


def contour_levels(peaks: npt.ArrayLike, probabilities: npt.ArrayLike) -> dict[float, float]:
    """Find the map values at which a system's contours lie, the same for all images.

    A class activation map adds up to a logit, so one of its values alone is no probability. The
    system's own probabilities say what a value means: rising regression of the images'
    probabilities on the peaks of their maps.

    No label is read. `peaks`: highest raw value of each image's map, NaN is left out;
    `probabilities`: the system's of each of these images. Gives the raw value by probability, for
    those of `CONTOUR_PROBABILITIES` that some map reaches with a value above 0, which speaks for
    the finding.

    Example:
        >>> contour_levels([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.6, 0.7])
        {0.25: 3.0, 0.5: 3.0}
    """
    peak, probability = (np.asarray(values, np.float64) for values in (peaks, probabilities))
    known = np.isfinite(peak) & np.isfinite(probability)
    if not known.any():
        return {}
    rising, inverse, counts = np.unique(peak[known], return_inverse=True, return_counts=True)
    means = np.bincount(inverse, probability[known]) / counts
    expected = scipy.optimize.isotonic_regression(means, weights=counts).x
    levels = {}
    for contour in CONTOUR_PROBABILITIES:
        reached = rising[(expected >= contour) & (rising > 0)]
        if len(reached):
            levels[contour] = float(reached[0])
    return levels


@dataclass(frozen=True)
class ActivationGrid:
    """One activation map and where its contours lie."""

    values: npt.NDArray[np.float64]  # raw contributions, (grid_h, grid_w)
    frame: tuple[float, float, float, float]  # outer frame xyxy, original px
    levels: tuple[float, ...]  # raw values of the contours, rising; fixed for a system

    @property
    def cell(self) -> tuple[float, float]:
        """Width and height of one cell in original pixels."""
        x1, y1, x2, y2 = self.frame
        rows, columns = self.values.shape
        return (x2 - x1) / columns, (y2 - y1) / rows


def map_shapes(grid: ActivationGrid, colour: str) -> list[Shape]:
    """The map's tinted areas and contour lines; none where it stays below the first.

    Nothing is normalised per image: two images with equal values look equal.
    """
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
    z = upsample(np.where(np.isfinite(values), values, 0.0))
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
