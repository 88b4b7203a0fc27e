"""Reader studies with a known truth: ratings from 1 to 5 in two equally good ways of reading."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr

import cxr_compare
from tools.simulation.draw import Floats, skill_of

MODALITIES = ("m0", "m1")
_LEVELS = np.array([-0.5, 0.4, 1.1, 2.0])
"""Evidence between two ratings."""


@dataclass(frozen=True)
class ReaderLaw:
    """Rules by which a reader study is drawn.

    Within a class, the evidence of a case has a variance of 1 for each reader and modality.

    Attributes:
        readers: Number of readers, who read all cases with both modalities.
        positive: Number of positive cases.
        negative: Number of negative cases.
        auroc: AUROC of the evidence of an average reader.
        between: Standard deviation of the skill between readers.
        interaction: Standard deviation of the effect of a modality on a reader's skill.
        correlations: Correlations of the evidence of a case: of one reader with both modalities,
            of two readers with one modality, and of two readers with different modalities.
    """

    readers: int
    positive: int
    negative: int
    auroc: float
    between: float
    interaction: float
    correlations: tuple[float, float, float]


class ReaderStudy(NamedTuple):
    """A drawn study; `auroc` has the true AUROC of the ratings of each reader by modality."""

    ratings: pd.DataFrame
    truth: pd.DataFrame
    auroc: dict[tuple[str, str], float]


def rated_auroc(skills: Floats) -> Floats:
    """Return the AUROC of ratings of a reader of each skill, an equal rating as half a point."""
    ends = np.array([-np.inf, *_LEVELS, np.inf])
    of_negative = np.diff(ndtr(ends))
    of_positive = np.diff(ndtr(ends - skills[..., None]), axis=-1)
    return np.asarray(of_positive @ (np.cumsum(of_negative) - of_negative / 2))


def mean_auroc(law: ReaderLaw) -> float:
    """Return the mean AUROC of the ratings over all readers like those of a study."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    skills = skill_of(law.auroc) + np.hypot(law.between, law.interaction) * nodes
    return float(weights @ rated_auroc(skills) / weights.sum())


def draw_study(rng: np.random.Generator, law: ReaderLaw) -> ReaderStudy:
    """Draw the ratings of all readers with two equal modalities."""
    shape = (2, law.readers, law.positive + law.negative)
    label = np.arange(shape[2]) < law.positive
    skill = skill_of(law.auroc) + law.between * rng.standard_normal((1, law.readers))
    skill = skill + law.interaction * rng.standard_normal((2, law.readers))
    of_reader, of_modality, of_case = law.correlations
    alone = 1 - of_reader - of_modality + of_case
    evidence = skill[:, :, None] * label
    evidence += np.sqrt(of_case) * rng.standard_normal(shape[2])
    evidence += np.sqrt(of_reader - of_case) * rng.standard_normal(shape[1:])
    evidence += np.sqrt(of_modality - of_case) * rng.standard_normal((2, 1, shape[2]))
    evidence += np.sqrt(alone) * rng.standard_normal(shape)
    readers = [f"R{number}" for number in range(law.readers)]
    cases = [f"c{number}" for number in range(shape[2])]
    rows = pd.MultiIndex.from_product([MODALITIES, readers, cases])
    ratings = rows.to_frame(index=False, name=["modality", "reader", "case"])
    ratings["rating"] = 1 + np.searchsorted(_LEVELS, evidence.ravel())
    truth = pd.DataFrame({"case": cases, "label": label.astype(int)})
    pairs = [(modality, reader) for modality in MODALITIES for reader in readers]
    true = dict(zip(pairs, rated_auroc(skill).ravel().tolist(), strict=True))
    return ReaderStudy(ratings, truth, true)


def figures_of(ratings: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any]:
    """Return what `cxr_compare.readers` stores of a study."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratings.to_csv(folder / "ratings.csv", index=False)
        truth.to_csv(folder / "truth.csv", index=False)
        outcome = cxr_compare.readers(
            [folder / "ratings.csv"], truth=folder / "truth.csv", out=folder / "out"
        )
    return dict(outcome.to_dict())
