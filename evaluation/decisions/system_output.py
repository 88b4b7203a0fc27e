"""What one system says about a set of images for one target, read in bounded memory.

A detector's boxes become one score an image, several findings of a target the highest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import positions
from data_prep.contracts.words import counted
from data_prep.store.dataset import Target
from data_prep.store.predictions import Predictions
from evaluation.boxes.fusion import AS_STORED, BoxRule
from evaluation.boxes.map_boxes import MapBoxRule, cell_sizes, map_points
from evaluation.boxes.matching import deciding_points
from evaluation.decisions.test_set import TestSet
from evaluation.statistics.ranking import Floats, Integers

_Rule = Literal["max", "noisy_or", "top_k"]
_TOP_K = 3


@dataclass(frozen=True)
class Reduction:
    """How the boxes of an image become its score.

    ``max`` takes the most confident box; ``noisy_or`` takes ``1 - prod(1 - score)``; ``top_k``
    is the sum of the three most confident scores divided by three, so that missing boxes count 0.
    An image without boxes scores 0.

    Source:
        ``max``: the multiple-instance assumption, Dietterich et al. 1997.
    """

    rule: _Rule = "max"
    # boxes below it do not take part (noisy-or over 300 boxes at 0.01 is 0.95)
    min_score: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        return {"rule": self.rule, "min_score": self.min_score}

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> Reduction | None:
        """Read what `to_dict` wrote."""
        if not payload:
            return None
        if payload["rule"] not in get_args(_Rule):
            raise InputError(f"decision: unknown reduction {payload['rule']!r}; run cxr tune again")
        return cls(payload["rule"], payload["min_score"])

    def of_ranked(self, rows: Integers, scores: Floats, n_images: int) -> Floats:
        """One score an image from boxes sorted by image, the most confident first.

        Example:
            >>> Reduction("max").of_ranked(np.array([1, 1]), np.array([0.75, 0.5]), 2).tolist()
            [0.0, 0.75]
        """
        used = scores >= self.min_score
        rows, scores = rows[used], scores[used]
        reduced = np.zeros(n_images)
        if not len(rows):
            return reduced
        starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        if self.rule == "max":
            reduced[rows[starts]] = scores[starts]
        elif self.rule == "noisy_or":
            reduced[rows[starts]] = 1.0 - np.multiply.reduceat(1.0 - scores, starts)
        else:
            rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
            top = rank < _TOP_K
            reduced = np.bincount(rows[top], scores[top], minlength=n_images) / _TOP_K
        return reduced


CANDIDATES = (
    Reduction("max"),
    Reduction("top_k"),
    *(Reduction("noisy_or", floor) for floor in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)),
)
"""What validation chooses from, the simpler first: among equals the earlier wins."""


def reduce_boxes(
    boxes: pd.DataFrame, image_ids: pd.Index, reduction: Reduction | None = None
) -> pd.Series:
    """Reduce lesion boxes to one score per image, by default that of the highest box."""
    rows, scores = _rows_and_scores(boxes, image_ids)
    # By image, the most confident box first: the result cannot depend on the order of rows.
    order = np.lexsort((-scores, rows))
    reduced = (reduction or Reduction()).of_ranked(rows[order], scores[order], len(image_ids))
    return pd.Series(reduced, index=image_ids, name="score")


def _rows_and_scores(boxes: pd.DataFrame, image_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Position of each box's image in `image_ids`, and its score, both checked."""
    if not image_ids.is_unique:
        repeated = image_ids[image_ids.duplicated()][0]
        raise InputError(f"image ids must be unique; {repeated!r} repeats")
    rows = positions(boxes["image_id"], image_ids)
    if (rows < 0).any():
        unknown = boxes["image_id"].iloc[int(np.flatnonzero(rows < 0)[0])]
        raise InputError(f"boxes: image {unknown!r} is not among the images under evaluation")
    scores = boxes["score"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if wrong.size:
        raise InputError(
            f"boxes: score must be in [0, 1]; row {wrong[0]}, image "
            f"{boxes['image_id'].iloc[int(wrong[0])]!r}: score={scores[wrong[0]]}"
        )
    return rows, scores


@dataclass(frozen=True)
class SystemOutput:
    """A system's output on chosen images, for one target.

    Attributes:
        predictions: The system.
        target: What is judged.
        image_ids: The images, on all of which the system ran; unique, shape ``(N,)``.
        rule: How a detector's stored boxes become the ones that are judged.
        sizes: ``image_id``, ``width``, ``height`` of the originals, px; fused boxes keep to them.
    """

    predictions: Predictions
    target: Target
    image_ids: pd.Index
    rule: BoxRule = AS_STORED
    sizes: pd.DataFrame | None = None

    @classmethod
    def of(
        cls,
        predictions: Predictions,
        test_set: TestSet,
        image_ids: pd.Index,
        rule: BoxRule = AS_STORED,
    ) -> SystemOutput:
        """On images of a data set."""
        return cls(predictions, test_set.target, image_ids, rule, test_set.images)

    @property
    def gives_boxes(self) -> bool:
        """Whether the system is a detector, whose boxes must be reduced to image scores."""
        return self.predictions.kind == "boxes"

    def _rows(self, name: str) -> pd.DataFrame:
        return self.predictions.rows(name, self.target.any_of, self.image_ids)

    @cached_property
    def finding_boxes(self) -> pd.DataFrame:
        """A detector's boxes by the rule, each with its ``finding``."""
        return self.rule.apply(self._rows("boxes"), self.sizes)

    @cached_property
    def predicted_boxes(self) -> pd.DataFrame:
        """A detector's boxes by the rule: ``image_id``, corners in original px, ``score``."""
        return self.finding_boxes.drop(columns="finding")

    @cached_property
    def _finding_scores(self) -> pd.DataFrame:
        return self._rows("scores")

    @cached_property
    def maps(self) -> pd.DataFrame | None:
        """One activation map per image, of its highest-scoring finding; `None` without maps."""
        rows = self._rows("maps")
        if rows.empty:
            return None
        rows = rows[rows["method"] == rows["method"].min()]
        keys = ["image_id", "finding"]
        scored = rows.merge(self._finding_scores, on=keys, how="left").fillna({"score": 0.0})
        scored = scored.sort_values(["image_id", "score", "finding"], ascending=[True, False, True])
        return scored.drop_duplicates("image_id").drop(columns="score").reset_index(drop=True)

    def scores(self, reduction: Reduction | None) -> pd.Series:
        """One score per image, in the order of `image_ids`; an InputError where one has none."""
        if self.gives_boxes:
            return reduce_boxes(self.predicted_boxes, self.image_ids, reduction)
        highest = self._finding_scores.groupby("image_id")["score"].max()
        combined = highest.reindex(self.image_ids).astype(np.float64)
        if combined.isna().any():
            raise InputError(
                f"{self.predictions.folder}: {counted(int(combined.isna().sum()), 'image')} ran "
                f"without a score for {' or '.join(self.target.any_of)}, first '"
                f"{combined.index[combined.isna()][0]}'; predict or import that finding"
            )
        return combined

    def spread(self) -> pd.Series | None:
        """How far the scores that were averaged lie apart, per image; `None` where unknown.

        Of several findings of a target the one that decides: the highest score.
        """
        rows = self._finding_scores
        if "spread" not in rows or rows["spread"].isna().any():
            return None
        order = ["image_id", "score", "finding"]
        highest = rows.sort_values(order, ascending=[True, False, True]).drop_duplicates("image_id")
        spread = highest.set_index("image_id")["spread"].reindex(self.image_ids)
        return None if spread.isna().any() else spread.astype(np.float64)

    def points(self) -> pd.DataFrame | None:
        """Where the decision points: top box's centre or map's peak; `None` without either."""
        if self.gives_boxes:
            return deciding_points(self.predicted_boxes, self.image_ids)
        if self.maps is None:
            return None
        return map_points(self.maps, self.image_ids)[["point_x", "point_y"]]

    def cells(self) -> Floats | None:
        """Width and height of each image's map cell, original px; `None` where no map points."""
        if self.gives_boxes or self.maps is None:
            return None
        return cell_sizes(self.maps, self.image_ids)

    def boxes(
        self, scores: pd.Series, scale: tuple[float, float] | None, rule: MapBoxRule | None
    ) -> pd.DataFrame | None:
        """The system's boxes: a detector's own, a classifier's cut out of its maps.

        Image `scores`, the scale of maps and the rule that validation chose; `None` where there is
        nothing to make boxes of.
        """
        if self.gives_boxes:
            return self.predicted_boxes
        if self.maps is None or scale is None or rule is None:
            return None
        return rule.apply(self.maps, scores, scale)
