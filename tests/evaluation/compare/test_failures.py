"""Failed images: refused, or left out by request; always counted as wrong beside."""

import pandas as pd
import pytest

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import read_table, write_table
from data_prep.store.predictions import Predictions
from evaluation.compare.baselines import FAILURES_WRONG, NONE_FAILED
from evaluation.compare.compare import compare_systems
from scripts.starting_weights import unknown_training_data


def fail(system, ids):
    part = system.folder / "predicted_images.parquet" / "part-00000.parquet"
    images = read_table(part, "predicted_images")
    images.loc[images["image_id"].isin(ids), ["status", "reason"]] = ["failed", "out of memory"]
    write_table(images, part, "predicted_images")
    return Predictions.open(system.folder)


def row_of(table, **keys):
    for key, value in keys.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_images_that_every_system_failed_on_are_refused_too(predict, judged_set):
    two = judged_set.image_ids("test")[:2]
    pair = {name: fail(predict(name, seed=n), two) for n, name in enumerate("AB")}
    with pytest.raises(InputError, match=rf"A failed on 2 test images \({two[0]}, {two[1]}\)"):
        compare_systems(pair, judged_set, judged_set.target())


def test_a_failure_counts_as_wrong_for_the_system_that_failed(predict, judged_set):
    target, test = judged_set.target(), judged_set.image_ids("test")
    whole, part = predict("A", seed=1), predict("B", seed=2)
    lost = test[:10]
    pair = {"A": whole, "B": fail(part, lost)}
    comparison = compare_systems(pair, judged_set, target, images="common", replicates=100)
    alone = compare_systems({"A": whole}, judged_set, target, replicates=100).metrics
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


def test_without_failures_the_row_is_there_and_says_so(predict, judged_set):
    systems = {"A": predict("A", seed=1)}
    table = compare_systems(systems, judged_set, judged_set.target(), replicates=50).metrics
    row = row_of(table, system="A", subgroup=FAILURES_WRONG, metric="recall", policy="max_f1")
    of_all = row_of(table, system="A", subgroup="all", metric="recall", policy="max_f1")
    assert (row["estimate"], row["ci_low"]) == (of_all["estimate"], of_all["ci_low"])
    assert row["note"] == NONE_FAILED


def test_weights_of_unknown_training_make_a_report_say_unknown(predict, judged_set):
    system = predict("A", seed=1)
    nobody = pd.DataFrame({"image_id": ["x"], "patient_id": ["other:1"], "role": ["train"]})
    write_table(nobody, system.folder / "seen.parquet", "seen")
    run = {"seed": 1, "started_from": {"weights": "run-1", "started_from":
           {"weights": "found.pth", "trained_on": "unknown"}}}  # fmt: skip
    system.info["seen_unknown"] = unknown_training_data(run)
    comparison = compare_systems({"A": system}, judged_set, judged_set.target(), replicates=20)
    assert any("What found.pth in A was trained on is unknown" in n.text for n in comparison.notes)
    assert comparison.provenance["systems"]["A"]["trained_on"]["unknown"] == "found.pth"
