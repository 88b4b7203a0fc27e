"""Predictive values at a prevalence that is not known exactly, and verdicts by readers' labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri

from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.groups.failure_analysis import add_at_prevalence, predictive_values
from cxr_compare.evaluation.groups.prevalence import Prevalence
from cxr_compare.evaluation.groups.shares import Shares
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.thresholds import ThresholdChoice
from tools.simulation.group_designs import Found, Measure, Named
from tools.simulation.makers import draw, skill_of
from tools.simulation.product import evaluate, evaluated_images

_REPLICATES = 400
_RATE = 0.85  # true sensitivity and specificity


def predictive_measure(
    n_patients: int, clusters: str, prevalence: float, counted: int | None
) -> Measure:
    """Return a simulation of one system at a declared threshold, whose PPV and NPV are estimated.

    Args:
        n_patients: Number of test patients.
        clusters: Number of images of a patient, see `cluster_sizes`.
        prevalence: True prevalence.
        counted: Number of patients from whom the prevalence is estimated; None if it is known.

    Returns:
        A function of a random generator that returns, by metric, 1 if the interval contains the
        true value, else 0.
    """
    cut = float(ndtri(_RATE))
    policy = f"threshold={expit(cut):.12f}"
    threshold = ThresholdChoice(policy, float(expit(cut)))
    choices = Choices("finding", {}, thresholds={policy: threshold})
    truth = predictive_values(_RATE, _RATE, prevalence)

    def measure(rng: np.random.Generator) -> Found:
        test = draw(rng, n_patients, [[2 * cut]], clusters=clusters)
        images = evaluated_images(test)
        output = Output.from_scores(images.image_ids, test.scores[0])
        models = {"A": [EvaluatedModel("A", images, output, choices)]}
        given = f"{prevalence}"
        if counted is not None:
            given = f"{max(rng.binomial(counted, prevalence), 1)}/{counted}"
        shares = Shares(test.n_patients)
        add_at_prevalence(shares, models, policy, Prevalence.parse(given))
        table = shares.table(["A"])
        rows = table[table["topic"] == "prevalence"].set_index("metric")
        return {
            f"{metric} covers": float(row["ci_low"] <= truth[metric] <= row["ci_high"])
            if pd.notna(row["ci_low"])
            else np.nan
            for metric, row in rows.iterrows()
        }

    return measure


_READERS = 3
_SEES = 0.80
_ALARMS = 0.05
"""Shares of positive and of negative images that a reader labels as positive.

Cohen's kappa of two such readers is 0.6.
"""


def verdict_measure(n_patients: int, aurocs: tuple[float, float]) -> Measure:
    """Return a simulation of verdicts by the labels of equally good readers.

    The reference is the majority of the readers.

    Args:
        n_patients: Number of test patients.
        aurocs: True AUROC of each of the two systems.

    Returns:
        A function of a random generator that returns how often the verdict by a reader's labels
        differs from that by the reference.
    """

    def measure(rng: np.random.Generator) -> Found:
        skills = [[skill_of(auroc)] for auroc in aurocs]
        test = draw(rng, n_patients, skills)
        seen = np.where(test.y_true, _SEES, _ALARMS)
        labels = rng.random((_READERS, len(seen))) < seen
        majority = labels.sum(axis=0) > _READERS / 2
        standings = []
        for y_true in (majority, *labels):
            own = replace(test, y_true=y_true)
            found = evaluate(own, own, [1, 1], replicates=2, seed=0, policies=())
            standings.append(found.verdict.claims[0].standing)
        reference, *readers = standings
        others = [standing for standing in readers if standing != reference]
        return {
            "any reader's is another": float(bool(others)),
            "one reader's is another": len(others) / _READERS,
            "turned round": float(bool({reference, *readers} >= {"first", "second"})),
        }

    return measure


def predictive() -> Iterator[Named]:
    """Yield the cases of PPV and NPV at a given prevalence."""
    for clusters, where in (("one", "one image a patient"), ("rsna", "images as in RSNA/NIH")):
        for n_patients in (60, 200, 600):
            name = f"{n_patients} patients, {where}, prevalence 5 % of 240"
            yield name, predictive_measure(n_patients, clusters, 0.05, 240)
    for prevalence, counted in ((0.05, None), (0.05, 60), (0.2, 60)):
        of = "known" if counted is None else f"of {counted}"
        name = f"200 patients, one image a patient, prevalence {100 * prevalence:.0f} % {of}"
        yield name, predictive_measure(200, "one", prevalence, counted)


def verdicts() -> Iterator[Named]:
    """Yield the cases of verdicts by three equal readers' labels and by their majority."""
    for aurocs in ((0.85, 0.85), (0.90, 0.85), (0.90, 0.80)):
        for n_patients in (60, 200, 1000):
            name = f"AUROC {aurocs[0]:.2f} and {aurocs[1]:.2f}, {n_patients:,} patients"
            yield name, verdict_measure(n_patients, aurocs)
