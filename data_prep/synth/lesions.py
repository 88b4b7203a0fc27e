"""Lesions of synthetic images: opacities with known contrast and extent."""

from dataclasses import dataclass

import cv2
import numpy as np

from cxr_compare.data_prep.synth.anatomy import SIDES, Canvas, Field, Points, wall

# These constants set the difficulty. The contrast-to-noise ratio is drawn from its range and is
# limited so that no lesion is denser than _AIRLESS. A higher upper end gives more dense lesions. A
# higher lower end, or more _LESIONS_PER_IMAGE, gives fewer images on which nothing can be seen, so
# that both systems learn faster.
CONTRAST_TO_NOISE = (0.8, 25.0)
_CONTRAST_SKEW = 0.55  # 1 is log-uniform; below 1, dense lesions are more frequent than faint ones
_RADIUS = (0.050, 0.140)  # image widths, log-uniform
_LESIONS_PER_IMAGE = (0.40, 0.35, 0.25)  # shares of positive images with 1, 2 and 3 lesions
_AIRLESS = 0.48  # largest attenuation of a lesion: lung with hardly any air
_BOX_FRACTION = 0.3
"""A box spans the area in which a lesion exceeds this share of its own peak."""

_CANDIDATES = 12
_WAVES = (0.11, 0.073, 0.044)  # heights of waves of the outline, in radii
_LEAST_LUNG = 0.6  # least visible share of lung at the centre of a lesion
_LEAST_INSIDE = 0.65  # least share of a lesion inside the border of the lung


@dataclass(frozen=True)
class Site:
    """A position in the chest of a synthetic patient at which lesions may appear.

    Attributes:
        centre: Position ``x, y`` of the centre, chest units.
        radius: Mean radius of the lesion, in image widths.
        aspect: Height of the lesion divided by its width.
        waves: Phases and heights of 2, 3 and 5 waves around its outline, ``(2, 3)``.
    """

    centre: Points
    radius: float
    aspect: float
    waves: Points


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
    n = _CANDIDATES
    y = rng.uniform(0.12, 1.0, n)
    x = rng.choice(SIDES, n) * rng.uniform(0.28, 0.95, n) * wall(y)
    low, high = _RADIUS
    radius = low * (high / low) ** rng.random(n)
    aspect = np.exp(rng.normal(0.12, 0.22, n))
    waves = np.stack([rng.uniform(0, 2 * np.pi, (n, 3)), rng.normal(0, _WAVES, (n, 3))], axis=1)
    return [Site(*row) for row in zip(np.stack([x, y], 1), radius, aspect, waves, strict=True)]


def add_lesions(
    attenuation: Field, visible: Field, canvas: Canvas, sites: list[Site], rng: np.random.Generator
) -> list[Lesion]:
    """Add one to three lesions to a synthetic image, which is changed in place.

    The contrast of a lesion is a multiple of the local noise: the standard deviation, in the area
    of the lesion, of all structures of its size or smaller (ribs, vessels, texture, quantum noise).

    The attenuation of the X-rays is float32 ``(H, W)``; `visible` is the visible share of the lung
    in each pixel, ``(H, W)``, 0 outside the lungs. Lesions appear in the order of the sites.
    """
    n_lesions = rng.choice((1, 2, 3), p=_LESIONS_PER_IMAGE)
    low, high = CONTRAST_TO_NOISE
    clean = attenuation.copy()
    occupied = np.zeros(visible.shape, dtype=bool)
    lesions: list[Lesion] = []
    for site in sites:
        ratio = low * (high / low) ** (rng.random() ** _CONTRAST_SKEW)
        x, y = canvas.to_px(site.centre)
        is_inside = min(x, y) >= 0 and max(x, y) < canvas.size
        if not is_inside or visible[int(y), int(x)] < _LEAST_LUNG:
            continue
        radius = canvas.px(site.radius)
        left, top = (max(0, int(centre - 3 * radius)) for centre in (x, y))
        window = np.s_[top : int(y + 3 * radius) + 2, left : int(x + 3 * radius) + 2]
        lung = visible[window]
        free = _profile(site, lung.shape, np.array([x - left, y - top]), radius)
        profile = free * lung
        extent = profile > _BOX_FRACTION * profile.max()
        least = _LEAST_INSIDE * free.sum()
        if profile.sum() < least or (extent & occupied[window]).any():
            continue
        noise = _local_noise(clean[window], extent)
        ratio = min(ratio, _AIRLESS / noise)
        attenuation[window] += np.float32(ratio * noise / profile.max()) * profile
        occupied[window] |= extent
        x1, y1, width, height = cv2.boundingRect(extent.astype(np.uint8))
        x1, y1 = x1 + left, y1 + top
        lesions.append(Lesion(ratio, x1, y1, x1 + width, y1 + height))
        if len(lesions) == n_lesions:
            break
    return lesions


def _profile(site: Site, shape: tuple[int, ...], centre: Points, radius: float) -> Field:
    """Return the lesion as if all were lung, about 1 in its middle, on an image of a shape."""
    rows, columns = np.ogrid[0.5 : shape[0], 0.5 : shape[1]]
    stretch = np.sqrt(site.aspect)
    x = ((columns - centre[0]) * (stretch / radius)).astype(np.float32)
    y = ((rows - centre[1]) / (stretch * radius)).astype(np.float32)
    angle = np.arctan2(y, x)
    outline = np.ones_like(angle)
    for waves, phase, height in zip((2, 3, 5), *site.waves.astype(np.float32), strict=True):
        outline += height * np.cos(waves * angle + phase)
    distance = (x**2 + y**2) / np.clip(outline, 0.5, 1.6) ** 2
    return np.exp(-(distance**1.6))  # a plateau with a soft edge


def _local_noise(clean: Field, extent: np.ndarray) -> float:
    """Compute the standard deviation of an image in a lesion, without coarser structures."""
    sigma = max(1.0, 0.5 * float(np.sqrt(extent.sum())))
    trend = cv2.GaussianBlur(clean, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    # Half of the central 68 % is the deviation of a normal distribution; sharp edges do not
    # affect it.
    low, high = np.percentile((clean - trend)[extent], (16, 84))
    return float(max(high - low, 1e-6) / 2)
