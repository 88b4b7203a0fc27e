"""Images and files that are excluded from a data set, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.tables import empty_table


@dataclass
class Exclusions:
    """Excluded images with their reasons. An image keeps the first reason.

    Attributes:
        reasons: Reason by image id, or by path for a file without an id.
        boxes: Invalid box that excluded the image, four numbers xyxy in px, by the same key.

    Example:
        >>> exclusions = Exclusions()
        >>> exclusions.add(["a", "a"], "two labels")
        >>> exclusions.add(["a", "b"], "no label")
        >>> exclusions.table({"a": "img/a.png"})["path"].tolist()
        ['img/a.png', 'b']
    """

    reasons: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, image_ids: Iterable[str], reason: str, boxes: np.ndarray | None = None) -> None:
        """Exclude images for one reason.

        Args:
            image_ids: Ids of the images. Images that were excluded before keep their reason.
            reason: The reason, as users read it.
            boxes: The wrong box of each image, shape ``(N, 4)``, ``xyxy`` in px, if a box is the
                reason.
        """
        for row, image_id in enumerate(image_ids):
            if image_id not in self.reasons:
                self.reasons[image_id] = reason
                if boxes is not None:
                    self.boxes[image_id] = boxes[row]

    def first(self, otherwise: str = "") -> str:
        """Return the reason of the first excluded image, for a message; else a given text.

        Args:
            otherwise: Text that is returned if no image is excluded.
        """
        return next(iter(self.reasons.values()), otherwise)

    def keep(self, frame: pd.DataFrame, key: str = "image_id") -> pd.DataFrame:
        """Return the rows of a table that belong to images that are not excluded.

        Args:
            frame: The table.
            key: Column with the image ids.
        """
        if not self.reasons:
            return frame
        return frame[~is_member(frame[key], list(self.reasons))].reset_index(drop=True)

    def table(self, paths: Mapping[str, str], stage: str = "labels") -> pd.DataFrame:
        """Return the table of excluded images as a data set stores it: ``path, stage, reason``.

        Args:
            paths: Path of each image, by its id. An image without a path is listed by its id.
            stage: Step of `prepare` that excluded the images.
        """
        if not self.reasons:
            return empty_table("excluded")
        boxes = pd.DataFrame(self.boxes, EDGES, dtype="float64").T.reindex(list(self.reasons))
        return pd.DataFrame(
            {
                "path": [paths.get(image_id, image_id) for image_id in self.reasons],
                "stage": stage,
                "reason": list(self.reasons.values()),
                **{edge: boxes[edge].to_numpy() for edge in EDGES},
            }
        )
