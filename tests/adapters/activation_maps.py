"""Scores and activation maps of a classifier as predictions in memory that `compare` takes."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.predictions import Predictions


def predictions_with_maps(name, scores, maps, frame, finding="finding"):
    """Predictions of image scores (Series by image id) with maps ``(N, h, w)`` in the same order.

    `frame` are the outer edges x1, y1, x2, y2 of the maps in px of the images.
    """
    ids = list(scores.index)
    keys = pd.DataFrame({"image_id": ids, "finding": finding})
    height, width = maps.shape[1:]
    cells = np.fromiter(maps.reshape(len(ids), -1), object, len(ids))
    mapped = keys.assign(method="cam", grid_h=height, grid_w=width, values=cells)
    mapped[["x1", "y1", "x2", "y2"]] = np.asarray(frame, float)
    images = pd.DataFrame({"image_id": ids, "status": "ok", "reason": pd.NA})
    info = PredictionsInfo(
        system=name,
        kind="scores",
        findings=(finding,),
        inference_id=f"maps of {name}",
        maps={"method": "cam"},
        **provenance(),
    )
    tables = {"scores": keys.assign(score=scores.to_numpy()), "maps": mapped}
    return Predictions.from_part(info, Part(images, tables))
