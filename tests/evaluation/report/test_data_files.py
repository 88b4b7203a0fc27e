"""Data files of a report and their published schema."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.report.data_files import write_data_files
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.stored_predictions import compare_predictions

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "metrics.schema.json"


def problems(content):
    schema = json.loads(SCHEMA.read_text())
    return [error.message for error in Draft202012Validator(schema).iter_errors(content)]


@pytest.fixture(scope="module")
def written(evaluated_folder, predicted_folder, tmp_path_factory):
    """A real comparison's metrics.json: a detector and a classifier with maps."""
    dataset = DataSet.open(evaluated_folder)
    systems = {
        "Detector": Predictions.open(predicted_folder("det", "boxes")),
        "Classifier": Predictions.open(predicted_folder("cls", maps=True)),
    }
    test_set = LabelledSplit(dataset, dataset.target())
    comparison = compare_predictions(systems, test_set, replicates=20)
    folder = tmp_path_factory.mktemp("report") / "report"
    write_data_files(comparison, folder)
    return json.loads((folder / "metrics.json").read_text())


def test_metrics_json_keeps_to_its_published_schema(written):
    assert problems(written) == []


def test_schema_refuses_what_it_should(written):
    for what, spoil in {
        "key gone": lambda content: content.pop("target"),
        "figure as text": lambda content: content["metrics"][0].update(estimate="0.9"),
        "negative count": lambda content: content["metrics"][0].update(n_images=-1),
        "threshold without policy": lambda content: content["thresholds"].update(Detector=0.5),
        "other file": lambda content: content.update(contract="other"),
        "unknown metric": lambda content: content["metrics"][0].update(metric="informedness"),
    }.items():
        spoilt = deepcopy(written)
        spoil(spoilt)
        assert problems(spoilt), what
