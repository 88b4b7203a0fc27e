"""One system against declared goals: how often it is said to meet a goal that it misses.

The true figure equals the goal, so that "met" is a wrong claim.
"""

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri

from cxr_compare.evaluation.compare.goals import GoalResult
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.compare.scorecard import Scorecard
from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice
from tools.simulation.makers import Noise, draw
from tools.simulation.product import evaluated_images

_ALIKE_OTHER = 0.1
"""Difference by which a goal that is easily met lies below the true figure."""


def goal_measure(
    rng: np.random.Generator, n_patients: int, clusters: str, truth: float, noise: Noise
) -> dict[str, float]:
    """Simulate one test of a system against goals.

    Args:
        rng: Random generator.
        n_patients: Number of test patients.
        clusters: Number of images of a patient, see `cluster_sizes`.
        truth: True sensitivity and specificity of the system.
        noise: Shares of the variance of the noise.

    Returns:
        1 for each kind of goal that is said to be met, else 0, and the width of the interval.
    """
    cut = float(ndtri(truth))  # of negatives; positives lie as far beyond it
    sample = draw(rng, n_patients, [[2 * cut]], clusters=clusters, noise=noise)
    policy = f"threshold={expit(cut):.12f}"
    chosen = {policy: ThresholdChoice(policy, float(expit(cut)))}
    scorecard = Scorecard(evaluated_images(sample), pd.Series(sample.scores[0]), chosen)

    def results(**goals: float) -> list[GoalResult]:
        protocol = Protocol(policy=policy, goals=goals, declared=True)
        return [GoalResult.from_scorecard(scorecard, metric, protocol, "") for metric in goals]

    easy = truth - _ALIKE_OTHER
    sensitivity, specificity = results(recall=truth, specificity=truth)
    return {
        "sensitivity": float(sensitivity.standing == "met"),
        "specificity": float(specificity.standing == "met"),
        "co-primary": float(
            all(each.standing == "met" for each in results(recall=truth, specificity=easy))
        ),
        "missed": float(sensitivity.standing == "missed"),
        "easy": float(
            all(each.standing == "met" for each in results(recall=easy, specificity=easy))
        ),
        "width": sensitivity.ci_high - sensitivity.ci_low,
    }
