"""Output of one system for images: scores, boxes or activation maps, for one finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, as_typed
from cxr_compare.evaluation.boxes.map_boxes import map_peaks
from cxr_compare.evaluation.boxes.pointing import points_in_boxes, top_box_centres
from cxr_compare.evaluation.notes import Note

IMAGE_SCORES = {
    "max": "the highest score of its boxes",
    "noisy_or": "one minus the product of 1 - score over its boxes",
    "mean_of_top_3": "the mean of the three highest scores of its boxes, where a lacking one is 0",
}
"""Rules that reduce the boxes of an image to its score, in words by name."""
GIVEN_SCORES = "given"
"""Rule of a detector whose scores of images were given beside its boxes."""
ImageScore = str | Callable[[npt.NDArray[np.float64]], float]
"""Name of a rule, or a function of the scores of an image's boxes, ``(N,)``."""


def image_score_name(rule: ImageScore) -> str:
    """Return what a report calls a rule; InputError for one that is none."""
    if callable(rule):
        return f"the function {getattr(rule, '__name__', type(rule).__name__)} of the user"
    if rule not in IMAGE_SCORES:
        raise InputError(
            f"{as_typed({'image_score': rule})}: choose one of {', '.join(IMAGE_SCORES)}"
        )
    return rule


def _reduced(boxes: pd.DataFrame, rule: ImageScore, ids: pd.Index) -> pd.Series:
    """Reduce the boxes of each image to its score by a rule, which is 0 without a box."""
    return _of_boxed(boxes, rule).reindex(ids).fillna(0.0).astype(np.float64)


def _of_boxed(boxes: pd.DataFrame, rule: ImageScore) -> pd.Series:
    """Return the scores of the images that have a box."""
    scores, images = boxes["score"].astype(np.float64), boxes["image_id"]
    if callable(rule):
        values = scores.groupby(images).agg(lambda of_image: float(rule(of_image.to_numpy())))
        wrong = ~values.between(0, 1)
        if wrong.any():
            raise InputError(
                f"image_score: the function gives image '{values.index[wrong][0]}' the score "
                f"{values[wrong].iloc[0]:g}; give 0 to 1, as an image without a box scores 0"
            )
        return values
    if rule == "noisy_or":
        # By logarithms, which keep the digits of small scores.
        with np.errstate(divide="ignore"):
            logs = pd.Series(np.log1p(-scores.to_numpy()), scores.index).groupby(images).sum()
        return pd.Series(-np.expm1(logs.to_numpy()), logs.index)
    if rule == "mean_of_top_3":
        highest = scores.sort_values(ascending=False).groupby(images).head(3)
        return highest.groupby(images).sum() / 3
    return scores.groupby(images).max()


@dataclass(frozen=True, eq=False)
class Output:
    """Scores of images, and boxes or activation maps if the system gives them.

    Attributes:
        scores: Score of each image that the system ran on, by image id.
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` in px of the image, and
            ``score``; None for a classifier.
        maps: Activation maps, one row an image, as `boxes.map_boxes` describes; None without.
        record: How the system was made, for the report; ``image_score`` names the rule by which
            boxes were reduced to the scores of images.
        ranks: False for boxes without scores: an image is called or not, and none ranks above
            another.
        box_unit: Unit in which the boxes were written.
    """

    scores: pd.Series
    boxes: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    ranks: bool = True
    box_unit: str = "px"

    @classmethod
    def of_detector(cls, boxes: pd.DataFrame, ids: pd.Index, **more: Any) -> Output:
        """Return the output of a detector on images; the score of one is that of its best box."""
        return cls(_reduced(boxes, "max", ids), boxes, **more)

    def by_image_score(self, rule: ImageScore) -> Output | None:
        """Return the scores of images that a rule makes of ranked boxes; None without such."""
        if self.boxes is None or not self.ranks or self.record.get("members"):
            return None
        record = {**self.record, "image_score": image_score_name(rule)}
        return Output(_reduced(self.boxes, rule, self.ran), record=record)

    def with_given_scores(self, scores: pd.Series) -> Output:
        """Return the output with scores of images that were given beside the boxes."""
        return replace(self, scores=scores, record={**self.record, "image_score": GIVEN_SCORES})

    @property
    def is_best_box(self) -> bool:
        """True if the score of an image is that of its best box: a threshold calls boxes, too."""
        return self.boxes is not None and self.record.get("image_score", "max") == "max"

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
