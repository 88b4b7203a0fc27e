"""What validation chooses: the rule, the scale, the thresholds, the probability."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.reduction import CANDIDATES
from cxr_compare.evaluation.reduction_choice import choose_reduction
from cxr_compare.evaluation.sources.read_predictions import (
    read_output,
    store_decision,
    stored_decision,
)
from cxr_compare.evaluation.sources.stored_predictions import read_decision, tune_predictions
from cxr_compare.evaluation.statistics.calibration import fit_platt
from cxr_compare.evaluation.thresholds import choose_threshold
from cxr_compare.evaluation.tuning_options import TuningOptions
from tests.stored_json import bind_tables


class _Scores:
    """Output of which only the image scores are known, by rule."""

    reduces_boxes = True

    def __init__(self, by_rule):
        self.by_rule = by_rule

    def scores(self, reduction):
        return pd.Series(self.by_rule[reduction.rule])


def test_every_rule_is_tried_and_sampling_error_does_not_displace_the_highest_box(
    predict, test_set, evaluation_set, target
):
    system = predict("A", "boxes", seed=1)
    decision = tune_predictions(system, test_set)
    ids = evaluation_set.image_ids("val")
    y_true = evaluation_set.labels(target).reindex(ids)
    output = read_output(system, target, ids)
    expected = [oracle.roc_auc_score(y_true, output.scores(c)) for c in CANDIDATES]
    assert [entry["auroc"] for entry in decision.tried] == pytest.approx(expected, abs=1e-12)
    assert np.argmax(expected) != 0  # noisy-or is a little higher on these few images
    assert decision.reduction == CANDIDATES[0]
    assert len(decision.tried) == len(CANDIDATES)


@pytest.mark.parametrize(
    ("copies", "repeated", "chosen"),
    [(1, False, "max"), (20, False, "top_k"), (20, True, "max")],
    ids=["too few images", "many patients", "many images of few patients"],
)
def test_another_rule_displaces_the_highest_box_where_more_than_chance_says_so(
    copies, repeated, chosen
):
    truth = np.repeat([0, 1], 10)
    rng = np.random.default_rng(0)
    first, second = rng.normal(truth * 0.8, 1.0), rng.normal(truth * 1.8, 1.0)
    assert oracle.roc_auc_score(truth, second) > oracle.roc_auc_score(truth, first)
    rules = {"max": first, "top_k": second, "noisy_or": first}
    output = _Scores({rule: np.tile(scores, copies) for rule, scores in rules.items()})
    images = np.arange(len(truth) * copies)
    patients = (images % len(truth) if repeated else images).astype(str)
    reduced = choose_reduction(output, pd.Series(np.tile(truth, copies)), patients)
    assert reduced.reduction.rule == chosen


def test_a_rule_of_one_score_for_all_is_not_chosen_and_among_equals_the_simplest_wins():
    truth, noise = np.repeat([0, 1], 200), np.random.default_rng(0).normal(size=400)
    level = {"max": np.ones(400), "top_k": truth * 0.5 + np.arange(400) / 2000, "noisy_or": truth}
    equal = {"max": noise, "top_k": truth + noise / 2, "noisy_or": truth + noise / 2}
    for rules in (level, equal):
        reduced = choose_reduction(_Scores(rules), pd.Series(truth), np.arange(400).astype(str))
        assert reduced.reduction.rule == "top_k"


def test_the_rsna_score_gets_the_cut_that_is_best_on_validation(
    predict, test_set, evaluation_set, target
):
    system = predict("A", "boxes", seed=1)
    chosen = tune_predictions(system, test_set).box_cut
    ids = evaluation_set.image_ids("val")
    boxes = read_output(system, target, ids).predicted_boxes
    pairs = pair_boxes(boxes, evaluation_set.target_boxes(target), ids)
    every = np.zeros(len(ids), dtype=int)

    def score(cut):
        return WeightedRsnaScore(pairs, every, 1, [cut])(np.ones((1, 1), dtype=int))[0, 0]

    assert all(score(chosen) >= score(cut) for cut in np.arange(1, 100) / 100)


def test_a_decision_survives_its_file(predict, test_set):
    for system in (predict("A", "boxes", seed=1), predict("B", "scores", seed=2, maps=True)):
        decision = tune_predictions(system, test_set)
        store_decision(system, decision)
        stored = stored_decision(system, "opacity")
        assert stored == decision


def test_a_stored_threshold_that_was_changed_by_hand_is_refused(predict, test_set):
    system = predict("A", "boxes", seed=1)
    choices = tune_predictions(system, test_set)
    store_decision(system, choices)
    assert read_decision("A", system, test_set, []) == choices
    file = system.folder / "decisions" / "opacity.json"
    changed = json.loads(file.read_text())
    changed["chosen_on"]["digest"] = "another"
    file.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="chosen on other scores or labels"):
        read_decision("A", system, test_set, [])


def test_a_broken_file_is_refused(predict):
    system = predict("A", "boxes", seed=1)
    path = store_decision(system, Choices(target="opacity", chosen_on={}))
    path.write_text(path.read_text().replace("chosen_on", "chosen"))
    with pytest.raises(InputError, match=r"opacity\.json: chosen_on"):
        stored_decision(system, "opacity")


def test_validation_figures_are_those_at_the_threshold(predict, test_set, evaluation_set, target):
    system = predict("A", "scores", seed=2)
    decision = tune_predictions(system, test_set)
    ids = evaluation_set.image_ids("val")
    y_true = evaluation_set.labels(target).reindex(ids)
    called = (
        read_output(system, target, ids).scores(None) >= decision.thresholds["max_f1"].threshold
    )
    assert decision.validation["max_f1"]["f1"] == pytest.approx(oracle.f1_score(y_true, called))
    assert decision.validation["sensitivity>=0.95"]["recall"] >= 0.95
    assert decision.validation["specificity>=0.90"]["specificity"] >= 0.90
    assert decision.chosen_on["n_images"] == 100
    assert decision.chosen_on["n_patients"] == 50
    assert decision.chosen_on["n_positive"] == int(y_true.sum())


def test_only_a_classifier_with_maps_gets_a_map_scale_and_a_level(predict, test_set):
    with_maps = tune_predictions(predict("A", maps=True), test_set)
    assert with_maps.map_scale[0] == 0.0
    assert isinstance(with_maps.map_boxes, MapBoxRule)
    assert max(row["froc_mean"] for row in with_maps.boxes_tried) > 0
    without = tune_predictions(predict("B"), test_set)
    assert (without.map_scale, without.map_boxes, without.tried) == (None, None, [])


def test_a_system_without_validation_rows_chooses_nothing(predict, test_set):
    decision = tune_predictions(predict("A", "boxes", roles=("test",)), test_set)
    assert {choice.threshold for choice in decision.thresholds.values()} == {None}
    assert decision.calibration is None
    assert decision.tried == []


def test_a_missing_score_is_refused(predict, test_set):
    system = predict("A")
    scores = system.folder / "scores.parquet" / "part-00000.parquet"
    scores.unlink()
    bind_tables(system.folder)
    system = Predictions.open(system.folder)
    with pytest.raises(InputError, match=r"\b100 images.*lung_opacity"):
        tune_predictions(system, test_set)


def test_a_probability_never_falls_where_the_score_rises():
    truth, scores = np.array([1, 1, 0, 1, 0, 0]), np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
    assert scores[truth == 1].mean() < scores[truth == 0].mean()
    assert fit_platt(truth, scores).probability(scores) == pytest.approx([0.5] * 6)
    assert fit_platt(truth, scores - 0.1).probability(scores - 0.1) == pytest.approx(
        [0.5] * 6, abs=0.1
    )


def test_what_is_asked_for_is_done_recorded_and_derived_again(predict, test_set):
    system = predict("A", "boxes", seed=1)
    options = TuningOptions(calibration="choose", reductions=("max", "noisy_or"))
    decision = tune_predictions(system, test_set, options=options)
    store_decision(system, decision)
    stored = stored_decision(system, "opacity")
    assert stored == decision
    assert stored.options == options
    again = tune_predictions(system, test_set, options=stored.options)
    assert stored == again
    assert {row["rule"] for row in decision.tried if "rule" in row} == {"max", "noisy_or"}
    assert set(decision.losses) == {
        "none", "temperature", "platt", "isotonic",
    }  # fmt: skip


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_a_decision_keeps_what_its_thresholds_were_chosen_on(
    predict, test_set, evaluation_set, unit
):
    decision = tune_predictions(predict("A", seed=1), test_set, unit=unit)
    kept = decision.chosen_scores
    for policy, choice in decision.thresholds.items():
        assert choose_threshold(kept.y_true, kept.scores, policy) == choice
    owners = set(test_set.truth.patients_of(evaluation_set.image_ids("val")))
    assert set(kept.patients) == owners
    if unit == "patient":
        assert len(kept.patients) == len(owners)


@pytest.mark.parametrize("method", ["none", "temperature", "platt", "isotonic"])
def test_a_chosen_calibration_is_used(predict, test_set, method):
    decision = tune_predictions(
        predict("A", seed=1), test_set, options=TuningOptions(calibration=method)
    )
    assert decision.calibration.method == method


def test_a_patient_scores_as_the_highest_of_its_images(predict, test_set, evaluation_set, target):
    system = predict("A", seed=1)
    decision = tune_predictions(system, test_set, unit="patient")
    ids = evaluation_set.image_ids("val")
    table = pd.DataFrame(
        {"patient": test_set.truth.patients_of(ids),
         "label": evaluation_set.labels(target).reindex(ids).to_numpy(),
         "score": read_output(system, target, ids).scores(None).to_numpy()}
    ).groupby("patient").max()  # fmt: skip
    assert len(table) == 50
    expected = choose_threshold(table["label"], table["score"], "max_f1")
    assert decision.thresholds["max_f1"] == expected
    assert decision.validation[""]["auroc"] == pytest.approx(
        oracle.roc_auc_score(table["label"], table["score"])
    )


def test_a_declared_threshold_needs_no_validation(predict, test_set):
    decision = tune_predictions(
        predict("A", roles=("test",)),
        test_set,
        policies=("max_f1", "threshold=0.3"),
    )
    assert decision.thresholds["threshold=0.3"].threshold == 0.3
    assert decision.thresholds["max_f1"].threshold is None


def test_a_classifier_has_no_boxes_to_reduce(predict, test_set):
    with pytest.raises(InputError, match="no boxes to reduce"):
        tune_predictions(predict("A"), test_set, options=TuningOptions(reductions=("max",)))
