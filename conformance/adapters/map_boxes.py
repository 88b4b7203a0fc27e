"""map-boxes: mean average precision as in Google's Open Images, at an IoU of 0.5."""

from map_boxes import mean_average_precision_for_boxes

from conformance.cases import Case

PACKAGE = "map-boxes"
CHOSEN = 'a row of the class "nan" for each image, which lists the images without a true box'


def ap50(case: Case) -> float:
    """Return the mean over classes; a row of class "nan" lists an image, and crowds are unknown."""
    truth, found = [(image, "nan", 0, 0, 0, 0) for image in case.images], []
    for image in case.images:
        true, boxes = case.rows(image)
        truth += [(r[0], r[5] or "lesion", r[1], r[3], r[2], r[4]) for r in true if not r[6]]
        found += [(r[0], r[6] or "lesion", r[5], r[1], r[3], r[2], r[4]) for r in boxes]
    return float(mean_average_precision_for_boxes(truth, found, verbose=False)[0])


FIGURES = {"ap50": ap50}
