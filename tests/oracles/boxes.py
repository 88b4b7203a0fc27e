"""Figures of boxes by pycocotools, and by loops as their definitions read.

Boxes are rows ``(image, x1, y1, x2, y2, score)`` in px with continuous edges, true boxes and crowds
the same without a score. An image that is listed twice counts twice, with its boxes: so weights of
patients are tested.
"""

import contextlib
import io
from statistics import median

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


def iou(a, b):
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (both - shared)


def finds(box, lesion):
    """True for a mark that hits a lesion in FROC."""
    return iou(box, lesion) >= 0.2


def points_at(box, lesion):
    """True if the centre of a box lies in a lesion or on its border."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return lesion[0] <= x <= lesion[2] and lesion[1] <= y <= lesion[3]


def per_image(boxes, truth, images):
    """Corners with scores, falling, and lesions of each image of the list; 100 boxes count."""
    for name in images:
        own = [(row[1:5], row[5]) for row in boxes if row[0] == name]
        lesions = [row[1:5] for row in truth if row[0] == name]
        yield sorted(own, key=lambda box: -box[1])[:100], lesions


def _evaluated(annotations, results, images, categories):
    """pycocotools' evaluation of boxes of every size.

    Annotations are ``(image, x1, y1, x2, y2, category, iscrowd)``, results
    ``(image, x1, y1, x2, y2, category, score)``. Images and categories are numbered from 1 in their
    order, which is the order of ties. What pycocotools refuses raises its exception.
    """

    def entry(row):
        image, x1, y1, x2, y2, category, value = row
        return {
            "image_id": images.index(image) + 1 if image in images else len(images) + 1,
            "category_id": categories.index(category) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": value,
            "score": value,
        }

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number + 1} for number in range(len(images))],
            "categories": [{"id": number + 1} for number in range(len(categories))],
            "annotations": [
                {"id": number, **entry(row)} for number, row in enumerate(annotations, start=1)
            ],
        }
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes([entry(row) for row in results]), "bbox")
        evaluator.params.areaRng = evaluator.params.areaRng[:1]
        evaluator.params.areaRngLbl = ["all"]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def coco_figures(annotations, results, images, categories=("",)):
    """AP50 and AP of each category, then of all, as pycocotools gives them; -1 without a truth."""
    evaluator = _evaluated(annotations, results, images, categories)
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # (cuts, recall levels, categories)
    return [
        (_mean_of_known(chosen[0]), _mean_of_known(chosen))
        for chosen in [*(precision[:, :, [k]] for k in range(len(categories))), precision]
    ]


def _mean_of_known(precision):
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def average_precision(boxes, truth, images, crowds=()):
    """AP50 and AP by pycocotools: None without a lesion, 0 without a prediction."""
    annotations, results = [], []
    names = [f"{number}" for number in range(len(images))]  # an image may be listed twice
    for number, name in zip(names, images, strict=True):
        annotations += [(number, *row[1:5], "", 0) for row in truth if row[0] == name]
        annotations += [(number, *row[1:5], "", 1) for row in crowds if row[0] == name]
        results += [(number, *row[1:5], "", row[5]) for row in boxes if row[0] == name]
    if not any(row[6] == 0 for row in annotations):
        return None, None
    if not results:
        return 0.0, 0.0
    return coco_figures(annotations, results, names)[-1]


def froc(boxes, truth, images):
    """Mean sensitivity, and at each rate: the highest of the operating points within the rate."""
    seen = list(per_image(boxes, truth, images))
    n_lesions = sum(len(lesions) for _, lesions in seen)
    if not n_lesions:
        return [None] * 8
    points = [(0.0, 0.0)]
    for cut in {score for own, _ in seen for _, score in own}:
        found = false = 0
        for own, lesions in seen:
            called = [box for box, score in own if score >= cut]
            found += sum(any(finds(box, one) for box in called) for one in lesions)
            false += sum(not any(finds(box, one) for one in lesions) for box in called)
        points.append((false / len(images), found / n_lesions))
    at_rates = [max(found for false, found in points if false <= rate) for rate in RATES]
    return [float(np.mean(at_rates)), *at_rates]


def rsna(boxes, truth, images, cut):
    """Score of the RSNA challenge of 2018 as its evaluation page defines it."""
    scores = []
    for own, lesions in per_image(boxes, truth, images):
        called = [box for box, score in own if score >= cut]
        if not called and not lesions:
            continue
        value = 0.0
        for percent in range(40, 80, 5):
            free, found = list(range(len(lesions))), 0
            for box in called:
                near = [(iou(box, lesions[k]), k) for k in free]
                near = [pair for pair in near if pair[0] > percent / 100]
                if near:
                    free.remove(max(near)[1])
                    found += 1
            value += found / (len(called) + len(lesions) - found) / 8
        scores.append(value)
    return float(np.mean(scores)) if scores else None


def pointing(boxes, truth, images):
    """Share of images with a lesion whose surest box has its centre in one."""
    right = []
    for own, lesions in per_image(boxes, truth, images):
        if lesions:
            top = min(own, key=lambda box: (-box[1], box[0][1], box[0][0]), default=None)
            right.append(top is not None and any(points_at(top[0], one) for one in lesions))
    return float(np.mean(right)) if right else None


def constant_point(rows, draws=()):
    """Best constant point of lesions [image, x1, y1, x2, y2], and of draws of their images.

    Of 101 x 101 points, evenly spaced from the least to the greatest edges, it is the one on the
    lesions of most images; of several the one nearest to their mean, then the uppermost, then the
    leftmost. A draw chooses among the points on at least half as many images as the best one.
    """
    xs, ys = (
        [(least * (100 - step) + greatest * step) / 100 for step in range(101)]
        for least, greatest in (
            (min(row[1] for row in rows), max(row[3] for row in rows)),
            (min(row[2] for row in rows), max(row[4] for row in rows)),
        )
    )
    images = {
        (x, y): {n for n, x1, y1, x2, y2 in rows if x1 <= x <= x2 and y1 <= y <= y2}
        for y in ys
        for x in xs
    }
    most = max(map(len, images.values()))
    likely = {point: on for point, on in images.items() if len(on) >= most / 2}
    chosen = []
    for drawn in ({row[0]: 1 for row in rows}, *draws):
        count = {point: sum(drawn.get(n, 0) for n in on) for point, on in likely.items()}
        best = [point for point in count if count[point] == max(count.values())]
        mean = [sum(values) / len(best) for values in zip(*best, strict=True)]
        away = [round((x - mean[0]) ** 2 + (y - mean[1]) ** 2, 6) for x, y in best]
        chosen.append(best[away.index(min(away))])
    return chosen


def constant_boxes(rows):
    """Best constant boxes of lesions [image, x1, y1, x2, y2].

    Candidates have 25 x 25 centres, evenly spaced from the least to the greatest of the lesions,
    and 0.75 to 1.5 of their median sides. Each position is the candidate that finds most lesions
    (IoU of at least 0.3) that none before it finds; of several the one with the highest sum of IoU
    with these, then the smallest, the uppermost, the leftmost. The search ends when no candidate
    finds a further lesion; if none finds any, the highest sum alone is a position.
    """
    lesions = [row[1:] for row in rows]
    middles = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in lesions]
    width, height = (median(row[axis + 2] - row[axis] for row in lesions) for axis in (0, 1))
    across, down = (
        [(min(values) * (24 - step) + max(values) * step) / 24 for step in range(25)]
        for values in zip(*middles, strict=True)
    )
    candidates = [
        (x - size * width / 2, y - size * height / 2, x + size * width / 2, y + size * height / 2)
        for size in (0.75, 1, 1.25, 1.5)
        for y in down
        for x in across
    ]
    overlaps = {box: [iou(box, lesion) for lesion in lesions] for box in candidates}
    left, positions = set(range(len(lesions))), []
    while left:
        worth = {
            box: (sum(each[n] >= 0.3 for n in left), round(sum(each[n] for n in left), 9))
            for box, each in overlaps.items()
        }
        chosen = max(candidates, key=worth.__getitem__)  # the first of equal ones
        if positions and not worth[chosen][0]:
            break
        positions.append(chosen)
        left = {n for n in left if overlaps[chosen][n] < 0.3}
        if not worth[chosen][0]:
            break
    return positions
