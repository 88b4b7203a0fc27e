"""Simulated images of patients, and splits of them."""

import numpy as np
import pandas as pd
from cxr_compare.data_prep.splits.split import SplitRule, split_by_patient
from hypothesis import strategies as st


def drawn_split(images, strata=None, linked=None, **rule):
    """Split images by a rule of these options."""
    return split_by_patient(images, strata, SplitRule(**rule), linked)


def make_images(patients: list[int]) -> pd.DataFrame:
    """Return an image of each of these patient numbers."""
    return pd.DataFrame(
        {
            "image_id": [f"i{n:05d}" for n in range(len(patients))],
            "patient_id": [f"p{patient}" for patient in patients],
            "patient_id_source": "given",
        }
    )


def make_large(n_patients: int = 1000, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Simulate patients with 1 to 12 images, one in five positive on some of them."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(n_patients), rng.geometric(0.5, n_patients).clip(max=12))
    images = make_images(owners.tolist())
    positive = (owners % 5 == 0) & (rng.random(len(owners)) < 0.7)
    return images, pd.Series(np.where(positive, "ill", "well"), index=images["image_id"])


patients = st.lists(st.integers(0, 30), min_size=1, max_size=120)
