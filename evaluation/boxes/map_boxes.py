"""How a classifier's maps become the boxes that are evaluated; chosen on validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_UPSAMPLING = 8
MAP_BOX_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels on the map scale at which validation may cut boxes out of maps."""
_Frame = tuple[float, float, float, float]
"""Outer frame of a map, ``x1, y1, x2, y2`` in original px."""


def map_grid(row: Mapping[str, Any]) -> Floats:
    """The raw values of one row of the maps table, shape ``(grid_h, grid_w)``.

    Example:
        >>> map_grid({"grid_h": 1, "grid_w": 2, "values": [0.5, 1.0]}).tolist()
        [[0.5, 1.0]]
    """
    values = np.asarray(row["values"], dtype=np.float64)
    return values.reshape(int(row["grid_h"]), int(row["grid_w"]))


def upsample(grid: Floats, factor: int = _UPSAMPLING) -> Floats:
    """Bilinear upsampling with cell centres kept in place and edges held."""
    return _stretch(grid.shape[0], factor) @ grid @ _stretch(grid.shape[1], factor).T


@lru_cache(maxsize=16)
def _stretch(cells: int, factor: int) -> Floats:
    """Weights of linear interpolation along one side, shape ``(cells * factor, cells)``."""
    place = np.clip((np.arange(cells * factor) + 0.5) / factor - 0.5, 0, cells - 1)
    lower = np.minimum(np.floor(place).astype(int), max(cells - 2, 0))
    weights = np.zeros((len(place), cells))
    weights[np.arange(len(place)), lower] = 1 - (place - lower)
    if cells > 1:
        weights[np.arange(len(place)), lower + 1] = place - lower
    return weights


def _map_peak(grid: Floats, frame: _Frame) -> tuple[float, float, float]:
    """Where the bilinearly interpolated map is highest.

    Bilinear interpolation never exceeds its cells, so the peak is the centre of the highest
    cell; among equal cells the first in reading order.
    """
    row, column = np.unravel_index(int(np.argmax(grid)), grid.shape)
    x1, y1, x2, y2 = frame
    x = x1 + (float(column) + 0.5) * (x2 - x1) / grid.shape[1]
    y = y1 + (float(row) + 0.5) * (y2 - y1) / grid.shape[0]
    return x, y, float(grid[row, column])


def _each(maps: pd.DataFrame) -> Iterator[tuple[str, Floats, _Frame]]:
    for each in maps.itertuples(index=False):
        row: dict[str, Any] = each._asdict()  # type: ignore[operator,misc]
        yield str(row["image_id"]), map_grid(row), (row["x1"], row["y1"], row["x2"], row["y2"])


def map_peaks(maps: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """The peak of each image's map.

    Returns ``point_x``, ``point_y`` in original px and ``peak`` (raw), in the order of `image_ids`;
    NaN where an image has no map.
    """
    peaks = {image_id: _map_peak(grid, frame) for image_id, grid, frame in _each(maps)}
    rows = [peaks.get(str(image_id), (np.nan, np.nan, np.nan)) for image_id in image_ids]
    columns = ["point_x", "point_y", "peak"]
    return pd.DataFrame(rows, index=image_ids, columns=columns, dtype=np.float64)


def cell_size_text(maps: pd.DataFrame) -> str:
    """Say how many cells a system's maps have, and how large one is.

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
    """The one scale on which all maps of a system are drawn and cut.

    From 0 (no evidence) to the 99th percentile of the validation images' peaks.
    """
    peaks = [float(grid.max()) for _, grid, _ in _each(maps)]
    high = float(np.quantile(peaks, 0.99)) if peaks else 1.0
    # Where no map of the validation set speaks for the target, any positive end does.
    return 0.0, high if high > 0 else 1.0


def _map_parts(grid: Floats, cut: float) -> tuple[Integers, Floats]:
    """Connected parts of a map above a value; parts that touch at a corner are one.

    Edges ``x1, y1, x2, y2`` in points of the upsampled map, shape ``(N, 4)``, and the highest
    values, by the parts' first points in reading order.
    """
    fine = upsample(grid)
    above = fine >= cut
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(
        above.astype(np.uint8), ltype=cv2.CV_32S
    )
    peaks, part_of = np.full(count, -np.inf), np.asarray(parts, np.int64)
    np.maximum.at(peaks, part_of[above], fine[above])
    place = np.arange(fine.size)[::-1]
    first = np.full(count, fine.size)
    first[part_of.ravel()[place]] = place  # of a part's points the last one written: its first
    order = 1 + np.argsort(first[1:])
    left, top, width, height = boxes[order, :4].T
    return np.column_stack([left, top, left + width, top + height]), peaks[order]


@dataclass(frozen=True)
class MapBoxRule:
    """Where maps are cut into boxes: a level in (0, 1), as a share of the map scale."""

    level: float

    @property
    def words(self) -> str:
        """The rule as the report and the terminal say it."""
        return f"at {100 * self.level:.0f} % of the full scale"

    def cut(
        self, grid: Floats, frame: _Frame, score: float, scale: tuple[float, float]
    ) -> tuple[Floats, Floats]:
        """Cut one map into corners, xyxy in original px, not clipped to the image, and scores."""
        low, high = scale
        cut = low + self.level * (high - low)
        highest = float(grid.max())
        if highest < cut or highest <= low:
            return np.empty((0, 4)), np.empty(0)
        edges, peaks = _map_parts(grid, cut)
        x1, y1, x2, y2 = frame
        height, width = (side * _UPSAMPLING for side in grid.shape)
        corners = [x1, y1] * 2 + edges * ([(x2 - x1) / width, (y2 - y1) / height] * 2)
        points = score * np.minimum(1.0, (peaks - low) / (high - low))
        kept = points >= LEAST_SCORE
        return corners[kept], points[kept]

    def apply(
        self, maps: pd.DataFrame, scores: pd.Series, scale: tuple[float, float]
    ) -> pd.DataFrame:
        """Cut maps into the boxes that are evaluated: connected parts of a map above the level.

        A map is upsampled bilinearly; parts that touch at a corner are one. A box's score is the
        image's score times the part's peak on the map scale (at most 1), so that a box in a
        doubtful image ranks below one in a certain image.

        Source:
            Zhou et al. 2016 cut each map at 20 % of its own maximum; here the level is one for all.
        """
        image_ids: list[str] = []
        corners, points = [np.empty((0, 4))], [np.empty(0)]
        of_maps = scores.reindex(maps["image_id"]).tolist()
        for (image_id, grid, frame), score in zip(_each(maps), of_maps, strict=True):
            boxes, called = self.cut(grid, frame, score, scale)
            image_ids += [image_id] * len(boxes)
            corners.append(boxes)
            points.append(called)
        table = pd.DataFrame(np.concatenate(corners), columns=EDGES)
        table.insert(0, "image_id", image_ids)
        return table.assign(score=np.concatenate(points)).astype({"image_id": TEXT})
