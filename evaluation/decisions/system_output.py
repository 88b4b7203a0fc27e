"""What one system says about a set of images for one target, read in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from data_prep.store.dataset import Target
from data_prep.store.predictions import Predictions
from evaluation.boxes.fusion import AS_STORED, BoxRule
from evaluation.boxes.map_boxes import MapBoxRule, cell_sizes, map_points
from evaluation.boxes.matching import deciding_points
from evaluation.decisions.reduction import Reduction, combine_findings, reduce_boxes
from evaluation.decisions.test_set import TestSet
from evaluation.statistics.ranking import Floats


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
        """One score per image, in the order of `image_ids`.

        Args:
            reduction: How a detector's boxes combine; `None` for a system that gives scores.

        Raises:
            InputError: An image that ran has no score.
        """
        if self.gives_boxes:
            chosen = reduction or Reduction("max")
            return reduce_boxes(
                self.predicted_boxes,
                self.image_ids,
                rule=chosen.rule,
                min_score=chosen.min_score,
            )
        combined = combine_findings(self._finding_scores, self.image_ids, self.target.any_of)
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
        self,
        scores: pd.Series,
        scale: tuple[float, float] | None,
        rule: MapBoxRule | None,
    ) -> pd.DataFrame | None:
        """The system's boxes: a detector's own, a classifier's cut out of its maps.

        Args:
            scores: Image scores, indexed by image id.
            scale: Map scale, learned on validation.
            rule: How maps become boxes, likewise.

        Returns:
            ``image_id``, corners in original px, ``score``; `None` where there is nothing to
            make boxes of.
        """
        if self.gives_boxes:
            return self.predicted_boxes
        if self.maps is None or scale is None or rule is None:
            return None
        return rule.apply(self.maps, scores, scale)
