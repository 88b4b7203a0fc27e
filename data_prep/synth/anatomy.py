"""Anatomy of a synthetic patient, and the image plane on which it is drawn.

Shapes are tables of points in chest units: x is 0 at the midline, and 1 at the rib cage of the side
that is drawn; y is 0 at the apex of the lungs and 1 at the diaphragm. Widths of lines are in image
widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Field = NDArray[Any]  # float32, (H, W)

SIDES = (-1, 1)
"""Right and left half of the patient, as the sign of x."""

_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 px, so that shapes move smoothly with the pose
_SMALLEST_SIGMA = 2.5  # px; a wider blur is computed on a smaller image
_VESSEL_GENERATIONS = 5
_TRUNKS = 7  # vessels that leave each lung root
_WAVES = 5  # waves by which a patient's chest differs in shape from the usual one

_WALL = np.array([[0.20, -0.04], [0.44, 0.04], [0.66, 0.15], [0.84, 0.33], [0.95, 0.58], [1, 0.84]])
_LUNG = np.array(
    [
        (0.26, 0.00), (0.44, 0.04), (0.71, 0.19), (0.84, 0.34), (0.92, 0.51), (0.97, 0.67),
        (1.00, 0.82), (1.00, 0.97), (1.00, 1.13), (0.99, 1.18), (0.94, 1.10), (0.80, 1.03),
        (0.55, 0.97), (0.33, 1.01), (0.16, 1.06), (0.14, 0.73), (0.14, 0.47), (0.16, 0.22),
        (0.17, 0.06),
    ]
)  # fmt: skip
_HEART = np.array(
    [
        (-0.17, 0.27), (0.08, 0.16), (0.22, 0.23), (0.22, 0.35), (0.22, 0.53), (0.32, 0.67),
        (0.53, 0.90), (0.58, 1.03), (0.48, 1.12), (0.11, 1.14), (-0.24, 1.12), (-0.34, 0.95),
        (-0.26, 0.77), (-0.20, 0.43),
    ]
)  # fmt: skip
_HALF_TRUNK = np.array(
    [
        (0.20, -0.90), (0.20, -0.15), (0.33, -0.09), (0.74, -0.04), (1.16, 0.08), (1.36, 0.28),
        (1.34, 0.54), (1.04, 0.73), (0.95, 1.00), (1.00, 3.00),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Anatomy:
    """Shape of one synthetic chest, which all images of a patient show.

    Attributes:
        half_width: Distance from the midline to the rib cage, in image widths.
        height: Distance from the apex of the lungs to the diaphragm, in image widths.
        top: Position y of the apex of the lungs, in image widths from the upper edge.
        body: Half width of the trunk, in half widths of the rib cage.
        heart: Width of the heart; 1 is usual.
        bone: Density of the bones; 1 is usual.
        back_ribs: Centre lines of the back parts of the ribs and of the collar bones, chest units.
        front_ribs: Centre lines of the front parts of the ribs, chest units.
        rib_width: Thickness of a rib, in image widths.
        vessels: Branches of both vascular trees, one array ``(N, 3, 2)`` for each generation.
        waves: Smooth displacements of all shapes, ``(N, 5)``: frequency along x and y, phase, and
            amplitude along x and y in image widths.
    """

    half_width: float
    height: float
    top: float
    body: float
    heart: float
    bone: float
    back_ribs: list[Points]
    front_ribs: list[Points]
    rib_width: float
    vessels: list[Points]
    waves: Points

    def lungs(self) -> list[Points]:
        """Return the outlines of both lungs, chest units."""
        return [smooth_outline(_LUNG * (side, 1)) for side in SIDES]

    def heart_outline(self) -> Points:
        """Return the outline of the heart and the great vessels, chest units."""
        return smooth_outline(_HEART * (self.heart, 1))

    def trunk(self) -> Points:
        """Return the outline of neck, shoulders and trunk, chest units."""
        half = _HALF_TRUNK * (self.body, 1)
        return smooth_outline(np.concatenate([half, half[::-1] * (-1, 1)]))


@dataclass(frozen=True)
class Canvas:
    """Square image on which a synthetic patient is drawn, with the patient's position on it.

    Attributes:
        size: Side of the image, px.
        scale: Magnification of the patient; 1 is the usual size.
        angle: Rotation of the patient in radians, clockwise on the screen.
        shift: Displacement of the patient along x and y, in image widths.
    """

    size: int
    anatomy: Anatomy
    scale: float = 1.0
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    def to_px(self, points: Points) -> Points:
        """Convert points ``(..., 2)`` from chest units to px of the image, not rounded."""
        chest = self.anatomy
        waves = chest.waves
        displaced = np.sin(points @ waves[:, :2].T + waves[:, 2]) @ waves[:, 3:]
        placed = points * (chest.half_width, chest.height) + (0, chest.top - 0.5) + displaced
        cosine = self.scale * np.cos(self.angle)
        sine = self.scale * np.sin(self.angle)
        turned = placed @ np.array([[cosine, sine], [-sine, cosine]])
        return (turned + 0.5 + np.array(self.shift)) * self.size

    def _fixed_point(self, points: Points) -> NDArray[np.int32]:
        # Coordinates of cv2 begin at pixel centres, those of the phantom at pixel edges.
        return np.round((self.to_px(points) - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def px(self, width: float) -> float:
        """Convert a length from image widths to px, magnified as the patient is."""
        return width * self.scale * self.size

    def fill(self, *outlines: Points) -> Field:
        """Draw closed outlines, filled, as a mask with values in [0, 1], float32 ``(H, W)``."""
        mask = np.zeros((self.size, self.size), np.uint8)
        for outline in outlines:
            cv2.fillPoly(mask, [self._fixed_point(outline)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def lines(self, strokes: Sequence[tuple[Sequence[Points], float, float]]) -> Field:
        """Draw open curves, later ones over earlier ones, as a mask with values in [0, 1].

        A stroke has curves of the same length, their width in image widths and their brightness.
        """
        mask = np.zeros((self.size, self.size), np.uint8)
        for curves, width, strength in strokes:
            thickness = max(1, round(self.px(width)))
            # A curve thinner than a pixel is drawn one pixel wide, but fainter.
            value = round(255 * strength * min(1.0, self.px(width) / thickness))
            fixed = list(self._fixed_point(np.stack(curves)))
            cv2.polylines(mask, fixed, False, value, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def soften(self, field: Field, sigma: float) -> Field:
        """Blur an image by a Gaussian whose standard deviation is given in image widths."""
        return blur(field, self.px(sigma))


def blur(field: Field, sigma: float) -> Field:
    """Blur an image by a Gaussian of a width in px. A wide blur works on a smaller copy."""
    if sigma < 0.3:
        return field
    factor = int(sigma // _SMALLEST_SIGMA)
    side = field.shape[0] // max(factor, 1)
    if factor < 2 or side < 8:
        return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    small = cv2.resize(field, (side, side), interpolation=cv2.INTER_AREA)
    ratio = field.shape[0] / side
    small = cv2.GaussianBlur(small, (0, 0), sigma / ratio, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, field.shape[::-1], interpolation=cv2.INTER_LINEAR)


def smooth_outline(corners: Points) -> Points:
    """Round a closed polygon by corner cutting (Chaikin 1974): `(N, 2)` to `(4 N, 2)`."""
    points = corners
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        near = 0.75 * points + 0.25 * following
        far = 0.25 * points + 0.75 * following
        points = np.stack([near, far], axis=1).reshape(-1, 2)
    return points


def curve(*corners: tuple[float, float], steps: int = 20) -> Points:
    """Return points ``(steps, 2)`` of a Bezier curve from its first to its last control point.

    Examples:
        >>> curve((0.0, 0.0), (1.0, 2.0), steps=3).tolist()
        [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]]
    """
    degree = len(corners) - 1
    k = np.arange(degree + 1)
    binomial = np.array([comb(degree, i) for i in k])
    t = np.linspace(0, 1, steps)[:, None]
    return (binomial * t**k * (1 - t) ** (degree - k)) @ np.array(corners, dtype=np.float64)


def wall(y: float) -> float:
    """Return the distance of the rib cage's inner side from the midline, chest units."""
    return float(np.interp(y, _WALL[:, 1], _WALL[:, 0]))


def draw_anatomy(rng: np.random.Generator, sex: str, age: int) -> Anatomy:
    """Draw the shape of a chest at random."""
    return Anatomy(
        half_width=(0.325 if sex == "M" else 0.31) * rng.uniform(0.85, 1.15),
        height=rng.uniform(0.43, 0.64),
        top=rng.uniform(0.07, 0.16),
        body=rng.uniform(1.18, 1.65),
        heart=rng.uniform(0.80, 1.25),
        bone=rng.uniform(0.6, 1.4) * (1.12 - 0.004 * max(age - 30, 0)),
        back_ribs=_draw_back_ribs(rng),
        front_ribs=_draw_front_ribs(rng),
        rib_width=rng.uniform(0.019, 0.031),
        vessels=_grow_vessels(rng),
        waves=draw_waves(rng, _WAVES),
    )


def draw_waves(rng: np.random.Generator, n_waves: int) -> Points:
    """Draw smooth displacements of all shapes of a chest, the rows of `Anatomy.waves`."""
    waves = rng.normal(0, 1, (n_waves, 5)) * (2.5, 3.0, 0, 0.012, 0.012)
    waves[:, 2] = rng.uniform(0, 2 * np.pi, n_waves)
    return waves


def _draw_back_ribs(rng: np.random.Generator) -> list[Points]:
    """Draw the back parts of the ribs, from the spine outwards, and the collar bones."""
    first = rng.uniform(-0.12, 0.0)
    gap = rng.uniform(0.10, 0.15)
    fall = rng.uniform(0.10, 0.38)
    rise = rng.uniform(0.0, 0.10)
    collar = rng.uniform(0.08, 0.20)
    lines = []
    for side in SIDES:
        for y in np.arange(first, 1.2, gap):
            reach = wall(y + 0.4 * fall) + 0.03
            lines.append(
                curve(
                    (0.1, y),
                    (0.35 * reach, y - rise),
                    (0.80 * reach, y - 0.4 * rise),
                    (1.03 * reach, y + 0.25 * fall),
                    (reach, y + fall),
                )
                * (side, 1)
            )
        bone = curve((0.1, collar), (0.4, collar), (0.6, collar - rise), (1.05, collar - rise))
        lines.append(bone * (side, 1))
    return lines


def _draw_front_ribs(rng: np.random.Generator) -> list[Points]:
    """Draw the front parts of the ribs, from the side inwards."""
    first = rng.uniform(0.05, 0.2)
    gap = rng.uniform(0.10, 0.16)
    fall = rng.uniform(0.5, 1.5)
    lines = []
    for side in SIDES:
        for y in np.arange(first, 0.95, gap):
            reach = wall(y) + 0.02
            lines.append(
                curve(
                    (reach, y),
                    (0.97 * reach, y + 0.09 * fall),
                    (0.65 * reach, y + 0.19 * fall),
                    (0.28 + 0.3 * y, y + 0.18 * fall),
                )
                * (side, 1)
            )
    return lines


def _grow_vessels(rng: np.random.Generator) -> list[Points]:
    """Draw two vascular trees that fork outwards from the lung roots, branches by generation."""
    side = np.repeat(SIDES, _TRUNKS)
    # Most vessels point down and outwards; 0 is sideways, positive angles are downwards.
    angle = np.tile(np.linspace(-1.2, 1.4, _TRUNKS), 2) + rng.normal(0, 0.15, 2 * _TRUNKS)
    length = rng.uniform(0.04, 0.10, 2 * _TRUNKS)
    start = np.stack([0.27 * side, np.full(2 * _TRUNKS, 0.47)], axis=1)
    start += rng.normal(0, 0.03, start.shape)
    generations: list[Points] = []
    for _ in range(_VESSEL_GENERATIONS):
        # A length is in image widths; 3.1 and 1.9 are the usual sizes of one in chest units.
        step = np.stack([3.1 * side * np.cos(angle), 1.9 * np.sin(angle)], axis=1)
        step *= length[:, None]
        middle = start + 0.5 * step + rng.normal(0, 0.02, step.shape)
        end = start + step
        generations.append(np.stack([start, middle, end], axis=1))
        start = np.repeat(end, 2, axis=0)
        side = np.repeat(side, 2)
        fork = rng.uniform(0.05, 0.75, (len(angle), 2)) * (-1, 1)
        angle = (angle[:, None] + fork).reshape(-1)
        length = np.repeat(length, 2) * rng.uniform(0.45, 1.05, len(side))
    return generations
