"""The disease: small focal opacities and faint veils, with a known contrast and true extents.

And distractors: devices, lines, a big heart, scars; on healthy and ill images alike.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from cxr_compare.data_prep.synth.anatomy import LUNG, Anatomy, Canvas, Field, power_law_texture

Kind = Literal["focal", "veil"]
Contrast = Literal["mixed", "high"]

# Difficulty of the phantom: the knobs. Contrast-to-noise is drawn log-uniformly in its range, then
# cut where a lesion would be denser than _AIRLESS (about 8 to 10 times the noise): the further the
# upper end lies beyond that, the more dense lesions there are. Raising the lower end, or
# _LESIONS_PER_IMAGE, leaves fewer images on which nothing can be seen: both systems learn faster.
CONTRAST_TO_NOISE: dict[Contrast, dict[Kind, tuple[float, float]]] = {
    "mixed": {"focal": (0.8, 30.0), "veil": (0.8, 20.0)},
    "high": {"focal": (8.0, 18.0), "veil": (6.0, 12.0)},
}
_CONTRAST_SKEW = 0.55  # 1 is log-uniform; below it dense lesions are more frequent than faint ones
RADIUS: dict[Kind, tuple[float, float]] = {"focal": (0.045, 0.090), "veil": (0.100, 0.180)}
_FOCAL_SHARE = 0.5
_LESIONS_PER_IMAGE = (0.40, 0.35, 0.25)  # shares of positive images with 1, 2 and 3
_AIRLESS = 0.8 * LUNG  # the most that a lesion adds: lung that holds hardly any air
BOX_FRACTION = 0.3  # a box spans where a lesion adds more than this share of its own peak

CANDIDATES = 12  # places a patient can fall ill at; a follow-up image shows the same ones first
_SEEN_AT_LEAST = 0.6  # lung visible at a lesion's centre
_KEPT_AT_LEAST = 0.65  # share of a lesion that must not be cut away by the lung's border
_REACH = 3.0  # a lesion's window, in radii to each side


@dataclass(frozen=True)
class Site:
    """Where and how a patient can fall ill, in thorax units."""

    kind: Kind  # `focal` or `veil`
    side: int  # -1 is the patient's right lung (the image's left), 1 the left
    across: float  # 0 at the midline, 1 at the chest wall
    down: float  # 0 at the apex, 1 at the diaphragm
    radius: float  # mean radius, image widths
    aspect: float  # height over width
    seed: int  # of the irregular outline and of a veil's texture


@dataclass(frozen=True)
class Lesion:
    """A lesion as it is on an image; the box is in px, continuous edges."""

    kind: Kind
    contrast_to_noise: float
    x1: int
    y1: int
    x2: int
    y2: int


def draw_sites(rng: np.random.Generator) -> tuple[Site, ...]:
    """The places where one patient falls ill, in order of preference."""
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
    """Add one to three lesions to an image, in place.

    A lesion's contrast is a multiple of the local noise: the deviation, under the
    lesion, of what the image shows there at the lesion's scale and below (ribs, vessels, texture,
    quantum noise).
    """
    wanted = 1 + int(rng.choice(len(_LESIONS_PER_IMAGE), p=_LESIONS_PER_IMAGE))
    draws = rng.random(len(sites))
    clean = attenuation.copy()
    taken = np.zeros(visible.shape, dtype=bool)
    lesions: list[Lesion] = []
    for site, draw in zip(sites, draws, strict=True):
        window = _window(site, visible, canvas, anatomy)
        shape = None if window is None else _shape(site, visible, canvas, window)
        if window is None or shape is None:
            continue
        extent = shape > BOX_FRACTION
        if (extent & taken[window.slices]).any():
            continue
        low, high = CONTRAST_TO_NOISE[contrast][site.kind]
        ratio = float(low * (high / low) ** (draw**_CONTRAST_SKEW))
        noise = _local_noise(clean[window.slices], extent)
        ratio = min(ratio, _AIRLESS / noise)
        attenuation[window.slices] += np.float32(ratio * noise) * shape
        taken[window.slices] |= extent
        x, y, width, height = cv2.boundingRect(extent.astype(np.uint8))
        x = x + window.left
        y = y + window.top
        lesions.append(Lesion(site.kind, ratio, x, y, x + width, y + height))
        if len(lesions) == wanted:
            break
    return lesions


@dataclass(frozen=True)
class _Window:
    """The part of an image that a lesion can reach, and the lesion's centre; px."""

    left: int
    top: int
    slices: tuple[slice, slice]
    x: float
    y: float


def _window(site: Site, visible: Field, canvas: Canvas, anatomy: Anatomy) -> _Window | None:
    """Where a site is on an image; None where no lung is seen there."""
    height = anatomy.top + site.down * (anatomy.base + 0.02 - anatomy.top)
    across = site.side * site.across * float(anatomy.wall(height, site.side))
    x, y = canvas.to_px(np.array([across, height])).tolist()
    reach = int(_REACH * canvas.width_px(site.radius)) + 2
    column = int(x)
    row = int(y)
    if not (0 <= column < canvas.size and 0 <= row < canvas.size):
        return None
    if visible[row, column] < _SEEN_AT_LEAST:
        return None
    left = max(0, column - reach)
    top = max(0, row - reach)
    slices = (slice(top, row + reach + 1), slice(left, column + reach + 1))
    return _Window(left, top, slices, x, y)


def _shape(site: Site, visible: Field, canvas: Canvas, window: _Window) -> Field | None:
    """A lesion's profile with peak 1, cut by its lung's border; None where it has no room."""
    lung = visible[window.slices].copy()
    rows, columns = lung.shape
    radius = canvas.width_px(site.radius)
    across = np.arange(columns, dtype=np.float32) + np.float32(window.left + 0.5 - window.x)
    down = np.arange(rows, dtype=np.float32) + np.float32(window.top + 0.5 - window.y)
    middle = canvas.to_px(np.zeros(2))[0] - window.x
    lung[:, (across - middle) * site.side < 0] = 0  # the other lung is not its place
    rng = np.random.default_rng(site.seed)
    distance = _distance(site, across / radius, down / radius, rng)
    # A focal lesion has a plateau and an edge; a veil fades away and is patchy.
    free = np.exp(-(distance ** (2.0 if site.kind == "focal" else 1.4)))
    if site.kind == "veil":
        patches = cv2.resize(power_law_texture(64, rng), (columns, rows))
        free *= np.clip(1 + 0.35 * patches, 0.2, 1.8)
    shape = free * lung
    if shape.sum() < _KEPT_AT_LEAST * free.sum():
        return None
    return shape / shape.max()


def _distance(site: Site, across: Field, down: Field, rng: np.random.Generator) -> Field:
    """Squared distance from the centre, 1 on the lesion's wavy outline."""
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
    """Deviation of an image under a lesion, after taking away what is coarser than the lesion."""
    x, y, width, height = cv2.boundingRect(extent.astype(np.uint8))
    margin = max(width, height) // 2 + 2
    rows = slice(max(0, y - margin), y + height + margin)
    columns = slice(max(0, x - margin), x + width + margin)
    patch = np.ascontiguousarray(clean[rows, columns])
    sigma = max(1.0, 0.5 * max(width, height))
    trend = cv2.GaussianBlur(patch, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    # Half of the central 68 %: the deviation of a normal law, unmoved by a wire or a pacemaker.
    low, high = np.percentile((patch - trend)[extent[rows, columns]], (16, 84))
    return float(max(high - low, 1e-6) / 2)
