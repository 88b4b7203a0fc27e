"""The shortcut figures are honest: known values, no optimism, and intervals that cover."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from cxr_compare.data_prep.audit.counts import expected_image_leak
from cxr_compare.data_prep.audit.shortcut_checks import check_shortcuts
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.compare.shortcuts import (
    Fact,
    TargetLabels,
    auroc_of_fact,
    auroc_of_facts,
)
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.folds import MOST_FOLDS, patient_folds
from cxr_compare.evaluation.systems.shortcuts import measure_shortcuts

NO_DECODE = pd.DataFrame({"image_id": pd.Series([], dtype=TEXT)})


def truth_of(positive, patient=None):
    patient = np.arange(len(positive)) if patient is None else patient
    return TargetLabels(positive.astype(bool), patient % MOST_FOLDS, patient)


def as_set(n, **columns):
    ids = [str(number) for number in range(n)]
    return pd.DataFrame({"image_id": ids, "patient_id": ids, **columns})


def by_fact(rows):
    return {row["fact"]: row for row in rows}


@pytest.fixture(scope="module")
def rsna_tables(shared_data):
    """All 26,684 images of the public tables, as a data set's images and labels."""
    folder = shared_data / "reference_csv"
    headers = pd.read_csv(folder / "kaggle_stage_2_train_images_dicom_headers.csv.gz")
    mapping = pd.read_csv(folder / "rsna_to_nih.csv", dtype=TEXT).set_index("patientId")
    labels = pd.read_csv(folder / "stage_2_train_labels.csv").groupby("patientId")["Target"].max()
    headers = headers.set_index("PatientID").reindex(labels.index)
    images = pd.DataFrame(
        {
            "image_id": labels.index,
            "patient_id": "nih:" + mapping["nih_image"].str[:8].reindex(labels.index).to_numpy(),
            "view": headers["ViewPosition"].to_numpy(),
            "sex": headers["PatientSex"].to_numpy(),
            "age_years": headers["PatientAge"].astype("float64").to_numpy(),
        }
    )
    return images, labels.astype("float64").to_frame("opacity")


def test_published_shortcuts_of_rsna_are_reproduced(rsna_tables):
    """SOURCE.md: view alone 0.706, view + sex + age 0.714 (here cross-validated by patient)."""
    found = by_fact(measure_shortcuts(rsna_tables[0], NO_DECODE, rsna_tables[1]))
    assert found["view"]["auroc"] == pytest.approx(0.706, abs=0.002)
    assert found["view + sex + age"]["auroc"] == pytest.approx(0.714, abs=0.002)
    assert found["view"]["ci_low"] < 0.706 < found["view"]["ci_high"]
    assert found["sex"]["auroc"] < 0.52
    assert (found["view"]["n_images"], found["view"]["n_positive"]) == (26_684, 6_012)


def test_published_leak_of_a_split_by_image_is_reproduced(rsna_tables):
    """SOURCE.md: the ids lie on 11,439 patients; about 70 % of the test images leak."""
    leak = expected_image_leak(rsna_tables[0])
    assert leak["n_patients"] == 11_439
    assert leak["expected_share"] == pytest.approx(0.70, abs=0.01)


def test_expected_leak_is_that_of_random_splits():
    rng = np.random.default_rng(0)
    patient = rng.choice(40, size=100, p=rng.dirichlet(np.ones(40)))
    shares = []
    for _ in range(3000):
        order = rng.permutation(100)
        test, train = patient[order[:20]], patient[order[20:]]
        shares.append(np.isin(test, train).mean())
    leak = expected_image_leak(pd.DataFrame({"patient_id": patient.astype(str)}))
    assert leak["expected_share"] == pytest.approx(np.mean(shares), abs=0.01)


@pytest.mark.parametrize("patients", [["p"] * 5, ["a", "b", "c"]])
def test_leak_of_one_patient_and_of_strangers(patients):
    leak = expected_image_leak(pd.DataFrame({"patient_id": patients}))
    assert leak["expected_share"] == pytest.approx(1.0 if len(set(patients)) == 1 else 0.0)


def test_a_fact_that_says_nothing_is_at_chance_however_many_values_it_has():
    rng = np.random.default_rng(0)
    values = []
    for seed in range(20):
        names = pd.Series(rng.integers(0, 30, 1000).astype(str))
        truth = truth_of(np.random.default_rng(seed).random(1000) < 0.3)
        values.append(auroc_of_fact(Fact.from_values("scanner", names), truth).value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_rare_categories_are_one():
    fact = Fact.from_values("scanner", pd.Series([f"s{n}" for n in range(30)] + ["common"] * 40))
    assert len(fact.table) == 2


def test_a_fact_is_learned_from_other_patients_only():
    """Each patient has a label and an own value of the fact: a memory, not a rule."""
    patient = np.repeat(np.arange(40), 30)
    positive = np.random.default_rng(2).random(40)[patient] < 0.5
    fact = Fact.from_values("room", pd.Series(patient.astype(str)))
    assert auroc_of_fact(fact, truth_of(positive, patient)).value == pytest.approx(0.5, abs=0.01)


def test_a_number_predicts_in_a_bend_too():
    """Illness at both ends of the scale: no straight line finds it."""
    age = np.random.default_rng(1).uniform(0, 100, 3000)
    truth = truth_of(np.abs(age - 50) > 33)
    assert auroc_of_fact(Fact.from_values("age", pd.Series(age)), truth).value > 0.95


def test_one_outlier_does_not_hide_what_numbers_say():
    size = np.r_[np.random.default_rng(1).normal(10_000, 100, 2000), 1e12]
    positive = size > 10_000
    facts = [
        Fact.from_values("size", pd.Series(size)),
        Fact.from_values("view", pd.Series(["AP", "PA"] * 1000 + ["AP"])),
    ]
    assert auroc_of_facts(facts, truth_of(positive)).value > 0.99


def test_missing_values_may_be_what_predicts():
    positive = np.arange(1000) % 4 == 0
    age = np.where(positive, np.nan, np.arange(1000) % 60)
    truth = truth_of(positive, np.random.default_rng(0).permutation(1000))
    assert auroc_of_fact(Fact.from_values("age", pd.Series(age)), truth).value > 0.99


def test_together_they_predict_what_none_does_alone():
    rng = np.random.default_rng(7)
    parts = rng.random((4000, 3))
    images = as_set(4000, sex=np.where(parts[:, 0] > 0.5, "M", "F"), age_years=parts[:, 1] * 90)
    images["view"] = np.where(parts[:, 2] > 0.5, "AP", "PA")
    score = (images["sex"] == "M") + (images["view"] == "AP") + images["age_years"] / 45
    labels = pd.DataFrame({"mass": (score > 2).astype(float).to_numpy()}, index=images["image_id"])
    found = by_fact(measure_shortcuts(images, NO_DECODE, labels))
    together = found["view + sex + age"]["auroc"]
    assert together > 0.95 > max(found[name]["auroc"] for name in ("view", "sex", "age")) + 0.05


def test_siblings_are_judged_without_the_image_itself():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(300), 4)
    images = as_set(1200).assign(patient_id=patients.astype(str))
    alike = (patients % 3 == 0).astype(float)
    chance = (rng.random(1200) < 0.3).astype(float)
    labels = pd.DataFrame({"alike": alike, "chance": chance}, index=images["image_id"])
    rows = measure_shortcuts(images, NO_DECODE, labels)
    found = {row["target"]: row for row in rows if row["fact"] == "sibling images"}
    assert found["alike"]["auroc"] == 1.0
    # Wholly apart: exact, of 100 pairs of a positive and a negative patient.
    assert found["alike"]["ci_low"] == pytest.approx(0.025 ** (1 / 100))
    assert found["chance"]["auroc"] == pytest.approx(0.5, abs=0.06)


def test_facts_about_the_file_warn_and_facts_about_the_person_inform():
    n = 400
    positive = np.arange(n) % 2 == 0
    images = as_set(n, view=np.where(positive | (np.arange(n) % 5 == 0), "AP", "PA"))
    decode = images[["image_id"]].assign(bits=np.where(positive, 8, 12), mean_grey=100.0)
    labels = pd.DataFrame({"mass": positive.astype(float)}, index=images["image_id"])
    problems = check_shortcuts(measure_shortcuts(images, decode, labels))
    assert [(p.check, p.severity) for p in problems] == [
        ("shortcut_person", "info"),
        ("shortcut_file", "warning"),
        ("shortcut_together", "info"),
    ]
    assert "bits alone predicts 'mass' with AUROC 1.000" in problems[1].message


def test_intervals_contain_that_models_of_five_folds_share_their_images():
    images = as_set(400, view=["AP", "AP", "PA"] * 133 + ["PA"])
    positive = np.random.default_rng(3).random(400) < 0.5
    labels = pd.DataFrame({"mass": positive.astype(float)}, index=images["image_id"])
    own = (positive + np.random.default_rng(4).normal(0, 1, 400)).astype(np.float64)
    (row,) = measure_shortcuts(images, NO_DECODE, labels, systems={"A": [own]})
    folds, patient = patient_folds(images["patient_id"].to_numpy()), np.arange(400)
    fact = Fact.from_values("view", images["view"])
    guess = auroc_of_fact(fact, TargetLabels(positive, folds, patient))
    low, high = guess.estimate().interval
    # Nadeau and Bengio: 1 + 5 x (1/5) / (4/5) times the variance, 1.5 times as wide on the logit.
    wider = (logit(row["ci_high"]) - logit(row["ci_low"])) / (logit(high) - logit(low))
    assert wider == pytest.approx(1.5)
    gap = row["beyond"]["A"]
    alone = (auroc_parts(positive, own, patient, 400, folds=folds) - guess).estimate()
    assert gap.value == alone.value
    assert gap.error == pytest.approx(np.hypot(alone.error, np.sqrt(1.25) * guess.estimate().error))


def test_too_few_images_of_a_class_are_not_judged():
    images = as_set(100, view=["AP", "PA"] * 50)
    labels = pd.DataFrame({"mass": [1.0] * 10 + [0.0] * 90}, index=images["image_id"])
    assert measure_shortcuts(images, NO_DECODE, labels) == []


def test_impossible_ages_are_unknown_and_unknown_labels_left_out():
    images = as_set(200, age_years=[400.0] * 100 + [30.0, 60.0] * 50, view=["AP", "PA"] * 100)
    labels = pd.DataFrame({"mass": [np.nan] * 50 + [1.0, 0.0] * 75}, index=images["image_id"])
    row = by_fact(measure_shortcuts(images, NO_DECODE, labels))["age"]
    assert (row["n_images"], row["n_known"]) == (150, 100)


def test_figures_do_not_depend_on_the_order_of_the_rows(rsna_tables):
    images, labels = (table.iloc[:3000] for table in rsna_tables)
    shuffled = images.sample(frac=1, random_state=0)
    one, two = (by_fact(measure_shortcuts(i, NO_DECODE, labels)) for i in (images, shuffled))
    assert one.keys() == two.keys()
    for fact in one:
        assert one[fact]["auroc"] == pytest.approx(two[fact]["auroc"], abs=1e-9)


def test_a_patient_has_one_fold_and_keeps_it():
    few, many = patient_folds(np.array(["p", "q"])), patient_folds(np.array(["q", "x", "p", "q"]))
    assert (few[0], few[1]) == (many[2], many[0])
    counts = np.bincount(patient_folds(np.array([f"p{n}" for n in range(5000)])))
    assert counts.min() > 900


def test_patients_who_all_have_both_classes_are_judged_too():
    images = as_set(200, view=["AP", "PA"] * 100).assign(
        patient_id=[f"p{n // 2}" for n in range(200)]
    )
    labels = pd.DataFrame({"mass": [1.0, 0.0] * 100}, index=images["image_id"])
    assert by_fact(measure_shortcuts(images, NO_DECODE, labels))["view"]["auroc"] == 1.0
