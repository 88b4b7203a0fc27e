"""Guarantees: their texts, the thresholds that they declare, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cxr_compare import DataSet, InputError, Predictions, compare, tune
from cxr_compare.evaluation import choose
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import stored_decision
from cxr_compare.evaluation.sources.stored_predictions import (
    read_system_of_split,
    read_validation_scores,
)
from cxr_compare.hospital.guarantee.guarantee import guarantee, guaranteed_threshold
from cxr_compare.hospital.guarantee.guarantees import read_guarantee
from tests.scripts.small_sets import table_set, write_predictions

TEXT = "sensitivity>=0.50@0.90"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sensitivity>=1.2@0.9", "sensitivity .*'1.2'"),
        ("sensitivity>=0.9@0", "confidence .*'0'"),
        ("sensitivity>=.9.1@0.9", "got '.9.1'"),
        ("ppv>=0.4,prevalence=1@0.9", "prevalence"),
        ("false_positives_per_image<=9@0.9", "'9'"),
        ("ppv>=0.4@0.9", "use sensitivity>=F@C"),
        ("sensitivity>=0.9&@0.9", "use sensitivity>=F@C"),
        ("sensitivity>=0.9&sensitivity>=0.8@0.9", "&"),
    ],
)
def test_a_guarantee_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(InputError, match=f"guarantee '.*': .*{says}"):
        read_guarantee(text)


def test_a_text_without_a_confidence_is_no_guarantee():
    for text in ("sensitivity>=0.90", "max_f1", "cost:5/1@0.1"):
        with pytest.raises(InputError, match=text):
            read_guarantee(text)


@pytest.mark.parametrize(
    ("text", "patients", "ends"),
    [
        ("sensitivity>=0.90@0.90", [212], "sensitivity at least 0.90 with 90 % confidence, on 212 "
         "validation patients"),
        ("sensitivity>=0.90&specificity>=0.705@0.80", [212, 1600], "and specificity at least 0.705 "
         "with 80 % confidence of both at once, on 212 and 1,600 validation patients"),
        ("false_positives_per_image<=0.5@0.9", [9], "at most 0.50 with 90 % confidence, on 9 "
         "validation patients"),
    ],
)  # fmt: skip
def test_a_guarantee_in_words_has_its_bounds_confidence_and_patients(text, patients, ends):
    line = read_guarantee(text).sentence(patients)
    assert line.startswith("guaranteed: ")
    assert line.endswith(ends)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of 480 patients, half of them for validation, and predictions on it."""
    folder = tmp_path_factory.mktemp("guarantee")
    rng = np.random.default_rng(4)
    ids = [f"i{number:03d}" for number in range(480)]
    positive = np.arange(480) % 4 < 2
    states = {"opacity": np.where(positive, "present", "absent")}
    data = table_set(folder, ids, states, split=["val", "test"] * 240)
    score = 1 / (1 + np.exp(-rng.normal(3.0 * positive, 1)))
    rows = pd.DataFrame({"image_id": ids, "finding": "opacity", "score": score})
    return data, write_predictions(folder / "A", data, ids, "A", scores=rows)


def test_a_declared_threshold_is_stored_and_obeyed(scored, tmp_path):
    """120 positive validation patients: 6 may be missed where 0.90 is guaranteed at 90 %."""
    data, made = scored
    folder = shutil.copytree(made, tmp_path / "A")
    with pytest.raises(InputError, match="cxr tune first"):
        guarantee(folder, "sensitivity>=0.90@0.90", data=data)
    tuned = tune(folder, data=data)
    decision = guarantee(folder, "sensitivity>=0.90@0.90", data=data)
    dataset = DataSet.open(data)
    truth = LabelledSplit(dataset, dataset.target("opacity"), "default")
    scores = read_validation_scores(Predictions.open(folder), tuned, truth)
    missed = (scores[scores["label"] == 1]["score"] < decision.declared.threshold).sum()
    allowed = stats.binom.ppf(0.1, 120, 0.1) - 1  # the most misses with p <= 0.1
    assert missed == allowed
    stored = stored_decision(Predictions.open(folder), "opacity")
    assert stored.declared.name == "sensitivity>=0.90@0.90"
    assert stored.policy(None, folder) == "declared"
    assert {n: c for n, c in decision.thresholds.items() if n != "declared"} == tuned.thresholds
    report = compare(folder, data=data, out=tmp_path / "report", replicates=100)
    assert report.to_dict()["declared"]["A"]["threshold"] == decision.declared.threshold
    rows = report.figures.query("metric == 'recall' and subgroup == 'all'").set_index("policy")
    assert "refitted" not in rows.loc["declared", "ci_method"]
    assert rows.loc["declared", "ci_low"] < rows.loc["declared", "estimate"]
    tune(folder, data=data)
    assert stored_decision(Predictions.open(folder), "opacity").declared is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("localised_sensitivity>=0.5@0.9", "localises nothing"),
        ("sensitivity>=0.999@0.99", "no such threshold"),
    ],
)
def test_what_cannot_be_guaranteed_is_refused_and_declares_nothing(scored, tmp_path, text, reason):
    data, made = scored
    folder = shutil.copytree(made, tmp_path / "A")
    tune(folder, data=data)
    with pytest.raises(InputError, match=reason):
        guarantee(folder, text, data=data)
    assert stored_decision(Predictions.open(folder), "opacity").declared is None


def test_fewer_than_100_patients_are_refused(scored, tmp_path):
    data, made = scored
    folder = shutil.copytree(made, tmp_path / "A")
    dataset = DataSet.open(data)
    test_set = LabelledSplit(dataset, dataset.target("opacity"), "default")
    system = read_system_of_split(Predictions.open(folder), test_set, ["val"])
    roles = test_set.truth.roles
    left_out = roles.index.isin([f"i{number:03d}" for number in range(92)])
    fewer = replace(test_set.truth, roles=roles.where(~left_out, "train"))
    decision = choose.tune(system, fewer)
    with pytest.raises(InputError, match="97 validation patients count for the sensitivity"):
        guaranteed_threshold(read_guarantee(TEXT), TEXT, system, decision, fewer)


def test_images_that_the_system_learned_from_guarantee_nothing(scored, tmp_path, monkeypatch):
    data, made = scored
    folder = shutil.copytree(made, tmp_path / "A")
    tune(folder, data=data)
    dataset = DataSet.open(data)
    test_set = LabelledSplit(dataset, dataset.target("opacity"), "default")
    predictions = Predictions.open(folder)
    seen = test_set.seen_by(predictions, test_set.truth.ids_of("val")[:0])
    monkeypatch.setattr(type(seen), "all_ids", [test_set.truth.ids_of("val")[0]])
    with pytest.raises(InputError, match="learned from patients of 1 validation images"):
        guarantee(folder, TEXT, data=data)
