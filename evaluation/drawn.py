"""The answer of one system to one image, as it is drawn: boxes, map, point and decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.evaluation.boxes.map_boxes import MapFrame, MapLevels, map_grid
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.overlays.colours import SystemMark
from cxr_compare.evaluation.overlays.image_prediction import HeatMap, ImagePrediction
from cxr_compare.evaluation.statistics.arrays import Floats

_UNDECIDED = 0.5
"""Score from which boxes are shown without a threshold."""


@dataclass(frozen=True, eq=False)
class DrawnSystem:
    """Answers of one system to many images.

    Attributes:
        decisions: Table by image id: ``score``, and where they are known ``probability``,
            ``decision``, ``localised``, ``point_x`` and ``point_y``.
        boxes: Boxes of the system's own; None without. Those that are cut out of maps for figures
            are not drawn.
        maps: Activation maps; None without. `levels` are those at which they are drawn.
    """

    name: str
    decisions: pd.DataFrame
    boxes: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None
    levels: MapLevels | None = None
    threshold: float | None = None

    @cached_property
    def _boxes_of(self) -> dict[Any, Any]:
        return {} if self.boxes is None else self.boxes.groupby("image_id", sort=False).indices

    @cached_property
    def _map_of(self) -> dict[str, int]:
        ids = () if self.maps is None else self.maps["image_id"]
        return {str(image): row for row, image in enumerate(ids)}

    def prediction(self, image_id: str, mark: SystemMark) -> ImagePrediction:
        """Return the answer to one image, to be drawn with the mark of the system."""
        row: dict[Any, Any] = {}
        if image_id in self.decisions.index:
            row = self.decisions.loc[image_id].to_dict()
        facts = {key: value for key, value in row.items() if not pd.isna(value)}
        decision = bool(facts["decision"]) if "decision" in facts else None
        boxes = np.empty((0, 5))
        if self.boxes is not None and image_id in self._boxes_of:
            rows = self.boxes.iloc[self._boxes_of[image_id]]
            boxes = rows[[*EDGES, "score"]].to_numpy(np.float64)
        point = None
        if {"point_x", "point_y"} <= facts.keys():
            point = float(facts["point_x"]), float(facts["point_y"])
        return ImagePrediction(
            system=self.name,
            mark=mark,
            score=facts.get("score"),
            threshold=self.threshold,
            probability=facts.get("probability"),
            decision=decision,
            boxes=boxes,
            box_cut=shown_box_cut(boxes[:, 4], decision, self.threshold),
            point=point,
            localised=bool(facts["localised"]) if "localised" in facts else None,
            heat=self._heat(image_id),
        )

    def _heat(self, image_id: str) -> HeatMap | None:
        """Return the map of an image on the levels of its system."""
        if self.maps is None or self.levels is None or image_id not in self._map_of:
            return None
        row: dict[Any, Any] = self.maps.iloc[self._map_of[image_id]].to_dict()
        frame = MapFrame(*(float(row[edge]) for edge in EDGES))
        return HeatMap(map_grid(row), frame, self.levels)


def decide(name: str, output: Output, choices: Choices, policy: str) -> DrawnSystem:
    """Return the answers of a system to images whose truth is unknown, decided by a policy."""
    scores = output.scores.to_numpy(np.float64)
    threshold = choices.thresholds.get(policy)
    table = pd.DataFrame(index=output.scores.index)
    table["decision"] = None if threshold is None else scores >= threshold
    if output.ranks:
        table["score"] = scores
    else:
        threshold = None
    if choices.calibration is not None:
        table["probability"] = choices.calibration.probability(scores)
    if output.points is not None:
        table = table.join(output.points)
    return DrawnSystem(name, table, output.boxes, output.maps, choices.levels, threshold)


def shown_box_cut(scores: Floats, decision: bool | None, threshold: float | None) -> float:
    """Return the score from which the boxes of a detector are shown on one image.

    On a positive image these are the best box and every box at or above the threshold; on a
    negative one none; on an undecided one those at or above the threshold, or 0.5 without one.

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
