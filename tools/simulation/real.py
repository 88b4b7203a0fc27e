"""Designs that draw patients of a real population, whose figures are known because all are known.

It is the 3,553 images of 1,569 patients for which scores of a published CheXNet and labels of the
RSNA Pneumonia Detection Challenge are both known, 1 to 44 images a patient. They are read where
they lie, in ``shared/data`` beside the project or above it, and are no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from tools.simulation import claims, designs
from tools.simulation.designs import Design, Drawn, Known
from tools.simulation.draw import Floats

_SYSTEMS = {"A": "prob_Pneumonia", "B": "prob_Consolidation"}
_PARENTS = Path(__file__).resolve().parents[2:]
_FOLDER = next(
    (folder for parent in _PARENTS if (folder := parent / "shared/data/chexnet_scores").is_dir()),
    _PARENTS[1] / "shared/data/chexnet_scores",
)


@dataclass(frozen=True)
class KnownOfReal(Known):
    """What is true of the systems in all real patients."""

    def population(self) -> tuple[Floats, Floats, float]:
        """Return rising scores of positive and negative images, and the share of positive ones."""
        images = population()
        positive = images["label"] == 1
        scores = images["A"]
        both = (np.sort(scores[of].to_numpy(np.float64)) for of in (positive, ~positive))
        return *both, float(positive.mean())

    def mean_auroc(self) -> float:
        """Return the AUROC of the first system."""
        return self.auroc["A"]


def lacks() -> str:
    """Return why there are no real patients; empty if there are."""
    return "" if _FOLDER.is_dir() else f"there is no {_FOLDER}"


@cache
def population() -> pd.DataFrame:
    """Return patient, label and scores of all images, and their positions by patient."""
    images = pd.read_csv(_FOLDER / "truth_rsna.csv")
    outputs = pd.read_csv(_FOLDER / "preds.csv").set_index("Image Index")
    table = pd.DataFrame(
        {"patient": pd.factorize(images["Image Index"].str[:8])[0], "label": images["Target"]}
    )
    for name, column in _SYSTEMS.items():
        table[name] = outputs[column].reindex(images["Image Index"]).to_numpy(np.float64)
    return table


@cache
def _known() -> KnownOfReal:
    images = population()
    positive = (images["label"] == 1).to_numpy()
    return KnownOfReal(
        {name: designs.auroc(positive, images[name].to_numpy(np.float64)) for name in _SYSTEMS}
    )


def real_patients(rng: np.random.Generator, patients: int, validation: int) -> Drawn:
    """Draw patients with replacement; one who is drawn twice is two patients."""
    rows_of = population().groupby("patient").indices
    tables = []
    for role, count in (("val", validation), ("test", patients)):
        drawn = rng.choice(len(rows_of), count)
        rows = np.concatenate([rows_of[patient] for patient in drawn])
        owners = np.repeat(np.arange(count), [len(rows_of[patient]) for patient in drawn])
        table = population().iloc[rows].reset_index(drop=True)
        ids = [f"{role}-{number}" for number in range(len(table))]
        names = [f"{role}-p{number}" for number in owners]
        tables.append(table.assign(image_id=ids, patient_id=names, role=role))
    table = pd.concat(tables, ignore_index=True)
    systems = {name: pd.Series(table[name].to_numpy(), table["image_id"]) for name in _SYSTEMS}
    truth = table[["image_id", "patient_id", "label", "role"]]
    return Drawn(systems, truth, _known(), {"policy": designs.POLICIES})


DESIGNS: dict[str, Design] = {
    f"real-{patients}": Design(
        partial(real_patients, patients=patients, validation=validation),
        (claims.rank_intervals, claims.rate_intervals),
        lacks=lacks,
    )
    for patients, validation in ((60, 60),)
}
