"""A pixel store in memory."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from data_prep.store.preprocess import Placement, letterbox


class MemoryStore:
    """Stands for a `PixelStore`: noise up to a brightness, with a bright patch where a box is."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        size: int = 64,
        brightness: int = 120,
        boxes: pd.DataFrame | None = None,
    ) -> None:
        self.size = size
        self.ids = pd.Index(list(shapes))
        rng = np.random.default_rng(0)
        self._squares: dict[str, tuple[np.ndarray, Placement]] = {}
        for image_id, shape in shapes.items():
            pixels = rng.integers(0, brightness, size=shape, dtype=np.uint8)
            if boxes is not None:
                for box in boxes[boxes["image_id"] == image_id].itertuples():
                    pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] += 150
            self._squares[image_id] = letterbox(pixels, size)

    def image(self, image_id: str) -> np.ndarray:
        return self._squares[image_id][0]

    def placement(self, image_id: str) -> Placement:
        return self._squares[image_id][1]
