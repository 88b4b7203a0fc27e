"""Simulated true boxes with predictions, and steps of the box metrics as plain loops."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.evaluation.boxes.matching import BoxPairs, pair_boxes


def simulate(
    seed: int, n_images: int, decimals: int | None = None, *, jitter: float = 3, most_false: int = 4
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Index]:
    """Draw lesions on a third of the images, jittered predictions of them, and false boxes.

    Args:
        seed: Random seed of all draws.
        n_images: Number of images.
        decimals: Decimals to which scores are rounded, for ties; None keeps them as drawn.
        jitter: Standard deviation of the predictions' position, px.
        most_false: Highest number of false boxes on an image.

    Returns:
        Predicted boxes, true boxes, and the images.
    """
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"i{number:03d}" for number in range(n_images)])
    truth, predicted = [], []
    for image in ids:
        for _ in range(rng.integers(1, 4) if rng.random() < 1 / 3 else 0):
            x, y, w, h = rng.uniform([0, 0, 20, 20], [60, 60, 40, 40])
            truth.append((image, x, y, x + w, y + h))
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.normal(0, jitter, 2)
                predicted.append((image, x + dx, y + dy, x + w + dx, y + h + dy, rng.beta(4, 2)))
        for _ in range(rng.integers(0, most_false + 1)):
            x, y, w, h = rng.uniform([0, 0, 10, 10], [60, 60, 40, 40])
            predicted.append((image, x, y, x + w, y + h, rng.beta(1, 3)))
    boxes = pd.DataFrame(predicted, columns=["image_id", *EDGES, "score"])
    if decimals is not None:
        boxes["score"] = boxes["score"].round(decimals)
    return boxes, pd.DataFrame(truth, columns=["image_id", *EDGES]), ids


def boxes_of_image(frame: pd.DataFrame, image: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners and the scores of an image's boxes; no scores for true boxes."""
    rows = frame[frame["image_id"] == image]
    return rows[EDGES].to_numpy(float), rows.get("score", pd.Series(dtype=float)).to_numpy()


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the IoU of two boxes."""
    return float(box_iou(first[None], second[None])[0])


def is_hit(mark: np.ndarray, lesion: np.ndarray, rule: str) -> bool:
    """Return True if a mark hits a lesion: IoU of at least 0.2, or its centre in the lesion."""
    if rule == "iou":
        return overlap(mark, lesion) >= 0.2
    x, y = (mark[0] + mark[2]) / 2, (mark[1] + mark[3]) / 2
    return bool(lesion[0] <= x <= lesion[2] and lesion[1] <= y <= lesion[3])


def one_lesion(*boxes: tuple[str, float, float]) -> BoxPairs:
    """Pair boxes ``(image, x2, score)`` with one lesion 0, 0, 10, 10 on image a and none on b."""
    true = pd.DataFrame({"image_id": ["a"], "x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0})
    rows = [(image, 0.0, 0.0, x2, 10.0, score) for image, x2, score in boxes]
    frame = pd.DataFrame(rows, columns=["image_id", *EDGES, "score"])
    return pair_boxes(frame, true, pd.Index(["a", "b"]))
