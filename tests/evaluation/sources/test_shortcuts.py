"""Shortcut baselines: published values, no optimism, and intervals that cover."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.groups import shortcuts
from cxr_compare.evaluation.groups.shortcuts import (
    Fact,
    TargetLabels,
    auroc_of_fact,
    auroc_of_facts,
)
from cxr_compare.evaluation.sources.shortcuts import measure_shortcuts, shortcut_facts
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.folds import MOST_FOLDS, patient_folds
from tests.rsna_tables import read_rsna_tables

NO_DECODE = pd.DataFrame({"image_id": pd.Series([], dtype=TEXT)})


def target_labels(positive, patient=None):
    patient = np.arange(len(positive)) if patient is None else patient
    return TargetLabels(positive.astype(bool), patient % MOST_FOLDS, patient)


def image_table(n, **columns):
    ids = [str(number) for number in range(n)]
    return pd.DataFrame({"image_id": ids, "patient_id": ids, **columns})


def rows_by_fact(rows):
    return {row["fact"]: row for row in rows}


@pytest.fixture(scope="module")
def rsna_tables(shared_data):
    return read_rsna_tables(shared_data)


def test_published_shortcuts_of_rsna_are_reproduced(rsna_tables):
    """SOURCE.md: view alone 0.706, view + sex + age 0.714 (here cross-validated by patient)."""
    rows = rows_by_fact(measure_shortcuts(rsna_tables[0], NO_DECODE, rsna_tables[1]))
    assert rows["view"]["auroc"] == pytest.approx(0.706, abs=0.002)
    assert rows["view + sex + age"]["auroc"] == pytest.approx(0.714, abs=0.002)
    assert rows["view"]["ci_low"] < 0.706 < rows["view"]["ci_high"]
    assert rows["sex"]["auroc"] < 0.52
    assert (rows["view"]["n_images"], rows["view"]["n_positive"]) == (26_684, 6_012)


def test_an_uninformative_fact_is_at_chance_however_many_values_it_has():
    rng = np.random.default_rng(0)
    values = []
    for seed in range(20):
        names = pd.Series(rng.integers(0, 30, 1000).astype(str))
        truth = target_labels(np.random.default_rng(seed).random(1000) < 0.3)
        values.append(auroc_of_fact(Fact.from_values("scanner", names), truth).value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_rare_categories_are_one():
    fact = Fact.from_values("scanner", pd.Series([f"s{n}" for n in range(30)] + ["common"] * 40))
    assert len(fact.table) == 2


def test_a_fact_is_learned_from_other_patients_only():
    """Each patient has one label and one value of the fact: a memory, not a rule."""
    patient = np.repeat(np.arange(40), 30)
    positive = np.random.default_rng(2).random(40)[patient] < 0.5
    fact = Fact.from_values("hospital", pd.Series(patient.astype(str)))
    assert auroc_of_fact(fact, target_labels(positive, patient)).value == pytest.approx(
        0.5, abs=0.01
    )


def test_a_number_predicts_in_a_bend_too():
    """Illness at both ends of the scale: no straight line finds it."""
    age = np.random.default_rng(1).uniform(0, 100, 3000)
    truth = target_labels(np.abs(age - 50) > 33)
    assert auroc_of_fact(Fact.from_values("age", pd.Series(age)), truth).value > 0.95


def test_one_outlier_does_not_hide_a_number():
    size = np.r_[np.random.default_rng(1).normal(10_000, 100, 2000), 1e12]
    positive = size > 10_000
    facts = [
        Fact.from_values("size", pd.Series(size)),
        Fact.from_values("view", pd.Series(["AP", "PA"] * 1000 + ["AP"])),
    ]
    assert auroc_of_facts(facts, target_labels(positive)).value > 0.99


def test_missing_values_may_be_what_predicts():
    positive = np.arange(1000) % 4 == 0
    age = np.where(positive, np.nan, np.arange(1000) % 60)
    truth = target_labels(positive, np.random.default_rng(0).permutation(1000))
    assert auroc_of_fact(Fact.from_values("age", pd.Series(age)), truth).value > 0.99


def test_together_they_predict_what_none_does_alone():
    rng = np.random.default_rng(7)
    parts = rng.random((4000, 3))
    images = image_table(
        4000, sex=np.where(parts[:, 0] > 0.5, "M", "F"), age_years=parts[:, 1] * 90
    )
    images["view"] = np.where(parts[:, 2] > 0.5, "AP", "PA")
    score = (images["sex"] == "M") + (images["view"] == "AP") + images["age_years"] / 45
    labels = pd.DataFrame({"mass": (score > 2).astype(float).to_numpy()}, index=images["image_id"])
    rows = rows_by_fact(measure_shortcuts(images, NO_DECODE, labels))
    together = rows["view + sex + age"]["auroc"]
    assert together > 0.95 > max(rows[name]["auroc"] for name in ("view", "sex", "age")) + 0.05


def test_siblings_are_evaluated_without_the_image_itself():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(300), 4)
    images = image_table(1200).assign(patient_id=patients.astype(str))
    alike = (patients % 3 == 0).astype(float)
    chance = (rng.random(1200) < 0.3).astype(float)
    labels = pd.DataFrame({"alike": alike, "chance": chance}, index=images["image_id"])
    rows = measure_shortcuts(images, NO_DECODE, labels)
    siblings = {row["target"]: row for row in rows if row["fact"] == "sibling images"}
    assert siblings["alike"]["auroc"] == 1.0
    # Wholly apart: exact, of 100 pairs of a positive and a negative patient.
    assert siblings["alike"]["ci_low"] == pytest.approx(0.025 ** (1 / 100))
    assert siblings["chance"]["auroc"] == pytest.approx(0.5, abs=0.06)


def test_intervals_include_the_variance_of_models_that_share_images():
    images = image_table(400, view=["AP", "AP", "PA"] * 133 + ["PA"])
    positive = np.random.default_rng(3).random(400) < 0.5
    labels = pd.DataFrame({"mass": positive.astype(float)}, index=images["image_id"])
    scores = (positive + np.random.default_rng(4).normal(0, 1, 400)).astype(np.float64)
    facts = shortcut_facts(images, NO_DECODE)
    (row,) = shortcuts.measure_shortcuts(images, facts, labels, systems={"A": [scores]})
    folds, patient = patient_folds(images["patient_id"].to_numpy()), np.arange(400)
    fact = Fact.from_values("view", images["view"])
    guess = auroc_of_fact(fact, TargetLabels(positive, folds, patient))
    low, high = guess.estimate().interval_at(0.95)
    # Nadeau and Bengio: 1 + 5 x (1/5) / (4/5) times the variance, 1.5 times as wide on the logit.
    wider = (logit(row["ci_high"]) - logit(row["ci_low"])) / (logit(high) - logit(low))
    assert wider == pytest.approx(1.5)
    gap = row["beyond"]["A"]
    alone = (auroc_parts(positive, scores, patient, 400, folds=folds) - guess).estimate()
    assert gap.estimate == alone.estimate
    assert gap.error == pytest.approx(np.hypot(alone.error, np.sqrt(1.25) * guess.estimate().error))


def test_targets_with_too_few_images_of_a_class_are_left_out():
    images = image_table(100, view=["AP", "PA"] * 50)
    labels = pd.DataFrame({"mass": [1.0] * 10 + [0.0] * 90}, index=images["image_id"])
    assert measure_shortcuts(images, NO_DECODE, labels) == []


def test_impossible_ages_are_unknown_and_unknown_labels_left_out():
    images = image_table(200, age_years=[400.0] * 100 + [30.0, 60.0] * 50, view=["AP", "PA"] * 100)
    labels = pd.DataFrame({"mass": [np.nan] * 50 + [1.0, 0.0] * 75}, index=images["image_id"])
    row = rows_by_fact(measure_shortcuts(images, NO_DECODE, labels))["age"]
    assert (row["n_images"], row["n_known"]) == (150, 100)


def test_figures_do_not_depend_on_the_order_of_the_rows(rsna_tables):
    images, labels = (table.iloc[:3000] for table in rsna_tables)
    shuffled = images.sample(frac=1, random_state=0)
    one, two = (rows_by_fact(measure_shortcuts(i, NO_DECODE, labels)) for i in (images, shuffled))
    assert one.keys() == two.keys()
    for fact in one:
        assert one[fact]["auroc"] == pytest.approx(two[fact]["auroc"], abs=1e-9)


def test_patients_who_all_have_both_classes_are_evaluated_too():
    images = image_table(200, view=["AP", "PA"] * 100).assign(
        patient_id=[f"p{n // 2}" for n in range(200)]
    )
    labels = pd.DataFrame({"mass": [1.0, 0.0] * 100}, index=images["image_id"])
    assert rows_by_fact(measure_shortcuts(images, NO_DECODE, labels))["view"]["auroc"] == 1.0
