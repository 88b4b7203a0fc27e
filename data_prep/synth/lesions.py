"""Lesions of synthetic images: focal opacities and faint veils with known contrast and extent."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from cxr_compare.data_prep.synth.anatomy import LUNG, Anatomy, Canvas, Field, power_law_texture

Kind = Literal["focal", "veil"]
Contrast = Literal["mixed", "high"]

# These constants set the difficulty. The contrast-to-noise ratio is drawn log-uniformly from its
# range, and is limited so that no lesion is denser than _AIRLESS (about 8 to 10 times the noise). A
# higher upper end gives more dense lesions. A higher lower end, or more _LESIONS_PER_IMAGE, gives
# fewer images on which nothing can be seen, so that both systems learn faster.
CONTRAST_TO_NOISE: dict[Contrast, dict[Kind, tuple[float, float]]] = {
    "mixed": {"focal": (0.8, 30.0), "veil": (0.8, 20.0)},
    "high": {"focal": (8.0, 18.0), "veil": (6.0, 12.0)},
}
_CONTRAST_SKEW = 0.55  # 1 is log-uniform; below 1, dense lesions are more frequent than faint ones
RADIUS: dict[Kind, tuple[float, float]] = {"focal": (0.045, 0.090), "veil": (0.100, 0.180)}
_FOCAL_SHARE = 0.5
_LESIONS_PER_IMAGE = (0.40, 0.35, 0.25)  # shares of positive images with 1, 2 and 3 lesions
_AIRLESS = 0.8 * LUNG  # largest attenuation of a lesion: lung with hardly any air
BOX_FRACTION = 0.3
"""A box spans the area in which a lesion exceeds this share of its own peak."""

CANDIDATES = 12
"""Number of possible lesion sites of a patient; follow-up images show the same sites first."""
_LEAST_LUNG = 0.6  # least visible share of lung at the centre of a lesion
_LEAST_INSIDE = 0.65  # least share of a lesion inside the border of the lung
_REACH = 3.0  # half size of the window of a lesion, in radii


@dataclass(frozen=True)
class Site:
    """A position in the chest of a synthetic patient at which lesions may appear.

    Attributes:
        kind: ``focal`` for a compact opacity, ``veil`` for a large faint one.
        side: -1 for the patient's right lung, which is at the left of the image; 1 for the left
            lung.
        across: Position of the centre between the midline (0) and the chest wall (1).
        down: Position of the centre between the apex of the lung (0) and the diaphragm (1).
        radius: Mean radius of the lesion, in image widths.
        aspect: Height of the lesion divided by its width.
        seed: Random seed of the outline, and of the texture of a veil.
    """

    kind: Kind
    side: int
    across: float
    down: float
    radius: float
    aspect: float
    seed: int


@dataclass(frozen=True)
class Lesion:
    """A lesion that was drawn on a synthetic image, with its box in px of the image.

    Attributes:
        kind: ``focal`` for a compact opacity, ``veil`` for a large faint one.
        contrast_to_noise: Peak attenuation of the lesion divided by the standard deviation of the
            structures around it.
        x1: Left edge, px.
        y1: Upper edge, px.
        x2: Right edge, px.
        y2: Lower edge, px.
    """

    kind: Kind
    contrast_to_noise: float
    x1: int
    y1: int
    x2: int
    y2: int


def draw_sites(rng: np.random.Generator) -> tuple[Site, ...]:
    """Draw at random the positions at which a synthetic patient may have lesions.

    Args:
        rng: Random generator.

    Returns:
        `CANDIDATES` positions. An image with lesions takes the first ones that are free.
    """
    return tuple(_draw_site(rng) for _ in range(CANDIDATES))


def _draw_site(rng: np.random.Generator) -> Site:
    kind: Kind = "focal" if rng.random() < _FOCAL_SHARE else "veil"
    low, high = RADIUS[kind]
    return Site(
        kind=kind,
        side=int(rng.choice((-1, 1))),
        across=rng.uniform(0.22, 0.95),
        down=rng.uniform(0.12, 1.0),
        radius=low * (high / low) ** rng.random(),
        aspect=float(np.exp(rng.normal(0.0 if kind == "focal" else 0.25, 0.18))),
        seed=int(rng.integers(2**31)),
    )


def add_lesions(
    attenuation: Field,
    visible: Field,
    canvas: Canvas,
    anatomy: Anatomy,
    sites: tuple[Site, ...],
    rng: np.random.Generator,
    contrast: Contrast,
) -> list[Lesion]:
    """Add one to three lesions to a synthetic image.

    The contrast of a lesion is a multiple of the local noise. The local noise is the standard
    deviation, in the area of the lesion, of all structures of its size or smaller (ribs, vessels,
    texture, quantum noise).

    Args:
        attenuation: Attenuation of the X-rays in each pixel, float32 ``(H, W)``. It is changed in
            place.
        visible: Visible share of the lung in each pixel, in [0, 1], ``(H, W)``; 0 outside the
            lungs.
        canvas: Size of the image, and position, rotation and scale of the patient on it.
        anatomy: Shape of the patient's chest.
        sites: Positions of possible lesions, in the order in which lesions appear.
        rng: Random generator.
        contrast: Name of the range from which the contrast of a lesion is drawn: ``mixed`` (faint
            to dense) or ``high``.

    Returns:
        The lesions that were added.
    """
    n_lesions = 1 + int(rng.choice(len(_LESIONS_PER_IMAGE), p=_LESIONS_PER_IMAGE))
    draws = rng.random(len(sites))
    clean = attenuation.copy()
    occupied = np.zeros(visible.shape, dtype=bool)
    lesions: list[Lesion] = []
    for site, draw in zip(sites, draws, strict=True):
        window = _window(site, visible, canvas, anatomy)
        shape = None if window is None else _shape(site, visible, canvas, window)
        if window is None or shape is None:
            continue
        extent = shape > BOX_FRACTION
        if (extent & occupied[window.slices]).any():
            continue
        low, high = CONTRAST_TO_NOISE[contrast][site.kind]
        ratio = float(low * (high / low) ** (draw**_CONTRAST_SKEW))
        noise = _local_noise(clean[window.slices], extent)
        ratio = min(ratio, _AIRLESS / noise)
        attenuation[window.slices] += np.float32(ratio * noise) * shape
        occupied[window.slices] |= extent
        x, y, width, height = cv2.boundingRect(extent.astype(np.uint8))
        x = x + window.left
        y = y + window.top
        lesions.append(Lesion(site.kind, ratio, x, y, x + width, y + height))
        if len(lesions) == n_lesions:
            break
    return lesions


@dataclass(frozen=True)
class _Window:
    """Part of an image that a lesion can reach, and the centre of the lesion; px."""

    left: int
    top: int
    slices: tuple[slice, slice]
    x: float
    y: float


def _window(site: Site, visible: Field, canvas: Canvas, anatomy: Anatomy) -> _Window | None:
    """Return the window of a site on an image, or None if no lung is visible there."""
    height = anatomy.top + site.down * (anatomy.base + 0.02 - anatomy.top)
    across = site.side * site.across * float(anatomy.wall(height, site.side))
    x, y = canvas.to_px(np.array([across, height])).tolist()
    reach = int(_REACH * canvas.width_px(site.radius)) + 2
    column = int(x)
    row = int(y)
    if not (0 <= column < canvas.size and 0 <= row < canvas.size):
        return None
    if visible[row, column] < _LEAST_LUNG:
        return None
    left = max(0, column - reach)
    top = max(0, row - reach)
    slices = (slice(top, row + reach + 1), slice(left, column + reach + 1))
    return _Window(left, top, slices, x, y)


def _shape(site: Site, visible: Field, canvas: Canvas, window: _Window) -> Field | None:
    """Return the profile of a lesion inside the lung, peak 1, or None if too little is inside."""
    lung = visible[window.slices].copy()
    rows, columns = lung.shape
    radius = canvas.width_px(site.radius)
    across = np.arange(columns, dtype=np.float32) + np.float32(window.left + 0.5 - window.x)
    down = np.arange(rows, dtype=np.float32) + np.float32(window.top + 0.5 - window.y)
    middle = canvas.to_px(np.zeros(2))[0] - window.x
    lung[:, (across - middle) * site.side < 0] = 0  # a lesion does not extend into the other lung
    rng = np.random.default_rng(site.seed)
    distance = _distance(site, across / radius, down / radius, rng)
    # A focal lesion has a plateau and an edge; a veil fades away and is patchy.
    free = np.exp(-(distance ** (2.0 if site.kind == "focal" else 1.4)))
    if site.kind == "veil":
        patches = cv2.resize(power_law_texture(64, rng), (columns, rows))
        free *= np.clip(1 + 0.35 * patches, 0.2, 1.8)
    shape = free * lung
    if shape.sum() < _LEAST_INSIDE * free.sum():
        return None
    return shape / shape.max()


def _distance(site: Site, across: Field, down: Field, rng: np.random.Generator) -> Field:
    """Compute the squared distance from the centre, which is 1 on the irregular outline."""
    stretch = np.float32(np.sqrt(site.aspect))
    dx = across[None, :] * stretch
    dy = down[:, None] / stretch
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(angle)
    for waves in (2, 3, 5):
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        outline += np.float32(rng.normal(0, 0.22 / waves)) * np.cos(waves * angle + phase)
    return (dx**2 + dy**2) / np.clip(outline, 0.5, 1.6) ** 2


def _local_noise(clean: Field, extent: np.ndarray) -> float:
    """Compute the standard deviation of an image in a lesion, without coarser structures."""
    x, y, width, height = cv2.boundingRect(extent.astype(np.uint8))
    margin = max(width, height) // 2 + 2
    rows = slice(max(0, y - margin), y + height + margin)
    columns = slice(max(0, x - margin), x + width + margin)
    patch = np.ascontiguousarray(clean[rows, columns])
    sigma = max(1.0, 0.5 * max(width, height))
    trend = cv2.GaussianBlur(patch, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    # Half of the central 68 % is the deviation of a normal distribution; wires do not affect it.
    low, high = np.percentile((patch - trend)[extent[rows, columns]], (16, 84))
    return float(max(high - low, 1e-6) / 2)
