"""What each figure and policy is called, and what it means: one owner for the report's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evaluation.boxes.froc import FROC_METRICS, IOBB_THRESHOLDS, RATE_WORDS

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


@dataclass(frozen=True)
class MetricWords:
    """Name and meaning of one metric.

    Args:
        title: Column or row title.
        meaning: One sentence for "how to read the numbers".
    """

    title: str
    meaning: str

    @property
    def inside(self) -> str:
        """The title as it stands inside a sentence: names and abbreviations keep their capitals.

        Example:
            >>> [METRICS[each].inside for each in ("recall", "f1", "brier", "iobb_accuracy_10")]
            ['sensitivity (recall)', 'F1', 'Brier score', 'IoBB accuracy at 10 %']
        """
        first = self.title.split()[0] if self.title else ""
        proper = first != first.capitalize() or not first.isalpha() or first in _NAMES
        return self.title if proper else self.title[:1].lower() + self.title[1:]


_NAMES = frozenset({"Brier"})


def _iobb_words() -> dict[str, MetricWords]:
    told = {}
    for share in (round(100 * each) for each in IOBB_THRESHOLDS):
        told[f"iobb_accuracy_{share}"] = MetricWords(
            f"IoBB accuracy at {share} %",
            "Of the true boxes, the share that a called box (from the score cut that validation "
            f"chose) has at least {share} % of its own area on. Marking much raises it: read it "
            "with the next.",
        )
        told[f"iobb_false_marks_{share}"] = MetricWords(
            f"False marks an image at {share} %",
            f"Called boxes that have less than {share} % of their area on any true box, per image; "
            "fewer is better.",
        )
    return told


def _froc_words() -> dict[str, MetricWords]:
    """The mean says what is counted, the rates only where."""
    kinds = (
        ("FROC", FROC_METRICS["iou"], "an intersection over union of at least 0.2"),
        ("FROC by centre", FROC_METRICS["centre"], "its centre on the lesion, borders included"),
    )
    told = {}
    for name, (mean, *at_rates), hit in kinds:
        told[mean] = MetricWords(
            f"{name}, mean",
            "Sensitivity per lesion, averaged over 1/8, 1/4, 1/2, 1, 2, 4 and 8 false marks an "
            f"image, over all images. A mark hits with {hit}; any mark that hits finds the "
            "lesion, further ones on it are neither hits nor false. Of the points that keep a "
            "rate the most sensitive counts (steps, no line between points).",
        )
        for metric, rate in zip(at_rates, RATE_WORDS, strict=True):
            told[metric] = MetricWords(
                f"{name}, at {rate}", f"Sensitivity per lesion at {rate} false marks an image."
            )
    return told


METRICS = {
    "auroc": MetricWords(
        "AUROC",
        "The chance that a randomly chosen positive image scores above a randomly chosen "
        "negative one; 0.5 is guessing. Needs no threshold.",
    ),
    "average_precision": MetricWords(
        "Average precision",
        "Precision averaged over the ranks of the positive images (the step-wise area under the "
        "precision-recall curve). Guessing gives the prevalence.",
    ),
    "recall": MetricWords(
        "Sensitivity (recall)", "Of the positive images, the share that is called positive."
    ),
    "specificity": MetricWords(
        "Specificity", "Of the negative images, the share that is called negative."
    ),
    "precision": MetricWords(
        "Precision",
        "Of the images called positive, the share that is positive. Falls with the prevalence.",
    ),
    "f1": MetricWords("F1", "The harmonic mean of precision and sensitivity."),
    "accuracy": MetricWords(
        "Accuracy",
        "The share of all images that is called correctly. Where positives are few, calling "
        "everything negative already scores high.",
    ),
    "localised_sensitivity": MetricWords(
        "Localised sensitivity",
        "Of the positive images whose lesions are boxed, the share that is called positive with "
        "the deciding point on a true lesion, borders included: right image and right place. The "
        "point is the centre of the most confident box, or the peak (the middle of the highest "
        "cell) of the map; an image without one is a miss.",
    ),
    "pointing_accuracy": MetricWords(
        "Pointing accuracy",
        "The same point on a true lesion, whatever the threshold.",
    ),
    "ap50": MetricWords(
        "AP50",
        "COCO average precision of the boxes (pycocotools; images without lesions take part; the "
        "100 most confident boxes an image; equal scores in the order of image ids): a box counts "
        "when it overlaps a lesion with an intersection over union of at least 0.5.",
    ),
    "ap": MetricWords(
        "AP[.5:.95]", "The same, averaged over overlaps from 0.5 to 0.95: rewards exact outlines."
    ),
    "balanced_accuracy": MetricWords(
        "Balanced accuracy", "The mean of sensitivity and specificity; 0.5 is guessing."
    ),
    "mcc": MetricWords(
        "MCC",
        "Matthews' correlation between truth and call: 1 is right throughout, 0 is guessing.",
    ),
    "npv": MetricWords(
        "Negative predictive value",
        "Of the images called negative, the share that is negative. Rises where positives are few.",
    ),
    "lr_positive": MetricWords(
        "LR+",
        "By what a positive call multiplies the odds of the finding: sensitivity / (1 − "
        "specificity). Does not depend on the prevalence.",
    ),
    "lr_negative": MetricWords(
        "LR−",
        "By what a negative call multiplies the odds: (1 − sensitivity) / specificity; less is "
        "better.",
    ),
    "brier": MetricWords(
        "Brier score",
        "Mean squared error of the probability that validation gave the score; less is better.",
    ),
    "log_loss": MetricWords(
        "Log loss",
        "Mean negative log-likelihood of that probability, held inside 0.0001 and 0.9999; less is "
        "better.",
    ),
    "ece": MetricWords(
        "ECE, equal width",
        "Expected calibration error of the positive class's probability: the mean gap between "
        "expected and observed share of positives over ten bins of equal width, closed on the "
        "right; less is better.",
    ),
    "ece_equal_mass": MetricWords(
        "ECE, equal mass",
        "The same over bins cut at the deciles of the probabilities, equal ones in one bin.",
    ),
    "calibration_slope": MetricWords(
        "Calibration slope",
        "Slope of the logistic regression of truth on the probability's log-odds (held inside "
        "±9.21), fitted with its intercept; 1 is ideal, less is too sure of itself.",
    ),
    "calibration_intercept": MetricWords(
        "Calibration intercept", "The intercept of that regression; 0 is ideal."
    ),
    "calibration_in_the_large": MetricWords(
        "Calibration in the large",
        "The intercept with the slope held at 1: above 0 probabilities are too low on the whole.",
    ),
    "coverage": MetricWords(
        "Coverage",
        "The share of images that is decided; the most doubtful are referred to a reader, from a "
        "doubt on that validation chose.",
    ),
    "accuracy_covered": MetricWords(
        "Accuracy where decided", "The same figure among the images that are not referred."
    ),
    "recall_covered": MetricWords(
        "Sensitivity where decided", "The same figure among the images that are not referred."
    ),
    "specificity_covered": MetricWords(
        "Specificity where decided", "The same figure among the images that are not referred."
    ),
    "aurc": MetricWords(
        "Area under the risk-coverage curve",
        "The share of wrong decisions among the surest images, averaged over how many of them are "
        "decided; needs no cut. Less is better.",
    ),
    "rsna_score": MetricWords(
        "RSNA 2018 score",
        "The score of the RSNA 2018 challenge, of boxes from the score cut that validation chose: "
        "mean over images of TP / (TP + FP + FN), averaged over overlaps above 0.4 to 0.75.",
    ),
    **_froc_words(),
    **_iobb_words(),
}

RATE_METRICS = tuple(metric for _, *rates in FROC_METRICS.values() for metric in rates)
"""Sensitivities at single rates of false marks, which have a table of their own."""
PLACE_METRICS = (
    "localised_sensitivity",
    "pointing_accuracy",
    "ap50",
    "ap",
    "rsna_score",
    *_froc_words(),
    *_iobb_words(),
)
SUBGROUPS = {"vs_normal": "Against normal images only, without a threshold"}
"""Titles of the subgroups that the main table shows."""


def metric_title(metric: str) -> str:
    """The title of a metric; one without a record is called by its short name.

    Example:
        >>> metric_title("auroc"), metric_title("new_metric")
        ('AUROC', 'new metric')
    """
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ")
