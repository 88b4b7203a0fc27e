"""What a model's batches read pixels from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd

from data_prep.errors import InputError
from data_prep.preprocess import Placement


class PixelSource(Protocol):
    """Letterboxed pixels by image id: a data set's pixel store, or loose files.

    Attributes:
        ids: The images it holds, unique.
    """

    ids: pd.Index

    def image(self, image_id: str) -> np.ndarray:
        """The letterboxed picture, uint8 (S, S)."""

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in the square."""


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
