"""Boxes read from maps: the rule on hand-made maps, and its choice on validation alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import write_table
from evaluation.boxes.average_precision import average_precision
from evaluation.boxes.froc import WeightedFroc, WeightedRsnaScore
from evaluation.boxes.iou import CORNERS, pair_boxes
from evaluation.boxes.map_boxes import MapBoxRule, boxes_from_map, map_parts
from evaluation.compare.compare import checked_decision, compare_systems
from evaluation.compare.intervals import find_interval
from evaluation.decisions.map_search import search_levels
from evaluation.decisions.search import Search
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.tuning import Decision, tune

SIZES = pd.DataFrame({"image_id": ["i0", "i1"], "width": [80, 90], "height": [80, 85]})


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


def test_the_plain_rule_gives_the_boxes_of_a_level(two_spots, scores):
    rule = MapBoxRule(0.3)
    assert rule.is_level_alone
    expected = boxes_from_map(two_spots, scores, scale=(0.0, 4.0), level=0.3)
    assert len(expected) == 2
    pd.testing.assert_frame_equal(rule.apply(two_spots, scores, (0.0, 4.0)), expected)


def test_a_level_of_the_maps_own_peak_finds_the_same_parts_in_a_quiet_map(two_spots, scores):
    boxes = MapBoxRule(0.3, "peak").apply(two_spots, scores, (0.0, 4.0))
    loud, quiet = (boxes[boxes["image_id"] == image] for image in ("i0", "i1"))
    np.testing.assert_allclose(loud[CORNERS], quiet[CORNERS])
    # A quiet map's boxes still say that they are: a tenth of the scale, times the image's score.
    np.testing.assert_allclose(quiet["score"], loud["score"] / 10 * 0.5 / 0.8)


def test_scored_by_the_image_the_highest_part_has_its_score(two_spots, scores):
    boxes = MapBoxRule(0.3, "peak", "peak").apply(two_spots, scores, (0.0, 4.0))
    assert boxes.groupby("image_id")["score"].max().to_dict() == pytest.approx(scores.to_dict())
    assert boxes.groupby("image_id")["score"].min().to_dict() == pytest.approx(
        (scores / 2).to_dict()
    )


def test_the_most_keep_the_highest_parts_wherever_they_lie():
    grid = np.zeros((8, 8))
    grid[1, 1], grid[6, 6], grid[1, 6] = 2.0, 4.0, 3.0
    parts = map_parts(table(grid), scale=(0.0, 4.0), level=0.2)
    assert parts.rank.tolist() == np.argsort(np.argsort(-parts.peak)).tolist()
    assert sorted(parts.peak.round()) == [2.0, 3.0, 4.0]
    boxes = MapBoxRule(0.2, most=2).apply(table(grid), pd.Series({"i0": 1.0}), (0.0, 4.0))
    assert (boxes["x1"] > 40).all()
    assert len(boxes) == 2


def test_boxes_are_scaled_about_their_centre_and_end_at_the_picture():
    grid = np.zeros((4, 4))
    grid[0, 0] = grid[3, 3] = 1.0
    frame = (-20.0, -20.0, 100.0, 100.0)  # cells of 30 px; the picture is 90 x 85
    sizes, maps, score = SIZES.iloc[1:].assign(image_id="i0"), table(grid, frame=frame), {"i0": 1.0}
    plain = MapBoxRule(0.5).apply(maps, pd.Series(score), (0.0, 1.0), sizes)
    assert plain["x1"].min() < 0  # as it has always been without a search
    rule = MapBoxRule(0.5, clipped=True)
    boxes = rule.apply(maps, pd.Series(score), (0.0, 1.0), sizes)
    assert boxes[["x1", "y1"]].min().tolist() == [0.0, 0.0]
    assert boxes[["x2", "y2"]].max().tolist() == [90.0, 85.0]
    half = replace(rule, scale=0.5).apply(maps, pd.Series(score), (0.0, 1.0), sizes)
    first, small = plain.iloc[0], half.iloc[0]
    assert small["x2"] == pytest.approx(
        (first["x1"] + first["x2"]) / 2 + (first["x2"] - first["x1"]) / 4
    )


def test_a_part_that_lies_in_the_border_alone_is_no_box():
    grid = np.zeros((4, 4))
    grid[0, 0] = 1.0
    maps = table(grid, frame=(-60.0, -60.0, 60.0, 60.0))
    rule = MapBoxRule(0.5, clipped=True)
    assert rule.apply(maps, pd.Series({"i0": 1.0}), (0.0, 1.0), SIZES).empty


def test_a_map_without_evidence_has_no_part_even_of_its_own_peak():
    maps = table([[-3.0, -1.0]], [[0.0, 0.0]])
    assert len(map_parts(maps, scale=(0.0, 1.0), level=0.5, of="peak").peak) == 0


@pytest.mark.parametrize(
    "rule", [MapBoxRule(0.4), MapBoxRule(0.4, "peak", "peak", 2, 0.9, clipped=True)]
)
def test_a_rule_survives_its_file(rule):
    assert MapBoxRule.from_json(rule.to_json(), rule.level) == rule


def test_an_unknown_rule_is_refused():
    payload = MapBoxRule(0.4, clipped=True).to_json() | {"level_of": "moon"}
    with pytest.raises(InputError, match="run cxr tune again"):
        MapBoxRule.from_json(payload, 0.4)


@pytest.fixture
def target(judged_set):
    return judged_set.target()


@pytest.fixture
def classifier(predict):
    return predict("C", maps=True, skill=2.5, seed=3)


@pytest.mark.parametrize("objective", ["ap50", "rsna", "froc"])
def test_the_figure_of_the_search_is_the_figure_of_the_report(
    objective, classifier, judged_set, target
):
    decision = tune(classifier, judged_set, target, search=Search("default", objective))
    ids = judged_set.image_ids("val")
    output = SystemOutput(classifier, target, ids, sizes=judged_set.images)
    boxes = output.boxes(output.scores(None), decision.map_scale, decision.map_boxes)
    truth = judged_set.target_boxes(target)
    pairs, each = pair_boxes(boxes, truth, ids), np.arange(len(ids))
    once = np.ones((1, len(ids)), int)
    reported = {
        "ap50": average_precision(boxes, truth, ids)["ap50"],
        "rsna": WeightedRsnaScore(pairs, each, len(ids), [decision.box_cut])(once)[0, 0],
        "froc": WeightedFroc(pairs, each, len(ids))(once)[0],
    }
    found = decision.search["chosen"]["validation"]
    assert found == pytest.approx(reported[objective], abs=1e-12)
    alone = decision.search["boxes_as_stored"]["folds"]
    assert decision.search["chosen"]["folds"] >= alone
    assert decision.search["objective"] == objective


def test_the_search_sees_validation_only(classifier, judged_set, target):
    before = tune(classifier, judged_set, target, search=Search("default", "ap50"))
    maps = classifier.maps
    test = maps["image_id"].isin(judged_set.image_ids("test"))
    maps["values"] = [
        np.zeros(25) if other else values
        for values, other in zip(maps["values"], test, strict=True)
    ]
    write_table(maps, classifier.folder / "maps.parquet" / "part-00000.parquet", "maps")
    after = tune(classifier, judged_set, target, search=Search("default", "ap50"))
    assert before.difference(after) is None


def test_a_searched_classifier_enters_the_table_of_places(classifier, predict, judged_set, target):
    decision = tune(classifier, judged_set, target, search=Search("default", "rsna"))
    assert not decision.map_boxes.is_level_alone
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
            assert find_interval(comparison.metrics, name, metric).estimate is not None, metric
    boxes = comparison.boxes["C"]
    assert boxes[["x1", "y1"]].min().min() >= 0
    assert boxes[["x2", "y2"]].max().max() <= 100


def test_without_a_search_a_classifier_has_a_level_and_a_cut(classifier, judged_set, target):
    decision = tune(classifier, judged_set, target)
    assert decision.map_boxes.is_level_alone
    assert decision.to_json()["map_boxes"] is None
    assert decision.box_cut is not None


def test_a_search_that_cannot_change_the_figure_is_refused(classifier, judged_set, target):
    with pytest.raises(InputError, match="choose ap50, rsna or froc"):
        tune(classifier, judged_set, target, search=Search("default", "auroc"))


def test_a_system_without_boxes_and_maps_has_nothing_to_search(predict, judged_set, target):
    with pytest.raises(InputError, match="neither boxes nor maps"):
        tune(predict("B"), judged_set, target, search=Search("default", "ap50"))


def test_steps_are_the_levels_of_the_search(classifier, judged_set, target):
    search, steps = Search("default", "ap50"), []
    tune(classifier, judged_set, target, search=search, advance=steps.append)
    assert sum(steps) == len(search_levels(search))
