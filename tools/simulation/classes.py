"""Decision among classes that exclude each other: ``python -m tools.simulation.classes``.

Its words are the number of sets, of patients in each, and the seed, such as ``400 60 7``. Counted
are, as per cent, intervals that miss the figure of 150,000 patients, equal systems that differ, and
what a margin decides on a system that is worse by exactly this margin.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.evaluation.classes import (
    FIGURES,
    called_classes,
    class_figures,
    counts_by_patient,
)
from cxr_compare.evaluation.protocol import DECIDES
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.verdict.claims import Lookup
from cxr_compare.evaluation.verdict.margin import decided

REPLICATES = 1000
MANY = 150_000


class Law(NamedTuple):
    """Law by which images are drawn.

    Attributes:
        skill: How much higher the score of the true class is, in standard deviations.
        shares: Of the classes.
        mixed: Share of images whose class is drawn apart from that of the patient.
        alike: Share of the variance of scores that the images of a patient have in common.
        most: Images of a patient at most.
        worse: By how much the skill of the third system is lower.
    """

    skill: float
    shares: tuple[float, ...]
    mixed: float
    alike: float
    most: int
    worse: float = 0.4


DESIGNS = {
    "equal classes": Law(1.2, (1 / 3,) * 3, 0.2, 0.5, 6),
    "55 / 30 / 15 %": Law(1.2, (0.55, 0.3, 0.15), 0.2, 0.5, 6),
    "the same, better systems": Law(2.6, (0.55, 0.3, 0.15), 0.2, 0.5, 6),
    "one image a patient": Law(2.0, (0.55, 0.3, 0.15), 0.0, 0.5, 1),
    "one class a patient, 1 to 10 images": Law(2.0, (0.5, 0.3, 0.2), 0.0, 0.7, 10),
    "five classes": Law(1.6, (0.3, 0.25, 0.2, 0.15, 0.1), 0.2, 0.5, 6),
}


def draw(rng: np.random.Generator, law: Law, n_patients: int) -> tuple[Integers, Integers, Floats]:
    """Return patients, classes ``(N,)`` and scores ``(3, N, K)``: of two equal systems, a worse."""
    n_classes = len(law.shares)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, law.most + 1, n_patients))
    of_patient = rng.choice(n_classes, n_patients, p=law.shares)
    apart = rng.choice(n_classes, len(patients), p=law.shares)
    is_apart = rng.random(len(patients)) < law.mixed
    y_true = np.where(is_apart, apart, of_patient[patients])
    shared = rng.normal(0, 1, (n_patients, n_classes))  # alike for all systems
    systems = []
    for skill in (law.skill, law.skill, law.skill - law.worse):
        effect = np.sqrt(law.alike / 2) * (shared + rng.normal(0, 1, (n_patients, n_classes)))
        noise = np.sqrt(1 - law.alike) * rng.normal(0, 1, (len(patients), n_classes))
        scores = effect[patients] + noise
        scores[np.arange(len(y_true)), y_true] += skill
        systems.append(scores)
    return patients, y_true, np.stack(systems)


def _counts(rng: np.random.Generator, law: Law, n_patients: int) -> dict[str, Floats]:
    patients, y_true, systems = draw(rng, law, n_patients)
    size = (patients, n_patients, len(law.shares))
    return {
        name: counts_by_patient(y_true, called_classes(scores), *size)
        for name, scores in zip("ABC", systems, strict=True)
    }


def rates_of(law: Law, n_sets: int, n_patients: int, seed: int) -> dict[str, float]:
    """Return how often what is said of a design is false, as per cent of the sets."""
    rng = np.random.default_rng(seed)
    sums = {name: counts.sum(axis=0) for name, counts in _counts(rng, law, MANY).items()}
    true = {
        name: {metric: float(formula(of_system)) for metric, formula in FIGURES.items()}
        for name, of_system in sums.items()
    }
    margin = (true["A"][DECIDES] + true["B"][DECIDES]) / 2 - true["C"][DECIDES]
    missed: Counter[str] = Counter()
    names = [f"class {number}" for number in range(len(law.shares))]
    for number in range(n_sets):
        counts = _counts(rng, law, n_patients)
        table = class_figures(counts, names, Resamples(n_patients, REPLICATES, number))
        of_all = table[table["class"] == ""].assign(policy="", n_images=np.nan)
        figures = Lookup(of_all)
        for metric in FIGURES:
            interval = figures.get("A", metric)
            inside = interval.ci_low <= true["A"][metric] <= interval.ci_high
            missed[metric] += interval.bounded and not inside
            missed[f"{metric}: equal differ"] += bool(
                figures.claim("answer", "A", "B", metric).p_value < 0.05
            )
        missed[f"{DECIDES}: equal shown"] += bool(figures.claim("answer", "A", "B", DECIDES).higher)
        claim = figures.claim("answer", "A", "C", DECIDES)
        decision = decided([claim], "A", DECIDES, margin)["decisions"]["C"]
        missed["margin: not worse"] += decision in ("not worse", "equivalent")
        missed["margin: worse"] += decision == "worse"
    return {name: 100 * missed[name] / n_sets for name in missed} | {
        "true": true["A"][DECIDES],
        "margin": margin,
    }


def main(n_sets: int = 400, n_patients: int = 60, seed: int = 7) -> None:
    """Print a row for each design."""
    rows = {name: rates_of(law, n_sets, n_patients, seed) for name, law in DESIGNS.items()}
    sys.stdout.write(pd.DataFrame.from_dict(rows, orient="index").round(3).T.to_string() + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
