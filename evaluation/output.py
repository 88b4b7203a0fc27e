"""Output of one system for images: scores, boxes or activation maps, for one finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.boxes.map_boxes import map_peaks
from cxr_compare.evaluation.boxes.pointing import points_in_boxes, top_box_centres
from cxr_compare.evaluation.notes import Note

IMAGE_SCORES = {
    "max": "the highest score of its boxes",
    "noisy_or": "one minus the product of one minus each score of its boxes",
    "mean_of_top_3": "the mean of the three highest scores of its boxes, 0 for one that lacks",
}
"""Rules that make the score of an image from those of its boxes, in words by name."""
ImageScore = str | Callable[[npt.NDArray[np.float64]], float]
"""One of these names, or a function of the scores of an image's boxes."""


def require_image_score(rule: Any) -> None:
    """Refuse what is neither a name of a rule nor a function."""
    if not callable(rule) and rule not in IMAGE_SCORES:
        raise InputError(f"image_score: '{rule}'; choose one of {', '.join(IMAGE_SCORES)}")


def image_scores(boxes: pd.DataFrame, rule: ImageScore = "max") -> pd.Series:
    """Return the score of each image that has boxes, from theirs."""
    require_image_score(rule)
    scores, images = boxes["score"].astype(np.float64), boxes["image_id"]
    if callable(rule):
        return scores.groupby(images).agg(lambda of_image: float(rule(of_image.to_numpy())))
    if rule == "max":
        return scores.groupby(images).max()
    if rule == "noisy_or":
        if not scores.between(0, 1).all():
            raise InputError("image_score: noisy_or needs scores of boxes from 0 to 1")
        with np.errstate(divide="ignore"):
            logs = pd.Series(np.log1p(-scores.to_numpy()), scores.index).groupby(images).sum()
        return pd.Series(-np.expm1(logs.to_numpy()), logs.index)
    return scores.sort_values().groupby(images).tail(3).groupby(images).sum() / 3


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
        return cls(image_scores(boxes).reindex(ids).fillna(0.0).astype(np.float64), boxes, **more)

    def with_image_score(self, image_score: ImageScore) -> Output:
        """Return a detector's output with scores of images by another rule; others as they are."""
        if self.boxes is None or not self.ranks:
            return self
        of_images = image_scores(self.boxes, image_score)
        return replace(self, scores=of_images.reindex(self.scores.index).fillna(self.scores * 0))

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
        return map_peaks(self.maps, self.scores.index)[["point_x", "point_y"]]

    def localised(self, true_boxes: pd.DataFrame) -> npt.NDArray[np.bool_] | None:
        """Return True for images on which the point lies on a lesion; None without points."""
        return None if self.points is None else points_in_boxes(self.points, true_boxes)
