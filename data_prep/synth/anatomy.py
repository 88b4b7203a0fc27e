"""The phantom's patient: one chest, in thorax units, that several images of it share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import comb
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Field = NDArray[Any]  # float32, (H, W)

_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 px, so that a pose shifts shapes smoothly
_SMALLEST_SIGMA = 2.5  # px; a wider blur is done on a smaller image, where it is as good


@dataclass(frozen=True)
class Canvas:
    """A square image of `size` px under one pose.

    Thorax units: x grows to the image's right (the patient's left) from the midline, y grows
    down from the image's upper edge; 1 is the image's width.

    Attributes:
        size: Side in px.
        scale: Magnification of the patient.
        angle: Rotation in radians, clockwise on the screen.
        shift_x: Where the midline meets the image's centre line, in image widths from the centre.
        shift_y: Displacement downwards, in image widths.

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


def _smooth_outline(corners: Points, rounds: int = 3) -> Points:
    """Round a closed polygon by Chaikin's corner cutting: `(N, 2)` to `(N * 2**rounds, 2)`.

    Source:
        Chaikin 1974, An algorithm for high-speed curve generation.

    Example:
        >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> _smooth_outline(square, rounds=1)[:2].tolist()
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


_VESSEL_GENERATIONS = 5
_TRUNKS = 7  # vessels that leave each lung root


@dataclass(frozen=True)
class Anatomy:
    """The shape of one chest; lengths in image widths, see `Canvas`.

    Attributes:
        half_width: Inner half width of the rib cage at its widest.
        top: Height of the lung apices.
        base: Height of the right diaphragm's dome.
        base_drop: How much lower the left dome lies.
        heart: Size of the heart, 1 is usual.
        body: Outer half width of the trunk.
        breast: Size of the breast shadows, 0 is none.
        rib_gap: Distance between two ribs on the spine.
        rib_slope: How far a rib falls on its way to the side.
        bone: Density of bone, 1 is usual; falls with age.
        spine_bend: Sideways bend of the spine.
        gas: Size of the gas bubble in the stomach, 0 is none.
        vessels: Per generation, the branches of both vascular trees, `(N, 3, 2)`.
    """

    half_width: float
    top: float
    base: float
    base_drop: float
    heart: float
    body: float
    breast: float
    rib_gap: float
    rib_slope: float
    bone: float
    spine_bend: float
    gas: float
    vessels: tuple[Points, ...]

    @property
    def hilum_y(self) -> float:
        """Height of the lung roots."""
        return self.top + 0.46 * (self.base - self.top)

    def wall(self, y: np.ndarray | float) -> np.ndarray:
        """Inner half width of the rib cage at height `y`."""
        heights = self.top + np.array([-0.02, 0.02, 0.08, 0.18, 0.32, 0.46, 0.70])
        widths = self.half_width * np.array([0.20, 0.44, 0.66, 0.84, 0.95, 1.0, 1.0])
        return np.asarray(np.interp(y, heights, widths))

    def lung(self, side: int) -> Points:
        """Outline of a lung; `side` -1 is the patient's right (the image's left), 1 the left."""
        width, top = self.half_width, self.top
        base = self.base + (self.base_drop if side > 0 else 0.0)
        heights = np.linspace(top + 0.02, base - 0.02, 7)
        lateral = [(float(self.wall(y)), float(y)) for y in heights]
        corners = [
            (0.30 * width, top),
            *lateral,
            (width, base + 0.08),
            (width - 0.004, base + 0.10),  # the costophrenic angle stays sharp
            (width - 0.02, base + 0.06),
            (0.80 * width, base + 0.015),
            (0.55 * width, base - 0.015),
            (0.33 * width, base + 0.005),
            (0.16 * width, base + 0.04),
            (0.13 * width, base - 0.15),
            (0.12 * width, self.hilum_y),
            (0.14 * width, top + 0.12),
            (0.17 * width, top + 0.03),
        ]
        outline = _smooth_outline(np.array(corners), rounds=2)
        return outline * (side, 1.0)

    def heart_outline(self) -> Points:
        """Outline of the heart and of the great vessels above it."""
        size, bottom = self.heart, self.base + 0.055
        reach = 0.185 * size * self.half_width / 0.33
        corners = np.array(
            [
                (-0.055, self.hilum_y - 0.11),
                (0.03, self.hilum_y - 0.12),
                (0.062, self.hilum_y - 0.04),
                (0.070, self.hilum_y + 0.03),
                (0.55 * reach, self.hilum_y + 0.10),
                (0.95 * reach, bottom - 0.11),
                (1.02 * reach, bottom - 0.04),
                (0.85 * reach, bottom + 0.01),
                (0.2 * reach, bottom + 0.02),
                (-0.42 * reach, bottom + 0.01),
                (-0.60 * reach, bottom - 0.08),
                (-0.46 * reach, bottom - 0.18),
                (-0.065, self.hilum_y - 0.02),
            ]
        )
        return _smooth_outline(corners)

    def aortic_knob(self) -> Points:
        """Outline of the aortic arch where it meets the left lung."""
        return ellipse(0.040, self.hilum_y - 0.095, 0.036, 0.040)

    def posterior_rib(self, index: int, side: int) -> Points:
        """Centre line of a back rib, spine to side; `index` 0 is the uppermost."""
        y = self.top - 0.035 + index * self.rib_gap
        reach = float(self.wall(y + 0.4 * self.rib_slope)) + 0.012
        fall = self.rib_slope * (0.55 + 0.06 * index)
        line = curve(
            (0.03, y),
            (0.35 * reach, y - 0.030),
            (0.80 * reach, y - 0.012),
            (1.03 * reach, y + 0.25 * fall),
            (1.00 * reach, y + fall),
        )
        return line * (side, 1.0)

    def anterior_rib(self, index: int, side: int) -> Points:
        """Centre line of a front rib, side to the cartilage; `index` 0 is the uppermost."""
        y = self.top + 0.055 + index * self.rib_gap * 1.05
        reach = float(self.wall(y)) + 0.008
        inner = (0.30 + 0.035 * index) * self.half_width
        line = curve(
            (reach, y),
            (0.97 * reach, y + 0.05),
            (0.65 * reach, y + 0.105),
            (inner, y + 0.100),
        )
        return line * (side, 1.0)

    def clavicle(self, side: int, lift: float) -> Points:
        """Centre line of a collar bone, inner end first; `lift` raises it (AP images)."""
        y = self.top + 0.075 - lift
        line = curve((0.035, y), (0.13, y + 0.005), (0.20, y - 0.055), (0.335, y - 0.055))
        return line * (side, 1.0)

    def trunk(self) -> Points:
        """Outline of neck, shoulders and trunk."""
        side, top = self.body, self.top
        half = np.array(
            [
                (0.075, -0.3),
                (0.078, top - 0.07),
                (0.13, top - 0.045),
                (0.74 * side, top - 0.015),
                (1.16 * side, top + 0.05),
                (1.36 * side, top + 0.16),
                (1.34 * side, top + 0.30),
                (1.04 * side, top + 0.40),
                (0.95 * side, self.base),
                (1.0 * side, 1.4),
            ]
        )
        return _smooth_outline(np.concatenate([half, half[::-1] * (-1, 1)]))


def draw_anatomy(rng: np.random.Generator, sex: str, age: int) -> Anatomy:
    """Draw one chest."""
    half_width = (0.325 if sex == "M" else 0.31) * rng.uniform(0.93, 1.08)
    top = rng.uniform(0.085, 0.145)
    anatomy = Anatomy(
        half_width=half_width,
        top=top,
        base=top + rng.uniform(0.50, 0.60),
        base_drop=rng.uniform(0.005, 0.035),
        heart=rng.uniform(0.86, 1.12),
        body=half_width * rng.uniform(1.20, 1.50),
        breast=rng.uniform(0.5, 1.2) if sex == "F" else 0.0,
        rib_gap=rng.uniform(0.060, 0.072),
        rib_slope=rng.uniform(0.10, 0.17),
        bone=rng.uniform(0.85, 1.2) * (1.12 - 0.004 * max(age - 30, 0)),
        spine_bend=rng.normal(0, 0.006),
        gas=rng.uniform(0.6, 1.6) if rng.random() < 0.6 else 0.0,
        vessels=(),
    )
    return replace(anatomy, vessels=_grow_vessels(anatomy, rng))


def _grow_vessels(anatomy: Anatomy, rng: np.random.Generator) -> tuple[Points, ...]:
    """Two vascular trees that fork outwards from the hila, as segments by generation."""
    generations: list[Points] = []
    starts, angles, lengths = [], [], []
    for side in (-1, 1):
        # Down and out mostly, a few up: 0 points sideways, positive angles downwards.
        turns = np.linspace(-1.2, 1.4, _TRUNKS) + rng.normal(0, 0.15, _TRUNKS)
        root = np.array([side * 0.085, anatomy.hilum_y])
        starts.append(root + rng.normal(0, 0.014, (_TRUNKS, 2)))
        angles.append(np.where(side > 0, turns, np.pi - turns))
        lengths.append(rng.uniform(0.04, 0.10, _TRUNKS))
    start, angle, length = np.concatenate(starts), np.concatenate(angles), np.concatenate(lengths)
    for _ in range(_VESSEL_GENERATIONS):
        step = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
        end = start + step
        bend = np.stack([-step[:, 1], step[:, 0]], axis=1) * rng.normal(0, 0.14, (len(step), 1))
        middle = start + 0.5 * step + bend
        generations.append(np.stack([start, middle, end], axis=1))
        start = np.repeat(end, 2, axis=0)
        fork = rng.uniform(0.05, 0.75, (len(angle), 2)) * (-1, 1)
        angle = (angle[:, None] + fork).reshape(-1)
        length = np.repeat(length, 2) * rng.uniform(0.45, 1.05, 2 * len(length))
    return tuple(generations)
