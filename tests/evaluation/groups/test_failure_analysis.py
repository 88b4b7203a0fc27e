"""Failure analysis: groups, agreement, prevalence and combinations, against recounted figures."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.groups.failure_analysis import (
    add_groups,
    lesion_groups,
    predictive_values,
    trusted_spacing,
    with_tests,
)
from cxr_compare.evaluation.groups.shares import TOO_FEW, TOO_FEW_LESIONS, Shares
from cxr_compare.evaluation.groups.shortcuts import SHORTCUT
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.thresholds import ThresholdChoice
from tests.compared import compare_predictions
from tests.evaluation.evaluated_images import evaluated_images, model_of, row_of
from tests.stored_json import bind_tables, put_table

CORNERS = ["image_id", "x1", "y1", "x2", "y2"]


def boxes(*rows):
    names = CORNERS if rows and len(rows[0]) == 5 else [*CORNERS, "score"]
    return pd.DataFrame(rows, columns=names)


def test_millimetres_count_only_where_the_spacing_can_be_right():
    images = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "width": [2000, 1000],
            "height": [2000, 1000],
            "spacing_row_mm": [0.2, 0.1],
            "spacing_col_mm": [0.2, 0.1],
        }
    )
    assert np.isnan(trusted_spacing(images)[1]).all()  # a chest 100 mm wide
    truth = boxes(
        ("a", 0.0, 0.0, 100.0, 100.0),
        ("a", 900.0, 1500.0, 1400.0, 1900.0),
        ("b", 0.0, 0.0, 500.0, 500.0),
    )
    pairs = pair_boxes(truth.assign(score=0.5), truth, pd.Index(["a", "b"]))
    groups = lesion_groups(pairs, images)
    assert groups["lesion_size_mm"].tolist() == ["up to 30 mm", "over 60 mm", ""]
    assert groups["lesion_count"].tolist() == ["2", "2", "1"]
    assert groups["third"].tolist() == ["upper", "lower", "upper"]
    assert groups["lesion_size"].tolist() == [  # thirds of 0.25, 5 and 25 %
        "up to 3.4 % of the image",
        "3.4 to 12 % of the image",
        "over 12 % of the image",
    ]
    unknown = images.drop(columns=["spacing_row_mm", "spacing_col_mm"])
    assert "lesion_size_mm" not in lesion_groups(pairs, unknown)


def test_predictive_values_are_those_of_counted_people():
    # 10,000 people of whom 1 % are ill, counted.
    values = predictive_values(0.8, 0.9, 0.01)
    assert values["ppv"] == pytest.approx(80 / (80 + 990))
    assert values["npv"] == pytest.approx(8910 / (8910 + 20))


def models_of_group(rng, n=160, in_group=20, worse=0.0):
    """Two systems on one image a patient; the first is worse by so much in the first patients."""
    y_true = rng.random(n) < 0.4
    evaluated = evaluated_images(y_true)
    group = np.where(np.arange(n) < in_group, "g", "h").astype(object)
    models = {}
    for name, loss in (("A", worse), ("B", 0.0)):
        evidence = rng.normal(2 * y_true - 1.0 - loss * y_true * (group == "g"), 1.0)
        scores = 1 / (1 + np.exp(-evidence))
        models[name] = [model_of(evaluated, scores, {"max_f1": ThresholdChoice("max_f1", 0.5)})]
    return models, {"ward": group}


def groups_tested(models, groups):
    shares = Shares(len(groups["ward"]), set(groups))
    add_groups(shares, models, groups, "max_f1")
    return with_tests(shares.table(list(models)), models["A"][0].images, groups)


def test_a_group_in_which_one_system_fails_has_a_small_p_value_as_has_the_interaction():
    rng = np.random.default_rng(4)
    models, groups = models_of_group(rng, n=400, in_group=120, worse=4.0)
    table = groups_tested(models, groups)
    p_values = {
        name: row_of(table, group="g - rest", system=name, metric="auroc")["p_holm"]
        for name in ("A", "B", "A - B")
    }
    assert max(p_values["A"], p_values["A - B"]) < 0.05 < p_values["B"]
    # Of two groups one is the other's rest: one test.
    tested = table[table["p_value"].notna()]
    assert set(tested["group"]) == {"g - rest"}
    assert tested["p_holm"].tolist() == pytest.approx(holm(tested["p_value"].tolist()))
    assert len(tested) == 9  # three figures of two systems and of their difference


def test_a_group_of_fewer_than_30_patients_of_a_class_has_figures_and_no_claim():
    rng = np.random.default_rng(4)
    models, groups = models_of_group(rng, n=400, in_group=60, worse=4.0)
    table = groups_tested(models, groups)
    gaps = table[table["group"] == "g - rest"].set_index(["metric", "system"])
    positive = models["A"][0].images.y_true[groups["ward"] == "g"]
    assert positive.sum() < 30 <= (~positive).sum()
    assert gaps["ci_low"].notna().all()
    assert gaps[["p_value", "p_holm"]].isna().all().all()


def test_a_group_of_too_few_patients_has_counts_and_no_test():
    rng = np.random.default_rng(5)
    models, groups = models_of_group(rng, in_group=6)
    table = groups_tested(models, groups)
    rows = table[(table["group"] == "g") & (table["system"] == "A")]
    assert set(rows["note"]) == {TOO_FEW}
    assert rows["ci_low"].isna().all()
    assert (rows["of"] > 0).all()
    gaps = table[table["group"] == "g - rest"]
    assert gaps[["ci_low", "p_value", "p_holm"]].isna().all().all()


@pytest.fixture(scope="module")
def grouped_set(evaluated_folder):
    """The data set with sex and age, which its folder lacks."""
    dataset = DataSet.open(evaluated_folder)
    images = dataset.images
    rng = np.random.default_rng(6)
    images["sex"] = rng.choice(["F", "M"], len(images))
    images["age_years"] = rng.uniform(20, 90, len(images))
    return dataset


@pytest.fixture(scope="module")
def compared(predicted_folder, grouped_set):
    systems = {
        "A": Predictions.open(predicted_folder("A", "boxes", seed=1)),
        "B": Predictions.open(predicted_folder("B", seed=2, maps=True)),
    }
    test_set = LabelledSplit(grouped_set, grouped_set.target())
    return compare_predictions(systems, test_set, replicates=100, prevalence=0.02)


def test_groups_and_lesions_of_a_comparison_equal_recounted_figures(compared, grouped_set):
    table = compared.groups
    policy = {"policy": "max_f1"}
    decisions = compared.decisions.merge(grouped_set.images[["image_id", "sex"]], on="image_id")
    mine = decisions[(decisions["system"] == "A") & (decisions["sex"] == "F")]
    positive = mine[mine["label"] == 1]
    recall = row_of(table, topic="sex", group="F", system="A", metric="recall", **policy)
    assert recall["estimate"] == pytest.approx(positive["decision_max_f1"].mean())
    placed = row_of(
        table, topic="sex", group="F", system="A", metric="localised_sensitivity", **policy
    )
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
    topics = {f"lesions by {name}" for name in ("lesion_size", "third", "side")}
    assert set(reached["topic"]) == topics


def test_right_and_wrong_decisions_of_two_systems_equal_recounted_figures(compared):
    table, decisions = compared.groups, compared.decisions
    wide = decisions.pivot(index="image_id", columns="system", values="decision_max_f1")
    truth = decisions.drop_duplicates("image_id").set_index("image_id")["label"] == 1
    one, two = (wide[name].astype(bool) for name in "AB")
    cells = table[(table["topic"] == "right_wrong") & (table["group"] == "all")]
    counts = cells.set_index("metric")["count"]
    assert counts["only_first_right"] == ((one == truth) & (two != truth)).sum()
    assert counts.sum() == len(wide)


def test_predictive_values_equal_recounted_figures(compared):
    table = compared.groups
    metrics = compared.metrics
    single = {"first": "A", "second": "", "policy": "max_f1", "subgroup": "all"}
    recall = row_of(metrics, metric="recall", **single)["estimate"]
    specificity = row_of(metrics, metric="specificity", **single)["estimate"]
    value = row_of(table, topic="prevalence", group="0.02", system="A", metric="ppv")
    assert value["estimate"] == pytest.approx(
        float(predictive_values(recall, specificity, 0.02)["ppv"])
    )
    guesses = table[table["system"] == SHORTCUT]
    assert set(guesses["metric"]) == {"auroc"}
    assert "sex + age" in set(guesses["group"])


def fail(system, ids):
    part = system.folder / "predicted_images.parquet" / "part-00000.parquet"
    images = read_table(part, "predicted_images")
    images.loc[images["image_id"].isin(ids), ["status", "reason"]] = ["failed", "out of memory"]
    put_table(images, part, "predicted_images")
    return Predictions.open(system.folder)


def test_images_that_every_system_failed_on_are_refused_too(predict, test_set, evaluation_set):
    two = evaluation_set.image_ids("test")[:2]
    pair = {name: fail(predict(name, seed=n), two) for n, name in enumerate("AB")}
    with pytest.raises(InputError, match=rf"\bA\b.*\b2\b.*{two[0]}, {two[1]}"):
        compare_predictions(pair, test_set)


def test_images_without_a_label_are_left_out_and_counted(predict, test_set, evaluation_set):
    systems = {"A": predict("A", seed=1), "B": predict("B", seed=5)}
    hidden = list(evaluation_set.image_ids("test")[:8])
    states = evaluation_set.findings
    evaluation_set.__dict__["findings"] = states.assign(
        state=states["state"].where(~states["image_id"].isin(hidden), "uncertain")
    )
    comparison = compare_predictions(systems, test_set, replicates=50)
    (note,) = [note.text for note in comparison.notes if note.kind == "left_out"]
    assert re.findall(r"\b\d+\b", note)[:2] == ["8", "8"]  # without a label, and uncertain


def test_starting_weights_of_unknown_training_are_named_in_a_note(predict, test_set):
    system = predict("A", seed=1)
    nobody = pd.DataFrame({"image_id": ["x"], "patient_id": ["other:1"], "role": ["train"]})
    write_table(nobody, system.folder / "seen.parquet", "seen")
    bind_tables(system.folder)
    system = Predictions.open(system.folder)
    system.info = system.info.with_values(seen_unknown=["other.pth"])
    comparison = compare_predictions({"A": system}, test_set, replicates=20)
    assert any("other.pth in A" in note.text for note in comparison.notes)
    assert comparison.provenance["systems"]["A"]["trained_on"]["unknown"] == "other.pth"


@pytest.fixture(scope="module")
def without_validation():
    """A detector and a classifier at a declared threshold, on test images of known sizes."""
    rng = np.random.default_rng(0)
    names = [f"i{number:03d}" for number in range(200)]
    label = np.arange(200) % 2
    truth = pd.DataFrame({"image_id": names, "label": label, "width": 1000, "height": 1000})
    truth["sex"] = np.where(rng.random(200) < 0.5, "F", "M")
    low = rng.uniform(0, 600, (100, 2))
    side = rng.uniform(50, 300, (100, 1))
    low[:4, 1] = 900.0  # few lesions in the lower third
    low[4:, 1] *= 0.5
    side[:4] = 60.0
    lesions = pd.DataFrame(np.hstack([low, low + side]), columns=["x1", "y1", "x2", "y2"])
    lesions["image_id"] = names[1::2]
    boxes = lesions.assign(score=rng.random(100))
    scores = pd.Series(0.4 * label + rng.uniform(0, 0.6, 200), names)
    return cxr_compare.compare(
        {"D": boxes, "C": scores}, truth=truth, boxes=lesions, policy=["threshold=0.5"],
        replicates=100,
    )  # fmt: skip


def test_a_declared_threshold_gives_figures_of_groups_and_of_lesions(without_validation):
    groups = without_validation.groups
    of_sex = groups[(groups["topic"] == "sex") & (groups["policy"] == "threshold=0.5")]
    assert {"recall", "specificity"} <= set(of_sex["metric"])
    rows = groups[groups["metric"] == "lesion_recall"].set_index(["topic", "group"])
    found = rows.loc[("lesions by side", "left of the image")]
    assert (found["system"], 0 < found["estimate"] < 1) == ("D", True)
    few = rows.loc[("lesions by third", "lower")]
    assert np.isnan(few["estimate"])
    assert (few["of"], few["note"]) == (4, TOO_FEW_LESIONS)


def test_groups_are_computed_when_they_are_first_read(without_validation):
    asked = []
    compared = without_validation.compared.comparison
    lazy = replace(compared, compute_groups=lambda: asked.append(1) or compared.groups)
    assert lazy.answer.headline == compared.answer.headline
    assert asked == []
    assert len(lazy.groups) == len(compared.groups)
    assert asked == [1]
