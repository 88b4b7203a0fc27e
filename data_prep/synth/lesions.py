"""Lesions of synthetic images: opacities with known contrast and extent."""

from dataclasses import dataclass

import cv2
import numpy as np

from cxr_compare.data_prep.synth.anatomy import SIDES, Canvas, Field, wall

# These constants set the difficulty. The contrast-to-noise ratio is drawn from its range and is
# limited so that no lesion is denser than _AIRLESS. A higher upper end gives more dense lesions. A
# higher lower end, or more _LESIONS_PER_IMAGE, gives fewer images on which nothing can be seen, so
# that both systems learn faster.
CONTRAST_TO_NOISE = (0.8, 25.0)
_CONTRAST_SKEW = 0.55  # 1 is log-uniform; below 1, dense lesions are more frequent than faint ones
_RADIUS = (0.050, 0.140)  # image widths, log-uniform
_LESIONS_PER_IMAGE = (0.40, 0.35, 0.25)  # shares of positive images with 1, 2 and 3 lesions
_AIRLESS = 0.48  # largest attenuation of a lesion: lung with hardly any air
BOX_FRACTION = 0.3
"""A box spans the area in which a lesion exceeds this share of its own peak."""

_CANDIDATES = 12
_LEAST_LUNG = 0.6  # least visible share of lung at the centre of a lesion
_LEAST_INSIDE = 0.65  # least share of a lesion inside the border of the lung


@dataclass(frozen=True)
class Site:
    """A position in the chest of a synthetic patient at which lesions may appear.

    Attributes:
        x: Position of the centre across the chest, chest units.
        y: Position of the centre down the chest, chest units.
        radius: Mean radius of the lesion, in image widths.
        aspect: Height of the lesion divided by its width.
        seed: Random seed of the outline.
    """

    x: float
    y: float
    radius: float
    aspect: float
    seed: int


@dataclass(frozen=True)
class Lesion:
    """A lesion that was drawn on a synthetic image, with its box ``x1, y1, x2, y2`` in px.

    Attributes:
        contrast_to_noise: Peak attenuation of the lesion divided by the standard deviation of the
            structures around it.
    """

    contrast_to_noise: float
    x1: int
    y1: int
    x2: int
    y2: int


def draw_sites(rng: np.random.Generator) -> list[Site]:
    """Draw the positions at which a synthetic patient may have lesions.

    An image with lesions takes the first ones that are free, so follow-up images show the same.
    """
    sites = []
    low, high = _RADIUS
    for _ in range(_CANDIDATES):
        y = rng.uniform(0.12, 1.0)
        sites.append(
            Site(
                x=rng.choice(SIDES) * rng.uniform(0.28, 0.95) * wall(y),
                y=y,
                radius=low * (high / low) ** rng.random(),
                aspect=float(np.exp(rng.normal(0.12, 0.22))),
                seed=int(rng.integers(2**31)),
            )
        )
    return sites


def add_lesions(
    attenuation: Field, visible: Field, canvas: Canvas, sites: list[Site], rng: np.random.Generator
) -> list[Lesion]:
    """Add one to three lesions to a synthetic image, which is changed in place.

    The contrast of a lesion is a multiple of the local noise: the standard deviation, in the area
    of the lesion, of all structures of its size or smaller (ribs, vessels, texture, quantum noise).

    The attenuation of the X-rays is float32 ``(H, W)``; `visible` is the visible share of the lung
    in each pixel, ``(H, W)``, 0 outside the lungs. Lesions appear in the order of the sites.
    """
    n_lesions = 1 + int(rng.choice(len(_LESIONS_PER_IMAGE), p=_LESIONS_PER_IMAGE))
    low, high = CONTRAST_TO_NOISE
    clean = attenuation.copy()
    occupied = np.zeros(visible.shape, dtype=bool)
    lesions: list[Lesion] = []
    for site in sites:
        ratio = float(low * (high / low) ** (rng.random() ** _CONTRAST_SKEW))
        x, y = canvas.to_px(np.array([site.x, site.y]))
        reach = 3 * canvas.px(site.radius)
        window = (_span(y, reach, canvas.size), _span(x, reach, canvas.size))
        profile = _profile(site, visible[window], x - window[1].start, y - window[0].start, canvas)
        if profile is None:
            continue
        extent = profile > BOX_FRACTION
        if (extent & occupied[window]).any():
            continue
        noise = _local_noise(clean[window], extent)
        ratio = min(ratio, _AIRLESS / noise)
        attenuation[window] += np.float32(ratio * noise) * profile
        occupied[window] |= extent
        left, top, width, height = cv2.boundingRect(extent.astype(np.uint8))
        x1 = left + window[1].start
        y1 = top + window[0].start
        lesions.append(Lesion(ratio, x1, y1, x1 + width, y1 + height))
        if len(lesions) == n_lesions:
            break
    return lesions


def _span(centre: float, reach: float, size: int) -> slice:
    """Return the rows or columns of an image that a lesion can reach."""
    return slice(max(0, int(centre - reach)), max(0, min(size, int(centre + reach) + 2)))


def _profile(site: Site, lung: Field, x: float, y: float, canvas: Canvas) -> Field | None:
    """Return the lesion inside the lung, peak 1, or None if too little of it is inside."""
    rows, columns = lung.shape
    if not (0 <= x < columns and 0 <= y < rows) or lung[int(y), int(x)] < _LEAST_LUNG:
        return None
    radius = canvas.px(site.radius)
    stretch = np.sqrt(site.aspect)
    dx = (np.arange(columns, dtype=np.float32) + np.float32(0.5 - x)) * np.float32(stretch / radius)
    dy = (np.arange(rows, dtype=np.float32) + np.float32(0.5 - y)) / np.float32(stretch * radius)
    angle = np.arctan2(dy[:, None], dx)
    rng = np.random.default_rng(site.seed)
    outline = np.ones_like(angle)
    for waves in (2, 3, 5):
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        outline += np.float32(rng.normal(0, 0.22 / waves)) * np.cos(waves * angle + phase)
    distance = (dx**2 + dy[:, None] ** 2) / np.clip(outline, 0.5, 1.6) ** 2
    free = np.exp(-(distance**1.6))  # a plateau with a soft edge
    profile = free * lung
    if profile.sum() < _LEAST_INSIDE * free.sum():
        return None
    return profile / profile.max()


def _local_noise(clean: Field, extent: np.ndarray) -> float:
    """Compute the standard deviation of an image in a lesion, without coarser structures."""
    sigma = max(1.0, 0.5 * float(np.sqrt(extent.sum())))
    trend = cv2.GaussianBlur(clean, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    # Half of the central 68 % is the deviation of a normal distribution; sharp edges do not
    # affect it.
    low, high = np.percentile((clean - trend)[extent], (16, 84))
    return float(max(high - low, 1e-6) / 2)
