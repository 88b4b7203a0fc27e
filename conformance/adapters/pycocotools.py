"""pycocotools, and any program with its interface."""

from collections.abc import Callable

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conformance.cases import Case

PACKAGE = "pycocotools"
CHOSEN = "`imgIds`: the images of the case"


def average_precision(case: Case, coco, evaluator) -> dict[str, float | None]:
    """Return AP50 and AP; its -1 for "no true box" is undefined."""
    boxed = {row[0] for row in [*case.truth, *case.boxes]}
    images = [*case.images, *sorted(boxed - set(case.images))]

    def entry(image, x1, y1, x2, y2, kind):
        number = images.index(image) + 1
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        return {"image_id": number, "category_id": case.classes.index(kind) + 1, **box}

    truth = coco()
    truth.dataset = {
        "images": [{"id": number + 1} for number in range(len(images))],
        "categories": [
            {"id": k + 1, "name": kind or "lesion"} for k, kind in enumerate(case.classes)
        ],
        "annotations": [
            {"id": number, "iscrowd": int(row[6]), **entry(*row[:6])}
            for number, row in enumerate(case.truth, start=1)
        ],
    }
    truth.createIndex()
    boxes = truth.loadRes([{"score": row[5], **entry(*row[:5], kind=row[6])} for row in case.boxes])
    run = evaluator(truth, boxes, "bbox")
    run.params.imgIds = [number + 1 for number in range(len(case.images))]
    run.evaluate()
    run.accumulate()
    precision = np.asarray(run.eval["precision"])[..., 0, -1]  # all areas, at most 100 boxes
    known = {"ap50": precision[0][precision[0] > -1], "ap": precision[precision > -1]}
    return {name: float(part.mean()) if part.size else None for name, part in known.items()}


def figures(coco, evaluator) -> dict[str, Callable[[Case], float | None]]:
    """Return the functions of AP50 and of AP, the mean over the cuts 0.50 to 0.95."""
    return {
        "ap50": lambda case: average_precision(case, coco, evaluator)["ap50"],
        "ap": lambda case: average_precision(case, coco, evaluator)["ap"],
    }


FIGURES = figures(COCO, COCOeval)
