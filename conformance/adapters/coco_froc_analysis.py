"""coco-froc-analysis: FROC of COCO files, hits by IoU; its default is a centre in a lesion."""

from functools import partial

from coco_froc_analysis.froc.froc_curve import calc_scores, froc_point

from conformance.cases import RATES, Case

PACKAGE = "coco-froc-analysis"
CHOSEN = "`use_iou=True`, `iou_thres=0.2`: its default is a centre in a lesion"


def froc(rates: list[float], case: Case) -> float:
    """Return the mean over rates of the best sensitivity within each, at each score."""
    number = {image: k for k, image in enumerate(case.images)}

    def entry(row):
        image, x1, y1, x2, y2 = row[:5]
        return {"image_id": number[image], "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}

    truth = {
        "images": [{"id": k} for k in number.values()],
        "categories": [{"id": 1, "name": "lesion"}],
        "annotations": [entry(row) for row in case.truth],
    }
    boxes = [{"score": row[5], **entry(row)} for row in case.boxes]
    points = []
    for cut in {1.0, *(row[5] - 1e-9 for row in case.boxes)}:  # a score must exceed the cut
        found, false = calc_scores(froc_point(truth, boxes, cut, True, 0.2), {}, {})
        points.append((false[1][0], found[1][0]))
    return sum(max(s for f, s in points if f <= rate) for rate in rates) / len(rates)


FIGURES = {f"froc_at_{name}": partial(froc, [rate]) for name, rate in RATES.items()}
FIGURES["froc_mean"] = partial(froc, list(RATES.values()))
