"""hotcoco: pycocotools' interface."""

from hotcoco import COCO, COCOeval

from conformance.adapters.pycocotools import average_precision
from conformance.cases import Case

PACKAGE = "hotcoco"


def ap50(case: Case) -> float | None:
    """Return AP at an IoU of 0.50."""
    return average_precision(case, COCO, COCOeval)["ap50"]


def ap(case: Case) -> float | None:
    """Return AP, the mean over the cuts 0.50 to 0.95."""
    return average_precision(case, COCO, COCOeval)["ap"]


FIGURES = {"ap50": ap50, "ap": ap}
