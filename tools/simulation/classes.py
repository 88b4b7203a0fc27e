"""Decision among classes that exclude each other: ``python -m tools.simulation.classes``.

Its words are the number of sets, of patients in each, and the seed, such as ``400 60 7``. Counted
are, as per cent, intervals of differences that miss that of 150,000 patients, what a margin decides
on a system that is worse by exactly this margin, and what the headline claims of two equal systems,
and of two that differ in balanced accuracy alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.evaluation.classes import (
    DECIDES,
    FIGURES,
    call_gaps,
    called_classes,
    class_figures,
    counts_by_patient,
)
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.verdict.claims import Lookup
from cxr_compare.evaluation.verdict.margin import decided

MANY = 150_000
SHIFT = 0.8
"""Number added to all scores of the first class: the calls change, and no AUROC."""


class Law(NamedTuple):
    """Law by which images are drawn.

    Attributes:
        skill: How much higher the score of the true class is, in standard deviations.
        shares: Of the classes.
        mixed: Share of images whose class is drawn apart from that of the patient.
        alike: Share of the variance of scores that the images of a patient have in common.
        most: Images of a patient at most.
        worse: By how much the skill of the third system is lower.
        rarest: Patients of the last class, all images of whom are of it; None draws them, too.
    """

    skill: float
    shares: tuple[float, ...]
    mixed: float
    alike: float
    most: int
    worse: float = 0.4
    rarest: int | None = None


DESIGNS = {
    "equal classes": Law(1.2, (1 / 3,) * 3, 0.2, 0.5, 6),
    "55 / 30 / 15 %": Law(1.2, (0.55, 0.3, 0.15), 0.2, 0.5, 6),
    "the same, better systems": Law(2.6, (0.55, 0.3, 0.15), 0.2, 0.5, 6),
    "one image a patient": Law(2.0, (0.55, 0.3, 0.15), 0.0, 0.5, 1),
    "one class a patient, 1 to 10 images": Law(2.0, (0.5, 0.3, 0.2), 0.0, 0.7, 10),
    "five classes": Law(1.6, (0.3, 0.25, 0.2, 0.15, 0.1), 0.2, 0.5, 6),
    **{
        f"{rarest} patients in a class{text}": Law(
            skill, (0.6, 0.4, 0.0), 0.2, 0.5, most, 0.6, rarest
        )
        for rarest in (2, 5, 10, 20)
        for text, skill, most in (("", 1.6, 6), (", one image", 1.6, 1), (", better", 2.8, 6))
    },
}


def draw(rng: np.random.Generator, law: Law, n_patients: int) -> tuple[Integers, Integers, Floats]:
    """Return patients, classes ``(N,)`` and scores ``(4, N, K)``.

    They are those of two equal systems, of a worse one, and of the second with `SHIFT`.
    """
    n_classes = len(law.shares)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, law.most + 1, n_patients))
    of_patient = rng.choice(n_classes, n_patients, p=law.shares)
    apart = rng.choice(n_classes, len(patients), p=law.shares)
    is_apart = rng.random(len(patients)) < law.mixed
    if law.rarest is not None:  # as many of the many patients of `MANY`
        of_patient[: law.rarest] = n_classes - 1
        is_apart &= of_patient[patients] < n_classes - 1
    y_true = np.where(is_apart, apart, of_patient[patients])
    shared = rng.normal(0, 1, (n_patients, n_classes))  # alike for all systems
    systems = []
    for skill in (law.skill, law.skill, law.skill - law.worse):
        effect = np.sqrt(law.alike / 2) * (shared + rng.normal(0, 1, (n_patients, n_classes)))
        noise = np.sqrt(1 - law.alike) * rng.normal(0, 1, (len(patients), n_classes))
        scores = effect[patients] + noise
        scores[np.arange(len(y_true)), y_true] += skill
        systems.append(scores)
    shifted = systems[1] + SHIFT * (np.arange(n_classes) == 0)
    return patients, y_true, np.stack([*systems, shifted])


def figures_of(drawn: tuple[Integers, Integers, Floats], systems: str) -> dict[str, Lookup]:
    """Return the figures of two systems or more by class; those of all classes have none."""
    patients, y_true, scores = drawn
    names = [f"class {number}" for number in range(scores.shape[2])]
    tables = {name: pd.DataFrame(scores["ABCD".index(name)], columns=names) for name in systems}
    called = {name: called_classes(table.to_numpy()) for name, table in tables.items()}
    table = class_figures(y_true, tables, called, names, patients, systems)
    rows = table.assign(policy="", n_images=np.nan).groupby("class")
    return {str(name): Lookup(of_class) for name, of_class in rows}


def gaps_of(drawn: tuple[Integers, Integers, Floats], systems: str) -> Lookup:
    """Return the differences of systems in figures of all classes, which are not corrected."""
    patients, y_true, scores = drawn
    size = (patients, int(patients.max()) + 1, scores.shape[2])
    called = {name: called_classes(scores["ABCD".index(name)]) for name in systems}
    counts = {name: counts_by_patient(y_true, calls, *size) for name, calls in called.items()}
    table = pd.concat(call_gaps(counts)).assign(policy="", n_images=np.nan)
    return Lookup(table.assign(p_holm=table["p_value"]))


def true_figures(law: Law, n_patients: int) -> dict[str, dict[str, float]]:
    """Return the figures of `MANY` patients by system."""
    rng = np.random.default_rng(0)
    if law.rarest is not None:
        law = law._replace(rarest=round(law.rarest / n_patients * MANY))
    patients, y_true, systems = draw(rng, law, MANY)
    size = (patients, MANY, len(law.shares))
    sums = [
        counts_by_patient(y_true, called_classes(scores), *size).sum(axis=0) for scores in systems
    ]
    return {
        name: {metric: float(formula(of_system)) for metric, formula in FIGURES.items()}
        for name, of_system in zip("ABCD", sums, strict=True)
    }


def count_intervals(
    law: Law, n_patients: int, seed: int, number: int, true: dict[str, dict[str, float]]
) -> Counter[str]:
    """Count intervals of differences of one set that miss, and decisions by the margin."""
    figures = gaps_of(draw(np.random.default_rng([seed, number]), law, n_patients), "ABC")
    counted: Counter[str] = Counter()
    for metric in FIGURES:
        for second in "BC":
            gap = figures.claim("answer", "A", second, metric)
            of = true["A"][metric] - true[second][metric]
            is_missed = gap.bounded and not gap.ci_low <= of <= gap.ci_high
            counted[f"{metric}: A - {second}"] += is_missed
            counted[f"{metric}: not tested"] += not gap.bounded
    claim = figures.claim("answer", "A", "C", DECIDES)
    margin = true["A"][DECIDES] - true["C"][DECIDES]
    decision = decided([claim], "A", DECIDES, margin)["decisions"]["C"]
    counted["margin: not worse"] += decision in ("not worse", "equivalent")
    counted["margin: worse"] += decision == "worse"
    return counted


def count_claims(law: Law, n_patients: int, seed: int, number: int) -> Counter[str]:
    """Count what a headline on two systems of one set claims."""
    drawn = draw(np.random.default_rng([seed, number]), law, n_patients)
    counted: Counter[str] = Counter()
    for second, name in (("B", "equal"), ("D", "other calls")):
        # All else waits for the balanced accuracy.
        if not gaps_of(drawn, f"A{second}").claim("answer", "A", second, DECIDES).higher:
            continue
        figures = figures_of(drawn, f"A{second}")
        shown = {key: rows.claim("answer", "A", second, "auroc") for key, rows in figures.items()}
        counted[f"{name}: balanced accuracy shown"] += 1
        counted[f"{name}: mean AUROC shown"] += bool(shown.pop("").higher)
        counted[f"{name}: AUROC of a class shown"] += any(each.higher for each in shown.values())
    return counted


def main(n_sets: int = 600, n_patients: int = 60, seed: int = 7) -> None:
    """Print a column for each design."""
    columns = {}
    for name, law in DESIGNS.items():
        patients = max(n_patients, 3 * (law.rarest or 0))
        true = true_figures(law, patients)
        counted: Counter[str] = Counter()
        for number in range(n_sets):
            counted += count_intervals(law, patients, seed, number, true)
            if law.rarest is None:
                counted += count_claims(law, patients, seed, number)
        rates = {key: 100 * count / n_sets for key, count in counted.items()}
        values = {f"true {system}": of_system[DECIDES] for system, of_system in true.items()}
        columns[name] = {**rates, **values}
    sys.stdout.write(pd.DataFrame(columns).fillna(0.0).round(3).to_string() + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
