"""From a comparison to one image: its truth and every system's reading of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.tables import read_table
from evaluation.boxes.maps import map_grid
from evaluation.overlays.contours import ActivationGrid
from evaluation.overlays.reading import Reading, Truth
from evaluation.overlays.shapes import system_colour

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet, Target
    from evaluation.compare.comparison import Comparison

_CORNERS = ["x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class SystemOutput:
    """What one system gave on all images, indexed by image for quick looking up.

    Args:
        name: Display name.
        decisions: Indexed by image id: ``score`` and, where known, ``decision``, ``point_x``,
            ``point_y``, ``localised``.
        boxes: ``image_id, x1, y1, x2, y2, score``, original pixels.
        maps: Rows of the maps table, or None.
        scale: The system's fixed map scale, or None.
        threshold: On the image score, or None where undecided.
    """

    name: str
    decisions: pd.DataFrame
    boxes: pd.DataFrame
    maps: pd.DataFrame | None = None
    scale: tuple[float, float] | None = None
    threshold: float | None = None
    _box_rows: dict[str, npt.NDArray[np.intp]] = field(init=False, repr=False)
    _map_rows: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        grouped = self.boxes.groupby("image_id", sort=False).indices
        object.__setattr__(self, "_box_rows", dict(grouped))
        ids = [] if self.maps is None else self.maps["image_id"].tolist()
        object.__setattr__(self, "_map_rows", {image: row for row, image in enumerate(ids)})

    def reading(self, image_id: str, colour: str) -> Reading:
        """Return this system's view of an image; empty where it gave none."""
        known = image_id in self.decisions.index
        row: Any = self.decisions.loc[image_id] if known else {}
        boxes = self._boxes_of(image_id)
        decision = _flag(row.get("decision"))
        return Reading(
            system=self.name,
            colour=colour,
            score=_real(row.get("score")),
            threshold=self.threshold,
            decision=decision,
            boxes=boxes,
            box_cut=self._cut(boxes, decision),
            grid=self._grid_of(image_id),
            point=_point(row),
            localised=_flag(row.get("localised")),
        )

    def _cut(self, boxes: npt.NDArray[np.float64], decision: bool | None) -> float:
        """Boxes cut out of a map are all meant: their level was chosen on validation."""
        if self.maps is not None:
            return math.inf if decision is False else 0.0
        return box_cut(boxes, decision, self.threshold)

    def _boxes_of(self, image_id: str) -> npt.NDArray[np.float64]:
        rows = self._box_rows.get(image_id)
        if rows is None:
            return np.empty((0, 5))
        return self.boxes.iloc[rows][[*_CORNERS, "score"]].to_numpy(dtype=np.float64)

    def _grid_of(self, image_id: str) -> ActivationGrid | None:
        row = self._map_rows.get(image_id)
        if row is None or self.maps is None or self.scale is None:
            return None
        one = next(self.maps.iloc[[row]].itertuples(index=False))
        frame = tuple(float(getattr(one, corner)) for corner in _CORNERS)
        return ActivationGrid(map_grid(one), frame, self.scale)  # type: ignore[arg-type]


def box_cut(
    boxes: npt.NDArray[np.float64], decision: bool | None, threshold: float | None
) -> float:
    """Return the score from which boxes are drawn in full.

    A positive image shows the box that decided and every box at or above the threshold; a
    negative one shows none in full, whatever rule reduced the boxes to the image's score.

    Args:
        boxes: ``x1, y1, x2, y2, score``, shape ``(N, 5)``.
        decision: The image's call.
        threshold: On the image score.

    Example:
        >>> boxes = np.array([[0, 0, 1, 1, 0.4], [0, 0, 1, 1, 0.2]])
        >>> box_cut(boxes, True, 0.6), box_cut(boxes, True, 0.3), box_cut(boxes, False, 0.3)
        (0.4, 0.3, inf)
    """
    if decision is None:
        return 0.5
    if not decision:
        return math.inf
    highest = float(boxes[:, 4].max(initial=0.0))
    return highest if threshold is None else min(threshold, highest)


@dataclass(frozen=True)
class CaseReader:
    """Truth and readings of any image, one image at a time.

    Args:
        labels: 1, 0 or NaN, indexed by image id.
        truth_boxes: ``image_id, x1, y1, x2, y2``, original pixels.
        boxed: Images on which all lesions are boxed (or known to be none).
        kinds: A word for the kind of image, indexed by image id; may be empty.
        systems: The systems, in the order of the panels.
        readers: What each single reader drew, see `single_readers`.
    """

    labels: pd.Series
    truth_boxes: pd.DataFrame
    boxed: pd.Index
    kinds: pd.Series
    systems: tuple[SystemOutput, ...]
    readers: pd.DataFrame = field(default_factory=pd.DataFrame)

    def truth(self, image_id: str) -> Truth:
        """Return what is known of an image."""
        label = float(self.labels.get(image_id, math.nan))
        kind = self.kinds.get(image_id, "")
        boxes = None
        if image_id in self.boxed:
            mine = self.truth_boxes["image_id"] == image_id
            boxes = self.truth_boxes.loc[mine, _CORNERS].to_numpy(dtype=np.float64)
        return Truth(label, boxes, kind if isinstance(kind, str) else "", self._drawn(image_id))

    def _drawn(self, image_id: str) -> dict[str, npt.NDArray[np.float64]]:
        """The boxes of each reader who read this image; a reader who saw nothing has none."""
        if self.readers.empty:
            return {}
        mine = self.readers[self.readers["image_id"] == image_id]
        return {
            str(reader): rows.dropna(subset=_CORNERS)[_CORNERS].to_numpy(dtype=np.float64)
            for reader, rows in mine.groupby("reader")
        }

    def readings(self, image_id: str) -> list[Reading]:
        """Return every system's view of an image, in the order of the panels."""
        return [
            system.reading(image_id, system_colour(position))
            for position, system in enumerate(self.systems)
        ]


def single_readers(dataset: DataSet, target: Target) -> pd.DataFrame:
    """What readers beside the reference said of a target, image by image.

    Args:
        dataset: Its findings and boxes tables.
        target: Its members are the findings that count.

    Returns:
        ``image_id``, ``reader`` and the corners of a box, original px; a reader who read an image
        and drew nothing has one row without corners. Empty where there is only the reference.
    """
    names = ["image_id", "reader", *_CORNERS]
    folder = getattr(dataset, "folder", None)
    if folder is None:
        return pd.DataFrame(columns=names)
    tables = []
    for name in ("findings", "boxes"):
        table = read_table(folder / f"{name}.parquet", name)
        mine = (table["reader"] != REFERENCE_READER) & table["finding"].isin(target.any_of)
        tables.append(table[mine])
    read, boxes = tables
    keys = ["image_id", "reader"]
    read = read[keys].drop_duplicates()
    return read.merge(boxes[names], on=keys, how="outer")[names]


def read_cases(comparison: Comparison, dataset: DataSet, policy: str) -> CaseReader:
    """Prepare a comparison's images for looking at, at one policy's thresholds.

    Args:
        comparison: What ``cxr compare`` found.
        dataset: The data set it was found on.
        policy: Threshold policy; systems without a threshold there stay undecided.
    """
    target = comparison.target
    images = dataset.images.set_index("image_id")
    kinds = images["x_class"] if "x_class" in images else pd.Series(dtype=object)
    return CaseReader(
        labels=dataset.labels(target),
        truth_boxes=dataset.target_boxes(target),
        boxed=dataset.boxes_trusted(target),
        kinds=kinds,
        systems=tuple(_output(comparison, name, policy) for name in comparison.systems),
        readers=single_readers(dataset, target),
    )


def _output(comparison: Comparison, name: str, policy: str) -> SystemOutput:
    decisions = comparison.decisions
    mine = decisions[decisions["system"] == name].drop_duplicates("image_id")
    column = f"decision_{policy}"
    mine = mine.assign(decision=mine.get(column))
    boxes = comparison.boxes.get(name)
    empty = pd.DataFrame(columns=["image_id", *_CORNERS, "score"])
    return SystemOutput(
        name=name,
        decisions=mine.set_index("image_id"),
        boxes=empty if boxes is None else boxes,
        maps=comparison.maps.get(name),
        scale=comparison.map_scale.get(name),
        threshold=comparison.thresholds.get(name, {}).get(policy),
    )


def _real(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _flag(value: Any) -> bool | None:
    return None if value is None or pd.isna(value) else bool(value)


def _point(row: Any) -> tuple[float, float] | None:
    x, y = _real(row.get("point_x")), _real(row.get("point_y"))
    return None if x is None or y is None else (x, y)
