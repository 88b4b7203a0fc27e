"""Distractors on synthetic images: devices, lines, a large heart, scars.

They occur on images with lesions and on images without lesions alike.
"""

from dataclasses import replace

import numpy as np

from cxr_compare.data_prep.synth.anatomy import Anatomy, Canvas, Field, curve, ellipse, to_field

# Names of distractors that are on all images of a patient, and the share of patients who have any.
CHRONIC = ("pacemaker", "big_heart", "scar", "granuloma", "nipples", "raised_diaphragm"), 0.42
ACUTE = ("central_line", "ecg_leads", "tube"), 0.20  # the same, drawn anew for each image
_METAL = 0.55


def draw_names(rng: np.random.Generator, names: tuple[str, ...], rate: float) -> tuple[str, ...]:
    """Draw at random which distractors (visible things that are no lesion) an image has.

    Args:
        rng: Random generator.
        names: Names of the possible distractors, such as ``pacemaker``.
        rate: Probability, in [0, 1], that the image has at least one distractor.

    Returns:
        The drawn names; empty if there are none.
    """
    if rng.random() >= rate:
        return ()
    count = 1 + int(rng.random() < 0.3)
    return tuple(sorted(str(name) for name in rng.choice(names, count, replace=False)))


def alter_anatomy(
    anatomy: Anatomy, distractors: tuple[str, ...], rng: np.random.Generator
) -> Anatomy:
    """Change the shape of a synthetic chest if it shall have a big heart or a raised diaphragm.

    These changes are distractors, that is, visible things that are no lesion.

    Args:
        anatomy: Anatomy of the chest.
        distractors: Names of all distractors of the image. Names that do not concern the shape are
            ignored.
        rng: Random generator.

    Returns:
        The changed anatomy; the same anatomy if no such distractor is named.
    """
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
    """Draw devices and other things that are no lesion in front of a synthetic chest.

    Args:
        canvas: Size of the image, and position, rotation and scale of the patient on it.
        anatomy: Anatomy of the chest.
        distractors: Names of the things, such as ``pacemaker``. Names of changes that are not drawn
            here are ignored.
        rng: Random generator.

    Returns:
        Attenuation of the X-rays by these things in each pixel, float32 ``(H, W)``.
    """
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
    # Nipples look alike on both sides and are often mistaken for nodules.
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
