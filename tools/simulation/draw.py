"""Images with a known truth: labels, scores and boxes of systems, by patient.

Scores are binormal unless the noise has heavy tails: every image has noise of variance 1, and a
positive image is shifted by the skill of the system. Two images of a patient correlate by 0.4
within a class, as CheXNet's scores do on RSNA, and the scores of two systems by 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, ndtri

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

EDGES = ["x1", "y1", "x2", "y2"]
SIDE = 1024.0  # px of every image
_RSNA = {
    1: 7084, 2: 1810, 3: 924, 4: 448, 5: 282, 6: 182, 7: 142, 8: 115, 9: 65, 10: 58, 11: 38, 12: 42,
    13: 44, 14: 25, 15: 26, 16: 24, 17: 17, 18: 19, 19: 12, 20: 8, 21: 6, 22: 8, 23: 9, 24: 7,
    25: 5, 26: 5, 28: 6, 29: 3, 30: 4, 32: 1, 33: 2, 35: 3, 36: 1, 39: 1, 40: 3, 41: 1, 42: 1,
    43: 2, 44: 1, 48: 2, 55: 1, 64: 1, 65: 1,
}  # fmt: skip
"""Patients of the RSNA Pneumonia Detection Challenge by their number of images."""


@dataclass(frozen=True)
class Law:
    """How images of patients and the scores of systems on them are drawn.

    Attributes:
        auroc: AUROC of each system, between images of different patients.
        patients: Number of test patients.
        validation: Number of validation patients; 0 for none.
        images: Number of images of a patient: ``one``, ``1-3`` (all equally likely), ``1-60``
            (Pareto), ``rsna``, or ``one-20`` (one patient has 20, all others have one).
        positive: Share of positive images.
        labels_alike: Correlation of the latent labels of a patient's images. At 0.2, RSNA's labels
            then correlate by 0.1; at 1, all images of a patient have one label.
        heavy_tails: True draws noise from Student's t with 5 degrees of freedom, of variance 1.
        least_evidence: Evidence below which an image has the score 0, as one without a box.
        in_lungs: True draws lesions, and places like one, at two places of the image; False
            anywhere.
        lesion_side: Median side of a lesion in px.
    """

    auroc: tuple[float, ...] = (0.85, 0.85)
    patients: int = 200
    validation: int = 0
    images: str = "one"
    positive: float = 0.3
    labels_alike: float = 0.2
    heavy_tails: bool = False
    least_evidence: float = -np.inf
    in_lungs: bool = False
    lesion_side: float = 190.0


@dataclass(frozen=True)
class Sample:
    """Labels ``(N,)``, scores in [0, 1) ``(systems, N)``, and numbers of patients ``(N,)``."""

    positive: npt.NDArray[np.bool_]
    scores: Floats
    patients: Integers


def skill_of(auroc: float) -> float:
    """Return the shift of positive images that gives an AUROC; the noise has a variance of 1."""
    return float(np.sqrt(2) * ndtri(auroc))


def images_of_patients(rng: np.random.Generator, law: Law, n_patients: int) -> Integers:
    """Draw the number of images of each patient, shape ``(n_patients,)``."""
    if law.images == "rsna":
        shares = np.array(list(_RSNA.values()), dtype=np.float64)
        return rng.choice(list(_RSNA), size=n_patients, p=shares / shares.sum())
    if law.images == "1-3":
        return rng.integers(1, 4, n_patients)
    if law.images == "1-60":
        return np.minimum(1 + rng.pareto(1.0, n_patients), 60).astype(np.int64)
    if law.images == "one-20":
        return np.where(np.arange(n_patients) == 0, 20, 1)
    return np.ones(n_patients, dtype=np.int64)


def draw(rng: np.random.Generator, law: Law, n_patients: int) -> Sample:
    """Draw a sample in which at least two patients have a positive and two a negative image."""
    while True:
        owner = np.repeat(np.arange(n_patients), images_of_patients(rng, law, n_patients))
        n_images = len(owner)
        latent = np.sqrt(law.labels_alike) * rng.standard_normal(n_patients)[owner]
        latent += np.sqrt(1 - law.labels_alike) * rng.standard_normal(n_images)
        positive = latent < ndtri(law.positive)
        if min(len(np.unique(owner[of])) for of in (positive, ~positive)) >= 2:
            break

    def standard(size: int) -> Floats:
        """Draw values of mean 0 and variance 1."""
        if law.heavy_tails:
            return np.sqrt(0.6) * rng.standard_t(5, size)
        return rng.standard_normal(size)

    def noise() -> Floats:
        """Draw half of the variance of a score: 0.2 of the patient and 0.3 of the image."""
        of_patient, of_image = standard(n_patients), standard(n_images)
        return np.sqrt(0.2) * of_patient[owner] + np.sqrt(0.3) * of_image

    common = noise()
    evidence = np.array([common + noise() + skill_of(auroc) * positive for auroc in law.auroc])
    scores = np.where(evidence < law.least_evidence, 0.0, expit(evidence))
    return Sample(positive, scores, owner)


@dataclass(frozen=True)
class BoxedImages:
    """Images of ``SIDE`` px with true boxes, and the boxes of two equal detectors.

    Tables of boxes have the columns of `EDGES` and ``image``, the number of the image; those of a
    detector also ``score``. The scores of `sample` are of no use.
    """

    sample: Sample
    lesions: pd.DataFrame
    boxes: list[pd.DataFrame]


_OF_LESION, _OF_LIKENESS, _OF_STRAY = 0.8, -2.3, -3.0  # mean evidence, in log-odds
_BETWEEN_IMAGES, _BETWEEN_PLACES = 0.45, 1.15  # standard deviations of the evidence
_FAINTEST = -2.3  # evidence without which there is no box
_SEEN = 0.85  # share of the lesions that a detector sees at all
_LIKENESSES, _STRAYS = 0.9, 0.7  # places like a lesion, and boxes of one detector alone, an image
LUNGS = np.array([[250.0, 600.0], [750.0, 600.0]])  # px
_SPREAD = np.array([60.0, 100.0])  # standard deviations of the centres in a lung, px
_JITTER, _STRETCH = 0.15, 0.19  # of a box's centre, as a share of its side, and of its log sides


def draw_boxes(rng: np.random.Generator, law: Law, n_patients: int) -> BoxedImages:
    """Draw images with the boxes of two equal detectors, whose AUROC is 0.94 and AP50 0.4.

    Both see the same lesions and the same places that look like one. What each finds, where it
    draws the box and how confident it is correlates between them by 0.5.
    """
    sample = draw(rng, replace(law, auroc=(0.5, 0.5)), n_patients)
    n_images = len(sample.positive)
    lesion = np.repeat(
        np.arange(n_images), np.where(sample.positive, rng.integers(1, 3, n_images), 0)
    )
    like = np.repeat(np.arange(n_images), rng.poisson(_LIKENESSES, n_images))
    place = np.concatenate([lesion, like])
    true = np.arange(len(place)) < len(lesion)
    median = np.log(law.lesion_side)
    side = np.exp(median + 0.35 * rng.standard_normal((len(place), 2))).clip(60, 420)
    centre = rng.uniform(0.5 * side, SIDE - 0.5 * side)
    if law.in_lungs:
        lung = rng.integers(0, 2, len(place))
        centre = LUNGS[lung] + _SPREAD * rng.standard_normal(side.shape)
    evidence = np.where(true, _OF_LESION, _OF_LIKENESS)
    evidence = evidence + _BETWEEN_IMAGES * logit(sample.scores)[:, place]
    evidence += _BETWEEN_PLACES * _of_two(rng, len(place))[..., 0]
    seen = _of_two(rng, len(place))[..., 0] < ndtri(_SEEN)
    evidence = np.where(true & ~seen, -np.inf, evidence)
    middle = centre + _JITTER * side * _of_two(rng, len(place), 2)
    half = side * np.exp(_STRETCH * _of_two(rng, len(place), 2)) / 2
    boxes = []
    for system in range(2):
        stray = np.repeat(np.arange(n_images), rng.poisson(_STRAYS, n_images))
        corner = rng.uniform(0, 0.8 * SIDE, (len(stray), 2))
        alone = _OF_STRAY + _BETWEEN_PLACES * rng.standard_normal(len(stray))
        given = np.concatenate([evidence[system], alone])
        own = np.hstack([middle[system] - half[system], middle[system] + half[system]])
        corners = np.vstack([own, np.hstack([corner, corner + rng.uniform(60, 300)])])
        corners = corners.clip(0, SIDE)
        kept = (given > _FAINTEST) & (corners[:, 2:] - corners[:, :2] > 1).all(axis=1)
        image = np.concatenate([place, stray])
        boxes.append(_table(image[kept], corners[kept], score=expit(given[kept])))
    corners = np.hstack([centre - side / 2, centre + side / 2]).clip(0, SIDE)
    return BoxedImages(sample, _table(place[true], corners[true]), boxes)


def _of_two(rng: np.random.Generator, count: int, width: int = 1) -> Floats:
    """Draw noise of two detectors that correlates by 0.5, shape ``(2, count, width)``."""
    common = rng.standard_normal((count, width))
    return np.sqrt(0.5) * (common + rng.standard_normal((2, count, width)))


def _table(image: Integers, corners: Floats, **more: Any) -> pd.DataFrame:
    return pd.DataFrame(corners, columns=EDGES).assign(image=image, **more)
