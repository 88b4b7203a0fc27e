"""A table of the predicted class with its confidence is asked about, and an answer is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError
from cxr_compare.evaluation.boxes.read_table import ColumnNames
from cxr_compare.evaluation.sources.from_frames import truth_from_values
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.imported import read_rows
from cxr_compare.evaluation.sources.known_images import KnownImages

N = 40
IDS = [f"img{number:02d}" for number in range(N)]
Y = np.arange(N) % 2
P = 1 / (1 + np.exp(-(np.random.default_rng(1).normal(size=N) + 2 * Y - 1)))
IS_POSITIVE = P >= 0.5
CONFIDENCE = np.where(IS_POSITIVE, P, 1 - P)


def auroc(folder: Path, columns: ColumnNames | None = None, **table: object) -> float:
    labelled, _ = truth_from_values(pd.Series(Y, index=IDS))
    path = folder / "p.csv"
    pd.DataFrame({"filename": IDS, **table}).to_csv(path, index=False)
    options = ImportOptions("A", columns=columns or ColumnNames())
    rows = read_rows(path, KnownImages.of_truth(labelled), options).scores
    figure = cxr_compare.metrics.auroc(Y, rows.set_index("image_id")["score"][IDS].to_numpy())
    assert figure is not None
    return figure


@pytest.mark.parametrize(
    "table",
    [
        {"class": np.where(IS_POSITIVE, "Opacity", "Normal"), "confidence": CONFIDENCE},
        {"predicted_class": IS_POSITIVE.astype(int), "score": CONFIDENCE},
        {"class": (P >= 0.3).astype(int), "score": np.where(P >= 0.3, P, 1 - P)},
        {"confidence": CONFIDENCE},
    ],
)
def test_confidence_of_the_predicted_class_is_asked_about(tmp_path, table):
    with pytest.raises(InputError, match=f"{[*table][-1]}"):
        auroc(tmp_path, **table)


def test_the_user_can_say_that_the_column_is_the_probability(tmp_path):
    given = auroc(tmp_path, ColumnNames(score="confidence"), confidence=0.5 + P / 2)
    assert given == cxr_compare.metrics.auroc(Y, P)


@pytest.mark.parametrize(
    "table",
    [
        {"label": Y, "score": P},
        {"class": np.where(Y == 1, "Opacity", "Normal"), "score": P},
        {"prediction": IS_POSITIVE.astype(int), "score": P},
    ],
)
def test_labels_and_decisions_beside_probabilities_are_no_question(tmp_path, table):
    assert auroc(tmp_path, **table) == cxr_compare.metrics.auroc(Y, P)
