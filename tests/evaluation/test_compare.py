"""A comparison: the same each time, by image and by patient, and what it refuses."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.average_precision import average_precision
from cxr_compare.evaluation.figures import COLUMNS
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.reduction import reduce_boxes
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.metric_table import evaluated_by_unit
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.report.summary_table import main_table
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_output, store_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.figure_text import score_text
from cxr_compare.evaluation.statistics.intervals import NO_WIDTH, expanded_level
from cxr_compare.evaluation.tuning_options import TuningOptions
from cxr_compare.evaluation.units import group_images
from tests.compared import compare_predictions
from tests.evaluation.evaluated_images import evaluated_images, figures_of, model_of, row_of
from tests.stored_json import put_table, stored_json


@pytest.fixture(scope="module")
def evaluation(evaluated_folder):
    return DataSet.open(evaluated_folder)


@pytest.fixture(scope="module")
def split(evaluation):
    return LabelledSplit(evaluation, evaluation.target())


@pytest.fixture(scope="module")
def systems(predicted_folder):
    return {
        "RetinaNet": Predictions.open(predicted_folder("RetinaNet", "boxes", 1)),
        "CheXNet": Predictions.open(predicted_folder("CheXNet", "scores", 2, maps=True)),
    }


@pytest.fixture(scope="module")
def compared(systems, split):
    return compare_predictions(systems, split, replicates=150, seed=9)


def figure(comparison, system, metric, policy="", subgroup="all", by_unit=False):
    table = comparison.by_unit.table() if by_unit else comparison.metrics
    return row_of(table, system=system, metric=metric, policy=policy, subgroup=subgroup)


def test_every_figure_agrees_with_its_oracle(systems, split, evaluation, compared):
    comparison, target = compared, split.target
    ids = evaluation.image_ids("test")
    y_true = evaluation.labels(target).reindex(ids).to_numpy()
    truth = evaluation.target_boxes(target)
    bounded = comparison.metrics[comparison.metrics["ci_method"] != ""]
    places = {"ap50", "localised_sensitivity", "pointing_accuracy"}
    assert {"auroc", "f1", *places} <= set(bounded["metric"])
    assert bounded["estimate"].between(bounded["ci_low"], bounded["ci_high"]).all()
    for name, system in systems.items():
        decision = tune_predictions(system, split)
        scores = read_output(system, target, ids).scores(decision.reduction).to_numpy()
        assert figure(comparison, name, "auroc").estimate == pytest.approx(
            oracle.roc_auc_score(y_true, scores), abs=1e-12
        )
        assert figure(comparison, name, "average_precision").estimate == pytest.approx(
            oracle.average_precision_score(y_true, scores), abs=1e-12
        )
        threshold = comparison.systems[name].thresholds["max_f1"]
        called = scores >= threshold
        assert figure(comparison, name, "f1", "max_f1").estimate == pytest.approx(
            oracle.f1_score(y_true, called), abs=1e-12
        )
        tn, fp, fn, tp = oracle.confusion_matrix(y_true, called).ravel().tolist()
        counts = {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
        assert comparison.systems[name].confusion["max_f1"] == counts
        assert figure(comparison, name, "tp", "max_f1").estimate == tp
        coco = average_precision(comparison.systems[name].boxes, truth, ids)
        assert figure(comparison, name, "ap50_decided").estimate == coco["ap50"]
        mine = comparison.decisions[comparison.decisions["system"] == name]
        found = (mine["localised"] & mine["decision_max_f1"]).sum() / y_true.sum()
        row = figure(comparison, name, "localised_sensitivity", "max_f1")
        assert row.estimate == pytest.approx(found)


def test_a_system_against_itself_differs_by_exactly_nothing(predict, test_set, tmp_path):
    # Only the same resamples for both can give this.
    first = predict("A", "scores", seed=3)
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    pair = {"A": first, "B": Predictions.open(tmp_path / "B")}
    comparison = compare_predictions(pair, test_set, replicates=50)
    gaps = comparison.metrics[comparison.metrics["second"] == "B"]
    known = gaps[gaps["estimate"].notna() & (gaps["metric"] != "ece")]  # the ECE has none
    assert len(known) > 10
    assert (known["estimate"] == 0).all()
    assert known["ci_low"].isna().all()  # no width, so no interval
    # Where validation hardly supports a threshold, it says that instead.
    unsure = known["note"].str.contains("choices were refitted|the floor allows")
    assert known.loc[unsure, "policy"].ne("").all()
    assert (~unsure).sum() > 10
    assert (known.loc[~unsure, "note"] == NO_WIDTH).all()


def test_the_tidy_table_names_the_population_of_each_figure(compared, evaluation):
    assert compared.metrics.columns.tolist() == list(COLUMNS)
    whole = figure(compared, "CheXNet", "auroc")
    normal = figure(compared, "CheXNet", "auroc", subgroup="vs_normal")
    ids = evaluation.image_ids("test")
    kinds = evaluation.images.set_index("image_id")["x_class"].reindex(ids)
    assert (whole.n_images, whole.n_positive) == (100, int((kinds == "lung_opacity").sum()))
    assert normal.n_images == int((kinds != "not_normal").sum())
    assert whole.n_patients == 50
    scores = compared.decisions.query("system == 'CheXNet'").set_index("image_id")
    kept = scores[scores["x_class"] != "not_normal"]
    expected = oracle.roc_auc_score(kept["label"], kept["score"])
    assert normal.estimate == pytest.approx(expected)


def test_images_without_detections_stay_in_every_table(compared):
    # The known mistake: silent images dropped, so that they cost nothing.
    detector = compared.systems["RetinaNet"]
    decisions = compared.decisions.query("system == 'RetinaNet'")
    silent = ~decisions["image_id"].isin(detector.boxes["image_id"])
    assert silent.any()
    assert (decisions.loc[silent, "score"] == 0).all()
    assert len(decisions) == 100
    assert sum(detector.confusion["max_f1"].values()) == 100


def test_test_labels_cannot_move_a_threshold(predict, test_set, evaluation_set, target):
    system = predict("CheXNet", "scores", seed=2)
    before = tune_predictions(system, test_set)
    test = evaluation_set.image_ids("test")
    findings = read_table(evaluation_set.folder / "findings.parquet", "findings")
    flipped = findings["image_id"].isin(test)
    findings.loc[flipped, "state"] = findings.loc[flipped, "state"].map(
        {"present": "absent", "absent": "present"}
    )
    put_table(findings, evaluation_set.folder / "findings.parquet", "findings")
    after = tune_predictions(
        system, LabelledSplit(type(evaluation_set).open(evaluation_set.folder), target)
    )
    assert after.thresholds == before.thresholds
    assert after.calibration == before.calibration


def test_intervals_are_those_of_a_plain_loop_that_draws_patients_and_not_images(
    compared, evaluation
):
    # The known mistake: a bootstrap by image, which takes images of one patient for new evidence.
    ids = evaluation.image_ids("test").sort_values()
    images = evaluation.images.set_index("image_id").loc[ids]
    y_true = evaluation.labels(evaluation.target()).reindex(ids).to_numpy()
    decisions = compared.decisions.query("system == 'CheXNet'").set_index("image_id")
    scores = decisions.loc[ids, "score"].to_numpy()
    names = np.unique(images["patient_id"].to_numpy(dtype=str))
    of_patient = [np.flatnonzero(images["patient_id"] == name) for name in names]
    assert {len(rows) for rows in of_patient} == {2}
    drawn = np.random.default_rng(9).integers(0, len(names), size=(150, len(names)))
    rows = [np.concatenate([of_patient[patient] for patient in draw]) for draw in drawn]
    slow = [oracle.average_precision_score(y_true[chosen], scores[chosen]) for chosen in rows]
    found = figure(compared, "CheXNet", "average_precision")
    tail = round((1 - expanded_level(0.95, found.effective_patients)) / 2, 12)
    expected = np.quantile(slow, [tail, 1 - tail])
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(expected), abs=1e-12)


def test_different_images_are_refused_and_listed(predict, test_set, evaluation_set):
    test = evaluation_set.image_ids("test")
    pair = {"A": predict("A", seed=1, skip=test[:7]), "B": predict("B", seed=2, skip=test[-1:])}
    with pytest.raises(InputError) as refusal:
        compare_predictions(pair, test_set)
    message = str(refusal.value)
    assert f"A lacks 7 that others ran on ({', '.join(test[:5])}, ...)" in message
    assert f"B lacks 1 that others ran on ({test[-1]})" in message
    assert "--images common" in message
    comparison = compare_predictions(pair, test_set, images="common", replicates=20)
    assert figure(comparison, "A", "auroc").n_images == 92
    assert any("92 test images that all systems ran on" in note.text for note in comparison.notes)


def test_images_that_a_system_failed_on_are_not_run(predict, test_set, evaluation_set):
    whole, lost = predict("A", seed=1), predict("B", seed=2)
    part = lost.folder / "predicted_images.parquet" / "part-00000.parquet"
    images = read_table(part, "predicted_images")
    one = evaluation_set.image_ids("test")[0]
    images.loc[images["image_id"] == one, ["status", "reason"]] = ["failed", "out of memory"]
    put_table(images, part, "predicted_images")
    with pytest.raises(InputError, match=rf"\bB\b.*\b1\b.*\({one}\)"):
        compare_predictions({"A": whole, "B": Predictions.open(lost.folder)}, test_set)


def test_a_system_that_has_seen_test_patients_is_refused(predict, test_set, evaluation_set):
    system = predict("A", seed=1)
    test = evaluation_set.image_ids("test")
    images = evaluation_set.images.set_index("image_id")
    seen = pd.DataFrame(
        # Another image of a test patient, from another data set.
        {"image_id": ["elsewhere"], "patient_id": [images.loc[test[0], "patient_id"]],
         "role": ["train"]}
    )  # fmt: skip
    put_table(seen, system.folder / "seen.parquet", "seen")
    system = Predictions.open(system.folder)
    with pytest.raises(InputError, match=r"\bA\b.*\b1 patient\b.*\b2 test images"):
        compare_predictions({"A": system}, test_set)
    put_table(seen.assign(patient_id="other:1"), system.folder / "seen.parquet", "seen")
    system = Predictions.open(system.folder)
    comparison = compare_predictions({"A": system}, test_set, replicates=20)
    assert not any("unknown" in note.text for note in comparison.notes)
    facts = comparison.provenance["systems"]["A"]
    assert facts["trained_on"] == {"train": "1 images of 1 patients"}


@pytest.fixture
def fingerprinted(evaluation_set):
    """The data set with a table of fingerprints, all of them different."""
    rng = np.random.default_rng(3)
    ids = evaluation_set.images["image_id"]
    table = pd.DataFrame(
        {"image_id": ids, "decoder": "hand", "inverted": False,
         "pixel_sha256": [f"sha-{image_id}" for image_id in ids],
         "perceptual_hash": [rng.bytes(32).hex() for _ in ids]}
    )  # fmt: skip
    empty = ("transfer_syntax", "bits", "photometric", "modality_transform", "voi",
             "window_center", "window_width", "orientation", "warnings")  # fmt: skip
    table = table.assign(**dict.fromkeys(empty))
    put_table(table, evaluation_set.folder / "decode.parquet", "decode")
    return table.set_index("image_id")


def test_test_images_that_trained_under_other_names_are_refused_and_near_copies_cautioned(
    predict, evaluation_set, fingerprinted
):
    opened = type(evaluation_set).open(evaluation_set.folder)  # with the table of fingerprints
    test_set = LabelledSplit(opened, opened.target())
    system = predict("A", seed=1)
    test = evaluation_set.image_ids("test")
    seen = fingerprinted.loc[test[:3], ["pixel_sha256", "perceptual_hash"]].reset_index(drop=True)
    seen = seen.assign(image_id=["x1", "x2", "x3"], patient_id=["y1", "y2", "y3"], role="train")
    put_table(seen, system.folder / "seen.parquet", "seen")
    system = Predictions.open(system.folder)
    said = rf"A has seen 3 of \d+ test images in training under other ids \({test[0]} = x1, "
    with pytest.raises(InputError, match=said):
        compare_predictions({"A": system}, test_set)
    near = seen.assign(pixel_sha256=["1", "2", "3"])  # stored again: other bytes, like fingerprints
    put_table(near, system.folder / "seen.parquet", "seen")
    system = Predictions.open(system.folder)
    first = compare_predictions({"A": system}, test_set, replicates=20).answer.cautions[0].text
    assert "A may have seen near copies of 3 of " in first
    assert "no sure external validation" in first
    validation = evaluation_set.image_ids("val")
    put_table(
        seen.assign(pixel_sha256=fingerprinted.loc[validation[:3], "pixel_sha256"].to_numpy(),
                    perceptual_hash=None),
        system.folder / "seen.parquet", "seen",
    )  # fmt: skip
    system = Predictions.open(system.folder)
    notes = compare_predictions({"A": system}, test_set, replicates=20).notes
    assert any("of 3 of the " in note.text for note in notes if note.kind == "validation")
    assert not any(note.kind == "copies" for note in notes)


def test_predictions_of_another_data_set_or_of_loose_files_are_refused(predict, test_set):
    system = predict("A")
    other = MadeOn(name="other", content_id="other")
    system.info = system.info.with_values(data_set=other)
    with pytest.raises(InputError, match="content_id other"):
        compare_predictions({"A": system}, test_set)
    system.info = system.info.with_values(data_set=None)
    with pytest.raises(InputError, match="loose files"):
        compare_predictions({"A": system}, test_set)


def test_stored_choices_are_refused_where_a_score_on_validation_has_changed(
    predict, test_set, evaluation_set
):
    system = predict("A")
    chosen = tune_predictions(system, test_set)
    store_decision(system, chosen)
    comparison = compare_predictions({"A": system}, test_set, replicates=20)
    assert comparison.systems["A"].thresholds["max_f1"] == chosen.thresholds["max_f1"].threshold
    part = system.folder / "scores.parquet" / "part-00000.parquet"
    scores = read_table(part, "scores")
    on_validation = scores["image_id"].isin(evaluation_set.image_ids("val"))
    scores.loc[scores.index[on_validation][0], "score"] = 0.123
    put_table(scores, part, "scores")
    changed = Predictions.open(system.folder)
    with pytest.raises(InputError, match="chosen on other scores or labels"):
        compare_predictions({"A": changed}, test_set, replicates=20)


@pytest.mark.parametrize("key", ["inference_id", "labels_id", "split_id", "content_id"])
def test_a_decision_chosen_on_something_else_is_refused(predict, test_set, key):
    system = predict("A")
    chosen = tune_predictions(system, test_set)
    store_decision(system, chosen.with_values(chosen_on=chosen.chosen_on | {key: "another"}))
    with pytest.raises(InputError, match=rf"\b{key}\b"):
        compare_predictions({"A": system}, test_set)


def test_without_validation_rows_only_threshold_free_figures(predict, test_set):
    systems = {
        "A": predict("A", "boxes", roles=("test",)),
        "B": predict("B", "scores", roles=("test",), seed=2),
    }
    comparison = compare_predictions(systems, test_set, replicates=20)
    assert figure(comparison, "A", "auroc").estimate > 0.5
    row = figure(comparison, "A", "f1", "max_f1")
    assert np.isnan(row.estimate)
    assert "no validation image" in row.note
    assert not any(each.confusion for each in comparison.systems.values())
    (note,) = [note for note in comparison.notes if note.kind == "no_validation"]
    assert note.text.startswith("A and B have no validation images")
    assert comparison.decisions["decision_max_f1"].isna().all()


def test_a_system_without_maps_has_no_place_and_says_so(predict, test_set):
    comparison = compare_predictions(
        {"A": predict("A", "boxes", seed=1), "B": predict("B", "scores", seed=2)},
        test_set,
        replicates=20,
    )
    assert figure(comparison, "B", "pointing_accuracy").note == (
        "the system gives neither boxes nor maps"
    )
    assert figure(comparison, "A - B", "ap50").note.startswith("B: the system gives neither")
    assert comparison.systems["B"].boxes is None


def test_a_policy_that_only_one_system_is_tuned_for_gives_no_difference(predict, test_set):
    pair = {"A": predict("A", seed=1), "B": predict("B", seed=2)}
    youden = tune_predictions(pair["A"], test_set, policies=["youden"])
    store_decision(pair["A"], youden)
    comparison = compare_predictions(pair, test_set, replicates=20)
    row = figure(comparison, "A - B", "precision", "youden")
    assert np.isnan(row.estimate)
    assert row.note == "B: not tuned for this"


def test_localisation_is_evaluated_only_where_boxes_are_trusted(predict, evaluation_set, target):
    system = predict("A", "boxes", seed=1)
    coverage = read_table(evaluation_set.folder / "box_coverage.parquet", "box_coverage")
    positive_test = coverage["image_id"].isin(evaluation_set.image_ids("test"))
    coverage.loc[coverage.index[positive_test][:5], "coverage"] = "some"
    put_table(coverage, evaluation_set.folder / "box_coverage.parquet", "box_coverage")
    dataset = type(evaluation_set).open(evaluation_set.folder)
    comparison = compare_predictions({"A": system}, LabelledSplit(dataset, target), replicates=20)
    assert figure(comparison, "A", "ap50").n_images == 95
    assert figure(comparison, "A", "auroc").n_images == 100
    known = comparison.decisions["localised"].notna().sum()
    assert known == int(positive_test.sum()) - 5


def test_the_written_tables_read_back(compared, split, tmp_path):
    Result(Compared(compared, split.truth)).save(tmp_path / "report")
    payload = stored_json(tmp_path / "report" / "answer.json")
    assert "NaN" not in (tmp_path / "report" / "answer.json").read_text()
    assert json.dumps(payload["thresholds"]) == json.dumps(
        {name: each.thresholds for name, each in compared.systems.items()}
    )
    table = read_table(tmp_path / "report" / "decisions.parquet", "decisions")
    assert len(table) == 200
    called = table[table["system"] == "CheXNet"].set_index("image_id")
    threshold = compared.systems["CheXNet"].thresholds["max_f1"]
    assert ((called["score"] >= threshold) == called["decision_max_f1"]).all()
    frame = pd.read_csv(tmp_path / "report" / "figures.csv")
    known = compared.metrics["estimate"].dropna()  # both systems have the same figures
    np.testing.assert_allclose(frame["estimate"].dropna(), known)


def test_a_comparison_is_the_same_each_time(compared, systems, split):
    again = compare_predictions(systems, split, replicates=150, seed=9)
    pd.testing.assert_frame_equal(again.metrics, compared.metrics)
    pd.testing.assert_frame_equal(again.decisions, compared.decisions)


def test_one_patient_gives_estimates_without_intervals():
    model = model_of(evaluated_images([1, 0], [0, 0]), [0.9, 0.1])
    figures = figures_of({"A": [model]}, Resamples(1, 10))
    precision, auroc = figures.get("A", "average_precision"), figures.get("A", "auroc")
    assert precision.estimate == auroc.estimate == 1.0
    assert not precision.bounded
    assert not auroc.bounded
    assert precision.note == "one patient gives no interval"
    assert auroc.note.startswith("no interval: fewer than two patients")


def test_boxes_of_other_images_cannot_slip_into_a_reduction(systems, evaluation):
    ids = evaluation.image_ids("test")
    boxes = read_output(systems["RetinaNet"], evaluation.target(), ids).predicted_boxes
    with pytest.raises(InputError, match="not among the images"):
        reduce_boxes(boxes, evaluation.image_ids("val"))


IMAGES = pd.DataFrame(
    {
        "image_id": ["a", "b", "c", "d", "e"],
        "patient_id": ["p1", "p1", "p2", "p3", "p3"],
        "study_id": ["s1", "s2", "s1", "s1", "s1"],
    }
)


def truth_of(images, labels=None):
    ids = pd.Index(images["image_id"])
    labels = pd.Series(0.0, index=ids) if labels is None else labels
    return LabelledImages(images, labels.to_frame("label"), pd.Series("test", index=ids))


def test_a_study_is_named_with_its_patient():
    truth = truth_of(IMAGES)
    ids = pd.Index(IMAGES["image_id"])
    studies = group_images(truth, ids, "study", role="test")
    assert len(studies.names) == 4  # s1 of p1, p2 and p3 are three
    patients = group_images(truth, ids, "patient", role="test")
    assert patients.names[patients.of_image].tolist() == ["p1", "p1", "p2", "p3", "p3"]


def test_a_unit_with_an_unknown_image_counts_only_where_another_is_positive():
    labels = pd.Series([1.0, np.nan, 0.0, 0.0, np.nan], index=IMAGES["image_id"])
    known = labels.dropna().index
    units = group_images(truth_of(IMAGES, labels), known, "patient", role="test")
    assert units.names.tolist() == ["p1", "p2"]  # p3: a negative image and one unknown
    assert units.of_image.tolist() == [0, 1, -1]
    assert units.n_left_out == 1
    assert units.highest([0.2, 0.4, 0.9]).tolist() == [0.2, 0.4]


def test_studies_without_names_are_refused():
    ids = pd.Index(IMAGES["image_id"])
    unnamed = truth_of(IMAGES.drop(columns="study_id"))
    with pytest.raises(InputError, match="names no studies"):
        group_images(unnamed, ids, "study", role="test")
    partly = truth_of(IMAGES.assign(study_id=["s1", None, "s1", "s1", "s1"]))
    with pytest.raises(InputError, match=r"'b'.*study_id"):
        group_images(partly, ids, "study", role="test")


def test_figures_by_patient_are_those_of_the_highest_scores(
    predict, test_set, evaluation_set, tmp_path
):
    target = evaluation_set.target()
    systems = {"A": predict("A", seed=1), "B": predict("B", "boxes", seed=2)}
    comparison = compare_predictions(systems, test_set, replicates=100, unit="patient")
    ids, by_patient = evaluation_set.image_ids("test"), {}
    for name, system in systems.items():
        rule = tune_predictions(system, test_set, unit="patient")
        table = pd.DataFrame(
            {"patient": test_set.truth.patients_of(ids),
             "label": evaluation_set.labels(target).reindex(ids).to_numpy(),
             "score": read_output(system, target, ids).scores(rule.reduction).to_numpy()}
        ).groupby("patient").max()  # fmt: skip
        row = figure(comparison, name, "auroc", by_unit=True)
        assert row.estimate == pytest.approx(oracle.roc_auc_score(table["label"], table["score"]))
        assert (row.n_images, row.n_patients, row.unit) == (50, 50, "patient")
        assert row.ci_low < row.estimate < row.ci_high
        called = table["score"] >= rule.thresholds["max_f1"].threshold
        f1 = figure(comparison, name, "f1", "max_f1", by_unit=True)
        assert f1.estimate == pytest.approx(oracle.f1_score(table["label"], called))
        cut = figure(comparison, name, "threshold", "max_f1", by_unit=True)
        by_patient[name] = cut.estimate
        assert cut.estimate == rule.thresholds["max_f1"].threshold
    assert figure(comparison, "A", "auroc").n_images == 100
    assert not {"ap50", "pointing_accuracy", "localised_sensitivity"} & {
        *comparison.by_unit.table()["metric"]
    }
    table = main_table(evaluated_by_unit(comparison))
    assert table.lead.startswith("50 patients, ")
    threshold = table.frame.loc["Score threshold for best F1", "A"]
    assert threshold.startswith(score_text(by_patient["A"]))
    (note,) = [note for note in comparison.notes if note.kind == "unit"]
    assert note.text.startswith("By patient: 50 patients of 100 images")
    Result(Compared(comparison, test_set.truth)).save(tmp_path / "report")
    written = pd.read_csv(tmp_path / "report" / "figures.csv")
    assert set(written["unit"]) == {"image", "patient"}


def test_one_image_a_patient_gives_the_figures_by_image(predict, evaluation_set):
    images = read_table(evaluation_set.folder / "images.parquet", "images")
    studies = images["image_id"].map("study {}".format)
    put_table(images.assign(study_id=studies), evaluation_set.folder / "images.parquet", "images")
    opened = type(evaluation_set).open(evaluation_set.folder)
    comparison = compare_predictions(
        {"A": predict("A", seed=1)},
        LabelledSplit(opened, opened.target()),
        replicates=60,
        unit="study",
    )
    keys = ["first", "second", "subgroup", "policy", "metric"]
    both = comparison.metrics.merge(comparison.by_unit.table(), on=keys, suffixes=("", "_unit"))
    assert len(both) > 40
    pd.testing.assert_series_equal(
        both["estimate"], both["estimate_unit"], check_names=False, rtol=1e-9
    )


def test_options_of_tune_apply_in_compare(predict, test_set, evaluation_set):
    system = predict("A", "boxes", seed=1)
    options = TuningOptions(calibration="temperature", reductions=("top_k", "noisy_or"))
    decision = tune_predictions(system, test_set, options=options)
    store_decision(system, decision)
    comparison = compare_predictions({"A": system}, test_set, replicates=100, unit="patient")
    probability = comparison.decisions["probability"]
    expected = decision.probability(comparison.decisions["score"])
    np.testing.assert_allclose(probability, expected)
