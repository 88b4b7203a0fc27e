"""Where systems fail: counted by hand, and held against what the figures are made of."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import read_table, write_table
from data_prep.store.predictions import Predictions
from evaluation.boxes.matching import error_kinds, first_finds, pair_boxes
from evaluation.compare.compare import compare_systems
from evaluation.compare.estimates import FAILURES_WRONG
from evaluation.compare.failure_analysis import (
    TREAT_ALL,
    _kappa,
    _lesion_groups,
    _predictive_values,
    _trusted_spacing,
)
from evaluation.compare.judged_models import _NONE_FAILED
from evaluation.compare.shares import ShareName, Shares
from evaluation.decisions.test_set import image_groups
from evaluation.metrics.image_metrics import net_benefit
from evaluation.statistics.bootstrap import Resamples
from evaluation.systems.eligibility import unknown_training_data
from evaluation.systems.shortcuts import SHORTCUT
from tests.evaluation.judged_images import row_of

CORNERS = ["image_id", "x1", "y1", "x2", "y2"]


def boxes(*rows):
    names = CORNERS if rows and len(rows[0]) == 5 else [*CORNERS, "score"]
    return pd.DataFrame(rows, columns=names)


def test_every_called_box_and_every_lesion_has_one_kind():
    truth = boxes(("a", 0.0, 0.0, 10.0, 10.0), ("a", 50.0, 50.0, 60.0, 60.0),
                  ("a", 80.0, 80.0, 90.0, 90.0), ("b", 0.0, 0.0, 10.0, 10.0))  # fmt: skip
    found = boxes(
        ("a", 0.0, 0.0, 10.0, 9.0, 0.9),  # takes the first lesion
        ("a", 0.0, 0.0, 10.0, 8.0, 0.8),  # the same lesion again: duplicate
        ("a", 50.0, 50.0, 55.0, 58.0, 0.7),  # IoU 0.4 with the second: a poor box
        ("a", 30.0, 0.0, 40.0, 10.0, 0.6),  # nothing there: background
        ("b", 0.0, 0.0, 10.0, 10.0, 0.2),  # below the cut: not called, so a miss
        ("c", 0.0, 0.0, 10.0, 10.0, 0.9),  # an image without lesions: background
    )
    kinds = error_kinds(pair_boxes(found, truth, pd.Index(["a", "b", "c"])), 0.5)
    assert {name: count.tolist() for name, count in kinds.items()} == {
        "lesions": [3, 1, 0], "found": [1, 0, 0], "poorly_boxed": [1, 0, 0],
        "missed": [1, 1, 0], "poor_box": [1, 0, 0], "duplicate": [1, 0, 0],
        "background": [1, 0, 1],
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_kinds_add_up_to_lesions_and_to_called_boxes(seed):
    rng = np.random.default_rng(seed)

    def drawn(n, scored):
        corner = rng.uniform(0, 30, (n, 2))
        frame = pd.DataFrame({"image_id": rng.choice(list("abcd"), n), "x1": corner[:, 0]})
        frame = frame.assign(y1=corner[:, 1], x2=corner[:, 0] + 12, y2=corner[:, 1] + 12)
        return frame.assign(score=rng.random(n)) if scored else frame

    pairs = pair_boxes(drawn(60, True), drawn(14, False), pd.Index(list("abcd")))
    kinds = error_kinds(pairs, 0.3)
    of_lesions = kinds["found"] + kinds["poorly_boxed"] + kinds["missed"]
    assert (of_lesions == kinds["lesions"]).all()
    called = np.bincount(pairs.boxes.image[pairs.boxes.score >= 0.3], minlength=4)
    of_boxes = kinds["found"] + kinds["poor_box"] + kinds["duplicate"] + kinds["background"]
    assert (of_boxes == called).all()
    assert (first_finds(pairs)[0] >= 0.3).sum() >= kinds["found"].sum()


def test_millimetres_count_only_where_the_spacing_can_be_right():
    images = pd.DataFrame({"image_id": ["a", "b"], "width": [2000, 1000], "height": [2000, 1000],
                           "spacing_row_mm": [0.2, 0.1], "spacing_col_mm": [0.2, 0.1]})  # fmt: skip
    assert np.isnan(_trusted_spacing(images)[1]).all()  # a chest 100 mm wide
    truth = boxes(("a", 0.0, 0.0, 100.0, 100.0), ("a", 900.0, 1500.0, 1400.0, 1900.0),
                  ("b", 0.0, 0.0, 500.0, 500.0))  # fmt: skip
    groups = _lesion_groups(truth, np.array([0, 0, 1]), images)
    assert groups["lesion_size_mm"].tolist() == ["up to 30 mm", "over 60 mm", ""]
    assert groups["lesion_count"].tolist() == ["2", "2", "1"]
    assert groups["third"].tolist() == ["upper", "lower", "upper"]
    assert groups["lesion_size"].tolist()[0] == "up to 2 % of the image"
    unknown = images.drop(columns=["spacing_row_mm", "spacing_col_mm"])
    assert "lesion_size_mm" not in _lesion_groups(truth, np.array([0, 0, 1]), unknown)


def test_a_subgroup_that_is_not_there_is_refused():
    images = pd.DataFrame({"image_id": list("ab"), "sex": ["F", "M"], "x_many": ["1", "2"]})
    assert set(image_groups(images)) == {"sex"}
    with pytest.raises(InputError, match=r"subgroup 'ward': the images have no such column"):
        image_groups(images, ["ward"])
    many = pd.DataFrame({"x_many": [str(n) for n in range(30)]})
    with pytest.raises(InputError, match="has 30 values"):
        image_groups(many, ["x_many"])


def test_kappa_and_predictive_values_are_those_of_their_oracles():
    rng = np.random.default_rng(2)
    one, two = rng.random(200) < 0.4, rng.random(200) < 0.4
    two[:80] = one[:80]
    mine = _kappa((one & two).sum(), (one & ~two).sum(), (~one & two).sum(), 200)
    assert float(mine) == pytest.approx(cohen_kappa_score(one, two))
    assert np.isnan(_kappa(5, 0, 0, 5))
    # 10,000 people of whom 1 % are ill, counted.
    values = _predictive_values(0.8, 0.9, 0.01)
    assert values["ppv"] == pytest.approx(80 / (80 + 990))
    assert values["npv"] == pytest.approx(8910 / (8910 + 20))


def test_net_benefit_of_calling_all_is_what_the_prevalence_gives():
    truth = [1, 0, 0, 0]
    assert net_benefit(truth, np.ones(4), 0.2) == pytest.approx(0.25 - 0.75 * 0.25)
    assert net_benefit(truth, np.zeros(4), 0.2) == 0.0
    tied = [0.2, 0.2, 0.1, 0.1]  # a score at the threshold is called
    assert net_benefit(truth, tied, 0.2) == pytest.approx((1 - 0.25) / 4)


def test_a_gap_between_groups_is_paired_over_the_patients():
    shares = Shares(40, gaps={"sex"})
    rng = np.random.default_rng(1)
    patients, woman = np.repeat(np.arange(40), 2), np.tile([True, False], 40)
    right = np.repeat(rng.random(40) < 0.5, 2)  # both images of a patient alike
    for group, chosen in (("F", woman), ("not F", ~woman)):
        shares.add("A", ShareName("sex", group, "", "recall"), right & chosen, chosen, patients)
    table = shares.table(["A"], Resamples(40, 400))
    gap = row_of(table, group="F - rest")
    assert gap["estimate"] == 0.0
    assert np.isnan(gap["ci_low"])  # no resample can move it
    women = row_of(table, group="F")
    assert women["estimate"] == right[woman].mean()
    assert (women["count"], women["of"], women["n_patients"]) == (right[woman].sum(), 40, 40)


@pytest.fixture
def compared(predict, test_set, judged_set):
    images = judged_set.images
    rng = np.random.default_rng(6)
    images["sex"] = rng.choice(["F", "M"], len(images))
    images["age_years"] = rng.uniform(20, 90, len(images))
    systems = {"A": predict("A", "boxes", seed=1), "B": predict("B", seed=2, maps=True)}
    return compare_systems(systems, test_set, replicates=100, prevalence=0.02)


def test_a_comparison_says_where_each_fails(compared, judged_set):
    table = compared.failures
    of = {"policy": "max_f1"}
    decisions = compared.decisions.merge(judged_set.images[["image_id", "sex"]], on="image_id")
    mine = decisions[(decisions["system"] == "A") & (decisions["sex"] == "F")]
    positive = mine[mine["label"] == 1]
    recall = row_of(table, topic="sex", group="F", system="A", metric="recall", **of)
    assert recall["estimate"] == pytest.approx(positive["decision_max_f1"].mean())
    placed = row_of(table, topic="sex", group="F", system="A", metric="localised_sensitivity", **of)
    assert placed["estimate"] <= recall["estimate"]
    auroc = row_of(table, topic="sex", group="F", system="A", metric="auroc")
    assert auroc["estimate"] == pytest.approx(roc_auc_score(mine["label"], mine["score"]))
    assert auroc["ci_low"] < auroc["estimate"] < auroc["ci_high"]
    gap = row_of(table, topic="sex", group="F - rest", system="A", metric="auroc")
    other = row_of(table, topic="sex", group="M", system="A", metric="auroc")
    assert gap["estimate"] == pytest.approx(auroc["estimate"] - other["estimate"])
    assert gap["ci_low"] < gap["estimate"] < gap["ci_high"]
    assert {"60 to 79"} <= set(table.loc[table["topic"] == "age_band", "group"])
    lesions = table[(table["topic"] == "errors") & (table["system"] == "A")]
    shares = lesions.set_index("metric")["estimate"]
    assert shares[["found", "poorly_boxed", "missed"]].sum() == pytest.approx(1.0)
    assert "A - B" in set(table.loc[table["topic"] == "errors", "system"])
    reached = table[(table["metric"] == "lesion_recall") & (table["system"] == "B")]
    assert (reached["of"] > 0).all()
    assert set(reached["topic"]) == {"lesions by third", "lesions by side"}


def test_a_comparison_says_what_two_systems_share_and_would_give_together(compared):
    table, decisions = compared.failures, compared.decisions
    wide = decisions.pivot(index="image_id", columns="system", values="decision_max_f1")
    truth = decisions.drop_duplicates("image_id").set_index("image_id")["label"] == 1
    one, two = (wide[name].astype(bool) for name in "AB")
    cells = table[(table["topic"] == "right_wrong") & (table["group"] == "all")]
    counts = cells.set_index("metric")["count"]
    assert counts["only_first_right"] == ((one == truth) & (two != truth)).sum()
    assert counts.sum() == len(wide)
    agreed = row_of(table, topic="agreement", metric="kappa")
    assert agreed["estimate"] == pytest.approx(cohen_kappa_score(one, two))
    either = row_of(table, topic="combined", system="A or B", metric="recall")
    assert either["estimate"] == pytest.approx((one | two)[truth].mean())
    joined = row_of(table, topic="combined", system="mean of A and B", metric="auroc")
    gain = row_of(table, topic="combined", system="mean of A and B - A", metric="auroc")
    alone = row_of(compared.metrics, system="A", metric="auroc", subgroup="all")
    assert gain["estimate"] == pytest.approx(joined["estimate"] - alone["estimate"])


def test_a_comparison_says_what_it_is_worth_elsewhere(compared):
    table = compared.failures
    metrics = compared.metrics
    of = {"system": "A", "policy": "max_f1", "subgroup": "all"}
    recall = row_of(metrics, metric="recall", **of)["estimate"]
    kept = row_of(metrics, metric="specificity", **of)["estimate"]
    value = row_of(table, topic="prevalence", group="0.02", system="A", metric="ppv")
    assert value["estimate"] == pytest.approx(float(_predictive_values(recall, kept, 0.02)["ppv"]))
    cost = row_of(table, topic="cost_curve", group="0.5", system="A")
    assert cost["estimate"] == pytest.approx(((1 - recall) + (1 - kept)) / 2)
    mine = compared.decisions[compared.decisions["system"] == "A"]
    for metric, column in (("net_benefit", "score"), ("net_benefit_calibrated", "probability")):
        row = row_of(table, topic="decision_curve", group="0.2", system="A", metric=metric)
        assert row["estimate"] == pytest.approx(net_benefit(mine["label"], mine[column], 0.2))
    every = row_of(table, topic="decision_curve", group="0.2", system=TREAT_ALL)
    assert every["estimate"] == pytest.approx(net_benefit(mine["label"], np.ones(len(mine)), 0.2))
    guesses = table[table["system"] == SHORTCUT]
    assert set(guesses["metric"]) == {"auroc"}
    assert "sex + age" in set(guesses["group"])


def fail(system, ids):
    part = system.folder / "predicted_images.parquet" / "part-00000.parquet"
    images = read_table(part, "predicted_images")
    images.loc[images["image_id"].isin(ids), ["status", "reason"]] = ["failed", "out of memory"]
    write_table(images, part, "predicted_images")
    return Predictions.open(system.folder)


def test_images_that_every_system_failed_on_are_refused_too(predict, test_set, judged_set):
    two = judged_set.image_ids("test")[:2]
    pair = {name: fail(predict(name, seed=n), two) for n, name in enumerate("AB")}
    with pytest.raises(InputError, match=rf"A failed on 2 test images \({two[0]}, {two[1]}\)"):
        compare_systems(pair, test_set)


def test_a_failure_counts_as_wrong_for_the_system_that_failed(predict, test_set, judged_set):
    test = judged_set.image_ids("test")
    whole, part = predict("A", seed=1), predict("B", seed=2)
    lost = test[:10]
    pair = {"A": whole, "B": fail(part, lost)}
    comparison = compare_systems(pair, test_set, images="common", replicates=100)
    alone = compare_systems({"A": whole}, test_set, replicates=100).metrics
    table = comparison.metrics
    of = {"metric": "accuracy", "policy": "max_f1"}
    wrong = row_of(table, system="B", subgroup=FAILURES_WRONG, **of)
    common = row_of(table, system="B", subgroup="all", **of)
    # 90 images all ran on, 10 more that are wrong.
    assert (common["n_images"], wrong["n_images"]) == (90, 100)
    assert wrong["estimate"] == pytest.approx(common["estimate"] * 90 / 100)
    assert wrong["note"] == "B: 10 images without a result, counted as wrong"
    ranked = row_of(table, system="B", subgroup=FAILURES_WRONG, metric="auroc")
    assert (
        ranked["estimate"] < row_of(table, system="B", subgroup="all", metric="auroc")["estimate"]
    )
    # The system that ran on all of them loses nothing by the other's failures.
    untouched = row_of(table, system="A", subgroup=FAILURES_WRONG, **of)
    assert untouched["estimate"] == row_of(alone, system="A", subgroup="all", **of)["estimate"]
    gap = row_of(table, system="A - B", subgroup=FAILURES_WRONG, **of)
    assert gap["estimate"] == pytest.approx(untouched["estimate"] - wrong["estimate"])
    assert gap["ci_low"] < gap["estimate"] < gap["ci_high"]


def test_without_failures_the_row_is_there_and_says_so(predict, test_set):
    systems = {"A": predict("A", seed=1)}
    table = compare_systems(systems, test_set, replicates=50).metrics
    row = row_of(table, system="A", subgroup=FAILURES_WRONG, metric="recall", policy="max_f1")
    of_all = row_of(table, system="A", subgroup="all", metric="recall", policy="max_f1")
    assert (row["estimate"], row["ci_low"]) == (of_all["estimate"], of_all["ci_low"])
    assert row["note"] == _NONE_FAILED


def test_weights_of_unknown_training_make_a_report_say_unknown(predict, test_set):
    system = predict("A", seed=1)
    nobody = pd.DataFrame({"image_id": ["x"], "patient_id": ["other:1"], "role": ["train"]})
    write_table(nobody, system.folder / "seen.parquet", "seen")
    run = {"seed": 1, "started_from": {"weights": "run-1", "started_from":
           {"weights": "found.pth", "trained_on": "unknown"}}}  # fmt: skip
    system.info["seen_unknown"] = unknown_training_data(run)
    comparison = compare_systems({"A": system}, test_set, replicates=20)
    assert any("What found.pth in A was trained on is unknown" in n.text for n in comparison.notes)
    assert comparison.provenance["systems"]["A"]["trained_on"]["unknown"] == "found.pth"
