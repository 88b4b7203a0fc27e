"""Output of one system for images: scores, boxes or activation maps, for one finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.boxes.map_boxes import map_peaks
from cxr_compare.evaluation.boxes.pointing import points_in_boxes, top_box_centres
from cxr_compare.evaluation.notes import Note


@dataclass(frozen=True, eq=False)
class Output:
    """Scores of images, and boxes or activation maps if the system gives them.

    Attributes:
        scores: Score of each image that the system ran on, by image id.
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` in px of the image, and
            ``score``; None for a classifier.
        maps: Activation maps, one row an image, as `boxes.map_boxes` describes; None without.
        record: How the system was made, for the report.
        ranks: False for boxes without scores: an image is called or not, and none ranks above
            another.
    """

    scores: pd.Series
    boxes: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    ranks: bool = True

    @classmethod
    def of_detector(cls, boxes: pd.DataFrame, ids: pd.Index, **more: Any) -> Output:
        """Return the output of a detector on images; the score of one is that of its best box."""
        highest = boxes.groupby("image_id")["score"].max()
        return cls(highest.reindex(ids).fillna(0.0).astype(np.float64), boxes, **more)

    @property
    def ran(self) -> pd.Index:
        """Ids of the images that have a score."""
        return self.scores.dropna().index

    def select(self, ids: pd.Index) -> Output:
        """Return the output on some of the images, in their order."""
        boxes, maps = (
            None if table is None else table[table["image_id"].isin(ids)].reset_index(drop=True)
            for table in (self.boxes, self.maps)
        )
        return replace(self, scores=self.scores.reindex(ids), boxes=boxes, maps=maps)

    def by_unit(self, names: pd.Series) -> Output:
        """Return the highest score of each unit, such as a patient; `names` are by image id."""
        scores = self.scores.reindex(names.index).groupby(names).max()
        return Output(scores, record=self.record, notes=self.notes, ranks=self.ranks)

    @cached_property
    def points(self) -> pd.DataFrame | None:
        """Point at which the system sees the lesion of each image; None without boxes and maps."""
        if not self.ranks and (self.boxes is None or self.boxes["image_id"].duplicated().any()):
            return None  # of several boxes without scores, none is the best one
        if self.boxes is not None:
            return top_box_centres(self.boxes, self.scores.index)
        if self.maps is None:
            return None
        return map_peaks(self.maps, self.scores.index)

    def localised(self, true_boxes: pd.DataFrame) -> npt.NDArray[np.bool_] | None:
        """Return True for images on which the point lies on a lesion; None without points."""
        return None if self.points is None else points_in_boxes(self.points, true_boxes)
