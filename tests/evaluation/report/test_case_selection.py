import pandas as pd
import pytest

from cxr_compare.evaluation.report.case_selection import select_cases
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem


@pytest.fixture
def cases(comparison):
    chosen = select_cases(comparison.decisions, comparison.names, "max_f1")
    return {category.key: category.image_ids for category in chosen}


@pytest.mark.parametrize(
    ("key", "image_ids", "why"),
    [
        ("all-miss", ("p04",), "both score below the threshold"),
        ("only-1", ("p02",), "only RetinaNet"),
        ("only-2", ("p03",), "only CheXNet"),
        ("wrong-place", ("p05", "p06"), "called positive, pointing elsewhere"),
        ("alarm-normal", ("n03",), "a normal image called positive"),
        ("alarm-not-normal", ("n04",), "an otherwise abnormal image called positive"),
    ],
)
def test_each_kind_of_failure_has_its_cases(cases, key, image_ids, why):
    assert tuple(sorted(cases[key])) == image_ids, why


def test_one_system_against_the_other_comes_first_and_no_image_twice(comparison):
    joint = JointSystem("Both", comparison.names)
    decisions = comparison.decisions
    both = decisions[decisions["system"] == "RetinaNet"].assign(system="Both")
    decisions = pd.concat([decisions, both])
    names = [*comparison.names, "Both"]
    chosen = select_cases(decisions, names, "max_f1", joint=joint, made_of_others=["Both"])
    assert [each.key for each in chosen][:2] == ["only-1", "only-2"]
    shown = [image_id for each in chosen for image_id in each.image_ids]
    assert len(shown) == len(set(shown))


def test_agreement_is_a_random_sample_of_right_calls(comparison):
    def sample(seed):
        chosen = select_cases(comparison.decisions, comparison.names, "max_f1", seed=seed)
        return next(each for each in chosen if each.key == "agreement")

    assert sample(3) == sample(3)
    assert sample(0).total == 5  # p01 and four negatives
    drawn = {sample(seed).image_ids for seed in range(20)}
    assert len(drawn) > 1
    assert all(ids[0] == "p01" for ids in drawn)


def test_gallery_is_bounded_but_says_how_many_there_are(comparison):
    many = pd.concat(
        [
            comparison.decisions.assign(image_id=comparison.decisions["image_id"] + f"-{copy}")
            for copy in range(50)
        ]
    )
    chosen = select_cases(many, comparison.names, "max_f1", per_category=3)
    assert all(len(category.image_ids) <= 3 for category in chosen)
    assert chosen[0].total == 50


def test_order_of_the_rows_does_not_matter(comparison):
    mixed = comparison.decisions.sample(frac=1, random_state=1)
    assert select_cases(mixed, comparison.names, "max_f1") == select_cases(
        comparison.decisions, comparison.names, "max_f1"
    )


def test_most_confident_failures_come_first(comparison):
    decisions = comparison.decisions.copy()
    alarms = decisions["image_id"].isin(["n01", "n02", "n03"]) & (
        decisions["system"] == "RetinaNet"
    )
    decisions.loc[alarms, "score"] = [0.6, 0.95, 0.8]
    decisions.loc[alarms, "decision_max_f1"] = True
    chosen = select_cases(decisions, comparison.names, "max_f1")
    ids = next(each.image_ids for each in chosen if each.key == "alarm-normal")
    assert ids == ("n02", "n03", "n01")


def keys_of(decisions, comparison, policy="max_f1"):
    return [each.key for each in select_cases(decisions, comparison.names, policy)]


def test_nobody_decided_gives_no_cases(comparison):
    nobody = comparison.decisions.assign(decision_max_f1=pd.NA).astype(
        {"decision_max_f1": "boolean"}
    )
    assert keys_of(nobody, comparison) == []
    assert keys_of(comparison.decisions, comparison, "unknown_policy") == []


def test_undecided_system_does_not_count_as_missing(comparison):
    decisions = comparison.decisions.copy()
    decisions.loc[decisions["system"] == "CheXNet", "decision_max_f1"] = pd.NA
    titles = [each.title for each in select_cases(decisions, comparison.names, "max_f1")]
    assert titles[0] == "RetinaNet misses it"
    assert not any("CheXNet" in title for title in titles)


def test_set_without_image_kinds_has_one_kind_of_false_alarm(comparison):
    keys = keys_of(comparison.decisions.drop(columns=["x_class", "localised"]), comparison)
    assert "alarm-other" in keys
    assert not {"alarm-normal", "wrong-place"} & set(keys)


def test_images_of_unknown_truth_are_left_out(comparison):
    decisions = comparison.decisions.copy()
    decisions.loc[decisions["image_id"] == "p04", "label"] = float("nan")
    assert "all-miss" not in keys_of(decisions, comparison)
