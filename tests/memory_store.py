"""Pixel stores in memory."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import letterbox


class ImageStore:
    """Stands for a `PixelStore` of some originals."""

    def __init__(self, images: Mapping[str, np.ndarray], size: int) -> None:
        self.size, self.ids = size, pd.Index(list(images), name="image_id")
        self._squares = {name: letterbox(pixels, size) for name, pixels in images.items()}

    def image(self, image_id: str) -> np.ndarray:
        return self._squares[image_id][0]

    def placement(self, image_id: str) -> Placement:
        return self._squares[image_id][1]


class MemoryStore(ImageStore):
    """Noise up to a brightness, with a bright patch where a box is."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        size: int = 64,
        brightness: int = 120,
        boxes: pd.DataFrame | None = None,
    ) -> None:
        rng, images = np.random.default_rng(0), {}
        for image_id, shape in shapes.items():
            pixels = rng.integers(0, brightness, size=shape, dtype=np.uint8)
            if boxes is not None:
                for box in boxes[boxes["image_id"] == image_id].itertuples():
                    pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] += 150
            images[image_id] = pixels
        super().__init__(images, size)
