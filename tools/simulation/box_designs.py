"""Equal detectors with a known truth: what the program claims about their boxes.

Two detectors see the same lesions and the same locations that look like a lesion. What each
detector finds, where it draws the box, and how confident it is, follows the same distribution for
both, and correlates between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtri

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.box_choice import BoxCandidate, BoxChoice
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.froc import WeightedFroc
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, find_lesions
from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.pointing import points_in_boxes, top_box_centres
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.reduction import Reduction, reduce_boxes
from cxr_compare.evaluation.reduction_choice import choose_reduction
from cxr_compare.evaluation.replicates import replicates as draw_replicates
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.thresholds import ValidationScores, choose_threshold
from cxr_compare.evaluation.verdict.verdict import state_verdict
from tools.simulation.makers import Floats, draw

_SIDE = 1024.0  # px
_POLICY = "max_f1"
_POPULATION = 12_000
_POPULATIONS = 6
_VALIDATIONS = 1500
"""Size and number of the large samples that give true figures, and number of validation sets.

On each validation set, cuts and thresholds are chosen.
"""
BOX_METRICS = (
    "ap50",
    "ap",
    "froc_mean",
    "froc_centre_mean",
    "pointing_accuracy",
    "localised_sensitivity",
    "rsna_score",
)
_TOLD = (*BOX_METRICS, "auroc", "average_precision", "recall", "specificity")


@dataclass(frozen=True)
class Detector:
    """Distribution of the marks of both detectors; evidence is in log-odds.

    Attributes:
        lesion: Mean evidence of a lesion.
        distractor: Mean evidence of a location that looks like a lesion.
        distractors: Mean number of such locations in an image.
        image: Standard deviation of the evidence between images, shared by all marks of an image.
        place: Standard deviation of the evidence between locations.
        most_lesions: Largest number of lesions of a positive image.
    """

    lesion: float = 0.8
    distractor: float = -2.3
    distractors: float = 0.9
    image: float = 0.45
    place: float = 1.15
    most_lesions: int = 2


DETECTOR = Detector()
"""Detector with AUROC 0.94 and AP50 0.4."""
WEAK = Detector(0.2, -1.9, 1.6, image=0.6, place=0.8)
"""Detector whose AUROC is 0.87 to 0.89, depending on the reduction of boxes to a score.

A choice on few validation images often takes the worse reduction.
"""
_JITTER = 0.15
_STRETCH = 0.19
"""Standard deviations of a box's centre, as a share of its side, and of the log of its sides."""
_SEEN = 0.85  # share of lesions that a detector sees at all
_STRAY = 0.7  # marks of one detector alone, on average, with an evidence about _STRAY_EVIDENCE
_STRAY_EVIDENCE = -3.0
_FAINTEST = -2.3  # evidence without which there is no mark


@dataclass(frozen=True)
class BoxedImages:
    """Images, lesions, and the boxes of each detector.

    Attributes:
        evaluated: Images with their ground truth.
        boxes: Predicted boxes of each detector.
    """

    evaluated: LabelledImages
    boxes: list[pd.DataFrame]

    @property
    def owners(self) -> Any:
        """Name of each image's patient."""
        return np.char.add("p", self.evaluated.patients.astype(str))

    def output(self, system: int) -> Output:
        """Return the boxes of a detector, 0 or 1, as the program reads them."""
        return Output.from_boxes(self.evaluated.image_ids, self.boxes[system])

    def scores(self, system: int, reduction: Reduction | None = None) -> pd.Series:
        """Return the image scores of a detector.

        Args:
            system: Index of the detector, 0 or 1.
            reduction: Rule from boxes to an image score; None takes the most confident box.

        Returns:
            One score for each image, shape ``(N,)``.
        """
        return reduce_boxes(self.boxes[system], self.evaluated.image_ids, reduction)


def _shared(rng: np.random.Generator, count: int, width: int = 1) -> Floats:
    """Draw noise of two detectors that correlates by 0.5, shape ``(2, count, width)``."""
    common = rng.standard_normal((count, width))
    own = rng.standard_normal((2, count, width))
    return np.sqrt(0.5) * (common + own)


def _table(ids: pd.Index, image: Any, corners: Floats, **more: Any) -> pd.DataFrame:
    return pd.DataFrame(corners, columns=EDGES).assign(image_id=ids[image], **more)


def draw_images(
    rng: np.random.Generator, n_patients: int, clusters: str, law: Detector = DETECTOR
) -> BoxedImages:
    """Draw images of patients with the boxes of two detectors.

    Args:
        rng: Random generator.
        n_patients: Number of patients.
        clusters: Number of images of a patient, see `cluster_sizes`.
        law: Distribution of the marks of both detectors.

    Returns:
        Images with lesions and boxes.
    """
    sample = draw(rng, n_patients, [[0.0]] * 2, clusters=clusters)
    of_image = logit(sample.scores)
    n_images = len(sample.y_true)
    ids = pd.Index(np.char.add("i", np.arange(n_images).astype(str)))
    counts = np.where(sample.y_true, rng.integers(1, law.most_lesions + 1, n_images), 0)
    lesion = np.repeat(np.arange(n_images), counts)
    like = np.repeat(np.arange(n_images), rng.poisson(law.distractors, n_images))
    place = np.concatenate([lesion, like])
    true = np.arange(len(place)) < len(lesion)
    side = np.exp(np.log(190) + 0.35 * rng.standard_normal((len(place), 2)))
    side = side.clip(60, 420)
    centre = rng.uniform(0.5 * side, _SIDE - 0.5 * side)
    evidence = np.where(true, law.lesion, law.distractor) + law.image * of_image[:, place]
    evidence += law.place * _shared(rng, len(place))[..., 0]
    seen = _shared(rng, len(place))[..., 0] < ndtri(_SEEN)
    evidence = np.where(true & ~seen, -np.inf, evidence)
    middle = centre + _JITTER * side * _shared(rng, len(place), 2)
    size = side * np.exp(_STRETCH * _shared(rng, len(place), 2))
    truth = _table(ids, lesion, np.hstack([centre - side / 2, centre + side / 2])[true])
    boxes = []
    for system in range(2):
        stray = np.repeat(np.arange(n_images), rng.poisson(_STRAY, n_images))
        at = rng.uniform(0, 0.8 * _SIDE, (len(stray), 2))
        spread = rng.uniform(60, 300)
        alone = _STRAY_EVIDENCE + law.place * rng.standard_normal(len(stray))
        image = np.concatenate([place, stray])
        given = np.concatenate([evidence[system], alone])
        half = size[system] / 2
        corners = np.vstack(
            [
                np.hstack([middle[system] - half, middle[system] + half]),
                np.hstack([at, at + spread]),
            ]
        )
        marked = given > _FAINTEST
        boxes.append(_table(ids, image[marked], corners[marked], score=expit(given[marked])))
    evaluated = LabelledImages(
        ids, sample.y_true, sample.patients, sample.n_patients, np.ones(n_images, bool), truth
    )
    return BoxedImages(evaluated, boxes)


def box_choice(images: BoxedImages, system: int) -> BoxChoice:
    """Return the choice of the score cut of a detector's boxes on these images.

    Args:
        images: Validation images.
        system: Index of the detector, 0 or 1.

    Returns:
        The choice, with all stored boxes as the only rule.
    """
    evaluated = images.evaluated
    pairs = pair_boxes(images.boxes[system], evaluated.truth, evaluated.image_ids)
    return BoxChoice([BoxCandidate(OverlapRule(), pairs)], images.owners)


def tuned_detector(
    validation: BoxedImages, test: BoxedImages, system: int, rules: Sequence[str] = ("max",)
) -> EvaluatedModel:
    """Tune a detector on validation images, and take its boxes on test images.

    Args:
        validation: Validation images.
        test: Test images.
        system: Index of the detector, 0 or 1.
        rules: Rules from boxes to an image score to choose from.

    Returns:
        The detector on the test images.
    """
    truth = validation.evaluated.y_true
    owners = validation.owners
    reduction = choose_reduction(
        validation.output(system), pd.Series(truth), owners, rules
    ).reduction
    chosen_on = ValidationScores(truth, validation.scores(system, reduction).to_numpy(), owners)
    choice = box_choice(validation, system)
    choices = Choices(
        "finding",
        {},
        reduction=reduction,
        thresholds={_POLICY: choose_threshold(truth, chosen_on.scores, _POLICY)},
        chosen_scores=chosen_on,
        box_cut=choice.cut,
        box_choice=choice,
    )
    return EvaluatedModel("AB"[system], test.evaluated, test.output(system), choices)


def _kept(key: MetricKey) -> bool:
    return key.metric in _TOLD


def compared(detectors: Sequence[EvaluatedModel], replicates: int, seed: int) -> Figures:
    """Compute the figures of both detectors and their differences, as ``cxr compare`` does.

    Args:
        detectors: Both detectors on the same images.
        replicates: Number of bootstrap resamples.
        seed: Random seed of the resamples.

    Returns:
        Figures with intervals, and differences.
    """
    resamples = Resamples(detectors[0].images.n_patients, replicates, seed)
    models = {name: [model] for name, model in zip("AB", detectors, strict=True)}
    frames = draw_replicates(models, resamples, kept=_kept)
    return compute_figures("finding", models, frames, resamples)


def population(rng: np.random.Generator, n_validation: int, clusters: str) -> dict[str, float]:
    """Compute the true figures of a detector on large samples.

    Figures at a chosen cut or threshold are means over the choices of many validation sets.

    Args:
        rng: Random generator.
        n_validation: Number of patients of a validation set.
        clusters: Number of images of a patient, see `cluster_sizes`.

    Returns:
        True figures by name of the metric.
    """
    sets = [draw_images(rng, n_validation, clusters) for _ in range(_VALIDATIONS)]
    thresholds = [
        choose_threshold(drawn.evaluated.y_true, drawn.scores(0), _POLICY).threshold
        for drawn in sets
    ]
    cuts = [box_choice(drawn, 0).cut for drawn in sets]
    many = [
        _true_figures(draw_images(rng, _POPULATION, "one"), thresholds, cuts)
        for _ in range(_POPULATIONS)
    ]
    return {name: float(np.mean([each[name] for each in many])) for name in many[0]}


def _true_figures(
    many: BoxedImages, thresholds: Sequence[float | None], cuts: Sequence[float | None]
) -> dict[str, float]:
    evaluated = many.evaluated
    boxes = many.boxes[0]
    pairs = pair_boxes(boxes, evaluated.truth, evaluated.image_ids)
    once = np.ones((1, 1), dtype=np.int64)
    every = np.zeros(_POPULATION, dtype=np.int64)
    precision = WeightedAveragePrecision(match_pairs(pairs), every, 1)(once)[0]
    froc = {
        how: float(WeightedFroc(find_lesions(pairs, rule), every, 1).figures(once)[0, 0])
        for how, rule in HIT_RULES.items()
    }
    hit = points_in_boxes(top_box_centres(boxes, evaluated.image_ids), evaluated.truth)[
        evaluated.y_true
    ]
    scores = many.scores(0).to_numpy()[evaluated.y_true]
    found = [(hit & (scores >= chosen)).mean() for chosen in thresholds if chosen is not None]
    taken = np.array([cut for cut in cuts if cut is not None])
    rows = np.ones((len(taken), 1), dtype=np.int64)
    rsna = WeightedRsnaScore(pairs, every, 1).at(rows, taken).mean(axis=0)
    return {
        "ap50": float(precision[0]),
        "ap": float(precision.mean()),
        "froc_mean": froc["iou"],
        "froc_centre_mean": froc["centre"],
        "pointing_accuracy": float(hit.mean()),
        "localised_sensitivity": float(np.mean(found)),
        "rsna_score": float(rsna),
    }


def figure(found: Figures, metric: str) -> tuple[Figure, Figure]:
    """Return a figure of the first detector, and its difference from the second.

    Args:
        found: Figures of both detectors.
        metric: Short name of the metric.

    Returns:
        The figure and the difference.
    """
    policy = _POLICY if metric in ("localised_sensitivity", "recall", "specificity") else ""
    return found.get("A", metric, policy), found.difference("A", "B", metric, policy)


def box_measure(
    rng: np.random.Generator,
    sizes: tuple[int, int],
    clusters: str,
    truth: dict[str, float],
    replicates: int,
) -> dict[str, float]:
    """Simulate one comparison of two equal detectors.

    Args:
        rng: Random generator.
        sizes: Numbers of validation patients and of test patients.
        clusters: Number of images of a patient, see `cluster_sizes`.
        truth: True figures, see `population`.
        replicates: Number of bootstrap resamples.

    Returns:
        By metric, 1 if a difference is claimed (which is wrong), and 1 if the interval of the first
        detector contains the true figure; else 0.
    """
    validation, test = (draw_images(rng, size, clusters) for size in sizes)
    detectors = [tuned_detector(validation, test, system) for system in range(2)]
    found = compared(detectors, replicates, int(rng.integers(2**31)))
    each = {}
    for metric in BOX_METRICS:
        own, gap = figure(found, metric)
        each[metric] = float(gap.excludes_zero)
        each[f"{metric} covers"] = (
            float(own.ci_low <= truth[metric] <= own.ci_high) if own.bounded else np.nan
        )
        each[f"{metric} value"] = own.estimate
    return each


def reduction_measure(
    rng: np.random.Generator, sizes: tuple[int, int], rules: Sequence[str], replicates: int
) -> dict[str, float]:
    """Simulate one comparison of two equal detectors that may get different reductions.

    Args:
        rng: Random generator.
        sizes: Numbers of validation patients and of test patients.
        rules: Rules from boxes to an image score to choose from.
        replicates: Number of bootstrap resamples.

    Returns:
        1 for each kind of claim that is made (which is wrong), else 0.
    """
    validation, test = (draw_images(rng, size, "one", WEAK) for size in sizes)
    detectors = [tuned_detector(validation, test, system, rules) for system in range(2)]
    found = compared(detectors, replicates, int(rng.integers(2**31)))
    verdict = state_verdict(found, ["A", "B"], "Finding")
    decided = any(each.decided for each in verdict.conclusions)
    headline = verdict.kind == "decided"
    each = {"headline": float(headline), "any": float(headline or decided)}
    each |= {m: float(figure(found, m)[1].excludes_zero) for m in ("average_precision", "ap50")}
    each["auroc value"] = found.get("A", "auroc").estimate
    return each
