"""Decided output of one system: scores, decisions, boxes, maps and points of images.

`decide` makes a decided output from the raw output of a system, for one image or for many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.map_boxes import map_grid, map_peaks
from cxr_compare.evaluation.output import Output, System
from cxr_compare.evaluation.overlays.contours import ActivationGrid, contour_levels
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction
from cxr_compare.evaluation.statistics.arrays import Floats, is_positive

if TYPE_CHECKING:
    from cxr_compare.evaluation.choices import Choices

_UNDECIDED_CUT = 0.5
NO_BOXES = pd.DataFrame(columns=["image_id", *EDGES, "score"])
"""Table of boxes without a row."""


@dataclass(frozen=True)
class DecidedOutput:
    """Predictions of one system on all images, after its thresholds and rules were applied.

    Attributes:
        name: Name of the system as reports show it.
        decisions: Table with one row for each image, indexed by image id. Column ``score`` is
            always present. These columns are present where they are known: ``probability``;
            ``decision``, True for positive; ``localised``, True if the system points at a lesion;
            ``point_x`` and ``point_y``, the point (original px).
        boxes: Boxes that are shown and evaluated, as a table: ``image_id``, ``x1``, ``y1``, ``x2``,
            ``y2`` (original px), ``score``; for a detector also ``finding``.
        maps: Table of activation maps, one row for each image, with the columns `MAP_COLUMNS` of
            `evaluation.output`; `None` without maps.
        levels: Contours that are drawn on activation maps: for each probability, such as 0.5, the
            raw value of the maps at which its contour is drawn, see `map_levels`.
        calibrated: True if the keys of `levels` are calibrated probabilities, False if they are
            scores or if there are no maps.
        threshold: Score from which an image is positive; `None` without one.
        has_own_boxes: True if the boxes are those of a detector although there are maps, as in a
            joint system. Otherwise the boxes of a system with maps are cut out of them.
    """

    name: str
    decisions: pd.DataFrame
    boxes: pd.DataFrame
    maps: pd.DataFrame | None = None
    levels: dict[float, float] = field(default_factory=dict)
    calibrated: bool = False
    threshold: float | None = None
    has_own_boxes: bool = False

    # Tables are stored as arrays, since to find a row in pandas takes longer than all further work.
    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {str(name): column.to_numpy() for name, column in self.decisions.items()}

    @cached_property
    def _corners(self) -> npt.NDArray[np.float64]:
        return self.boxes[[*EDGES, "score"]].to_numpy(dtype=np.float64)

    @cached_property
    def _box_rows(self) -> dict[str, npt.NDArray[np.intp]]:
        grouped = self.boxes.groupby("image_id", sort=False).indices
        return {str(image): np.asarray(rows, np.intp) for image, rows in grouped.items()}

    @cached_property
    def _map_columns(self) -> dict[str, npt.NDArray[Any]]:
        maps = pd.DataFrame() if self.maps is None else self.maps
        return {str(name): column.to_numpy() for name, column in maps.items()}

    @cached_property
    def _map_rows(self) -> dict[str, int]:
        ids = self._map_columns.get("image_id", ())
        return {str(image): row for row, image in enumerate(ids)}

    def prediction(self, image_id: str, colour: str) -> ImagePrediction:
        """Return the prediction of this system for one image, ready to be drawn in a colour.

        A colour is written like ``#1f77b4``. All but the names is empty if the system has no output
        for this image.
        """
        row: dict[str, Any] = {}
        if image_id in self.decisions.index:
            position = self.decisions.index.get_loc(image_id)
            row = {name: column[position] for name, column in self._columns.items()}
        boxes = self._corners[self._box_rows.get(image_id, np.zeros(0, np.intp))]
        decision = _flag(row.get("decision"))
        return ImagePrediction(
            system=self.name,
            colour=colour,
            score=_real(row.get("score")),
            threshold=self.threshold,
            probability=_real(row.get("probability")),
            decision=decision,
            boxes=boxes,
            box_cut=self._cut(boxes, decision),
            grid=self._grid_of(image_id),
            contours=tuple(self.levels),
            point=_point(row),
            localised=_flag(row.get("localised")),
            has_own_boxes=self.has_own_boxes,
        )

    def _cut(self, boxes: npt.NDArray[np.float64], decision: bool | None) -> float:
        """Return the score from which boxes are shown; boxes cut out of a map are all shown."""
        if self.maps is not None and not self.has_own_boxes:
            return math.inf if decision is False else 0.0
        return shown_box_cut(boxes[:, 4], decision, self.threshold)

    def findings_of(self, image_id: str) -> npt.NDArray[Any]:
        """Return the finding (disease sign), such as "opacity", of each predicted box of an image.

        The names have shape ``(boxes,)`` and stand in the order of the image's boxes. Boxes that
        were cut out of an activation map have the finding of this map. A name is ``""`` if it is
        unknown.
        """
        rows = self._box_rows.get(image_id, np.zeros(0, np.intp))
        if "finding" in self.boxes:
            return self.boxes["finding"].to_numpy()[rows]
        row = self._map_rows.get(image_id)
        return np.repeat("" if row is None else self._map_columns["finding"][row], len(rows))

    def _grid_of(self, image_id: str) -> ActivationGrid | None:
        row = self._map_rows.get(image_id)
        if row is None:
            return None
        map_row = {name: column[row] for name, column in self._map_columns.items()}
        x1, y1, x2, y2 = (float(map_row[corner]) for corner in EDGES)
        return ActivationGrid(map_grid(map_row), (x1, y1, x2, y2), tuple(self.levels.values()))


def decide(
    name: str,
    evidence: Output,
    decision: Choices | None,
    policy: str,
    *,
    levels: dict[float, float] | None = None,
) -> DecidedOutput:
    """Apply a system's thresholds and rules to its output, image by image.

    A system is a detector, a classifier or a reader. The threshold of `policy` decides; a decision
    of `None` leaves all images undecided. `levels` are those of `map_levels`; None draws no
    contours.
    """
    scores = evidence.scores(None if decision is None else decision.reduction)
    table = pd.DataFrame({"score": scores})
    threshold = None if decision is None else decision.thresholds[policy].threshold
    table["decision"] = None if threshold is None else is_positive(scores, threshold)
    probability = None if decision is None else decision.probability(scores)
    if probability is not None:
        table["probability"] = probability
    points = evidence.points()
    if points is not None:
        table[["point_x", "point_y"]] = points.to_numpy(dtype=np.float64)
    maps = None if evidence.reduces_boxes else evidence.maps
    boxes: pd.DataFrame | None = None
    if evidence.gives_boxes:
        boxes = evidence.finding_boxes
        if decision is not None:
            boxes = boxes[evidence.overlapping.kept(decision.overlap)].reset_index(drop=True)
    elif decision is not None:
        boxes = evidence.boxes(scores, decision.map_scale, decision.box_rule)
    return DecidedOutput(
        name=name,
        decisions=table,
        boxes=NO_BOXES if boxes is None else boxes,
        maps=maps,
        levels=levels or {},
        calibrated=maps is not None and probability is not None,
        threshold=threshold,
        has_own_boxes=evidence.gives_boxes,
    )


def map_levels(system: System, decision: Choices | None) -> dict[float, float]:
    """Compute the values of activation maps at which a system's contours are drawn.

    The values are those of `levels_at`, from all images that the system ran on. They do not depend
    on which images are drawn, so the drawing of one image is always the same. Without a
    calibration, or with a decision of None (not chosen yet), scores take the place of
    probabilities.
    """
    output = system.output_on(system.images_run)
    scores = output.scores(None if decision is None else decision.reduction)
    probability = None if decision is None else decision.probability(scores)
    values = scores if probability is None else pd.Series(probability, scores.index)
    return levels_at(output.maps, values)


def levels_at(maps: pd.DataFrame | None, probabilities: pd.Series) -> dict[float, float]:
    """Compute the map values of a system's contours from the images' probabilities, by image id.

    A contour of a probability is drawn around the region where the activation map is at or above a
    value. The result has this raw value for each probability that is drawn; it is empty without
    maps. `maps` has one row for each image and the columns `MAP_COLUMNS` of `evaluation.output`.
    """
    if maps is None:
        return {}
    peaks = map_peaks(maps, probabilities.index)["peak"]
    return contour_levels(peaks, probabilities)


def shown_box_cut(scores: Floats, decision: bool | None, threshold: float | None) -> float:
    """Return the score from which the boxes of a detector are shown on one image.

    On a positive image the box with the highest score is shown, and every box at or above the
    threshold. On a negative image no box is shown (infinity is returned). On an undecided image
    (`decision` None) the boxes at or above the threshold are shown, or those at or above 0.5 if
    there is no threshold.

    Example:
        >>> shown_box_cut(np.array([0.6, 0.2]), True, 0.3)
        0.3
    """
    if decision is None:
        return _UNDECIDED_CUT if threshold is None else threshold
    if not decision:
        return math.inf
    highest = float(scores.max(initial=0.0))
    return highest if threshold is None else min(threshold, highest)


def _real(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _flag(value: Any) -> bool | None:
    return None if value is None or pd.isna(value) else bool(value)


def _point(row: Any) -> tuple[float, float] | None:
    x = _real(row.get("point_x"))
    y = _real(row.get("point_y"))
    return None if x is None or y is None else (x, y)
