"""How stored boxes become the boxes that are judged: fusion, then scale; chosen on validation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from data_prep.contracts.errors import InputError
from evaluation.boxes.fusion import Confidence, nms, scale_boxes, soft_nms, weighted_box_fusion
from evaluation.statistics.ranking import Floats, Integers

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["none", "nms", "soft_nms_linear", "soft_nms_gaussian", "wbf"]
LEAST_SCORE = 0.001
"""Boxes below it are not kept, as in every predictions folder."""


class FusedBoxes(NamedTuple):
    """Boxes with the group (image and finding) of each.

    Attributes:
        corners: Shape ``(N, 4)`` xyxy, original px.
        scores: Shape ``(N,)``.
        groups: Shape ``(N,)``.
    """

    corners: Floats
    scores: Floats
    groups: Integers

    def at_least(self, score: float) -> FusedBoxes:
        """Only the boxes of this score or more."""
        kept = self.scores >= score
        return FusedBoxes(self.corners[kept], self.scores[kept], self.groups[kept])


@dataclass(frozen=True)
class BoxRule:
    """A fusion of the boxes of one image and finding, with its settings, and a box scale.

    Attributes:
        method: ``none`` takes the stored boxes.
        iou: Overlap above which boxes meet; not for ``none`` and ``soft_nms_gaussian``.
        sigma: Of ``soft_nms_gaussian``.
        min_score: Boxes below it do not enter ``wbf``.
        confidence: How ``wbf`` combines scores.
        scale: Factor on width and height, about the centre; boxes are clipped to the image.
    """

    method: Method = "none"
    iou: float | None = None
    sigma: float | None = None
    min_score: float = 0.0
    confidence: Confidence = "avg"
    scale: float = 1.0

    @property
    def changes_boxes(self) -> bool:
        """Whether judged boxes differ from the stored ones."""
        return self.method != "none" or self.scale != 1.0

    def scaled(self, scale: float) -> BoxRule:
        """The same fusion with another box scale."""
        return replace(self, scale=scale)

    def to_json(self) -> dict[str, Any] | None:
        """What a decision's ``box_fusion`` holds; `None` for the stored boxes as they are."""
        return asdict(self) if self.changes_boxes else None

    @classmethod
    def from_json(cls, payload: dict[str, Any] | None) -> BoxRule:
        """Read what `to_json` wrote.

        Raises:
            InputError: The method or a key is unknown.
        """
        if payload is None:
            return cls()
        if payload.get("method") not in get_args(Method) or set(payload) - set(asdict(cls())):
            raise InputError(f"decision: box_fusion {payload} is not known; run cxr tune again")
        return cls(**payload)

    @property
    def words(self) -> str:
        """The rule as the report and the terminal say it.

        Example:
            >>> BoxRule("nms", iou=0.3, scale=0.87).words
            'non-maximum suppression at IoU 0.3, boxes scaled to 87 %'
        """
        words = {
            "none": "as stored",
            "nms": "non-maximum suppression at IoU {iou:g}",
            "soft_nms_linear": "soft-NMS, linear from IoU {iou:g}",
            "soft_nms_gaussian": "soft-NMS, Gaussian of {sigma:g}",
            "wbf": "weighted box fusion at IoU {iou:g}",
        }[self.method].format(iou=self.iou or 0.0, sigma=self.sigma or 0.0)
        if self.method == "wbf":
            words += ", highest score" if self.confidence == "max" else ", mean score"
            words += f", of boxes from {self.min_score:g}" if self.min_score else ""
        return words if self.scale == 1 else f"{words}, boxes scaled to {100 * self.scale:.0f} %"

    def fuse(self, corners: Floats, scores: Floats, groups: Integers) -> FusedBoxes:
        """Fuse the boxes of each group; the scale is not applied yet.

        Args:
            corners: Shape ``(N, 4)`` xyxy, original px.
            scores: Shape ``(N,)``.
            groups: Image and finding of each box as one whole number, shape ``(N,)``.
        """
        if self.method == "wbf":
            fused = weighted_box_fusion(
                corners,
                scores,
                groups,
                iou_threshold=self.iou or 0.0,
                min_score=self.min_score,
                confidence=self.confidence,
            )
            return FusedBoxes(*fused).at_least(LEAST_SCORE)
        if self.method == "nms":
            kept = nms(corners, scores, groups, iou_threshold=self.iou or 0.0)
            return FusedBoxes(corners[kept], scores[kept], groups[kept])
        if self.method == "none":
            return FusedBoxes(corners, scores, groups)
        scores = soft_nms(
            corners,
            scores,
            groups,
            method="linear" if self.method == "soft_nms_linear" else "gaussian",
            iou_threshold=self.iou or 0.0,
            sigma=self.sigma or 1.0,
            min_score=LEAST_SCORE,
        )
        return FusedBoxes(corners, scores, groups).at_least(LEAST_SCORE)

    def apply(self, boxes: pd.DataFrame, sizes: pd.DataFrame | None = None) -> pd.DataFrame:
        """Make the judged boxes from the stored ones.

        Args:
            boxes: ``image_id``, ``finding``, corners in original px, ``score``.
            sizes: ``image_id``, ``width``, ``height`` of the originals, px; boxes are clipped to
                them.

        Returns:
            The same columns.

        Example:
            >>> import pandas as pd
            >>> row = {"image_id": "a", "finding": "x", "x1": 0.0, "y1": 0.0, "x2": 4.0, "y2": 4.0}
            >>> BoxRule(scale=0.5).apply(pd.DataFrame([row | {"score": 0.9}]))[["x1", "x2"]].values
            array([[1., 3.]])
        """
        if not self.changes_boxes:
            return boxes
        import pandas as pd

        from data_prep.contracts.schemas import EDGES

        groups, images, findings = group_boxes(boxes)
        corners = boxes[EDGES].to_numpy(np.float64)
        fused = self.fuse(corners, boxes["score"].to_numpy(np.float64), groups)
        image, finding = np.divmod(fused.groups, max(len(findings), 1))
        limits = None if sizes is None else image_limits(sizes, images)[image]
        judged = pd.DataFrame(scale_boxes(fused.corners, self.scale, limits), columns=EDGES)
        judged.insert(0, "image_id", images[image])
        judged.insert(1, "finding", findings[finding])
        return judged.assign(score=fused.scores)


AS_STORED = BoxRule()
"""Boxes as the predictions folder holds them."""


def group_boxes(boxes: pd.DataFrame) -> tuple[Integers, pd.Index, pd.Index]:
    """Number the groups of boxes that can meet: one per image and finding.

    Args:
        boxes: ``image_id``, ``finding``.

    Returns:
        ``image x findings + finding`` of each box, the images and the findings, both sorted.
    """
    import pandas as pd

    image, images = pd.factorize(boxes["image_id"], sort=True)
    finding, findings = pd.factorize(boxes["finding"], sort=True)
    return image * max(len(findings), 1) + finding, pd.Index(images), pd.Index(findings)


def image_limits(sizes: pd.DataFrame, image_ids: pd.Index) -> Floats:
    """Width and height of images, px, NaN where unknown: shape ``(N, 2)``."""
    table = sizes.set_index("image_id")[["width", "height"]].reindex(image_ids)
    return table.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
