"""A search among settings of boxes on validation, and the choice among them by folds of patients.

Boxes are fused once per fusion and matched once per fusion and scale; all score cuts share the
matches, and all folds come from one weighted figure. The figures are those that the report gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.boxes import Boxes
from data_prep.contracts.errors import InputError
from evaluation.boxes.box_metrics import WeightedAveragePrecision, WeightedFroc, WeightedRsnaScore
from evaluation.boxes.fusion import BoxRule, Confidence, image_limits, label_boxes, scale_boxes
from evaluation.boxes.matching import (
    BoxPairs,
    TrueBoxes,
    match_pairs,
    pair_ranked,
    rank_boxes,
    true_boxes,
)
from evaluation.decisions.test_set import CANDIDATES, Reduction, SystemOutput, TestSet
from evaluation.decisions.thresholds import choose_threshold
from evaluation.metrics.image_metrics import confusion_counts, rates
from evaluation.statistics.bootstrap import patient_folds
from evaluation.statistics.ranking import Floats, Integers, RankedScores

_SpaceName = Literal["default", "boxes"]
_Objective = Literal["auroc", "f1", "ap50", "rsna", "froc"]
_OF_IMAGES = ("auroc", "f1")
_CONFIDENCES: tuple[Confidence, ...] = ("max", "avg")
FAINT_CUTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03)
"""Score cuts for detectors whose scores are low throughout."""
_SAME = 1e-9
_LEADERS = 10


@dataclass(frozen=True)
class Search:
    """What is searched, and for what."""

    space: _SpaceName = "default"  # `boxes`: fusion and scale only, images by their best box
    objective: _Objective = "auroc"  # the figure that decides

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("search", self.space, get_args(_SpaceName)),
            ("objective", self.objective, get_args(_Objective)),
        ):
            if value not in known:
                raise InputError(f"--{kind} {value}: choose one of {', '.join(known)}")

    @property
    def of_images(self) -> bool:
        """Whether the objective judges images, which the scale of boxes cannot change."""
        return self.objective in _OF_IMAGES

    @property
    def scales(self) -> tuple[float, ...]:
        """The box scales that the objective can tell apart."""
        return (1.0,) if self.of_images else _search_space(self.space).scales

    @property
    def n_steps(self) -> int:
        """How many steps it reports."""
        return len(_search_space(self.space).fusions) * len(self.scales)

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> Search | None:
        """The search that a decision's ``search`` records, to run it again."""
        return cls(payload["space"], payload["objective"]) if payload else None


@dataclass(frozen=True)
class _Space:
    """The settings, the simpler first."""

    fusions: tuple[BoxRule, ...]  # without their scale
    scales: tuple[float, ...]  # factors on width and height of boxes
    reductions: tuple[Reduction, ...]  # from boxes to an image score
    cuts: tuple[float, ...]  # scores from which boxes are called in the RSNA score, rising


def _search_space(name: _SpaceName) -> _Space:
    """The settings of a named space."""
    weighted = [
        BoxRule("wbf", iou=overlap, min_score=floor, confidence=confidence)
        for overlap in (0.5, 0.3)
        for floor in (0.0, 0.05)
        for confidence in _CONFIDENCES
    ]
    # Whole hundredths, so that a scale reads back as it was written.
    nearest = sorted(range(70, 111, 5), key=lambda percent: (abs(percent - 100), percent))
    return _Space(
        fusions=(BoxRule(), *(BoxRule("nms", iou=i) for i in (0.5, 0.4, 0.3, 0.2, 0.1)), *weighted),
        scales=tuple(percent / 100 for percent in nearest),
        reductions=CANDIDATES if name == "default" else (Reduction("max"),),
        cuts=tuple(sorted({*FAINT_CUTS, *(np.arange(1, 20) / 20).tolist()})),
    )


@dataclass(frozen=True)
class SearchImages:
    """The validation images of a search and a detector's stored boxes on them."""

    image_ids: pd.Index  # sorted, shape `(N,)`
    y_true: npt.NDArray[np.bool_]  # `(N,)`
    folds: npt.NDArray[np.int64]  # fold of each image; all images of a patient in one, shape `(N,)`
    trusted: npt.NDArray[np.bool_]  # whether localisation may be judged on an image, shape `(N,)`
    truth: pd.DataFrame  # true boxes, original px
    boxes: pd.DataFrame  # `image_id`, `finding`, corners, `score`
    sizes: pd.DataFrame  # `image_id`, `width`, `height` of the originals, px

    @classmethod
    def of(cls, output: SystemOutput, y_true: pd.Series, test_set: TestSet) -> SearchImages:
        """A detector's validation images, in folds of their patients, with its stored boxes."""
        ids, positive = output.image_ids, y_true.to_numpy() == 1
        return cls(
            image_ids=ids,
            y_true=positive,
            folds=patient_folds(test_set.patients(ids), positive),
            trusted=np.asarray(ids.isin(test_set.boxes_trusted)),
            truth=test_set.true_boxes,
            boxes=output.predictions.rows("boxes", output.target.any_of, ids),
            sizes=test_set.images,
        )

    @cached_property
    def n_folds(self) -> int:
        """How many folds there are."""
        return int(self.folds.max()) + 1

    @cached_property
    def weights(self) -> npt.NDArray[np.int64]:
        """One row a fold, which counts alone, and one in which all count."""
        return np.vstack([np.eye(self.n_folds), np.ones(self.n_folds)]).astype(np.int64)

    @cached_property
    def lesions(self) -> TrueBoxes:
        """The true boxes of the trusted images."""
        return true_boxes(self.truth, self.image_ids[self.trusted])

    @cached_property
    def labelled(self) -> tuple[Boxes, npt.NDArray[np.int64], Floats]:
        """The stored boxes, the image of each label, and the size of each image."""
        labels, images, findings = label_boxes(self.boxes)
        image = np.repeat(self.image_ids.get_indexer(images), len(findings))
        return Boxes.from_table(self.boxes, labels), image, image_limits(self.sizes, self.image_ids)

    def fuse(self, rule: BoxRule) -> tuple[Boxes, Integers]:
        """Boxes fused by a rule, not scaled, and the position of each one's image."""
        stored, image_of_label, _ = self.labelled
        fused = rule.fuse(stored)
        return fused, image_of_label[fused.labels]

    def pairs(self, fused: Boxes, image: Integers, rule: BoxRule) -> BoxPairs:
        """Boxes scaled and paired with the lesions of the trusted images."""
        corners = fused.corners
        if rule.changes_boxes:
            corners = scale_boxes(corners, rule.scale, self.labelled[2][image])
        judged = np.where(self.trusted, np.cumsum(self.trusted) - 1, -1)[image]
        n_judged = int(self.trusted.sum())
        return pair_ranked(rank_boxes(Boxes(corners, fused.scores, judged), n_judged), self.lesions)


class _Setting(NamedTuple):
    """One setting: what its objective cannot see is the simplest."""

    boxes: BoxRule
    reduction: Reduction = Reduction("max")
    cut: float | None = None


@dataclass(frozen=True)
class _SearchResult:
    """What a search chose."""

    rule: BoxRule  # fusion and box scale
    reduction: Reduction  # from boxes to an image score
    cut: float | None  # score from which boxes are called in the RSNA score; `None` without lesions
    folds: npt.NDArray[np.int64]  # fold of each image, shape `(images,)`
    record: dict[str, Any]  # for `decisions/<target>.json`: what was searched, and the figures
    best: list[dict[str, Any]]  # the best settings with their figures, best first


def run_search(
    images: SearchImages, search: Search, advance: Callable[[int], None] | None = None
) -> _SearchResult:
    """Try every setting of a space and choose by the mean over folds of patients.

    What the objective cannot see is chosen after it: the reduction by AUROC, the cut by the RSNA
    score; the scale stays 1.
    """
    space = _search_space(search.space)
    has_lesions = len(images.lesions.image) > 0
    if not has_lesions and not search.of_images:
        raise InputError(
            f"--objective {search.objective}: no validation image has a box to find; "
            "choose auroc or f1"
        )
    tried, chosen = _best(
        images, search.objective, space, space.fusions, search.scales, advance=advance
    )
    n_settings, (rule, reduction, cut) = len(tried), tried[chosen.best]
    if not search.of_images:
        later, of_later = _best(images, "auroc", space, (rule,), (rule.scale,))
        n_settings, reduction = n_settings + len(later), later[of_later.best].reduction
    if has_lesions and cut is None:
        later, of_later = _best(images, "rsna", space, (rule,), (rule.scale,))
        n_settings, cut = n_settings + len(later), later[of_later.best].cut
    record = {
        "space": search.space,
        "objective": search.objective,
        "folds": images.n_folds,
        "settings_tried": n_settings,
        **chosen.record(),
    }
    best = [
        {
            "box_fusion": tried[place].boxes.to_dict(),
            "rule": tried[place].reduction.rule,
            "min_score": tried[place].reduction.min_score,
            "box_cut": tried[place].cut,
            "folds": folds,
            "validation": every,
        }
        for place, folds, every in chosen.leaders
    ]
    return _SearchResult(rule, reduction, cut, images.folds, record, best)


def _best(
    images: SearchImages,
    objective: _Objective,
    space: _Space,
    fusions: Sequence[BoxRule],
    scales: Sequence[float],
    *,
    advance: Callable[[int], None] | None = None,
) -> tuple[list[_Setting], _Chosen]:
    """Every setting of these fusions and scales, and the choice among them."""
    settings: list[_Setting] = []
    figures: list[Floats] = []
    for fusion in fusions:
        fused, image = images.fuse(fusion)
        for scale in scales:
            rule = replace(fusion, scale=scale)
            if objective in _OF_IMAGES:
                found = _of_images(images, objective, rule, fused.scores, image, space)
            else:
                pairs = images.pairs(fused, image, rule)
                found = _of_places(images, objective, rule, pairs, space)
            for setting, of_setting in found:
                settings.append(setting)
                figures.append(of_setting)
            if advance is not None:
                advance(1)
    plain = [not setting.boxes.changes_boxes for setting in settings]
    return settings, choose(np.stack(figures), np.array(plain))


def _of_images(
    images: SearchImages,
    objective: _Objective,
    rule: BoxRule,
    scores: Floats,
    image: Integers,
    space: _Space,
) -> Iterator[tuple[_Setting, Floats]]:
    """Each reduction of boxes, and its figure on each fold and on all images."""
    order = np.lexsort((-scores, image))
    rows, ranked, n_images = image[order], scores[order], len(images.image_ids)
    for reduction in space.reductions:
        reduced = reduction.of_ranked(rows, ranked, n_images)
        if objective == "auroc":
            figures = RankedScores(images.y_true, reduced, images.folds).auroc(images.weights)
        else:
            figures = _held_out_f1(images, reduced)
        yield _Setting(rule, reduction), figures


def _held_out_f1(images: SearchImages, scores: Floats) -> Floats:
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


def _of_places(
    images: SearchImages, objective: _Objective, rule: BoxRule, pairs: BoxPairs, space: _Space
) -> Iterator[tuple[_Setting, Floats]]:
    """The figure of boxes' places on each fold and on all images, for the RSNA score a cut."""
    folds, n_folds = images.folds[images.trusted], images.n_folds
    if objective == "rsna":
        scores = WeightedRsnaScore(pairs, folds, n_folds, space.cuts)(images.weights)
        for cut, figures in zip(space.cuts, scores.T, strict=True):
            yield _Setting(rule, cut=cut), figures
    elif objective == "ap50":
        precision = WeightedAveragePrecision(match_pairs(pairs, [0.5]), folds, n_folds)
        yield _Setting(rule), precision(images.weights)[:, 0]
    else:
        yield _Setting(rule), WeightedFroc(pairs, folds, n_folds)(images.weights)


@dataclass(frozen=True)
class _Chosen:
    """The chosen setting and its figures."""

    best: int  # its position
    folds: float | None  # its mean over folds
    validation: float | None  # its figure on all validation images at once
    # the same two of the best setting that leaves boxes as they are; `None` without one
    plain: tuple[float | None, float | None] | None
    # mean over folds of what the other folds would have chosen: the figure to believe
    held_out: float | None
    # position, mean over folds and figure on all images of the best settings
    leaders: list[tuple[int, float | None, float | None]]

    def record(self) -> dict[str, Any]:
        """The figures for ``decisions/<target>.json``."""
        plain = None
        if self.plain is not None:
            plain = {"folds": self.plain[0], "validation": self.plain[1]}
        return {
            "chosen": {"folds": self.folds, "validation": self.validation},
            "boxes_as_stored": plain,
            "held_out": self.held_out,
        }


def choose(figures: Floats, plain: npt.NDArray[np.bool_] | None = None) -> _Chosen:
    """Choose the setting with the highest mean over folds; among equals the earlier.

    `figures` are of each setting, the simpler first, on each fold, then on all images; `plain` are
    the settings that leave boxes as they are.

    Source:
        The held-out figure is that of nested cross-validation, Varma and Simon 2006.
    """
    by_fold, every = figures[:, :-1], figures[:, -1]
    means = _means(by_fold)
    best = _first_best(means)
    of_plain = None
    if plain is not None and plain.any():
        position = int(np.flatnonzero(plain)[_first_best(means[plain])])
        of_plain = (_real(means[position]), _real(every[position]))
    n_folds = by_fold.shape[1]
    unseen = [
        by_fold[_first_best(_means(np.delete(by_fold, fold, axis=1))), fold]
        for fold in range(n_folds)
    ]
    # Rounded: the last bit must not decide the order in which equals are listed.
    order = np.argsort(-np.round(means, 9), kind="stable")[:_LEADERS]
    return _Chosen(
        best=best,
        folds=_real(means[best]),
        validation=_real(every[best]),
        plain=of_plain,
        held_out=_real(_means(np.array([unseen]))[0]),
        leaders=[(int(place), _real(means[place]), _real(every[place])) for place in order],
    )


def _means(figures: Floats) -> Floats:
    """Mean over the folds where a figure is defined; -inf where it is nowhere."""
    known = ~np.isnan(figures)
    total = np.where(known, figures, 0.0).sum(axis=1)
    counted = known.sum(axis=1)
    return np.where(counted > 0, total / np.maximum(counted, 1), -np.inf)


def _first_best(means: Floats) -> int:
    return int(np.flatnonzero(means >= means.max() - _SAME)[0])


def _real(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
