"""What every system said of every image: the rows behind each figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from data_prep.store.dataset import DataSet
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.tuning import Decision


def decisions_table(
    cards: Mapping[str, Scorecard], decisions: Mapping[str, Decision], dataset: DataSet
) -> pd.DataFrame:
    """One row per image and system, systems in order, images sorted.

    Args:
        cards: Scorecard per system.
        decisions: What each was judged by.
        dataset: Names each image's patient.

    Returns:
        As `Comparison.decisions`.
    """
    frames = []
    for name, card in cards.items():
        judged, platt = card.judged, decisions[name].calibration
        frame = pd.DataFrame({"image_id": judged.image_ids.to_numpy(), "system": name})
        frame["label"] = judged.y_true.astype(np.float64)
        frame["score"] = card.scores
        frame["probability"] = np.nan if platt is None else platt.probability(card.scores)
        for policy in card.thresholds:
            called = card.called(policy)
            column = pd.array([pd.NA] * len(frame) if called is None else called, dtype="boolean")
            frame[f"decision_{policy}"] = column
            left = card.referred.get(policy)
            if left is not None and left.referred is not None:
                frame[f"referred_{policy}"] = pd.array(left.referred, dtype="boolean")
        points = np.full((len(frame), 2), np.nan) if card.points is None else card.points
        frame[["point_x", "point_y"]] = np.asarray(points, dtype=np.float64)
        frame["localised"] = _localised_column(card)
        if judged.x_class is not None:
            frame["x_class"] = judged.x_class.to_numpy()
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    return table.merge(dataset.images[["image_id", "patient_id"]], on="image_id", how="left")


def _localised_column(card: Scorecard) -> pd.Series:
    """Right place or not, known only for positive images whose boxes are trusted."""
    judged = card.judged
    column = pd.Series(pd.array([pd.NA] * len(judged.image_ids), dtype="boolean"))
    if card.localised is not None:
        asked = judged.y_true & judged.boxes_trusted
        column[asked] = card.localised[asked]
    return column
