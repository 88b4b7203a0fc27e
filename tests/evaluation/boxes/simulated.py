"""Drawn true boxes and what a detector finds of them."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES


def simulate(
    seed: int, n_images: int, decimals: int | None = None, *, jitter: float = 3, most_false: int = 4
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Index]:
    """Jittered finds of lesions on a third of the images, false boxes anywhere.

    Args:
        seed: Of all draws.
        n_images: How many.
        decimals: Of the scores, for ties.
        jitter: Standard deviation of the finds' places, px.
        most_false: False boxes of an image.

    Returns:
        Found boxes, true boxes, and the images.
    """
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"i{number:03d}" for number in range(n_images)])
    truth, found = [], []
    for image in ids:
        for _ in range(rng.integers(1, 4) if rng.random() < 1 / 3 else 0):
            x, y, w, h = rng.uniform([0, 0, 20, 20], [60, 60, 40, 40])
            truth.append((image, x, y, x + w, y + h))
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.normal(0, jitter, 2)
                found.append((image, x + dx, y + dy, x + w + dx, y + h + dy, rng.beta(4, 2)))
        for _ in range(rng.integers(0, most_false + 1)):
            x, y, w, h = rng.uniform([0, 0, 10, 10], [60, 60, 40, 40])
            found.append((image, x, y, x + w, y + h, rng.beta(1, 3)))
    boxes = pd.DataFrame(found, columns=["image_id", *EDGES, "score"])
    if decimals is not None:
        boxes["score"] = boxes["score"].round(decimals)
    return boxes, pd.DataFrame(truth, columns=["image_id", *EDGES]), ids
