"""What a model's batches read pixels from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.store.placement import Placement, clip_to_square


class PixelSource(Protocol):
    """Letterboxed pixels by image id: a data set's pixel store, or loose files.

    Attributes:
        size: Side S of the squares, px.
        ids: The images it holds, unique.
    """

    size: int
    ids: pd.Index

    def image(self, image_id: str) -> np.ndarray:
        """The letterboxed picture, uint8 (S, S)."""

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in the square."""


def visible_share(source: PixelSource, boxes: pd.DataFrame) -> np.ndarray:
    """How much of each box the pictures of a source show: all, unless they are cropped.

    Args:
        source: Holds the images of the boxes.
        boxes: ``image_id, x1, y1, x2, y2``, original px; each with an area.

    Returns:
        Shares of the boxes' areas, 0 to 1, float64, shape ``(len(boxes),)``.
    """
    share = np.ones(len(boxes))
    edges = boxes[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
    for image_id, rows in boxes.groupby("image_id").indices.items():
        moved = source.placement(str(image_id)).to_store(edges[rows])
        share[rows] = clip_to_square(moved, source.size)[1]
    return share


def require_images(source: PixelSource, image_ids: pd.Index) -> None:
    """Check that a source holds all images that are wanted of it.

    Raises:
        InputError: It lacks one.
    """
    absent = image_ids.difference(source.ids)
    if len(absent):
        raise InputError(
            f"pixel store: has no image {absent[0]!r} ({len(absent)} of {len(image_ids)} are "
            "missing); prepare the data set again at this size"
        )
