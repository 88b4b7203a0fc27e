"""Levels of a value of `conformance/figures`: the rules, beside this program's, that give it, too.

Rules of others are loops as they read: pycocotools' number stands in the case; average precision of
Pascal VOC since 2010; free-response curve of CAMELYON16, a mark being the centre of its box.
"""

from tests.oracles import boxes

OF_PATIENTS = ("_se", "_se_by_image", "_low", "_high", "_p", "_mean_of_draws")
RATES = {"1_8": 1 / 8, "1_4": 1 / 4, "1_2": 1 / 2, "1": 1, "2": 2, "4": 4, "8": 8}


def of_value(full_name, case):
    """Return the levels of a value, in the order of the README."""
    figure, data = case["figures"][full_name], case["data"]
    name, _, kind = full_name.partition("@")[0].partition("/")
    rules = {
        "core": figure["kind"] == "counted",
        "coco": isinstance(figure["pycocotools"], int | float)
        and _agrees(_defined(figure["pycocotools"]), figure),
        "camelyon": name.startswith("froc") and _agrees(camelyon(name, data), figure),
        "voc": name == "ap50" and "crowd" not in data and _agrees(voc(kind, data), figure),
        "undefined": figure["value"] is None or _leaves_a_class_out(full_name, case["figures"]),
        "patients": "patients" in data or name.endswith(OF_PATIENTS),
    }
    return [level for level, holds in rules.items() if holds]


def _agrees(value, figure):
    if value is None or figure["value"] is None:
        return value is None and figure["value"] is None
    return abs(value - figure["value"]) <= figure["tolerance"]


def _defined(value):
    return None if value == -1 else value


def _leaves_a_class_out(full_name, figures):
    """True for a mean over classes of which one is undefined."""
    own = [figure["value"] for name, figure in figures.items() if name.startswith(f"{full_name}/")]
    return None in own


def voc(kind, data):
    """AP50 by the area under every recall: a box claims its nearest lesion, found or not."""
    classes = [kind] if kind else data.get("classes", [""])
    values = [_voc_of_class(each, data) for each in classes]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _voc_of_class(kind, data):
    images = data["images"]
    truth = [row for row in data["truth"] if row[0] in images and (*row, "")[5] == kind]
    rows = [row for row in data["boxes"] if row[0] in images and (*row, "")[6] == kind]
    if not truth:
        return None
    found, precision = set(), []
    rows.sort(key=lambda row: (-row[5], images.index(row[0])))
    for rank, row in enumerate(rows, start=1):
        near = [
            (boxes.iou(row[1:5], lesion[1:5]), k)
            for k, lesion in enumerate(truth)
            if lesion[0] == row[0]
        ]
        overlap, nearest = max(near, default=(0, -1), key=lambda pair: pair[0])
        is_hit = overlap >= 0.5 and nearest not in found
        found |= {nearest} if is_hit else set()
        precision.append((len(found) / rank, is_hit))
    highest = 0.0
    area = 0.0
    for value, is_hit in reversed(precision):
        highest = max(highest, value)
        area += highest / len(truth) if is_hit else 0
    return area


def camelyon(name, data):
    """Mean sensitivity at rates, between the operating points on the line that joins them."""
    images = data["images"]
    truth = [row for row in data["truth"] if row[0] in images]
    marks = [row for row in data["boxes"] if row[0] in images]
    if not truth:
        return None
    points = [(0.0, 0.0)]
    for cut in sorted({row[5] for row in marks}, reverse=True):
        called = [row for row in marks if row[5] >= cut]
        hits = [_lesion_at(row, truth) for row in called]
        found = {hit for hit in hits if hit is not None}
        points.append((hits.count(None) / len(images), len(found) / len(truth)))
    rates = RATES.values() if name == "froc_mean" else [RATES[name.removeprefix("froc_at_")]]
    return sum(_between(points, rate) for rate in rates) / len(rates)


def _lesion_at(mark, truth):
    """The lesion under the centre of a mark, of which a pixel has one; None beside all."""
    image, x1, y1, x2, y2 = mark[:5]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    for number, (of_image, left, top, right, bottom, *_) in enumerate(truth):
        if image == of_image and left <= x < right and top <= y < bottom:
            return number
    return None


def _between(points, rate):
    left = max(point for point in points if point[0] <= rate)
    beyond = [point for point in points if point[0] > rate]
    if not beyond:
        return left[1]
    right = min(beyond)
    share = (rate - left[0]) / (right[0] - left[0])
    return left[1] + share * (right[1] - left[1])
