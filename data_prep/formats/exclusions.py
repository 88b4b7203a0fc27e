"""Images and files that a source's labels rule out, each with its reason."""

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
    """Images ruled out one rule at a time; the first reason for an image stands.

    Example:
        >>> out = Exclusions()
        >>> out.add(["a", "a"], "two labels")
        >>> out.add(["a", "b"], "no label")
        >>> out.table({"a": "img/a.png"})["path"].tolist()
        ['img/a.png', 'b']
    """

    reasons: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, np.ndarray] = field(default_factory=dict)  # the box that is the reason, px

    def add(self, image_ids: Iterable[str], reason: str, boxes: np.ndarray | None = None) -> None:
        """Rule out images for one reason; for their boxes, shape ``(N, 4)``, where it is these."""
        for row, image_id in enumerate(image_ids):
            if image_id not in self.reasons:
                self.reasons[image_id] = reason
                if boxes is not None:
                    self.boxes[image_id] = boxes[row]

    def first(self, otherwise: str = "") -> str:
        """The first reason of all."""
        return next(iter(self.reasons.values()), otherwise)

    def keep(self, frame: pd.DataFrame, key: str = "image_id") -> pd.DataFrame:
        """The rows of a frame whose ``image_id`` is not ruled out."""
        if not self.reasons:
            return frame
        return frame[~is_member(frame[key], list(self.reasons))].reset_index(drop=True)

    def table(self, paths: Mapping[str, str], stage: str = "labels") -> pd.DataFrame:
        """The ``excluded`` table; an image without a known path is listed by its id."""
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
