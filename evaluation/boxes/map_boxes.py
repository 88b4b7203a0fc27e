"""Boxes and points from a classifier's activation maps, and the rules that cut maps into boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_UPSAMPLING = 8
_LEAST_EVIDENCE = 0.02
"""A map whose peak is lower, as a share of the map scale, gives no box."""


class MapFrame(NamedTuple):
    """Outer frame of a map in original px."""

    x1: float
    y1: float
    x2: float
    y2: float


class _Map(NamedTuple):
    """One row of a table of maps: raw values, shape ``(grid_h, grid_w)``, and their frame."""

    image_id: str
    grid: Floats
    frame: MapFrame


class CutBoxes(NamedTuple):
    """Boxes cut out of one map.

    Attributes:
        corners: Corners xyxy in original px, not clipped to the image, shape ``(N, 4)``.
        scores: Scores in [0, 1], shape ``(N,)``.
    """

    corners: Floats
    scores: Floats


def map_grid(row: Mapping[str, Any]) -> Floats:
    """Return the raw values of one row of a table of maps.

    Args:
        row: ``grid_h``, ``grid_w`` and ``values``, row by row.

    Returns:
        Values, shape ``(grid_h, grid_w)``.

    Example:
        >>> map_grid({"grid_h": 1, "grid_w": 2, "values": [0.5, 1.0]}).tolist()
        [[0.5, 1.0]]
    """
    values = np.asarray(row["values"], dtype=np.float64)
    return values.reshape(int(row["grid_h"]), int(row["grid_w"]))


def upsample(grid: Floats, factor: int = _UPSAMPLING) -> Floats:
    """Upsample a map bilinearly; cell centres stay in position, and values are level beyond them.

    Args:
        grid: Values of the cells, shape ``(H, W)``.
        factor: Points per cell along each side.

    Returns:
        Values of the points, shape ``(H x factor, W x factor)``.

    Example:
        >>> upsample(np.array([[0.0, 1.0]]), factor=2).tolist()
        [[0.0, 0.25, 0.75, 1.0], [0.0, 0.25, 0.75, 1.0]]
    """
    return _interpolation(grid.shape[0], factor) @ grid @ _interpolation(grid.shape[1], factor).T


@lru_cache(maxsize=16)
def _interpolation(cells: int, factor: int) -> Floats:
    """Return weights of linear interpolation along a side, shape ``(cells * factor, cells)``."""
    n_points = cells * factor
    position = np.clip((np.arange(n_points) + 0.5) / factor - 0.5, 0, cells - 1)
    lower = np.minimum(np.floor(position).astype(int), max(cells - 2, 0))
    weights = np.zeros((n_points, cells))
    weights[np.arange(n_points), lower] = 1 - (position - lower)
    if cells > 1:
        weights[np.arange(n_points), lower + 1] = position - lower
    return weights


class _Peak(NamedTuple):
    """Position in original px and raw value of a map's highest point; NaN without a map."""

    point_x: float
    point_y: float
    peak: float


def _map_peak(grid: Floats, frame: MapFrame) -> _Peak:
    """Find where the bilinearly interpolated map is highest.

    Bilinear interpolation never exceeds its cells, so the peak is the centre of the highest cell;
    among equal cells the first in reading order.
    """
    row, column = np.unravel_index(int(np.argmax(grid)), grid.shape)
    x = frame.x1 + (float(column) + 0.5) * (frame.x2 - frame.x1) / grid.shape[1]
    y = frame.y1 + (float(row) + 0.5) * (frame.y2 - frame.y1) / grid.shape[0]
    return _Peak(x, y, float(grid[row, column]))


def _read_maps(maps: pd.DataFrame) -> Iterator[_Map]:
    for entry in maps.itertuples(index=False):
        row: dict[str, Any] = entry._asdict()  # type: ignore[operator,misc]
        frame = MapFrame(row["x1"], row["y1"], row["x2"], row["y2"])
        yield _Map(str(row["image_id"]), map_grid(row), frame)


def map_peaks(maps: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """Find the highest point of each image's map.

    Args:
        maps: Maps with ``image_id``, ``grid_h``, ``grid_w``, ``values`` (raw) and the frame ``x1``,
            ``y1``, ``x2``, ``y2`` (original px).
        image_ids: All images, unique, shape ``(images,)``.

    Returns:
        ``point_x``, ``point_y`` in original px and ``peak`` (raw), one row per image in the order
        of `image_ids`; NaN where an image has no map.

    Source:
        Zhou et al. 2016, class activation maps; Zhang et al. 2018, the pointing game.

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.5, 2.0]], "x1": [0.0], "y1": [0.0], "x2": [64.0], "y2": [32.0]})
        >>> map_peaks(maps, pd.Index(["a"])).iloc[0].tolist()
        [48.0, 16.0, 2.0]
    """
    peaks = {one.image_id: _map_peak(one.grid, one.frame) for one in _read_maps(maps)}
    missing = _Peak(np.nan, np.nan, np.nan)
    rows = [peaks.get(str(image_id), missing) for image_id in image_ids]
    return pd.DataFrame(rows, index=image_ids, columns=[*_Peak._fields], dtype=np.float64)


def cell_size_text(maps: pd.DataFrame) -> str:
    """Describe how many cells a system's maps have and how large one cell is.

    Args:
        maps: Maps, see `map_peaks`.

    Returns:
        A phrase; with a range where the cells differ in width.

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [8], "grid_w": [8],
        ...     "x1": [0.0], "y1": [0.0], "x2": [256.0], "y2": [256.0]})
        >>> cell_size_text(maps)
        '8 × 8 cells, each 32 px wide in the original image, 12.5 % of the width of the map'
    """
    rows, columns = min(zip(maps["grid_h"].tolist(), maps["grid_w"].tolist(), strict=True))
    widths = (maps["x2"] - maps["x1"]) / maps["grid_w"]
    ends = dict.fromkeys(f"{width:.0f}" for width in (widths.min(), widths.max()))
    return (
        f"{rows} × {columns} cells, each {' to '.join(ends)} px wide in the original image, "
        f"{100 / columns:.3g} % of the width of the map"
    )


def map_scale(maps: pd.DataFrame) -> tuple[float, float]:
    """Compute the scale on which all maps of a system are drawn and cut.

    Args:
        maps: Maps of the validation images, see `map_peaks`.

    Returns:
        0 (no evidence) and the 99th percentile of the maps' peaks, in raw values.

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.5, 2.0]], "x1": [0.0], "y1": [0.0], "x2": [64.0], "y2": [32.0]})
        >>> map_scale(maps)
        (0.0, 2.0)
    """
    peaks = [float(one.grid.max()) for one in _read_maps(maps)]
    high = float(np.quantile(peaks, 0.99)) if peaks else 1.0
    # Where no map of the validation set is evidence for the target, any positive end serves.
    return 0.0, high if high > 0 else 1.0


class MapParts(NamedTuple):
    """Connected parts of a map, in the reading order of their first points.

    Attributes:
        edges: x1, y1, x2, y2 in points of the upsampled map, shape ``(N, 4)``.
        peaks: Highest raw value of each part, shape ``(N,)``.
    """

    edges: Integers
    peaks: Floats


def map_parts(grid: Floats, cut: float) -> MapParts:
    """Find the connected parts of an upsampled map at or above a value.

    Parts that touch at a corner are one.

    Args:
        grid: Raw values of the map, shape ``(H, W)``.
        cut: Least raw value of a part.

    Returns:
        The parts; none where the map stays below the value.

    Example:
        >>> parts = map_parts(np.array([[0.0, 2.0]]), cut=1.0)
        >>> parts.edges.tolist(), parts.peaks.tolist()
        ([[8, 0, 16, 8]], [2.0])
    """
    points = upsample(grid)
    above = points >= cut
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(
        above.astype(np.uint8), ltype=cv2.CV_32S
    )
    part_of_point = np.asarray(labels, np.int64)
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, part_of_point[above], points[above])
    # The first point of each part: written last, so it stays.
    backwards = np.arange(points.size)[::-1]
    first_point = np.full(count, points.size)
    first_point[part_of_point.ravel()[backwards]] = backwards
    order = 1 + np.argsort(first_point[1:])  # part 0 is the background
    left, top, width, height = boxes[order, :4].T
    return MapParts(np.column_stack([left, top, left + width, top + height]), peaks[order])


@dataclass(frozen=True)
class MapBoxRule:
    """Rule by which a map is cut into boxes: its connected parts at or above a level.

    An absolute level is the same raw value for all maps, so a faint map gives no box. A relative
    level lies between the lowest and the highest value of the map itself. In either case a map that
    stays below a fiftieth of the map scale gives no box, nor does a map of one value.

    Attributes:
        level: Level of the cut, in (0, 1).
        relative: True if the level is a share of each map's own range, False if it is a share of
            the map scale of all maps.
        most: Largest number of boxes of an image, those with the highest peaks; None for all.

    Source:
        Zhou et al. 2016 and Saporta et al. 2022 cut each map by its own range.

    Example:
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
        """Rule in words, for the report and for progress messages."""
        scale = "each map's own range" if self.relative else "the full scale"
        text = f"at {100 * self.level:.0f} % of {scale}"
        if self.most is None:
            return text
        number = {1: "one box", 2: "two boxes"}.get(self.most, f"{self.most} boxes")
        return f"{text}, at most {number} an image"

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any] | None) -> MapBoxRule | None:
        """Read it from ``decisions/<target>.json``; None where a system has no maps.

        Example:
            >>> MapBoxRule.from_dict({"level": 0.5, "relative": False, "most": None})
            MapBoxRule(level=0.5, relative=False, most=None)
        """
        if payload is None:
            return None
        return cls(payload["level"], payload["relative"], payload["most"])

    def cut(
        self, grid: Floats, frame: MapFrame, score: float, scale: tuple[float, float]
    ) -> CutBoxes:
        """Cut one map into boxes.

        Args:
            grid: Raw values of the map, shape ``(H, W)``.
            frame: Outer frame of the map in original px.
            score: Score of the image, in [0, 1].
            scale: Ends of the map scale in raw values, see `map_scale`.

        Returns:
            The boxes, the highest peak first where their number is limited; none where the map
            stays below the level, or shows too little evidence.
        """
        low, high = scale
        lowest = float(grid.min())
        highest = float(grid.max())
        cut = low + self.level * (high - low)
        if self.relative:
            cut = lowest + self.level * (highest - lowest)
        too_faint = highest < low + _LEAST_EVIDENCE * (high - low)
        if highest < cut or too_faint or (self.relative and highest == lowest):
            return CutBoxes(np.empty((0, 4)), np.empty(0))
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
        scores = score * np.minimum(1.0, (peaks - low) / (high - low))
        stored = scores >= LEAST_SCORE
        return CutBoxes(corners[stored], scores[stored])

    def apply(
        self, maps: pd.DataFrame, scores: pd.Series, scale: tuple[float, float]
    ) -> pd.DataFrame:
        """Cut maps into the boxes that are evaluated.

        A map is upsampled bilinearly; parts that touch at a corner are one. A box's score is the
        image's score times the part's peak on the map scale (at most 1), so that a box in a
        doubtful image ranks below one in a certain image.

        Args:
            maps: Maps, see `map_peaks`.
            scores: Score of each image in [0, 1], by image id.
            scale: Ends of the map scale in raw values, see `map_scale`.

        Returns:
            Boxes with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px) and ``score``.

        Example:
            >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
            ...     "values": [[0.0, 2.0]], "x1": [0.0], "y1": [0.0], "x2": [64.0], "y2": [32.0]})
            >>> boxes = MapBoxRule(0.5).apply(maps, pd.Series({"a": 0.8}), (0.0, 2.0))
            >>> boxes.to_dict("records")
            [{'image_id': 'a', 'x1': 32.0, 'y1': 0.0, 'x2': 64.0, 'y2': 32.0, 'score': 0.8}]
        """
        image_ids: list[str] = []
        corners = [np.empty((0, 4))]
        box_scores = [np.empty(0)]
        score_of_map = scores.reindex(maps["image_id"]).tolist()
        for one, score in zip(_read_maps(maps), score_of_map, strict=True):
            boxes = self.cut(one.grid, one.frame, score, scale)
            image_ids += [one.image_id] * len(boxes.scores)
            corners.append(boxes.corners)
            box_scores.append(boxes.scores)
        table = pd.DataFrame(np.concatenate(corners), columns=EDGES)
        table.insert(0, "image_id", image_ids)
        return table.assign(score=np.concatenate(box_scores)).astype({"image_id": TEXT})


_RELATIVE_LEVELS = (0.6, 0.7, 0.5, 0.8, 0.4, 0.3)
_ABSOLUTE_LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def map_box_candidates(
    maps: pd.DataFrame, scores: pd.Series, scale: tuple[float, float]
) -> list[tuple[MapBoxRule, pd.DataFrame]]:
    """Cut maps by every rule that validation chooses from.

    Args:
        maps: Maps, see `map_peaks`.
        scores: Score of each image in [0, 1], by image id.
        scale: Ends of the map scale in raw values, see `map_scale`.

    Returns:
        Each rule with its boxes. Among equally good rules the earlier is taken: relative levels
        with one box an image come first, then those with two, then absolute levels.

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.0, 2.0]], "x1": [0.0], "y1": [0.0], "x2": [64.0], "y2": [32.0]})
        >>> candidates = map_box_candidates(maps, pd.Series({"a": 0.8}), (0.0, 2.0))
        >>> len(candidates), candidates[0][0]
        (21, MapBoxRule(level=0.6, relative=True, most=1))
    """
    one = []
    two = []
    for level in _RELATIVE_LEVELS:
        rule = MapBoxRule(level, relative=True, most=2)
        boxes = rule.apply(maps, scores, scale)
        two.append((rule, boxes))
        highest = boxes.drop_duplicates("image_id").reset_index(drop=True)
        one.append((MapBoxRule(level, relative=True, most=1), highest))
    absolute = [
        (rule, rule.apply(maps, scores, scale)) for rule in map(MapBoxRule, _ABSOLUTE_LEVELS)
    ]
    return [*one, *two, *absolute]
