"""Pixel stores in memory."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import letterbox

ORIGINALS = {  # image id -> (height, width) px: square, wide and high
    "square": (128, 128),
    "wide": (100, 200),
    "high": (256, 128),
    "empty": (128, 128),
}
BOXES = pd.DataFrame(
    [
        ("square", "opacity", 20.0, 30.0, 70.0, 90.0),
        ("square", "opacity", 80.0, 10.0, 120.0, 60.0),
        ("wide", "opacity", 100.0, 20.0, 180.0, 80.0),
        ("high", "opacity", 10.0, 100.0, 110.0, 220.0),
    ],
    columns=["image_id", "finding", "x1", "y1", "x2", "y2"],
)
LABELLED_ORIGINALS = {
    "square": (128, 128),
    "wide": (100, 200),
    "high": (256, 128),
    "unknown": (64, 64),
}
LABELS = pd.DataFrame(
    {"opacity": [1.0, 0.0, 1.0], "nodule": [0.0, np.nan, 1.0]},
    index=pd.Index(["square", "wide", "high"], name="image_id"),
)


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
