"""Registry of metrics: one record for each metric.

Tables, tests, documents and the schema are made from these records.

To add a metric at a threshold, add its record with a ``formula`` below and a test of its values. A
figure of ranked boxes also needs an entry in `RANKED` of ``evaluation/boxes/box_figures.py``, and
any other metric a line in `FiguresOfWeights` of ``evaluation/replicates.py``. Tables, intervals,
the choice of boxes and documents follow from that. Then ``python tools/documents.py`` writes
``docs/metrics.md`` and the schema again.

This module imports no large package, so that the command line can read directions without numpy.
"""

from __future__ import annotations

from functools import partial

from cxr_compare.evaluation.metrics.metric import Metric

_no_image = "there is no image"
_decision = partial(Metric, family="decision", needs=("threshold",))
_IMAGE_METRICS = (
    Metric(
        "auroc",
        "AUROC",
        "Chance that a random positive image scores above a random negative one; 0.5 is guessing.",
        family="ranking",
        undefined="no image is {absent}",
    ),
    Metric(
        "average_precision",
        "Average precision",
        "Precision averaged over the ranks of the positive images (step-wise area under the "
        "precision-recall curve); guessing gives the prevalence.",
        family="ranking",
        undefined="no image is positive",
    ),
    _decision(
        "accuracy",
        "Accuracy",
        "Share of images called correctly; if few images are positive, calling all of them "
        "negative scores high.",
        formula=lambda c: (c.tp + c.tn) / (c.positive + c.negative),
        undefined=_no_image,
        share_of="all",
    ),
    _decision(
        "precision",
        "Precision",
        "Of the images called positive, the share that is positive; it falls with the prevalence.",
        formula=lambda c: c.tp / c.called,
        undefined="no image is called positive",
        share_of="called",
        partners=("recall",),
    ),
    _decision(
        "recall",
        "Sensitivity (recall)",
        "Of the positive images, the share called positive.",
        formula=lambda c: c.tp / c.positive,
        undefined="no image is positive",
        share_of="positive",
        partners=("specificity", "precision"),
    ),
    _decision(
        "specificity",
        "Specificity",
        "Of the negative images, the share called negative.",
        formula=lambda c: c.tn / c.negative,
        undefined="no image is negative",
        share_of="negative",
        partners=("recall", "npv"),
    ),
    _decision(
        "f1",
        "F1",
        "Harmonic mean of precision and sensitivity.",
        formula=lambda c: 2 * c.tp / (2 * c.tp + c.fp + c.fn),
        undefined="no image is positive, and none is called positive",
    ),
    _decision(
        "balanced_accuracy",
        "Balanced accuracy",
        "Mean of sensitivity and specificity; 0.5 is guessing.",
        formula=lambda c: (c.tp / c.positive + c.tn / c.negative) / 2,
        undefined="no image is {absent}",
    ),
    _decision(
        "mcc",
        "MCC",
        "Matthews' correlation between label and decision; 1 is perfect, 0 is guessing.",
        # Roots are taken before the product, because the product of four large counts may overflow.
        formula=lambda c: (
            (c.tp * c.tn - c.fp * c.fn)
            / (c.positive**0.5 * c.negative**0.5 * c.called**0.5 * c.not_called**0.5)
        ),
        undefined="no image is {absent}, or all images are called alike",
        lowest=-1.0,
    ),
    _decision(
        "npv",
        "Negative predictive value",
        "Of the images called negative, the share that is negative; it rises if few are positive.",
        formula=lambda c: c.tn / c.not_called,
        undefined="no image is called negative",
        share_of="not_called",
        partners=("specificity",),
    ),
    _decision(
        "lr_positive",
        "LR+",
        "Factor by which a positive call multiplies the odds of the finding: sensitivity / "
        "(1 − specificity). It does not depend on the prevalence.",
        formula=lambda c: c.tp * c.negative / (c.fp * c.positive),
        undefined="no negative image is called positive, or no image is {absent}",
        partners=("lr_negative",),
        unbounded=True,
    ),
    _decision(
        "lr_negative",
        "LR−",
        "Factor by which a negative call multiplies the odds: (1 − sensitivity) / specificity.",
        formula=lambda c: c.fn * c.negative / (c.tn * c.positive),
        undefined="no negative image is called negative, or no image is {absent}",
        direction="lower",
        unbounded=True,
    ),
)

_count = partial(
    Metric,
    family="counts",
    undefined=_no_image,
    direction="none",
    needs=("threshold",),
    unbounded=True,
)
_COUNT_METRICS = (
    _count("tp", "True positives", "Positive images called positive."),
    _count("fp", "False positives", "Negative images called positive."),
    _count("tn", "True negatives", "Negative images called negative."),
    _count("fn", "False negatives", "Positive images called negative."),
    Metric(
        "threshold",
        "Threshold",
        "Score from which images are called positive.",
        family="threshold",
        direction="none",
        needs=("threshold",),
    ),
)

_OF_THIS_CALIBRATION = "The figure and its interval describe the calibration that was fitted."
_NO_FIT = "no image is {absent}, or the probabilities are all equal or separate the classes"
_probability = partial(Metric, family="calibration", needs=("probability",))
_loss = partial(_probability, undefined=_no_image, direction="lower")
_fitted = partial(_probability, direction="ideal", unbounded=True)
_CALIBRATION_METRICS = (
    _loss(
        "brier",
        "Brier score",
        "Mean squared error of the calibrated probability.",
    ),
    _loss(
        "log_loss",
        "Log loss",
        "Mean negative log-likelihood of the calibrated probability, limited to 0.0001 to 0.9999.",
    ),
    _loss(
        "ece",
        "ECE, equal width",
        "Expected calibration error: mean gap between expected and observed share of positives "
        "over ten bins of the probability, of equal width and closed on the right. It "
        "has no interval, because resampling alone raises it.",
    ),
    _fitted(
        "calibration_slope",
        "Calibration slope",
        "Slope of the logistic regression, with intercept, of the label on the probability's "
        "log-odds (limited to ±9.21); 1 is ideal, and below 1 the probabilities are too extreme. "
        + _OF_THIS_CALIBRATION,
        undefined=_NO_FIT,
        ideal=1.0,
    ),
    _fitted(
        "calibration_intercept",
        "Calibration intercept",
        "Intercept of the logistic regression of the label on the probability's log-odds; 0 is "
        "ideal. " + _OF_THIS_CALIBRATION,
        undefined=_NO_FIT,
        ideal=0.0,
    ),
    _fitted(
        "calibration_in_the_large",
        "Calibration in the large",
        "Intercept of the logistic regression of the label on the probability's log-odds with the "
        "slope fixed at 1; 0 is ideal, above 0 the probabilities are too low on average. "
        + _OF_THIS_CALIBRATION,
        undefined="no image is {absent}",
        ideal=0.0,
    ),
)

_boxed = partial(Metric, boxed=True, undefined="no evaluated image has a true box")
_point = partial(_boxed, family="point", share_of="positive")
_coco = partial(_boxed, family="coco", needs=("boxes",))
_coco_decided = partial(_boxed, family="coco_decided", needs=("boxes",))
_LOCALISATION_METRICS = (
    _point(
        "pointing_accuracy",
        "Pointing accuracy (hit rate)",
        "Share of the positive images whose point (centre of the most confident box, or of the "
        "highest cell of the activation map) lies on a true lesion, whatever the threshold is.",
        needs=("point",),
    ),
    _coco(
        "ap50",
        "AP50, as stored",
        "COCO average precision of the boxes (pycocotools) at an IoU of at least 0.5, of all boxes "
        "that a detector stored, as papers report it. Images without lesions take part. At most "
        "100 boxes per image count, the most confident ones; boxes of equal scores are ranked in "
        "the order of the images, which is that of their ids in a comparison. With few positive "
        "images AP50 is too high.",
    ),
    _coco(
        "ap",
        "AP[.5:.95], as stored",
        "COCO average precision of the boxes (pycocotools), averaged over IoU thresholds from 0.5 "
        "to 0.95, of all boxes that a detector stored; it rewards exact outlines.",
    ),
    _coco_decided(
        "ap50_decided",
        "AP50 of the decided boxes",
        "COCO average precision of the boxes at an IoU of at least 0.5, of the decided boxes: "
        "those without the ones that overlap a more confident box by more than a limit, which is "
        "chosen on validation images. They are the boxes that are drawn.",
    ),
    _coco_decided(
        "ap_decided",
        "AP[.5:.95] of the decided boxes",
        "AP[.5:.95] of the decided boxes: the stored boxes without those that overlap a more "
        "confident box by more than a limit, which is chosen on validation images.",
    ),
)

RATE_LABELS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")
"""Labels of `FROC_RATES`: numbers of false positives per image at which sensitivity is read."""


def _froc_metrics(hit: str, title: str, mean_meaning: str) -> tuple[Metric, ...]:
    """Return the metric of the mean over all rates, then the metrics of the single rates."""
    froc = partial(_boxed, family=f"froc_{hit}", needs=("boxes",))
    prefix = "froc" if hit == "iou" else f"froc_{hit}"
    found_by = "by the IoU of a box" if hit == "iou" else "by the centre of a box"
    mean = froc(
        f"{prefix}_mean",
        f"{title}, mean",
        mean_meaning,
    )
    return mean, *(
        froc(
            f"{prefix}_at_{rate.replace('/', '_')}",
            f"{title}, at {rate}",
            f"Share of the lesions that are found ({found_by}), at {rate} false positives per "
            "image.",
        )
        for rate in RATE_LABELS
    )


_called_boxes = partial(_boxed, needs=("boxes", "box_cut"))
_BOX_METRICS = (
    *_froc_metrics(
        "iou",
        "FROC",
        "Share of the lesions that are found, averaged over 1/8, 1/4, 1/2, 1, 2, 4 and 8 false "
        "positives per image. A box finds a lesion by an IoU of at least 0.2; further boxes on the "
        "same lesion count neither as found lesions nor as false positives. At each rate, the "
        "highest share with at most that many false positives counts (no interpolation).",
    ),
    *_froc_metrics(
        "centre",
        "FROC by centre",
        "Share of the lesions that are found, averaged over 1/8 to 8 false positives per image as "
        "for the FROC mean, but a box finds a lesion if its centre lies on the lesion or its "
        "border.",
    ),
    _boxed(
        "wafroc",
        "Weighted AFROC",
        "Chance that the box which finds a lesion (IoU of at least 0.2) scores above the highest "
        "false positive of an image without lesions. A tie counts half, and a lesion that is not "
        "found has the lowest score. The lesions of an image share its weight.",
        undefined="no evaluated image has a true box, or every one has",
        family="afroc",
        needs=("boxes",),
    ),
    _called_boxes(
        "rsna_score",
        "RSNA 2018 score",
        "Score of the RSNA challenge of 2018: mean over images of TP / (TP + FP + FN), averaged "
        "over IoU thresholds above 0.4 to 0.75. Only boxes count whose score reaches a cut, which "
        "is chosen on validation images.",
        family="rsna",
        undefined="no evaluated image has a true box or a called one",
    ),
    _boxed(
        "vinbigdata_score",
        "VinBigData score",
        "Score of the VinBigData challenge of 2021 for one finding: mean of two average precisions "
        '(Pascal VOC 2010), that of the boxes at an IoU above 0.4 and that of the class "No '
        'finding". Every image without a lesion has the same one-pixel box of this class, and '
        "each image predicts it with 1 − image score; so half of the score ranks images and no "
        "boxes, and a better image score alone raises it. Images of equal scores form one step.",
        family="vinbigdata",
        undefined="no evaluated image has a true box, or every one has",
        needs=("boxes",),
    ),
    _called_boxes(
        "box_f1",
        "F1 of the boxes at IoU 0.5",
        "Harmonic mean of the share of called boxes that match a lesion by an IoU of at least 0.5, "
        "and of the share of lesions that one matches. A lesion takes one box; every other called "
        "box is false. Boxes are called by the cut of the RSNA 2018 score; boxes without scores "
        "are all called.",
        family="called_boxes",
        undefined="no evaluated image has a true box or a called one",
    ),
    _called_boxes(
        "false_marks",
        "False marks per image",
        "Mean number of called boxes that hit no lesion by an IoU of at least 0.2. Read it beside "
        "the F1 of the boxes: a system that calls nothing has none.",
        family="called_boxes",
        undefined="localisation is evaluated on no image",
        direction="lower",
        unbounded=True,
        partners=("box_f1",),
    ),
    _point(
        "localised_sensitivity",
        "Localised sensitivity",
        "Share of the positive images that are called positive and whose point (centre of the most "
        "confident box, or peak of the activation map) lies on a true lesion or its border. An "
        "image without a point counts as missed.",
        partners=("specificity",),
        needs=("threshold", "point"),
    ),
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_IMAGE_METRICS,
        *_LOCALISATION_METRICS,
        *_BOX_METRICS,
        *_CALIBRATION_METRICS,
        *_COUNT_METRICS,
    )
}
"""Every metric by its short name; metrics of a family are in the order of its function."""


def family(name: str) -> tuple[str, ...]:
    """Return the short names of the metrics that one function computes together, in its order.

    An unknown group has none.

    Example:
        >>> family("counts")
        ('tp', 'fp', 'tn', 'fn')
    """
    return tuple(metric.name for metric in METRICS.values() if metric.family == name)


def metric_title(metric: str) -> str:
    """Return the title of a metric; for an unknown metric, the short name without underscores."""
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ")


def why_undefined(metric: str, n_positive: int | None = None, n_images: int | None = None) -> str:
    """Return the reason why a metric is undefined on a set of images, as a clause.

    Example:
        >>> why_undefined("recall"), why_undefined("auroc"), why_undefined("auroc", 0, 20)
        ('no image is positive', 'no image is positive or none is negative', 'no image is positive')
    """
    absent = "positive or none is negative"
    if n_images and n_positive == 0:
        absent = "positive"
    if n_images and n_positive == n_images:
        absent = "negative"
    reason = METRICS[metric].undefined if metric in METRICS else Metric.undefined
    return reason.format(absent=absent)
