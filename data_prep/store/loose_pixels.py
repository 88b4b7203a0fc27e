"""Square images in memory, for images that are in no pixel store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import letterbox


class LoosePixels:
    """Images resized to squares of one side, in memory, for images without a data set.

    The originals are grey levels as displayed, uint8 ``(H, W)``, by image id. The class has the
    interface `data_prep.store.pixel_store.PixelSource`, from which models read.

    Example:
        >>> loose = LoosePixels({"a": np.zeros((8, 4), np.uint8)}, size=16)
        >>> loose.image("a").shape, loose.sizes.values.tolist()
        ((16, 16), [['a', 4, 8]])
    """

    def __init__(self, originals: Mapping[str, np.ndarray], size: int) -> None:
        self.size = size
        self.ids = pd.Index(list(originals), name="image_id", dtype=TEXT)
        self._originals = originals
        self._squares = {name: letterbox(pixels, size) for name, pixels in originals.items()}

    @property
    def sizes(self) -> pd.DataFrame:
        """Table with columns ``image_id, width, height`` of the original images, px."""
        rows = [(name, *pixels.shape[::-1]) for name, pixels in self._originals.items()]
        return pd.DataFrame(rows, columns=["image_id", "width", "height"])

    def resized(self, size: int) -> LoosePixels:
        """Return the same images, resized from the originals to squares of another side, px."""
        return self if size == self.size else LoosePixels(self._originals, size)

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``."""
        return self._squares[image_id][0]

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square."""
        return self._squares[image_id][1]
