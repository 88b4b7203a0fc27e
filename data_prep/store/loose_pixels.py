"""Square images in memory, for images that are in no pixel store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import letterbox


@dataclass
class LoosePixels:
    """Images resized to squares of one side, in memory, for images without a data set.

    The class has the interface `data_prep.store.pixel_store.PixelSource`, from which models read.

    Attributes:
        size: Side S of the square images, px.
        ids: Ids of the images.
        images: Square images by id, uint8 (S, S).
        placements: By id, the position of the original image in its square.
        sizes: Table with columns ``image_id, width, height`` of the original images, px.
        originals: Original images by id, uint8 (H, W).

    Example:
        >>> loose = LoosePixels.from_arrays({"a": np.zeros((8, 4), np.uint8)}, size=16)
        >>> loose.image("a").shape, loose.sizes.values.tolist()
        ((16, 16), [['a', 4, 8]])
    """

    size: int
    ids: pd.Index
    images: dict[str, np.ndarray]
    placements: dict[str, Placement]
    sizes: pd.DataFrame
    originals: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def from_arrays(cls, originals: Mapping[str, np.ndarray], size: int) -> LoosePixels:
        """Resize images to squares of one side, with black borders.

        Args:
            originals: Grey levels as displayed, uint8 of shape ``(H, W)``, by image id.
            size: Side of the square images, px.
        """
        images = {}
        placements = {}
        sizes = []
        for image_id, pixels in originals.items():
            images[image_id], placements[image_id] = letterbox(pixels, size)
            height, width = pixels.shape
            sizes.append((image_id, width, height))
        return cls(
            size,
            pd.Index(list(images), name="image_id", dtype=TEXT),
            images,
            placements,
            pd.DataFrame(sizes, columns=["image_id", "width", "height"]),
            originals,
        )

    def resized(self, size: int) -> LoosePixels:
        """Return the same images, resized from the originals to squares of another side.

        Args:
            size: Side of the square images, px.
        """
        return self if size == self.size else LoosePixels.from_arrays(self.originals, size)

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``.

        Args:
            image_id: Id of the image.
        """
        return self.images[image_id]

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square.

        Args:
            image_id: Id of the image.
        """
        return self.placements[image_id]
