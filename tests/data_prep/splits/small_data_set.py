"""A small data set to split."""

from pathlib import Path

import numpy as np

from cxr_compare.data_prep.dataset import DataSet
from tests.adapters.sets import table_set


def make_set(folder: Path, n_patients: int = 60) -> DataSet:
    """Write two images a patient, of two findings and two views; every third patient is ill."""
    numbers = np.arange(2 * n_patients)
    states = {"mass": (numbers // 2 % 3 == 0).astype(int), "edema": (numbers % 10 == 0).astype(int)}
    ids = [f"i{n:03d}" for n in numbers]
    patients = [f"{n // 2:03d}" for n in numbers]
    view = ["PA", "AP"] * n_patients
    return DataSet.open(table_set(folder, ids, states, patient_id=patients, view=view))
