"""Drawing of one synthetic image with its true lesions, from a patient and an image's number."""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr_compare.data_prep.synth.anatomy import (
    SIDES,
    Anatomy,
    Canvas,
    Field,
    Points,
    blur,
    curve,
    draw_anatomy,
    draw_waves,
    wall,
)
from cxr_compare.data_prep.synth.lesions import Lesion, Site, add_lesions, draw_sites

View = Literal["PA", "AP"]

# Attenuation of parts of the chest; 1 is that of a trunk of soft tissue.
_LUNG = 0.60  # what the air of a lung removes
_HEART = 0.30
_MEDIASTINUM = 0.15
_SPINE = 0.09
_WINDPIPE = 0.13
_RIB_BACK = 0.10
_RIB_FRONT = 0.06
_VESSEL = 0.13
_ABDOMEN = 0.20
_SCAR = (0.08, 0.22)

# Standard deviation of noise, in attenuation units. It sets the difficulty of the images.
_TEXTURE = 0.024
_QUANTUM = 0.012
_SPREAD = 0.25  # standard deviation between images of the logarithm of either noise
_IMAGES_PER_PATIENT = (0.45, 0.30, 0.25)  # shares of patients with 1, 2 and 3
# Concentration of the beta distribution from which each patient's probability of illness is drawn.
_CONCENTRATION = 2.0
_SCARRED = 0.5  # share of patients with scars


@dataclass(frozen=True)
class Patient:
    """A synthetic patient: everything that is the same on all images of the patient.

    Attributes:
        seed: Random seed of the whole set of images.
        index: Number of the patient in the set, from 0.
        sex: ``F`` or ``M``.
        age: Age in years.
        n_images: Number of images of the patient, 1 to 3.
        scars: Centre lines of scars in chest units: bands in the lungs that are no lesion.
        scar: Attenuation of the scars.
        sites: Possible positions of lesions, in the order in which an image takes them. A position
            at which the lung is not visible, or at which another lesion lies, is passed over.
        illness: Probability that an image shows lesions, in [0, 1].
        bedridden: Probability, in [0, 1], that an image is an AP view instead of a PA view.
    """

    seed: int
    index: int
    sex: str
    age: int
    n_images: int
    anatomy: Anatomy
    scars: list[Points]
    scar: float
    sites: list[Site]
    illness: float
    bedridden: float


@dataclass(frozen=True)
class SynthImage:
    """A synthetic chest X-ray with its true lesions.

    Attributes:
        pixels: Grey values, uint8 (size, size).
        lesions: Lesions with their boxes; empty for a negative image.
        spacing_mm: Side of a pixel, mm.
        jpeg: True if the DICOM file is to be compressed as JPEG.
    """

    pixels: NDArray[np.uint8]
    view: View
    lesions: list[Lesion]
    spacing_mm: float
    jpeg: bool


def count_images(seed: int, index: int) -> int:
    """Return how many images a synthetic patient has, without drawing the patient."""
    rng = np.random.default_rng([seed, index])
    return 1 + int(rng.choice(len(_IMAGES_PER_PATIENT), p=_IMAGES_PER_PATIENT))


def draw_patient(seed: int, index: int, prevalence: float) -> Patient:
    """Draw one synthetic patient. The result depends only on the arguments.

    The seed and the prevalence, the expected share of images with a lesion, are those of the whole
    set; `index` is the number of the patient in it, from 0.
    """
    rng, illness_rng = np.random.default_rng([seed, index, 1]).spawn(2)
    sex = "M" if rng.random() < 0.56 else "F"
    age = int(np.clip(rng.normal(48, 17), 18, 92))
    return Patient(
        seed=seed,
        index=index,
        sex=sex,
        age=age,
        n_images=count_images(seed, index),
        anatomy=draw_anatomy(rng, sex, age),
        scars=_draw_scars(rng) if rng.random() < _SCARRED else [],
        scar=rng.uniform(*_SCAR),
        sites=draw_sites(illness_rng),
        illness=illness_rng.beta(_CONCENTRATION * prevalence, _CONCENTRATION * (1 - prevalence)),
        bedridden=rng.choice((0.15, 0.85), p=(0.6, 0.4)),
    )


def _draw_scars(rng: np.random.Generator) -> list[Points]:
    """Draw one to four bands in the lungs."""
    scars = []
    for _ in range(int(rng.integers(1, 5))):
        y = rng.uniform(0.15, 0.9)
        x = rng.choice(SIDES) * rng.uniform(0.35, 0.85) * wall(y)
        dx, dy = rng.uniform((0.06, -0.06), (0.22, 0.06))
        scars.append(curve((x - dx, y - dy), (x, y + rng.normal(0, 0.03)), (x + dx, y + dy)))
    return scars


def draw_image(patient: Patient, number: int, size: int) -> SynthImage:
    """Draw one image, of side `size` px, of a synthetic patient, whose images have numbers from 0.

    The result depends only on the arguments.
    """
    key = [patient.seed, patient.index, 2 + number]
    # Lesions have their own random stream, so that nothing else on the image depends on them.
    rng, lesion_rng = np.random.default_rng(key).spawn(2)
    view: View = "AP" if rng.random() < patient.bedridden else "PA"
    # The heart is farther from the detector on an AP image, and so appears larger.
    growth = rng.uniform(1.06, 1.20) if view == "AP" else 1.0
    posture = draw_waves(rng, 2)
    anatomy = replace(
        patient.anatomy,
        heart=patient.anatomy.heart * growth,
        waves=np.concatenate([patient.anatomy.waves, posture]),
    )
    canvas = Canvas(
        size,
        anatomy,
        scale=rng.uniform(0.86, 1.18),
        angle=rng.normal(0, 0.045),
        shift=(rng.normal(0, 0.03), rng.normal(0.01, 0.035)),
    )
    attenuation, visible = draw_chest(canvas)
    if patient.scars:
        scars = canvas.lines([(patient.scars, 0.010, 1)])
        attenuation += patient.scar * canvas.soften(scars, 0.004)
    _add_noise(attenuation, visible, rng)
    lesions: list[Lesion] = []
    if lesion_rng.random() < patient.illness:
        lesions = add_lesions(attenuation, visible, canvas, patient.sites, lesion_rng)
    return SynthImage(
        pixels=_develop(attenuation, rng),
        view=view,
        lesions=lesions,
        spacing_mm=round(rng.uniform(370, 430) / size, 4),
        jpeg=bool(rng.random() < 0.8),
    )


def draw_chest(canvas: Canvas) -> tuple[Field, Field]:
    """Draw a synthetic chest without lesions.

    Two arrays, float32 ``(H, W)``, are returned: the attenuation of the X-rays in each pixel (1 is
    that of a trunk of soft tissue), and the visible share of the lung in each pixel, in [0, 1].
    """
    anatomy = canvas.anatomy
    lungs = canvas.fill(*anatomy.lungs())
    heart = canvas.soften(canvas.fill(anatomy.heart_outline()), 0.006)
    # A lung is thick in the middle and thin at the rim, so a sharp edge is multiplied by a dome.
    dome = np.sqrt(np.clip(canvas.soften(lungs, 0.045), 0, 1))
    air = canvas.soften(lungs, 0.004) * (0.25 + 0.75 * dome)
    trunk = canvas.soften(canvas.fill(anatomy.trunk()), 0.006)
    attenuation = trunk * (0.42 + 0.58 * canvas.soften(trunk, 0.07))
    attenuation -= _LUNG * air
    # Below the diaphragm, tissue around the heart is as dense as the heart.
    surrounding = canvas.soften(lungs, 0.02)
    attenuation += _HEART * heart * (0.3 + 0.7 * surrounding)
    attenuation += _draw_middle(canvas)
    dome_row = canvas.to_px(np.array([0.0, 0.93]))[1]
    depth = (np.arange(canvas.size, dtype=np.float32)[:, None] - dome_row) / canvas.px(0.2)
    attenuation += _ABDOMEN * np.clip(depth, 0, 1).astype(np.float32) * (1 - lungs)
    ribs = _RIB_BACK * _draw_hollow(canvas, anatomy.back_ribs)
    ribs += _RIB_FRONT * _draw_hollow(canvas, anatomy.front_ribs)
    # A rib is hardly visible without air around it.
    attenuation += anatomy.bone * canvas.soften(ribs, 0.003) * (0.35 + 0.65 * surrounding)
    # Thin branches are drawn first, so that the trunks cover them.
    branches = [
        (list(vessels), 0.018 * 0.68**generation, 0.8**generation)
        for generation, vessels in enumerate(anatomy.vessels)
    ]
    attenuation += _VESSEL * canvas.soften(canvas.lines(branches[::-1]), 0.0022) * air
    visible = np.clip(canvas.soften(lungs, 0.006) - 0.8 * heart, 0, 1)
    return attenuation, visible


def _draw_middle(canvas: Canvas) -> Field:
    """Draw mediastinum, spine with discs, and the air of the windpipe."""
    axis = curve((0, -0.9), (0, 2.5), steps=40)
    discs = [curve((-0.09, y), (0.09, y)) for y in np.arange(-0.5, 2.0, 0.1)]
    windpipe = curve((0, -0.9), (0.02, 0.0), (0.03, 0.42))
    middle = _MEDIASTINUM * canvas.soften(canvas.lines([([axis], 0.1, 1)]), 0.014)
    middle += _SPINE * canvas.soften(canvas.lines([([axis], 0.062, 1), (discs, 0.010, 0.7)]), 0.004)
    return middle - _WINDPIPE * canvas.soften(canvas.lines([([windpipe], 0.034, 1)]), 0.005)


def _draw_hollow(canvas: Canvas, bones: list[Points]) -> Field:
    # Bone is denser at its rim than in its marrow.
    width = canvas.anatomy.rib_width
    return canvas.lines([(bones, width, 1), (bones, 0.55 * width, 0.62)])


def _add_noise(attenuation: Field, visible: Field, rng: np.random.Generator) -> None:
    """Add the texture of overlapping tissue and the grain of the detector."""
    size = attenuation.shape[0]
    texture, grain = np.exp(rng.normal(0, _SPREAD, 2)) * (_TEXTURE, _QUANTUM)
    attenuation += np.float32(texture) * _power_law_texture(size, rng) * (0.5 + 0.5 * visible)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    if size > 256:  # the grain is that of a detector with 256 elements, whatever the image's size
        sigma = 0.35 * size / 256
        noise = blur(noise, sigma) * np.float32(2 * np.sqrt(np.pi) * sigma)
    attenuation += np.float32(grain) * noise


def _power_law_texture(size: int, rng: np.random.Generator) -> Field:
    """Draw a texture like that of overlapping tissue, with mean 0 and standard deviation 1.

    The power spectrum of mammograms falls with about the third power of frequency (Burgess,
    Jacobson and Judy 2001). The same is assumed for the chest. The texture is a sum of smooth noise
    in octaves of frequency.
    """
    texture = np.zeros((size, size), np.float32)
    total = 0.0
    for cells, weight in ((8, 1.0), (16, 0.85), (32, 0.65), (64, 0.50), (128, 0.38), (256, 0.22)):
        if cells > size:
            break
        grid = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
        smooth = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        texture += np.float32(weight) * smooth
        total += weight**2
    return texture / np.float32(np.sqrt(0.6 * total))  # interpolation reduces the variance to 0.6


def _develop(attenuation: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Convert attenuation to 8-bit pixels by an S-shaped curve, independently of the lesions."""
    middle = rng.normal(0.72, 0.065)
    width = rng.uniform(0.14, 0.32)
    shade = 1 / (1 + np.exp(-(attenuation - np.float32(middle)) / np.float32(width)))
    low = rng.uniform(0.0, 0.06)
    high = rng.uniform(0.88, 1.0)
    image = np.clip(255 * (low + (high - low) * shade), 0, 255).astype(np.uint8)
    size = image.shape[0]
    corner = (int(rng.uniform(0.84, 0.93) * size), int(rng.uniform(0.05, 0.16) * size))
    thickness = max(1, size // 220)  # the marker: the image's right is the patient's left
    cv2.putText(image, "L", corner, 0, size / 700, 245, thickness, cv2.LINE_AA)
    return image
