"""Which way each metric is better: the one place that knows.

A primary figure must have a direction, so that "better than" is never said of more mistakes.
"""

from __future__ import annotations

from typing import Literal

from evaluation.boxes.froc import FROC_METRICS

Direction = Literal["more", "less", "ideal", "none"]
"""``ideal``: the nearer to `IDEALS` the better; ``none``: neither end is better."""

IDEALS = {
    "calibration_slope": 1.0,
    "calibration_intercept": 0.0,
    "calibration_in_the_large": 0.0,
}
"""What a figure should be that is neither better the more of it there is nor the less."""

DIRECTIONS: dict[str, Direction] = {
    **dict.fromkeys(
        ("auroc", "average_precision", "accuracy", "precision", "recall", "specificity", "f1",
         "balanced_accuracy", "mcc", "npv", "lr_positive"), "more"),
    **dict.fromkeys(
        ("localised_sensitivity", "pointing_accuracy", "ap50", "ap", "rsna_score",
         *FROC_METRICS["iou"], *FROC_METRICS["centre"],
         "iobb_accuracy_10", "iobb_accuracy_25", "iobb_accuracy_50"), "more"),
    **dict.fromkeys(
        ("lr_negative", "brier", "log_loss", "ece", "ece_equal_mass", "aurc",
         "iobb_false_marks_10", "iobb_false_marks_25", "iobb_false_marks_50"), "less"),
    **dict.fromkeys(IDEALS, "ideal"),
    # What is left to decide is easier the more is referred, so none of these stands alone.
    **dict.fromkeys(
        ("coverage", "accuracy_covered", "recall_covered", "specificity_covered"), "none"),
    **dict.fromkeys(("tp", "fp", "tn", "fn", "threshold"), "none"),
}  # fmt: skip
"""By the metric's short name."""


def why_not_primary(metric: str) -> str:
    """Why a metric cannot decide which system is better; empty where it can.

    Args:
        metric: Short name of a metric in `DIRECTIONS`.

    Raises:
        KeyError: The metric has no direction here.

    Example:
        >>> why_not_primary("auroc"), why_not_primary("aurc")
        ('', 'less is better')
        >>> why_not_primary("calibration_slope")
        'neither more nor less is better, 1 is ideal'
    """
    direction = DIRECTIONS[metric]
    if direction == "ideal":
        return f"neither more nor less is better, {IDEALS[metric]:g} is ideal"
    return {"more": "", "less": "less is better", "none": "neither more nor less is better"}[
        direction
    ]
