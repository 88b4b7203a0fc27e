"""supervision: mean average precision of its metrics module."""

import numpy as np
from supervision import Detections
from supervision.metrics import MeanAveragePrecision

from conformance.cases import Case

PACKAGE = "supervision"


def result(case: Case):
    """Return the result for all images, which are given in their order."""
    metric = MeanAveragePrecision()
    for image in case.images:
        truth, found = case.rows(image)
        true = _detections([r[1:5] for r in truth], [r[5] for r in truth], case)
        true.data["iscrowd"] = np.array([int(r[6]) for r in truth])
        boxes = _detections([r[1:5] for r in found], [r[6] for r in found], case)
        boxes.confidence = np.array([r[5] for r in found], dtype=float)
        metric.update(boxes, true)
    return metric.compute()


def _detections(corners: list, kinds: list, case: Case) -> Detections:
    numbers = np.array([case.classes.index(kind) for kind in kinds], dtype=int)
    return Detections(np.array(corners, dtype=float).reshape(-1, 4), class_id=numbers)


def ap50(case: Case) -> float | None:
    """Return AP at an IoU of 0.50; its -1 is undefined."""
    value = result(case).map50
    return None if value == -1 else value


def ap(case: Case) -> float | None:
    """Return AP, the mean over the cuts; its -1 is undefined."""
    value = result(case).map50_95
    return None if value == -1 else value


FIGURES = {"ap50": ap50, "ap": ap}
