"""Anatomy of a synthetic patient: one chest, which all images of the patient show.

Lengths are in thorax units, where 1 is the width of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from math import comb
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Field = NDArray[Any]  # float32, (H, W)

LUNG = 0.60
"""Attenuation that the air of a lung removes; 1 is the attenuation of a trunk of soft tissue."""
_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 px, so that shapes move smoothly with the pose
_SMALLEST_SIGMA = 2.5  # px; a wider blur is computed on a smaller image


@dataclass(frozen=True)
class Canvas:
    """Square image on which a synthetic patient is drawn, with the patient's position on it.

    Shapes are given in thorax units, in which the patient is upright and of usual size: x grows
    from the midline to the right of the image (the patient's left), and y grows down from the upper
    edge of the image; 1 is the width of the image.

    Attributes:
        size: Side of the image, px.
        scale: Magnification of the patient; 1 is the usual size.
        angle: Rotation of the patient in radians, clockwise on the screen.
        shift_x: Position of the midline on the horizontal centre line, in image widths from the
            centre.
        shift_y: Displacement of the patient downwards, in image widths.
    """

    size: int
    scale: float = 1.0
    angle: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    @cached_property
    def _turn(self) -> Points:
        cosine = np.cos(self.angle) * self.scale
        sine = np.sin(self.angle) * self.scale
        return np.array([[cosine, sine], [-sine, cosine]])

    def to_px(self, points: Points) -> Points:
        """Convert points from thorax units to pixel coordinates of the image.

        Args:
            points: Points x, y in thorax units (1 is the width of the image), shape ``(..., 2)``.

        Returns:
            Points x, y in px, not rounded, of the same shape.
        """
        centred = np.asarray(points, dtype=np.float64) - np.array([0.0, 0.5])
        turned = centred @ self._turn
        origin = np.array([0.5 + self.shift_x, 0.5 + self.shift_y])
        return (turned + origin) * self.size

    def _fixed_point(self, points: Points) -> NDArray[np.int32]:
        # Coordinates of cv2 begin at pixel centres, those of the phantom at pixel edges.
        return np.round((self.to_px(points) - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def blank(self) -> NDArray[np.uint8]:
        """Return a mask of zeros, uint8 ``(size, size)``, on which `stroke` can draw."""
        return np.zeros((self.size, self.size), np.uint8)

    def width_px(self, width: float) -> float:
        """Convert a length in thorax units to px of the image.

        Args:
            width: Length in thorax units; 1 is the width of the image.
        """
        return width * self.scale * self.size

    def fill(self, *outlines: Points) -> Field:
        """Draw closed outlines, filled, as a mask with values in [0, 1].

        Args:
            *outlines: Corners of each outline in thorax units (1 is the width of the image), shape
                ``(N, 2)``.

        Returns:
            Mask, float32 ``(H, W)``; the edges are smooth.
        """
        mask = self.blank()
        for outline in outlines:
            cv2.fillPoly(mask, [self._fixed_point(outline)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return to_field(mask)

    def stroke(
        self, mask: NDArray[np.uint8], lines: Sequence[Points], width: float, strength: float = 1.0
    ) -> None:
        """Draw open curves on an existing mask.

        A curve thinner than a pixel is drawn one pixel wide, but fainter.

        Args:
            mask: Mask to draw on, uint8 (H, W), 0 to 255. It is changed in place.
            lines: Points x, y of each curve in thorax units (1 is the width of the image), each of
                shape `(N, 2)` with the same N.
            width: Width of the curves, thorax units.
            strength: Brightness of the curves, in [0, 1]; 1 draws the value 255.
        """
        px = self.width_px(width)
        thickness = max(1, round(px))
        value = round(255 * strength * min(1.0, px / thickness))
        fixed = list(self._fixed_point(np.stack(lines)))
        cv2.polylines(mask, fixed, False, value, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def lines(self, curves: Sequence[Points], width: float) -> Field:
        """Draw open curves, as with `stroke`, on a new mask.

        Args:
            curves: Points x, y of each curve in thorax units (1 is the width of the image), each of
                shape `(N, 2)` with the same N.
            width: Width of the curves, thorax units.

        Returns:
            Mask with values in [0, 1], float32 `(H, W)`.
        """
        mask = self.blank()
        self.stroke(mask, curves, width)
        return to_field(mask)

    def soften(self, field: Field, sigma: float) -> Field:
        """Blur an image by a Gaussian whose width is given in thorax units.

        Args:
            field: Values of the pixels, float32 ``(H, W)``.
            sigma: Standard deviation of the Gaussian in thorax units (1 is the width of the image).

        Returns:
            Blurred values, of the same shape.
        """
        return blur(field, self.width_px(sigma))


def to_field(mask: NDArray[np.uint8]) -> Field:
    """Convert an 8-bit mask to float32 in [0, 1].

    Args:
        mask: Mask from 0 to 255, uint8 (H, W).
    """
    return mask.astype(np.float32) * np.float32(1 / 255)


def blur(field: Field, sigma: float) -> Field:
    """Blur an image by a Gaussian. A wide blur works on a smaller copy for speed.

    Args:
        field: Values of the pixels, float32 ``(H, W)``.
        sigma: Standard deviation of the Gaussian, px.

    Returns:
        Blurred values, of the same shape.
    """
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
    """Round a closed polygon by corner cutting (Chaikin 1974): `(N, 2)` to `(N * 2**rounds, 2)`."""
    points = np.asarray(corners, dtype=np.float64)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        near = 0.75 * points + 0.25 * following
        far = 0.25 * points + 0.75 * following
        points = np.stack([near, far], axis=1).reshape(-1, 2)
    return points


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0, corners: int = 36
) -> Points:
    """Return the outline of an ellipse as points, shape ``(corners, 2)``, in thorax units.

    In thorax units, x is the distance from the midline, y that from the upper edge of the image,
    and 1 is the width of the image.

    Args:
        x: Centre along x, thorax units.
        y: Centre along y, thorax units.
        radius_x: Radius along x, thorax units.
        radius_y: Radius along y, thorax units.
        angle: Rotation in radians.
        corners: Number of points of the outline.
    """
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    along = radius_x * np.cos(turn)
    across = radius_y * np.sin(turn)
    cosine = np.cos(angle)
    sine = np.sin(angle)
    return np.stack([x + along * cosine - across * sine, y + along * sine + across * cosine], 1)


def curve(*corners: tuple[float, float], steps: int = 24) -> Points:
    """Return points of a Bezier curve from its first to its last control point.

    Args:
        *corners: Control points x, y of the curve, at least 1.
        steps: Number of points to return.

    Returns:
        Points of the curve, shape ``(steps, 2)``, in the unit of the control points.

    Example:
        >>> curve((0.0, 0.0), (1.0, 2.0), steps=3).tolist()
        [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]]
    """
    return _bernstein(len(corners), steps) @ np.array(corners, dtype=np.float64)


@cache
def _bernstein(n_corners: int, steps: int) -> Points:
    """Return the weight of each corner at each step, `(steps, n_corners)`."""
    t = np.linspace(0, 1, steps)[:, None]
    k = np.arange(n_corners)
    binomial = np.array([comb(n_corners - 1, i) for i in range(n_corners)], dtype=np.float64)
    return binomial * t**k * (1 - t) ** (n_corners - 1 - k)


def power_law_texture(size: int, rng: np.random.Generator, slope: float = 0.0) -> Field:
    """Draw a texture like that of overlapping tissue, with mean 0 and standard deviation 1.

    The power spectrum of mammograms falls with about the third power of frequency. The same is
    assumed for the chest. The texture is a sum of smooth noise in octaves of frequency.

    Args:
        size: Side of the texture, px.
        rng: Random generator.
        slope: Change of the exponent of the spectrum from its usual value. A positive one makes the
            texture coarser, a negative one finer.

    Returns:
        Texture, float32 ``(size, size)``.

    Source:
        Burgess, Jacobson and Judy 2001.
    """
    texture = np.zeros((size, size), np.float32)
    total = 0.0
    for cells, weight in ((8, 1.0), (16, 0.85), (32, 0.65), (64, 0.50), (128, 0.38), (256, 0.22)):
        if cells > size:
            break
        weight *= (32 / cells) ** slope
        grid = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
        smooth = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        texture += np.float32(weight) * smooth
        total += weight**2
    return texture / np.float32(np.sqrt(0.6 * total))  # interpolation reduces the variance to 0.6


_VESSEL_GENERATIONS = 5
_TRUNKS = 7  # vessels that leave each lung root
_BORDER_SHARES = np.r_[0.3, 0.5, np.ones(15), 0.6, 0.3][:, None]  # the apices remain round


def _uniform(low: float, high: float) -> Any:
    """Make a field that is drawn uniformly from a range."""
    return field(metadata={"draw": lambda rng: rng.uniform(low, high)})


def _normal(deviation: float | tuple[float, ...], size: int | None = None) -> Any:
    """Make a field that is drawn from a normal distribution around 0."""
    return field(metadata={"draw": lambda rng: rng.normal(0, deviation, size)})


def _whole(low: int, below: int) -> Any:
    """Make a field that is a uniformly drawn whole number."""
    return field(metadata={"draw": lambda rng: int(rng.integers(low, below))})


@dataclass(frozen=True)
class _Skeleton:
    """Bones of one chest, drawn field by field; lengths are in image widths."""

    bone: float = _uniform(0.75, 1.25)  # density of bone, 1 is usual; falls with age
    backs: int = _whole(9, 12)
    back_contrast: float = _uniform(0.45, 1.35)  # density of the back ribs among the bones
    back_gap: float = _uniform(0.054, 0.080)  # distance between two back ribs on the spine
    back_slope: float = _uniform(0.06, 0.21)  # how far a back rib falls on its way to the side
    back_shift: float = _uniform(-0.03, 0.03)  # how much lower the back ribs start
    arch: float = _uniform(0.2, 1.9)  # how far a back rib rises beside the spine, 1 is usual
    fronts: int = _whole(5, 8)  # number of front ribs a side
    front_contrast: float = _uniform(0.3, 1.5)  # density of the front ribs among the bones
    front_gap: float = _uniform(0.056, 0.088)  # distance between two front ribs
    front_slope: float = _uniform(0.5, 1.5)  # how far one falls towards the middle, 1 is usual
    front_shift: float = _uniform(-0.03, 0.04)  # how much lower the front ribs start
    rib_width: float = _uniform(0.019, 0.031)  # thickness of a rib
    # Distance of each rib pair below its position in a regular cage, `(13,)`.
    jitter: Points = _normal(0.004, 13)  # noqa: RUF009 - it makes a field
    collar_shift: float = _normal(0.022)  # how much lower the collar bones lie
    collar_slope: float = _uniform(0.1, 1.9)  # how far a collar bone rises to the side
    collar_width: float = _uniform(0.023, 0.036)  # thickness of a collar bone
    blade: float = _uniform(0.85, 1.25)  # how far from the middle the shoulder blade reaches in
    arm: float = _uniform(0.96, 1.22)  # how far the arm is from the trunk, 1 is usual
    spine: float = _uniform(0.35, 1.2)  # density of the spine among the bones' surroundings
    spine_width: float = _uniform(0.052, 0.074)  # thickness of the spine
    # Sideways bends of the spine at neck, chest and belly, `(3,)`.
    spine_bend: Points = _normal((0.010, 0.030, 0.015))  # noqa: RUF009
    disc_gap: float = _uniform(0.043, 0.064)  # distance between two discs
    disc_shift: float = _uniform(0.0, 0.06)  # height of the first disc

    @classmethod
    def drawn(cls, rng: np.random.Generator, age: int) -> Self:
        """Draw the bones of a person."""
        bones = cls(**{item.name: item.metadata["draw"](rng) for item in fields(cls)})
        return replace(bones, bone=bones.bone * (1.12 - 0.004 * max(age - 30, 0)))


@dataclass(frozen=True)
class Anatomy:
    """Shape of one synthetic chest, which all images of a patient show.

    Lengths and positions are in image widths, see `Canvas`. A size of 1 is that of an average
    chest.

    Attributes:
        half_width: Distance from the midline to the inner side of the rib cage, where it is widest.
        skew: Share by which the left half of the rib cage is wider than the mean of both halves,
            and the right half narrower.
        taper: How much the rib cage narrows towards the top; 1 is usual, and a smaller value gives
            a barrel shape.
        top: Position y of the lung apices, from the upper edge of the image.
        base: Position y of the dome of the right diaphragm, from the upper edge of the image.
        base_drop: How much lower the dome of the left diaphragm lies than that of the right.
        dome: How much the diaphragm is domed; 1 is usual.
        sinus: Depth of the costophrenic angle; 1 is usual.
        inner: Width of the structures between the lungs; 1 is usual.
        hilum: Position of the lung roots, as a share of the lung's height, measured from its top.
        heart: Size of the heart; 1 is usual.
        heart_height: Height of the heart; 1 is usual.
        heart_shift: How far the heart lies to the patient's left of its usual position.
        aorta: Size of the aortic arch; 1 is usual.
        turn: How far the spine lies beside the midline, because the patient is turned.
        body: Outer half width of the trunk.
        shoulder: How much lower than usual the shoulders lie.
        neck: Half width of the neck.
        breast: Size of the breast shadows; 0 draws no breasts.
        breast_drop: How much lower than usual the breasts lie.
        skeleton: Shape and density of the bones.
        gas: Size of the gas bubble in the stomach; 0 draws no bubble.
        bowel: Further gas bubbles in the belly, (N, 3): position across, distance below the
            diaphragm, radius.
        borders: Differences of the outlines of the right and the left lung from the usual ones: 19
            points x, y each, (2, 19, 2).
        flanks: Differences of the outlines of the trunk from the usual ones on both sides: 10
            points x, y each, (2, 10, 2).
        hila: Size of the right and of the left lung root, (2,); 1 is usual.
        vessel: Density of the vessels; 1 is usual.
        vessels: Branches of both vascular trees, one array (N, 3, 2) for each generation: three
            points x, y of each branch.
    """

    half_width: float
    skew: float
    taper: float
    top: float
    base: float
    base_drop: float
    dome: float
    sinus: float
    inner: float
    hilum: float
    heart: float
    heart_height: float
    heart_shift: float
    aorta: float
    turn: float
    body: float
    shoulder: float
    neck: float
    breast: float
    breast_drop: float
    skeleton: _Skeleton
    gas: float
    bowel: Points
    borders: Points
    flanks: Points
    hila: Points
    vessel: float
    vessels: tuple[Points, ...]

    @property
    def hilum_y(self) -> float:
        """Distance of the lung roots from the upper edge of the image, in image widths."""
        return self.top + self.hilum * (self.base - self.top)

    def wall(self, y: np.ndarray | float, side: int = 0) -> np.ndarray:
        """Return the distance of the rib cage's inner side from the midline, at some height.

        Args:
            y: Heights below the upper edge of the image, in image widths; a number or an array.
            side: -1 for the patient's right, 1 for the left, 0 for the mean of both.

        Returns:
            Distances in image widths, of the same shape.
        """
        length = (self.base - self.top) / 0.55
        heights = self.top + np.array([-0.02, 0.02, 0.08, 0.18, 0.32, 0.46, 0.70]) * length
        shares = np.array([0.20, 0.44, 0.66, 0.84, 0.95, 1.0, 1.0]) ** self.taper
        return np.asarray(np.interp(y, heights, shares * self.half_width * (1 + side * self.skew)))

    def lung(self, side: int) -> Points:
        """Return the outline of a lung as points x, y, shape ``(N, 2)``.

        Points are in thorax units (see `Canvas`): 1 is the width of the image.

        Args:
            side: -1 for the patient's right, 1 for the left.
        """
        width = self.half_width * (1 + side * self.skew)
        top = self.top
        base = self.base + (self.base_drop if side > 0 else 0.0)
        crown = base - 0.015
        sinus = 0.10 * self.sinus
        inner = self.inner * self.half_width
        heights = np.linspace(top + 0.02, base - 0.02, 7)
        lateral = np.stack([self.wall(heights, side), heights], axis=1)
        corners = [
            (0.30 * width, top),
            *lateral,
            (width, base + 0.8 * sinus),
            (width - 0.004, base + sinus),  # the costophrenic angle stays sharp
            (width - 0.02, base + 0.6 * sinus),
            (0.80 * width, crown + 0.030 * self.dome),
            (0.55 * width, crown),
            (0.33 * width, crown + 0.020 * self.dome),
            (0.16 * width, crown + 0.055 * self.dome),
            (0.13 * inner, base - 0.15),
            (0.12 * inner, self.hilum_y),
            (0.14 * inner, top + 0.12),
            (0.17 * inner, top + 0.03),
        ]
        outline = _smooth_outline(np.array(corners) + self.borders[int(side > 0)], rounds=2)
        return outline * (side, 1.0)

    def heart_outline(self) -> Points:
        """Return the outline of the heart and its great vessels as points x, y, shape ``(N, 2)``.

        Points are in thorax units (see `Canvas`): 1 is the width of the image.
        """
        size = self.heart
        bottom = self.base + 0.055
        tall = self.heart_height
        reach = 0.185 * size * self.half_width / 0.33
        hilum = self.hilum_y
        corners = np.array(
            [
                (-0.055, hilum - 0.11),
                (0.03, hilum - 0.12),
                (0.062, hilum - 0.04),
                (0.070, hilum + 0.03),
                (0.55 * reach, hilum + 0.10),
                (0.95 * reach, bottom - 0.11 * tall),
                (1.02 * reach, bottom - 0.04 * tall),
                (0.85 * reach, bottom + 0.01),
                (0.2 * reach, bottom + 0.02),
                (-0.42 * reach, bottom + 0.01),
                (-0.60 * reach, bottom - 0.08 * tall),
                (-0.46 * reach, bottom - 0.18 * tall),
                (-0.065, hilum - 0.02),
            ]
        )
        return _smooth_outline(corners) + np.array([self.heart_shift, 0.0])

    def aortic_knob(self) -> Points:
        """Return the outline of the aortic arch beside the left lung as points, shape ``(N, 2)``.

        Points are x, y in thorax units (see `Canvas`): 1 is the width of the image.
        """
        size = self.aorta
        return ellipse(0.040 + self.turn, self.hilum_y - 0.095, 0.036 * size, 0.040 * size)

    def posterior_rib(self, index: int, side: int) -> Points:
        """Return the centre line of the back part of a rib as points, from the spine outwards.

        Points are x, y in thorax units (see `Canvas`), shape ``(N, 2)``.

        Args:
            index: Number of the rib; 0 is the uppermost.
            side: -1 for the patient's right, 1 for the left.
        """
        bones = self.skeleton
        y = self.top - 0.035 + bones.back_shift + index * bones.back_gap + bones.jitter[index]
        reach = float(self.wall(y + 0.4 * bones.back_slope, side)) + 0.012
        fall = bones.back_slope * (0.55 + 0.06 * index)
        line = curve(
            (0.03 + side * self.turn, y),
            (0.35 * reach, y - 0.030 * bones.arch),
            (0.80 * reach, y - 0.012 * bones.arch),
            (1.03 * reach, y + 0.25 * fall),
            (1.00 * reach, y + fall),
        )
        return line * (side, 1.0)

    def anterior_rib(self, index: int, side: int) -> Points:
        """Return the centre line of the front part of a rib as points, from the side inwards.

        Points are x, y in thorax units (see `Canvas`), shape ``(N, 2)``.

        Args:
            index: Number of the rib; 0 is the uppermost.
            side: -1 for the patient's right, 1 for the left.
        """
        bones = self.skeleton
        y = self.top + 0.055 + bones.front_shift + index * bones.front_gap - bones.jitter[index]
        reach = float(self.wall(y, side)) + 0.008
        fall = bones.front_slope
        inner = (0.30 + 0.035 * index) * self.half_width
        line = curve(
            (reach, y),
            (0.97 * reach, y + 0.05 * fall),
            (0.65 * reach, y + 0.105 * fall),
            (inner, y + 0.100 * fall),
        )
        return line * (side, 1.0)

    def clavicle(self, side: int, lift: float) -> Points:
        """Return the centre line of a collar bone as points, from its inner end.

        Points are x, y in thorax units (see `Canvas`), shape ``(N, 2)``.

        Args:
            side: -1 for the patient's right, 1 for the left.
            lift: Height by which the bone is raised, as in AP images, in image widths.
        """
        bones = self.skeleton
        reach = self.half_width / 0.32
        y = self.top + 0.075 + bones.collar_shift - lift
        rise = 0.055 * bones.collar_slope
        line = curve(
            (0.035, y),
            (0.13 * reach, y + 0.005),
            (0.20 * reach, y - rise),
            (0.335 * reach, y - rise),
        )
        # The inner ends are in front of the spine, so a turn of the patient separates them.
        return line * (side, 1.0) - np.array([0.6 * self.turn, 0.0])

    def trunk(self) -> Points:
        """Return the outline of neck, shoulders and trunk as points x, y, shape ``(N, 2)``.

        Points are in thorax units (see `Canvas`): 1 is the width of the image.
        """
        side = self.body
        top = self.top + self.shoulder
        half = np.array(
            [
                (self.neck, -0.3),
                (self.neck, top - 0.07),
                (0.055 + self.neck, top - 0.045),
                (0.74 * side, top - 0.015),
                (1.16 * side, top + 0.05),
                (1.36 * side, top + 0.16),
                (1.34 * side, top + 0.30),
                (1.04 * side, top + 0.40),
                (0.95 * side, self.base),
                (1.0 * side, 1.4),
            ]
        )
        left = half + self.flanks[1]
        right = half + self.flanks[0]
        return _smooth_outline(np.concatenate([left, right[::-1] * (-1, 1)]))


def draw_anatomy(rng: np.random.Generator, sex: str, age: int) -> Anatomy:
    """Draw the shape of a synthetic patient's chest at random.

    Args:
        rng: Random generator.
        sex: ``F`` or ``M``.
        age: Age in years.
    """
    half_width = (0.325 if sex == "M" else 0.31) * rng.uniform(0.86, 1.12)
    top = rng.uniform(0.07, 0.16)
    anatomy = Anatomy(
        half_width=half_width,
        skew=rng.normal(0, 0.025),
        taper=rng.uniform(0.65, 1.6),
        top=top,
        base=top + rng.uniform(0.44, 0.64),
        base_drop=rng.normal(0.02, 0.016),
        dome=rng.uniform(0.4, 1.9),
        sinus=rng.uniform(0.55, 1.4),
        inner=rng.uniform(0.8, 1.6),
        hilum=rng.uniform(0.41, 0.52),
        heart=rng.uniform(0.80, 1.16),
        heart_height=rng.uniform(0.75, 1.25),
        heart_shift=rng.normal(0, 0.014),
        aorta=rng.uniform(0.75, 1.2) + 0.003 * max(age - 50, 0),
        turn=0.0,
        body=half_width * rng.uniform(1.18, 1.65),
        shoulder=rng.normal(0.005, 0.025),
        neck=rng.uniform(0.070, 0.115),
        breast=rng.uniform(0.4, 1.4) if sex == "F" else 0.0,
        breast_drop=rng.normal(0.01, 0.035),
        skeleton=_Skeleton.drawn(rng, age),
        gas=rng.uniform(0.6, 1.8) if rng.random() < 0.6 else 0.0,
        bowel=rng.uniform((-0.75, 0.07, 0.010), (0.75, 0.30, 0.035), (int(rng.integers(0, 6)), 3)),
        borders=_wander(rng, 19, 0.011) * _BORDER_SHARES,
        flanks=_wander(rng, 10, 0.022) * (1.0, 0.7),
        hila=rng.uniform(0.5, 1.5, 2),
        vessel=rng.uniform(0.65, 1.35),
        vessels=(),
    )
    return replace(anatomy, vessels=_grow_vessels(anatomy, rng))


def _wander(rng: np.random.Generator, corners: int, deviation: float) -> Points:
    """Draw smooth displacements of the corners of two outlines, `(2, corners, 2)`."""
    steps = rng.normal(0, deviation, (2, corners + 2, 2))
    return (steps[:, :-2] + steps[:, 1:-1] + steps[:, 2:]) / np.sqrt(3)


def _grow_vessels(anatomy: Anatomy, rng: np.random.Generator) -> tuple[Points, ...]:
    """Draw two vascular trees that fork outwards from the hila, as segments by generation."""
    generations: list[Points] = []
    starts = []
    angles = []
    lengths = []
    for side in (-1, 1):
        # Most vessels point down and outwards; 0 is sideways, positive angles are downwards.
        turns = np.linspace(-1.2, 1.4, _TRUNKS) + rng.normal(0, 0.15, _TRUNKS)
        root = np.array([side * 0.085, anatomy.hilum_y])
        starts.append(root + rng.normal(0, 0.014, (_TRUNKS, 2)))
        angles.append(np.where(side > 0, turns, np.pi - turns))
        lengths.append(rng.uniform(0.04, 0.10, _TRUNKS))
    start = np.concatenate(starts)
    angle = np.concatenate(angles)
    length = np.concatenate(lengths)
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
