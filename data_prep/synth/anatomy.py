"""The phantom's patient: one chest, in thorax units, that several films of it share."""

from dataclasses import dataclass, replace

import numpy as np

from data_prep.synth.synth_canvas import Points, curve, ellipse, smooth_outline

_VESSEL_GENERATIONS = 5
_TRUNKS = 7  # vessels that leave each lung root


@dataclass(frozen=True)
class Anatomy:
    """The shape of one chest; lengths in film widths, see `synth_canvas.Canvas`.

    Attributes:
        half_width: Inner half width of the rib cage at its widest.
        top: Height of the lung apices.
        base: Height of the right diaphragm's dome.
        base_drop: How much lower the left dome lies.
        heart: Size of the heart, 1 is usual.
        body: Outer half width of the trunk.
        breast: Size of the breast shadows, 0 is none.
        rib_gap: Distance between two ribs on the spine.
        rib_slope: How far a rib falls on its way to the side.
        bone: Density of bone, 1 is usual; falls with age.
        spine_bend: Sideways bend of the spine.
        gas: Size of the gas bubble in the stomach, 0 is none.
        vessels: Per generation, the branches of both vascular trees, `(N, 3, 2)`.
    """

    half_width: float
    top: float
    base: float
    base_drop: float
    heart: float
    body: float
    breast: float
    rib_gap: float
    rib_slope: float
    bone: float
    spine_bend: float
    gas: float
    vessels: tuple[Points, ...]

    @property
    def hilum_y(self) -> float:
        """Height of the lung roots."""
        return self.top + 0.46 * (self.base - self.top)

    def wall(self, y: np.ndarray | float) -> np.ndarray:
        """Inner half width of the rib cage at height `y`."""
        heights = self.top + np.array([-0.02, 0.02, 0.08, 0.18, 0.32, 0.46, 0.70])
        widths = self.half_width * np.array([0.20, 0.44, 0.66, 0.84, 0.95, 1.0, 1.0])
        return np.asarray(np.interp(y, heights, widths))

    def lung(self, side: int) -> Points:
        """Outline of a lung; `side` -1 is the patient's right (the image's left), 1 the left."""
        width, top = self.half_width, self.top
        base = self.base + (self.base_drop if side > 0 else 0.0)
        heights = np.linspace(top + 0.02, base - 0.02, 7)
        lateral = [(float(self.wall(y)), float(y)) for y in heights]
        corners = [
            (0.30 * width, top),
            *lateral,
            (width, base + 0.08),
            (width - 0.004, base + 0.10),  # the costophrenic angle stays sharp
            (width - 0.02, base + 0.06),
            (0.80 * width, base + 0.015),
            (0.55 * width, base - 0.015),
            (0.33 * width, base + 0.005),
            (0.16 * width, base + 0.04),
            (0.13 * width, base - 0.15),
            (0.12 * width, self.hilum_y),
            (0.14 * width, top + 0.12),
            (0.17 * width, top + 0.03),
        ]
        outline = smooth_outline(np.array(corners), rounds=2)
        return outline * (side, 1.0)

    def heart_outline(self) -> Points:
        """Outline of the heart and of the great vessels above it."""
        size, bottom = self.heart, self.base + 0.055
        reach = 0.185 * size * self.half_width / 0.33
        corners = np.array(
            [
                (-0.055, self.hilum_y - 0.11),
                (0.03, self.hilum_y - 0.12),
                (0.062, self.hilum_y - 0.04),
                (0.070, self.hilum_y + 0.03),
                (0.55 * reach, self.hilum_y + 0.10),
                (0.95 * reach, bottom - 0.11),
                (1.02 * reach, bottom - 0.04),
                (0.85 * reach, bottom + 0.01),
                (0.2 * reach, bottom + 0.02),
                (-0.42 * reach, bottom + 0.01),
                (-0.60 * reach, bottom - 0.08),
                (-0.46 * reach, bottom - 0.18),
                (-0.065, self.hilum_y - 0.02),
            ]
        )
        return smooth_outline(corners)

    def aortic_knob(self) -> Points:
        """Outline of the aortic arch where it meets the left lung."""
        return ellipse(0.040, self.hilum_y - 0.095, 0.036, 0.040)

    def posterior_rib(self, index: int, side: int) -> Points:
        """Centre line of a back rib, spine to side; `index` 0 is the uppermost."""
        y = self.top - 0.035 + index * self.rib_gap
        reach = float(self.wall(y + 0.4 * self.rib_slope)) + 0.012
        fall = self.rib_slope * (0.55 + 0.06 * index)
        line = curve(
            (0.03, y),
            (0.35 * reach, y - 0.030),
            (0.80 * reach, y - 0.012),
            (1.03 * reach, y + 0.25 * fall),
            (1.00 * reach, y + fall),
        )
        return line * (side, 1.0)

    def anterior_rib(self, index: int, side: int) -> Points:
        """Centre line of a front rib, side to the cartilage; `index` 0 is the uppermost."""
        y = self.top + 0.055 + index * self.rib_gap * 1.05
        reach = float(self.wall(y)) + 0.008
        inner = (0.30 + 0.035 * index) * self.half_width
        line = curve(
            (reach, y),
            (0.97 * reach, y + 0.05),
            (0.65 * reach, y + 0.105),
            (inner, y + 0.100),
        )
        return line * (side, 1.0)

    def clavicle(self, side: int, lift: float) -> Points:
        """Centre line of a collar bone, inner end first; `lift` raises it (AP films)."""
        y = self.top + 0.075 - lift
        line = curve((0.035, y), (0.13, y + 0.005), (0.20, y - 0.055), (0.335, y - 0.055))
        return line * (side, 1.0)

    def trunk(self) -> Points:
        """Outline of neck, shoulders and trunk."""
        side, top = self.body, self.top
        half = np.array(
            [
                (0.075, -0.3),
                (0.078, top - 0.07),
                (0.13, top - 0.045),
                (0.74 * side, top - 0.015),
                (1.16 * side, top + 0.05),
                (1.36 * side, top + 0.16),
                (1.34 * side, top + 0.30),
                (1.04 * side, top + 0.40),
                (0.95 * side, self.base),
                (1.0 * side, 1.4),
            ]
        )
        return smooth_outline(np.concatenate([half, half[::-1] * (-1, 1)]))


def draw_anatomy(rng: np.random.Generator, sex: str, age: int) -> Anatomy:
    """Draw one chest.

    Args:
        rng: The patient's generator.
        sex: `"F"` or `"M"`; women get breast shadows and a slightly smaller chest.
        age: Years; bone fades with age.

    Returns:
        The chest.
    """
    half_width = (0.325 if sex == "M" else 0.31) * rng.uniform(0.93, 1.08)
    top = rng.uniform(0.085, 0.145)
    anatomy = Anatomy(
        half_width=half_width,
        top=top,
        base=top + rng.uniform(0.50, 0.60),
        base_drop=rng.uniform(0.005, 0.035),
        heart=rng.uniform(0.86, 1.12),
        body=half_width * rng.uniform(1.20, 1.50),
        breast=rng.uniform(0.5, 1.2) if sex == "F" else 0.0,
        rib_gap=rng.uniform(0.060, 0.072),
        rib_slope=rng.uniform(0.10, 0.17),
        bone=rng.uniform(0.85, 1.2) * (1.12 - 0.004 * max(age - 30, 0)),
        spine_bend=rng.normal(0, 0.006),
        gas=rng.uniform(0.6, 1.6) if rng.random() < 0.6 else 0.0,
        vessels=(),
    )
    return replace(anatomy, vessels=_grow_vessels(anatomy, rng))


def _grow_vessels(anatomy: Anatomy, rng: np.random.Generator) -> tuple[Points, ...]:
    """Two vascular trees that fork outwards from the hila, as segments by generation."""
    generations: list[Points] = []
    starts, angles, lengths = [], [], []
    for side in (-1, 1):
        # Down and out mostly, a few up: 0 points sideways, positive angles downwards.
        turns = np.linspace(-1.2, 1.4, _TRUNKS) + rng.normal(0, 0.15, _TRUNKS)
        root = np.array([side * 0.085, anatomy.hilum_y])
        starts.append(root + rng.normal(0, 0.014, (_TRUNKS, 2)))
        angles.append(np.where(side > 0, turns, np.pi - turns))
        lengths.append(rng.uniform(0.04, 0.10, _TRUNKS))
    start, angle, length = np.concatenate(starts), np.concatenate(angles), np.concatenate(lengths)
    for _ in range(_VESSEL_GENERATIONS):
        step = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
        end = start + step
        bend = np.stack([-step[:, 1], step[:, 0]], axis=1) * rng.normal(0, 0.14, (len(step), 1))
        middle = start + 0.5 * step + bend
        generations.append(np.stack([start, middle, end], axis=1))
        start = np.repeat(end, 2, axis=0)
        fork = rng.uniform(0.05, 0.75, (len(angle), 2)) * (-1, 1)
        angle = (angle[:, None] + fork).reshape(-1)
        length = np.repeat(length, 2) * rng.uniform(0.45, 1.05, 2 * len(length))
    return tuple(generations)
