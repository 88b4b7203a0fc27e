"""Rates at the thresholds of every policy, of unequal patients with skewed scores.

Severity is shared by the images of a patient and has heavy tails (Student's t, 5 degrees of
freedom). The noise of an image is skewed (Gumbel), some lesions are subtle, and most positive
images come from few patients, as in real series. A system may find no box on some images, which
then share the lowest score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtri

from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.replicates import replicates
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.thresholds import ValidationScores, choose_threshold
from tools.simulation.makers import IMAGES_OF_A_PATIENT, Floats, Sample
from tools.simulation.product import evaluated_models

Found = dict[str, float]
Measure = Callable[[np.random.Generator], Found]

POLICIES = {
    "max_f1": "best F1",
    "youden": "Youden",
    "cost:5/1": "cost 5 to 1",
    "sensitivity>=0.90": "sensitivity >= 0.90",
    "specificity>=0.90": "specificity >= 0.90",
}
"""Policies and their names in the table."""
RATES = {
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "npv": "NPV",
}
"""Metrics and their names in the table."""
_REPLICATES = 400
_MOST_IMAGES = 15
_LABELS_ALIKE = 0.75
_SEVERITY = 0.5  # share of the variance of scores within a class
_SUBTLE = 0.4  # share of the lesions
_SHIFTS = (0.7, 2.3)  # of subtle and of obvious lesions
_WITHOUT_BOX = (0.45, 0.10, 0.02)  # of negative images, and of subtle and obvious lesions
_POPULATION = 100_000  # patients
_TRUTH_SETS = 1500


@dataclass(frozen=True)
class Population:
    """Source of the images of a design.

    Attributes:
        prevalence: Share of positive images.
        several_images: True if patients have 1 to 15 images, as RSNA's patients have.
        boxes: True if a system may find no box on an image, which then scores 0.
    """

    prevalence: float
    several_images: bool
    boxes: bool = False

    def draw(self, rng: np.random.Generator, n_patients: int) -> Sample:
        """Draw the images of patients, with at least two patients of each class.

        Args:
            rng: Random generator.
            n_patients: Number of patients.

        Returns:
            Images with labels and scores.
        """
        while True:
            owner = np.repeat(np.arange(n_patients), self._image_counts(rng, n_patients))
            latent = np.sqrt(_LABELS_ALIKE) * rng.standard_normal(n_patients)[owner]
            latent += np.sqrt(1 - _LABELS_ALIKE) * rng.standard_normal(len(owner))
            y_true = latent < ndtri(self.prevalence)
            if min(len(np.unique(owner[images])) for images in (y_true, ~y_true)) >= 2:
                break
        severity = rng.standard_t(5, n_patients)[owner] / np.sqrt(5 / 3)
        subtle = rng.random(len(owner)) < _SUBTLE
        shift = np.where(subtle, *_SHIFTS) * y_true
        noise = (rng.gumbel(size=len(owner)) - np.euler_gamma) * np.sqrt(6) / np.pi
        evidence = np.sqrt(_SEVERITY) * severity + np.sqrt(1 - _SEVERITY) * noise + shift
        scores = expit(evidence)
        if self.boxes:
            of_negative, of_subtle, of_obvious = _WITHOUT_BOX
            of_positive = np.where(subtle, of_subtle, of_obvious)
            scores[rng.random(len(owner)) < np.where(y_true, of_positive, of_negative)] = 0.0
        return Sample(y_true, scores[None], owner)

    def _image_counts(self, rng: np.random.Generator, n_patients: int) -> npt.NDArray[np.int64]:
        if not self.several_images:
            return np.ones(n_patients, dtype=np.int64)
        kept = {count: n for count, n in IMAGES_OF_A_PATIENT.items() if count <= _MOST_IMAGES}
        shares = np.array(list(kept.values())) / sum(kept.values())
        return rng.choice(np.array(list(kept)), size=n_patients, p=shares)


class _TrueRates:
    """Rates of a system on a large population, at any threshold."""

    def __init__(self, sample: Sample) -> None:
        self._positive = np.sort(sample.scores[0, sample.y_true])
        self._negative = np.sort(sample.scores[0, ~sample.y_true])

    def at(self, thresholds: Sequence[float]) -> dict[str, Floats]:
        """Return the rates at thresholds, shape ``(T,)`` each."""
        fn = np.searchsorted(self._positive, thresholds)
        tn = np.searchsorted(self._negative, thresholds)
        found = rates(tp=len(self._positive) - fn, fp=len(self._negative) - tn, tn=tn, fn=fn)
        return {name: found[name] for name in RATES}


def _mean_rates(
    rng: np.random.Generator, population: Population, n_validation: int
) -> dict[tuple[str, str], float]:
    """Compute mean rates over the validation sets that give a policy a threshold and interval."""
    true = _TrueRates(population.draw(rng, _POPULATION))
    thresholds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for _ in range(_TRUTH_SETS):
        drawn = population.draw(rng, n_validation)
        validation = ValidationScores(drawn.y_true, drawn.scores[0], drawn.patients.astype(str))
        for policy, chosen in thresholds.items():
            threshold = choose_threshold(drawn.y_true, drawn.scores[0], policy).threshold
            if threshold is not None and not validation.too_few_for(policy):
                chosen.append(threshold)
    return {
        (policy, metric): float(np.nanmean(values))
        for policy, chosen in thresholds.items()
        for metric, values in true.at(chosen).items()
    }


def _is_counted(key: MetricKey) -> bool:
    return key.policy in POLICIES and key.metric in RATES


def policy_measure(
    population: Population, n_validation: int, n_test: int
) -> Callable[[np.random.Generator], Measure]:
    """Count how often the intervals of the rates hold their mean over validation sets.

    Args:
        population: Where validation and test images come from.
        n_validation: Number of validation patients.
        n_test: Number of test patients.

    Returns:
        A function of a generator that makes the measure; the generator is for the true means.
    """

    def make(rng: np.random.Generator) -> Measure:
        truth = _mean_rates(rng, population, n_validation)

        def measure(rng: np.random.Generator) -> Found:
            validation = population.draw(rng, n_validation)
            test = population.draw(rng, n_test)
            models = evaluated_models(validation, test, [1], list(POLICIES))
            resamples = Resamples(n_test, _REPLICATES, int(rng.integers(2**31)))
            frames = replicates(models, resamples, kept=_is_counted)
            figures = compute_figures("finding", models, frames, resamples)
            found: Found = {}
            for (policy, metric), true in truth.items():
                figure = figures.get("A", metric, policy)
                name = f"{policy}|{metric}"
                found[f"{name}|interval"] = float(figure.bounded)
                if figure.bounded:
                    found[f"{name}|covers"] = float(figure.ci_low <= true <= figure.ci_high)
                    found[f"{name}|width"] = figure.ci_high - figure.ci_low
            return found

        return measure

    return make


def policies() -> Iterator[tuple[str, Callable[[np.random.Generator], Measure]]]:
    """Yield the designs by name, with boxes last."""
    for boxes in (False, True):
        for n_validation, n_test, prevalence, several_images in (
            (60, 100, 0.25, True),
            (100, 150, 0.15, True),
            (150, 150, 0.30, False),
        ):
            name = f"{n_validation} / {n_test} patients, {100 * prevalence:.0f} % positive"
            name += ", 1 to 15 images each" if several_images else ", one image each"
            name += ", some without a box" if boxes else ""
            population = Population(prevalence, several_images, boxes)
            yield name, policy_measure(population, n_validation, n_test)
