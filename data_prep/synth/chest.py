"""How much each part of the chest stops the beam: from outlines to an attenuation image."""

import cv2
import numpy as np

from data_prep.synth.anatomy import Anatomy, Canvas, Field, Points, blur, curve, ellipse, to_field

# Attenuation in the phantom's own unit: 1 is a trunk's thickness of soft tissue.
LUNG = 0.60  # what air takes away
HEART = 0.30
_MEDIASTINUM = 0.15
SPINE = 0.10
_RIB_BACK = 0.105
_RIB_FRONT = 0.060
_CLAVICLE = 0.12
_VESSEL = 0.13
_ABDOMEN = 0.20
_BREAST = 0.075


def draw_chest(canvas: Canvas, anatomy: Anatomy, *, portable: bool) -> tuple[Field, Field]:
    """Draw a chest without disease."""
    lungs = canvas.fill(anatomy.lung(-1), anatomy.lung(1))
    heart = canvas.soften(canvas.fill(anatomy.heart_outline()), 0.008 if portable else 0.006)
    air = _air(canvas, lungs)
    attenuation = _soft_tissue(canvas, anatomy)
    attenuation -= LUNG * air
    # Below the diaphragm the heart lies among tissue as dense as itself.
    attenuation += HEART * heart * (0.3 + 0.7 * canvas.soften(lungs, 0.012))
    attenuation += _middle(canvas, anatomy)
    attenuation += _below_the_diaphragm(canvas, anatomy, lungs)
    attenuation += anatomy.skeleton.bone * _bones(
        canvas, anatomy, lungs, lift=0.025 if portable else 0.0
    )
    attenuation += _vessels(canvas, anatomy) * air
    visible = np.clip(canvas.soften(lungs, 0.006) - 0.8 * heart, 0.0, 1.0)
    return attenuation, visible


def _air(canvas: Canvas, lungs: Field) -> Field:
    # A lung is thick in its middle and thin at its rim: a sharp edge times a wide, flat dome.
    dome = np.sqrt(np.clip(canvas.soften(lungs, 0.045), 0.0, 1.0))
    return canvas.soften(lungs, 0.004) * (0.25 + 0.75 * dome)


def _soft_tissue(canvas: Canvas, anatomy: Anatomy) -> Field:
    trunk = canvas.fill(anatomy.trunk())
    edge = canvas.soften(trunk, 0.006)
    thickness = 0.42 * edge + 0.58 * canvas.soften(trunk, 0.07) * edge
    if anatomy.breast:
        size, height = 0.125 * anatomy.breast, anatomy.base - 0.06 + anatomy.breast_drop
        discs = [
            ellipse(side * 0.60 * anatomy.half_width, height, size, size * 0.95) for side in (-1, 1)
        ]
        breasts = canvas.fill(*discs)
        dome = np.sqrt(canvas.soften(breasts, 0.03)) * canvas.soften(breasts, 0.004)
        thickness += _BREAST * dome
    return thickness


def _middle(canvas: Canvas, anatomy: Anatomy) -> Field:
    """Mediastinum, aorta, spine with its discs, and the air of the windpipe."""
    top, hilum, turn, bones = anatomy.top, anatomy.hilum_y, anatomy.turn, anatomy.skeleton
    width, (neck, chest, belly) = bones.spine_width, turn + bones.spine_bend
    axis = curve((turn, -0.3), (neck, top), (chest, 0.5), (belly, 1.3), steps=40)
    mask = canvas.blank()
    canvas.stroke(mask, [axis], 0.085 * anatomy.inner)
    middle = _MEDIASTINUM * canvas.soften(to_field(mask), 0.014)
    mask = canvas.blank()
    canvas.stroke(mask, [axis], width)
    spine = canvas.soften(to_field(mask), 0.005)
    gaps = canvas.blank()
    heights = np.arange(-0.2 + bones.disc_shift, 1.3, bones.disc_gap)
    centres = np.interp(heights, axis[:, 1], axis[:, 0])
    reach = 0.48 * width
    discs = [curve((x - reach, y), (x, y + 0.006), (x + reach, y), steps=5)
             for x, y in zip(centres, heights, strict=True)]  # fmt: skip
    canvas.stroke(gaps, discs, 0.011)
    middle += bones.spine * SPINE * (spine - 0.30 * canvas.soften(to_field(gaps), 0.004))
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
    bubbles = [ellipse(x * anatomy.half_width, anatomy.base + y, 1.3 * r, r)
               for x, y, r in anatomy.bowel]  # fmt: skip
    if anatomy.gas:
        width, height = 0.045 * anatomy.gas, 0.024 * anatomy.gas
        top = anatomy.base + anatomy.base_drop + 0.025 + height
        bubbles.append(ellipse(0.46 * anatomy.half_width, top, width, height, angle=-0.2))
    if bubbles:
        trunk -= 0.17 * canvas.soften(canvas.fill(*bubbles), 0.007) * (1 - lungs)
    return trunk


def _bones(canvas: Canvas, anatomy: Anatomy, lungs: Field, lift: float) -> Field:
    sides, skeleton = (-1, 1), anatomy.skeleton
    backs = [anatomy.posterior_rib(i, s) for i in range(skeleton.backs) for s in sides]
    fronts = [anatomy.anterior_rib(i, s) for i in range(skeleton.fronts) for s in sides]
    collars = [anatomy.clavicle(s, lift) for s in sides]
    ribs = skeleton.back_contrast * _RIB_BACK * _draw_hollow(canvas, backs, skeleton.rib_width)
    ribs += skeleton.front_contrast * _RIB_FRONT * _draw_hollow(canvas, fronts, skeleton.rib_width)
    # Where there is no air around it, a rib hardly shows.
    ribs *= 0.35 + 0.65 * canvas.soften(lungs, 0.02)
    bones = ribs + _CLAVICLE * _draw_hollow(canvas, collars, skeleton.collar_width)
    reach, top, blade = anatomy.body, anatomy.top + anatomy.shoulder, skeleton.blade
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
    # Thin branches first, so that the trunks lie over them.
    for generation in reversed(range(len(anatomy.vessels))):
        width = 0.018 * 0.68**generation
        canvas.stroke(mask, list(anatomy.vessels[generation]), width, 0.80**generation)
    hila = [ellipse(side * 0.082, anatomy.hilum_y + 0.015, 0.030 * size, 0.055 * size, -side * 0.3)
            for side, size in zip((-1, 1), anatomy.hila, strict=True)]  # fmt: skip
    field = to_field(mask) + 0.7 * canvas.soften(canvas.fill(*hila), 0.012)
    return anatomy.vessel * _VESSEL * blur(field, canvas.width_px(0.0022))


def power_law_texture(size: int, rng: np.random.Generator, slope: float = 0.0) -> Field:
    """Clutter of many scales, as overlapping tissue makes it, with zero mean and unit deviation.

    A positive `slope` favours coarse clutter, a negative one fine.

    Source:
        The power spectrum of chest radiographs falls with about the third power of frequency:
        Bochud et al. 1999, Burgess et al. 2001. Here as octaves of smooth noise.
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
    return texture / np.float32(np.sqrt(0.6 * total))  # 0.6: what the interpolation leaves
