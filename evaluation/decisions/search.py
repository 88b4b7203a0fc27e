"""Search over fusions, box scales, reductions and score cuts on stored boxes, in numpy.

Boxes are fused once per fusion and matched once per fusion and scale; all score cuts share the
matches, and all folds come from one weighted figure. The figures are those that the report gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.contracts.tables import InputError
from evaluation.boxes.average_precision import WeightedAveragePrecision, match_pairs
from evaluation.boxes.box_rule import BoxRule, FusedBoxes
from evaluation.boxes.froc import WeightedFroc, WeightedRsnaScore
from evaluation.boxes.iou import BoxPairs
from evaluation.decisions.reduction import Reduction, reduce_ranked
from evaluation.decisions.search_space import Objective, Search, Space, search_space
from evaluation.decisions.sweep_images import SweepImages
from evaluation.decisions.thresholds import choose_threshold
from evaluation.metrics.image_metrics import confusion_counts, rates
from evaluation.statistics.cross_validation import Chosen, choose
from evaluation.statistics.ranking import Floats, Integers, RankedScores

_NO_REDUCTION, _NO_CUT = Reduction("max"), None


@dataclass
class Tried:
    """Settings with their figures.

    Attributes:
        settings: What was set, the simpler first.
        figures: A figure per fold, then on all images; shape ``(folds + 1,)`` each.
    """

    settings: list[tuple[BoxRule, Reduction, float | None]] = field(default_factory=list)
    figures: list[Floats] = field(default_factory=list)

    def add(self, rule: BoxRule, reduction: Reduction, cut: float | None, figures: Floats) -> None:
        """Record one setting."""
        self.settings.append((rule, reduction, cut))
        self.figures.append(figures)


@dataclass(frozen=True)
class SweepResult:
    """What a search chose.

    Attributes:
        rule: Fusion and box scale.
        reduction: From boxes to an image score.
        cut: Score from which boxes are called in the RSNA score; `None` without lesions.
        folds: Fold of each image, shape ``(images,)``.
        record: For ``decisions/<target>.json``: what was searched, and the figures.
        best: The best settings with their figures, best first.
    """

    rule: BoxRule
    reduction: Reduction
    cut: float | None
    folds: npt.NDArray[np.int64]
    record: dict[str, Any]
    best: list[dict[str, Any]]


def sweep(
    images: SweepImages, search: Search, advance: Callable[[int], None] | None = None
) -> SweepResult:
    """Try every setting of a space and choose by the mean over folds of patients.

    What the objective cannot see is chosen after it: the reduction by AUROC, the cut by the RSNA
    score; the scale stays 1.

    Args:
        images: Validation images only.
        search: The space and the objective.
        advance: Called with the number of steps done; see `sweep_steps`.

    Returns:
        The choice.

    Raises:
        InputError: The objective needs lesions and validation has none.
    """
    space = search_space(search.space)
    has_lesions = len(images.lesions.image) > 0
    if not has_lesions and not search.of_images:
        raise InputError(
            f"--objective {search.objective}: no validation image has a box to find; "
            "choose auroc or f1"
        )
    tried = Tried()
    for fusion in space.fusions:
        fused, image = images.fuse(fusion)
        if search.of_images:
            _try_images(tried, images, fusion, fused, image, space, search.objective)
        else:
            for scale in space.scales:
                pairs = images.pairs(fused, image, fusion.scaled(scale))
                _try_boxes(tried, images, fusion.scaled(scale), pairs, space, search.objective)
                if advance is not None:
                    advance(1)
        if search.of_images and advance is not None:
            advance(1)
    plain = [not rule.changes_boxes for rule, _, _ in tried.settings]
    chosen = choose(np.stack(tried.figures), np.array(plain))
    rule, reduction, cut = tried.settings[chosen.best]
    n_settings = len(tried.settings)
    fused, image = images.fuse(rule)
    if not search.of_images:
        later = Tried()
        _try_images(later, images, rule, fused, image, space, "auroc")
        reduction = later.settings[choose(np.stack(later.figures)).best][1]
        n_settings += len(later.settings)
    if has_lesions and cut is None:
        later = Tried()
        _try_boxes(later, images, rule, images.pairs(fused, image, rule), space, "rsna")
        cut = later.settings[choose(np.stack(later.figures)).best][2]
        n_settings += len(later.settings)
    record = {
        "space": search.space,
        "objective": search.objective,
        "folds": images.n_folds,
        "settings_tried": n_settings,
        **chosen.record(),
    }
    return SweepResult(rule, reduction, cut, images.folds, record, _told(tried, chosen))


def sweep_steps(search: Search) -> int:
    """How many steps a search reports."""
    space = search_space(search.space)
    return len(space.fusions) * (1 if search.of_images else len(space.scales))


def _try_images(
    tried: Tried,
    images: SweepImages,
    rule: BoxRule,
    fused: FusedBoxes,
    image: Integers,
    space: Space,
    objective: str,
) -> None:
    """Reduce the boxes in every way."""
    order = np.lexsort((-fused.scores, image))
    rows, scores = image[order], fused.scores[order]
    for reduction in space.reductions:
        reduced = reduce_ranked(
            rows,
            scores,
            len(images.image_ids),
            rule=reduction.rule,
            min_score=reduction.min_score,
        )
        if objective == "auroc":
            figures = RankedScores(images.y_true, reduced, images.folds).auroc(images.weights)
        else:
            figures = _held_out_f1(images, reduced)
        tried.add(rule, reduction, _NO_CUT, figures)


def _held_out_f1(images: SweepImages, scores: Floats) -> Floats:
    """F1 of each fold at the threshold of the others, then of all images at their own."""
    figures = np.full(images.n_folds + 1, np.nan)
    for fold in range(images.n_folds + 1):
        judged = images.folds == fold if fold < images.n_folds else np.ones(len(scores), bool)
        chosen_on = ~judged if fold < images.n_folds else judged
        choice = choose_threshold(images.y_true[chosen_on], scores[chosen_on], "max_f1")
        if choice.threshold is not None:
            counts = confusion_counts(images.y_true[judged], scores[judged], choice.threshold)
            figures[fold] = rates(**counts)["f1"]
    return figures


def _try_boxes(
    tried: Tried,
    images: SweepImages,
    rule: BoxRule,
    pairs: BoxPairs,
    space: Space,
    objective: Objective,
) -> None:
    """Judge the boxes' places, for the RSNA score at every cut."""
    for cut, figures in place_figures(images, pairs, objective, space.cuts):
        tried.add(rule, _NO_REDUCTION, cut, figures)


def place_figures(
    images: SweepImages, pairs: BoxPairs, objective: Objective, cuts: Sequence[float]
) -> list[tuple[float | None, Floats]]:
    """Judge the places of boxes, fold by fold and on all images.

    Args:
        images: The validation images.
        pairs: Boxes and lesions of the trusted ones.
        objective: ``ap50``, ``rsna`` or ``froc``.
        cuts: Scores from which boxes may be called, rising.

    Returns:
        A cut, `None` but for the RSNA score, and its figures, shape ``(folds + 1,)``.
    """
    folds, n_folds = images.folds[images.trusted], images.n_folds
    if objective == "rsna":
        scores = WeightedRsnaScore(pairs, folds, n_folds, cuts)(images.weights)
        return list(zip(cuts, scores.T, strict=True))
    if objective == "ap50":
        precision = WeightedAveragePrecision(match_pairs(pairs, [0.5]), folds, n_folds)
        return [(_NO_CUT, precision(images.weights)[:, 0])]
    return [(_NO_CUT, WeightedFroc(pairs, folds, n_folds)(images.weights))]


def _told(tried: Tried, chosen: Chosen) -> list[dict[str, Any]]:
    """The best settings in words for a program."""
    told = []
    for position, folds, every in chosen.leaders:
        rule, reduction, cut = tried.settings[position]
        told.append(
            {
                "box_fusion": rule.to_json(),
                "rule": reduction.rule,
                "min_score": reduction.min_score,
                "box_cut": cut,
                "folds": folds,
                "validation": every,
            }
        )
    return told
