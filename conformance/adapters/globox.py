"""globox: its COCO evaluator."""

from globox import Annotation, AnnotationSet, BoundingBox, COCOEvaluator

from conformance.cases import Case

PACKAGE = "globox"


def evaluator(case: Case) -> COCOEvaluator:
    """Return the evaluator of all images, which globox ranks by id; it knows no crowds."""
    truth, found = AnnotationSet(), AnnotationSet()
    for number, image in enumerate(case.images):
        true, boxes = case.rows(image)
        plain = [
            BoundingBox(label=r[5], xmin=r[1], ymin=r[2], xmax=r[3], ymax=r[4])
            for r in true
            if not r[6]
        ]
        scored = [
            BoundingBox(label=r[6], xmin=r[1], ymin=r[2], xmax=r[3], ymax=r[4], confidence=r[5])
            for r in boxes
        ]
        truth.add(Annotation(f"{number:04}", (1000, 1000), plain))
        found.add(Annotation(f"{number:04}", (1000, 1000), scored))
    return COCOEvaluator(ground_truths=truth, predictions=found, labels=case.classes)


def ap50(case: Case) -> float:
    """Return AP at an IoU of 0.50."""
    return evaluator(case).ap_50()


def ap(case: Case) -> float:
    """Return AP, the mean over the cuts."""
    return evaluator(case).ap()


FIGURES = {"ap50": ap50, "ap": ap}
