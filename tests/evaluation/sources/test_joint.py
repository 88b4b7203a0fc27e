"""Joint systems: weights from validation patients alone, boxes gated by the joint score."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.sources.ensemble import join_systems
from cxr_compare.evaluation.sources.joint import gate_boxes
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.statistics.calibration import clipped_logit
from cxr_compare.evaluation.statistics.folds import patient_folds
from cxr_compare.evaluation.statistics.joint_score import cross_fitted_scores, fit_joint_score


@pytest.fixture
def members(predict):
    detector = predict("D", "boxes", seed=1)
    return [detector, predict("C", "scores", seed=2, maps=True)]


@pytest.fixture
def joint(members, evaluation_set, tmp_path):
    return join_systems(members, evaluation_set, tmp_path / "joint")


def sample(n, seed=0, skill=(1.5, 1.2)):
    rng = np.random.default_rng(seed)
    y_true = np.arange(n) % 3 == 0
    evidence = rng.standard_normal((n, 2)) + np.array(skill) * y_true[:, None]
    return y_true, 1 / (1 + np.exp(-evidence))


def test_weights_are_those_of_scikit_learn():
    y_true, scores = sample(300)
    fit = fit_joint_score(y_true, scores)
    logits = clipped_logit(scores)
    oracle = LogisticRegression(C=10, tol=1e-10, max_iter=1000)
    oracle.fit((logits - logits.mean(axis=0)) / logits.std(axis=0), y_true)
    np.testing.assert_allclose(fit.weights, oracle.coef_[0] / logits.std(axis=0), rtol=1e-5)
    expected = oracle.predict_proba((logits - logits.mean(axis=0)) / logits.std(axis=0))[:, 1]
    np.testing.assert_allclose(fit.probability(scores), expected, rtol=1e-5)


def test_scores_of_exactly_0_and_1_and_separated_classes_give_finite_weights():
    y_true = np.arange(20) < 10
    scores = np.column_stack([y_true.astype(float), np.full(20, 0.5)])
    fit = fit_joint_score(y_true, scores)
    assert fit.weights[1] == 0  # a constant score says nothing
    joint = fit.probability(scores)
    assert 0.9 < joint[:10].min() <= joint.max() < 1
    assert 0 < joint.min() <= joint[10:].max() < 0.1


def test_images_without_a_box_do_not_bend_the_weights_of_all_others():
    y_true, scores = sample(600)
    silent = np.arange(600) % 7 == 0  # says nothing about the label
    gaps = scores.copy()
    gaps[silent, 0] = 0.0
    fit, full = fit_joint_score(y_true, gaps), fit_joint_score(y_true, scores)
    assert fit.weights[0] == pytest.approx(full.weights[0], rel=0.15)
    typical = fit.weights[0] * clipped_logit(np.median(scores[:, 0]))
    assert abs(fit.at_zero[0] - typical) < 1.5  # near the middle of all images, not below them


def test_a_validation_image_is_scored_by_weights_of_other_patients():
    y_true, scores = sample(120)
    patients = np.array([f"p{number // 2}" for number in range(120)])
    joint = cross_fitted_scores(y_true, scores, patients)
    folds = patient_folds(patients, y_true)
    others = folds != folds[0]
    own = fit_joint_score(y_true[others], scores[others]).probability(scores[:1])
    assert joint[0] == pytest.approx(own[0], abs=1e-12)


def test_boxes_of_an_image_are_gated_as_named():
    boxes = pd.DataFrame({"image_id": ["a", "a", "b"], "score": [0.8, 0.4, 0.5]})
    scores = pd.Series({"a": 0.2, "b": 0.9, "c": 0.1})
    assert gate_boxes(boxes, scores, "rescaled")["score"].tolist() == [0.2, 0.1, 0.9]
    assert gate_boxes(boxes, scores, "multiplied")["score"].round(9).tolist() == [0.16, 0.08, 0.45]
    assert gate_boxes(boxes, scores, "untouched")["score"].tolist() == [0.8, 0.4, 0.5]


def test_a_joint_system_has_scores_boxes_and_maps(joint, members):
    assert joint.kind == "both"
    assert set(joint.scores["image_id"]) == set(members[0].images["image_id"])
    assert len(joint.boxes) == len(members[0].boxes)
    assert len(joint.maps) == len(members[1].maps)
    rule = joint.info.ensemble["findings"]["lung_opacity"]
    assert rule["gates_tried"][rule["gate"]] == max(rule["gates_tried"].values())
    assert all(weight > 0 for weight in rule["weights"])


def test_members_may_differ_in_training_images(members, predict, evaluation_set):
    detector, _ = members
    more = predict("More", "scores", seed=2, roles=("train", "val", "test"))
    joint = join_systems([detector, more], evaluation_set)
    assert set(joint.images["image_id"]) == set(detector.images["image_id"])
    lost = evaluation_set.image_ids("val")[0]
    with pytest.raises(InputError, match=lost):
        join_systems([detector, predict("Less", seed=2, skip=(lost,))], evaluation_set)


def test_permuted_test_labels_change_neither_weights_nor_gate(members, evaluation_set, monkeypatch):
    before = join_systems(members, evaluation_set)
    test_ids = set(LabelledSplit(evaluation_set, evaluation_set.target()).truth.ids_of("test"))
    labels = type(evaluation_set).labels

    def permuted(self, target):
        found = labels(self, target)
        is_test = found.index.isin(test_ids)
        found = found.copy()
        found[is_test] = np.random.default_rng(5).permutation(found[is_test])
        return found

    monkeypatch.setattr(type(evaluation_set), "labels", permuted)
    after = join_systems(members, evaluation_set)
    assert after.info.ensemble == before.info.ensemble
    pd.testing.assert_frame_equal(after.scores, before.scores)
    pd.testing.assert_frame_equal(after.boxes, before.boxes)


def test_its_validation_patients_count_as_seen(joint, evaluation_set):
    split = LabelledSplit(evaluation_set, evaluation_set.target())
    fitted = split.truth.labels_of("val").dropna().index
    assert set(joint.seen["image_id"]) == set(fitted)
    assert set(joint.seen["role"]) == {"val"}


def test_validation_without_two_patients_of_each_class_is_refused(
    members, evaluation_set, monkeypatch
):
    labels = type(evaluation_set).labels
    monkeypatch.setattr(type(evaluation_set), "labels", lambda *given: labels(*given) * 0)
    with pytest.raises(InputError, match=r"0 patients with.*'lung_opacity'"):
        join_systems(members, evaluation_set)


def test_three_members_are_joined_with_fused_boxes(members, predict, evaluation_set):
    joint = join_systems([*members, predict("E", "boxes", seed=3)], evaluation_set)
    assert len(joint.info.ensemble["findings"]["lung_opacity"]["weights"]) == 3
    assert joint.kind == "both"
    assert joint.boxes.groupby("image_id").size().max() <= 100


def test_a_member_of_noise_gets_almost_no_weight_and_costs_almost_nothing():
    y_new, new = sample(6000, seed=1, skill=(1.5, 0.0))
    alone = roc_auc_score(y_new, new[:, 0])
    within, costs = [], []
    for seed in range(100, 160):
        y_true, scores = sample(400, seed=seed, skill=(1.5, 0.0))
        fit = fit_joint_score(y_true, scores)
        p = fit.probability(scores)
        design = np.column_stack([np.ones(400), clipped_logit(scores)])
        errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))))
        within.append(abs(fit.weights[1]) < 2 * errors[2])
        costs.append(alone - roc_auc_score(y_new, fit.probability(new)))
    assert np.mean(within) > 0.88  # 0.954 is expected
    assert np.mean(costs) < 0.005
