"""Labels and patients as people write them: understood, counted, or asked about."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.sources.from_frames import truth_from_values
from cxr_compare.evaluation.sources.import_folder import read_predictions
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.truth_files import truth_set

IDS = [f"img{number}" for number in range(6)]


def read(folder: Path, said: list[str] | None = None, **columns: object) -> DataSet:
    path = folder / "t.csv"
    pd.DataFrame({"image_id": IDS, **columns}).to_csv(path, index=False)
    return truth_set(path, None, ([] if said is None else said).append)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("1.00", "0.00"),
        ("Y", "N"),
        ("T", "F"),
        ("+", "-"),
        ("ja", "nein"),
        ("oui", "non"),
        ("sí", "no"),
        ("陽性", "陰性"),
        ("異常", "正常"),
        ("結節", "異常なし"),
    ],
)
def test_a_word_for_yes_or_no_is_a_label_of_one_finding(tmp_path, positive, negative):
    dataset = read(tmp_path, label=[positive, negative] * 3)
    (target,) = dataset.targets.values()
    findings = dataset.findings[dataset.findings["finding"] == target.any_of[0]]
    assert findings.set_index("image_id")["state"][IDS].tolist() == ["present", "absent"] * 3


def test_a_cell_that_is_no_label_is_named_by_its_line(tmp_path):
    with pytest.raises(InputError, match="line 4"):
        read(tmp_path, label=["1", "0", "x?", "1", "0", "1"])


def test_minus_one_beside_one_and_zero_is_uncertain_and_counted(tmp_path):
    said: list[str] = []
    dataset = read(tmp_path, said, label=[1, 0, -1, 1, 0, 1])
    assert dataset.findings["state"].tolist().count("uncertain") == 1
    assert any("-1: taken for uncertain (1 cell)" in line for line in said)


def test_minus_one_without_a_zero_is_asked_about(tmp_path):
    with pytest.raises(InputError, match="line 3"):
        read(tmp_path, label=[1, -1, 1, -1, 1, 1])


def test_rows_without_a_label_are_unknown(tmp_path):
    said: list[str] = []
    dataset = read(tmp_path, said, label=["1", "0", "", "N/A", "0", "1"])
    assert len(dataset.findings) == 4
    assert any("n/a: taken for unknown (1 cell)" in line for line in said)


@pytest.mark.parametrize(
    ("one", "other"), [("p1", "P1"), ("p 1", "p  1"), ("0001", "1"), ("1.0", "1")]
)
def test_two_spellings_of_a_patient_are_asked_about(tmp_path, one, other):
    patients = [one, other, "q", "r", "s", "t"]
    with pytest.raises(InputError, match=f"{one}.*{other}|{other}.*{one}"):
        read(tmp_path, label=[1, 0] * 3, patient_id=patients)
    with pytest.raises(InputError, match=f"{one}.*{other}|{other}.*{one}"):
        truth_from_values([1, 0] * 3, patients=patients)


@pytest.mark.parametrize("nobody", ["NA", "nan", "unknown", "ANONYMOUS"])
def test_images_of_nobody_are_not_images_of_one_patient(tmp_path, nobody):
    patients = [nobody, nobody, nobody, "p", "p", "q"]
    from_file = read(tmp_path, label=[1, 0] * 3, patient_id=patients)
    from_values, _ = truth_from_values([1, 0] * 3, patients=patients)
    for labelled in (from_file, from_values):
        assert labelled.images["patient_id"].nunique() == 5
        assert (labelled.images["patient_id_source"] == "assumed_image").sum() == 3


@pytest.mark.parametrize(
    "names", [("a/0.png", "b/0.png"), ("a\\0.png", "b\\0.png"), ("1.2.840.0", "1.2.840.1")]
)
def test_coco_results_by_number_find_images_of_equal_names_in_two_folders(tmp_path, names):
    images = [{"id": float(n), "file_name": name} for n, name in enumerate(names)]
    box = {"category_id": 1, "bbox": [1, 1, 8, 8]}
    truth = {
        "images": images,
        "categories": [{"id": 1, "name": "nodule"}],
        "annotations": [{"id": 1, "image_id": 0, **box}],
    }
    results = [{"image_id": number, "score": 0.9 - 0.8 * number, **box} for number in (0, 1)]
    (tmp_path / "t.json").write_text(json.dumps(truth))
    (tmp_path / "r.json").write_text(json.dumps(results))
    dataset = truth_set(tmp_path / "t.json", None, print)
    options = ImportOptions("A", coco_truth=tmp_path / "t.json")
    predictions = read_predictions(tmp_path / "r.json", dataset, options)
    scores = predictions.tables["boxes"].set_index("image_id")["score"]
    positive = dataset.findings.set_index("image_id")["state"] == "present"
    assert scores[positive[positive].index].tolist() == [0.9]
    assert len(scores) == 2
