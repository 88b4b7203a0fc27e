"""object-detection-metrics: Pascal VOC's average precision over every recall, at an IoU of 0.5."""

from podm.metrics import BoundingBox, MetricPerClass, get_pascal_voc_metrics

from conformance.cases import Case

PACKAGE = "object-detection-metrics"


def ap50(case: Case) -> float:
    """Return the mean over classes; it knows no crowds."""
    rows = [case.rows(image) for image in case.images]
    truth = [BoundingBox.of_bbox(r[0], r[5], *r[1:5]) for true, _ in rows for r in true if not r[6]]
    found = [BoundingBox.of_bbox(r[0], r[6], *r[1:5], r[5]) for _, boxes in rows for r in boxes]
    return float(MetricPerClass.mAP(get_pascal_voc_metrics(truth, found)))


FIGURES = {"ap50": ap50}
