"""Equal detectors that box one lesion several times: claims about the boxes that validation left.

Validation images choose the largest overlap of two boxes and the score cut of those that stay. Each
resample chooses both again. The true figures are those of many images, averaged over the choices of
many validation sets.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.box_choice import (
    BoxCandidate,
    BoxChoice,
    BoxRule,
)
from cxr_compare.evaluation.boxes.box_figures import box_figure
from cxr_compare.evaluation.boxes.overlaps import (
    OverlappingBoxes,
    OverlapRule,
    StoredPairs,
    overlap_candidates,
)
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.replicates import replicates as draw_replicates
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.hospital.guarantee.guaranteed_threshold import GuaranteeImages, Localisation
from cxr_compare.hospital.guarantee.guarantees import MAX_FALSE_POSITIVES, read_guarantee
from cxr_compare.hospital.guarantee.localisation import locate_predictions
from tools.simulation.box_designs import WEAK, BoxedImages, draw_images

OVERLAP_METRICS = ("froc_mean", "rsna_score", "ap50_decided", "ap_decided", "wafroc")
_RANKED = ("froc_mean", "ap50_decided", "ap_decided", "wafroc")
_DOUBLES = 1.2
"""Further boxes around each box, on average."""
_LESS_SURE = 0.35
_WIDER = 0.22
"""How much lower the score of a further box is, as a share, and the spread of its corners as a
share of its side."""
_VALIDATIONS = 400
_POPULATION = 6_000
_POPULATIONS = 3


def draw_doubled(rng: np.random.Generator, n_patients: int, clusters: str) -> BoxedImages:
    """Draw images on which each detector boxes most places several times."""
    images = draw_images(rng, n_patients, clusters, WEAK)
    return BoxedImages(images.evaluated, [_with_doubles(rng, boxes) for boxes in images.boxes])


def _with_doubles(rng: np.random.Generator, boxes: pd.DataFrame) -> pd.DataFrame:
    """Add boxes of lower scores around each box, without overlaps above 0.6, as networks give."""
    rows = np.repeat(np.arange(len(boxes)), rng.poisson(_DOUBLES, len(boxes)))
    doubles = boxes.iloc[rows].reset_index(drop=True)
    corners = doubles[EDGES].to_numpy(np.float64)
    side = np.tile(corners[:, 2:] - corners[:, :2], 2)
    moved = corners + _WIDER * side * rng.standard_normal(corners.shape)
    proper = ((moved[:, 2:] - moved[:, :2]) > 0.2 * side[:, :2]).all(axis=1)
    doubles[EDGES] = np.where(proper[:, None], moved, corners)
    doubles["score"] *= 1 - _LESS_SURE * rng.random(len(doubles))
    both = pd.concat([boxes, doubles], ignore_index=True)
    return OverlapRule(0.6).apply(both)


def overlap_choice(images: BoxedImages, system: int) -> BoxChoice:
    """Return the choice of the overlap and of the score cut on validation images."""
    evaluated = images.evaluated
    stored = OverlappingBoxes.from_boxes(images.boxes[system])
    pairs = StoredPairs.on_images(stored, evaluated.truth, evaluated.image_ids)
    candidates = [BoxCandidate(*each) for each in overlap_candidates(pairs)]
    return BoxChoice(candidates, images.owners)


def _tuned(validation: BoxedImages, test: BoxedImages, system: int) -> EvaluatedModel:
    """Choose the boxes of a detector on validation images, and take them on test images."""
    choice = overlap_choice(validation, system)
    rule: Any = choice.rule
    choices = Choices("finding", {}, overlap=rule.limit, box_cut=choice.cut, box_choice=choice)
    return EvaluatedModel("AB"[system], test.evaluated, test.output(system), choices)


def true_overlap_figures(
    rng: np.random.Generator, n_validation: int, clusters: str
) -> dict[str, float]:
    """Compute the figures of many images, as means over what validation sets choose."""
    chosen: Counter[tuple[float | None, float]] = Counter()
    for _ in range(_VALIDATIONS):
        choice = overlap_choice(draw_doubled(rng, n_validation, clusters), 0)
        rule: Any = choice.rule
        if choice.cut is not None:
            chosen[rule.limit, choice.cut] += 1
    populations = [_population_figures(rng, chosen) for _ in range(_POPULATIONS)]
    return {name: float(np.mean([each[name] for each in populations])) for name in populations[0]}


def _population_figures(
    rng: np.random.Generator, chosen: Counter[tuple[float | None, float]]
) -> dict[str, float]:
    many = draw_doubled(rng, _POPULATION, "one")
    evaluated = many.evaluated
    stored = OverlappingBoxes.from_boxes(many.boxes[0])
    pairs = StoredPairs.on_images(stored, evaluated.truth, evaluated.image_ids)
    every = np.zeros(len(evaluated.image_ids), dtype=np.int64)
    once = np.ones((1, 1), dtype=np.int64)
    sums = dict.fromkeys(OVERLAP_METRICS, 0.0)
    for limit in {limit for limit, _ in chosen}:
        left = pairs.left(limit)
        cuts = {cut: count for (of, cut), count in chosen.items() if of == limit}
        n_sets = sum(cuts.values())
        for metric in _RANKED:
            sums[metric] += n_sets * float(box_figure(metric, left, every, 1)(once)[0])
        rows = np.ones((len(cuts), 1))
        at = np.array(list(cuts), dtype=np.float64)
        weight = np.array(list(cuts.values()), dtype=np.float64)
        sums["rsna_score"] += float(weight @ WeightedRsnaScore(left, every, 1).at(rows, at))
    total = chosen.total()
    return {metric: value / total for metric, value in sums.items()}


def overlap_measure(
    rng: np.random.Generator,
    sizes: tuple[int, int],
    clusters: str,
    truth: dict[str, float],
    replicates: int,
) -> dict[str, float]:
    """Return the claims about two equal detectors, and which figures of the first are covered."""
    validation, test = (draw_doubled(rng, size, clusters) for size in sizes)
    models = {name: [_tuned(validation, test, system)] for system, name in enumerate("AB")}
    resamples = Resamples(test.evaluated.n_patients, replicates, int(rng.integers(2**31)))
    frames = draw_replicates(models, resamples, kept=lambda key: key.metric in OVERLAP_METRICS)
    figures = compute_figures("finding", models, frames, resamples)
    each: dict[str, float] = {}
    for metric in OVERLAP_METRICS:
        own = figures.get("A", metric)
        gap = figures.difference("A", "B", metric)
        each[metric] = float(gap.excludes_zero)
        each[f"{metric} covers"] = (
            float(own.ci_low <= truth[metric] <= own.ci_high) if own.bounded else np.nan
        )
        each[f"{metric} value"] = own.estimate
        each[f"{metric} truth"] = truth[metric]
    return each


@dataclass(frozen=True)
class ShownFalseBoxes:
    """Mean number of false boxes shown on an image of a large population, by threshold.

    Attributes:
        thresholds: Rising thresholds, shape ``(T,)``.
        means: Means by the largest overlap that stays, shape ``(T,)`` each. At most
            `MAX_FALSE_POSITIVES` boxes of an image count.
    """

    thresholds: Floats
    means: dict[float | None, Floats]

    @classmethod
    def draw(cls, clusters: str) -> ShownFalseBoxes:
        """Draw the population and count its boxes under every rule of overlap."""
        many = draw_doubled(np.random.default_rng(0), 20_000, clusters)
        thresholds = np.linspace(0.05, 0.95, 181)
        means: dict[float | None, Floats] = {}
        for candidate in overlap_choice(many, 0).candidates:
            rule: Any = candidate.rule
            false = _located(many, rule).false_boxes
            assert false is not None
            counts = [
                np.bincount(false.image[false.shown_up_to >= threshold]).clip(
                    max=MAX_FALSE_POSITIVES
                )
                for threshold in thresholds
            ]
            n_images = len(many.evaluated.image_ids)
            means[rule.limit] = np.array([each.sum() / n_images for each in counts])
        return cls(thresholds, means)


def _located(images: BoxedImages, rule: BoxRule) -> Localisation:
    output: Any = SimpleNamespace(
        image_ids=images.evaluated.image_ids,
        points=lambda: None,
        gives_boxes=True,
        predicted_boxes=images.boxes[0],
        overlapping=OverlappingBoxes.from_boxes(images.boxes[0]),
    )
    truth: Any = SimpleNamespace(
        boxes_trusted=images.evaluated.image_ids, true_boxes=images.evaluated.truth
    )
    return locate_predictions(output, images.scores(0).to_numpy(), truth, rule)


@cache
def _population(clusters: str) -> ShownFalseBoxes:
    return ShownFalseBoxes.draw(clusters)


def guaranteed_false_boxes(
    rng: np.random.Generator, n_patients: int, clusters: str
) -> dict[str, float]:
    """Guarantee the mean number of false boxes, where the same images choose the overlap.

    Args:
        rng: Source of the validation images.
        n_patients: Number of validation patients.
        clusters: How many images the patients have; see `tools.simulation.makers.draw`.

    Returns:
        Whether the guarantee is violated, whether there is a threshold, and the true mean.
    """
    images = draw_doubled(rng, n_patients, clusters)
    rule: Any = overlap_choice(images, 0).rule
    guarantee = read_guarantee("false_positives_per_image<=0.5@0.90")
    known = GuaranteeImages(
        images.evaluated.y_true, images.scores(0).to_numpy(), images.owners, _located(images, rule)
    )
    threshold, _ = known.choose(guarantee)
    if threshold is None:
        return {"marks|broken": 0.0, "marks|given": 0.0, "marks|mean": np.nan}
    population = _population(clusters)
    true = float(np.interp(threshold, population.thresholds, population.means[rule.limit]))
    return {"marks|broken": float(true > 0.5), "marks|given": 1.0, "marks|mean": true}
