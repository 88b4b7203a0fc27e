"""A comparison chooses on validation images alone, again in each resample, and on all images."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import cxr_compare
from cxr_compare import InputError
from tests.oracles import comparison as oracle

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


def test_thresholds_are_those_of_an_exhaustive_search_on_validation():
    table = drawn()
    result = compared(table, policy=POLICIES)
    validation = table[table["role"] == "val"]
    for name in "AB":
        found = dict(result.answer.thresholds[name])
        for policy in POLICIES:
            cut = oracle.threshold(validation["label"].tolist(), validation[name].tolist(), policy)
            assert found[policy] == pytest.approx(float(cut) / 100, abs=1e-12), (name, policy)


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


# Images (label, score of A, score of B) of four patients each, found by trying drawn ones: with the
# thresholds of all validation patients, or with each drawn patient counted once, other intervals.
VALIDATION = [
    [(0, 45, 30), (1, 65, 85), (1, 85, 40)],
    [(0, 60, 55), (1, 65, 80)],
    [(0, 65, 75), (1, 65, 80), (1, 80, 75)],
    [(0, 60, 40), (1, 70, 55)],
]


TEST = [
    [(0, 20, 40), (1, 70, 65)],
    [(0, 35, 65), (1, 75, 55), (0, 45, 50)],
    [(0, 40, 30), (1, 65, 50), (1, 70, 60)],
    [(0, 15, 35), (1, 70, 55), (1, 65, 55)],
]


def rows_of(patients, role):
    return [
        {
            "image_id": f"{role}-{number}-{place}",
            "patient_id": f"{role}-{number}",
            "role": role,
            "label": label,
            "A": first,
            "B": second,
        }
        for number, images in enumerate(patients)
        for place, (label, first, second) in enumerate(images)
    ]


def test_resamples_choose_thresholds_again_and_count_a_patient_as_often_as_drawn():
    table = pd.DataFrame(rows_of(VALIDATION, "val") + rows_of(TEST, "test"))
    row = row_of(compared(table, replicates=2000), "A", "B", "accuracy", "max_f1")
    exact = oracle.differences(VALIDATION, TEST, oracle.accuracy, "max_f1")
    for end, share in (("ci_low", 0.025), ("ci_high", 0.975)):
        value, distance = oracle.quantile(exact, share)
        assert distance > 0.02  # six standard errors of a share of 2,000 draws
        assert row[end] == pytest.approx(float(value), abs=1e-9)
    beyond = min(
        sum(chance for value, chance in exact.items() if side * value <= 0) for side in (1, -1)
    )
    assert row["p_value"] == pytest.approx(2 * float(beyond), abs=0.07)  # five standard errors


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
