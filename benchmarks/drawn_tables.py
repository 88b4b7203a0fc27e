"""Drawn tables of a comparison: a truth with boxes, a detector's boxes, a classifier's scores."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES


class Tables(NamedTuple):
    """A truth with its true boxes, and the answers of two systems, all by ``image_id``."""

    truth: pd.DataFrame
    lesions: pd.DataFrame
    boxes: pd.DataFrame
    scores: pd.DataFrame


def draw_tables(n_images: int) -> Tables:
    """Draw true boxes on a quarter of the images, boxes of a detector, and a classifier's scores.

    Two images are of each patient; a sixth of the patients are for validation.
    """
    rng = np.random.default_rng(0)
    ids = np.char.add("image", np.arange(n_images).astype(str))
    label = (rng.random(n_images) < 0.25).astype(int)
    patient = rng.integers(0, n_images // 2, n_images)
    truth = pd.DataFrame({"image_id": ids, "label": label, "patient_id": patient})
    truth["role"] = np.where(patient % 6 == 0, "val", "test")

    def boxes(images: np.ndarray) -> pd.DataFrame:
        corner = rng.integers(0, 700, (len(images), 2))
        sides = rng.integers(60, 300, corner.shape)
        table = pd.DataFrame(np.hstack([corner, corner + sides]), columns=EDGES)
        return table.assign(image_id=ids[images])

    lesions = boxes(np.flatnonzero(label))
    found = boxes(rng.integers(0, n_images, 2 * n_images)).assign(score=rng.random(2 * n_images))
    hits = lesions.assign(score=0.4 + 0.6 * rng.random(len(lesions)))
    found = pd.concat([found, hits], ignore_index=True).round(4)
    scores = np.round(rng.random(n_images) * 0.6 + 0.3 * label, 4)
    return Tables(truth, lesions, found, pd.DataFrame({"image_id": ids, "score": scores}))
