"""Anatomy of a synthetic patient, and the image plane on which it is drawn.

Shapes are points in chest units: x is 0 at the midline, and 1 at the rib cage of the side that is
drawn; y is 0 at the apex of the lungs and 1 at the diaphragm.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Field = NDArray[Any]  # float32, (H, W)
Shape = tuple[Points, float, float]
"""Points ``(N, M, 2)`` of outlines or lines, what they add, and the width of lines in image widths.

The outlines of a shape with the width 0 are filled.
"""

SIDES = (-1, 1)
"""Right and left half of the patient, as the sign of x."""

_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 px, so that shapes move smoothly with the pose
_T = np.linspace(0, 1, 9)  # along a line


def wall(y: Any) -> Any:
    """Return the distance of the rib cage's inner side from the midline, chest units."""
    return 1 - 0.67 * np.exp(-4.5 * y)


def _points(x: Any, y: Any) -> Points:
    return np.stack(np.broadcast_arrays(x, y), axis=-1)


def _band(lines: Points, x: float, y: float) -> Points:
    """Return outlines of lines that a pen of half the width `x` and half the height `y` draws."""
    pen = np.array([x, y])
    return np.concatenate([lines + pen, (lines - pen)[..., ::-1, :]], axis=-2)


def _both_sides(left: Points) -> Points:
    return np.concatenate([left, left * (-1, 1)])


def _smooth(x: Any, y: Any) -> Points:
    """Round a closed polygon by corner cutting (Chaikin 1974): from `N` to `(1, 4 N, 2)`."""
    points = _points(x, y)
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        near, far = 0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following
        points = np.stack([near, far], axis=1).reshape(-1, 2)
    return points[None]


_LEVELS = np.linspace(-0.02, 1.15, 14)
LUNGS = _both_sides(
    _smooth(
        [*wall(_LEVELS), 0.94, 0.80, 0.55, 0.33, 0.16, 0.14, 0.14, 0.17],
        [*_LEVELS, 1.10, 1.03, 0.97, 1.01, 1.06, 0.73, 0.22, 0.06],
    )
)
HEART = _smooth(
    [-0.17, 0.08, 0.22, 0.22, 0.32, 0.53, 0.58, 0.48, -0.24, -0.34, -0.26, -0.20],
    [0.27, 0.16, 0.23, 0.53, 0.67, 0.90, 1.03, 1.12, 1.12, 0.95, 0.77, 0.43],
)
TRUNK = _both_sides(
    _smooth(
        [-0.1, 0.20, 0.20, 0.33, 0.74, 1.16, 1.36, 1.34, 1.04, 0.95, 1.00, -0.1],
        [-2.0, -0.90, -0.15, -0.09, -0.04, 0.08, 0.28, 0.54, 0.73, 1.00, 3.00, 3.00],
    )
)
_AXIS = _points([0], [np.linspace(-0.9, 2.5, 30)])
ABDOMEN = _band(_AXIS[:, 17:], 2, 0)
MEDIASTINUM = _band(_AXIS, 0.16, 0)
SPINE: list[Shape] = [
    (_band(_AXIS, 0.1, 0), 0.09, 0),
    (_points([-0.09, 0.09], np.arange(-0.5, 2.0, 0.1)[:, None]), -0.027, 0.01),  # discs
    (_points([0.03 * _T], 1.3 * _T - 0.9), -0.13, 0.034),  # the air of the windpipe
]


@dataclass(frozen=True)
class Canvas:
    """Square image on which a synthetic patient is drawn, with the patient's position on it.

    Attributes:
        size: Side of the image, px.
        extent: Distances from the midline to the rib cage and from the apex of the lungs to the
            diaphragm, in image widths.
        waves: Smooth displacements of all shapes, ``(N, 5)``: frequency along x and y, phase, and
            amplitude along x and y in image widths.
        scale: Magnification of the patient; 1 is the usual size.
        angle: Rotation of the patient in radians, clockwise on the screen.
        apex: Position x and y of the apex of the lungs, in image widths.
    """

    size: int
    extent: tuple[float, float]
    waves: Points
    scale: float
    angle: float
    apex: tuple[float, float]

    def to_px(self, points: Points) -> Points:
        """Convert points ``(..., 2)`` from chest units to px of the image, not rounded."""
        displaced = np.sin(points @ self.waves[:, :2].T + self.waves[:, 2]) @ self.waves[:, 3:]
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turned = (points * self.extent + displaced) @ [[cosine, sine], [-sine, cosine]]
        return (turned * self.scale + self.apex) * self.size

    def px(self, width: float) -> float:
        """Convert a length from image widths to px, magnified as the patient is."""
        return width * self.scale * self.size

    def draw(self, *shapes: Shape) -> Field:
        """Draw the sum of shapes, float32 ``(H, W)``."""
        field = np.zeros((self.size, self.size), np.float32)
        for points, strength, width in shapes:
            mask = np.zeros(field.shape, np.uint8)
            # Coordinates of cv2 begin at pixel centres, those of the phantom at pixel edges.
            at = np.round((self.to_px(points) - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
            if width:
                thickness = max(1, round(self.px(width)))
                cv2.polylines(mask, list(at), False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
                # A line thinner than a pixel is drawn one pixel wide, but fainter.
                strength *= min(1.0, self.px(width) / thickness)
            else:
                for outline in at:  # cv2 leaves out where several of one call overlap
                    cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
            field += np.float32(strength / 255) * mask
        return field

    def soften(self, field: Field, sigma: float) -> Field:
        """Blur an image by a Gaussian whose standard deviation is given in image widths."""
        return _blur(field, self.px(sigma))


def _blur(field: Field, sigma: float) -> Field:
    if sigma > 3:  # a wide blur works on a smaller copy
        return cv2.resize(_blur(cv2.pyrDown(field), sigma / 2), field.shape[::-1])
    return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def draw_waves(rng: np.random.Generator, n_waves: int) -> Points:
    """Draw smooth displacements of all shapes of a chest, the waves of a `Canvas`."""
    waves = rng.normal(0, 1, (n_waves, 5)) * (2.5, 3.0, 0, 0.012, 0.012)
    waves[:, 2] = rng.uniform(0, 2 * np.pi, n_waves)
    return waves


def draw_bones(rng: np.random.Generator, density: float) -> list[Shape]:
    """Draw the ribs and the collar bones."""
    y = np.arange(rng.uniform(-0.12, 0.0), 1.2, rng.uniform(0.10, 0.15))[:, None]
    fall, rise = rng.uniform(0.10, 0.38), rng.uniform(0.0, 0.10)
    reach = wall(y + 0.4 * fall) + 0.03
    # From the spine outwards and down.
    back = _points(0.1 + (reach - 0.1) * np.sin(2 * _T) / np.sin(2), y + fall * _T**3)
    back[..., 1] -= 0.6 * rise * np.sin(np.pi * _T)
    collar = _points([0.1 + 0.95 * _T], rng.uniform(0.08, 0.20) - rise * _T**2 * (3 - 2 * _T))
    # From the side inwards and down.
    y = np.arange(rng.uniform(0.05, 0.2), 0.95, rng.uniform(0.10, 0.16))[:, None]
    fall, reach = rng.uniform(0.1, 0.28), wall(y) + 0.02
    front = _points(reach - (reach - 0.28 - 0.3 * y) * _T**1.5, y + fall * np.sin(1.8 * _T))
    half = rng.uniform(0.018, 0.029)
    shapes: list[Shape] = []
    # A pen that is held aslant draws ribs about equally wide; bone is denser at its rim.
    for lines, slant, strength in (
        (np.concatenate([back, collar]), -0.5, 0.09),
        (front, 0.5, 0.055),
    ):
        for width, share in ((half, 1.0), (0.55 * half, -0.38)):
            outlines = _both_sides(_band(lines, slant * width, width))
            shapes.append((outlines, share * density * strength, 0))
    return shapes


def grow_vessels(rng: np.random.Generator) -> list[Shape]:
    """Draw two vascular trees that fork outwards from the lung roots."""
    side = np.repeat(SIDES, 7)
    # Most vessels point down and outwards; 0 is sideways, positive angles are downwards.
    angle = np.tile(np.linspace(-1.2, 1.4, 7), 2) + rng.normal(0, 0.15, 14)
    length = rng.uniform(0.04, 0.10, 14)
    start = _points(0.27 * side, 0.47) + rng.normal(0, 0.03, (14, 2))
    shapes: list[Shape] = []
    for level in range(5):
        # A length is in image widths; 3.1 and 1.9 are the usual sizes of one in chest units.
        step = _points(3.1 * side * np.cos(angle), 1.9 * np.sin(angle)) * length[:, None]
        end = start + step
        shapes.append((np.stack([start, end], axis=1), 0.10 * 0.8**level, 0.017 * 0.68**level))
        start, side = end.repeat(2, axis=0), side.repeat(2)
        angle = angle.repeat(2) + rng.uniform(0.05, 0.75, len(side)) * np.tile(SIDES, len(angle))
        length = length.repeat(2) * rng.uniform(0.45, 1.05, len(side))
    return shapes


def draw_scars(rng: np.random.Generator, n_scars: int) -> Points:
    """Draw bands in the lungs."""
    y, x, dx, dy, bend = rng.uniform(
        (0.15, 0.35, 0.06, -0.06, -0.05), (0.9, 0.85, 0.22, 0.06, 0.05), (n_scars, 5)
    ).T[..., None]
    along = 2 * _T - 1
    x *= rng.choice(SIDES, n_scars)[:, None] * wall(y)
    return _points(x + dx * along, y + dy * along + bend * along**2)
