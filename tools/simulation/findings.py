"""Two equal systems on 14 findings at once: wrong claims on findings and their mean, coverage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.stats import norm

from cxr_compare.evaluation.figure_intervals import seed_parts
from cxr_compare.evaluation.macro_means import mean_of_auroc
from cxr_compare.evaluation.replicates import Evidence
from cxr_compare.evaluation.statistics.holm import holm
from tools.simulation.claims import Found, Question

_FINDINGS = 14
_GAP = 1.2  # between the mean scores of positive and of negative images, in standard deviations
_TOGETHER = 0.4  # correlation by which a patient is ill in several findings
_OF_PATIENT, _OF_IMAGE = 0.3, 0.3  # shares of a score's variance that findings, or systems, share


def _measure(
    patients: int, most_images: int, least: float, *, repeated: bool
) -> Callable[[np.random.Generator], Found]:
    """Return a simulation of two systems whose AUROC is the same for every finding.

    All numbers of images of a patient up to `most_images` are equally likely. `least` is the share
    of positive images of the rarest finding; that of the most frequent is 0.4. `repeated` gives one
    finding, with a share of 0.2, 14 times.
    """
    shares = [0.2] if repeated else np.geomspace(least, 0.4, _FINDINGS).tolist()
    truth = float(norm.cdf(_GAP / np.sqrt(2)))

    def measure(rng: np.random.Generator) -> Found:
        owner = np.repeat(np.arange(patients), rng.integers(1, most_images + 1, patients))
        ill = rng.standard_normal(patients)[owner]
        of_patient = {name: rng.standard_normal(patients)[owner] for name in "AB"}
        evidence: list[Evidence] = []
        for share in shares:
            own = rng.standard_normal(patients)[owner]
            latent = np.sqrt(_TOGETHER) * ill + np.sqrt(1 - _TOGETHER) * own
            label = latent > norm.ppf(1 - share)
            of_image = rng.standard_normal(len(owner))
            models = {}
            for name in "AB":
                noise = np.sqrt(_OF_PATIENT) * of_patient[name] + np.sqrt(_OF_IMAGE) * of_image
                rest = np.sqrt(1 - _OF_PATIENT - _OF_IMAGE) * rng.standard_normal(len(owner))
                models[name] = [_model(label, owner, patients, _GAP * label + noise + rest)]
            if min(len(np.unique(owner[label])), len(np.unique(owner[~label]))) > 1:
                evidence.append(Evidence(models, {}, None))
        evidence *= _FINDINGS if repeated else 1
        p_values = []
        for each in evidence:
            everything = np.ones(len(owner), dtype=bool)
            (first,) = seed_parts(each.models["A"], everything) or ()
            (second,) = seed_parts(each.models["B"], everything) or ()
            p_values.append((first - second).estimate().p_value)
        mean: Any = mean_of_auroc(evidence, ["A"])
        gap: Any = mean_of_auroc(evidence, ["A", "B"])
        is_missed = not mean["ci_low"] <= truth <= mean["ci_high"]
        return {
            "any finding": float(any(p is not None and p < 0.05 for p in holm(p_values))),
            "mean over findings": float(gap["p_value"] < 0.05),
            "misses mean": float(is_missed),
        }

    return measure


def _model(label: np.ndarray, owner: np.ndarray, patients: int, scores: np.ndarray) -> Any:
    """Return what the AUROC reads of an evaluated model, which is many times faster to make."""
    images = SimpleNamespace(
        image_ids=np.arange(len(owner)), y_true=label, patients=owner, n_patients=patients
    )
    output = SimpleNamespace(has_scores=True)
    return SimpleNamespace(images=images, scores=scores, output=output)


DESIGNS = {
    name: partial(_measure, patients, images, least, repeated=repeated)
    for name, patients, images, least, repeated in (
        ("14 findings, 100 patients", 100, 1, 0.08, False),
        ("14 findings, 300 patients", 300, 1, 0.04, False),
        ("14 findings, 300 patients, 1 to 5 images", 300, 5, 0.04, False),
        ("one finding given 14 times, 300 patients", 300, 1, 0.04, True),
    )
}
QUESTIONS = {
    "any finding": Question("any of 14 findings: equal systems are said to differ", "at most 5"),
    "mean over findings": Question("equal systems are said to differ in the mean AUROC", "5"),
    "misses mean": Question("interval of the mean AUROC over findings misses the true one", "5"),
}
