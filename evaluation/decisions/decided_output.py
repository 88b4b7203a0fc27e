"""Decided output of one system: scores, decisions, boxes, maps and points of images.

`decide` makes it from a system's output, for one image or for many.
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
from cxr_compare.evaluation.boxes.overlaps import without_overlaps
from cxr_compare.evaluation.decisions.system_output import System, SystemOutput
from cxr_compare.evaluation.overlays.contours import ActivationGrid, contour_levels
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction
from cxr_compare.evaluation.statistics.arrays import Floats, is_positive

if TYPE_CHECKING:
    from cxr_compare.evaluation.decisions.decision import Decision

_UNDECIDED_CUT = 0.5
_DECISION_OF_STANDING = {"ruled_out": False, "referred": None, "ruled_in": True}
NO_BOXES = pd.DataFrame(columns=["image_id", *EDGES, "score"])


@dataclass(frozen=True)
class DecidedOutput:
    """Decided output of one system on all images, indexed by image for quick access.

    Attributes:
        name: Display name.
        decisions: A row for each image, by id: ``score`` and, where known, ``probability``,
            ``decision``, ``triage``, ``localised``, ``point_x``, ``point_y``.
        boxes: ``image_id``, corners, ``score``; for a detector also ``finding``.
        maps: Rows of the maps table, one for each image; `None` without maps.
        levels: Levels of the contours: raw map value by probability, see `contour_levels`.
        calibrated: True if these are calibrated probabilities, False if they are scores.
        threshold: Threshold of the score; `None` where undecided.
        above: Score from which triage rules images in; `None` where it rules none in.
    """

    name: str
    decisions: pd.DataFrame
    boxes: pd.DataFrame
    maps: pd.DataFrame | None = None
    levels: dict[float, float] = field(default_factory=dict)
    calibrated: bool = False
    threshold: float | None = None
    above: float | None = None

    # Pandas takes longer to find a row than everything that is then done with it.
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
        """Return what this system says about an image; empty where it gave nothing.

        Args:
            image_id: Id of the image.
            colour: Colour of the system.
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
            triage=row.get("triage", ""),
            boxes=boxes,
            box_cut=self._cut(boxes, decision, row.get("triage", "")),
            grid=self._grid_of(image_id),
            contours=tuple(self.levels),
            point=_point(row),
            localised=_flag(row.get("localised")),
            within_cell=_flag(row.get("localised_tolerant")),
        )

    def _cut(self, boxes: npt.NDArray[np.float64], decision: bool | None, triage: str) -> float:
        """Return the score from which boxes are shown; boxes cut out of a map are all shown."""
        if self.maps is not None:
            return math.inf if decision is False else 0.0
        threshold = self.above if triage == "ruled_in" else self.threshold
        return shown_box_cut(boxes[:, 4], decision, threshold)

    def findings_of(self, image_id: str) -> npt.NDArray[Any]:
        """Return the finding of each box of an image; a box of a map has the map's finding."""
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
    evidence: SystemOutput,
    decision: Decision | None,
    policy: str,
    *,
    levels: dict[float, float] | None = None,
) -> DecidedOutput:
    """Score images, and decide and point on them.

    Args:
        name: Display name.
        evidence: Output of the system on the images.
        decision: Decision rule; `None` leaves all images undecided.
        policy: Policy of the decision. A policy of triage gives no decision on referred images.
        levels: Levels of the contours, see `map_levels`.

    Returns:
        The decided output.
    """
    scores = evidence.scores(None if decision is None else decision.reduction)
    table = pd.DataFrame({"score": scores})
    threshold = None if decision is None else decision.thresholds[policy].threshold
    table["decision"] = None if threshold is None else is_positive(scores, threshold)
    triage = None
    if decision is not None and policy in decision.options.triage:
        triage = decision.triage
    if triage is not None:
        table["triage"] = standings = triage.standings(scores)
        table["decision"] = pd.Series(standings).map(_DECISION_OF_STANDING).to_numpy(dtype=object)
    probability = None if decision is None else decision.probability(scores)
    if probability is not None:
        table["probability"] = probability
    points = evidence.points()
    if points is not None:
        table[["point_x", "point_y"]] = points.to_numpy(dtype=np.float64)
    maps = None
    boxes: pd.DataFrame | None = None
    if evidence.gives_boxes:
        boxes = evidence.finding_boxes
        if decision is not None:
            boxes = without_overlaps(boxes, decision.overlap)
    else:
        maps = evidence.maps
        if decision is not None:
            boxes = evidence.boxes(scores, decision.map_scale, decision.box_rule)
    return DecidedOutput(
        name=name,
        decisions=table,
        boxes=NO_BOXES if boxes is None else boxes,
        maps=maps,
        levels=levels or {},
        calibrated=maps is not None and probability is not None,
        threshold=threshold,
        above=None if triage is None else triage.above,
    )


def map_levels(system: System, decision: Decision | None) -> dict[float, float]:
    """Return the levels of a system's contours, from all images that it ran on.

    An image therefore looks the same whichever other images are drawn.

    Args:
        system: The system.
        decision: Its decision rule; `None` before tuning.

    Returns:
        Raw map value by probability.
    """
    output = system.output_on(system.images_run)
    scores = output.scores(None if decision is None else decision.reduction)
    probability = None if decision is None else decision.probability(scores)
    values = scores if probability is None else pd.Series(probability, scores.index)
    return levels_at(output.maps, values)


def levels_at(maps: pd.DataFrame | None, probabilities: pd.Series) -> dict[float, float]:
    """Return the levels of a system's contours, from its probabilities of images with maps.

    Args:
        maps: Activation maps, see `map_peaks`; None for a system without maps.
        probabilities: Probability of each image with a map, by image id.

    Returns:
        Raw map value by probability; empty without maps.

    Example:
        >>> levels_at(None, pd.Series(dtype=float))
        {}
    """
    if maps is None:
        return {}
    peaks = map_peaks(maps, probabilities.index)["peak"]
    return contour_levels(peaks, probabilities)


def shown_box_cut(scores: Floats, decision: bool | None, threshold: float | None) -> float:
    """Return the score from which a detector's boxes are shown.

    A positive image shows the box that decided, and every box at or above the threshold. A negative
    image shows none, whichever rule reduced the boxes to the image's score. An image that triage
    refers is undecided, and shows the boxes at or above the threshold.

    Args:
        scores: Scores of the image's boxes, shape ``(boxes,)``.
        decision: True for a positive image, None for an undecided one.
        threshold: Threshold of the image's score; None without one.

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
