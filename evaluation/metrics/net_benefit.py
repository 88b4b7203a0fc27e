"""Net benefit of acting from a risk on (decision curve analysis)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, is_positive


def net_benefit(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Compute true positives per image less false positives, weighted by the odds of a risk.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Probabilities of the positive class in [0, 1], shape ``(N,)``.
        threshold: Risk from which a user would act, in (0, 1); a score equal to it counts.

    Returns:
        The net benefit, at most the prevalence; it may be negative.

    Source:
        Vickers and Elkin 2006, decision curve analysis.

    Example:
        >>> from cxr_compare import metrics
        >>> metrics.net_benefit([1, 0, 0, 1], [0.9, 0.6, 0.1, 0.2], 0.5)
        0.0
    """
    truth = np.asarray(y_true, dtype=bool)
    return float(benefits(truth, np.asarray(y_score, dtype=np.float64), threshold).mean())


def benefits(truth: npt.NDArray[np.bool_], probability: Floats, risk: float) -> Floats:
    """Compute what each image adds to the net benefit; their mean is `net_benefit`.

    Args:
        truth: Labels, shape ``(N,)``.
        probability: Probabilities of the positive class in [0, 1], shape ``(N,)``.
        risk: Risk from which a user would act, in (0, 1).

    Returns:
        1, 0 or minus the odds of the risk, shape ``(N,)``.

    Source:
        Vickers and Elkin 2006.

    Example:
        >>> benefits(np.array([True, False, False]), np.array([0.9, 0.6, 0.1]), 0.5).tolist()
        [1.0, -1.0, 0.0]
    """
    called = is_positive(probability, risk)
    worth = np.where(truth, 1.0, -risk / (1 - risk))
    return np.asarray(np.where(called, worth, 0.0))
