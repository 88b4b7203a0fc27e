"""Guard: tells by statistics of its pixels that an image is no frontal chest X-ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, first_line
from cxr_compare.data_prep.base.files import atomic_path
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.radiograph_check import SMALLEST_SIDE, why_no_radiograph
from cxr_compare.data_prep.pixels import PixelStore

GUARD_FILE = "guard.npz"
MIN_IMAGES, MIN_PATIENTS = 50, 5
"""Numbers of training images, and of their patients, from which a guard is learned."""
_MOST_IMAGES = 600
_SIDE = 64
_LAYOUT = 24
_PARTS = 40, 30  # of layout and edges
_LIMIT = 2.0  # log odds; refuses about 1 in 100 chest X-rays of the training's source
_NARROWEST = 0.6  # width by height of what an image shows; chest X-rays have 0.85 and more
_AGES = (2.0, 12.0, 18.0)
_AGE_GROUPS = ("under 2", "2 to 11", "12 to 17", "18 or more")
_RARE = 0.01
_COLOURED = 16.0
_ORIENTATIONS = {
    "RF": "mirrored, with the patient's right at the right",
    "RH": "upside down",
    "LH": "upside down and mirrored",
    **dict.fromkeys(("FL", "FR", "HL", "HR"), "lying on its side"),
}
SWAPPED = "as a negative it would: black and white seem to be swapped"
_SIDEWAYS = "turned by 90 degrees it would: it seems to lie on its side"
_TURNS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    (SWAPPED, lambda pixels: 255 - pixels),
    ("turned by 180 degrees it would: it seems to be upside down", np.flip),
    (_SIDEWAYS, np.rot90),
    (_SIDEWAYS, lambda pixels: np.rot90(pixels, 3)),
)


def statistics(square: np.ndarray) -> np.ndarray:
    """Describe an image: order of its greys by place, directions of its edges, and its contrast."""
    import cv2

    image = _without_borders(square)
    image = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.resize(image, (_LAYOUT, _LAYOUT), interpolation=cv2.INTER_AREA)
    ranks = np.argsort(np.argsort(small, axis=None, kind="stable")) / small.size
    values = image.astype(np.float32)
    x, y = cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1)
    size, angle = cv2.cartToPolar(x, y)
    cell = np.arange(_SIDE) // 16
    place = (cell[:, None] * 4 + cell) * 8 + (angle / (2 * np.pi) * 8).astype(int) % 8
    edges = np.sqrt(np.bincount(place.ravel(), size.ravel(), 128) / (size.sum() + 1e-6))
    spread = values.std() + 1e-3
    share = np.bincount(image.ravel(), minlength=256) / image.size
    seen = share[share > 0]
    power = np.abs(np.fft.fft2((values - values.mean()) * np.outer(*[np.hanning(_SIDE)] * 2))) ** 2
    ring = np.hypot(*np.meshgrid(*[np.fft.fftfreq(_SIDE, 1 / _SIDE)] * 2)).astype(int)
    rings = np.bincount(ring.ravel(), power.ravel())[1:31] / np.bincount(ring.ravel())[1:31]
    slope, level = np.polyfit(np.log(np.arange(1, 31)), np.log(rings + 1e-3), 1)
    order = ranks.reshape(_LAYOUT, _LAYOUT) - ranks.mean()
    overall = [
        -(seen * np.log(seen)).sum(),
        np.log(np.abs(cv2.Laplacian(values, cv2.CV_32F)).mean() / spread + 1e-3),
        np.log(size.mean() / spread + 1e-3),
        slope,
        level,
        (order * order[:, ::-1]).mean() * 12,
        (order * order[::-1]).mean() * 12,
        np.log(share.max() + 1e-4),
        np.log(share[:3].sum() + 0.01),
        np.log(share[253:].sum() + 0.01),
        np.log(spread),
        values.mean() / 64,
    ]
    return np.concatenate([ranks, edges, overall])


def _without_borders(image: np.ndarray) -> np.ndarray:
    import cv2

    if max(image.shape) > 2 * _SIDE:
        scale = 2 * _SIDE / max(image.shape)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for _ in range(2):
        low, high = np.percentile(image, [8, 92], axis=1)
        shows = np.flatnonzero(high > low + 12)
        if len(shows) > 15:
            image = image[shows[0] : shows[-1] + 1]
        image = image.T
    return np.ascontiguousarray(image)


@dataclass(frozen=True)
class Guard:
    """Statistics of the training images of a run, against which an image is held.

    Attributes:
        parts: Mean and principal parts of the layout, then of the edges.
        scale: Mean and spread of the places along them.
        weights: Of the terms, and the constant.
        ages: Numbers of training images by age group; empty where few state it.
    """

    layout_mean: np.ndarray
    layout_parts: np.ndarray
    edges_mean: np.ndarray
    edges_parts: np.ndarray
    scale_mean: np.ndarray
    scale_spread: np.ndarray
    weights: np.ndarray
    ages: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Guard:
        """Read the guard of a run or an export."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**stored)
        except Exception as error:  # noqa: BLE001 - of a damaged file
            raise InputError(f"{path}: is damaged ({first_line(error)})") from None

    def write(self, path: Path) -> None:
        """Write the guard."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **asdict(self))

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return the log odds that images with these statistics are no frontal chest X-rays."""
        parts = (self.layout_mean, self.layout_parts, self.edges_mean, self.edges_parts)
        terms = _terms(_places(features, *parts), self.scale_mean, self.scale_spread)
        return terms @ self.weights[:-1] + self.weights[-1]

    def refuses(self, square: np.ndarray) -> bool:
        """Return whether a square, or an image of any shape, looks like no frontal chest X-ray."""
        height, width = _without_borders(square).shape
        is_narrow = width < _NARROWEST * height
        return bool(is_narrow or self.scores(statistics(square)[None])[0] >= _LIMIT)

    def repair(self, square: np.ndarray) -> str | None:
        """Return what would make an image look like a frontal chest X-ray.

        None if it does; empty for an image that would not look like one in any way.
        """
        if not self.refuses(square):
            return None
        return next((text for text, turn in _TURNS if not self.refuses(turn(square))), "")

    def warnings(self, repair: str | None, age: float | None, system: str) -> list[str]:
        """Return sentences on why an image, or its age, is not of the kind of the training.

        `repair` is what `repair` returns for the image.
        """
        found = []
        if age is not None and len(self.ages):
            group = int(np.searchsorted(_AGES, age, side="right"))
            if self.ages[group] < _RARE * self.ages.sum():
                found.append(
                    f"by its header a patient of {_AGE_GROUPS[group]} years; of the "
                    f"{self.ages.sum():,} images that trained {system}, {self.ages[group]:,} are "
                    "of that age"
                )
        if repair is not None:
            message = f"does not look like the frontal chest X-rays that trained {system}"
            found.append(f"{message} ({repair})" if repair else message)
        return found


def file_warnings(path: Path | None, image: DecodedImage) -> list[str]:
    """Return sentences on why a file holds no frontal chest X-ray, by its header and its pixels."""
    import cv2

    reason, is_dicom = (None, False) if path is None else why_no_radiograph(path)
    found = [f"by its DICOM header no frontal chest X-ray: {reason}"] if reason else []
    height, width = image.pixels.shape
    if not is_dicom and min(height, width) < SMALLEST_SIDE:
        found.append(f"{width} x {height} px is too small for an X-ray")
    if cv2.meanStdDev(image.pixels)[1].item() < 1.0:
        found.append("without contrast: the whole image has one grey value, or nearly so")
    if image.colour >= _COLOURED:
        found.append("a colour image; X-rays are grey")
    stated = str(image.record.get("orientation") or "")
    row, _, column = stated.partition("\\")
    turned = _ORIENTATIONS.get(row[:1] + column[:1])
    if turned:
        found.append(f"by its DICOM header {turned} (PatientOrientation {stated})")
    return [*found, *image.doubts]


def fit_guard(store: PixelStore, patients: pd.Series, ages: pd.Series | None) -> Guard | None:
    """Learn to tell training images from spoilt and drawn ones.

    `patients` and `ages` are by image. None where there are too few images.
    """
    if len(patients) < MIN_IMAGES or patients.nunique() < MIN_PATIENTS:
        return None
    from cxr_compare.serving.guard_images import outside_images, varied_images

    rng = np.random.default_rng(17)
    chosen = patients.sort_index()
    if len(chosen) > _MOST_IMAGES:
        chosen = chosen.iloc[np.sort(rng.choice(len(chosen), _MOST_IMAGES, replace=False))]
    squares = [_without_borders(store.image(image_id)) for image_id in chosen.index]
    images = [*squares, *varied_images(squares), *outside_images(squares, rng)]
    features = np.array([statistics(image) for image in images])
    is_outside = np.arange(len(images)) >= 2 * len(squares)
    years = np.array([]) if ages is None else ages.loc[patients.index].to_numpy(np.float64)
    years = years[np.isfinite(years)]
    counts = np.bincount(np.searchsorted(_AGES, years, side="right"), minlength=4)
    known = counts if len(years) >= MIN_IMAGES else counts[:0]
    return _fitted(features, is_outside, known)


def _fitted(features: np.ndarray, is_outside: np.ndarray, ages: np.ndarray) -> Guard:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    inside = features[~is_outside]
    most = max(1, len(inside) // 16)
    layout = PCA(min(_PARTS[0], most), random_state=0).fit(inside[:, : _LAYOUT**2])
    edges = PCA(min(_PARTS[1], most), random_state=0).fit(inside[:, _LAYOUT**2 : -12])
    parts = (layout.mean_, layout.components_, edges.mean_, edges.components_)
    places = _places(features, *parts)
    usual = places[~is_outside]
    mean, spread = usual.mean(axis=0), usual.std(axis=0) + 1e-6
    model = LogisticRegression(C=0.02, class_weight="balanced", max_iter=500)
    model.fit(_terms(places, mean, spread), is_outside)
    weights = np.append(model.coef_[0], model.intercept_)
    return Guard(*parts, mean, spread, weights, ages)


def _places(
    features: np.ndarray,
    layout_mean: np.ndarray,
    layout_parts: np.ndarray,
    edges_mean: np.ndarray,
    edges_parts: np.ndarray,
) -> np.ndarray:
    layout = _along(features[:, : _LAYOUT**2], layout_mean, layout_parts)
    edges = _along(features[:, _LAYOUT**2 : -12], edges_mean, edges_parts)
    return np.hstack([features[:, -12:], layout, edges])


def _along(block: np.ndarray, mean: np.ndarray, parts: np.ndarray) -> np.ndarray:
    centred = block - mean
    places = centred @ parts.T
    rest = ((centred - places @ parts) ** 2).sum(axis=1, keepdims=True)
    return np.hstack([places, np.log(rest + 1e-6)])


def _terms(places: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    scaled = np.clip((places - mean) / spread, -8, 8)
    distance = np.log((scaled**2).mean(axis=1, keepdims=True) + 1e-6)
    return np.hstack([scaled, np.minimum(scaled**2, 16) / 3, distance])
