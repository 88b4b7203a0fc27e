"""Images that a guard learns from: varied chest X-rays, and images that are none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # the import would ask the network

import albumentations as A  # noqa: N812 - the name that its users know
import numpy as np


def varied_images(squares: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Change images as X-rays differ: cut, tilt, exposure, noise, sharpness."""
    change = A.Compose(
        [
            A.RandomCropFromBorders(0.08, 0.08, 0.08, 0.08, p=0.7),
            A.Affine(scale={"x": (0.85, 1.15), "y": (0.95, 1.05)}, rotate=(-9, 9), p=0.5),
            A.RandomGamma((60, 165), p=0.8),
            A.RandomBrightnessContrast(0.15, 0.4, p=0.6),
            A.GaussNoise((0, 0.04), p=0.3),
            A.Downscale((0.4, 0.9), p=0.3),
            A.Equalize(p=0.15),
        ],
        seed=17,
    )
    return [change(image=square)["image"] for square in squares]


def outside_images(squares: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Spoil each image twice, and draw noise and pages."""
    ways: list[Any] = [
        A.InvertImg(p=1),
        A.Rotate((90, 90), p=0.5),
        A.Rotate((180, 180), p=0.5),
        A.Rotate((270, 270), p=0.5),
        A.RandomGridShuffle((3, 3), p=0.5),
        A.RandomGridShuffle((5, 5), p=0.5),
        A.RandomResizedCrop((128, 128), (0.05, 0.2), p=0.5),
    ]
    spoil = A.Compose([A.OneOf(ways, p=1)], seed=18)
    made = [spoil(image=square)["image"] for square in squares for _ in range(2)]
    drawn = [_page(rng) if n % 2 else _noise(rng) for n in range(len(squares) // 2)]
    return [*made, *drawn]


def _noise(rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft2(rng.normal(size=(128, 128)))
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)) + 1 / 128
    drawn = np.fft.irfft2(spectrum * frequency ** -rng.uniform(0, 2.5))
    grey = 255 * rng.uniform(0.05, 1) * (drawn - drawn.min()) / np.ptp(drawn)
    return np.asarray(grey).astype(np.uint8)


def _page(rng: np.random.Generator) -> np.ndarray:
    page = np.full((128, 128), 255 if rng.random() < 0.8 else 30, np.uint8)
    for top in range(int(rng.integers(2, 20)), 124, int(rng.integers(4, 12))):
        for left in range(int(rng.integers(2, 20)), 120, int(rng.integers(8, 30))):
            if rng.random() < 0.7:
                page[top : top + rng.integers(1, 5), left : left + rng.integers(3, 20)] = (
                    rng.integers(0, 256)
                )
    return page
