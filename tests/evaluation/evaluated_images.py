"""Evaluated images of tests that need no data set."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.labelled_images import LabelledImages


def evaluated_images(y_true, patients=None, **known):
    """Images by label, a patient each unless said; `known`: further fields, else no boxes."""
    y_true = np.asarray(y_true, dtype=bool)
    n = len(y_true)
    patients = np.arange(n) if patients is None else np.asarray(patients)
    fields = {
        "image_ids": pd.Index([f"i{number:04d}" for number in range(n)]),
        "boxes_trusted": np.zeros(n, dtype=bool),
        "truth": pd.DataFrame(columns=["image_id", *EDGES]),
    }
    n_patients = int(patients.max()) + 1
    return LabelledImages(y_true=y_true, patients=patients, n_patients=n_patients, **fields | known)


def row_of(table, **keys):
    """The only row of a table that has these values."""
    chosen = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert len(chosen) == 1, keys
    return chosen.iloc[0]
