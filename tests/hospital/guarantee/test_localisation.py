"""Predictions located on lesions, for guarantees."""

import numpy as np
import pandas as pd

from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.output import System
from cxr_compare.hospital.guarantee.localisation import locate_predictions


def test_a_shown_box_is_one_from_the_threshold_on_or_the_highest():
    """Image a: the highest box lies on the lesion; image b has no lesion and two boxes."""
    ids = pd.Index(["a", "b"], name="image_id")
    images = pd.DataFrame({"image_id": ids, "patient_id": ids, "status": "ok"})
    columns = ["image_id", "x1", "y1", "x2", "y2"]
    lesions = pd.DataFrame([["a", 0.0, 0.0, 4.0, 4.0]], columns=columns)
    roles = pd.Series("val", index=ids)
    labels = pd.DataFrame({"label": [1.0, 0.0]}, index=ids)
    truth = LabelledImages(images, labels, roles, true_boxes=lesions, boxes_trusted=ids)
    rows = [["a", 0.0, 0.0, 4.0, 4.0], ["a", 9.0, 9.0, 12.0, 12.0]]
    rows += [["b", 0.0, 0.0, 4.0, 4.0], ["b", 9.0, 9.0, 12.0, 12.0]]
    boxes = pd.DataFrame(rows, columns=columns).assign(finding="label", score=[0.8, 0.3, 0.6, 0.5])
    output = System("A", "boxes", images, boxes=boxes).output_on(ids)
    scores = np.array([0.7, 0.65])  # as if reduced otherwise
    located = locate_predictions(output, scores, truth, None)
    assert located.on_lesion.tolist() == [True, False]
    shown = sorted(zip(*located.false_boxes, strict=True))
    assert shown == [(0, 0.3), (1, 0.5), (1, 0.65)]  # the highest of b is always shown
