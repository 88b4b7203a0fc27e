"""Exact intervals where a proportion is 0 or 1, which no resample of patients can move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta  # type: ignore[attr-defined]

from data_prep.contracts.tables import InputError
from evaluation.statistics.bootstrap import LEVEL, Interval

if TYPE_CHECKING:
    from evaluation.compare.scorecard import Scorecard
    from evaluation.metrics.evaluation_set import Figure

EXACT_METHOD = "exact (Clopper-Pearson), patients as trials"


def clopper_pearson(hits: int, trials: int, level: float = LEVEL) -> Interval:
    """The exact interval of a proportion.

    Args:
        hits: How many trials succeeded.
        trials: How many there were, at least 1.
        level: Coverage asked for.

    Returns:
        The interval; it never covers less than the level.

    Raises:
        InputError: There is no trial, or there are more hits than trials.

    Source:
        Clopper and Pearson 1934.

    Example:
        >>> interval = clopper_pearson(10, 10)
        >>> round(interval.low, 4), interval.high
        (0.6915, 1.0)
    """
    if not 0 <= hits <= trials or not trials:
        raise InputError(f"clopper_pearson: {hits} hits of {trials} trials; give at least one")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return Interval(low, high)


def exact_interval(card: Scorecard, figure: Figure, estimate: float) -> Interval | None:
    """The interval of a proportion that is 0 or 1.

    All images that count are then decided alike, so a patient is one trial, right or wrong with
    all of them: more trials than patients would promise more than was seen.

    Args:
        card: The system.
        figure: Which figure.
        estimate: Its value.

    Returns:
        The interval of the share of such patients; `None` where the figure is not a proportion
        of images or lies between 0 and 1.
    """
    judged = card.judged
    called = card.called(figure.policy) if figure.policy else None
    counted = {
        "accuracy": np.ones_like(judged.y_true),
        "recall": judged.y_true,
        "specificity": ~judged.y_true,
        "precision": called,
        "npv": None if called is None else ~called,
        "pointing_accuracy": judged.y_true,
        "localised_sensitivity": judged.y_true,
    }.get(figure.metric)
    if counted is None or estimate not in (0.0, 1.0):
        return None
    patients = np.unique(judged.patients[counted & judged.population(figure)])
    if len(patients) < 2:  # one patient gives no interval here, by any method
        return None
    return clopper_pearson(len(patients) if estimate else 0, len(patients))
