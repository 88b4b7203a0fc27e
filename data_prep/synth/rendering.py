"""One image of the phantom: from patient, pose and exposure to 8-bit pixels and their truth."""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.synth.anatomy import Anatomy, Canvas, Field, blur, draw_anatomy
from data_prep.synth.chest import draw_chest, power_law_texture
from data_prep.synth.lesions import (
    Contrast,
    Lesion,
    Site,
    add_lesions,
    alter_anatomy,
    draw_acute,
    draw_chronic,
    draw_distractors,
    draw_sites,
)

View = Literal["PA", "AP"]

# Difficulty of the phantom: noise, in attenuation units (see chest.py).
_TEXTURE = {"PA": 0.022, "AP": 0.026}
_QUANTUM = {"PA": 0.010, "AP": 0.014}
_TEXTURE_SPREAD = 0.25  # deviation of the logarithm of either noise between images
_IMAGES_PER_PATIENT = (0.45, 0.30, 0.25)  # shares of patients with 1, 2 and 3
# How unevenly illness is spread over patients: Beta(concentration * prevalence, ...).
_CONCENTRATION = 2.0
_PURPOSES = ("count", "body", "illness", "chronic", "image", "acute", "noise", "lesions")


@dataclass(frozen=True)
class Patient:
    """A phantom patient; the same on each of their images."""

    seed: int  # the set's seed
    index: int  # the patient's number in the set
    sex: str  # `F` or `M`
    age: int  # years
    n_images: int  # how many images there are of the patient
    anatomy: Anatomy  # the chest
    chronic: tuple[str, ...]  # distractors on each image
    sites: tuple[Site, ...]  # where the patient falls ill
    illness: float  # probability that an image shows lesions
    bedridden: float  # probability that an image is taken at the bedside (AP)


@dataclass(frozen=True)
class SynthImage:
    """An image and its truth."""

    pixels: NDArray[np.uint8]  # uint8 `(size, size)`
    view: View  # `PA` or `AP`
    lesions: list[Lesion]  # empty for a negative image
    distractors: tuple[str, ...]  # names, sorted
    spacing_mm: float  # size of a pixel
    jpeg: bool  # whether to store it JPEG-compressed


def count_images(seed: int, index: int) -> int:
    """How many images a patient has; cheap, so that a plan needs no drawing."""
    rng = _generator(seed, index, "count")
    return 1 + int(rng.choice(3, p=_IMAGES_PER_PATIENT))


def _generator(seed: int, index: int, purpose: str, number: int = 0) -> np.random.Generator:
    # One stream for each purpose: what shows on a healthy image cannot depend on the lesions.
    key = (_PURPOSES.index(purpose), number)
    return np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=key))


def draw_patient(seed: int, index: int, prevalence: float) -> Patient:
    """Draw one patient; depends on its arguments alone."""
    rng = _generator(seed, index, "body")
    sex = "M" if rng.random() < 0.56 else "F"
    age = int(np.clip(rng.normal(48, 17), 18, 92))
    anatomy = draw_anatomy(rng, sex, age)
    chronic = draw_chronic(rng)
    illness_rng = _generator(seed, index, "illness")
    illness = illness_rng.beta(_CONCENTRATION * prevalence, _CONCENTRATION * (1 - prevalence))
    return Patient(
        seed=seed,
        index=index,
        sex=sex,
        age=age,
        n_images=count_images(seed, index),
        anatomy=alter_anatomy(anatomy, chronic, rng),
        chronic=chronic,
        sites=draw_sites(illness_rng),
        illness=float(illness),
        bedridden=float(rng.choice((0.15, 0.85), p=(0.6, 0.4))),
    )


def draw_image(
    patient: Patient, number: int, size: int, contrast: Contrast = "mixed"
) -> SynthImage:
    """Draw one image of a patient."""
    key = (patient.seed, patient.index)
    rng = _generator(*key, "image", number)
    view: View = "AP" if rng.random() < patient.bedridden else "PA"
    canvas = _draw_pose(rng, size, view)
    anatomy = _breathe(patient.anatomy, rng, view)
    acute = draw_acute(rng)
    attenuation, visible = draw_chest(canvas, anatomy, portable=view == "AP")
    # The same generator state for each image of a patient: a lasting distractor stays in place.
    lasting = _generator(*key, "chronic")
    attenuation += draw_distractors(canvas, anatomy, patient.chronic, lasting)
    attenuation += draw_distractors(canvas, anatomy, acute, _generator(*key, "acute", number))
    _add_noise(attenuation, visible, view, _generator(*key, "noise", number))
    lesion_rng = _generator(*key, "lesions", number)
    lesions: list[Lesion] = []
    if lesion_rng.random() < patient.illness:
        lesions = add_lesions(
            attenuation, visible, canvas, anatomy, patient.sites, lesion_rng, contrast
        )
    return SynthImage(
        pixels=_develop(attenuation, rng, view),
        view=view,
        lesions=lesions,
        distractors=tuple(sorted({*patient.chronic, *acute})),
        spacing_mm=round(rng.uniform(370, 430) / size, 4),
        jpeg=bool(rng.random() < 0.8),
    )


def _draw_pose(rng: np.random.Generator, size: int, view: View) -> Canvas:
    portable = view == "AP"
    return Canvas(
        size=size,
        scale=rng.uniform(0.86, 1.18) * (1.03 if portable else 1.0),
        angle=rng.normal(0, 0.065 if portable else 0.03),
        shift_x=rng.normal(0, 0.040 if portable else 0.025),
        shift_y=rng.normal(0.01, 0.035),
    )


def _breathe(anatomy: Anatomy, rng: np.random.Generator, view: View) -> Anatomy:
    """What differs between two images of a patient: breath, turn, angle of the beam, heart.

    A beam that comes more from above moves what lies in front down against what lies behind. The
    heart is larger on an image taken from the front.
    """
    portable = view == "AP"
    rise = rng.uniform(0.02, 0.09) if portable else rng.uniform(-0.02, 0.03)
    growth = rng.uniform(1.06, 1.20) if portable else rng.uniform(0.97, 1.03)
    turn = rng.normal(0, 0.018 if portable else 0.009)
    angle = rng.normal(0, 0.020 if portable else 0.012)
    bones = anatomy.skeleton
    bones = replace(
        bones,
        front_shift=bones.front_shift + 0.7 * angle,
        collar_shift=bones.collar_shift + angle,
        back_slope=bones.back_slope * rng.uniform(0.85, 1.15),
        arm=bones.arm * rng.uniform(0.95, 1.08),
    )
    return replace(
        anatomy,
        skeleton=bones,
        base=anatomy.base - rise,
        heart=anatomy.heart * growth,
        heart_shift=anatomy.heart_shift - 0.8 * turn,
        turn=turn,
    )


def _add_noise(attenuation: Field, visible: Field, view: View, rng: np.random.Generator) -> None:
    size = attenuation.shape[0]
    strength = _TEXTURE[view] * np.exp(rng.normal(0, _TEXTURE_SPREAD))
    texture = power_law_texture(size, rng, rng.normal(0, 0.25)) * (0.5 + 0.5 * visible)
    attenuation += np.float32(strength) * texture
    # Quanta are counted on a detector of 256 elements' grain whatever the image's size.
    grain = rng.standard_normal((size, size), dtype=np.float32)
    if size > 256:
        sigma = 0.35 * size / 256
        grain = blur(grain, sigma) * np.float32(2 * np.sqrt(np.pi) * sigma)
    attenuation += np.float32(_QUANTUM[view] * np.exp(rng.normal(0, _TEXTURE_SPREAD))) * grain


def _develop(attenuation: Field, rng: np.random.Generator, view: View) -> NDArray[np.uint8]:
    """Exposure and display: an S-shaped response curve, drawn without regard to the lesions."""
    portable = view == "AP"
    middle = rng.normal(0.72, 0.065)
    width = rng.uniform(0.14, 0.29) * (1.25 if portable else 1.0)
    shade = 1 / (1 + np.exp(-(attenuation - np.float32(middle)) / np.float32(width)))
    low, high = rng.uniform(0.0, 0.06), rng.uniform(0.88, 1.0)
    image = np.clip(255 * (low + (high - low) * shade), 0, 255).astype(np.uint8)
    _stamp_marker(image, rng, view)
    _collimate(image, rng)
    return image


def _stamp_marker(image: NDArray[np.uint8], rng: np.random.Generator, view: View) -> None:
    size, on_right = image.shape[0], rng.random() < 0.6
    left = rng.uniform(0.84, 0.93) if on_right else rng.uniform(0.04, 0.10)
    height, scale = rng.uniform(0.04, 0.16), rng.uniform(0.8, 1.3)
    if rng.random() < 0.85:
        place = (int(left * size), int(height * size))
        font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, size // 220)
        letter = "L" if on_right else "R"  # the image's right is the patient's left
        cv2.putText(image, letter, place, font, scale * size / 700, 245, thickness, cv2.LINE_AA)
        if view == "AP" and rng.random() < 0.6:
            start = left - 0.10 if on_right else left
            place = (int(start * size), int((height + 0.045) * size))
            cv2.putText(image, "PORTABLE", place, font, size / 1500, 235, 1, cv2.LINE_AA)


def _collimate(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Black borders where the beam was narrowed."""
    size = image.shape[0]
    margins = np.maximum(0, rng.normal(-0.01, 0.022, 4)) * size
    top, bottom, left, right = margins.astype(int)
    image[:top] = 0
    image[size - bottom :] = 0
    image[:, :left] = 0
    image[:, size - right :] = 0
