"""Choices for one system on validation images: thresholds, calibration and the rule of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.box_figures import BoxFigures
from cxr_compare.evaluation.boxes.map_boxes import (
    MapBoxRule,
    MapLevels,
    map_box_candidates,
    map_levels,
    map_scale,
)
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.policies import (
    is_given,
    threshold_of,
    thresholds,
    too_few_errors,
)
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers
from cxr_compare.evaluation.truth import Truth

_CLIP = 1e-4
_SAME = 1e-9  # values that are equal but for rounding
_ANY_BOX = 0.5
"""Threshold of boxes without scores, which have 1: an image with a box is called."""


def log_odds(scores: Floats) -> Floats:
    """Return the log-odds of scores, limited to [0.0001, 0.9999]."""
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


@dataclass(frozen=True)
class Platt:
    """Calibrated probability of a score: a line of its log-odds, and a level for a score of 0.

    A detector gives the score 0 to an image without a box. Its log-odds are unknown, so these
    images take no part in the line. The probability never falls where the score rises: the line
    does not fall, and no score above 0 has a probability below `at_zero`.

    Source:
        Platt 1999; Ayer et al. 1955, for pooling adjacent violators.
    """

    slope: float
    intercept: float
    at_zero: float | None = None

    @classmethod
    def fit(cls, positive: Flags, scores: Floats) -> Platt | None:
        """Fit the scaling with Platt's smoothed labels; None if a class is absent."""
        n_positive, n = int(positive.sum()), len(positive)
        if not 0 < n_positive < n or (scores < 0).any() or (scores > 1).any():
            return None
        # Labels of 0 and 1 would give an infinite slope where scores tell the classes apart.
        target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n - n_positive + 2))
        # The log-odds of 0 are no number, and images without a box need not lie on the line of
        # others.
        boxed = scores > 0
        x = log_odds(scores[boxed])[:, None]
        if not len(x):
            return None
        slope, intercept = cls._line(x, target[boxed])
        # Scores that rank no better than chance tell no images apart: the share of positives
        # remains.
        if slope <= 0:
            share = float(target[boxed].mean())
            slope, intercept = 0.0, float(np.log(share / (1 - share)))
        line = cls(slope, intercept)
        return line if boxed.all() else replace(line, at_zero=line._level(target, scores))

    @staticmethod
    def _line(x: Floats, target: Floats) -> tuple[float, float]:
        """Return slope and intercept of the logistic regression on log odds, shape ``(N, 1)``."""
        from sklearn.linear_model import LogisticRegression

        # On one scale for all systems: where scores hardly differ, rounding would end the search.
        center, spread = float(x.mean()), float(x.std())
        if spread <= _SAME:
            return 0.0, 0.0
        z = (x - center) / spread
        label = np.repeat([1, 0], len(x))
        weight = np.concatenate([target, 1 - target])
        fit = LogisticRegression(C=np.inf, solver="newton-cg", tol=1e-12, max_iter=1000)
        fit.fit(np.vstack([z, z]), label, sample_weight=weight)
        slope = float(fit.coef_[0, 0]) / spread
        return slope, float(fit.intercept_[0]) - slope * center

    def _level(self, target: Floats, scores: Floats) -> float:
        """Return the probability of a score of 0: the lowest mean with the next higher scores."""
        empty = scores == 0
        others = np.sort(self.probability(scores[~empty]))
        totals = target[empty].sum() + np.append(0.0, np.cumsum(others))
        return float((totals / (empty.sum() + np.arange(len(totals)))).min())

    def probability(self, scores: Floats) -> Floats:
        """Return the calibrated probability of each score."""
        with np.errstate(over="ignore"):  # where exp overflows, the probability is 0
            value = 1 / (1 + np.exp(-(self.slope * log_odds(scores) + self.intercept)))
        if self.at_zero is None:
            return value
        return np.where(scores == 0, self.at_zero, np.maximum(value, self.at_zero))


@dataclass(frozen=True)
class Choices:
    """Choices for one system on validation images, which resamples of these images make again.

    Attributes:
        thresholds: Threshold of the image score by policy.
        reasons: Why a policy has no threshold, or differences at it have no interval.
        calibration: Function from scores to probabilities; None without validation images of both
            classes, or if scores are no probabilities.
        rules: Rules that cut activation maps into boxes; the one at position `rule` is chosen.
        scale: Upper end of the raw values at which all maps of the system are cut.
        levels: Levels at which they are drawn; None without maps.
        output: The system's output on the validation images, which are `truth`.
        box_figures: Figures of the boxes of each rule on validation images.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    calibration: Platt | None = None
    rules: tuple[MapBoxRule, ...] = ()
    rule: int = 0
    scale: float = 1.0
    levels: MapLevels | None = None
    output: Output | None = None
    truth: Truth | None = None
    box_figures: tuple[BoxFigures, ...] = ()

    def boxes(self, output: Output, rule: int | None = None) -> pd.DataFrame | None:
        """Return the boxes that are evaluated and drawn: the system's own, or those of its maps."""
        if output.boxes is not None or output.maps is None or not self.rules:
            return output.boxes
        chosen = self.rules[self.rule if rule is None else rule]
        return chosen.apply(output.maps, output.scores, self.scale)

    def again(self, weights: Integers, names: npt.NDArray[np.str_]) -> dict[str, Floats]:
        """Choose again for weightings, ``(R, P)``, of the P patients with these sorted names.

        Returned are the thresholds of each policy, and as ``rule`` the positions of the rules.
        """
        if self.truth is None or self.output is None or not self.output.ranks:
            return {}
        patients = np.searchsorted(names, self.truth.owners)
        scores = self.output.scores.to_numpy(np.float64)
        policies = [name for name in self.thresholds if not is_given(name)]
        chosen = thresholds(self.truth.positive, scores, patients, weights, policies)
        if len(self.rules) > 1:
            rule = _best(self.box_figures, weights, patients[self.truth.is_boxed])
            chosen["rule"] = rule.astype(np.float64)
        return chosen


def _best(figures: Sequence[BoxFigures], weights: Integers, patients: Integers) -> Integers:
    """Return the rule with the highest mean FROC, then AP50, under each weighting."""
    values = [
        box_figures.with_patients(patients, weights.shape[1])(weights) for box_figures in figures
    ]
    froc = np.nan_to_num(
        np.stack([figures_of_rule["froc_mean"] for figures_of_rule in values]), nan=-1.0
    )
    ap50 = np.nan_to_num(
        np.stack([figures_of_rule["ap50"] for figures_of_rule in values]), nan=-1.0
    )
    best = np.where(froc >= froc.max(axis=0) - _SAME, ap50, -np.inf)
    return np.asarray((best >= best.max(axis=0) - _SAME).argmax(axis=0))


def choose(output: Output, truth: Truth, policies: Sequence[str]) -> Choices:
    """Choose thresholds, calibration and the rule of boxes of a system on its validation images.

    InputError for a stated threshold of scores that are no probabilities.
    """
    if not output.ranks:
        called = Choices(dict.fromkeys(policies, _ANY_BOX))
        if not len(truth.ids):
            return called
        return replace(called, output=output.select(truth.ids), truth=truth)
    _require_probabilities(output, policies)
    validated = output.select(truth.ids)
    scores = validated.scores.to_numpy(np.float64)
    stated, reasons = _thresholds(truth, scores, policies)
    if not len(truth.ids):
        levels = None if output.maps is None else map_levels(output.maps)
        return Choices(stated, reasons, levels=levels)
    output = validated
    choices = Choices(
        stated,
        reasons,
        calibration=Platt.fit(truth.positive, scores),
        output=output,
        truth=truth,
    )
    if output.maps is None:
        return choices
    choices = replace(choices, scale=map_scale(output.maps), levels=map_levels(output.maps))
    if output.boxes is not None or not truth.is_boxed.any():
        return choices
    return _with_rule(choices, output.maps, output.scores, truth)


def _require_probabilities(output: Output, policies: Sequence[str]) -> None:
    """Refuse a stated threshold of scores outside [0, 1]."""
    low, high = output.scores.min(), output.scores.max()
    for policy in filter(is_given, policies):
        if low < 0 or high > 1:
            raise InputError(
                f"{policy}: needs scores in [0, 1], and these lie between {low:g} and {high:g}"
            )


def _thresholds(
    truth: Truth, scores: Floats, policies: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the threshold of each policy, and why one has none or differences no interval."""
    chosen: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for policy in policies:
        value, why = threshold_of(truth.positive, scores, policy)
        if value is not None:
            chosen[policy] = value
            why = too_few_errors(truth.positive, policy)
        if why:
            reasons[policy] = why
    return chosen, reasons


def _with_rule(choices: Choices, maps: pd.DataFrame, scores: pd.Series, truth: Truth) -> Choices:
    """Add the rule that cuts the maps of a classifier into the best boxes on boxed images."""
    tried = map_box_candidates(maps, scores, choices.scale)
    boxed = truth.ids[truth.is_boxed]
    figures = tuple(
        BoxFigures(pair_boxes(boxes, truth.boxes, boxed), only_50=True) for _, boxes in tried
    )
    together = np.zeros(len(boxed), dtype=np.int64)
    best = int(_best(figures, np.ones((1, 1), dtype=np.int64), together)[0])
    rules = tuple(rule for rule, _ in tried)
    return replace(choices, rules=rules, rule=best, box_figures=figures)
