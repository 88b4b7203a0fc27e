"""Test sets with a known truth: labels, scores and boxes of systems, by patient.

Scores are binormal unless a law says otherwise: every image has noise of variance 1, and a positive
image is shifted by the skill of the system. Parts of the noise (see `Noise`) are shared between the
images of a patient, between systems, and between training seeds of one system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, ndtri

from tools.simulation.patient_images import IMAGES_PER_PATIENT

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Law = Literal["binormal", "crossing", "skewed", "five levels", "no box"]
"""Distribution of the scores.

``crossing``: the ROC curve of the second system crosses that of the others, with an equal AUROC.
``skewed``: the effect of a patient has heavy tails, the noise of an image is skewed, and some
lesions are subtle. ``five levels``: scores have five values. ``no box``: skewed scores of detectors
that find no box on many images, which then score 0.
"""

EDGES = ["x1", "y1", "x2", "y2"]


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
_SUBTLE = 0.4
_SUBTLE_SKILL = 0.45
_OBVIOUS_SKILL = (1 - _SUBTLE * _SUBTLE_SKILL) / (1 - _SUBTLE)
"""Share of subtle lesions, and their skill and that of the others as shares of the mean skill."""
_WITHOUT_BOX = (0.45, 0.10, 0.02)
"""Share of negative images without a box, and of images with subtle and with obvious lesions."""


@dataclass(frozen=True)
class Sample:
    """Images with labels, and the scores of several models on them.

    `y_true` is bool ``(N,)``; the scores are in (0, 1), ``(models, N)``; patients are indices from
    0, ``(N,)``.
    """

    y_true: npt.NDArray[np.bool_]
    scores: Floats
    patients: Integers

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return int(self.patients.max()) + 1


def skill_of(auroc: float) -> float:
    """Return the shift of positive images that gives an AUROC, in standard deviations of the noise.

    Example:
        >>> round(skill_of(0.85), 4), skill_of(0.5)
        (1.4657, 0.0)
    """
    return float(np.sqrt(2) * ndtri(auroc))


def skill_spread(auroc: float, between_seeds: float) -> float:
    """Return the standard deviation of the skill that gives the AUROC a standard deviation."""
    slope = np.exp(-(skill_of(auroc) ** 2) / 4) / np.sqrt(4 * np.pi)
    return float(between_seeds / slope)


def cluster_sizes(rng: np.random.Generator, n_patients: int, kind: str) -> Integers:
    """Draw the number of images of each patient, shape ``(n_patients,)``.

    `kind` is ``one`` (one image each), ``1-3``, ``1-60`` (Pareto: most patients have one or two),
    ``rsna`` or ``nih`` (numbers as in these data sets), or ``giant`` (one patient with 100 images,
    all others with one).
    """
    if kind in IMAGES_PER_PATIENT:
        table = IMAGES_PER_PATIENT[kind]
        shares = np.array(list(table.values()), dtype=np.float64)
        return rng.choice(list(table), size=n_patients, p=shares / shares.sum())
    if kind == "1-3":
        return rng.integers(1, 4, n_patients)
    if kind == "1-60":
        return np.minimum(1 + rng.pareto(1.0, n_patients), 60).astype(np.int64)
    sizes = np.ones(n_patients, dtype=np.int64)
    if kind == "giant":
        sizes[0] = 100
    return sizes


def draw(
    rng: np.random.Generator,
    n_patients: int,
    skills: Sequence[Sequence[float]],
    *,
    clusters: str = "one",
    prevalence: float = 0.3,
    n_positive: int | None = None,
    noise: Noise = NOISE,
    law: Law = "binormal",
    labels_alike: float = LABELS_ALIKE,
) -> Sample:
    """Draw a sample in which at least two patients have a positive and two a negative image.

    `skills` are the shifts of positive images of each training seed, by system; the scores have a
    row for each. `clusters` is a kind of `cluster_sizes`. `n_positive` needs one image per patient;
    None draws labels that correlate within a patient, by `labels_alike` of their latent values.
    """
    while True:
        owner = np.repeat(np.arange(n_patients), cluster_sizes(rng, n_patients, clusters))
        if n_positive is not None:
            y_true = rng.permutation(len(owner)) < n_positive
        else:
            of_patient = rng.standard_normal(n_patients)[owner]
            latent = np.sqrt(labels_alike) * of_patient
            latent += np.sqrt(1 - labels_alike) * rng.standard_normal(len(owner))
            y_true = latent < ndtri(prevalence)
        having = [len(np.unique(owner[of])) for of in (y_true, ~y_true)]
        if min(having) >= 2:
            break

    is_skewed = law in ("skewed", "no box")

    def part(share_patient: float, share_image: float) -> Floats:
        of_patient = rng.standard_normal(n_patients)
        of_image = rng.standard_normal(len(owner))
        if is_skewed:
            of_patient = rng.standard_t(4, n_patients) / np.sqrt(2)
            of_image = (rng.gumbel(size=len(owner)) - np.euler_gamma) * np.sqrt(6) / np.pi
        return np.sqrt(share_patient) * of_patient[owner] + np.sqrt(share_image) * of_image

    subtle = rng.random(len(owner)) < _SUBTLE if is_skewed else np.zeros(len(owner), dtype=bool)
    weight = np.where(subtle, _SUBTLE_SKILL, _OBVIOUS_SKILL) if is_skewed else 1.0
    common = part(noise.patient, noise.image)
    scores = []
    for number, seeds in enumerate(skills):
        of_system = common + part(noise.patient_system, noise.image_system)
        for skill in seeds:
            evidence = of_system + part(noise.patient_seed, noise.image_seed)
            if law == "crossing" and number == 1:  # positive images with twice the spread
                evidence = np.where(y_true, 2 * evidence + np.sqrt(2.5) * skill, evidence)
            else:
                evidence = evidence + weight * skill * y_true
            scores.append(_on_scale(rng, expit(evidence), law, y_true, subtle))
    return Sample(y_true, np.array(scores), owner)


def _on_scale(
    rng: np.random.Generator, scores: Floats, law: Law, y_true: Any, subtle: Any
) -> Floats:
    """Round the scores to five levels, or give images without a box the score 0, by the law."""
    if law == "five levels":
        return np.asarray((np.searchsorted([0.3, 0.5, 0.7, 0.85], scores) + 0.5) / 5)
    if law == "no box":
        of_negative, of_subtle, of_obvious = _WITHOUT_BOX
        shares = np.where(y_true, np.where(subtle, of_subtle, of_obvious), of_negative)
        return np.where(rng.random(len(scores)) < shares, 0.0, scores)
    return scores


SIDE = 1024.0  # px


@dataclass(frozen=True)
class Detector:
    """Distribution of the boxes of both detectors; evidence is in log-odds.

    Attributes:
        lesion: Mean evidence of a lesion.
        distractor: Mean evidence of a location that looks like a lesion.
        distractors: Mean number of such locations in an image.
        image: Standard deviation of the evidence between images, shared by all boxes of an image.
        location: Standard deviation of the evidence between locations.
        doubles: Mean number of further boxes around each box, as networks give them.
    """

    lesion: float = 0.8
    distractor: float = -2.3
    distractors: float = 0.9
    image: float = 0.45
    location: float = 1.15
    doubles: float = 0.0


DETECTOR = Detector()
"""Detector with AUROC 0.94 and AP50 0.4."""
DOUBLING = Detector(0.2, -1.9, 1.6, image=0.6, location=0.8, doubles=1.2)
"""Detector with AUROC 0.87 to 0.89 that boxes most locations several times."""
_JITTER = 0.15
_STRETCH = 0.19
"""Standard deviations of a box's centre, as a share of its side, and of the log of its sides."""
_SEEN = 0.85  # share of lesions that a detector sees at all
_STRAY = 0.7  # boxes of one detector alone, on average, with an evidence about _STRAY_EVIDENCE
_STRAY_EVIDENCE = -3.0
_FAINTEST = -2.3  # evidence without which there is no box


@dataclass(frozen=True)
class BoxedImages:
    """Images with true boxes, and the boxes of two detectors.

    `lesions` are true boxes: ``image`` (index of the image) and the columns of `EDGES`. `boxes` are
    those of each detector, with a column ``score``, too. The scores of `sample` are of no use.
    """

    sample: Sample
    lesions: pd.DataFrame
    boxes: list[pd.DataFrame]

    @cached_property
    def image_ids(self) -> pd.Index:
        """Name of each image."""
        return pd.Index(np.char.add("i", np.arange(len(self.sample.y_true)).astype(str)))

    def scores(self, system: int) -> Floats:
        """Return the score of the most confident box of each image, 0 without one."""
        highest = np.zeros(len(self.sample.y_true))
        boxes = self.boxes[system]
        np.maximum.at(highest, boxes["image"].to_numpy(), boxes["score"].to_numpy())
        return highest


def draw_images(
    rng: np.random.Generator,
    n_patients: int,
    clusters: str,
    law: Detector = DETECTOR,
    *,
    prevalence: float = 0.3,
) -> BoxedImages:
    """Draw images of patients with the boxes of two equal detectors.

    Both detectors see the same lesions and the same locations that look like a lesion. What each
    finds, where it draws the box and how confident it is correlates between them.

    `clusters` is a kind of `cluster_sizes`.
    """
    sample = draw(rng, n_patients, [[0.0]] * 2, clusters=clusters, prevalence=prevalence)
    of_image = logit(sample.scores)
    n_images = len(sample.y_true)
    counts = np.where(sample.y_true, rng.integers(1, 3, n_images), 0)
    lesion = np.repeat(np.arange(n_images), counts)
    like = np.repeat(np.arange(n_images), rng.poisson(law.distractors, n_images))
    location = np.concatenate([lesion, like])
    true = np.arange(len(location)) < len(lesion)
    side = np.exp(np.log(190) + 0.35 * rng.standard_normal((len(location), 2))).clip(60, 420)
    centre = rng.uniform(0.5 * side, SIDE - 0.5 * side)
    evidence = np.where(true, law.lesion, law.distractor) + law.image * of_image[:, location]
    evidence += law.location * _of_two(rng, len(location))[..., 0]
    seen = _of_two(rng, len(location))[..., 0] < ndtri(_SEEN)
    evidence = np.where(true & ~seen, -np.inf, evidence)
    middle = centre + _JITTER * side * _of_two(rng, len(location), 2)
    size = side * np.exp(_STRETCH * _of_two(rng, len(location), 2))
    lesions = _table(lesion, np.hstack([centre - side / 2, centre + side / 2])[true])
    boxes = []
    for system in range(2):
        stray = np.repeat(np.arange(n_images), rng.poisson(_STRAY, n_images))
        corner = rng.uniform(0, 0.8 * SIDE, (len(stray), 2))
        alone = _STRAY_EVIDENCE + law.location * rng.standard_normal(len(stray))
        image = np.concatenate([location, stray])
        given = np.concatenate([evidence[system], alone])
        half = size[system] / 2
        own = np.hstack([middle[system] - half, middle[system] + half])
        corners = np.vstack([own, np.hstack([corner, corner + rng.uniform(60, 300)])])
        marked = given > _FAINTEST
        found = _table(image[marked], corners[marked], score=expit(given[marked]))
        boxes.append(_inside(_with_doubles(rng, found, law.doubles) if law.doubles else found))
    return BoxedImages(sample, lesions, boxes)


def _of_two(rng: np.random.Generator, count: int, width: int = 1) -> Floats:
    """Draw noise of two detectors that correlates by 0.5, shape ``(2, count, width)``."""
    common = rng.standard_normal((count, width))
    own = rng.standard_normal((2, count, width))
    return np.sqrt(0.5) * (common + own)


def _table(image: Integers, corners: Floats, **more: Any) -> pd.DataFrame:
    return pd.DataFrame(corners, columns=EDGES).assign(image=image, **more)


def _inside(boxes: pd.DataFrame) -> pd.DataFrame:
    """Clip boxes to the image, and leave out those of which nothing is left."""
    boxes = boxes.assign(**boxes[EDGES].clip(0, SIDE))
    left = (boxes["x2"] - boxes["x1"] > 1) & (boxes["y2"] - boxes["y1"] > 1)
    return boxes[left].reset_index(drop=True)


def _with_doubles(rng: np.random.Generator, boxes: pd.DataFrame, doubles: float) -> pd.DataFrame:
    """Add boxes of lower scores around each box, without overlaps above 0.6, as networks give."""
    rows = np.repeat(np.arange(len(boxes)), rng.poisson(doubles, len(boxes)))
    further = boxes.iloc[rows].reset_index(drop=True)
    corners = further[EDGES].to_numpy(np.float64)
    side = np.tile(corners[:, 2:] - corners[:, :2], 2)
    moved = corners + 0.22 * side * rng.standard_normal(corners.shape)
    proper = ((moved[:, 2:] - moved[:, :2]) > 0.2 * side[:, :2]).all(axis=1)
    further[EDGES] = np.where(proper[:, None], moved, corners)
    further["score"] *= 1 - 0.35 * rng.random(len(further))
    return suppressed(pd.concat([boxes, further], ignore_index=True), 0.6)


def suppressed(boxes: pd.DataFrame, limit: float) -> pd.DataFrame:
    """Keep the boxes that overlap no kept box of a higher score by more than an IoU."""
    kept: list[int] = []
    boxes = boxes.sort_values("score", ascending=False, ignore_index=True)
    corners = boxes[EDGES].to_numpy(np.float64)
    area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    for rows in boxes.groupby("image").indices.values():
        of_image: list[int] = []
        for row in rows:
            low = np.maximum(corners[row, :2], corners[of_image, :2])
            high = np.minimum(corners[row, 2:], corners[of_image, 2:])
            shared = np.prod((high - low).clip(0), axis=1)
            iou = shared / (area[row] + area[of_image] - shared)
            if not (iou > limit).any():
                of_image.append(int(row))
        kept += of_image
    return boxes.iloc[sorted(kept)].reset_index(drop=True)


def constant_boxes(scores: Floats) -> pd.DataFrame:
    """Return two boxes at positions that are the same on every image, with image scores."""
    left, right = [100.0, 400.0, 400.0, 800.0], [600.0, 400.0, 900.0, 800.0]
    n_images = len(scores)
    table = _table(np.tile(np.arange(n_images), 2), np.repeat([left, right], n_images, axis=0))
    return table.assign(score=np.concatenate([scores, 0.9 * scores]))
