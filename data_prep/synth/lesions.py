"""The disease: small focal opacities and faint veils, with a known contrast and true extents.

And distractors: devices, lines, a big heart, scars; on healthy and ill images alike.
"""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from cxr_compare.data_prep.synth.anatomy import (
    LUNG,
    Anatomy,
    Canvas,
    Field,
    curve,
    ellipse,
    power_law_texture,
    to_field,
)

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


# Of the patient, on each of the patient's images: names, and the share that has some.
CHRONIC = ("pacemaker", "big_heart", "scar", "granuloma", "nipples", "raised_diaphragm"), 0.42
ACUTE = ("central_line", "ecg_leads", "tube"), 0.20  # of the day: drawn anew for each image
_METAL = 0.55


def draw_names(rng: np.random.Generator, names: tuple[str, ...], rate: float) -> tuple[str, ...]:
    """Which distractors a patient or an image has; often none."""
    if rng.random() >= rate:
        return ()
    count = 1 + int(rng.random() < 0.3)
    return tuple(sorted(str(name) for name in rng.choice(names, count, replace=False)))


def alter_anatomy(
    anatomy: Anatomy, distractors: tuple[str, ...], rng: np.random.Generator
) -> Anatomy:
    """Change the chest itself where a distractor asks for it (big heart, raised diaphragm)."""
    size = rng.uniform(1.28, 1.55)
    rise = rng.uniform(0.035, 0.075)
    if "big_heart" in distractors:
        anatomy = replace(anatomy, heart=anatomy.heart * size)
    if "raised_diaphragm" in distractors:
        anatomy = replace(anatomy, base=anatomy.base - rise)
    return anatomy


def draw_distractors(
    canvas: Canvas, anatomy: Anatomy, distractors: tuple[str, ...], rng: np.random.Generator
) -> Field:
    """Draw what lies over the chest."""
    field = np.zeros((canvas.size, canvas.size), np.float32)
    for name in distractors:
        if name in _DRAWERS:
            field += _DRAWERS[name](canvas, anatomy, rng)
    return field


def _pacemaker(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    side = 1 if rng.random() < 0.8 else -1
    x = side * 0.70 * anatomy.half_width
    y = anatomy.top + rng.uniform(0.10, 0.17)
    box = ellipse(x, y, 0.048, 0.040, rng.uniform(-0.6, 0.6))
    end = (rng.uniform(0.02, 0.08), anatomy.base - rng.uniform(0.02, 0.06))
    lead = curve((x, y), (0.0, anatomy.top - 0.02), (-0.10, anatomy.hilum_y + 0.08), end)
    wire = canvas.lines([lead], 0.005)
    return _METAL * np.maximum(canvas.soften(canvas.fill(box), 0.003), 0.6 * wire)


def _scar(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    mask = canvas.blank()
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice((-1.0, 1.0))
        x = side * rng.uniform(0.40, 0.85) * anatomy.half_width
        y = rng.uniform(anatomy.top + 0.10, anatomy.base - 0.05)
        length = rng.uniform(0.05, 0.13)
        angle = rng.uniform(-0.7, 0.7)
        dx = length * np.cos(angle) / 2
        dy = length * np.sin(angle) / 2
        band = curve((x - dx, y - dy), (x, y + rng.normal(0, 0.01)), (x + dx, y + dy))
        canvas.stroke(mask, [band], rng.uniform(0.005, 0.011))
    return rng.uniform(0.08, 0.20) * canvas.soften(to_field(mask), 0.003)


def _granuloma(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    discs = []
    for _ in range(int(rng.integers(1, 4))):
        x = rng.choice((-1.0, 1.0)) * rng.uniform(0.35, 0.90) * anatomy.half_width
        y = rng.uniform(anatomy.top + 0.08, anatomy.base - 0.05)
        radius = rng.uniform(0.005, 0.010)
        discs.append(ellipse(x, y, radius, radius * rng.uniform(0.8, 1.2)))
    return rng.uniform(0.18, 0.35) * canvas.soften(canvas.fill(*discs), 0.002)


def _nipples(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    # In front of the lung, alike on both sides: the classic false nodule.
    x = rng.uniform(0.55, 0.68) * anatomy.half_width
    y = anatomy.base - rng.uniform(0.02, 0.09)
    radius = rng.uniform(0.010, 0.015)
    discs = [ellipse(s * x, y + rng.normal(0, 0.006), radius, radius) for s in (-1, 1)]
    return rng.uniform(0.07, 0.14) * canvas.soften(canvas.fill(*discs), 0.003)


def _central_line(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    side = -1 if rng.random() < 0.75 else 1
    outside = side * rng.uniform(0.5, 1.0) * anatomy.half_width
    start = (outside, anatomy.top + rng.uniform(-0.08, 0.12))
    end = (-0.035, anatomy.hilum_y + rng.uniform(0.0, 0.08))
    line = curve(start, (side * 0.10, anatomy.top - 0.02), (-0.045, anatomy.top + 0.1), end)
    return 0.22 * canvas.soften(canvas.lines([line], 0.006), 0.0015)


def _ecg_leads(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    mask = canvas.blank()
    discs = []
    for side in (-1, 1):
        x = side * rng.uniform(0.55, 0.95) * anatomy.half_width
        for y in (anatomy.top + rng.uniform(0.04, 0.14), anatomy.base + rng.uniform(-0.12, 0.05)):
            discs.append(ellipse(x, y, 0.011, 0.011))
            bend = (x + rng.normal(0, 0.15), y + rng.uniform(0.1, 0.3))
            wire = curve((x, y), bend, (rng.normal(0, 0.3), 1.05))
            canvas.stroke(mask, [wire], 0.004)
    studs = canvas.soften(canvas.fill(*discs), 0.002)
    return np.maximum(0.40 * studs, 0.20 * to_field(mask))


def _tube(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    mask = canvas.blank()
    x = rng.normal(0.004, 0.006)
    tip = anatomy.hilum_y - rng.uniform(0.05, 0.10)
    canvas.stroke(mask, [curve((x, -0.1), (x + 0.006, anatomy.top), (x, tip))], 0.017)
    canvas.stroke(mask, [curve((x, -0.1), (x + 0.006, anatomy.top), (x, tip))], 0.010, 0.35)
    stomach = (0.10, anatomy.base + rng.uniform(0.06, 0.14))
    feeding = curve((x + 0.02, -0.1), (0.0, anatomy.top + 0.2), (0.03, anatomy.base - 0.1), stomach)
    canvas.stroke(mask, [feeding], 0.006, 0.8)
    return 0.20 * canvas.soften(to_field(mask), 0.0015)


_DRAWERS = {
    "pacemaker": _pacemaker,
    "scar": _scar,
    "granuloma": _granuloma,
    "nipples": _nipples,
    "central_line": _central_line,
    "ecg_leads": _ecg_leads,
    "tube": _tube,
}
