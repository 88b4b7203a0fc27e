"""Data files of a report and their published schema."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from cxr_compare.evaluation.report.data_files import write_data_files
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "metrics.schema.json"


def problems(content):
    schema = json.loads(SCHEMA.read_text())
    return [error.message for error in Draft202012Validator(schema).iter_errors(content)]


@pytest.fixture
def written(test_set, predict, tmp_path):
    """A real comparison's metrics.json: a detector and a classifier with maps."""

    systems = {"Detector": predict("det", "boxes"), "Classifier": predict("cls", maps=True)}
    comparison = compare_predictions(systems, test_set, replicates=20)
    write_data_files(comparison, tmp_path / "report")
    return json.loads((tmp_path / "report" / "metrics.json").read_text())


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
