"""What decisions are worth to a user: net benefit, predictive values elsewhere, expected cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data_prep.contracts.tables import InputError
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.shares import Derived, ShareName, Shares
from evaluation.statistics.calibration import CLIP
from evaluation.statistics.ranking import Floats

if TYPE_CHECKING:
    from evaluation.compare.judged_model import JudgedModel

RISKS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Risks from which a user would act, at which the decision curve is given."""
COST_SHARES = tuple(round(0.1 * step, 1) for step in range(11))
"""Share of the cost that missed positives would cause if every image were wrong."""
TREAT_ALL = "call every image positive"


def net_benefit(y_true: npt.ArrayLike, probability: npt.ArrayLike, risk: float) -> float:
    """True positives per image less false positives, weighted by the odds of the risk.

    Args:
        y_true: Labels, shape ``(N,)``.
        probability: Of the positive class, shape ``(N,)``; at or above the risk is positive.
        risk: From which a user would act, in (0, 1).

    Source:
        Vickers and Elkin 2006, decision curve analysis.

    Example:
        >>> net_benefit([1, 0, 0, 1], [0.9, 0.6, 0.1, 0.2], 0.5)
        0.0
    """
    truth = np.asarray(y_true, dtype=bool)
    return float(_benefits(truth, np.asarray(probability, dtype=np.float64), risk).mean())


def _benefits(truth: npt.NDArray[np.bool_], probability: Floats, risk: float) -> Floats:
    called = probability >= risk
    return np.asarray(np.where(called, np.where(truth, 1.0, -risk / (1 - risk)), 0.0))


def add_net_benefit(shares: Shares, name: str, members: Sequence[JudgedModel]) -> None:
    """Add the decision curve of a system, of its scores as they are and calibrated on validation.

    The scores are held inside the clip of the calibration, as probabilities. Calling every image
    positive stands beside as a system of its own.

    Args:
        shares: Get topic ``decision_curve``, a group for each risk.
        name: The system.
        members: One entry a training seed.
    """
    judged = members[0].card.judged
    ones = np.ones(len(judged.y_true))
    as_they_are = [np.clip(each.card.scores, CLIP, 1 - CLIP) for each in members]
    calibrated = [each.probability for each in members if each.probability is not None]
    kinds = {"net_benefit": as_they_are}
    if len(calibrated) == len(members):
        kinds["net_benefit_calibrated"] = calibrated
    for risk in RISKS:
        for metric, each in kinds.items():
            worth = np.mean([_benefits(judged.y_true, p, risk) for p in each], axis=0)
            key = ShareName("decision_curve", f"{risk:g}", "", metric)
            shares.add(name, key, worth, ones, judged.patients)
        every = _benefits(judged.y_true, ones, risk)
        key = ShareName("decision_curve", f"{risk:g}", "", "net_benefit")
        shares.add(TREAT_ALL, key, every, ones, judged.patients)


def predictive_values(
    recall: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: float
) -> dict[str, Floats]:
    """PPV and NPV where positives are as frequent as the user says.

    Args:
        recall: Sensitivity, any shape.
        specificity: Same shape.
        prevalence: In (0, 1).

    Source:
        Bayes' rule; the sensitivity and specificity are taken to hold there.

    Example:
        >>> {k: round(float(v), 3) for k, v in predictive_values(0.9, 0.9, 0.01).items()}
        {'ppv': 0.083, 'npv': 0.999}
    """
    hit, kept = np.asarray(recall, dtype=np.float64), np.asarray(specificity, dtype=np.float64)
    ill, well = prevalence, 1 - prevalence
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "ppv": hit * ill / (hit * ill + (1 - kept) * well),
            "npv": kept * well / (kept * well + (1 - hit) * ill),
        }


def check_prevalence(prevalence: float | None) -> None:
    """Refuse a prevalence at which there is nothing to predict.

    Raises:
        InputError: It does not lie between 0 and 1.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"--prevalence {prevalence:g}: must lie above 0 and below 1")


def add_at_prevalence(
    shares: Shares,
    cards: Mapping[str, Sequence[Scorecard]],
    policy: str,
    prevalence: float | None,
) -> None:
    """Add PPV and NPV at the user's prevalence, and the cost curve, of each system.

    Args:
        shares: Get topic ``prevalence`` (group: the prevalence) and ``cost_curve`` (group: the
            share of positives, weighted by what a miss costs; ``expected_cost`` is
            (1 - sensitivity) x it + (1 - specificity) x (1 - it), of what it costs to get every
            image wrong).
        cards: Per system one scorecard a training seed.
        policy: Threshold policy.
        prevalence: Where the systems will be used; `None`: no PPV and NPV.

    Source:
        Drummond and Holte 2006, cost curves.
    """
    for name, members in cards.items():
        calls = [card.called(policy) if policy in card.thresholds else None for card in members]
        known = [called for called in calls if called is not None]
        if len(known) < len(members):
            continue
        judged, called = members[0].judged, np.mean(known, axis=0)
        needed = []
        for metric, value, of in (
            ("recall", called, judged.y_true),
            ("specificity", 1 - called, ~judged.y_true),
        ):
            key = ShareName("", "", policy, metric)
            shares.add(name, key, value * of, of, judged.patients)
            needed.append((name, key))
        for cost_share in COST_SHARES:
            key = ShareName("cost_curve", f"{cost_share:g}", policy, "expected_cost")
            shares.derived.append(Derived((name, key), needed, partial(_cost, cost_share)))
        if prevalence is None:
            continue
        for metric in ("ppv", "npv"):
            key = ShareName("prevalence", f"{prevalence:g}", policy, metric)
            compute = partial(_predictive, metric, prevalence)
            shares.derived.append(Derived((name, key), needed, compute))


def _cost(cost_share: float, recall: Floats, specificity: Floats) -> Floats:
    return (1 - recall) * cost_share + (1 - specificity) * (1 - cost_share)


def _predictive(metric: str, prevalence: float, recall: Floats, specificity: Floats) -> Floats:
    return predictive_values(recall, specificity, prevalence)[metric]
