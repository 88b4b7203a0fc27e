"""Output of a system as tables in memory, as a whole and on chosen images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule, map_peaks
from cxr_compare.evaluation.boxes.overlaps import OverlappingBoxes, OverlapRule
from cxr_compare.evaluation.boxes.pointing import top_box_centres
from cxr_compare.evaluation.decisions.reduction import Reduction, reduce_boxes
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.statistics.arrays import Floats

SCORE_COLUMNS = ["image_id", "finding", "score"]
BOX_COLUMNS = ["image_id", "finding", *EDGES, "score"]
MAP_COLUMNS = ["image_id", "finding", "method", "grid_h", "grid_w", *EDGES, "values"]


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in columns})


@dataclass(frozen=True)
class SystemFacts:
    """Facts about a system beside its output."""

    seed: int | str | None = None  # random seed of its training; `None` where unknown
    training_id: str | None = None  # tells one training from another; a run and its export share it
    inference_id: str | None = None  # tells one way of predicting from another
    exported: bool = False  # True if it is an export of a run
    # Parameters, FLOPs, latency; values may be `None`.
    cost: Mapping[str, Any] = field(default_factory=dict)
    # Name and content id of each data set that it was trained on; empty where unknown.
    trained_on: tuple[tuple[str, str], ...] = ()
    # Validation images that it was fitted on, or that are copies of such images.
    fitted_on: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    notes: tuple[Note, ...] = ()  # notes about the images that it has seen in training


@dataclass(frozen=True)
class System:
    """A trained model, a reader or other software, with its output for one finding.

    Attributes:
        name: Its name.
        kind: ``boxes`` for a detector, ``scores`` for a classifier or a reader.
        images: Every image that was tried: ``image_id``, ``status`` (``ok`` or ``failed``).
        scores: ``image_id``, ``finding``, ``score`` in [0, 1]; empty for a detector.
        boxes: ``image_id``, ``finding``, ``x1``, ``y1``, ``x2``, ``y2`` in px of the original
            image, ``score`` in [0, 1]; empty for a classifier.
        maps: Activation maps; empty where the system has none.
        findings: The findings of the rows.
        decision: Decision that ``cxr tune`` stored for this finding; `None` before that.
        facts: Facts about its training.
        source: Folder or file that it was read from, for error messages.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"], "status": ["ok", "failed"]})
        >>> System("A", "scores", images).images_run.tolist()
        ['a']
    """

    name: str
    kind: Literal["boxes", "scores"]
    images: pd.DataFrame
    scores: pd.DataFrame = field(default_factory=lambda: _empty(SCORE_COLUMNS))
    boxes: pd.DataFrame = field(default_factory=lambda: _empty(BOX_COLUMNS))
    maps: pd.DataFrame = field(default_factory=lambda: _empty(MAP_COLUMNS))
    findings: tuple[str, ...] = ()
    decision: Mapping[str, Any] | None = None
    facts: SystemFacts = field(default_factory=SystemFacts)
    source: str = ""

    @property
    def images_run(self) -> pd.Index:
        """Ids of the images on which the system ran without failing."""
        ran = (self.images["status"] == "ok").to_numpy()
        return pd.Index(self.images.loc[ran, "image_id"], name="image_id")

    def output_on(self, image_ids: pd.Index) -> SystemOutput:
        """Return the output on chosen images, on all of which the system ran."""
        return SystemOutput(self, image_ids)


@dataclass(frozen=True)
class SystemOutput:
    """Output of a system on chosen images, for one target."""

    system: System
    image_ids: pd.Index  # the images, on all of which the system ran; unique, shape ``(N,)``

    @property
    def gives_boxes(self) -> bool:
        """True for a detector, whose boxes must be reduced to image scores."""
        return self.system.kind == "boxes"

    def _rows(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[is_member(table["image_id"], self.image_ids)].reset_index(drop=True)

    @cached_property
    def finding_boxes(self) -> pd.DataFrame:
        """A detector's boxes, each with its ``finding``."""
        return self._rows(self.system.boxes)

    @cached_property
    def predicted_boxes(self) -> pd.DataFrame:
        """A detector's boxes: ``image_id``, corners in original px, ``score``."""
        return self.finding_boxes.drop(columns="finding")

    @cached_property
    def overlapping(self) -> OverlappingBoxes:
        """A detector's boxes, with those of an image that overlap."""
        return OverlappingBoxes.from_boxes(self.predicted_boxes)

    @cached_property
    def _finding_scores(self) -> pd.DataFrame:
        return self._rows(self.system.scores)

    @cached_property
    def maps(self) -> pd.DataFrame | None:
        """One activation map per image, of its highest-scoring finding; `None` without maps."""
        rows = self._rows(self.system.maps)
        if rows.empty:
            return None
        rows = rows[rows["method"] == rows["method"].min()]
        keys = ["image_id", "finding"]
        scored = rows.merge(self._finding_scores, on=keys, how="left").fillna({"score": 0.0})
        scored = scored.sort_values(["image_id", "score", "finding"], ascending=[True, False, True])
        return scored.drop_duplicates("image_id").drop(columns="score").reset_index(drop=True)

    def scores(self, reduction: Reduction | None) -> pd.Series:
        """Return one score for each image, shape ``(N,)``, in the order of `image_ids`.

        Args:
            reduction: Rule by which boxes become a score; `None` takes the highest box.

        Raises:
            InputError: An image has no score.
        """
        if self.gives_boxes:
            return reduce_boxes(self.predicted_boxes, self.image_ids, reduction)
        highest = self._finding_scores.groupby("image_id")["score"].max()
        combined = highest.reindex(self.image_ids).astype(np.float64)
        if combined.isna().any():
            raise InputError(
                f"{self.system.source}: {counted(int(combined.isna().sum()), 'image')} ran "
                f"without a score for {' or '.join(self.system.findings)}, first '"
                f"{combined.index[combined.isna()][0]}'; predict or import that finding"
            )
        return combined

    def points(self) -> pd.DataFrame | None:
        """Return the scored points: centres of top boxes, or peaks of maps; None without either."""
        if self.gives_boxes:
            return top_box_centres(self.predicted_boxes, self.image_ids)
        if self.maps is None:
            return None
        return map_peaks(self.maps, self.image_ids)[["point_x", "point_y"]]

    def cells(self) -> Floats | None:
        """Return width and height of each image's map cell in original px, shape ``(N, 2)``.

        Returns:
            The sizes, 0 for an image without a map; `None` if the system has no maps.
        """
        if self.gives_boxes or self.maps is None:
            return None
        maps = self.maps.set_index("image_id")
        sizes = pd.DataFrame(
            {
                "width": (maps["x2"] - maps["x1"]) / maps["grid_w"],
                "height": (maps["y2"] - maps["y1"]) / maps["grid_h"],
            }
        )
        return sizes.reindex(self.image_ids).fillna(0.0).to_numpy(dtype=np.float64)

    def boxes(
        self,
        scores: pd.Series,
        scale: tuple[float, float] | None,
        rule: OverlapRule | MapBoxRule | None,
    ) -> pd.DataFrame | None:
        """Return the boxes of a detector, or those that are cut out of a classifier's maps.

        Args:
            scores: Image scores, shape ``(N,)``.
            scale: Raw low and high end of the maps, as validation chose them.
            rule: Rule of the boxes, as validation chose it; for a detector None keeps all stored
                boxes.

        Returns:
            The boxes; `None` where there is nothing to make boxes of.
        """
        if self.gives_boxes:
            limit = rule.limit if isinstance(rule, OverlapRule) else None
            return self.predicted_boxes if limit is None else self.overlapping.left(limit)
        if self.maps is None or scale is None or not isinstance(rule, MapBoxRule):
            return None
        return rule.apply(self.maps, scores, scale)
