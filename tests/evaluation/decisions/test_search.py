"""The search sees validation only, with the report's own figures, and decides by folds."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import write_table
from evaluation.boxes.box_metrics import WeightedFroc, WeightedRsnaScore, average_precision
from evaluation.boxes.fusion import AS_STORED
from evaluation.boxes.matching import pair_boxes
from evaluation.compare.compare import compare_systems
from evaluation.decisions.decision import Decision
from evaluation.decisions.search import Search, SearchImages, _search_space, choose, run_search
from evaluation.decisions.test_set import SystemOutput, _patients_of
from evaluation.decisions.thresholds import choose_threshold
from evaluation.decisions.tuning import checked_decision, tune
from evaluation.metrics.image_metrics import classification_metrics
from evaluation.statistics.bootstrap import cluster_index, patient_folds

OBJECTIVES = ("auroc", "f1", "ap50", "rsna", "froc")


@pytest.fixture
def detector(predict):
    return predict("A", "boxes", seed=1)


@pytest.fixture
def laid_out(detector, test_set, judged_set, target):
    ids = judged_set.image_ids("val")
    output = SystemOutput(detector, target, ids)
    return SearchImages.of(output, judged_set.labels(target).reindex(ids), test_set)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_figure_of_the_search_is_the_figure_of_the_report(
    objective, detector, judged_set, target, laid_out
):
    result = run_search(laid_out, Search("default", objective))
    ids = judged_set.image_ids("val")
    output = SystemOutput(detector, target, ids, result.rule, judged_set.images)
    scores, truth = output.scores(result.reduction), judged_set.target_boxes(target)
    pairs = pair_boxes(output.predicted_boxes, truth, ids)
    each, once = np.arange(len(ids)), np.ones((1, len(ids)), int)
    threshold = choose_threshold(laid_out.y_true, scores).threshold
    image_level = classification_metrics(laid_out.y_true, scores, threshold)
    reported = {
        "auroc": image_level["auroc"],
        "f1": image_level["f1"],
        "ap50": average_precision(output.predicted_boxes, truth, ids)["ap50"],
        "rsna": WeightedRsnaScore(pairs, each, len(ids), [result.cut])(once)[0, 0],
        "froc": WeightedFroc(pairs, each, len(ids))(once)[0],
    }
    assert result.record["chosen"]["validation"] == pytest.approx(reported[objective], abs=1e-12)
    assert result.best[0]["folds"] == pytest.approx(result.record["chosen"]["folds"], abs=1e-9)


def test_the_fold_figure_is_the_mean_over_folds_each_judged_alone(
    detector, judged_set, target, laid_out
):
    result = run_search(laid_out, Search("default", "ap50"))
    output = SystemOutput(detector, target, laid_out.image_ids, result.rule, judged_set.images)
    alone = [
        average_precision(
            output.predicted_boxes, laid_out.truth, laid_out.image_ids[laid_out.folds == fold]
        )["ap50"]
        for fold in range(laid_out.n_folds)
    ]
    assert result.record["chosen"]["folds"] == pytest.approx(np.mean(alone), abs=1e-12)


def test_lesions_drawn_too_large_are_scaled_back(predict, test_set):
    system = predict("A", "boxes", seed=1, skill=4.0)
    part = system.folder / "boxes.parquet" / "part-00000.parquet"
    boxes = system.boxes.copy()
    large = boxes["x2"] - boxes["x1"] > 25
    boxes.loc[large, ["x1", "y1"]] -= 6
    boxes.loc[large, ["x2", "y2"]] += 6
    boxes[["x1", "y1"]] = boxes[["x1", "y1"]].clip(lower=0)
    write_table(boxes, part, "predicted_boxes")
    system.__dict__.pop("boxes")
    decision = tune(system, test_set, search=Search("boxes", "rsna"))
    assert decision.boxes.scale < 0.95
    assert decision.search["chosen"]["folds"] > decision.search["boxes_as_stored"]["folds"]


def test_folds_keep_patients_whole_and_spread_the_positive_ones(judged_set, target, laid_out):
    patients = _patients_of(judged_set.images, laid_out.image_ids)
    owner, n_patients = cluster_index(patients)
    assert all(len(np.unique(laid_out.folds[owner == one])) == 1 for one in range(n_patients))
    positive = [laid_out.y_true[laid_out.folds == fold].any() for fold in range(5)]
    assert all(positive)
    order = np.random.default_rng(0).permutation(len(patients))
    again = patient_folds(patients[order], laid_out.y_true[order])
    np.testing.assert_array_equal(again, laid_out.folds[order])


def test_too_few_patients_are_refused(judged_set):
    with pytest.raises(InputError, match="tune without --search"):
        patient_folds(np.array(["a", "b", "c"]), np.array([True, False, False]))


def test_among_equal_settings_the_first_and_simplest_wins():
    figures = np.array([[0.5, 0.7, 0.1], [0.7, 0.5, 0.9], [np.nan, 0.6, 0.9]])
    chosen = choose(figures, np.array([False, True, False]))
    assert chosen.best == 0
    assert chosen.plain == (pytest.approx(0.6), 0.9)
    assert [leader[0] for leader in chosen.leaders] == [0, 1, 2]


def test_the_held_out_figure_is_what_the_other_folds_would_have_chosen():
    # Each fold has its own lucky setting: held out, the luck is gone.
    figures = np.hstack([np.eye(4), np.full((4, 1), 0.9)])
    chosen = choose(figures)
    assert chosen.folds == pytest.approx(0.25)
    assert chosen.held_out == 0.0


def test_nothing_defined_is_told_as_undefined():
    chosen = choose(np.full((2, 3), np.nan))
    assert (chosen.best, chosen.folds, chosen.held_out) == (0, None, None)


def test_every_space_begins_with_the_stored_boxes_and_repeats_nothing():
    for name in ("default", "boxes"):
        space = _search_space(name)
        assert space.fusions[0] == AS_STORED
        assert space.scales[0] == 1.0
        assert len(set(space.fusions)) == len(space.fusions)
        assert len(set(space.scales)) == len(space.scales)
        assert list(space.cuts) == sorted(set(space.cuts))


@pytest.mark.parametrize("objective", ["auroc", "rsna"])
def test_every_setting_is_counted_and_every_step_told(objective, laid_out):
    search, steps = Search("default", objective), []
    space = _search_space("default")
    result = run_search(laid_out, search, steps.append)
    assert sum(steps) == search.n_steps
    fusions, reductions, cuts = len(space.fusions), len(space.reductions), len(space.cuts)
    expected = {
        "auroc": fusions * reductions + cuts,
        "rsna": fusions * len(space.scales) * cuts + reductions,
    }
    assert result.record["settings_tried"] == expected[objective]


def test_the_decision_is_derived_again_whole_and_a_hand_picked_one_refused(detector, test_set):
    decision = tune(detector, test_set, search=Search("default", "ap50"))
    detector.write_decision("opacity", decision.to_dict())
    stored = Decision.from_dict(detector.decision("opacity"))
    assert stored.difference(decision) is None
    checked, notes = checked_decision("A", detector, test_set, ())
    assert (checked.boxes, notes) == (decision.boxes, [])
    forged = decision.to_dict()
    forged["box_fusion"] = replace(decision.boxes, scale=0.5).to_dict()
    detector.write_decision("opacity", forged)
    with pytest.raises(InputError, match=r"box_fusion\S* .*run cxr tune again"):
        checked_decision("A", detector, test_set, ())


def test_compare_judges_the_boxes_that_the_search_chose(predict, test_set, judged_set, target):
    detector = predict("A", "boxes", seed=1)
    decision = tune(detector, test_set, search=Search("default", "ap50"))
    assert decision.boxes.changes_boxes
    detector.write_decision("opacity", decision.to_dict())
    comparison = compare_systems({"A": detector}, test_set, replicates=100)
    tested = judged_set.image_ids("test")
    boxes = SystemOutput(
        detector, target, tested, decision.boxes, judged_set.images
    ).predicted_boxes
    expected = average_precision(boxes, judged_set.target_boxes(target), tested)
    rows = comparison.metrics
    assert rows.loc[rows["metric"] == "ap50", "estimate"].tolist() == [expected["ap50"]]
    assert comparison.systems["A"].boxes[["x1", "score"]].equals(boxes[["x1", "score"]])


def test_the_search_never_reads_a_test_image(predict, test_set, judged_set):
    whole = tune(predict("A", "boxes", seed=1), test_set, search=Search())
    tested = judged_set.image_ids("test")
    part = predict("B", "boxes", seed=1, skip=())
    boxes = part.boxes[~part.boxes["image_id"].isin(tested)]
    write_table(boxes, part.folder / "boxes.parquet" / "part-00000.parquet", "predicted_boxes")
    part.__dict__.pop("boxes")
    alone = tune(part, test_set, search=Search())
    assert alone.search == whole.search
    assert alone.thresholds == whole.thresholds


def test_without_lesions_only_image_objectives_remain(detector, judged_set, target, laid_out):
    bare = replace(laid_out, truth=laid_out.truth.iloc[:0])
    assert run_search(bare, Search("boxes", "auroc")).cut is None
    with pytest.raises(InputError, match="choose auroc or f1"):
        run_search(bare, Search("boxes", "froc"))


@pytest.mark.parametrize("wrong", [("full", "auroc"), ("boxes", "iou")])
def test_unknown_words_are_refused(wrong):
    with pytest.raises(InputError, match="choose one of"):
        Search(*wrong)
