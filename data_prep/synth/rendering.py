"""Drawing of one synthetic image with its true lesions, from a patient and an image's number."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr_compare.data_prep.synth.anatomy import (
    ABDOMEN,
    HEART,
    LUNGS,
    MEDIASTINUM,
    SPINE,
    TRUNK,
    Canvas,
    Field,
    Points,
    Shape,
    draw_bones,
    draw_scars,
    draw_waves,
    grow_vessels,
)
from cxr_compare.data_prep.synth.lesions import Lesion, Site, add_lesions, draw_sites

View = Literal["PA", "AP"]

# Standard deviation of noise, in attenuation units. It sets the difficulty of the images.
_TEXTURE = 0.025
_QUANTUM = 0.012
_SPREAD = 0.25  # standard deviation between images of the logarithm of either noise
# Concentration of the beta distribution from which each patient's probability of illness is drawn.
_CONCENTRATION = 2.0


@dataclass(frozen=True)
class Patient:
    """A synthetic patient: everything that is the same on all images of the patient.

    Attributes:
        seed: Random seed of the whole set of images.
        index: Number of the patient in the set, from 0.
        sex: ``F`` or ``M``.
        age: Age in years.
        n_images: Number of images of the patient, 1 to 3.
        extent: Distances from the midline to the rib cage and from the apex of the lungs to the
            diaphragm, in image widths.
        top: Position y of the apex of the lungs, in image widths from the upper edge.
        body: Half width of the trunk, in half widths of the rib cage.
        heart: Width of the heart; 1 is usual.
        bones: Ribs and collar bones.
        vessels: Branches of both vascular trees.
        waves: Smooth displacements of all shapes, as a `Canvas` has them.
        scars: Centre lines of bands in the lungs that are no lesion.
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
    extent: tuple[float, float]
    top: float
    body: float
    heart: float
    bones: list[Shape]
    vessels: list[Shape]
    waves: Points
    scars: Points
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


def count_images(index: int) -> int:
    """Return how many images a synthetic patient has, without drawing the patient."""
    return (1, 2, 1, 3, 2)[index % 5]


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
        n_images=count_images(index),
        extent=((0.325 if sex == "M" else 0.31) * rng.uniform(0.85, 1.15), rng.uniform(0.43, 0.64)),
        top=rng.uniform(0.07, 0.16),
        body=rng.uniform(1.18, 1.65),
        heart=rng.uniform(0.80, 1.25),
        bones=draw_bones(rng, rng.uniform(0.6, 1.4) * (1.12 - 0.004 * max(age - 30, 0))),
        vessels=grow_vessels(rng),
        waves=draw_waves(rng, 5),
        scars=draw_scars(rng, max(0, int(rng.integers(-3, 5)))),  # half of the patients have some
        scar=rng.uniform(0.08, 0.22),
        sites=draw_sites(illness_rng),
        illness=illness_rng.beta(_CONCENTRATION * prevalence, _CONCENTRATION * (1 - prevalence)),
        bedridden=rng.choice((0.15, 0.85), p=(0.6, 0.4)),
    )


def draw_image(patient: Patient, number: int, size: int) -> SynthImage:
    """Draw one image, of side `size` px, of a synthetic patient, whose images have numbers from 0.

    The result depends only on the arguments.
    """
    key = [patient.seed, patient.index, 2 + number]
    # Lesions have their own random stream, so that nothing else on the image depends on them.
    rng, lesion_rng = np.random.default_rng(key).spawn(2)
    view: View = "AP" if rng.random() < patient.bedridden else "PA"
    # The heart is farther from the detector on an AP image, and so appears larger.
    heart = patient.heart * (rng.uniform(1.06, 1.20) if view == "AP" else 1.0)
    scale = rng.uniform(0.86, 1.18)
    canvas = Canvas(
        size,
        patient.extent,
        np.concatenate([patient.waves, draw_waves(rng, 2)]),  # the patient's and the posture's
        scale,
        rng.normal(0, 0.045),
        (rng.normal(0.5, 0.03), rng.normal(0.51, 0.035) + scale * (patient.top - 0.5)),
    )
    attenuation, visible = _draw_chest(canvas, patient, heart)
    texture, grain = np.exp(rng.normal(0, _SPREAD, 2)) * (_TEXTURE, _QUANTUM)
    attenuation += _noise(_power_law_texture(rng), size, texture) * (0.5 + 0.5 * visible)
    side = min(size, 256)  # of a detector, whatever the image's size
    attenuation += _noise(rng.random((side, side), dtype=np.float32), size, grain)
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


def _draw_chest(canvas: Canvas, patient: Patient, width_of_heart: float) -> tuple[Field, Field]:
    """Draw a synthetic chest without lesions.

    Two arrays, float32 ``(H, W)``, are returned: the attenuation of the X-rays in each pixel (1 is
    that of a trunk of soft tissue), and the visible share of the lung in each pixel, in [0, 1].
    """
    lungs = canvas.draw((LUNGS, 1, 0))
    heart = canvas.soften(canvas.draw((HEART * (width_of_heart, 1), 1, 0)), 0.006)
    trunk = canvas.soften(canvas.draw((TRUNK * (patient.body, 1), 1, 0)), 0.006)
    middle = canvas.draw((MEDIASTINUM, 0.15, 0))
    abdomen = canvas.draw((ABDOMEN, 0.2, 0))
    around = canvas.soften(lungs, 0.03)
    # A lung is thick in the middle and thin at the rim, so a sharp edge is multiplied by a dome.
    air = lungs * (0.25 + 0.75 * np.sqrt(around))
    attenuation = trunk * (0.42 + 0.58 * canvas.soften(trunk, 0.07)) - 0.58 * air
    # Below the diaphragm, tissue around the heart is as dense as the heart.
    attenuation += 0.3 * heart * (0.3 + 0.7 * around)
    attenuation += canvas.soften(abdomen, 0.06) * (1 - lungs) + canvas.soften(middle, 0.014)
    # A rib is hardly visible without air around it.
    attenuation += canvas.draw(*patient.bones) * (0.35 + 0.65 * around)
    attenuation += canvas.draw(*patient.vessels) * air
    attenuation += canvas.draw(*SPINE, (patient.scars, patient.scar, 0.01))
    visible = np.clip(canvas.soften(lungs, 0.006) - 0.8 * heart, 0, 1)
    return canvas.soften(attenuation, 0.003), visible


def _power_law_texture(rng: np.random.Generator) -> Field:
    """Draw a texture like that of overlapping tissue.

    The power spectrum of mammograms falls with about the third power of frequency (Burgess,
    Jacobson and Judy 2001). The same is assumed for the chest. The texture is a sum of smooth noise
    in octaves of frequency.
    """
    texture = np.zeros((4, 4), np.float32)
    for weight in (1.0, 0.85, 0.65, 0.50, 0.38):
        texture = np.asarray(cv2.pyrUp(texture), np.float32)
        texture += np.float32(weight) * rng.standard_normal(texture.shape, dtype=np.float32)
    return texture


def _noise(field: Field, size: int, deviation: float) -> Field:
    large = cv2.resize(field, (size, size))
    mean, spread = cv2.meanStdDev(large)
    return (large - np.float32(mean)) * np.float32(deviation / spread)


def _develop(attenuation: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Convert attenuation to 8-bit pixels by an S-shaped curve, independently of the lesions."""
    middle, width = rng.normal(0.72, 0.065), rng.uniform(0.14, 0.32)
    shade = 1 / (1 + np.exp((np.float32(middle) - attenuation) / np.float32(width)))
    low, high = 255 * rng.uniform((0.0, 0.88), (0.06, 1.0)).astype(np.float32)
    image = (low + (high - low) * shade).astype(np.uint8)
    size = len(image)
    corner = (size * rng.uniform((0.84, 0.05), (0.93, 0.16))).astype(int).tolist()
    thickness = max(1, size // 220)  # the marker: the image's right is the patient's left
    return cv2.putText(image, "L", corner, 0, size / 700, 245, thickness, cv2.LINE_AA)
