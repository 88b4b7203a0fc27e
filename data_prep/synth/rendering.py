"""Drawing of one synthetic image with its true lesions, from patient, pose and exposure."""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr_compare.data_prep.synth.anatomy import (
    LUNG,
    Anatomy,
    Canvas,
    Field,
    Points,
    blur,
    curve,
    draw_anatomy,
    ellipse,
    power_law_texture,
    to_field,
)
from cxr_compare.data_prep.synth.distractors import (
    ACUTE,
    CHRONIC,
    alter_anatomy,
    draw_distractors,
    draw_names,
)
from cxr_compare.data_prep.synth.lesions import Contrast, Lesion, Site, add_lesions, draw_sites

View = Literal["PA", "AP"]

# Attenuation of parts of the chest, in the same unit as `LUNG`.
_HEART = 0.30
_MEDIASTINUM = 0.15
_SPINE = 0.10
_RIB_BACK = 0.105
_RIB_FRONT = 0.060
_CLAVICLE = 0.12
_VESSEL = 0.13
_ABDOMEN = 0.20
_BREAST = 0.075

# Standard deviation of noise, in attenuation units. It sets the difficulty of the images.
_TEXTURE = {"PA": 0.022, "AP": 0.026}
_QUANTUM = {"PA": 0.010, "AP": 0.014}
_TEXTURE_SPREAD = 0.25  # standard deviation between images of the logarithm of either noise
_IMAGES_PER_PATIENT = (0.45, 0.30, 0.25)  # shares of patients with 1, 2 and 3
# Concentration of the beta distribution from which each patient's probability of illness is drawn.
_CONCENTRATION = 2.0
_PURPOSES = ("count", "body", "illness", "chronic", "image", "acute", "noise", "lesions")


@dataclass(frozen=True)
class Patient:
    """A synthetic patient: everything that is the same on all images of the patient.

    Attributes:
        seed: Random seed of the whole set of images.
        index: Number of the patient in the set, from 0.
        sex: ``F`` or ``M``.
        age: Age in years.
        n_images: Number of images of the patient, 1 to 3.
        anatomy: Shape of the chest.
        chronic: Names of things that are no lesion and that each image of the patient shows, such
            as a pacemaker (distractors).
        sites: Possible positions of lesions, in the order in which an image takes them. A position
            at which the lung is not visible, or at which another lesion lies, is passed over.
        illness: Probability that an image shows lesions, in [0, 1].
        bedridden: Probability, in [0, 1], that an image is an AP view, taken at the bedside,
            instead of a PA view.
    """

    seed: int
    index: int
    sex: str
    age: int
    n_images: int
    anatomy: Anatomy
    chronic: tuple[str, ...]
    sites: tuple[Site, ...]
    illness: float
    bedridden: float


@dataclass(frozen=True)
class SynthImage:
    """A synthetic chest X-ray with its true lesions.

    Attributes:
        pixels: Grey values, uint8 (size, size).
        view: ``PA``, or ``AP`` for an image taken at the bedside.
        lesions: Lesions with their boxes; empty for a negative image.
        distractors: Sorted names of visible things that are no lesion, such as ``pacemaker``.
        spacing_mm: Side of a pixel, mm.
        jpeg: True if the DICOM file is to be compressed as JPEG.
    """

    pixels: NDArray[np.uint8]
    view: View
    lesions: list[Lesion]
    distractors: tuple[str, ...]
    spacing_mm: float
    jpeg: bool


def count_images(seed: int, index: int) -> int:
    """Return how many images a synthetic patient has, without drawing the patient.

    Args:
        seed: Random seed of the whole set of synthetic images.
        index: Number of the patient in the set, from 0.
    """
    rng = _generator(seed, index, "count")
    return 1 + int(rng.choice(3, p=_IMAGES_PER_PATIENT))


def _generator(seed: int, index: int, purpose: str, number: int = 0) -> np.random.Generator:
    # Each purpose has its own random stream, so that healthy images do not depend on lesions.
    key = (_PURPOSES.index(purpose), number)
    return np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=key))


def draw_patient(seed: int, index: int, prevalence: float) -> Patient:
    """Draw one synthetic patient. The result depends only on the arguments.

    Args:
        seed: Random seed of the whole set of synthetic images.
        index: Number of the patient in the set, from 0.
        prevalence: Expected share of images with a lesion in the whole set, in (0, 1).

    Returns:
        The patient: sex, age, anatomy and illness.

    Example:
        >>> patients = [draw_patient(seed=0, index=0, prevalence=0.3) for _ in range(2)]
        >>> patients[0].age == patients[1].age
        True
    """
    rng = _generator(seed, index, "body")
    sex = "M" if rng.random() < 0.56 else "F"
    age = int(np.clip(rng.normal(48, 17), 18, 92))
    anatomy = draw_anatomy(rng, sex, age)
    chronic = draw_names(rng, *CHRONIC)
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
    """Draw one image of a synthetic patient. The result depends only on the arguments.

    Args:
        patient: The patient.
        number: Number of the image among the patient's images, from 0.
        size: Side of the image, px.
        contrast: Contrast of the lesions: ``mixed`` (faint to dense) or ``high``.

    Returns:
        The pixels, uint8 of shape ``(size, size)``, with the boxes of the lesions, the view and the
        names of visible things that are no lesion.

    Example:
        >>> image = draw_image(draw_patient(seed=0, index=0, prevalence=0.3), 0, size=64)
        >>> image.pixels.shape, image.pixels.dtype
        ((64, 64), dtype('uint8'))
    """
    key = (patient.seed, patient.index)
    rng = _generator(*key, "image", number)
    view: View = "AP" if rng.random() < patient.bedridden else "PA"
    canvas = _draw_pose(rng, size, view)
    anatomy = _breathe(patient.anatomy, rng, view)
    acute = draw_names(rng, *ACUTE)
    attenuation, visible = draw_chest(canvas, anatomy, portable=view == "AP")
    # The generator state is the same for each image, so that lasting distractors do not move.
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
    """Vary breath, turn, beam angle and heart size between the images of a patient.

    A beam that comes more from above moves the front of the chest down against its back. The heart
    is larger on an AP image.
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


def draw_chest(canvas: Canvas, anatomy: Anatomy, *, portable: bool) -> tuple[Field, Field]:
    """Draw a synthetic chest without lesions.

    Args:
        canvas: Size of the image, and position, rotation and scale of the patient on it.
        anatomy: Shape of the patient's chest.
        portable: True for an image at the bedside (AP).

    Returns:
        Two arrays, float32 of shape ``(H, W)``: the attenuation of the X-rays in each pixel (1 is
        that of a trunk of soft tissue), and the visible share of the lung in each pixel, in [0, 1].
    """
    lungs = canvas.fill(anatomy.lung(-1), anatomy.lung(1))
    heart = canvas.soften(canvas.fill(anatomy.heart_outline()), 0.008 if portable else 0.006)
    air = _air(canvas, lungs)
    attenuation = _soft_tissue(canvas, anatomy)
    attenuation -= LUNG * air
    # Below the diaphragm, tissue around the heart is as dense as the heart.
    attenuation += _HEART * heart * (0.3 + 0.7 * canvas.soften(lungs, 0.012))
    attenuation += _middle(canvas, anatomy)
    attenuation += _below_the_diaphragm(canvas, anatomy, lungs)
    attenuation += anatomy.skeleton.bone * _bones(
        canvas, anatomy, lungs, lift=0.025 if portable else 0.0
    )
    attenuation += _vessels(canvas, anatomy) * air
    visible = np.clip(canvas.soften(lungs, 0.006) - 0.8 * heart, 0.0, 1.0)
    return attenuation, visible


def _air(canvas: Canvas, lungs: Field) -> Field:
    # A lung is thick in the middle and thin at the rim, so a sharp edge is multiplied by a dome.
    dome = np.sqrt(np.clip(canvas.soften(lungs, 0.045), 0.0, 1.0))
    return canvas.soften(lungs, 0.004) * (0.25 + 0.75 * dome)


def _soft_tissue(canvas: Canvas, anatomy: Anatomy) -> Field:
    trunk = canvas.fill(anatomy.trunk())
    edge = canvas.soften(trunk, 0.006)
    thickness = 0.42 * edge + 0.58 * canvas.soften(trunk, 0.07) * edge
    if anatomy.breast:
        size = 0.125 * anatomy.breast
        height = anatomy.base - 0.06 + anatomy.breast_drop
        discs = [
            ellipse(side * 0.60 * anatomy.half_width, height, size, size * 0.95) for side in (-1, 1)
        ]
        breasts = canvas.fill(*discs)
        dome = np.sqrt(canvas.soften(breasts, 0.03)) * canvas.soften(breasts, 0.004)
        thickness += _BREAST * dome
    return thickness


def _middle(canvas: Canvas, anatomy: Anatomy) -> Field:
    """Draw mediastinum, aorta, spine with discs, and the air of the trachea."""
    top = anatomy.top
    hilum = anatomy.hilum_y
    turn = anatomy.turn
    bones = anatomy.skeleton
    width = bones.spine_width
    neck, chest, belly = turn + bones.spine_bend
    axis = curve((turn, -0.3), (neck, top), (chest, 0.5), (belly, 1.3), steps=40)
    middle = _MEDIASTINUM * canvas.soften(canvas.lines([axis], 0.085 * anatomy.inner), 0.014)
    spine = canvas.soften(canvas.lines([axis], width), 0.005)
    heights = np.arange(-0.2 + bones.disc_shift, 1.3, bones.disc_gap)
    centres = np.interp(heights, axis[:, 1], axis[:, 0])
    reach = 0.48 * width
    discs = [
        curve((x - reach, y), (x, y + 0.006), (x + reach, y), steps=5)
        for x, y in zip(centres, heights, strict=True)
    ]
    gaps = canvas.soften(canvas.lines(discs, 0.011), 0.004)
    middle += bones.spine * _SPINE * (spine - 0.30 * gaps)
    middle += 0.12 * canvas.soften(canvas.fill(anatomy.aortic_knob()), 0.006)
    mask = canvas.blank()
    windpipe = curve((-0.5 * turn, -0.2), (0.004, top), (0.008 + 0.5 * turn, hilum - 0.03))
    canvas.stroke(mask, [windpipe], 0.034)
    main_bronchi = [
        curve((0.008, hilum - 0.035), (side * 0.03, hilum), (side * 0.075, hilum + 0.03))
        for side in (-1, 1)
    ]
    canvas.stroke(mask, main_bronchi, 0.018, strength=0.6)
    return middle - 0.13 * canvas.soften(to_field(mask), 0.005)


def _below_the_diaphragm(canvas: Canvas, anatomy: Anatomy, lungs: Field) -> Field:
    rows = np.arange(canvas.size, dtype=np.float32)[:, None] / canvas.size
    depth = np.clip((rows - np.float32(anatomy.base - 0.04)) / np.float32(0.20), 0, 1)
    trunk = _ABDOMEN * depth * (1 - lungs)
    bubbles = [
        ellipse(x * anatomy.half_width, anatomy.base + y, 1.3 * r, r) for x, y, r in anatomy.bowel
    ]
    if anatomy.gas:
        width = 0.045 * anatomy.gas
        height = 0.024 * anatomy.gas
        top = anatomy.base + anatomy.base_drop + 0.025 + height
        bubbles.append(ellipse(0.46 * anatomy.half_width, top, width, height, angle=-0.2))
    if bubbles:
        trunk -= 0.17 * canvas.soften(canvas.fill(*bubbles), 0.007) * (1 - lungs)
    return trunk


def _bones(canvas: Canvas, anatomy: Anatomy, lungs: Field, lift: float) -> Field:
    sides = (-1, 1)
    skeleton = anatomy.skeleton
    backs = [anatomy.posterior_rib(i, s) for i in range(skeleton.backs) for s in sides]
    fronts = [anatomy.anterior_rib(i, s) for i in range(skeleton.fronts) for s in sides]
    collars = [anatomy.clavicle(s, lift) for s in sides]
    ribs = skeleton.back_contrast * _RIB_BACK * _draw_hollow(canvas, backs, skeleton.rib_width)
    ribs += skeleton.front_contrast * _RIB_FRONT * _draw_hollow(canvas, fronts, skeleton.rib_width)
    # A rib is hardly visible without air around it.
    ribs *= 0.35 + 0.65 * canvas.soften(lungs, 0.02)
    bones = ribs + _CLAVICLE * _draw_hollow(canvas, collars, skeleton.collar_width)
    reach = anatomy.body
    top = anatomy.top + anatomy.shoulder
    blade = skeleton.blade
    arms = canvas.blank()
    for side in sides:
        head = (side * 1.02 * reach * skeleton.arm, top + 0.07)
        tip = (side * 1.08 * reach * skeleton.arm**2, top + 0.5)
        canvas.stroke(arms, [curve(head, tip)], 0.045, 0.8)
        edge = curve(
            (side * 0.90 * reach * blade, top + 0.03),
            (side * 0.66 * reach * blade, top + 0.12),
            (side * 0.80 * reach * blade, top + 0.30),
        )
        canvas.stroke(arms, [edge], 0.016, 0.7)
    return canvas.soften(bones + 0.10 * to_field(arms), 0.003)


def _draw_hollow(canvas: Canvas, lines: list[Points], width: float) -> Field:
    # Bone is denser at its rim than in its marrow.
    mask = canvas.blank()
    canvas.stroke(mask, lines, width)
    canvas.stroke(mask, lines, width * 0.55, 0.62)
    return to_field(mask)


def _vessels(canvas: Canvas, anatomy: Anatomy) -> Field:
    mask = canvas.blank()
    # Thin branches are drawn first, so that the trunks cover them.
    for generation in reversed(range(len(anatomy.vessels))):
        width = 0.018 * 0.68**generation
        canvas.stroke(mask, list(anatomy.vessels[generation]), width, 0.80**generation)
    hila = [
        ellipse(side * 0.082, anatomy.hilum_y + 0.015, 0.030 * size, 0.055 * size, -side * 0.3)
        for side, size in zip((-1, 1), anatomy.hila, strict=True)
    ]
    field = to_field(mask) + 0.7 * canvas.soften(canvas.fill(*hila), 0.012)
    return anatomy.vessel * _VESSEL * blur(field, canvas.width_px(0.0022))


def _add_noise(attenuation: Field, visible: Field, view: View, rng: np.random.Generator) -> None:
    size = attenuation.shape[0]
    strength = _TEXTURE[view] * np.exp(rng.normal(0, _TEXTURE_SPREAD))
    texture = power_law_texture(size, rng, rng.normal(0, 0.25)) * (0.5 + 0.5 * visible)
    attenuation += np.float32(strength) * texture
    # The grain is that of a detector with 256 elements, whatever the size of the image.
    grain = rng.standard_normal((size, size), dtype=np.float32)
    if size > 256:
        sigma = 0.35 * size / 256
        grain = blur(grain, sigma) * np.float32(2 * np.sqrt(np.pi) * sigma)
    attenuation += np.float32(_QUANTUM[view] * np.exp(rng.normal(0, _TEXTURE_SPREAD))) * grain


def _develop(attenuation: Field, rng: np.random.Generator, view: View) -> NDArray[np.uint8]:
    """Convert attenuation to 8-bit pixels by an S-shaped curve, independently of the lesions."""
    portable = view == "AP"
    middle = rng.normal(0.72, 0.065)
    width = rng.uniform(0.14, 0.29) * (1.25 if portable else 1.0)
    shade = 1 / (1 + np.exp(-(attenuation - np.float32(middle)) / np.float32(width)))
    low = rng.uniform(0.0, 0.06)
    high = rng.uniform(0.88, 1.0)
    image = np.clip(255 * (low + (high - low) * shade), 0, 255).astype(np.uint8)
    _stamp_marker(image, rng, view)
    _collimate(image, rng)
    return image


def _stamp_marker(image: NDArray[np.uint8], rng: np.random.Generator, view: View) -> None:
    size = image.shape[0]
    on_right = rng.random() < 0.6
    left = rng.uniform(0.84, 0.93) if on_right else rng.uniform(0.04, 0.10)
    height = rng.uniform(0.04, 0.16)
    scale = rng.uniform(0.8, 1.3)
    if rng.random() < 0.85:
        corner = (int(left * size), int(height * size))
        font = cv2.FONT_HERSHEY_SIMPLEX
        thickness = max(1, size // 220)
        letter = "L" if on_right else "R"  # the image's right is the patient's left
        cv2.putText(image, letter, corner, font, scale * size / 700, 245, thickness, cv2.LINE_AA)
        if view == "AP" and rng.random() < 0.6:
            start = left - 0.10 if on_right else left
            corner = (int(start * size), int((height + 0.045) * size))
            cv2.putText(image, "PORTABLE", corner, font, size / 1500, 235, 1, cv2.LINE_AA)


def _collimate(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Draw black borders as of a narrowed beam."""
    size = image.shape[0]
    margins = np.maximum(0, rng.normal(-0.01, 0.022, 4)) * size
    top, bottom, left, right = margins.astype(int)
    image[:top] = 0
    image[size - bottom :] = 0
    image[:, :left] = 0
    image[:, size - right :] = 0
