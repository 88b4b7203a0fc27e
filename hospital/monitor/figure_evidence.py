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

    The evidence is an e-value: if nothing changes, it ever reaches 1 / p with a probability of at
    most p. It comes from `rank_evidence` for the mean score, and from `change_evidence` for all
    other figures. The kind is a key of `hospital.monitor.monitor_result.KINDS`.

    The values of patients lie in [0, 1], ``(figures, patients)``, in the order of time. The day,
    ``(patients,)``, is 0 for all patients of the reference (the first weeks or validation images),
    then from 1 on. The e-values are ``(figures, days)`` from day 1 on.
    """
    if kind in _BY_RANK:
        return np.stack([rank_evidence(row, day) for row in np.atleast_2d(values)])
    return change_evidence(values, day)


def figure_start_shares(kind: str, values: npt.ArrayLike, day: npt.ArrayLike) -> Floats:
    """Estimate after which day a monitored figure changed, as a share for each day but the last.

    A high share of a day says that a change after this day explains the values well; the shares add
    up to 1, see `start_shares`. The arguments are as for `figure_evidence`, with the values of one
    figure, ``(patients,)``.

    Example:
        >>> day = np.repeat([0, 1, 2], [100, 4, 4])
        >>> values = [0, 1] * 50 + [0, 1] * 2 + [1] * 4
        >>> figure_start_shares("call_rate", values, day).round(2).tolist()
        [0.36, 0.64]
    """
    if kind in _BY_RANK:
        return rank_start_shares(values, day)
    return start_shares(values, day)
