"""Checks of scores that are not what they are called, such as labels or decisions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Models
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

    Args:
        models: Evaluated models of each system by its display name, one for each training seed.

    Returns:
        The notes, in the order of the systems.
    """
    of_all = {model.name: model for members in models.values() for model in members}
    named = {name: model for name, model in of_all.items() if model.output.has_scores}
    if not named:
        return []
    labels = next(iter(named.values())).images.y_true
    scores = {name: model.scores for name, model in named.items()}
    notes = []
    if len(labels) >= _FEWEST:
        notes += _notes_of_values(named, scores, labels)
    for name, model in named.items():
        validation = model.choices.chosen_scores
        if validation is None:
            continue
        auroc = _auroc_if_turned(validation)
        if auroc is not None:
            text = (
                f"On validation images the scores of {name} are higher for negative than for "
                f"positive images (AUROC {number(auroc)}): are they turned round there? Its "
                "thresholds and calibration are then wrong."
            )
            notes.append(Note("scores", text, {"system": name, "auroc": auroc}))
        elif _is_another_scale(validation, scores[name], labels):
            middle, on_test = float(np.median(validation.scores)), float(np.median(scores[name]))
            text = (
                f"The scores of {name} have another scale on test than on validation images "
                f"(median {number(on_test)} and {number(middle)}), in both classes: thresholds and "
                "calibration from validation do not fit."
            )
            values = {"system": name, "validation": middle, "test": on_test}
            notes.append(Note("scores", text, values))
    return notes


def _notes_of_values(
    named: Mapping[str, EvaluatedModel], scores: Mapping[str, Floats], labels: npt.NDArray[np.bool_]
) -> list[Note]:
    """Make the notes on the values of the test scores."""
    are_labels = [name for name in named if np.array_equal(scores[name], labels)]
    notes = [
        _note(
            name,
            f"The scores of {name} equal the labels of the test images: is the column of labels "
            "read as the scores?",
        )
        for name in are_labels
    ]
    has_values = {name: len(np.unique(scores[name])) for name in named}
    are_decisions = [
        name
        for name in named
        if name not in are_labels and has_values[name] == 2 and np.isin(scores[name], (0, 1)).all()
    ]
    unfair = ""
    if any(count > 2 for count in has_values.values()):
        unfair = ", and differences to other systems are not fair to it"
    notes += [
        _note(
            name,
            f"All scores of {name} are 0 or 1: they are decisions, not probabilities. Its AUROC is "
            "the mean of one sensitivity and one specificity. It and the average precision are "
            f"then lower than those of its probabilities{unfair}.",
        )
        for name in are_decisions
    ]
    notes += [
        _note(
            name,
            f"All boxes of {name} have the score {number(_box_scores(model)[0])}: that is no "
            "ranking, so its AUROC, average precision and FROC rest on ties alone. Leave the score "
            "out: then it is compared as an operating point, by its decisions.",
        )
        for name, model in named.items()
        if len(_box_scores(model)) >= _FEWEST and len(np.unique(_box_scores(model))) == 1
    ]
    notes += [
        _note(
            name,
            f"All scores of {name} are {number(float(scores[name][0]))}: they tell no image from "
            "another, so its figures say nothing of the images.",
        )
        for name in named
        if has_values[name] == 1
    ]
    for name, values in scores.items():
        if values.min() < 0 or values.max() > 1:
            low, high = float(values.min()), float(values.max())
            text = (
                f"The scores of {name} lie between {number(low)} and {number(high)}: they are no "
                "probabilities, and only their ranks count. It has no calibration."
            )
            notes.append(Note("scores", text, {"system": name, "low": low, "high": high}))
    for name, model in named.items():
        values = scores[name]
        is_image_score = model.output.kind == "scores" and has_values[name] > 2
        is_foreign = not made_here(model.facts.record)
        if is_foreign and is_image_score and values.min() >= 0.5 and values.max() <= 1:
            text = (
                f"No score of {name} is below 0.5: if they are the confidence of the predicted "
                "class, all its figures are wrong. Give the probability of the finding, 1 - "
                "confidence where the class is another."
            )
            notes.append(_note(name, text))
    for first, second in combinations(named, 2):
        if named[second].facts.exported or named[first].facts.exported:
            continue  # a run and its export may well agree
        if np.array_equal(scores[first], scores[second]):
            text = (
                f"{first} and {second} have the same score on every test image: are they one file?"
            )
            notes.append(Note("scores", text, {"systems": [first, second]}))
    return notes


def _box_scores(model: EvaluatedModel) -> Floats:
    """Return the scores of a detector's boxes; empty for a system of another kind."""
    if not model.output.gives_boxes:
        return np.zeros(0)
    return model.output.predicted_boxes["score"].to_numpy(np.float64)


def _note(system: str, text: str) -> Note:
    return Note("scores", text, {"system": system})


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
    if not len(positive) or not len(negative):
        return None
    ranks = pd.Series(np.concatenate([positive, negative])).rank().to_numpy()
    n_pairs = len(positive) * len(negative)
    area = (ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2) / n_pairs
    if area >= _HIGHEST_TURNED:
        return None
    from scipy.stats import mannwhitneyu  # takes half a second, and is rarely needed

    test = mannwhitneyu(positive, negative, alternative="less")
    return float(area) if test.pvalue < _P_TURNED else None
