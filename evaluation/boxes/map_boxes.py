"""How a classifier's maps become the boxes that are judged; chosen on validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import find_objects, label  # type: ignore[attr-defined]

from data_prep.contracts.errors import InputError
from evaluation.boxes.box_rule import LEAST_SCORE, picture_limits
from evaluation.boxes.fusion import scale_boxes
from evaluation.statistics.ranking import Floats

UPSAMPLING = 8
MAP_BOX_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels on the map scale at which validation may cut boxes out of maps."""
LevelOf = Literal["scale", "peak"]
_ALL_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def map_grid(row: object) -> Floats:
    """The raw values of one row of the maps table, shape ``(grid_h, grid_w)``.

    Args:
        row: A named tuple of the table, as ``DataFrame.itertuples`` gives.

    Example:
        >>> table = pd.DataFrame({"grid_h": [1], "grid_w": [2], "values": [[0.5, 1.0]]})
        >>> map_grid(next(table.itertuples())).tolist()
        [[0.5, 1.0]]
    """
    # `values` is also a method of some containers, so it is read by name from the tuple.
    fields = row._asdict()  # type: ignore[attr-defined]
    values = np.asarray(fields["values"], dtype=np.float64)
    return values.reshape(int(fields["grid_h"]), int(fields["grid_w"]))


def upsample(grid: Floats, factor: int = UPSAMPLING) -> Floats:
    """Bilinear upsampling with cell centres kept in place and edges held.

    Args:
        grid: Shape ``(H, W)``.
        factor: Cells each cell is cut into, per side.

    Returns:
        Shape ``(H * factor, W * factor)``.

    Example:
        >>> upsample(np.array([[0.0, 1.0]]), factor=2).tolist()
        [[0.0, 0.25, 0.75, 1.0], [0.0, 0.25, 0.75, 1.0]]
    """
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


def map_peak(grid: Floats, frame: tuple[float, float, float, float]) -> tuple[float, float, float]:
    """Where the bilinearly interpolated map is highest.

    Bilinear interpolation never exceeds its cells, so the peak is the centre of the highest
    cell; among equal cells the first in reading order.

    Args:
        grid: Raw values, shape ``(H, W)``.
        frame: The grid's outer frame ``x1, y1, x2, y2`` in original px.

    Returns:
        ``x``, ``y`` in original px, and the value there.

    Example:
        >>> map_peak(np.array([[0.0, 2.0], [2.0, 1.0]]), (0, 0, 100, 100))
        (75.0, 25.0, 2.0)
    """
    row, column = np.unravel_index(int(np.argmax(grid)), grid.shape)
    x1, y1, x2, y2 = frame
    x = x1 + (float(column) + 0.5) * (x2 - x1) / grid.shape[1]
    y = y1 + (float(row) + 0.5) * (y2 - y1) / grid.shape[0]
    return x, y, float(grid[row, column])


def _each(maps: pd.DataFrame) -> Iterator[tuple[str, Floats, tuple[float, float, float, float]]]:
    for row in maps.itertuples(index=False):
        yield str(row.image_id), map_grid(row), (row.x1, row.y1, row.x2, row.y2)  # type: ignore[misc]


def map_points(maps: pd.DataFrame, image_ids: pd.Index) -> pd.DataFrame:
    """The peak of each image's map.

    Args:
        maps: Rows of the maps table, one per image.
        image_ids: Images asked for, unique, shape ``(N,)``.

    Returns:
        ``point_x``, ``point_y`` in original px and ``peak`` (raw), in the order of `image_ids`;
        NaN where an image has no map.

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.0, 3.0]], "x1": [0.0], "y1": [0.0], "x2": [8.0], "y2": [8.0]})
        >>> map_points(maps, pd.Index(["a"])).to_dict("list")
        {'point_x': [6.0], 'point_y': [4.0], 'peak': [3.0]}
    """
    peaks = {image_id: map_peak(grid, frame) for image_id, grid, frame in _each(maps)}
    rows = [peaks.get(str(image_id), (np.nan, np.nan, np.nan)) for image_id in image_ids]
    columns = ["point_x", "point_y", "peak"]
    return pd.DataFrame(rows, index=image_ids, columns=columns, dtype=np.float64)


def map_scale(maps: pd.DataFrame) -> tuple[float, float]:
    """The one scale on which all maps of a system are drawn and cut.

    From 0 (no evidence) to the 99th percentile of the validation images' peaks.

    Args:
        maps: Maps of the validation images.

    Returns:
        Low and high end, raw units, low < high.

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.0, 3.0]], "x1": [0.0], "y1": [0.0], "x2": [8.0], "y2": [8.0]})
        >>> map_scale(maps)
        (0.0, 3.0)
    """
    peaks = [float(grid.max()) for _, grid, _ in _each(maps)]
    high = float(np.quantile(peaks, 0.99)) if peaks else 1.0
    # Where no map of the validation set speaks for the target, any positive end does.
    return 0.0, high if high > 0 else 1.0


class MapParts(NamedTuple):
    """Connected parts of maps, image by image, in reading order.

    Attributes:
        image_ids: Image of each part, shape ``(N,)``.
        corners: The part's frame, shape ``(N, 4)`` xyxy, original px, not clipped to the picture.
        peak: The part's highest value, raw, shape ``(N,)``.
        rank: Position among the image's parts by falling peak, 0 the highest, shape ``(N,)``.
        highest: Highest value of the part's whole map, raw, shape ``(N,)``.
    """

    image_ids: pd.Index
    corners: Floats
    peak: Floats
    rank: npt.NDArray[np.int64]
    highest: Floats


def map_parts(
    maps: pd.DataFrame, *, scale: tuple[float, float], level: float, of: LevelOf = "scale"
) -> MapParts:
    """Find the connected parts of maps above a level; parts that touch at a corner are one.

    Args:
        maps: Rows of the maps table, one per image. Maps are upsampled bilinearly.
        scale: Low and high end of the map scale, raw units.
        level: Where to cut, in (0, 1).
        of: What the level is a share of: the ``scale`` of all maps, or each map's own ``peak``
            above the scale's low end (then every map that rises above it has a part).

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.0, 4.0]], "x1": [0.0], "y1": [0.0], "x2": [16.0], "y2": [8.0]})
        >>> map_parts(maps, scale=(0.0, 40.0), level=0.5).corners.shape
        (0, 4)
        >>> map_parts(maps, scale=(0.0, 40.0), level=0.5, of="peak").corners.tolist()
        [[8.0, 0.0, 16.0, 8.0]]
    """
    low, high = scale
    image_ids: list[str] = []
    rows: list[tuple[float, float, float, float, float, float, float]] = []
    for image_id, grid, (x1, y1, x2, y2) in _each(maps):
        highest = float(grid.max())
        cut = low + level * ((high if of == "scale" else highest) - low)
        if highest < cut or highest <= low:
            continue
        fine = upsample(grid)
        highest = float(fine.max())  # upsampling flattens a lone cell's peak
        if of == "peak":
            cut = low + level * (highest - low)
        parts, _ = label(fine >= cut, structure=_ALL_NEIGHBOURS)
        step_x, step_y = (x2 - x1) / fine.shape[1], (y2 - y1) / fine.shape[0]
        found, peaks = [], []
        for number, (down, along) in enumerate(find_objects(parts), start=1):
            peak = float(fine[down, along][parts[down, along] == number].max())
            left, right = x1 + along.start * step_x, x1 + along.stop * step_x
            top, bottom = y1 + down.start * step_y, y1 + down.stop * step_y
            found.append((left, top, right, bottom))
            peaks.append(peak)
        ranks = np.argsort(np.argsort(-np.array(peaks), kind="stable"))
        values = zip(found, peaks, ranks, strict=True)
        rows += [(*corners, peak, rank, highest) for corners, peak, rank in values]
        image_ids += [image_id] * len(found)
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    rank = table[:, 5].astype(np.int64)
    ids = pd.Index(image_ids, dtype="str")
    return MapParts(ids, table[:, :4], table[:, 4], rank, table[:, 6])


def part_scores(
    parts: MapParts, scores: pd.Series, scale: tuple[float, float], of: LevelOf = "scale"
) -> Floats:
    """Score of each part: the image's score times its peak as a share of `of`, at most 1."""
    low, high = scale
    whole = (high if of == "scale" else parts.highest) - low
    share = np.minimum(1.0, (parts.peak - low) / whole)
    return np.asarray(scores.reindex(parts.image_ids).to_numpy(np.float64) * share)


@dataclass(frozen=True)
class MapBoxRule:
    """Where maps are cut, and what becomes of their connected parts.

    Attributes:
        level: Where maps are cut, as a share of `level_of`, in (0, 1).
        level_of: The ``scale`` that all maps share, or each map's own ``peak``.
        score_of: What a part's peak is divided by, to be multiplied with the image's score:
            ``scale``; or ``peak``, so that the highest part has the image's score.
        most: Parts kept of an image, the highest first; `None` keeps all.
        scale: Factor on width and height of boxes, about their centre.
        clipped: Whether boxes end at the picture's border, as those of a search do; cells of the
            border lie partly beyond it.
    """

    level: float
    level_of: LevelOf = "scale"
    score_of: LevelOf = "scale"
    most: int | None = None
    scale: float = 1.0
    clipped: bool = False

    @property
    def is_level_alone(self) -> bool:
        """Whether the rule is the plain one: a level on the common scale, and nothing else."""
        return self == MapBoxRule(self.level)

    def to_json(self) -> dict[str, Any] | None:
        """What a decision's ``map_boxes`` holds; `None` where ``map_box_level`` says all."""
        return None if self.is_level_alone else asdict(self)

    @classmethod
    def from_json(cls, payload: dict[str, Any] | None, level: float | None) -> MapBoxRule | None:
        """Read a decision's ``map_boxes`` and ``map_box_level``.

        Raises:
            InputError: A key or a value is unknown.
        """
        if payload is None:
            return None if level is None else cls(level)
        known = get_args(LevelOf)
        if (
            set(payload) != set(asdict(cls(0.5)))
            or payload["level_of"] not in known
            or payload["score_of"] not in known
        ):
            raise InputError(f"decision: map_boxes {payload} is not known; run cxr tune again")
        return cls(**payload)

    @property
    def words(self) -> str:
        """The rule as the report and the terminal say it.

        Example:
            >>> MapBoxRule(0.4, "peak", "peak", most=2, scale=0.9).words
            'at 40 % of each map’s peak, the 2 highest parts, scaled to 90 %, scored by the image'
        """
        whole = "the full scale" if self.level_of == "scale" else "each map’s peak"
        told = f"at {100 * self.level:.0f} % of {whole}"
        if self.most is not None:
            told += ", the highest part" if self.most == 1 else f", the {self.most} highest parts"
        told += f", scaled to {100 * self.scale:.0f} %" if self.scale != 1 else ""
        return told + (", scored by the image" if self.score_of == "peak" else "")

    def parts(self, maps: pd.DataFrame, scale: tuple[float, float]) -> MapParts:
        """The connected parts of maps at this rule's level."""
        return map_parts(maps, scale=scale, level=self.level, of=self.level_of)

    def finish(
        self, parts: MapParts, points: Floats, limits: Floats | None
    ) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Boxes of parts: chosen, scaled, and clipped to their pictures where so asked.

        Args:
            parts: From `parts`.
            points: Score of each, by `evaluation.boxes.map_boxes.part_scores` of `score_of`.
            limits: Width and height of each one's picture, px, shape ``(N, 2)``.

        Returns:
            Which parts become boxes, shape ``(N,)``, and the corners of all of them, ``(N, 4)``.
        """
        kept = points >= LEAST_SCORE
        if self.most is not None:
            kept &= parts.rank < self.most
        if not self.clipped:
            return kept, parts.corners
        corners = scale_boxes(parts.corners, self.scale, limits)
        # A part that lies in the border alone is no box.
        return kept & (corners[:, 2:] > corners[:, :2]).all(axis=1), corners

    def apply(
        self,
        maps: pd.DataFrame,
        scores: pd.Series,
        scale: tuple[float, float],
        sizes: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Cut maps into the boxes that are judged.

        Args:
            maps: Rows of the maps table, one per image.
            scores: Image scores in [0, 1], indexed by image id.
            scale: Low and high end of the map scale, raw units.
            sizes: ``image_id``, ``width``, ``height`` of the originals, px, to clip boxes to.

        Returns:
            ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px), ``score``. May be empty.

        Example:
            >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
            ...     "values": [[0.0, 4.0]], "x1": [0.0], "y1": [0.0], "x2": [16.0], "y2": [8.0]})
            >>> sizes = pd.DataFrame({"image_id": ["a"], "width": [15], "height": [8]})
            >>> rule = MapBoxRule(0.5, level_of="peak", score_of="peak", clipped=True)
            >>> rule.apply(maps, pd.Series({"a": 0.5}), (0.0, 40.0), sizes)
              image_id   x1   y1    x2   y2  score
            0        a  8.0  0.0  15.0  8.0    0.5
        """
        parts = self.parts(maps, scale)
        points = part_scores(parts, scores, scale, self.score_of)
        limits = None if sizes is None else picture_limits(sizes, parts.image_ids)
        kept, corners = self.finish(parts, points, limits)
        boxes = pd.DataFrame(corners[kept], columns=["x1", "y1", "x2", "y2"])
        boxes.insert(0, "image_id", parts.image_ids[kept].to_numpy())
        return boxes.assign(score=points[kept]).astype({"image_id": "str"})


def boxes_from_map(
    maps: pd.DataFrame,
    scores: pd.Series,
    *,
    scale: tuple[float, float],
    level: float,
) -> pd.DataFrame:
    """Cut boxes out of activation maps: connected parts of the map above a level.

    The map is upsampled bilinearly; parts that touch at a corner are one. A box's score is the
    image's score times the part's peak on the map scale (at most 1), so that a box in a doubtful
    image ranks below one in a certain image. `MapBoxRule` knows other ways.

    Args:
        maps: Rows of the maps table, one per image.
        scores: Image scores in [0, 1], indexed by image id.
        scale: Low and high end of the map scale, raw units.
        level: Where to cut, as a share of the scale, in (0, 1).

    Returns:
        ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px), ``score``. May be empty.

    Source:
        Zhou et al. 2016 cut each map at 20 % of its own maximum; here the level is one for all.

    Example:
        >>> maps = pd.DataFrame({"image_id": ["a"], "grid_h": [1], "grid_w": [2],
        ...     "values": [[0.0, 4.0]], "x1": [0.0], "y1": [0.0], "x2": [16.0], "y2": [8.0]})
        >>> boxes_from_map(maps, pd.Series({"a": 0.5}), scale=(0.0, 4.0), level=0.5)
          image_id   x1   y1    x2   y2  score
        0        a  8.0  0.0  16.0  8.0    0.5
    """
    return MapBoxRule(level).apply(maps, scores, scale)
