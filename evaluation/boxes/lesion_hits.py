"""Lesions that boxes find, and boxes that find none, by one of three rules of a hit."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

Hit = Literal["iou", "centre"]


class HitRule(NamedTuple):
    """When a mark finds a lesion: by its centre in it, by overlap, or by distance of centres."""

    kind: Literal["iou", "centre", "distance"]
    limit: float = 0.0  # the least IoU, or the largest distance, original px


HIT_RULES: dict[Hit, HitRule] = {"iou": HitRule("iou", 0.2), "centre": HitRule("centre")}
"""What finds a lesion in figures of systems; a centre on the border counts."""


class LesionHits(NamedTuple):
    """What marks find, of readers as of systems; a mark that hits no lesion is false."""

    lesion_image: Integers  # position of each lesion's image, shape `(lesions,)`
    best: Floats  # the highest score that finds each lesion, -inf where none does
    mark_image: Integers  # position of each mark's image, shape `(marks,)`
    mark_score: Floats
    false: npt.NDArray[np.bool_]  # which marks hit no lesion
    n_images: int

    @property
    def highest_false(self) -> Floats:
        """Of each image the highest score of a false mark, -inf without one, ``(images,)``."""
        highest = np.full(self.n_images, -np.inf)
        np.maximum.at(highest, self.mark_image[self.false], self.mark_score[self.false])
        return highest

    @property
    def normal(self) -> npt.NDArray[np.bool_]:
        """Which images have no lesion, ``(images,)``."""
        return np.bincount(self.lesion_image, minlength=self.n_images) == 0

    def afroc_curve(self, worth: Floats) -> tuple[Floats, Floats]:
        """False-positive fraction of normal images, and lesions found by worth; from 0 to 1."""
        normals = self.highest_false[self.normal]
        scores = np.unique(np.concatenate([self.best, normals]))[::-1]
        cuts = scores[scores > -np.inf][:, None]
        false = (normals >= cuts).mean(axis=1)
        found = ((self.best >= cuts) * worth).sum(axis=1) / worth.sum()
        return np.concatenate([[0.0], false, [1.0]]), np.concatenate([[0.0], found, [1.0]])


def find_lesions(pairs: BoxPairs, rule: HitRule = HIT_RULES["iou"]) -> LesionHits:
    """Which lesions boxes find, and which boxes are false."""
    near = _hits(pairs, rule)
    best = np.full(len(pairs.truth.image), -np.inf)
    np.maximum.at(best, pairs.true[near], pairs.boxes.score[pairs.box[near]])
    false = np.ones(len(pairs.boxes.score), dtype=bool)
    false[pairs.box[near]] = False
    boxes, n_images = pairs.boxes, len(pairs.truth.per_image)
    return LesionHits(pairs.truth.image, best, boxes.image, boxes.score, false, n_images)


def _hits(pairs: BoxPairs, rule: HitRule) -> npt.NDArray[np.bool_]:
    """Which pairs are a mark that finds a lesion, shape ``(pairs,)``."""
    if rule.kind == "iou":
        return np.asarray(pairs.iou >= rule.limit)
    mark, lesion = pairs.boxes.corners[pairs.box], pairs.truth.corners[pairs.true]
    centre = (mark[:, :2] + mark[:, 2:]) / 2
    if rule.kind == "distance":
        away = centre - (lesion[:, :2] + lesion[:, 2:]) / 2
        return np.asarray(np.hypot(away[:, 0], away[:, 1]) <= rule.limit)
    return np.asarray(((centre >= lesion[:, :2]) & (centre <= lesion[:, 2:])).all(axis=1))
