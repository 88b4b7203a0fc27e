"""Drawing in thorax units: every shape of the phantom goes through one pose onto float32 masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import comb
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Field = NDArray[Any]  # float32, (H, W)

_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 px, so that a pose shifts shapes smoothly
_SMALLEST_SIGMA = 2.5  # px; a wider blur is done on a smaller picture, where it is as good


@dataclass(frozen=True)
class Canvas:
    """A square film of `size` px under one pose.

    Thorax units: x grows to the image's right (the patient's left) from the midline, y grows
    down from the film's upper edge; 1 is the film's width.

    Attributes:
        size: Side in px.
        scale: Magnification of the patient.
        angle: Rotation in radians, clockwise on the screen.
        shift_x: Where the midline meets the film's centre line, in film widths from the centre.
        shift_y: Displacement downwards, in film widths.

    Example:
        >>> Canvas(size=100).to_px(np.array([[0.0, 0.25]])).tolist()
        [[50.0, 25.0]]
    """

    size: int
    scale: float = 1.0
    angle: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    @cached_property
    def _turn(self) -> Points:
        cosine, sine = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        return np.array([[cosine, sine], [-sine, cosine]])

    def to_px(self, points: Points) -> Points:
        """Map thorax units, shape `(..., 2)`, to continuous pixel coordinates."""
        centred = np.asarray(points, dtype=np.float64) - np.array([0.0, 0.5])
        turned = centred @ self._turn
        origin = np.array([0.5 + self.shift_x, 0.5 + self.shift_y])
        return (turned + origin) * self.size

    def _fixed_point(self, points: Points) -> NDArray[np.int32]:
        # cv2 counts from pixel centres, the phantom from pixel edges.
        return np.round((self.to_px(points) - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def blank(self) -> NDArray[np.uint8]:
        """An empty 8-bit mask to draw on."""
        return np.zeros((self.size, self.size), np.uint8)

    def width_px(self, width: float) -> float:
        """A length in thorax units as px."""
        return width * self.scale * self.size

    def fill(self, *outlines: Points) -> Field:
        """A mask in [0, 1] of filled outlines, each of shape `(N, 2)`."""
        mask = self.blank()
        for outline in outlines:
            cv2.fillPoly(mask, [self._fixed_point(outline)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return to_field(mask)

    def stroke(
        self,
        mask: NDArray[np.uint8],
        lines: Sequence[Points],
        width: float,
        strength: float = 1.0,
    ) -> None:
        """Draw open curves, each of shape `(N, 2)` with one N, on `mask`.

        A curve thinner than a pixel is drawn fainter instead.
        """
        px = self.width_px(width)
        thickness = max(1, round(px))
        value = round(255 * strength * min(1.0, px / thickness))
        fixed = list(self._fixed_point(np.stack(lines)))
        cv2.polylines(mask, fixed, False, value, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def soften(self, field: Field, sigma: float) -> Field:
        """Gaussian blur; `sigma` in thorax units."""
        return blur(field, self.width_px(sigma))


def to_field(mask: NDArray[np.uint8]) -> Field:
    """An 8-bit mask as float32 in [0, 1]."""
    return mask.astype(np.float32) * np.float32(1 / 255)


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur with `sigma` in px; a wide one works on a reduced copy, for speed."""
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


def smooth_outline(corners: Points, rounds: int = 3) -> Points:
    """Round a closed polygon by Chaikin's corner cutting: `(N, 2)` to `(N * 2**rounds, 2)`.

    Source:
        Chaikin 1974, An algorithm for high-speed curve generation.

    Example:
        >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> smooth_outline(square, rounds=1)[:2].tolist()
        [[0.25, 0.0], [0.75, 0.0]]
    """
    points = np.asarray(corners, dtype=np.float64)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        near, far = 0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following
        points = np.stack([near, far], axis=1).reshape(-1, 2)
    return points


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0, corners: int = 36
) -> Points:
    """The outline of an ellipse in thorax units, shape `(corners, 2)`; `angle` in radians."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    along, across = radius_x * np.cos(turn), radius_y * np.sin(turn)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([x + along * cosine - across * sine, y + along * sine + across * cosine], 1)


def curve(*corners: tuple[float, float], steps: int = 24) -> Points:
    """A smooth open curve from the first to the last corner (a Bezier curve of any degree).

    Example:
        >>> curve((0.0, 0.0), (1.0, 1.0), (2.0, 0.0), steps=3).tolist()
        [[0.0, 0.0], [1.0, 0.5], [2.0, 0.0]]
    """
    return _bernstein(len(corners), steps) @ np.array(corners, dtype=np.float64)


@cache
def _bernstein(n_corners: int, steps: int) -> Points:
    """How much each corner pulls at each step, `(steps, n_corners)`."""
    t = np.linspace(0, 1, steps)[:, None]
    k = np.arange(n_corners)
    binomial = np.array([comb(n_corners - 1, i) for i in range(n_corners)], dtype=np.float64)
    return binomial * t**k * (1 - t) ** (n_corners - 1 - k)
