"""How a classifier's maps become the boxes that are judged; chosen on validation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.tables import InputError
from evaluation.boxes.box_rule import LEAST_SCORE, picture_limits
from evaluation.boxes.fusion import scale_boxes
from evaluation.boxes.maps import LevelOf, MapParts, map_parts, part_scores
from evaluation.statistics.ranking import Floats


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
            points: Score of each, by `evaluation.boxes.maps.part_scores` of `score_of`.
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
