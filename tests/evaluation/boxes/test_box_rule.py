"""From stored boxes to judged boxes."""

import numpy as np
import pandas as pd
import pytest

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES
from evaluation.boxes.box_rule import AS_STORED, BoxRule

RULES = (
    BoxRule("nms", iou=0.3),
    BoxRule("soft_nms_linear", iou=0.3),
    BoxRule("soft_nms_gaussian", sigma=0.5, scale=0.87),
    BoxRule("wbf", iou=0.5, min_score=0.05, confidence="max", scale=1.1),
)


def boxes(*rows):
    """Rows ``image, finding, x1, x2, score``, 10 px high."""
    frame = pd.DataFrame(rows, columns=["image_id", "finding", "x1", "x2", "score"], dtype=object)
    frame = frame.astype({"x1": float, "x2": float, "score": float})
    return frame.assign(y1=0.0, y2=10.0)[["image_id", "finding", *EDGES, "score"]]


@pytest.mark.parametrize("rule", [*RULES, AS_STORED, BoxRule(scale=0.9)])
def test_a_rule_survives_its_file_and_can_be_said(rule):
    assert BoxRule.from_json(rule.to_json()) == rule
    assert rule.words
    assert "scaled" in rule.words or rule.scale == 1


@pytest.mark.parametrize("payload", [{"method": "magic"}, {"method": "nms", "colour": 1}])
def test_an_unknown_rule_is_refused(payload):
    with pytest.raises(InputError, match="run cxr tune again"):
        BoxRule.from_json(payload)


def test_stored_boxes_are_not_touched():
    stored = boxes(("b", "x", 0, 10, 0.2), ("a", "x", 0, 10, 0.9))
    assert AS_STORED.apply(stored) is stored


def test_findings_and_images_never_meet():
    stored = boxes(("a", "x", 0, 10, 0.9), ("a", "y", 0, 10, 0.8), ("b", "x", 0, 10, 0.7))
    for rule in RULES:
        judged = rule.apply(stored.sample(frac=1, random_state=0))
        kept = judged.sort_values("score", ascending=False)
        assert list(zip(kept["image_id"], kept["finding"], strict=True)) == [
            ("a", "x"), ("a", "y"), ("b", "x")
        ]  # fmt: skip
        np.testing.assert_allclose(kept["score"], [0.9, 0.8, 0.7])


def test_scaled_boxes_keep_to_their_own_image():
    stored = boxes(("a", "x", 0, 100, 0.9), ("b", "x", 0, 100, 0.9))
    sizes = pd.DataFrame({"image_id": ["b", "a"], "width": [100, pd.NA], "height": [10, pd.NA]})
    judged = BoxRule(scale=2.0).apply(stored, sizes.astype({"width": "Int64", "height": "Int64"}))
    assert judged[EDGES].to_numpy().tolist() == [[0, 0, 150, 15], [0, 0, 100, 10]]


def test_faint_boxes_are_gone_and_no_boxes_stay_none():
    stored = boxes(("a", "x", 0, 10, 0.9), ("a", "x", 0, 9.9, 0.0015))
    assert len(BoxRule("soft_nms_linear", iou=0.3).apply(stored)) == 1
    for rule in RULES:
        judged = rule.apply(stored.iloc[:0])
        assert judged.empty
        assert judged.columns.tolist() == stored.columns.tolist()
