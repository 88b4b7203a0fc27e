"""Images in memory with their digests and fingerprints."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.images.decoded_image import pixel_digest
from cxr_compare.data_prep.images.fingerprint import perceptual_hash


class ImageSet:
    """A set of images in memory, with a decode table."""

    def __init__(self, **arrays: np.ndarray) -> None:
        self.arrays = arrays
        self.reads = 0
        self.decode = pd.DataFrame(
            {
                "image_id": list(arrays),
                "pixel_sha256": [pixel_digest(pixels) for pixels in arrays.values()],
                "perceptual_hash": [perceptual_hash(pixels) for pixels in arrays.values()],
            }
        )

    def read(self, image_id: str) -> np.ndarray:
        self.reads += 1
        return self.arrays[image_id]
