"""The image score of a detector with an image head: its best box, its head, or both joined."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.decided_output import decide
from cxr_compare.evaluation.reduction import CANDIDATES, HEAD_CANDIDATES, Reduction
from cxr_compare.evaluation.sources.read_predictions import (
    read_output,
    store_decision,
    stored_decision,
)
from cxr_compare.evaluation.sources.stored_predictions import (
    read_decision,
    read_validation_scores,
    tune_predictions,
)
from cxr_compare.evaluation.statistics.joint_score import JointScore
from cxr_compare.evaluation.tuning_options import TuningOptions
from tests.compared import compare_predictions


@pytest.fixture
def with_head(predict, tmp_path):
    """A detector whose image scores are those of a head of some skill."""

    def write(skill: float, *, box_skill: float = 1.0) -> Predictions:
        boxes = predict("boxes", "boxes", seed=1, skill=box_skill)
        head = predict("head", "scores", seed=2, skill=skill)
        folder = tmp_path / "with head"
        with PredictionWriter(folder, boxes.info) as writer:
            writer.add(boxes.images, boxes=boxes.boxes, scores=head.scores)
        return Predictions.open(folder)

    return write


def test_validation_takes_a_head_that_ranks_better_and_the_best_box_otherwise(with_head, test_set):
    good = tune_predictions(with_head(6.0, box_skill=0.3), test_set)
    assert [row["rule"] for row in good.tried] == [rule.rule for rule in HEAD_CANDIDATES]
    assert good.reduction.rule in ("head", "joined")


def test_a_head_without_skill_does_not_displace_the_best_box(with_head, test_set):
    assert tune_predictions(with_head(0.0), test_set).reduction == Reduction("max")


def test_a_rule_that_is_asked_for_is_taken_and_survives_its_file(
    with_head, test_set, evaluation_set, target
):
    system = with_head(2.0)
    ids = evaluation_set.image_ids("test")
    output = read_output(system, target, ids)
    head = output.finding_scores.set_index("image_id")["score"].reindex(ids)
    box = output.predicted_boxes.groupby("image_id")["score"].max().reindex(ids, fill_value=0)
    for rule in ("head", "joined"):
        decision = tune_predictions(system, test_set, options=TuningOptions(reductions=(rule,)))
        assert decision.reduction.rule == rule
        store_decision(system, decision)
        assert stored_decision(system, "opacity") == decision
        assert read_decision("A", system, test_set, []) == decision
        joint = decision.reduction.joint
        expected = head if joint is None else joint.probability(np.column_stack([box, head]))
        decided = decide("A", output, decision, "max_f1").decisions["score"]
        np.testing.assert_allclose(decided, expected, rtol=0, atol=1e-12)
    comparison = compare_predictions({"A": system}, test_set, replicates=20)
    rows = comparison.metrics.query("metric == 'auroc' and subgroup == 'all'")
    labels = evaluation_set.labels(target).reindex(ids)
    assert rows["estimate"].iloc[0] == pytest.approx(oracle.roc_auc_score(labels, decided))


def test_thresholds_are_chosen_on_joined_scores_of_other_patients(with_head, test_set):
    system = with_head(2.0)
    joined = TuningOptions(reductions=("joined",))
    decision = tune_predictions(system, test_set, options=joined)
    scores = read_validation_scores(system, decision, test_set)
    np.testing.assert_array_equal(scores["score"], decision.chosen_scores.scores)
    of_the_rule = read_output(system, test_set.target, scores.index).scores(decision.reduction)
    apart = np.abs(of_the_rule - scores["score"])
    assert 0 < apart.max() < 0.2  # the same regression, fitted on four fifths of the patients


def test_the_rules_of_the_boxes_stay_open_to_whoever_asks(with_head, test_set):
    rules = ("max", "top_k", "noisy_or")
    decision = tune_predictions(with_head(2.0), test_set, options=TuningOptions(reductions=rules))
    assert len(decision.tried) == len(CANDIDATES)


@pytest.mark.parametrize("rule", ["head", "joined"])
def test_a_detector_without_a_head_has_no_rule_of_one(predict, test_set, rule):
    system = predict("A", "boxes", seed=1)
    with pytest.raises(InputError, match="image head"):
        tune_predictions(system, test_set, options=TuningOptions(reductions=(rule,)))


def test_a_decision_by_the_head_refuses_boxes_alone(predict, evaluation_set, target):
    ids = evaluation_set.image_ids("test")
    output = read_output(predict("A", "boxes", seed=1), target, ids)
    joint = JointScore(0.0, (1.0, 1.0), (0.0, 0.0))
    for rule in (Reduction("head"), Reduction("joined", joint=joint)):
        with pytest.raises(InputError, match="ran without a score"):
            output.scores(rule)
