"""How much each part of the chest stops the beam: from outlines to an attenuation image."""

import cv2
import numpy as np

from data_prep.synth.anatomy import Anatomy, Canvas, Field, Points, blur, curve, ellipse, to_field

# Attenuation in the phantom's own unit: 1 is a trunk's thickness of soft tissue.
LUNG = 0.60  # what air takes away
HEART = 0.30
MEDIASTINUM = 0.15
SPINE = 0.10
RIB_BACK = 0.105
RIB_FRONT = 0.060
CLAVICLE = 0.12
VESSEL = 0.13
ABDOMEN = 0.20
BREAST = 0.075


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
    attenuation += anatomy.bone * _bones(canvas, anatomy, lungs, lift=0.025 if portable else 0.0)
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
        size = 0.125 * anatomy.breast
        discs = [
            ellipse(side * 0.60 * anatomy.half_width, anatomy.base - 0.06, size, size * 0.95)
            for side in (-1, 1)
        ]
        breasts = canvas.fill(*discs)
        dome = np.sqrt(canvas.soften(breasts, 0.03)) * canvas.soften(breasts, 0.004)
        thickness += BREAST * dome
    return thickness


def _middle(canvas: Canvas, anatomy: Anatomy) -> Field:
    """Mediastinum, aorta, spine with its discs, and the air of the windpipe."""
    top, hilum = anatomy.top, anatomy.hilum_y
    bend = anatomy.spine_bend
    axis = curve((0.0, -0.3), (bend, top), (4 * bend, 0.5), (-bend, 1.3), steps=40)
    mask = canvas.blank()
    canvas.stroke(mask, [axis], 0.085)
    middle = MEDIASTINUM * canvas.soften(to_field(mask), 0.014)
    mask = canvas.blank()
    canvas.stroke(mask, [axis], 0.062)
    spine = canvas.soften(to_field(mask), 0.005)
    gaps = canvas.blank()
    heights = np.arange(-0.2, 1.3, 0.052)
    centres = np.interp(heights, axis[:, 1], axis[:, 0])
    discs = [curve((x - 0.03, y), (x, y + 0.006), (x + 0.03, y), steps=5)
             for x, y in zip(centres, heights, strict=True)]  # fmt: skip
    canvas.stroke(gaps, discs, 0.011)
    middle += SPINE * (spine - 0.30 * canvas.soften(to_field(gaps), 0.004))
    middle += 0.12 * canvas.soften(canvas.fill(anatomy.aortic_knob()), 0.006)
    mask = canvas.blank()
    canvas.stroke(mask, [curve((0.0, -0.2), (0.004, top), (0.008, hilum - 0.03))], 0.034)
    main_bronchi = [
        curve((0.008, hilum - 0.035), (side * 0.03, hilum), (side * 0.075, hilum + 0.03))
        for side in (-1, 1)
    ]
    canvas.stroke(mask, main_bronchi, 0.018, strength=0.6)
    return middle - 0.13 * canvas.soften(to_field(mask), 0.005)


def _below_the_diaphragm(canvas: Canvas, anatomy: Anatomy, lungs: Field) -> Field:
    rows = np.arange(canvas.size, dtype=np.float32)[:, None] / canvas.size
    depth = np.clip((rows - np.float32(anatomy.base - 0.04)) / np.float32(0.20), 0, 1)
    trunk = ABDOMEN * depth * (1 - lungs)
    if anatomy.gas:
        width, height = 0.045 * anatomy.gas, 0.024 * anatomy.gas
        top = anatomy.base + anatomy.base_drop + 0.025 + height
        bubble = ellipse(0.46 * anatomy.half_width, top, width, height, angle=-0.2)
        trunk -= 0.20 * canvas.soften(canvas.fill(bubble), 0.006) * (1 - lungs)
    return trunk


def _bones(canvas: Canvas, anatomy: Anatomy, lungs: Field, lift: float) -> Field:
    sides = (-1, 1)
    backs = [anatomy.posterior_rib(i, s) for i in range(10) for s in sides]
    fronts = [anatomy.anterior_rib(i, s) for i in range(6) for s in sides]
    collars = [anatomy.clavicle(s, lift) for s in sides]
    ribs = RIB_BACK * _draw_hollow(canvas, backs, 0.025)
    ribs += RIB_FRONT * _draw_hollow(canvas, fronts, 0.026)
    # Where there is no air around it, a rib hardly shows.
    ribs *= 0.35 + 0.65 * canvas.soften(lungs, 0.02)
    bones = ribs + CLAVICLE * _draw_hollow(canvas, collars, 0.030)
    reach, top = anatomy.body, anatomy.top
    arms = canvas.blank()
    for side in sides:
        head = (side * 1.02 * reach, top + 0.07)
        canvas.stroke(arms, [curve(head, (side * 1.08 * reach, top + 0.5))], 0.045, 0.8)
        blade = curve(
            (side * 0.90 * reach, top + 0.03),
            (side * 0.66 * reach, top + 0.12),
            (side * 0.80 * reach, top + 0.30),
        )
        canvas.stroke(arms, [blade], 0.016, 0.7)
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
    hila = [ellipse(s * 0.082, anatomy.hilum_y + 0.015, 0.030, 0.055, -s * 0.3) for s in (-1, 1)]
    field = to_field(mask) + 0.7 * canvas.soften(canvas.fill(*hila), 0.012)
    return VESSEL * blur(field, canvas.width_px(0.0022))


def power_law_texture(size: int, rng: np.random.Generator) -> Field:
    """Clutter of many scales, as overlapping tissue makes it, with zero mean and unit deviation.

    Source:
        The power spectrum of chest radiographs falls with about the third power of frequency:
        Bochud et al. 1999, Burgess et al. 2001. Here as octaves of smooth noise.
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
    return texture / np.float32(np.sqrt(0.6 * total))  # 0.6: what the interpolation leaves
