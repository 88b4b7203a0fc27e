"""Boxes read from maps: the rule on hand-made maps, and its choice on validation alone."""

import numpy as np
import pandas as pd
import pytest

from data_prep.contracts.errors import InputError
from evaluation.boxes.iou import CORNERS
from evaluation.boxes.map_boxes import MapBoxRule, boxes_from_map
from evaluation.compare.compare import compare_systems
from evaluation.decisions.decision import Decision
from evaluation.decisions.search import Search
from evaluation.decisions.tuning import checked_decision, tune


def table(*grids, frame=(0.0, 0.0, 80.0, 80.0)):
    rows = []
    for number, grid in enumerate(grids):
        values = np.asarray(grid, dtype=np.float32)
        rows.append((f"i{number}", "f", "cam", *values.shape, values.ravel(), *frame))
    names = ["image_id", "finding", "method", "grid_h", "grid_w", "values", *CORNERS]
    return pd.DataFrame(rows, columns=names)


@pytest.fixture
def two_spots():
    """A strong spot in rows and columns 1 to 2, a weak one in rows and columns 5 to 6."""
    grid = np.zeros((8, 8))
    grid[1:3, 1:3], grid[5:7, 5:7] = 4.0, 2.0
    return table(grid, grid / 10)


@pytest.fixture
def scores():
    return pd.Series({"i0": 0.8, "i1": 0.5})


def test_the_rule_gives_the_boxes_of_its_level(two_spots, scores):
    expected = boxes_from_map(two_spots, scores, scale=(0.0, 4.0), level=0.3)
    assert len(expected) == 2
    found = MapBoxRule(0.3).apply(two_spots, scores, (0.0, 4.0))
    pd.testing.assert_frame_equal(found, expected)


def test_a_map_without_evidence_has_no_box():
    maps = table([[-3.0, -1.0]], [[0.0, 0.0]])
    certain = pd.Series({"i0": 1.0, "i1": 1.0})
    assert boxes_from_map(maps, certain, scale=(0.0, 1.0), level=0.5).empty


@pytest.fixture
def target(judged_set):
    return judged_set.target()


@pytest.fixture
def classifier(predict):
    return predict("C", maps=True, skill=2.5, seed=3)


def test_a_classifier_enters_the_table_of_places(classifier, predict, judged_set, target):
    decision = tune(classifier, judged_set, target)
    classifier.write_decision(target.name, decision.to_json())
    read = Decision.from_json(classifier.decision(target.name))
    assert read.map_boxes == decision.map_boxes
    checked, notes = checked_decision("C", classifier, judged_set, target, "default", ())
    assert checked.map_boxes == decision.map_boxes
    assert notes == []
    systems = {"A": predict("A", "boxes", seed=1), "C": classifier}
    comparison = compare_systems(systems, judged_set, target, replicates=50)
    places = ["ap50", "rsna_score", "froc_mean", "pointing_accuracy"]
    places += [f"iobb_{kind}_{t}" for kind in ("accuracy", "false_marks") for t in (10, 25, 50)]
    for name in systems:
        for metric in places:
            assert comparison.figures.of(name, metric).estimate is not None, metric


def test_a_classifier_has_a_level_and_a_cut(classifier, judged_set, target):
    decision = tune(classifier, judged_set, target)
    assert decision.to_json()["map_box_level"] == decision.map_boxes.level
    assert decision.box_cut is not None


@pytest.mark.parametrize("maps", [True, False])
def test_a_search_on_a_classifier_is_refused(maps, predict, judged_set, target):
    with pytest.raises(InputError, match="no boxes to search; tune it without --search"):
        tune(predict("B", maps=maps), judged_set, target, search=Search("default", "ap50"))


def test_a_decision_of_a_search_over_map_boxes_is_refused(classifier, judged_set, target):
    payload = tune(classifier, judged_set, target).to_json()
    assert Decision.from_json(payload | {"map_boxes": None}).map_boxes is not None
    with pytest.raises(InputError, match="run cxr tune again"):
        Decision.from_json(payload | {"map_boxes": {"level": 0.3, "level_of": "peak"}})
