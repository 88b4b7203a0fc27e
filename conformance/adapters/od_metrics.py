"""od-metrics: its COCO defaults."""

from functools import partial

from od_metrics import ODMetrics

from conformance.cases import Case

PACKAGE = "od-metrics"


def average_precision(key: str, case: Case) -> float | None:
    """Return a figure of all images; its -1 is undefined."""
    truth, found = [], []
    for image in case.images:
        true, boxes = case.rows(image)
        truth.append(
            {
                "boxes": [r[1:5] for r in true],
                "labels": [case.classes.index(r[5]) for r in true],
                "iscrowd": [r[6] for r in true],
            }
        )
        found.append(
            {
                "boxes": [r[1:5] for r in boxes],
                "labels": [case.classes.index(r[6]) for r in boxes],
                "scores": [r[5] for r in boxes],
            }
        )
    value = ODMetrics(box_format="xyxy").compute(truth, found)[key]
    return None if value == -1 else float(value)


FIGURES = {
    "ap50": partial(average_precision, "mAP@[.5 | all | 100]"),
    "ap": partial(average_precision, "mAP@[.5:.95 | all | 100]"),
}
