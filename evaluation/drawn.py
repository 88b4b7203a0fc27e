"""The answer of one system to one image, as it is drawn: boxes, map, point and decision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.evaluation.boxes.map_boxes import MapFrame, map_grid
from cxr_compare.evaluation.choices import Choices, choose
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.overlays.colours import SystemMark
from cxr_compare.evaluation.overlays.image_prediction import HeatMap, ImagePrediction
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.truth import Truth

_UNDECIDED = 0.5
"""Score from which boxes are shown without a threshold."""


class OperatingPoint(NamedTuple):
    """Rule by which scores become decisions.

    Attributes:
        policy: Rule that chose the threshold on validation images; empty for classes.
        choices: Threshold, calibration, and levels of maps.
    """

    policy: str
    choices: Choices

    @property
    def threshold(self) -> float | None:
        """Lowest score that is positive."""
        return self.choices.thresholds.get(self.policy)

    @property
    def reason(self) -> str:
        """Why the system cannot decide; empty if it can."""
        return self.choices.reasons.get(self.policy, "")

    def probability(self, score: float | None) -> float | None:
        """Return the calibrated probability of a score; None without calibration or score."""
        if self.choices.calibration is None or score is None:
            return None
        return float(self.choices.calibration.probability(np.array([score]))[0])

    def heat(self, grid: Floats, frame: MapFrame) -> HeatMap | None:
        """Return a map on the levels at which all maps of the system are drawn."""
        levels = self.choices.levels
        return None if levels is None else HeatMap(grid, frame, levels)

    def decide(
        self, system: str, mark: SystemMark, score: float, boxes: Floats, **drawn: Any
    ) -> ImagePrediction:
        """Return the answer to an image with a score and boxes ``(N, 5)``, and what else is drawn.

        On a positive image the best box is shown and every box at or above the threshold; on a
        negative one none; on an undecided one those at or above the threshold, or 0.5 without one.
        """
        threshold = self.threshold
        decision = None if threshold is None else bool(score >= threshold)
        return ImagePrediction(
            system,
            mark,
            score=score,
            threshold=threshold,
            probability=self.probability(score),
            decision=decision,
            boxes=boxes,
            box_cut=shown_box_cut(boxes[:, 4], decision, threshold),
            **drawn,
        )


@dataclass(frozen=True, eq=False)
class DrawnSystem:
    """Answers of one system to many images.

    Attributes:
        output: Scores, and what is drawn: boxes of the system's own, or maps. Boxes that are cut
            out of maps for figures are not drawn.
        localised: True by image id where the point lies on a lesion; missing where that is unknown.
    """

    name: str
    output: Output
    point: OperatingPoint
    localised: pd.Series

    @classmethod
    def of(
        cls, name: str, output: Output, truth: Truth, policy: str, choices: Choices | None = None
    ) -> DrawnSystem:
        """Return answers that are decided by a policy: by `choices`, or made on validation images.

        It is known if a point lies on a lesion where all lesions have boxes.
        """
        if choices is None:
            validation = truth.of("val")
            ran = validation.select(validation.ids.intersection(output.ran))
            choices = choose(output, ran, [policy])
        localised = pd.Series(index=output.scores.index, dtype="boolean")
        hits = output.localised(truth.boxes)
        if hits is not None:
            positive = truth.images["label"].reindex(localised.index) == 1
            localised[:] = hits
            localised = localised.where(positive & localised.index.isin(truth.boxed))
        return cls(name, output, OperatingPoint(policy, choices), localised)

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Table by image id: ``score``, ``decision`` and ``localised``, missing if unknown."""
        scores, threshold = self.output.scores, self.point.threshold
        called = pd.Series(None if threshold is None else scores >= threshold, scores.index)
        shown = scores if self.output.ranks else pd.Series(np.nan, scores.index)
        return pd.DataFrame({"score": shown, "decision": called, "localised": self.localised})

    @cached_property
    def _boxes_of(self) -> dict[Any, Any]:
        boxes = self.output.boxes
        return {} if boxes is None else boxes.groupby("image_id", sort=False).indices

    @cached_property
    def _map_of(self) -> dict[str, int]:
        ids = () if self.output.maps is None else self.output.maps["image_id"]
        return {str(image): row for row, image in enumerate(ids)}

    def prediction(self, image_id: str, mark: SystemMark) -> ImagePrediction:
        """Return the answer to one image, to be drawn with the mark of the system."""
        output = self.output
        score = float(output.scores.get(image_id, math.nan))
        if math.isnan(score):
            return ImagePrediction(self.name, mark)
        boxes = np.empty((0, 5))
        if output.boxes is not None and image_id in self._boxes_of:
            rows = output.boxes.iloc[self._boxes_of[image_id]]
            boxes = rows[[*EDGES, "score"]].to_numpy(np.float64)
        point = (math.nan, math.nan) if output.points is None else output.points.loc[image_id]
        x, y = map(float, point)
        localised = self.localised.get(image_id)
        answer = self.point.decide(
            self.name,
            mark,
            score,
            boxes,
            point=None if math.isnan(x) else (x, y),
            localised=None if pd.isna(localised) else bool(localised),
            heat=self._heat(image_id),
        )
        return answer if output.ranks else replace(answer, score=None, threshold=None)

    def _heat(self, image_id: str) -> HeatMap | None:
        if self.output.maps is None or image_id not in self._map_of:
            return None
        row: dict[Any, Any] = self.output.maps.iloc[self._map_of[image_id]].to_dict()
        return self.point.heat(map_grid(row), MapFrame(*(float(row[edge]) for edge in EDGES)))


def shown_box_cut(scores: Floats, decision: bool | None, threshold: float | None) -> float:
    """Return the score from which the boxes of a detector are shown on one image.

    Examples:
        >>> shown_box_cut(np.array([0.6, 0.2]), True, 0.3)
        0.3
    """
    if decision is None:
        return _UNDECIDED if threshold is None else threshold
    if not decision:
        return math.inf
    highest = float(scores.max(initial=0.0))
    return highest if threshold is None else min(threshold, highest)
