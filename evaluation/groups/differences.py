"""Differences of the AUROC between groups of images, such as women and men."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import holm
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_auroc import AurocParts, auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.subgroups import FEWEST, Groups

_LEAST_P = 1e-12


def group_differences(
    comparison: Comparison, topics: Mapping[str, Groups]
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the difference of each group from the others, by topic, group and system.

    ``p_holm`` is corrected over all of them.
    """
    differences: dict[tuple[str, str, str], dict[str, Any]] = {
        (topic, group, name): {"against": against, **difference}
        for topic, groups in topics.items()
        for group, against in _pairs(groups)
        for name in comparison.single
        if comparison.systems[name].output.ranks
        if (difference := _against_others(comparison, name, groups, group))
    }
    p_values = holm([difference["p_value"] for difference in differences.values()])
    for difference, p_holm in zip(differences.values(), p_values, strict=True):
        difference["p_holm"] = p_holm
    return differences


def _pairs(groups: Groups) -> list[tuple[str, str]]:
    """Return two groups of a topic, or each of several with the others."""
    names = sorted(set(groups) - {""})
    return [(names[0], names[1])] if len(names) == 2 else [(name, "others") for name in names]


def _against_others(
    comparison: Comparison, name: str, groups: Groups, group: str
) -> dict[str, Any]:
    """Return the AUROC of a group minus that of its topic's other images; empty without both."""
    test = comparison.truth
    scores = comparison.systems[name].scores
    parts = []
    for rows in (groups == group, (groups != group) & (groups != "")):
        part = auroc_parts(test.positive[rows], scores[rows], test.patients[rows], test.n_patients)
        if part is None or np.count_nonzero(part.images, axis=0).min() < FEWEST:
            return {}
        parts.append(part)
    if not all(part.estimate().has_interval for part in parts):
        return {}
    return difference_of_groups(*parts)


def difference_of_groups(group: AurocParts, others: AurocParts) -> dict[str, Any]:
    """Return the difference of two AUROCs on different images, with its interval and p-value.

    The distances from both AUROCs to the ends of their intervals are added as standard errors are,
    so that the interval is right where few positive images all happen to have high scores. A
    patient with images in both groups correlates the AUROCs. The p-value is 1 minus the level of
    the interval that ends at 0.

    Source:
        Newcombe 1998, method 10; Zou and Donner 2008; Zou 2007, with a correlation.
    """
    estimates = group.estimate(), others.estimate()
    correlation = _correlation(group.contributions, others.contributions)
    gap = group.value - others.value

    def nearer_end(p_value: float) -> float:
        low, high = _interval(*estimates, correlation, 1 - p_value)
        return low if gap > 0 else -high

    if nearer_end(1.0) <= 0:
        p_value = 1.0
    elif nearer_end(_LEAST_P) >= 0:
        p_value = _LEAST_P
    else:
        p_value = float(scipy.optimize.brentq(nearer_end, _LEAST_P, 1.0))
    low, high = _interval(*estimates, correlation, LEVEL)
    ends = {"difference_low": low, "difference_high": high}
    return {"difference": gap, **ends, "p_value": p_value}


def _interval(
    first: ClusteredEstimate, second: ClusteredEstimate, correlation: float, level: float
) -> tuple[float, float]:
    """Return the interval of the difference of two AUROCs that have an interval of their own."""
    ends = [estimate.interval_at(level) or (np.nan, np.nan) for estimate in (first, second)]
    below = first.estimate - ends[0][0], ends[1][1] - second.estimate
    above = ends[0][1] - first.estimate, second.estimate - ends[1][0]
    reach = [np.sqrt(x * x + y * y - 2 * correlation * x * y) for x, y in (below, above)]
    gap = first.estimate - second.estimate
    return float(gap - reach[0]), float(gap + reach[1])


def _correlation(first: Floats | None, second: Floats | None) -> float:
    """Return the correlation of two AUROCs by the contributions of patients; 0 without any."""
    if first is None or second is None or not (first.any() and second.any()):
        return 0.0
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))
