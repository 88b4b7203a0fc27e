"""Studies and patients: the highest score of their images, thresholds of their own."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import read_table, write_table
from evaluation.compare.compare import compare_systems
from evaluation.decisions.choices import TuningOptions
from evaluation.decisions.system_output import SystemOutput, patients_of
from evaluation.decisions.tuning import tune
from evaluation.decisions.units import group_images, unit_names
from evaluation.metrics.words import score_words
from evaluation.report.charts import report_charts
from evaluation.report.result_tables import write_tables
from evaluation.report.tables import unit_tables

IMAGES = pd.DataFrame(
    {
        "image_id": ["a", "b", "c", "d", "e"],
        "patient_id": ["p1", "p1", "p2", "p3", "p3"],
        "study_id": ["s1", "s2", "s1", "s1", "s1"],
    }
)


def test_a_study_is_named_with_its_patient():
    ids = pd.Index(IMAGES["image_id"])
    assert len(set(unit_names(IMAGES, ids, "study"))) == 4  # s1 of p1, p2 and p3 are three
    assert unit_names(IMAGES, ids, "patient").tolist() == ["p1", "p1", "p2", "p3", "p3"]


def test_a_unit_with_an_unknown_image_counts_only_where_another_is_positive():
    labels = pd.Series([1.0, np.nan, 0.0, 0.0, np.nan], index=IMAGES["image_id"])
    known = labels.dropna().index
    units = group_images(IMAGES, labels, known, "patient")
    assert units.names.tolist() == ["p1", "p2"]  # p3: a negative image and one unknown
    assert units.of_image.tolist() == [0, 1, -1]
    assert units.n_left_out == 1
    assert units.highest([0.2, 0.4, 0.9]).tolist() == [0.2, 0.4]


def test_studies_without_names_are_refused():
    ids = pd.Index(IMAGES["image_id"])
    with pytest.raises(InputError, match="names no studies"):
        unit_names(IMAGES.drop(columns="study_id"), ids, "study")
    with pytest.raises(InputError, match="image 'b' has no study_id"):
        unit_names(IMAGES.assign(study_id=["s1", None, "s1", "s1", "s1"]), ids, "study")


def chosen(table, **keys):
    rows = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert len(rows) == 1, keys
    return rows.iloc[0]


def test_figures_by_patient_are_those_of_the_highest_scores(predict, judged_set, tmp_path):
    target = judged_set.target()
    systems = {"A": predict("A", seed=1), "B": predict("B", "boxes", seed=2)}
    comparison = compare_systems(systems, judged_set, target, replicates=100, unit="patient")
    ids, by_patient = judged_set.image_ids("test"), {}
    for name, system in systems.items():
        rule = tune(system, judged_set, target, unit="patient")
        table = pd.DataFrame(
            {"patient": patients_of(judged_set.images, ids),
             "label": judged_set.labels(target).reindex(ids).to_numpy(),
             "score": SystemOutput(system, target, ids).scores(rule.reduction).to_numpy()}
        ).groupby("patient").max()  # fmt: skip
        row = chosen(comparison.by_unit.table(), system=name, metric="auroc", subgroup="all")
        assert row.estimate == pytest.approx(oracle.roc_auc_score(table["label"], table["score"]))
        assert (row.n_images, row.n_patients, row.unit) == (50, 50, "patient")
        assert row.ci_low < row.estimate < row.ci_high
        called = table["score"] >= rule.thresholds["max_f1"].threshold
        f1 = chosen(
            comparison.by_unit.table(), system=name, metric="f1", policy="max_f1", subgroup="all"
        )
        assert f1.estimate == pytest.approx(oracle.f1_score(table["label"], called))
        cut = chosen(comparison.by_unit.table(), system=name, metric="threshold", policy="max_f1")
        by_patient[name] = cut.estimate
        assert cut.estimate == rule.thresholds["max_f1"].threshold
    by_image = chosen(comparison.metrics, system="A", metric="auroc", subgroup="all")
    assert by_image.n_images == 100
    assert not {"ap50", "pointing_accuracy", "localised_sensitivity"} & {
        *comparison.by_unit.table()["metric"]
    }
    unit, tables = unit_tables(comparison)
    assert unit == "patient"
    section = next(s for s in tables[0].sections if "best F1" in s.title)
    assert section.count.startswith("50 patients, ")
    assert section.thresholds[0] == f"score ≥ {score_words(by_patient['A'])}"
    assert any("By patient: 50 patients of 100 images" in note.text for note in comparison.notes)
    write_tables(comparison, tmp_path / "report")
    written = pd.read_csv(tmp_path / "report" / "metrics.csv")
    assert set(written["unit"]) == {"image", "patient"}


def coverage_charts(comparison):
    return [chart for chart in report_charts(comparison) if chart.key == "coverage"]


def test_one_image_a_patient_gives_the_figures_by_image(predict, judged_set):
    images = read_table(judged_set.folder / "images.parquet", "images")
    studies = images["image_id"].map("study {}".format)
    write_table(images.assign(study_id=studies), judged_set.folder / "images.parquet", "images")
    opened = type(judged_set).open(judged_set.folder)
    comparison = compare_systems(
        {"A": predict("A", seed=1)}, opened, opened.target(), replicates=60, unit="study"
    )
    keys = ["system", "subgroup", "policy", "metric"]
    both = comparison.metrics.merge(comparison.by_unit.table(), on=keys, suffixes=("", "_unit"))
    assert len(both) > 40
    assert not coverage_charts(comparison)  # nothing is referred unless asked for
    pd.testing.assert_series_equal(
        both["estimate"], both["estimate_unit"], check_names=False, rtol=1e-9
    )


def test_what_was_asked_of_tune_holds_in_compare(predict, judged_set):
    target, system = judged_set.target(), predict("A", "boxes", seed=1)
    options = TuningOptions(calibration="temperature", reductions=("top_k", "learned"), refer=0.2)
    decision = tune(system, judged_set, target, options=options)
    system.write_decision("opacity", decision.to_json())
    comparison = compare_systems({"A": system}, judged_set, target, replicates=100, unit="patient")
    for table in (comparison.metrics, comparison.by_unit.table()):
        for metric in ("coverage", "accuracy_covered", "aurc"):
            row = chosen(table, system="A", metric=metric, policy="max_f1", subgroup="all")
            assert row.ci_low <= row.estimate <= row.ci_high
    (chart,) = coverage_charts(comparison)
    assert [curve.name for curve in chart.curves] == ["A"]
    assert len(chart.curves[0].points) == 1
    curve = comparison.systems["A"].coverage["max_f1"]
    assert curve["coverage"][-1] == 1.0
    accuracy = chosen(
        comparison.metrics, system="A", metric="accuracy", policy="max_f1", subgroup="all"
    )
    assert curve["accuracy"][-1] == pytest.approx(accuracy.estimate)
    referred = comparison.decisions["referred_max_f1"]
    left = chosen(comparison.metrics, system="A", metric="coverage", policy="max_f1")
    assert 1 - referred.mean() == pytest.approx(left.estimate)
    probability = comparison.decisions["probability"]
    expected = decision.probability(comparison.decisions["score"])
    np.testing.assert_allclose(probability, expected)
