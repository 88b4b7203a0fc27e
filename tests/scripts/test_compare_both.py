"""`cxr compare --both`: a third system, two questions more, and the old answer unchanged."""

import json

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError


def labelled(n_patients=400, seed=0):
    """Labels with roles and two images a patient, scores of two systems, and boxes of the first."""
    rng = np.random.default_rng(seed)
    n = 2 * n_patients
    ids = [f"i{number:03d}" for number in range(n)]
    label = (np.arange(n) // 2) % 3 == 0
    truth = pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": [f"p{number // 2}" for number in range(n)],
            "role": ["val" if number // 2 < n_patients // 2 else "test" for number in range(n)],
            "label": label.astype(int),
        }
    )
    evidence = rng.standard_normal((2, n)) + 1.4 * label
    scores = 1 / (1 + np.exp(-evidence))
    corners = np.array([20.0, 20.0, 60.0, 60.0]) + rng.normal(0, 6, (n, 4))
    boxes = pd.DataFrame(corners, columns=["x1", "y1", "x2", "y2"])
    boxes = boxes.assign(image_id=ids, score=scores[0])
    boxes = boxes[rng.random(n) > 0.1]  # images without a box
    true_boxes = pd.DataFrame({"image_id": np.array(ids)[label]})
    true_boxes = true_boxes.assign(x1=20.0, y1=20.0, x2=60.0, y2=60.0)
    classifier = pd.DataFrame({"image_id": ids, "score": scores[1]})
    return truth, true_boxes, boxes, classifier


def compared(truth, true_boxes, boxes, classifier, **options):
    systems = {"D": boxes, "C": classifier}
    scale = {"D": 1}
    return cxr_compare.compare(
        systems, truth=truth, boxes=true_boxes, scale=scale, replicates=200, **options
    )


@pytest.fixture(scope="module")
def values():
    return labelled()


@pytest.fixture(scope="module")
def report(values):
    return compared(*values, both=True)


def test_the_joint_system_is_a_third_row_and_is_asked_to_beat_each_member(report):
    assert report.systems == ["D", "C", "D + C"]
    record = report.to_dict()["joint"]
    assert record["members"] == ["D", "C"]
    figures = report.figures.set_index(["first", "second", "metric", "policy", "subgroup"])[
        "estimate"
    ]
    at = ("", "auroc", "", "all")
    assert figures["D + C", *at] > max(figures["D", *at], figures["C", *at])
    differences = report.figures
    rows = differences[(differences["metric"] == "auroc") & (differences["subgroup"] == "all")]
    of_joint = rows[rows["second"] == "D + C"]
    shown = bool((of_joint["ci_high"] < 0).all())
    assert len(of_joint) == 2
    assert shown  # members that see different noise
    assert "D + C was shown" in report.headline


def test_the_figures_and_the_answer_without_it_stay_the_same(values, report):
    without = compared(*values)
    keys = ["first", "second", "metric", "policy", "subgroup"]
    before = without.figures.set_index(keys)["estimate"]
    after = report.figures.set_index(keys)["estimate"].reindex(before.index)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-9)
    gaps = without.figures.set_index(keys)[["estimate", "ci_low", "ci_high"]]
    again = report.figures.set_index(keys).reindex(gaps.index)[gaps.columns]
    np.testing.assert_allclose(again, gaps, rtol=0, atol=1e-9)
    assert report.headline.startswith(without.headline)
    assert without.to_dict()["joint"] is None


def test_p_values_of_its_claims_are_the_largest_of_the_members_and_corrected(report):
    tests = report.tests
    rows = tests[(tests["second"] == "D + C") & (tests["independent"] == "patients")]
    rows = rows[(rows["subgroup"] == "all") & rows["p_holm"].notna()]
    primary = rows[rows["metric"] == "auroc"]
    assert len(primary) == 2
    assert primary["p_holm"].tolist() == [primary["p_value"].max()] * 2
    further = rows[rows["metric"] != "auroc"].groupby("metric")
    assert set(further.groups) == {"average_precision"}  # C has no boxes
    for _, group in further:
        exceeds = (group["estimate"] < 0).all()  # member minus joint
        assert group["p_holm"].tolist() == [group["p_value"].max() if exceeds else 1.0] * 2


def test_errors_at_the_threshold_follow_the_claim_on_auroc(report):
    decisions = report.decisions
    wrong = decisions[f"decision_{report.policy}"].astype(bool) != (decisions["label"] == 1)
    errors = wrong.groupby(decisions["system"]).sum()
    assert f"D + C makes {errors['D + C']} errors, D {errors['D']} and C {errors['C']}" in str(
        report.headline
    )


def test_joint_system_is_recorded_and_what_it_corrects_is_among_the_cases(report):
    assert report.to_dict()["joint"] == {"name": "D + C", "members": ["D", "C"]}
    kinds = report.cases()["kind"]
    assert kinds.str.contains("D + C is right where a member is wrong", regex=False).any()


def counts_of_one_finds(report, first, second):
    """Count the cases that one of two systems finds, and the same in the decisions."""
    decisions = report.decisions[report.decisions["label"] == 1]
    called = decisions.pivot(index="image_id", columns="system", values=f"decision_{report.policy}")
    one, two = called[first].astype(bool), called[second].astype(bool)
    kinds = report.cases().drop_duplicates("kind").set_index("kind")["of"]
    return kinds[kinds.index.str.contains("finds")].tolist(), [
        (one & ~two).sum(),
        (two & ~one).sum(),
    ]


def test_a_joint_system_takes_no_image_from_what_one_member_alone_finds(values, report, tmp_path):
    counted, expected = counts_of_one_finds(report, "D", "C")
    assert counted == expected
    without = compared(*values)
    assert counts_of_one_finds(without, "D", "C") == (expected, expected)
    report.save(tmp_path / "report")
    again = cxr_compare.Result.open(tmp_path / "report")
    assert counts_of_one_finds(again, "D", "C") == (expected, expected)


def test_an_ensemble_takes_no_image_from_what_one_member_alone_finds(values):
    truth, _, boxes, second = values
    first = boxes.groupby("image_id", as_index=False)["score"].max()
    first = second[["image_id"]].merge(first, how="left").fillna({"score": 0.0})
    both = cxr_compare.ensemble({"A": first, "B": second}, truth=truth)
    report = cxr_compare.compare(
        {"A": first, "B": second, "A + B": both}, truth=truth, replicates=100
    )
    counted, expected = counts_of_one_finds(report, "A", "B")
    assert counted == expected


def test_permuted_test_labels_leave_weights_and_thresholds_byte_for_byte_the_same(values, report):
    truth, *rest = values
    permuted = truth.copy()
    is_test = (truth["role"] == "test").to_numpy()
    # Whole patients are exchanged, so that the data stay valid.
    permuted.loc[is_test, "label"] = truth.loc[is_test, "label"].to_numpy()[::-1]
    true_boxes = rest[0][rest[0]["image_id"].isin(truth.loc[~is_test, "image_id"])]
    other = compared(permuted, true_boxes, *rest[1:], both=True)
    thresholds = [json.dumps(each.to_dict()["thresholds"]) for each in (report, other)]
    assert thresholds[0] == thresholds[1]
    scores = [
        each.decisions.query("system == 'D + C'").set_index("image_id")["score"].sort_index()
        for each in (report, other)
    ]
    assert scores[0].equals(scores[1])


def test_ensemble_takes_arrays_and_frames(values):
    truth, true_boxes, boxes, classifier = values
    joint = cxr_compare.ensemble({"D": boxes, "C": classifier}, truth=truth, boxes=true_boxes)
    assert joint.kind == "both"
    assert len(joint.scores) == len(truth)
    highest = joint.boxes.groupby("image_id")["score"].max()
    if joint.info.ensemble["findings"]["finding"]["gate"] == "rescaled":
        of_image = joint.scores.set_index("image_id")["score"].reindex(highest.index)
        np.testing.assert_allclose(highest, of_image, atol=1e-12)


def test_what_cannot_be_joined_is_refused(values):
    truth, true_boxes, boxes, _ = values
    with pytest.raises(InputError, match="two or more"):
        cxr_compare.compare({"D": boxes}, truth=truth, boxes=true_boxes, both=True)
    only_test = truth.assign(role="test")
    with pytest.raises(InputError, match="validation"):
        compared(only_test, *values[1:], both=True)
