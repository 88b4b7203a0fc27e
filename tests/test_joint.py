"""Both together: one score by logistic regression on validation, and boxes that it gates."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cxr_compare
from cxr_compare import InputError, metrics
from tests.adapters import joint

EDGES = ["x1", "y1", "x2", "y2"]
RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


def drawn(n=200, seed=6):
    """Images of patients with two each: a detector's boxes, a classifier's scores, true boxes."""
    rng = np.random.default_rng(seed)
    names = [f"i{number:03d}" for number in range(n)]
    images = pd.DataFrame({"patient_id": [f"p{k // 2}" for k in range(n)]}, index=names)
    images["label"] = (rng.random(n) < 0.4).astype(float)
    images["role"] = np.where(np.arange(n) < 0.6 * n, "val", "test")
    positive = images.index[images["label"] == 1]
    low = rng.integers(20, 300, (len(positive), 2))
    true = pd.DataFrame(np.hstack([low, low + 80]), columns=EDGES).assign(image_id=positive)
    found = true[rng.random(len(true)) < 0.8].copy()
    false = pd.DataFrame({"image_id": rng.choice(names, n)})
    false[EDGES[:2]] = rng.integers(0, 300, (n, 2))
    false[EDGES[2:]] = false[EDGES[:2]].to_numpy() + 60
    boxes = pd.concat([found, false], ignore_index=True)
    boxes["score"] = np.r_[rng.beta(4, 3, len(found)), rng.beta(2, 5, n)].round(3).clip(0.01, 0.99)
    logit = 1.4 * images["label"] + rng.normal(-0.5, 1, n)
    scores = (1 / (1 + np.exp(-logit))).round(3)
    return images, true, boxes, scores


@pytest.fixture(scope="module")
def tables():
    return drawn()


@pytest.fixture(scope="module")
def together(tables):
    images, true, boxes, scores = tables
    return joint.fitted(images, true, {"D": boxes, "C": scores})


def log_odds(values):
    return np.log(values) - np.log1p(-values)


def plain_fit(columns, positive):
    """Joint score by scikit-learn; a score of 0, of an image without a box, has its own column."""
    lowest = np.where(columns == 0, 1.0, columns).min(axis=0)

    def design(values):
        return np.hstack([log_odds(np.where(values == 0, lowest, values)), values == 0])

    model = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, tol=1e-10, max_iter=10_000))
    fit = model.fit(design(columns), positive)
    return lambda values: fit.predict_proba(design(values))[:, 1]


def columns_of(tables):
    images, _, boxes, scores = tables
    best = boxes.groupby("image_id")["score"].max().reindex(images.index).fillna(0.0)
    return np.column_stack([best, scores])


def test_the_joint_score_is_a_logistic_regression_on_validation_images(tables, together):
    images = tables[0]
    columns, positive = columns_of(tables), (images["label"] == 1).to_numpy()
    assert (columns == 0).sum() > 10
    val = (images["role"] == "val").to_numpy()
    expected = plain_fit(columns[val], positive[val])(columns)
    np.testing.assert_allclose(together["scores"].reindex(images.index), expected, atol=1e-5)


def test_scores_of_validation_images_come_from_a_fit_on_other_patients(tables, together):
    images, _, _, scores = tables
    held_out = together["held_out"]
    assert set(held_out.index) == set(images.index[images["role"] == "val"])
    assert not np.allclose(held_out, together["scores"][held_out.index], atol=1e-4)
    # The labels of a patient change the scores of others, and not its own.
    validation = images[images["role"] == "val"]
    mixed = validation.groupby("patient_id")["label"].nunique() == 2
    own = images.index[images["patient_id"] == mixed.index[mixed][0]]
    swapped = images.copy()
    swapped.loc[own, "label"] = 1 - swapped.loc[own, "label"]
    systems = {"C": scores, "B": pd.Series(columns_of(tables)[:, 0], images.index)}
    nothing = pd.DataFrame(columns=["image_id", *EDGES])
    before, after = (joint.fitted(each, nothing, systems)["held_out"] for each in (images, swapped))
    pd.testing.assert_series_equal(before[own], after[own])
    assert (before != after).sum() > len(before) / 2


def test_test_images_change_no_weight_and_no_gate(tables, together):
    images, true, boxes, scores = tables
    tested = images.index[images["role"] == "test"]
    changed = images.copy()
    changed.loc[tested, "label"] = 1 - changed.loc[tested, "label"]
    true = true[~true["image_id"].isin(tested)]
    other = joint.fitted(changed, true, {"D": boxes, "C": scores})
    pd.testing.assert_series_equal(other["scores"], together["scores"])
    pd.testing.assert_series_equal(other["held_out"], together["held_out"])
    assert (other["gate"], other["gates_tried"]) == (together["gate"], together["gates_tried"])


def froc_mean(boxes, true, ids):
    curve = metrics.froc(boxes[["image_id", *EDGES, "score"]], true, ids)
    rates, found = curve.false_positives_per_image, curve.sensitivity
    return float(np.mean([found[rates <= rate].max() for rate in RATES]))


@pytest.mark.parametrize(("seed", "gate"), [(6, "rescaled"), (13, "untouched"), (17, "multiplied")])
def test_the_gate_is_the_best_on_validation_by_froc(seed, gate):
    images, true, boxes, scores = drawn(seed=seed)
    found = joint.fitted(images, true, {"D": boxes, "C": scores})
    val = images.index[images["role"] == "val"]
    own = true[true["image_id"].isin(val)]
    values = {gate: froc_mean(rows, own, val) for gate, rows in found["by_gate"].items()}
    assert found["gates_tried"] == pytest.approx(values)
    assert found["gate"] == gate == max(values, key=values.get)


def test_gates_do_to_scores_of_boxes_what_they_are_called(together):
    gates, scores = together["by_gate"], together["held_out"]
    own = gates["untouched"]
    joint_of = scores.reindex(own["image_id"]).to_numpy()
    np.testing.assert_allclose(gates["multiplied"]["score"], own["score"] * joint_of)
    highest = gates["rescaled"].groupby("image_id")["score"].max()
    np.testing.assert_allclose(highest, scores.reindex(highest.index))
    ranks = own.groupby("image_id")["score"].rank()
    pd.testing.assert_series_equal(gates["rescaled"].groupby("image_id")["score"].rank(), ranks)


@pytest.fixture(scope="module")
def compared(tables, tmp_path_factory):
    images, true, boxes, scores = tables
    truth = images.rename_axis("image_id").reset_index()
    out = tmp_path_factory.mktemp("joint") / "report"
    return cxr_compare.compare(
        {"D": boxes, "C": scores}, truth=truth, boxes=true, both=True, out=out, replicates=100
    )


def test_a_comparison_has_the_joint_system_beside_its_members(tables, together, compared):
    images = tables[0]
    assert compared.systems == ["D", "C", "D + C"]
    own = compared.decisions[compared.decisions["system"] == "D + C"].set_index("image_id")
    tested = images.index[images["role"] == "test"]
    np.testing.assert_allclose(own.loc[tested, "score"], together["scores"][tested], atol=1e-12)
    row = compared.figures.query("first == 'D + C' and second == '' and metric == 'auroc'").iloc[0]
    area = roc_auc_score(images.loc[tested, "label"], together["scores"][tested])
    assert row["estimate"] == pytest.approx(area)
    claims = compared.answer.claims
    assert [(c["first"], c["second"]) for c in claims if c["family"] == "answer"] == [("D", "C")]
    of_joint = [(c["first"], c["second"]) for c in claims if c["family"] == "joint"]
    assert of_joint == [("D + C", "D"), ("D + C", "C")]
    # The joint threshold is none of the scores of boxes, so no lesion is found or missed by it.
    assert set(compared.lesions["system"]) == {"D"}


def test_the_rule_is_a_small_file_that_gives_the_scores_again(tables, compared):
    stored = json.loads((compared.folder / "joint.json").read_text())
    rule = stored["rule"]["score"]
    assert stored["rule"]["members"] == ["D", "C"]
    columns = columns_of(tables)
    logit = np.full(len(columns), rule["intercept"])
    for weight, at_zero, values in zip(rule["weights"], rule["at_zero"], columns.T, strict=True):
        term = weight * log_odds(np.where(values == 0, 0.5, values))
        logit += np.where(values == 0, at_zero, term)
    own = compared.decisions[compared.decisions["system"] == "D + C"].set_index("image_id")
    again = pd.Series(1 / (1 + np.exp(-logit)), tables[0].index)[own.index]
    np.testing.assert_allclose(own["score"], again, atol=1e-9)
    assert stored["thresholds"] == dict(compared.answer.thresholds["D + C"])


@pytest.mark.parametrize("case", ["one system", "two detectors", "few patients", "ranks"])
def test_what_cannot_be_joined_is_refused(tables, case):
    images, true, boxes, scores = tables
    truth = images.rename_axis("image_id").reset_index()
    systems = {"D": boxes, "C": scores}
    options = {}
    if case == "one system":
        systems = {"D": boxes}
    elif case == "two detectors":
        systems = {"D": boxes, "E": boxes.assign(score=boxes["score"] / 2)}
    elif case == "few patients":
        truth.loc[truth["role"] == "val", "label"] = 0.0
        truth.loc[0, "label"] = 1.0
        true = true[true["image_id"].isin(truth.loc[truth["label"] == 1, "image_id"])]
    else:
        systems = {"D": boxes, "C": 10 * scores}
        options = {"columns": ["C.score=score"]}
    with pytest.raises(InputError) as refused:
        cxr_compare.compare(systems, truth=truth, boxes=true, both=True, replicates=100, **options)
    assert str(refused.value).startswith(("both: ", "C: "))


def two_scores(n=600, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"i{number:03d}" for number in range(n)]
    images = pd.DataFrame({"patient_id": names, "role": "val"}, index=names)
    images["label"] = (np.arange(n) % 3 == 0).astype(float)
    logit = rng.standard_normal((n, 2)) + np.outer(images["label"], (1.5, 1.2))
    first, second = (pd.Series(each, names) for each in 1 / (1 + np.exp(-logit.T)))
    return images, first, second


NO_BOXES = pd.DataFrame(columns=["image_id", *EDGES])


def test_images_without_a_box_do_not_bend_the_scores_of_all_others():
    images, first, second = two_scores()
    silent = np.arange(len(images)) % 7 == 0  # which says nothing about the label
    full = joint.fitted(images, NO_BOXES, {"A": first, "B": second})["scores"]
    gaps = joint.fitted(images, NO_BOXES, {"A": first.mask(silent, 0.0), "B": second})["scores"]
    assert np.abs(gaps - full)[~silent].mean() < 0.02
    assert full[~silent].corr(gaps[~silent]) > 0.999
    # A score of 0 is near the middle of all images, and not below each of them.
    assert gaps[silent].median() == pytest.approx(gaps[~silent].median(), abs=0.1)


def test_scores_of_exactly_0_and_1_and_classes_without_overlap_give_finite_scores():
    images, *_ = two_scores(60)
    perfect = images["label"].astype(float)
    found = joint.fitted(images, NO_BOXES, {"A": perfect, "B": pd.Series(0.5, images.index)})
    positive = images["label"] == 1
    assert np.isfinite(found["scores"]).all()
    assert 0 < found["scores"][~positive].max() < 0.1 < 0.9 < found["scores"][positive].min() < 1
