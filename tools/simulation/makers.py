"""Test sets with a known truth: labels, scores of equal or unequal systems, and patients.

Scores are binormal: every image has noise of variance 1, and a positive image is shifted by the
skill of the system. Parts of the noise (see `Noise`) are shared between the images of a patient,
between systems, and between training seeds of one system.
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
"""Number of patients by number of images, as in RSNA's data."""


@dataclass(frozen=True)
class Noise:
    """Shares of the variance of the noise; they add up to 1.

    The images of a patient correlate by 0.4 within a class, as CheXNet's scores do (pneumonia,
    infiltration, consolidation on 3,553 RSNA images: 0.40, 0.41, 0.45), systems by 0.5, seeds of
    one system by 0.75.

    Attributes:
        patient: Share that all images of a patient have in common, for all systems.
        patient_system: Share that all images of a patient have in common, for one system.
        patient_seed: Share that all images of a patient have in common, for one training seed.
        image: Share of an image that all systems have in common.
        image_system: Share of an image that all seeds of one system have in common.
        image_seed: Share of an image that one training seed has alone.
    """

    patient: float = 0.20
    patient_system: float = 0.10
    patient_seed: float = 0.10
    image: float = 0.30
    image_system: float = 0.15
    image_seed: float = 0.15


NOISE = Noise()
ALIKE = Noise(0.40, 0.20, 0.20, 0.10, 0.05, 0.05)
"""Noise in which images of a patient correlate by 0.8, which is more than was measured."""
LABELS_ALIKE = 0.2
"""Correlation of the latent labels of a patient's images; RSNA's labels then correlate by 0.1."""
PREVALENCE = 0.3


@dataclass(frozen=True)
class Sample:
    """Images with labels, and the scores of several models on them.

    Attributes:
        y_true: True for positive images, shape ``(N,)``.
        scores: Scores of each model in (0, 1), shape ``(models, N)``.
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
        """Return a sample in which several models have the scores of the first model.

        Args:
            count: Number of models.

        Returns:
            The same images with equal scores.
        """
        return Sample(self.y_true, np.repeat(self.scores[:1], count, axis=0), self.patients)


def skill_of(auroc: float) -> float:
    """Return the shift of positive images that gives an AUROC.

    Args:
        auroc: AUROC in (0, 1).

    Returns:
        The shift, in standard deviations of the noise.

    Example:
        >>> round(skill_of(0.85), 4), skill_of(0.5)
        (1.4657, 0.0)
    """
    return float(np.sqrt(2) * ndtri(auroc))


def skill_spread(auroc: float, between_seeds: float) -> float:
    """Return the standard deviation of the shift that gives the AUROC a standard deviation.

    Args:
        auroc: Mean AUROC, in (0, 1).
        between_seeds: Standard deviation of the AUROC between training seeds.

    Returns:
        Standard deviation of the shift of positive images.
    """
    slope = np.exp(-(skill_of(auroc) ** 2) / 4) / np.sqrt(4 * np.pi)
    return float(between_seeds / slope)


def recall_at(skill: Floats | float, threshold: float) -> float:
    """Return the true sensitivity of a model at a threshold of its scores.

    Args:
        skill: Shift of positive images, one number or one for each model. A skill of 0 gives 1
            minus the specificity.
        threshold: Threshold of the scores, in (0, 1).

    Returns:
        Sensitivity, as the mean over the models.
    """
    return float(np.mean(ndtr(np.asarray(skill) - np.log(threshold / (1 - threshold)))))


def cluster_sizes(rng: np.random.Generator, n_patients: int, kind: str) -> npt.NDArray[np.int64]:
    """Draw the number of images of each patient.

    Args:
        rng: Random generator.
        n_patients: Number of patients.
        kind: ``one`` (one image each), ``rsna`` or ``nih`` (numbers as in these data sets), or
            ``giant`` (one patient with 100 images, all others with one).

    Returns:
        Number of images of each patient, shape ``(n_patients,)``.
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
    """Draw a sample in which at least two patients have a positive and two a negative image.

    Args:
        rng: Random generator.
        n_patients: Number of patients.
        skills: Shift of positive images of each training seed, by system.
        clusters: Number of images of a patient, see `cluster_sizes`.
        prevalence: Share of positive images, in (0, 1).
        n_positive: Exact number of positive images; needs one image per patient. None draws labels
            that correlate within a patient.
        noise: Shares of the variance of the noise.

    Returns:
        The images, with one row of scores for each seed of each system.
    """
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
"""Probability that a negative and a positive image gets a box."""
_BOX_SCORES = (-0.6, 1.2)
"""Mean evidence of a box on a negative and on a positive image; the variance is 1."""


def draw_boxed(
    rng: np.random.Generator, n_images: int, overconfident: float = 1.0
) -> tuple[Sample, Floats]:
    """Draw the image scores of a detector, which are 0 for images without a box.

    Args:
        rng: Random generator.
        n_images: Number of images, one of each patient.
        overconfident: Factor by which the log-odds of the scores are too large; 1 gives calibrated
            scores.

    Returns:
        The sample, and the true probability of each image, shape ``(n_images,)``.
    """
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
