"""How well the label can be guessed without reading the lungs: the baseline beside the models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from data_prep.audit.shortcuts import measure_shortcuts
from data_prep.contracts.tables import empty_table, read_table
from data_prep.store.dataset import DataSet, Target
from evaluation.compare.shares import WHERE_COLUMNS
from evaluation.compare.subgroups import images_of
from evaluation.metrics.evaluation_set import JudgedImages

SHORTCUT = "shortcut"
"""Stands in the place of a system."""
_METHOD = "Obuchowski 1997, clustered by patient; five folds of patients"
_LEFT_OUT = "siblings"


def shortcut_rows(dataset: DataSet, target: Target, judged: JudgedImages) -> pd.DataFrame:
    """Guess the label of the judged images from view, sex, age, file, grey level and edge alone.

    Each guess is learned on four fifths of these images' patients and judged on the rest, in
    turn: a system that does not beat it has not shown that it reads the lungs.

    Args:
        dataset: Its images, and its decode table where there is one.
        target: What is judged.
        judged: The images.

    Returns:
        The columns of `WHERE_COLUMNS`, topic ``shortcut``, system ``shortcut``, one row a
        fact; none where the facts say the same of all images, or a class has fewer than 20.
    """
    images = images_of(judged, dataset.images)
    path = dataset.folder / "decode.parquet"
    decode = read_table(path, "decode") if path.exists() else empty_table("decode")
    truth = pd.DataFrame({target.name: judged.y_true.astype(np.float64)}, index=judged.image_ids)
    rows: list[dict[str, Any]] = [
        {
            "topic": "shortcut",
            "group": found["fact"],
            "system": SHORTCUT,
            "policy": "",
            "metric": "auroc",
            "estimate": found["auroc"],
            "ci_low": found["ci_low"],
            "ci_high": found["ci_high"],
            "ci_method": _METHOD if found["ci_low"] is not None else "",
            "count": found["n_positive"],
            "of": found["n_images"],
            "n_patients": judged.n_patients,
            "note": f"known of {found['n_known']} images",
        }
        for found in measure_shortcuts(images, decode, truth)
        if found["kind"] != _LEFT_OUT
    ]
    return pd.DataFrame(rows, columns=list(WHERE_COLUMNS))
