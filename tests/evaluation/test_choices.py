"""Validation alone chooses thresholds, again in each resample, and what joins two systems."""

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

POLICIES = ["max_f1", "youden", "sensitivity>=0.95", "sensitivity>=0.80", "specificity>=0.90"]


def drawn(n=120, seed=1, per_patient=2):
    """Images of both roles with the scores of two systems, whole hundredths with many ties."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image_id": [f"i{number:03d}" for number in range(n)]})
    table["patient_id"] = [f"p{number // per_patient:03d}" for number in range(n)]
    table["role"] = np.where(np.arange(n) < n // 2, "val", "test")
    table["label"] = (rng.random(n) < 0.4).astype(int)
    for name, skill in (("A", 14), ("B", 8)):
        raw = rng.normal(50 + skill * table["label"], 12)
        table[name] = np.clip(np.round(raw / 2) * 2, 2, 98).astype(int)
    return table


def compared(table, names="AB", replicates=100, **options):
    """Compare systems whose scores are columns of hundredths; rows are matched by image."""
    truth = table[["image_id", "patient_id", "role", "label"]]
    scores = {name: table.set_index("image_id")[name] / 100 for name in names}
    return cxr_compare.compare(scores, truth=truth, replicates=replicates, **options)


def row_of(result, first, second, metric, policy=""):
    """The one row of a figure of a system, or of the difference of two."""
    rows = result.figures
    for column, value in (
        ("first", first),
        ("second", second),
        ("metric", metric),
        ("policy", policy),
    ):
        rows = rows[rows[column] == value]
    (row,) = rows.to_dict("records")
    return row


def interval_of(row):
    return row["estimate"], row["ci_low"], row["ci_high"]


def test_permuted_test_labels_change_nothing_that_is_chosen():
    table = drawn()
    permuted = table.copy()
    test = table["role"] == "test"
    permuted.loc[test, "label"] = np.random.default_rng(3).permutation(table.loc[test, "label"])
    assert (permuted["label"] != table["label"]).sum() > 10
    one, other = (compared(each, policy=POLICIES, both=True) for each in (table, permuted))
    assert len(one.systems) == 3  # and their joint system, whose weights validation chooses
    for name in one.systems:
        assert dict(one.answer.thresholds[name]) == dict(other.answer.thresholds[name])
    chosen = ["image_id", "system", "score", "probability", "decision_max_f1"]
    pd.testing.assert_frame_equal(one.decisions[chosen], other.decisions[chosen])
    for name in one.systems:
        before, after = (row_of(each, name, "", "auroc")["estimate"] for each in (one, other))
        assert before != after


def test_changed_scores_of_validation_change_only_what_is_chosen_there():
    table = drawn()
    raised = table.copy()
    raised.loc[table["role"] == "val", "A"] = np.minimum(table["A"] + 10, 98)
    one, other = (compared(each) for each in (table, raised))
    assert dict(one.answer.thresholds["A"]) != dict(other.answer.thresholds["A"])
    assert dict(one.answer.thresholds["B"]) == dict(other.answer.thresholds["B"])
    before, after = (interval_of(row_of(each, "A", "", "auroc")) for each in (one, other))
    assert before == after


def test_a_system_that_lacks_a_test_image_is_refused_by_name():
    table = drawn(n=80)
    lacking = table["image_id"].iloc[-3]
    scores = {
        "A": table.set_index("image_id")["A"] / 100,
        "B": table[table["image_id"] != lacking].set_index("image_id")["B"] / 100,
    }
    truth = table[["image_id", "patient_id", "role", "label"]]
    with pytest.raises(InputError) as refused:
        cxr_compare.compare(scores, truth=truth, replicates=100)
    assert lacking in str(refused.value)
    assert "B" in str(refused.value)
    common = cxr_compare.compare(scores, truth=truth, images="common", replicates=100)
    left = table[(table["role"] == "test") & (table["image_id"] != lacking)]
    for name in "AB":
        row = row_of(common, name, "", "auroc")
        assert row["n_images"] == len(left)
        assert row["estimate"] == pytest.approx(roc_auc_score(left["label"], left[name]))
    gap = row_of(common, "A", "B", "auroc")
    assert gap["n_images"] == len(left)
    a, b = (roc_auc_score(left["label"], left[name]) for name in "AB")
    assert gap["estimate"] == pytest.approx(a - b)


def boxes_of(table, name, at=10.0):
    """One box on each image whose score is at least 40, and no box on the others."""
    rows = table[table[name] >= 40]
    corners = {"x1": at, "y1": 10.0, "x2": at + 20, "y2": 30.0}
    return pd.DataFrame({"image_id": rows["image_id"], **corners, "score": rows[name] / 100})


def test_boxes_of_another_class_are_never_of_the_finding():
    table = drawn(n=80)
    truth = table[["image_id", "patient_id", "role"]].assign(
        opacity=table["label"], nodule=1 - table["label"]
    )
    own = boxes_of(table, "A").assign(finding="opacity")
    other = boxes_of(table, "B", at=60.0).assign(finding="nodule")
    joined = pd.concat([own, other])
    one, both = (
        cxr_compare.compare({"D": each}, truth=truth, target="opacity", replicates=100)
        for each in (own, joined)
    )
    alone, beside = (interval_of(row_of(each, "D", "", "auroc")) for each in (one, both))
    assert alone == beside


EDGES = ["x1", "y1", "x2", "y2"]
RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


def drawn_members(n=200, seed=6):
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
def members():
    return drawn_members()


@pytest.fixture(scope="module")
def together(members):
    images, true, boxes, scores = members
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


def columns_of(members):
    images, _, boxes, scores = members
    best = boxes.groupby("image_id")["score"].max().reindex(images.index).fillna(0.0)
    return np.column_stack([best, scores])


def test_the_joint_score_is_a_logistic_regression_on_validation_images(members, together):
    images = members[0]
    columns, positive = columns_of(members), (images["label"] == 1).to_numpy()
    assert (columns == 0).sum() > 10
    val = (images["role"] == "val").to_numpy()
    expected = plain_fit(columns[val], positive[val])(columns)
    np.testing.assert_allclose(together["scores"].reindex(images.index), expected, atol=1e-5)


def test_scores_of_validation_images_come_from_a_fit_on_other_patients(members, together):
    images, _, _, scores = members
    held_out = together["held_out"]
    assert set(held_out.index) == set(images.index[images["role"] == "val"])
    assert not np.allclose(held_out, together["scores"][held_out.index], atol=1e-4)
    # The labels of a patient change the scores of others, and not its own.
    validation = images[images["role"] == "val"]
    mixed = validation.groupby("patient_id")["label"].nunique() == 2
    own = images.index[images["patient_id"] == mixed.index[mixed][0]]
    swapped = images.copy()
    swapped.loc[own, "label"] = 1 - swapped.loc[own, "label"]
    systems = {"C": scores, "B": pd.Series(columns_of(members)[:, 0], images.index)}
    nothing = pd.DataFrame(columns=["image_id", *EDGES])
    before, after = (joint.fitted(each, nothing, systems)["held_out"] for each in (images, swapped))
    pd.testing.assert_series_equal(before[own], after[own])
    assert (before != after).sum() > len(before) / 2


def test_test_images_change_no_weight_and_no_gate(members, together):
    images, true, boxes, scores = members
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


@pytest.mark.parametrize(("seed", "gate"), [(1, "rescaled"), (13, "untouched"), (17, "multiplied")])
def test_the_gate_is_the_best_on_validation_by_froc(seed, gate):
    images, true, boxes, scores = drawn_members(seed=seed)
    found = joint.fitted(images, true, {"D": boxes, "C": scores})
    val = images.index[images["role"] == "val"]
    own = true[true["image_id"].isin(val)]
    values = {gate: froc_mean(rows, own, val) for gate, rows in found["by_gate"].items()}
    assert found["gates_tried"] == pytest.approx(values)
    assert found["gate"] == gate == max(values, key=values.get)


@pytest.fixture(scope="module")
def joined(members):
    images, true, boxes, scores = members
    truth = images.rename_axis("image_id").reset_index()
    return cxr_compare.compare(
        {"D": boxes, "C": scores}, truth=truth, boxes=true, both=True, replicates=100
    )


def test_a_comparison_has_the_joint_system_beside_its_members(members, together, joined):
    images = members[0]
    assert joined.systems == ["D", "C", "D + C"]
    own = joined.decisions[joined.decisions["system"] == "D + C"].set_index("image_id")
    tested = images.index[images["role"] == "test"]
    np.testing.assert_allclose(own.loc[tested, "score"], together["scores"][tested], atol=1e-12)
    row = joined.figures.query("first == 'D + C' and second == '' and metric == 'auroc'").iloc[0]
    area = roc_auc_score(images.loc[tested, "label"], together["scores"][tested])
    assert row["estimate"] == pytest.approx(area)
    claims = joined.answer.claims
    assert [(c.first, c.second) for c in claims if c.family == "answer"] == [("D", "C")]
    of_joint = [(c.first, c.second) for c in claims if c.family == "joint"]
    assert of_joint == [("D + C", "D"), ("D + C", "C")]
    # The joint threshold is none of the scores of boxes, so no lesion is found or missed by it.
    assert set(joined.lesions["system"]) == {"D"}


@pytest.mark.parametrize("case", ["one system", "two detectors", "few patients", "ranks"])
def test_what_cannot_be_joined_is_refused(members, case):
    images, true, boxes, scores = members
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
