"""The ledger of protocols: the same boxes under twelve of them, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.ledger import PROTOCOLS, figures_by_protocol

pytestmark = pytest.mark.release

SQUARE = {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0}


def figures_of(images):
    boxes = pd.DataFrame([
        {"image_id": "negative", **SQUARE, "score": 0.9},
        {"image_id": "positive", **SQUARE, "y2": 4.5, "score": 0.4},  # IoU 0.45
    ])  # fmt: skip
    truth = pd.DataFrame([{"image_id": "positive", **SQUARE}])
    return dict(zip(PROTOCOLS, figures_by_protocol(boxes, truth, pd.Series(images)), strict=True))


def test_protocols_count_the_same_boxes_by_different_rules():
    figures = figures_of(["negative", "positive"])
    assert figures["COCO AP50, all images"] == figures["positive images only"] == 0
    assert figures["IoU 0.4"] == figures["IoU 0.1"] == 0.5  # the false box comes first
    # 8 of 9 IoU thresholds, 0.1 to 0.45, are passed, and no false box is left.
    assert figures["positive images only, IoU 0.1 to 0.5"] == pytest.approx(8 / 9)


def test_an_image_drawn_twice_counts_twice():
    figures = figures_of(["negative", "positive", "positive"])
    assert figures["IoU 0.4"] == pytest.approx(np.mean([2 / 3] * 101))
