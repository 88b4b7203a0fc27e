"""Two systems and their joint system: members that add nothing, and members that do.

The same for figures of boxes: a detector, a classifier, and the detector's boxes with joint scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from cxr_compare.evaluation.metrics.image_metrics import auroc, confusion_counts
from cxr_compare.evaluation.sources.joint import gate_boxes
from cxr_compare.evaluation.statistics.calibration import clipped_logit
from cxr_compare.evaluation.statistics.joint_score import (
    JointScore,
    cross_fitted_scores,
    fit_joint_score,
)
from cxr_compare.evaluation.thresholds import choose_threshold
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem
from tools.simulation.box_designs import BoxedImages, compared, draw_images, tuned_detector
from tools.simulation.makers import Floats, Sample, draw, skill_of
from tools.simulation.product import evaluate

Measure = Callable[[np.random.Generator], dict[str, float]]
Second = Literal["noise", "copy", "own"]
"""Evidence of the second system: none, that of the first with more noise, or its own."""
_POLICY = "max_f1"
_REPLICATES = 400
_NEW_IMAGES = 4000
_JOINT = JointSystem("C", ("A", "B"))
_AT_THRESHOLD = ("f1", "accuracy")
_OF_BOXES = ("ap50", "froc_mean", "rsna_score")


def joint_measure(
    n_validation: int,
    n_test: int,
    aurocs: tuple[float, float],
    second: Second,
    clusters: str = "one",
) -> Measure:
    """Return a simulation of two systems and of the system that joins them.

    Args:
        n_validation: Number of validation patients.
        n_test: Number of test patients.
        aurocs: True AUROC of each system; that of a copy follows from its noise.
        second: Evidence of the second system.
        clusters: Number of images of a patient, see `cluster_sizes`.

    Returns:
        A function of a random generator that returns, by figure, 1 if the joint system is said to
        be better than each member, and facts about the weights and the validation scores.
    """

    def sample(rng: np.random.Generator, size: int, kind: str = clusters) -> Sample:
        drawn = draw(rng, size, [[skill_of(each)] for each in aurocs], clusters=kind)
        of_second = drawn.scores[1]
        if second == "noise":
            of_second = expit(rng.standard_normal(len(drawn.y_true)))
        elif second == "copy":
            of_second = expit(logit(drawn.scores[0]) + rng.standard_normal(len(drawn.y_true)))
        return Sample(drawn.y_true, np.stack([drawn.scores[0], of_second]), drawn.patients)

    def measure(rng: np.random.Generator) -> dict[str, float]:
        validation, test = sample(rng, n_validation), sample(rng, n_test)
        new = sample(rng, _NEW_IMAGES, "one")
        fit = fit_joint_score(validation.y_true, validation.scores.T)
        held_out = cross_fitted_scores(
            validation.y_true, validation.scores.T, validation.patients.astype(str)
        )
        compared = evaluate(
            _with(validation, held_out),
            _with(test, fit.probability(test.scores.T)),
            [1, 1, 1],
            replicates=_REPLICATES,
            seed=int(rng.integers(2**31)),
            policies=(_POLICY,),
            joint=_JOINT,
        )
        primary, *_ = (each for each in compared.verdict.conclusions if each.kind == "joint")
        found = {"auroc": float(primary.decided)}
        for metric in _AT_THRESHOLD:
            gaps = [
                compared.figures.difference("C", member, metric, _POLICY)
                for member in _JOINT.members
            ]
            found[metric] = float(all(each.excludes_zero and each.estimate > 0 for each in gaps))
        joint = fit.probability(new.scores.T)
        if second != "own":
            found["weight within 2 errors"] = float(_second_weight(fit, validation) <= 2)
            found["auroc lost"] = _auroc(new, new.scores[0]) - _auroc(new, joint)
        own = fit.probability(validation.scores.T)
        for name, scores in (("cross-fitted", held_out), ("fitted", own)):
            found[f"optimism, {name}"] = _optimism(validation, scores, new, joint)
        return found

    return measure


def _with(sample: Sample, joint: Floats) -> Sample:
    return Sample(sample.y_true, np.vstack([sample.scores, joint]), sample.patients)


def _auroc(sample: Sample, scores: Floats) -> float:
    return float(auroc(sample.y_true, scores) or np.nan)


def _second_weight(fit: JointScore, validation: Sample) -> float:
    """Return the absolute weight of the second system in standard errors of a logistic model."""
    probability = fit.probability(validation.scores.T)
    columns = [np.ones(len(probability)), *map(clipped_logit, validation.scores)]
    design = np.column_stack(columns)
    information = design.T @ (design * (probability * (1 - probability))[:, None])
    return abs(fit.weights[1]) / float(np.sqrt(np.linalg.pinv(information)[2, 2]))


def _optimism(validation: Sample, scores: Floats, new: Sample, joint: Floats) -> float:
    """Return F1 of validation at the threshold chosen there, minus that of new images."""
    threshold = choose_threshold(validation.y_true, scores, _POLICY).threshold
    if threshold is None:
        return float("nan")
    return _f1(validation.y_true, scores, threshold) - _f1(new.y_true, joint, threshold)


def _f1(y_true: np.ndarray, scores: Floats, threshold: float) -> float:
    counts = confusion_counts(y_true, scores, threshold)
    return 2 * counts["tp"] / (2 * counts["tp"] + counts["fp"] + counts["fn"])


_NULLS = (((60, 300), "one"), ((200, 600), "one"), ((200, 600), "rsna"))


def joined() -> Iterator[tuple[str, Measure]]:
    """Yield the cases of members that add nothing, and of members that do."""
    seconds: dict[Second, str] = {"noise": "second is noise", "copy": "second is a worse copy"}
    for second, title in seconds.items():
        for sizes, clusters in _NULLS:
            case = f"{sizes[0]} / {sizes[1]} patients, {clusters}"
            yield f"{title}, {case}", joint_measure(*sizes, (0.85, 0.85), second, clusters)
    for sizes in ((200, 600), (1000, 3000)):
        for aurocs in ((0.85, 0.85), (0.90, 0.85), (0.93, 0.87)):
            case = f"AUROC {aurocs[0]:.2f} and {aurocs[1]:.2f}, {sizes[0]} / {sizes[1]} patients"
            yield case, joint_measure(*sizes, aurocs, "own")


def joint_boxes_measure(
    n_validation: int, n_test: int, second: Second, clusters: str = "one"
) -> Measure:
    """Return a simulation of a detector whose boxes are rescaled to a joint image score.

    Args:
        n_validation: Number of validation patients.
        n_test: Number of test patients.
        second: Evidence of the classifier.
        clusters: Number of images of a patient, see `cluster_sizes`.

    Returns:
        A function of a random generator that returns, by figure of boxes, 1 if the joint system is
        said to be better than the detector, and the difference.
    """

    def classified(rng: np.random.Generator, images: BoxedImages) -> Floats:
        scores = images.scores(0).to_numpy(np.float64)
        noise = rng.standard_normal(len(scores))
        if second == "noise":
            return expit(noise)
        if second == "copy":
            return expit(clipped_logit(scores) + 2 * noise)
        return expit(skill_of(0.85) * images.evaluated.y_true + noise)

    def measure(rng: np.random.Generator) -> dict[str, float]:
        validation, test = (draw_images(rng, size, clusters) for size in (n_validation, n_test))
        columns = [
            np.column_stack([images.scores(0), classified(rng, images)])
            for images in (validation, test)
        ]
        y_true = validation.evaluated.y_true
        held_out = cross_fitted_scores(y_true, columns[0], validation.owners)
        joint = fit_joint_score(y_true, columns[0]).probability(columns[1])
        gated = tuned_detector(_rescaled(validation, held_out), _rescaled(test, joint), 0)
        models = [gated, tuned_detector(validation, test, 0)]
        found = compared(models, _REPLICATES, int(rng.integers(2**31)))
        each = {}
        for metric in _OF_BOXES:
            gap = found.difference("A", "B", metric)
            each[metric] = float(gap.excludes_zero and gap.estimate > 0)
            each[f"{metric} gained"] = gap.estimate
        return each

    return measure


def _rescaled(images: BoxedImages, joint: Floats) -> BoxedImages:
    """Return images with the boxes of the first detector, rescaled to the joint scores."""
    scores = pd.Series(joint, index=images.evaluated.image_ids)
    return BoxedImages(images.evaluated, [gate_boxes(images.boxes[0], scores, "rescaled")])


def joined_boxes() -> Iterator[tuple[str, Measure]]:
    """Yield the cases of a classifier that adds nothing to a detector, and of one that does."""
    seconds: dict[Second, str] = {
        "noise": "classifier is noise",
        "copy": "classifier is a worse copy",
        "own": "classifier with AUROC 0.85",
    }
    for second, title in seconds.items():
        for sizes, clusters in _NULLS:
            case = f"{sizes[0]} / {sizes[1]} patients, {clusters}"
            yield f"{title}, {case}", joint_boxes_measure(*sizes, second, clusters)
