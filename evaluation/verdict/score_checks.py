"""Checks of scores that are not what they are called, such as labels or decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.arrays import Flags, Floats
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.ranking import RankedScores

_caution = partial(Note, caution="scores")
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


def score_notes(systems: Mapping[str, SystemFigures]) -> list[Note]:
    """Make a note for each system whose scores cannot be what they are called.

    The rules are chosen so that an honest system almost never has such a note: docs/validity.md has
    how often scores are falsely called turned round, or of another scale.
    """
    notes: list[Note] = []
    systems = {name: system for name, system in systems.items() if system.output.ranks}
    for name, system in systems.items():
        notes += _notes_on_values(name, system, systems.values())
        notes += _notes_on_validation(name, system)
    for (one, first), (other, second) in combinations(systems.items(), 2):
        # An exported model may well agree with its run.
        exported = any(system.output.record.get("backend") == "onnx" for system in (first, second))
        if _are_enough(first) and not exported and np.array_equal(first.scores, second.scores):
            text = f"{one} and {other} have the same score on every test image: are they one file?"
            notes.append(_caution(text))
    return notes


def _are_enough(system: SystemFigures) -> bool:
    return len(system.scores) >= _FEWEST


def _notes_on_values(
    name: str, system: SystemFigures, of_all: Collection[SystemFigures]
) -> Iterator[Note]:
    """Note what the values of a system's test scores are, beside those of all systems."""
    if not _are_enough(system):
        return
    scores = system.scores
    low, high = float(scores.min()), float(scores.max())
    n_values = len(np.unique(scores))
    box_scores = _box_scores(system)
    if n_values == 2 and np.array_equal(scores == high, system.truth.positive):
        yield _caution(
            f"The scores of {name} are {high:g} on every positive and {low:g} on every "
            "negative test image: are they the labels, or made from them?"
        )
    elif n_values == 2 and (low, high) == (0.0, 1.0):
        unfair = ""
        if any(len(np.unique(other.scores)) > 2 for other in of_all):
            unfair = ", and differences to other systems are not fair to it"
        yield _caution(
            f"All scores of {name} are 0 or 1: they are decisions, not probabilities. Its AUROC is "
            "the mean of one sensitivity and one specificity, and its average precision, too, is "
            f"another one{unfair}.",
            page="docs/evaluation.md#decisions",
        )
    if len(box_scores) >= _FEWEST and len(np.unique(box_scores)) == 1:
        has_box = ", and its image scores say only if an image has a box"
        images = has_box if system.output.is_best_box else ""
        yield _caution(
            f"All boxes of {name} have the score {number(box_scores[0])}: that is no "
            f"ranking, so its average precision of boxes and FROC rest on ties{images}."
        )
    if n_values == 1:
        yield _caution(
            f"All scores of {name} are {number(low)}: they tell no image from another, so its "
            "figures say nothing of the images."
        )
    if low < 0 or high > 1:
        yield _caution(
            f"The scores of {name} lie between {number(low)} and {number(high)}: they are no "
            "probabilities, and only their ranks count. It has no calibration."
        )
    made_here = any(system.output.record.get(key) for key in ("recipe", "backend", "members"))
    may_be_confidence = system.output.boxes is None and not made_here
    if may_be_confidence and n_values > 2 and low >= 0.5 and high <= 1:
        yield _caution(
            f"No score of {name} is below 0.5: if they are the confidence of the predicted "
            "class, all its figures are wrong. Give the probability of the finding, 1 - "
            "confidence where the class is another."
        )


def _notes_on_validation(name: str, system: SystemFigures) -> Iterator[Note]:
    """Note that a system's validation scores are turned round, or of another scale than on test."""
    truth, output = system.choices.truth, system.choices.output
    if truth is None or output is None:
        return
    validation = pd.DataFrame(
        {
            "score": output.scores.to_numpy(np.float64),
            "positive": truth.positive,
            "patient": truth.owners,
        }
    )
    area = _auroc_if_turned(validation)
    if area is not None:
        yield _caution(
            f"On validation images the scores of {name} are higher for negative than for "
            f"positive images (AUROC {number(area)}): are they turned round there? Its thresholds "
            "and calibration are then wrong."
        )
    elif _is_another_scale(validation, system.scores, system.truth.positive):
        on_test, middle = float(np.median(system.scores)), validation["score"].median()
        yield _caution(
            f"The scores of {name} have another scale on test than on validation images "
            f"(median {number(on_test)} and {number(middle)}), in both classes: thresholds and "
            "calibration from validation do not fit."
        )


def _box_scores(system: SystemFigures) -> Floats:
    """Return the scores of a detector's boxes; empty for a system of another kind."""
    boxes = system.output.boxes
    return np.zeros(0) if boxes is None else boxes["score"].to_numpy(np.float64)


def _is_another_scale(validation: pd.DataFrame, scores: Floats, labels: Flags) -> bool:
    """Return True if the scores of each class on test images are far from those on validation."""
    from scipy.stats import ks_2samp  # takes half a second

    for is_positive in (False, True):
        of_validation = validation.loc[validation["positive"] == is_positive, "score"]
        of_test = scores[labels == is_positive]
        if min(len(of_validation), len(of_test)) < _FEWEST_OF_CLASS:
            return False
        if ks_2samp(of_validation, of_test, method="asymp").statistic < _LEAST_DISTANCE:
            return False
    return True


def _auroc_if_turned(validation: pd.DataFrame) -> float | None:
    """Return the AUROC on validation images if it is far below 0.5, else None.

    The images of a patient in a class count once, with their mean score, as they resemble.
    """
    means = validation.groupby(["patient", "positive"])["score"].mean().reset_index()
    positive = means.loc[means["positive"], "score"].to_numpy()
    negative = means.loc[~means["positive"], "score"].to_numpy()
    if not len(positive) or not len(negative):
        return None
    area = float(RankedScores(means["positive"].to_numpy(), means["score"].to_numpy()).auroc()[0])
    if area >= _HIGHEST_TURNED:
        return None
    from scipy.stats import mannwhitneyu  # takes half a second, and is rarely needed

    test = mannwhitneyu(positive, negative, alternative="less")
    return area if test.pvalue < _P_TURNED else None
