"""What validation chooses for a system beside its thresholds, and the options of that choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from evaluation.boxes.average_precision import WeightedAveragePrecision
from evaluation.boxes.froc import WeightedRsnaScore
from evaluation.boxes.map_boxes import MAP_BOX_LEVELS, MapBoxRule, map_scale
from evaluation.boxes.matching import match_boxes, pair_boxes
from evaluation.decisions.reduction import CANDIDATES, Reduction
from evaluation.decisions.search import BOX_CUTS
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.test_set import TestSet
from evaluation.metrics.image_metrics import auroc
from evaluation.statistics.auroc_variance import auroc_difference
from evaluation.statistics.calibration import (
    METHODS,
    Calibration,
    choose_calibration,
    fit_calibration,
)
from evaluation.statistics.cross_validation import choose
from evaluation.statistics.ranking import Integers, RankedScores

CHOOSE = "choose"
_SAME = 1e-9
_LEVEL_OF_RULE = 0.05 / (len(CANDIDATES) - 1)
_DEFAULT_LEVEL = 0.5


@dataclass(frozen=True)
class TuningOptions:
    """What a user may say of the choices on validation; without it, the default ones.

    Attributes:
        calibration: A method of `METHODS`, or ``choose`` among them by
            the log loss of held-out folds of patients.
        reductions: Rules to choose from, by the mean AUROC over folds of patients.
        refer: At most this share of validation images is referred to a reader.
    """

    calibration: str | None = None
    reductions: tuple[str, ...] = ()
    refer: float | None = None

    def __post_init__(self) -> None:
        if self.refer is not None and not 0 < self.refer < 1:
            raise InputError(f"--refer {self.refer:g}: expected a share between 0 and 1, as 0.1")

    def to_dict(self) -> dict[str, Any] | None:
        """For ``decisions/<target>.json``; `None` where all are the default."""
        if self == TuningOptions():
            return None
        return {
            "calibration": self.calibration,
            "reductions": list(self.reductions),
            "refer": self.refer,
        }

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> TuningOptions:
        """Read what `to_dict` wrote."""
        if not payload:
            return cls()
        return cls(payload["calibration"], tuple(payload["reductions"]), payload["refer"])


@dataclass(frozen=True)
class ReducedScores:
    """A reduction, the validation scores that it gives, and how it was chosen.

    Attributes:
        reduction: `None` for a system that gives image scores.
        scores: Of the validation images.
        tried: Every setting with its figure.
        record: How it was chosen, where the options name rules.
    """

    reduction: Reduction | None
    scores: pd.Series
    tried: list[dict[str, Any]]
    record: dict[str, Any] | None = None


def choose_reduction(
    output: SystemOutput, y_true: pd.Series, patients: npt.NDArray[np.str_]
) -> ReducedScores:
    """The highest box, unless another rule's AUROC on validation is higher by more than chance.

    More than chance: p below 0.05 for the paired difference, by patient, divided by the number of
    other rules; of several such rules the one with the highest AUROC. Simply the highest AUROC
    can be luck where validation is small: on 68 images a fold it cost 0.010 of AUROC on test
    (docs/results.md).
    """
    if not output.gives_boxes:
        return ReducedScores(None, output.scores(None), [])
    columns = [output.scores(candidate) for candidate in CANDIDATES]
    figures = [auroc(y_true, column) for column in columns]
    # One score for all has AUROC 0.5, more than a weak detector, and allows no threshold.
    usable = [place for place, column in enumerate(columns) if column.nunique() > 1] or [0]
    best, best_gap = usable[0], 0.0
    for place in usable[1:]:
        gap = auroc_difference(y_true, columns[place], columns[usable[0]], patients)
        if gap is None or gap.p_value is None or gap.p_value >= _LEVEL_OF_RULE:
            continue
        if gap.value > best_gap + _SAME:
            best, best_gap = place, gap.value
    tried = [
        {"rule": candidate.rule, "min_score": candidate.min_score, "auroc": figure}
        for candidate, figure in zip(CANDIDATES, figures, strict=True)
    ]
    return ReducedScores(CANDIDATES[best], columns[best], tried)


def choose_among(
    output: SystemOutput, y_true: pd.Series, rules: tuple[str, ...], folds: Integers
) -> ReducedScores:
    """The reduction with the highest mean AUROC over folds of patients; of equals the simpler."""
    settings = [candidate for candidate in CANDIDATES if candidate.rule in rules]
    columns = [output.scores(setting).to_numpy() for setting in settings]
    n_folds = int(folds.max()) + 1
    weights = np.vstack([np.eye(n_folds), np.ones(n_folds)]).astype(np.int64)
    figures = [RankedScores(y_true, column, folds).auroc(weights) for column in columns]
    chosen = choose(np.stack(figures))
    tried = [
        {
            "rule": setting.rule,
            "min_score": setting.min_score,
            "auroc": float(np.nanmean(each[:-1])),
        }
        for setting, each in zip(settings, figures, strict=True)
    ]
    record = {
        "objective": "auroc",
        "folds": n_folds,
        "settings_tried": len(settings),
        "mean_over_folds": chosen.folds,
        "held_out": chosen.held_out,
    }
    scores = pd.Series(columns[chosen.best], index=output.image_ids, name="score")
    return ReducedScores(settings[chosen.best], scores, tried, record)


def calibrate(
    method: str, y_true: pd.Series, scores: pd.Series, folds: Integers | None
) -> tuple[Calibration | None, dict[str, float] | None]:
    """Learn the calibration that a user names."""
    if method != CHOOSE or folds is None:
        usable = "none" if method == CHOOSE else method
        return fit_calibration(usable, y_true, scores), None  # type: ignore[arg-type]
    return choose_calibration(y_true, scores, folds, METHODS)


def choose_box_cut(
    output: SystemOutput, boxes: pd.DataFrame | None, test_set: TestSet
) -> float | None:
    """The cut with the highest RSNA score on validation; among equals the lowest."""
    if boxes is None:
        return None
    judged = output.image_ids.intersection(test_set.boxes_trusted).sort_values()
    pairs = pair_boxes(boxes, test_set.true_boxes, judged)
    if not pairs.truth.per_image.any():
        return None
    every = np.zeros(len(judged), dtype=np.int64)
    scores = WeightedRsnaScore(pairs, every, 1, BOX_CUTS)(np.ones((1, 1), dtype=np.int64))[0]
    return BOX_CUTS[int(np.nanargmax(scores))]


def choose_map_boxes(
    output: SystemOutput, scores: pd.Series, test_set: TestSet
) -> tuple[tuple[float, float] | None, MapBoxRule | None, list[dict[str, Any]]]:
    """The map scale, and the level at which its boxes reach the highest AP50."""
    if output.gives_boxes or output.maps is None:
        return None, None, []
    scale = map_scale(output.maps)
    judged = output.image_ids.intersection(test_set.boxes_trusted).sort_values()
    level, best_figure, tried = _DEFAULT_LEVEL, 0.0, []
    for candidate in MAP_BOX_LEVELS:
        boxes = MapBoxRule(candidate).apply(output.maps, scores, scale)
        matches = match_boxes(boxes, test_set.true_boxes, judged, [0.5])
        every = np.zeros(len(judged), dtype=np.int64)
        figure = WeightedAveragePrecision(matches, every, 1)(np.ones((1, 1), dtype=np.int64))[0, 0]
        tried.append({"map_box_level": candidate, "ap50": None if np.isnan(figure) else figure})
        if figure >= best_figure - _SAME and figure > 0:
            level, best_figure = candidate, float(figure)
    return scale, MapBoxRule(level), tried
