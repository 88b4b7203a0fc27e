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
    """Images that are left out of a data set, with the reason for each.

    An image that is excluded twice keeps the first reason.

    Attributes:
        reasons: Reason as text for users, by image id or, for a file without an image id, by its
            path.
        boxes: Edges ``x1, y1, x2, y2`` of the invalid box in px, by image id, for images that are
            left out because of such a box.

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
        """Leave out some images for one reason.

        Args:
            image_ids: Ids of the images. Images that were excluded before keep their reason.
            reason: The reason, as users read it.
            boxes: If a wrong box of each image is the reason: the boxes, shape ``(N, 4)``, ``xyxy``
                in px, in the order of the ids. None if there is another reason.
        """
        for row, image_id in enumerate(image_ids):
            if image_id not in self.reasons:
                self.reasons[image_id] = reason
                if boxes is not None:
                    self.boxes[image_id] = boxes[row]

    def first(self, otherwise: str = "") -> str:
        """Return the reason why the first excluded image was left out, as an example for a message.

        Args:
            otherwise: Text that is returned if no image was left out.
        """
        return next(iter(self.reasons.values()), otherwise)

    def keep(self, frame: pd.DataFrame, key: str = "image_id") -> pd.DataFrame:
        """Return the rows of a table without those of images that were left out.

        Args:
            frame: Table with one or several rows for each image.
            key: Name of the column with the image ids.

        Returns:
            The remaining rows, numbered from 0 if any image is left out.
        """
        if not self.reasons:
            return frame
        return frame[~is_member(frame[key], list(self.reasons))].reset_index(drop=True)

    def table(self, paths: Mapping[str, str], stage: str = "labels") -> pd.DataFrame:
        """Return a table of the images that were left out, as a data set stores it.

        Args:
            paths: Path of each image, by its id. An image without a path is listed by its id.
            stage: Step of ``cxr prepare`` that left out the images, such as ``labels`` or
                ``decode``.

        Returns:
            Columns ``path``, ``stage``, ``reason`` and, of an invalid box, its edges ``x1, y1, x2,
            y2``.
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
