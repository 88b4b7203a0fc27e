"""`cxr show --card`: cards of runs, of imported predictions, and of the systems of a report."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.import_predictions import import_predictions
from cxr_compare.scripts.commands.show import show
from cxr_compare.scripts.commands.tune import tune
from cxr_compare.serving.export_spec import EVALUATION_FILE
from tests.scripts.small_sets import cxr, table_set
from tests.scripts.untrained import untrained_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of 120 labelled images, and the imported scores of a system on it, tuned."""
    folder = tmp_path_factory.mktemp("cards")
    ids = [f"i{number:03d}" for number in range(120)]
    positive = np.random.default_rng(0).random(120) < 0.4
    data = table_set(folder, ids, {"mass": np.where(positive, "present", "absent").tolist()})
    images = DataSet.open(data).images["image_id"]
    scores = np.random.default_rng(1).uniform(0, 0.5, 120)
    truth = DataSet.open(data).labels(DataSet.open(data).target()).reindex(images).to_numpy()
    pd.DataFrame({"image_id": images, "score": scores + 0.3 * truth}).to_csv(
        folder / "scores.csv", index=False
    )
    import_predictions(folder / "scores.csv", data=data, out=folder / "scores", name="Other")
    return folder


def test_imported_predictions_have_a_card_before_and_after_tuning(folder):
    before = show(folder / "scores", card=True).text
    assert "## Quantitative analyses" not in before
    assert "No file records what the system learned from" in before
    tune(folder / "scores", data=folder / "data")
    after = show(folder / "scores", card=True).text
    assert "These images chose the thresholds" in after
    decision = json.loads(next((folder / "scores" / "decisions").glob("*.json")).read_text())
    assert f"| AUROC | {decision['validation']['']['auroc']:.3f} |" in after
    assert "Intervals" not in after


def test_card_counts_the_synthetic_validation_images(folder, tmp_path):
    shutil.copytree(folder / "scores", tmp_path / "scores")
    tune(tmp_path / "scores", data=folder / "data")
    patients = ["phantom-1:1"] * 3 + ["p2", "p3"]
    rows = pd.DataFrame({"image_id": list("abcde"), "system": "Other", "label": [0, 1, 0, 1, 0]})
    rows = rows.assign(score=[0.1, 0.9, 0.2, 0.8, 0.3], probability=np.nan, patient_id=patients)
    digest = write_table(rows, tmp_path / "scores" / EVALUATION_FILE, "decisions")
    path = tmp_path / "scores" / "predictions.json"
    record = json.loads(path.read_text())
    files = {**record["files"], EVALUATION_FILE: digest}
    path.write_text(json.dumps({**record, "files": files}))
    card = show(tmp_path / "scores", card=True).text
    assert "**3 of these images are synthetic**" in card


def predicted_here(source, target):
    """Copy imported predictions as if a network of this program had made them."""
    shutil.copytree(source, target)
    path = target / "predictions.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "backend": "torch", "imported_from": None}))
    return target


def test_card_of_a_report_is_that_of_the_system_with_the_same_predictions(folder, tmp_path):
    report, scores = tmp_path / "report", predicted_here(folder / "scores", tmp_path / "scores")
    compare({"Renamed": scores}, data=folder / "data", out=report, replicates=100)
    stored = (report / "cards" / "Renamed.md").read_text()
    assert show(scores, card=True, report=report).text == stored
    assert show(report, card=True).text == stored
    other = untrained_run("classifier", folder / "data", tmp_path / "run")
    with pytest.raises(InputError, match="evaluates Renamed, not the system in"):
        show(other, card=True, report=report)
    (report / "cards" / "Renamed.md").unlink()
    with pytest.raises(InputError, match="--overwrite"):
        show(report, card=True)


@pytest.fixture(scope="module")
def other_report(folder, tmp_path_factory):
    """The report of the imported predictions alone."""
    report = tmp_path_factory.mktemp("other") / "report"
    compare({"Other": folder / "scores"}, data=folder / "data", out=report, replicates=100)
    return report


def test_a_report_has_no_card_of_imported_predictions(folder, other_report):
    assert not (other_report / "cards").exists()
    with pytest.raises(InputError, match="imported"):
        show(other_report, card=True)
    with pytest.raises(InputError, match="imported"):
        show(folder / "scores", card=True, report=other_report)


def test_card_of_a_run_without_validation_says_what_the_run_records(folder, tmp_path):
    run = untrained_run("detector", folder / "data", tmp_path / "run")
    card = show(run, card=True).text
    assert "pipeline_tag: object-detection" in card
    assert "20 images" in card
    assert "## Quantitative analyses" not in card


def test_card_is_of_a_system_and_only_then_takes_a_report(folder, other_report):
    with pytest.raises(InputError, match="is a data set"):
        show(folder / "data", card=True)
    with pytest.raises(InputError, match="card=True"):
        show(machine=True, card=True)
    with pytest.raises(InputError, match="card=True"):
        show(folder / "scores", report=other_report)
    with pytest.raises(InputError, match="report"):
        show(folder / "scores", card=True, report=folder / "data")


def test_card_goes_to_standard_output_alone(folder, capsys):
    assert cxr("show", folder / "scores", "--card") == 0
    out = capsys.readouterr().out
    assert out.startswith("---\n")
    assert out.rstrip().endswith("doi:10.1145/3287560.3287596.")
