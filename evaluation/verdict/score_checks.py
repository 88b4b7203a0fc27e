"""Checks of scores that are not what they are called, such as labels or decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Models
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.output import made_here
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.thresholds import ValidationScores

_FEWEST = 10
"""Number of test images from which equal or two-valued scores are not left to chance."""
_LEAST_DISTANCE = 0.6
"""Kolmogorov-Smirnov distance of validation and test scores, in each class, of another scale."""
_FEWEST_OF_CLASS = 5
"""Number of images of a class, on validation and test, from which their scores are compared."""
_P_TURNED = 0.005
"""One-sided p-value of the rank test of validation scores, below which they may be turned round."""
_HIGHEST_TURNED = 0.4
"""AUROC on validation images from which scores are not called turned round."""


def score_notes(models: Models) -> list[Note]:
    """Make a note for each system whose scores cannot be what they are called.

    The rules are chosen so that an honest system almost never has such a note. Scores that carry
    nothing (AUROC 0.5) are called turned round in at most 0.7 % of simulated validation sets of 10
    to 300 images, and scores with the same distribution in each class were called another scale in
    none of 36,000 simulations of 40 to 300 images with shifts of prevalence.
    """
    named = {
        model.name: model
        for members in models.values()
        for model in members
        if model.output.has_scores
    }
    texts: list[str] = []
    for model in named.values():
        texts += _texts_on_values(model, named.values())
        texts += _texts_on_validation(model)
    for first, second in combinations(named.values(), 2):
        is_export = first.facts.exported or second.facts.exported  # which may well agree
        if _are_enough(first) and not is_export and np.array_equal(first.scores, second.scores):
            texts.append(
                f"{first.name} and {second.name} have the same score on every test image: are they "
                "one file?"
            )
    return [Note("scores", text) for text in texts]


def _are_enough(model: EvaluatedModel) -> bool:
    return len(model.scores) >= _FEWEST


def _texts_on_values(model: EvaluatedModel, of_all: Collection[EvaluatedModel]) -> Iterator[str]:
    """Say what the values of a model's test scores are, beside those of all models."""
    if not _are_enough(model):
        return
    name, scores = model.name, model.scores
    low, high = float(scores.min()), float(scores.max())
    n_values = len(np.unique(scores))
    box_scores = _box_scores(model)
    if np.array_equal(scores, model.images.y_true):
        yield (
            f"The scores of {name} equal the labels of the test images: is the column of labels "
            "read as the scores?"
        )
    elif n_values == 2 and (low, high) == (0.0, 1.0):
        unfair = ""
        if any(len(np.unique(other.scores)) > 2 for other in of_all):
            unfair = ", and differences to other systems are not fair to it"
        yield (
            f"All scores of {name} are 0 or 1: they are decisions, not probabilities. Its AUROC is "
            "the mean of one sensitivity and one specificity: lower than that of its probabilities "
            "if these rank the images of equal decision better than at random. Its average "
            f"precision, too, is another one{unfair}."
        )
    if len(box_scores) >= _FEWEST and len(np.unique(box_scores)) == 1:
        yield (
            f"All boxes of {name} have the score {number(box_scores[0])}: that is no "
            "ranking, so its average precision of boxes and FROC rest on ties, and its image "
            "scores say only if, or how many, boxes an image has. Leave the score out: then it is "
            "compared as an operating point, by its decisions."
        )
    if n_values == 1:
        yield (
            f"All scores of {name} are {number(low)}: they tell no image from another, so its "
            "figures say nothing of the images."
        )
    if low < 0 or high > 1:
        yield (
            f"The scores of {name} lie between {number(low)} and {number(high)}: they are no "
            "probabilities, and only their ranks count. It has no calibration."
        )
    may_be_confidence = model.output.kind == "scores" and not made_here(model.facts.record)
    if may_be_confidence and n_values > 2 and low >= 0.5 and high <= 1:
        yield (
            f"No score of {name} is below 0.5: if they are the confidence of the predicted "
            "class, all its figures are wrong. Give the probability of the finding, 1 - "
            "confidence where the class is another."
        )


def _texts_on_validation(model: EvaluatedModel) -> Iterator[str]:
    """Say that a model's validation scores are turned round, or of another scale than on test."""
    validation = model.choices.chosen_scores
    if validation is None:
        return
    area = _auroc_if_turned(validation)
    if area is not None:
        yield (
            f"On validation images the scores of {model.name} are higher for negative than for "
            f"positive images (AUROC {number(area)}): are they turned round there? Its thresholds "
            "and calibration are then wrong."
        )
    elif _is_another_scale(validation, model.scores, model.images.y_true):
        on_test, middle = float(np.median(model.scores)), float(np.median(validation.scores))
        yield (
            f"The scores of {model.name} have another scale on test than on validation images "
            f"(median {number(on_test)} and {number(middle)}), in both classes: thresholds and "
            "calibration from validation do not fit."
        )


def _box_scores(model: EvaluatedModel) -> Floats:
    """Return the scores of a detector's boxes; empty for a system of another kind."""
    if not model.output.gives_boxes:
        return np.zeros(0)
    return model.output.predicted_boxes["score"].to_numpy(np.float64)


def _is_another_scale(
    validation: ValidationScores, scores: Floats, labels: npt.NDArray[np.bool_]
) -> bool:
    """Return True if the scores of each class on test images are far from those on validation."""
    for is_positive in (False, True):
        of_validation = validation.scores[validation.y_true == is_positive]
        of_test = scores[labels == is_positive]
        if min(len(of_validation), len(of_test)) < _FEWEST_OF_CLASS:
            return False
        if _largest_distance(of_validation, of_test) < _LEAST_DISTANCE:
            return False
    return True


def _largest_distance(first: Floats, second: Floats) -> float:
    """Return the Kolmogorov-Smirnov statistic of two samples."""
    values = np.concatenate([first, second])
    shares = [
        np.searchsorted(np.sort(sample), values, side="right") / len(sample)
        for sample in (first, second)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def _auroc_if_turned(validation: ValidationScores) -> float | None:
    """Return the AUROC on validation images if it is far below 0.5, else None.

    The images of a patient in a class count once, with their mean score, as they resemble.
    """
    rows = pd.DataFrame({"score": validation.scores, "positive": validation.y_true})
    means = rows.groupby([validation.patients, "positive"])["score"].mean().reset_index()
    positive = means.loc[means["positive"], "score"].to_numpy()
    negative = means.loc[~means["positive"], "score"].to_numpy()
    area = auroc(means["positive"], means["score"])
    if area is None or area >= _HIGHEST_TURNED:
        return None
    from scipy.stats import mannwhitneyu  # takes half a second, and is rarely needed

    test = mannwhitneyu(positive, negative, alternative="less")
    return area if test.pvalue < _P_TURNED else None
