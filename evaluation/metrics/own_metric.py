"""Figures of the user's own: functions of labels and scores, named ``MODULE:NAME``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.own_parts import own_function, problem_of
from cxr_compare.evaluation.metrics.metric import Metric
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

OWN = "own"
"""Family of the metrics of the user's own."""
_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {}


def register_metric(name: str) -> Metric:
    """Add a function of the user's own, ``MODULE:NAME``, to the registry, under its own name.

    The function takes labels (0 or 1) and scores, shape ``(N,)`` each, and returns a number, or NaN
    where it is undefined. The first line of its docstring is the meaning of the figure. InputError
    if it cannot be imported, or a metric of the program has this name.
    """
    function = own_function(name, "metric")
    short = name.partition(":")[2]
    known = METRICS.get(short)
    if known is not None and known.family != OWN:
        raise InputError(f"metric: {name}: there is a metric {short} already; rename yours")
    title = short.replace("_", " ")
    meaning = (function.__doc__ or f"Figure of {name}.").strip().partition("\n")[0]
    METRICS[short] = Metric(
        short,
        title[:1].upper() + title[1:],
        meaning,
        family=OWN,
        undefined="its function gives no number, or the system has no scores",
        direction="none",
        unbounded=True,
    )
    _FUNCTIONS[short] = function
    return METRICS[short]


def own_figure(
    metric: str, y_true: npt.NDArray[np.bool_], scores: Floats, patients: Integers
) -> Callable[[Integers], Floats]:
    """Return a figure of the user's own as a function of the weights of P patients, ``(R, P)``.

    The short name is that of a metric that `register_metric` added; `patients` numbers the patient
    of each image.
    """
    function = _FUNCTIONS[metric]
    labels = y_true.astype(np.int64)

    def of_weights(weights: Integers) -> Floats:
        return np.array([of_one(row) for row in weights], dtype=np.float64)

    def of_one(weight: Integers) -> float:
        drawn = np.repeat(np.arange(len(labels)), weight[patients])
        if np.ptp(labels[drawn]) == 0:  # a resample of one class; most figures need both
            return np.nan
        try:
            value = function(labels[drawn], scores[drawn])
            return np.nan if value is None else float(value)
        except Exception as error:
            raise InputError(f"metric {metric}: {problem_of(error)}") from error

    return of_weights
