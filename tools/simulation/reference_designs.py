"""Labels with known errors: how often intervals of corrected figures contain the true figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import expit, ndtr

from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.studies.wrong_labels.reference_error import (
    ReferenceAccuracy,
    corrected_auroc,
    corrected_auroc_difference,
    corrected_rates,
)
from tools.simulation.makers import Sample, draw, skill_of

_AUROCS = (0.85, 0.80)
_CUT = 0.75
"""Threshold of the first system, as a normal quantile of its scores on negative images."""
_TRUTH_SETS = 1500
_DESIGNS = (
    (150, "one", 0.3, 0.95, 0.95),
    (150, "rsna", 0.3, 0.95, 0.95),
    (400, "one", 0.3, 0.90, 0.90),
    (400, "rsna", 0.3, 0.90, 0.90),
    (400, "rsna", 0.5, 0.80, 0.90),
    (400, "rsna", 0.1, 0.90, 0.98),
    (400, "nih", 0.3, 0.95, 0.98),
    (1000, "one", 0.05, 0.95, 0.98),
)
"""Patients, images of a patient, prevalence, and sensitivity and specificity of the labels."""

Measure = Callable[[np.random.Generator], dict[str, float]]


def reference_designs() -> Iterator[tuple[str, Callable[[np.random.Generator], Measure]]]:
    """Yield the name of each design, and a function that returns its simulation."""
    for n_patients, clusters, prevalence, sensitivity, specificity in _DESIGNS:
        name = (
            f"{n_patients} patients, {clusters}, prevalence {prevalence:g}, labels' sensitivity "
            f"{sensitivity:.2f} and specificity {specificity:.2f}"
        ).replace(", one,", ", one image each,")
        reference = ReferenceAccuracy(sensitivity, specificity)

        def make(
            rng: np.random.Generator,
            sample_of: tuple[int, str, float] = (n_patients, clusters, prevalence),
            reference: ReferenceAccuracy = reference,
        ) -> Measure:
            first, second = _true_aurocs(rng, *sample_of)
            return lambda rng: _measure(_sample(rng, *sample_of), rng, reference, first, second)

        yield name, make


def _sample(rng: np.random.Generator, n_patients: int, clusters: str, prevalence: float) -> Sample:
    skills = [[skill_of(auroc)] for auroc in _AUROCS]
    return draw(rng, n_patients, skills, clusters=clusters, prevalence=prevalence)


def _true_aurocs(
    rng: np.random.Generator, n_patients: int, clusters: str, prevalence: float
) -> tuple[float, float]:
    """Return the mean AUROC of both systems by the true labels, with pairs within a patient."""
    found = []
    for _ in range(_TRUTH_SETS):
        sample = _sample(rng, n_patients, clusters, prevalence)
        parts = [
            auroc_parts(sample.y_true, scores, sample.patients, sample.n_patients)
            for scores in sample.scores
        ]
        found.append([np.nan if part is None else part.value for part in parts])
    first, second = np.nanmean(found, axis=0)
    return float(first), float(second)


def _measure(
    sample: Sample,
    rng: np.random.Generator,
    reference: ReferenceAccuracy,
    first: float,
    second: float,
) -> dict[str, float]:
    """Label a sample with errors that do not depend on scores, and check every interval."""
    error = np.where(sample.y_true, 1 - reference.sensitivity, 1 - reference.specificity)
    labels = sample.y_true ^ (rng.random(len(error)) < error)
    one, other = sample.scores
    arguments = (labels, one, reference, sample.patients)
    rates = corrected_rates(labels, one >= expit(_CUT), reference, sample.patients)
    difference = corrected_auroc_difference(labels, one, other, reference, sample.patients)
    sensitivity = float(ndtr(skill_of(_AUROCS[0]) - _CUT))
    labelled = auroc_parts(labels, one, sample.patients, sample.n_patients)
    return {
        "auroc covers": _covers(corrected_auroc(*arguments), first),
        "difference covers": _covers(difference, first - second),
        "recall covers": _covers(rates["recall"], sensitivity),
        "specificity covers": _covers(rates["specificity"], float(ndtr(_CUT))),
        "auroc by the labels covers": _covers(
            None if labelled is None else labelled.estimate(), first
        ),
    }


def _covers(estimate: ClusteredEstimate | None, truth: float) -> float:
    if estimate is None or not estimate.has_interval:
        return np.nan
    return float(estimate.ci_low <= truth <= estimate.ci_high)
