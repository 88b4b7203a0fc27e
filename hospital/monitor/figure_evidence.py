"""The test of each kind of monitored figure: by the mean of its values, or by their ranks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.hospital.betting import change_evidence, start_shares
from cxr_compare.hospital.monitor.rank_evidence import rank_evidence, rank_start_shares

_BY_RANK = ("score_mean",)
"""Kinds whose values are spread over [0, 1], so that ranks show more than a bet on the mean."""


def figure_evidence(kind: str, values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """Compute the evidence, after each day, that monitored figures have changed.

    A figure is, for example, the share of positive calls of a model in use. The evidence is an
    e-value: if nothing changes, it ever reaches 1 / p with a probability of at most p.

    Args:
        kind: Kind of the figures, such as ``call_rate`` or ``score_mean``, a key of
            `hospital.monitor.monitor_result.KINDS`.
        values: Values of patients in [0, 1], shape ``(figures, patients)``, in the order of time.
        day: Day of each patient, shape ``(patients,)``: 0 for all patients of the reference (the
            first weeks or validation images), then from 1 on.

    Returns:
        E-value of each figure after each day from day 1 on, shape ``(figures, days)``: by
        `rank_evidence` for the mean score, by `change_evidence` for all other figures.

    Example:
        >>> day = np.repeat([0, 1, 2], [100, 10, 10])
        >>> values = np.linspace(0, 1, 120)[None]
        >>> bool(figure_evidence("score_mean", values, day)[0, -1] > 1)
        True
    """
    if kind in _BY_RANK:
        return np.stack([rank_evidence(row, day) for row in np.atleast_2d(values)])
    return change_evidence(values, day)


def figure_start_shares(kind: str, values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """Estimate after which day a monitored figure changed, as a share for each day.

    A figure is, for example, the share of positive calls of a model in use. A high share of a day
    says that a change after this day explains the values well.

    Args:
        kind: Kind of the figure, such as ``call_rate`` or ``score_mean``, a key of
            `hospital.monitor.monitor_result.KINDS`.
        values: Values of patients in [0, 1], shape ``(patients,)``, in the order of time.
        day: Day of each patient, shape ``(patients,)``: 0 for all patients of the reference (the
            first weeks or validation images), then from 1 on.

    Returns:
        Share of each day but the last, as `start_shares` returns them; the shares add up to 1.

    Example:
        >>> day = np.repeat([0, 1, 2], [100, 4, 4])
        >>> values = [0, 1] * 50 + [0, 1] * 2 + [1] * 4
        >>> figure_start_shares("call_rate", values, day).round(2).tolist()
        [0.36, 0.64]
    """
    if kind in _BY_RANK:
        return rank_start_shares(values, day)
    return start_shares(values, day)
