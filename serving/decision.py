"""The decision of a run: its validation scores, what they choose, and a system that may guess."""

from __future__ import annotations

import numpy as np
from pydantic import model_validator

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.records import Items, Record
from cxr_compare.evaluation.boxes.map_boxes import MapLevels
from cxr_compare.evaluation.choices import Choices, Platt
from cxr_compare.evaluation.policies import threshold_of
from cxr_compare.evaluation.statistics.clustered_auroc import CHANCE, auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.figure_text import range_text

DECISION_FILE = "decision.json"


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
        """AUROC on the validation images, by patient; None with one class alone."""
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
