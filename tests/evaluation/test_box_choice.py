"""The choice of boxes on validation images."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.box_choice import (
    BOX_CUT,
    BOX_RULE,
    BoxCandidate,
    BoxChoice,
)
from cxr_compare.evaluation.boxes.box_figures import box_figure, check_boxes_by
from cxr_compare.evaluation.boxes.froc import WeightedFroc
from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.map_boxes import map_box_candidates, map_scale
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import (
    OverlappingBoxes,
    OverlapRule,
    StoredPairs,
    overlap_candidates,
)
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.evaluation.tuning_options import TuningOptions

SIDE = 20.0


def box_at(x, y, side=SIDE):
    return [x, y, x + side, y + side]


def images_with_duplicates(n_images=12, seed=0):
    """A lesion in two images of three; each image has a loose second box around its first."""
    rng = np.random.default_rng(seed)
    truth, boxes = [], []
    for number in range(n_images):
        name = f"i{number:02d}"
        x, y = rng.uniform(0, 60, 2)
        if number % 3:
            truth.append([name, *box_at(x, y)])
        sure = rng.uniform(0.4, 0.9) if number % 3 else rng.uniform(0.1, 0.6)
        boxes.append([name, *box_at(x, y), sure])
        # IoU 0.16 with the lesion, which is no hit, and 0.16 with the first box.
        boxes.append([name, *box_at(x, y, 2.5 * SIDE), sure - 0.05])
    columns = ["image_id", "x1", "y1", "x2", "y2"]
    ids = pd.Index([f"i{number:02d}" for number in range(n_images)])
    return (
        ids,
        pd.DataFrame(truth, columns=columns),
        pd.DataFrame(boxes, columns=[*columns, "score"]),
    )


def choice_of(ids, truth, boxes, metric="froc_mean"):
    stored = StoredPairs.on_images(OverlappingBoxes.from_boxes(boxes), truth, ids)
    candidates = [BoxCandidate(*each) for each in overlap_candidates(stored)]
    return BoxChoice(candidates, ids.to_numpy(str), metric)


def test_validation_leaves_out_the_boxes_that_are_false_positives_beside_a_lesion():
    choice = choice_of(*images_with_duplicates())
    assert choice.rule == OverlapRule(0.1)
    tried = {row["boxes"]: row["froc_mean"] for row in choice.figures()}
    assert tried[OverlapRule(0.1).description] > tried[OverlapRule().description]


def test_where_no_box_overlaps_all_stored_boxes_are_kept():
    ids, truth, boxes = images_with_duplicates()
    assert choice_of(ids, truth, boxes.iloc[::2]).rule == OverlapRule(None)


def test_images_without_a_lesion_choose_the_first_rule_and_no_cut():
    ids, truth, boxes = images_with_duplicates()
    choice = choice_of(ids, truth.iloc[:0], boxes)
    assert (choice.rule, choice.cut, choice.is_open) == (OverlapRule(None), None, False)


def test_a_resample_chooses_what_its_images_alone_would_choose():
    ids, truth, boxes = images_with_duplicates(15, seed=3)
    choice = choice_of(ids, truth, boxes)
    weights = np.random.default_rng(1).multinomial(15, np.ones(15) / 15, size=25)
    refitted = choice.refit(np.arange(15), 15)(weights)
    chosen = set()
    for row, weight in enumerate(weights):
        copies = pd.DataFrame({"image_id": np.repeat(ids, weight)})
        copies["new"] = [f"c{number:03d}" for number in range(len(copies))]

        def of_copies(table, copies=copies):
            joined = copies.merge(table, on="image_id")
            return joined.assign(image_id=joined["new"]).drop(columns="new")

        alone = choice_of(pd.Index(copies["new"]), of_copies(truth), of_copies(boxes))
        assert refitted[BOX_RULE][row] == alone.index
        assert refitted[BOX_CUT][row] == pytest.approx(alone.cut)
        chosen.add(alone.index)
    assert len(chosen) > 0


def test_the_figure_that_chooses_is_that_of_the_report():
    ids, truth, boxes = images_with_duplicates()
    pairs = pair_boxes(boxes, truth, ids)
    together = np.zeros(len(ids), dtype=int)
    once = np.ones((1, 1), dtype=int)
    expected = WeightedFroc(find_lesions(pairs), together, 1).figures(once)[0, 0]
    assert box_figure("froc_mean", pairs, together, 1)(once)[0] == expected
    for metric in ("ap50", "ap", "wafroc", "rsna_score", "froc_centre_mean", "ap50_decided"):
        assert 0 <= box_figure(metric, pairs, together, 1)(once)[0] <= 1


@pytest.mark.parametrize("metric", ["auroc", "rsna_score_25", "nonsense"])
def test_a_figure_that_is_not_of_ranked_boxes_cannot_choose(metric):
    with pytest.raises(InputError, match=metric):
        check_boxes_by(metric)
    with pytest.raises(InputError, match=metric):
        TuningOptions(boxes_by=metric)


def test_a_detectors_decision_stores_its_overlap_and_gives_it_again(predict, test_set):
    system = predict("A", "boxes", seed=1)
    decision = tune_predictions(system, test_set)
    read = Choices.read(store_decision(system, decision))
    assert (read.overlap, read.box_cut) == (decision.overlap, decision.box_cut)
    assert next(row["boxes"] for row in read.boxes_tried) == OverlapRule().description
    assert len(read.boxes_tried) == 7
    assert read == decision


def test_a_faint_map_gets_its_box_by_its_own_range_and_an_empty_map_none():
    bright = np.zeros((4, 4))
    bright[0, 0] = 10.0
    faint = np.zeros((4, 4))
    faint[3, 3] = 3.0
    maps = pd.DataFrame(
        {
            "image_id": ["bright", "faint", "empty", "flat"],
            "grid_h": 4,
            "grid_w": 4,
            "values": [bright.ravel(), faint.ravel(), np.arange(16) / 100, np.full(16, 5.0)],
            "x1": 0.0,
            "y1": 0.0,
            "x2": 80.0,
            "y2": 80.0,
        }
    )
    scores = pd.Series({"bright": 0.9, "faint": 0.8, "empty": 0.01, "flat": 0.5})
    by_rule = dict(map_box_candidates(maps, scores, map_scale(maps)))
    relative = next(boxes for rule, boxes in by_rule.items() if rule.relative)
    absolute = next(boxes for rule, boxes in by_rule.items() if not rule.relative)
    assert set(relative["image_id"]) == {"bright", "faint"}
    assert set(absolute["image_id"]) == {"bright"}
