"""Limits of an answer: a system that may guess, an image of its training, its decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import model_validator

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.files import named_file
from cxr_compare.data_prep.base.records import Items, Record
from cxr_compare.data_prep.base.tables import read_table
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.predictions import SEEN_FILE
from cxr_compare.data_prep.seen import SeenImage, SeenImages
from cxr_compare.evaluation.boxes.map_boxes import MapLevels
from cxr_compare.evaluation.choices import Choices, Platt
from cxr_compare.evaluation.policies import threshold_of
from cxr_compare.evaluation.statistics.clustered_auroc import CHANCE, auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.figure_text import range_text
from cxr_compare.training.run_info import RunInfo

DECISION_FILE = "decision.json"
_SEEN = {
    "train": "{image} trained {system}: the answer says nothing about new images",
    "val": "{image} served to choose the weights and the threshold of {system}",
}


class Decision(Record, kind="run_decision"):
    """Content of ``decision.json``: validation scores of a run, and what was chosen on them.

    Attributes:
        weights: SHA-256 of the weights that gave the scores.
        finding: Name for people of what is decided.
        calibration: Function from scores to probabilities; None without one.
        map_levels: Levels at which all maps are drawn; None without maps.
        patients: Number of the patient of each image, no id.
    """

    weights: str
    finding: str
    calibration: Platt | None = None
    map_levels: MapLevels | None = None
    positive: Items[bool]
    scores: Items[float]
    patients: Items[int]

    @model_validator(mode="after")
    def _has_a_value_an_image(self) -> Decision:
        n_images = len(self.scores)
        if not len(self.positive) == len(self.patients) == n_images:
            raise ValueError("positive, scores and patients do not have one value an image")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores holds a value that is not finite")
        if not all(0 <= number < n_images for number in self.patients):
            raise ValueError("patients holds a number that is none of a patient")
        return self

    def choices(self, policy: str) -> Choices:
        """Return what was chosen, with the threshold of a policy or the reason for none."""
        positive, scores = np.array(self.positive, bool), np.array(self.scores)
        chosen, reason = threshold_of(positive, scores, policy)
        return Choices(
            thresholds={} if chosen is None else {policy: chosen},
            reasons={policy: reason} if reason else {},
            calibration=self.calibration,
            levels=self.map_levels,
        )

    @property
    def auroc(self) -> ClusteredEstimate | None:
        """AUROC on the validation images; None with one class alone."""
        patients = np.array(self.patients, np.int64)
        if not len(patients):
            return None
        scores = np.array(self.scores)
        parts = auroc_parts(np.array(self.positive), scores, patients, int(patients.max()) + 1)
        return None if parts is None else parts.estimate()

    def caution(self, system: str) -> str | None:
        """Return a sentence where the system may guess; None where it was shown to do better."""
        auroc = self.auroc
        if auroc is None or auroc.ci_low > CHANCE:
            return None
        interval = "no interval"
        if auroc.has_interval:
            interval = f"95 % interval {range_text(auroc.ci_low, auroc.ci_high, digits=2)}"
        return (
            f"{system} was not shown to be better than guessing: AUROC {auroc.estimate:.2f} "
            f"({interval}) on {counted(len(self.scores), 'validation image')}"
        )


@dataclass(frozen=True)
class TrainingImages:
    """Images that a training has seen; None where they are not at hand, as for an export."""

    lookup: SeenImages | None
    is_complete: bool

    @classmethod
    def of_run(cls, folder: Path, files: Mapping[str, str], info: RunInfo) -> TrainingImages:
        """Read the images that a run has seen; an export has none."""
        path = named_file(folder, SEEN_FILE, files)
        lookup = None if path is None else SeenImages(read_table(path, "seen"))
        return cls(
            lookup if lookup and lookup.has_pixels else None, is_complete=not info.unknown_weights
        )

    def find(self, image: DecodedImage) -> SeenImage | None:
        """Return the use that the training made of an image or a near copy of it."""
        if self.lookup is None:
            return None
        return self.lookup.find(image.pixel_sha256, image.perceptual_hash)

    def state(self, found: SeenImage | None) -> Literal["train", "val", "no", "unknown"]:
        """Return the use in one word."""
        if found is not None:
            return found.role
        return "no" if self.lookup is not None and self.is_complete else "unknown"


def seen_caution(found: SeenImage | None, system: str) -> str | None:
    """Return the sentence about an image that the training has seen; None if it has not."""
    if found is None:
        return None
    image = "a near copy of this image" if found.is_near else "this image"
    return _SEEN[found.role].format(image=image, system=system)
