"""Boxes and points from a classifier's activation maps, and the rules that cut maps into boxes.

An activation map is a coarse grid of raw values (evidence for a finding) over a part of the image.
A table of maps has one row for each map: ``image_id``; ``grid_h`` and ``grid_w``, the numbers of
cells down and across; ``values``, the flat list of raw values, one row of cells after the other;
and ``x1``, ``y1``, ``x2``, ``y2``, the outer frame in original px.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import require_extra
from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_UPSAMPLING = 8
_LEAST_SCORE = 0.001  # of a box that is cut out of a map
_LEAST_EVIDENCE = 0.02
"""Share of the map scale below which the highest value of a map is too low to give a box."""


class MapFrame(NamedTuple):
    """Rectangle of the original image that an activation map covers, in original px."""

    x1: float
    y1: float
    x2: float
    y2: float


class _Map(NamedTuple):
    """One map of a table: its image, its raw values, shape ``(grid_h, grid_w)``, and its frame."""

    image_id: str
    grid: Floats
    frame: MapFrame


def map_grid(row: Mapping[str, Any]) -> Floats:
    """Return the raw values of one row of a table of maps, shape ``(grid_h, grid_w)``."""
    values = np.asarray(row["values"], dtype=np.float64)
    return values.reshape(int(row["grid_h"]), int(row["grid_w"]))


def upsample(grid: Floats, factor: int = _UPSAMPLING) -> Floats:
    """Upsample a map by bilinear interpolation to `factor` points a cell along each side.

    Between the outermost cell centres and the border of the map, the values are constant.

    Examples:
        >>> upsample(np.array([[0.0, 1.0]]), factor=2).tolist()
        [[0.0, 0.25, 0.75, 1.0], [0.0, 0.25, 0.75, 1.0]]
    """
    return _interpolation(grid.shape[0], factor) @ grid @ _interpolation(grid.shape[1], factor).T


@lru_cache(maxsize=16)
def _interpolation(cells: int, factor: int) -> Floats:
    """Return the weights of linear interpolation along one side of a map.

    The shape is ``(cells * factor, cells)``: one row of weights of the cells for each point.
    """
    n_points = cells * factor
    position = np.clip((np.arange(n_points) + 0.5) / factor - 0.5, 0, cells - 1)
    lower = np.minimum(np.floor(position).astype(int), max(cells - 2, 0))
    weights = np.zeros((n_points, cells))
    weights[np.arange(n_points), lower] = 1 - (position - lower)
    if cells > 1:
        weights[np.arange(n_points), lower + 1] = position - lower
    return weights


def map_peak(grid: Floats, frame: MapFrame) -> tuple[float, float]:
    """Find the point, x and y in original px, at which the bilinearly interpolated map is highest.

    No interpolated value exceeds the values of the cells around it, so the highest point is the
    centre of the highest cell. Among equal cells the first in reading order is taken.
    """
    row, column = np.unravel_index(int(np.argmax(grid)), grid.shape)
    x = frame.x1 + (float(column) + 0.5) * (frame.x2 - frame.x1) / grid.shape[1]
    y = frame.y1 + (float(row) + 0.5) * (frame.y2 - frame.y1) / grid.shape[0]
    return x, y


def _read_maps(maps: pd.DataFrame) -> Iterator[_Map]:
    for entry in maps.itertuples(index=False):
        row: dict[str, Any] = entry._asdict()  # type: ignore[operator,misc]
        frame = MapFrame(row["x1"], row["y1"], row["x2"], row["y2"])
        yield _Map(str(row["image_id"]), map_grid(row), frame)


def map_peaks(maps: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """Find the highest point of the activation map of each image.

    The table has ``point_x`` and ``point_y`` in original px, with one row for each image in the
    order of `image_ids`; both are NaN for an image without a map.

    Source:
        Zhou et al. 2016 (class activation maps); Zhang et al. 2018 (the pointing game).

    Examples:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.5, 2.0]], "x1": [0.0], "y1": [0.0], "x2": [64.0], "y2": [32.0]})
        >>> map_peaks(maps, pd.Index(["a"])).iloc[0].tolist()
        [48.0, 16.0]
    """
    peaks = {one.image_id: map_peak(one.grid, one.frame) for one in _read_maps(maps)}
    rows = [peaks.get(str(image_id), (np.nan, np.nan)) for image_id in image_ids]
    return pd.DataFrame(rows, image_ids, ["point_x", "point_y"], dtype=np.float64)


def map_scale(maps: pd.DataFrame) -> float:
    """Compute the upper end of the raw values at which all maps of a system are cut into boxes.

    The same range is used for every map, so a faint map stays faint when it is cut. It begins at 0
    (no evidence) and ends at the 99th percentile of the highest values of the maps of the
    validation images; at 1 if that is not positive, or there is no map.
    """
    peaks = [float(one.grid.max()) for one in _read_maps(maps)]
    high = float(np.quantile(peaks, 0.99)) if peaks else 1.0
    # If no validation map has a positive value, any positive upper end will do.
    return high if high > 0 else 1.0


class MapLevels(NamedTuple):
    """Raw values between which all activation maps of a system are drawn.

    Of the cells of its maps 90 % are not above `high`, and 97 % not above `highest`; `top` has the
    deepest tint.
    """

    high: float
    highest: float
    top: float


def map_levels(maps: pd.DataFrame) -> MapLevels | None:
    """Compute the levels at which activation maps of a system are drawn; None without a map.

    They are shares of cells, as raw values have another range and another form in each network.
    """
    cells = [one.grid.ravel() for one in _read_maps(maps)]
    if not cells:
        return None
    return MapLevels(*map(float, np.quantile(np.concatenate(cells), (0.9, 0.97, 0.999))))


class MapParts(NamedTuple):
    """Connected parts of an activation map whose values are at or above a cut.

    The parts are in reading order: from top to bottom and left to right by their first points.

    Attributes:
        edges: Bounding box of each part, xyxy in points of the upsampled map, shape ``(N, 4)``.
        peaks: Highest raw value in each part, shape ``(N,)``.
    """

    edges: Integers
    peaks: Floats


def map_parts(grid: Floats, cut: float) -> MapParts:
    """Find the connected parts of an activation map whose raw values are at or above a cut.

    The map is upsampled to 8 x 8 points for each cell. Points that touch at a side or a corner
    belong to one part.

    Examples:
        >>> parts = map_parts(np.array([[0.0, 2.0]]), cut=1.0)
        >>> parts.edges.tolist(), parts.peaks.tolist()
        ([[8, 0, 16, 8]], [2.0])
    """
    require_extra("boxes of activation maps", "images", "cv2")
    import cv2  # which comparisons without maps run without

    points = upsample(grid)
    above = points >= cut
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(
        above.astype(np.uint8), ltype=cv2.CV_32S
    )
    part_of_point = np.asarray(labels, np.int64)
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, part_of_point[above], points[above])
    # Position of the first point of each part. The points are assigned from the last to the first,
    # and each assignment replaces the one before, so the first point remains.
    backwards = np.arange(points.size)[::-1]
    first_point = np.full(count, points.size)
    first_point[part_of_point.ravel()[backwards]] = backwards
    order = 1 + np.argsort(first_point[1:])  # part 0 is the background
    left, top, width, height = boxes[order, :4].T
    return MapParts(np.column_stack([left, top, left + width, top + height]), peaks[order])


@dataclass(frozen=True)
class MapBoxRule:
    """Rule that cuts an activation map into boxes, one around each part at or above a level.

    An absolute level is a share of the map scale, the same raw value for all maps of a system, so a
    faint map gives no box. A relative level lies between the lowest and the highest value of each
    map. With either kind, a map whose highest value is below 2 % of the map scale gives no box.
    With a relative level, a map whose values are all equal gives none.

    Attributes:
        level: Level of the cut, in (0, 1).
        relative: True for a relative level, False for an absolute one.
        most: Largest number of boxes of an image. If there are more parts, those with the highest
            values are taken. None takes all parts.

    Source:
        Zhou et al. 2016 and Saporta et al. 2022, who cut each map by its own range.

    Examples:
        >>> MapBoxRule(0.5).description
        'at 50 % of the full scale'
        >>> MapBoxRule(0.6, relative=True, most=1).description
        "at 60 % of each map's own range, at most one box an image"
    """

    level: float
    relative: bool = False
    most: int | None = None

    @property
    def description(self) -> str:
        """Description of the rule in words, for reports and progress messages."""
        scale = "each map's own range" if self.relative else "the full scale"
        text = f"at {100 * self.level:.0f} % of {scale}"
        if self.most is None:
            return text
        number = {1: "one box", 2: "two boxes"}.get(self.most, f"{self.most} boxes")
        return f"{text}, at most {number} an image"

    def cut(
        self, grid: Floats, frame: MapFrame, score: float, scale: float
    ) -> tuple[Floats, Floats]:
        """Cut one map of raw values, shape ``(H, W)``, into boxes; `scale` is that of `map_scale`.

        The score of a box is the score of the image, times the highest value of the part as a share
        of the map scale (at most 1). Boxes with a score below 0.001 are left out. The boxes are in
        the reading order of their parts, or from the highest value to the lowest if the rule limits
        their number. Returned are their corners xyxy in original px, not clipped to the image,
        shape ``(N, 4)``, and their scores in [0, 1], shape ``(N,)``.
        """
        lowest = float(grid.min())
        highest = float(grid.max())
        cut = self.level * scale
        if self.relative:
            cut = lowest + self.level * (highest - lowest)
        too_faint = highest < _LEAST_EVIDENCE * scale
        if highest < cut or too_faint or (self.relative and highest == lowest):
            return np.empty((0, 4)), np.empty(0)
        parts = map_parts(grid, cut)
        edges = parts.edges
        peaks = parts.peaks
        if self.most is not None:
            highest_first = np.argsort(-peaks, kind="stable")[: self.most]
            edges = edges[highest_first]
            peaks = peaks[highest_first]
        height, width = (side * _UPSAMPLING for side in grid.shape)
        px_per_point = [(frame.x2 - frame.x1) / width, (frame.y2 - frame.y1) / height]
        corners = [frame.x1, frame.y1] * 2 + edges * (px_per_point * 2)
        scores = score * np.minimum(1.0, peaks / scale)
        stored = scores >= _LEAST_SCORE
        return corners[stored], scores[stored]

    def apply(self, maps: pd.DataFrame, scores: pd.Series, scale: float) -> pd.DataFrame:
        """Cut all maps of a system into the boxes that are evaluated, as `cut` does.

        The score of a box contains the score of its image (`scores`, by image id), so that boxes of
        images with a low score rank below those of images with a high score.

        Examples:
            >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
            ...     "values": [[0.0, 2.0]], "x1": [0.0], "y1": [0.0], "x2": [64.0], "y2": [32.0]})
            >>> boxes = MapBoxRule(0.5).apply(maps, pd.Series({"a": 0.8}), 2.0)
            >>> boxes.to_dict("records")
            [{'image_id': 'a', 'x1': 32.0, 'y1': 0.0, 'x2': 64.0, 'y2': 32.0, 'score': 0.8}]
        """
        return self._boxes_of(list(_read_maps(maps)), scores, scale)

    def _boxes_of(self, maps: Sequence[_Map], scores: pd.Series, scale: float) -> pd.DataFrame:
        """Cut maps that were read into boxes, as `apply`."""
        ids = [one.image_id for one in maps]
        cut = [
            self.cut(one.grid, one.frame, score, scale)
            for one, score in zip(maps, scores.reindex(ids).tolist(), strict=True)
        ]
        edges = np.concatenate([np.empty((0, 4)), *(corners for corners, _ in cut)])
        table = pd.DataFrame(edges, columns=EDGES)
        counts = [len(own) for _, own in cut]
        table.insert(0, "image_id", pd.array(ids, TEXT).repeat(counts))
        table["score"] = np.concatenate([np.empty(0), *(own for _, own in cut)])
        return table


_RELATIVE_LEVELS = (0.6, 0.7, 0.5, 0.8, 0.4, 0.3)
_ABSOLUTE_LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def map_box_candidates(
    maps: pd.DataFrame, scores: pd.Series, scale: float
) -> list[tuple[MapBoxRule, pd.DataFrame]]:
    """Cut activation maps into boxes by every rule that is tried on the validation images.

    The rules are in the order of preference: of equally good rules the earlier one is chosen. First
    come rules with a level relative to the range of each map and at most one box an image, then
    such rules with at most two boxes, then rules with a level relative to `scale`, that of
    `map_scale`.
    """
    maps_read = list(_read_maps(maps))
    one_box = []
    two_boxes = []
    for level in _RELATIVE_LEVELS:
        rule = MapBoxRule(level, relative=True, most=2)
        boxes = rule._boxes_of(maps_read, scores, scale)
        two_boxes.append((rule, boxes))
        highest = boxes.drop_duplicates("image_id").reset_index(drop=True)
        one_box.append((MapBoxRule(level, relative=True, most=1), highest))
    absolute = [
        (rule, rule._boxes_of(maps_read, scores, scale))
        for rule in map(MapBoxRule, _ABSOLUTE_LEVELS)
    ]
    return [*one_box, *two_boxes, *absolute]
