"""mean-average-precision: soft matching and 101 recalls, which its README names COCO's."""

import numpy as np
from mean_average_precision import MetricBuilder

from conformance.cases import Case

PACKAGE = "mean-average-precision"
CHOSEN = (
    "`mpolicy='soft'`, 101 `recall_thresholds` and COCO's `iou_thresholds`, which its README "
    "names COCO's metric"
)
RECALLS = np.arange(0.0, 1.01, 0.01)


def value(case: Case, cuts: np.ndarray) -> float:
    """Return the mean over classes and cuts."""
    metric = MetricBuilder.build_evaluation_metric("map_2d", num_classes=len(case.classes))
    for image in case.images:
        truth, found = case.rows(image)
        true = [(*r[1:5], case.classes.index(r[5]), 0, int(r[6])) for r in truth]
        boxes = [(*r[1:5], case.classes.index(r[6]), r[5]) for r in found]
        metric.add(np.array(boxes).reshape(-1, 6), np.array(true).reshape(-1, 7))
    return float(metric.value(cuts, recall_thresholds=RECALLS, mpolicy="soft")["mAP"])


def ap50(case: Case) -> float:
    """Return AP at an IoU of 0.50."""
    return value(case, np.array([0.5]))


def ap(case: Case) -> float:
    """Return AP, the mean over the cuts."""
    return value(case, np.arange(0.5, 1.0, 0.05))


FIGURES = {"ap50": ap50, "ap": ap}
