"""Simulations of single figures at a threshold: how often an interval misses the true figure.

The intervals follow from the counts of each patient, so the function that makes them is called
without a report, which takes a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cxr_compare.evaluation.metrics.metric import Counts
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.clustered_counts import confusion_by_patient
from cxr_compare.evaluation.threshold_figures import figure_of_counts
from cxr_compare.evaluation.thresholds import POLICIES, choose_threshold
from tools.simulation.claims import RATES, Found, Question, Truth
from tools.simulation.designs import WIDE, Design
from tools.simulation.draw import ALIKE

_DECLARED = "threshold=0.5"


def measure(design: Design) -> Callable[[np.random.Generator], Found]:
    """Return a function that draws validation and test images, and counts missed true figures."""
    truth = Truth(design)
    policies = [*design.options.get("policy", POLICIES), _DECLARED]

    def one(rng: np.random.Generator) -> Found:
        skills = design.skills(rng)
        validation = design.sample(rng, design.validation, skills)
        test = design.sample(rng, design.patients, skills)
        found: Found = {}
        for policy in policies:
            chosen = choose_threshold(validation.y_true, validation.scores[0], policy)
            if chosen.threshold is None:
                continue
            called = test.scores[0] >= chosen.threshold
            counts = confusion_by_patient(test.y_true, called, test.patients, test.n_patients)
            true = truth.rates(chosen.threshold)
            for name in RATES:
                interval = _interval(name, counts)
                missed = not interval.ci_low <= true[name] <= interval.ci_high
                found[f"misses rate @ {name}, {policy}"] = missed if interval.bounded else np.nan
                found[f"no interval @ {name}, {policy}"] = float(not interval.bounded)
        return found

    return one


def _interval(name: str, counts: Any) -> Any:
    """Return the interval of a figure from counts by patient, shape ``(patients, 4)``."""
    metric = METRICS[name]
    assert metric.formula is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(metric.formula(Counts(*counts.sum(axis=0))))
    return figure_of_counts(metric, value, [counts]).interval


def _designs() -> list[Design]:
    row = partial(Design, claims=(), auroc=(0.85,), law="skewed", labels_alike=0.75)
    rows = []
    for n in (40, 80, 300):
        for images, name in (("one", "one image"), ("1-60", WIDE["1-60"])):
            for positive in (0.05, 0.3):
                title = f"single figures, {n} / {n} patients, {name}, {100 * positive:.0f} %"
                rows.append(row(title, patients=n, validation=n, images=images, positive=positive))
    for n, images, positive, noise, title in (
        (300, "1-60", 0.05, None, "300 patients, 1 to 60 images, 5 %"),
        (300, "1-60", 0.05, ALIKE, "300 patients, 1 to 60 images, 5 %, alike by 0.8"),
        (300, "rsna", 0.05, None, "300 patients, images as in RSNA, 5 %"),
        (100, "1-60", 0.15, None, "100 patients, 1 to 60 images, 15 %"),
    ):
        more = {} if noise is None else {"noise": noise}
        rows.append(
            row(f"single figures, label by patient, {title}", patients=n, validation=n,
                images=images, positive=positive, **{**more, "labels_alike": 1.0})
        )  # fmt: skip
    policies = {"policy": ["youden", "cost:5/1", "sensitivity>=0.90"]}
    for v, n, positive, images, law in (
        (60, 100, 0.25, "rsna", "skewed"),
        (100, 150, 0.15, "rsna", "skewed"),
        (150, 150, 0.30, "one", "skewed"),
        (60, 100, 0.25, "rsna", "no box"),
        (100, 150, 0.15, "rsna", "no box"),
        (150, 150, 0.30, "one", "no box"),
    ):
        name = f"policies, {v} / {n} patients, {100 * positive:.0f} %, {images}, {law}"
        rows.append(
            row(name, patients=n, validation=v, images=images, positive=positive, law=law,
                options=policies)
        )  # fmt: skip
    return rows


DESIGNS = {design.name: partial(measure, design) for design in _designs()}
QUESTIONS: dict[str, Question] = {}
