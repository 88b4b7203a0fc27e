"""Test sets with a known truth: labels, scores of equal or unequal systems, and whose image it is.

Scores are binormal: noise of variance 1, a positive image shifted by the skill of the system. The
noise is shared in the parts of `Noise` between the images of a patient, between systems, and
between training seeds of one system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr, ndtri

from cxr_compare.evaluation.statistics.patient_images import IMAGES_PER_PATIENT as KNOWN_SETS

Floats = npt.NDArray[np.float64]

IMAGES_OF_A_PATIENT = KNOWN_SETS["rsna"]
"""How many patients have how many images."""


@dataclass(frozen=True)
class Noise:
    """Shares of the noise's variance; they sum to 1.

    The images of a patient correlate by 0.4 within a class, as CheXNet's scores do (pneumonia,
    infiltration, consolidation on 3,553 RSNA images: 0.40, 0.41, 0.45), systems by 0.5, seeds of
    one system by 0.75.

    Attributes:
        patient: Of a patient, whatever the system.
        patient_system: Of a patient and a system.
        patient_seed: Of a patient and a training seed.
        image: Of an image, whatever the system.
        image_system: Of an image and a system.
        image_seed: Of an image and a training seed.
    """

    patient: float = 0.20
    patient_system: float = 0.10
    patient_seed: float = 0.10
    image: float = 0.30
    image_system: float = 0.15
    image_seed: float = 0.15


NOISE = Noise()
ALIKE = Noise(0.40, 0.20, 0.20, 0.10, 0.05, 0.05)
"""Images of a patient correlate by 0.8: harder than what was measured."""
LABELS_ALIKE = 0.2
"""Correlation of the latent labels of a patient's images; RSNA's labels then correlate by 0.1."""
PREVALENCE = 0.3


@dataclass(frozen=True)
class Sample:
    """Images with labels, and the scores of several models on them.

    Attributes:
        y_true: Shape ``(N,)``.
        scores: In (0, 1), shape ``(models, N)``.
        patients: Patient of each image as an index from 0, shape ``(N,)``.
    """

    y_true: npt.NDArray[np.bool_]
    scores: Floats
    patients: npt.NDArray[np.int64]

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return int(self.patients.max()) + 1

    def repeated(self, count: int) -> Sample:
        """The same scores for so many models."""
        return Sample(self.y_true, np.repeat(self.scores[:1], count, axis=0), self.patients)


def skill_of(auroc: float) -> float:
    """The shift of positive images that gives an AUROC.

    Example:
        >>> round(skill_of(0.85), 4), skill_of(0.5)
        (1.4657, 0.0)
    """
    return float(np.sqrt(2) * ndtri(auroc))


def skill_spread(auroc: float, between_seeds: float) -> float:
    """The spread of the shift that gives AUROC a standard deviation between seeds."""
    slope = np.exp(-(skill_of(auroc) ** 2) / 4) / np.sqrt(4 * np.pi)
    return float(between_seeds / slope)


def recall_at(skill: Floats | float, threshold: float) -> float:
    """The true sensitivity of a model at a threshold on its scores; of a skill of 0: 1 - TNR."""
    return float(np.mean(ndtr(np.asarray(skill) - np.log(threshold / (1 - threshold)))))


def cluster_sizes(rng: np.random.Generator, n_patients: int, kind: str) -> npt.NDArray[np.int64]:
    """Images of each patient: ``one``, ``rsna`` or ``nih`` (drawn as there), or ``giant``.

    ``giant``: one patient with 100 images, all others with one.
    """
    sizes = np.ones(n_patients, dtype=np.int64)
    if kind in ("rsna", "nih"):
        table = KNOWN_SETS[kind]
        known = np.array(list(table))
        counts = np.array(list(table.values()), dtype=np.float64)
        sizes = rng.choice(known, size=n_patients, p=counts / counts.sum())
    elif kind == "giant":
        sizes[0] = 100
    return sizes


def draw(
    rng: np.random.Generator,
    n_patients: int,
    skills: Sequence[Sequence[float]],
    *,
    clusters: str = "one",
    prevalence: float = PREVALENCE,
    n_positive: int | None = None,
    noise: Noise = NOISE,
) -> Sample:
    """A sample with two patients a class or more; `n_positive` wants one image a patient."""
    while True:
        owner = np.repeat(np.arange(n_patients), cluster_sizes(rng, n_patients, clusters))
        if n_positive is not None:
            y_true = rng.permutation(len(owner)) < n_positive
        else:
            of_patient = rng.standard_normal(n_patients)[owner]
            latent = np.sqrt(LABELS_ALIKE) * of_patient
            latent += np.sqrt(1 - LABELS_ALIKE) * rng.standard_normal(len(owner))
            y_true = latent < ndtri(prevalence)
        having = [len(np.unique(owner[of])) for of in (y_true, ~y_true)]
        if min(having) >= 2:
            break

    def part(share_patient: float, share_image: float) -> Floats:
        of_patient = np.sqrt(share_patient) * rng.standard_normal(n_patients)[owner]
        return of_patient + np.sqrt(share_image) * rng.standard_normal(len(owner))

    common = part(noise.patient, noise.image)
    scores = []
    for seeds in skills:
        of_system = common + part(noise.patient_system, noise.image_system)
        for skill in seeds:
            of_seed = part(noise.patient_seed, noise.image_seed)
            scores.append(of_system + of_seed + skill * y_true)
    return Sample(y_true, expit(np.array(scores)), owner)


_FOUND = (0.45, 0.90)
"""How often a negative and a positive image gets a box."""
_BOX_SCORES = (-0.6, 1.2)
"""Mean of a box's evidence on a negative and on a positive image; its variance is 1."""


def draw_boxed(
    rng: np.random.Generator, n_images: int, overconfident: float = 1.0
) -> tuple[Sample, Floats]:
    """Scores of a detector, 0 where it gives no box, and the true probability of each image."""
    while True:
        y_true = rng.random(n_images) < PREVALENCE
        if 2 <= y_true.sum() <= n_images - 2:
            break
    boxed = rng.random(n_images) < np.where(y_true, _FOUND[1], _FOUND[0])
    evidence = np.where(y_true, _BOX_SCORES[1], _BOX_SCORES[0]) + rng.standard_normal(n_images)
    prior = np.log(PREVALENCE / (1 - PREVALENCE))
    low, high = _BOX_SCORES
    of_box = prior + np.log(_FOUND[1] / _FOUND[0])
    of_box = of_box + (high - low) * evidence - (high**2 - low**2) / 2
    without = prior + np.log((1 - _FOUND[1]) / (1 - _FOUND[0]))
    true = expit(np.where(boxed, of_box, without))
    scores = np.where(boxed, expit(overconfident * of_box), 0.0)
    return Sample(y_true, scores[None], np.arange(n_images)), true
