"""`cxr tune` from the outside."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.split import split
from cxr_compare.scripts.commands.tune import tune
from tests.scripts.small_sets import table_set, write_predictions
from tests.stored_json import bind_tables, put_table, stored_json


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set without pixels, made by `cxr prepare`: 60 patients, every third image positive."""
    ids = [f"i{number:02d}" for number in range(60)]
    states = ["present" if number % 6 < 2 else "absent" for number in range(60)]
    folder = tmp_path_factory.mktemp("set")
    return table_set(folder, ids, {"opacity": states}, split=["val", "test"] * 30)


@pytest.fixture
def predictions(data: Path, tmp_path: Path) -> Path:
    ids = DataSet.open(data).images["image_id"]
    scores = pd.DataFrame(
        {"image_id": ids, "finding": "opacity", "score": np.linspace(0.9, 0.1, len(ids))}
    )
    return write_predictions(tmp_path / "reader", data, ids, scores=scores)


def test_tune_writes_and_prints_the_decision(data, predictions, capsys):
    run_command(tune, predictions, data=data, as_json=True)
    shown = capsys.readouterr()
    stored = stored_json(predictions / "decisions" / "opacity.json")
    assert json.loads(shown.out)["thresholds"] == stored["thresholds"]
    assert f"Decision: {predictions / 'decisions/opacity.json'}\nNext: cxr compare" in shown.err
    threshold = stored["thresholds"]["max_f1"]["threshold"]
    assert f"max_f1: score >= {threshold:.6g}" in shown.err
    assert "30 validation images of 30 patients, 10 positive" in shown.err


def test_tune_takes_other_policies(data, predictions):
    tune(predictions, data=data, policy=["youden", "sensitivity>=0.5"])
    stored = stored_json(predictions / "decisions" / "opacity.json")
    assert list(stored["thresholds"]) == ["youden", "sensitivity>=0.5"]


def test_tune_without_validation_images_is_refused_and_writes_nothing(data, predictions, tmp_path):
    part = predictions / "predicted_images.parquet" / "part-00000.parquet"
    scores = predictions / "scores.parquet" / "part-00000.parquet"
    split = DataSet.open(data).split()
    tested = split.loc[split["role"] == "test", "image_id"]
    for path, schema in ((part, "predicted_images"), (scores, "scores")):
        frame = pd.read_parquet(path)
        put_table(frame[frame["image_id"].isin(tested)], path, schema)
    bind_tables(predictions)
    with pytest.raises(InputError, match="val image of split 'default'"):
        tune(predictions, data=data)
    assert not (predictions / "decisions").exists()


@pytest.fixture
def detector(data: Path, tmp_path: Path) -> Path:
    """Two overlapping boxes on every image, more confident on the positive ones."""
    labels = DataSet.open(data).labels(DataSet.open(data).target())
    score = np.where(labels == 1, 0.8, 0.4) + np.linspace(-0.3, 0.1, len(labels))
    corners = {"x1": 10.0, "y1": 10.0, "x2": 40.0, "y2": 40.0}
    ids = labels.index
    boxes = pd.DataFrame({"image_id": ids, "finding": "opacity", **corners, "score": score})
    boxes = pd.concat([boxes, boxes.assign(x2=39.0, score=score / 2)])
    return write_predictions(tmp_path / "detector", data, ids, "Detector", boxes=boxes)


def test_tune_reports_its_calibration(data, predictions):
    options = {"calibration": "choose", "policy": ["threshold=0.5"]}
    shown = str(tune(predictions, data=data, **options))
    stored = stored_json(predictions / "decisions" / "opacity.json")
    assert set(stored["losses"]) == {
        "none", "temperature", "platt", "isotonic",
    }  # fmt: skip
    assert "(held-out log loss: none " in shown
    assert stored["thresholds"]["threshold=0.5"]["threshold"] == 0.5


def test_tune_chooses_among_the_requested_rules_and_prefers_the_simplest(data, detector):
    decision = tune(detector, data=data, reduction=["top_k", "max"])
    stored = stored_json(detector / "decisions" / "opacity.json")
    assert stored["options"]["reductions"] == ["top_k", "max"]
    assert [entry["rule"] for entry in stored["tried"]] == ["max", "top_k"]
    assert "image score: max" in str(decision)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": "beta"}, "calibration=.beta.: .*none, temp"),
        ({"reduction": ["mean"]}, "reduction=.mean.: .*max, top_k"),
        ({"policy": ["best"]}, "policy 'best': .*max_f1"),
    ],
)
def test_an_impossible_wish_is_refused_before_any_file_is_read(tmp_path, options, message):
    (tmp_path / "dataset.json").write_text("no JSON")  # a data set that nobody can open
    with pytest.raises(InputError, match=message):
        tune(tmp_path / "none", data=tmp_path, **options)


def test_tune_warns_of_validation_images_used_in_training(data, predictions):
    seen = pd.DataFrame({"image_id": ["i00", "i02"], "patient_id": ["i00", "i02"],
                         "role": ["train", "val"]})  # fmt: skip
    put_table(seen, predictions / "seen.parquet", "seen")
    bind_tables(predictions)
    text = str(tune(predictions, data=data))
    message = (
        "Reader learned from patients, or from copies, of 1 of the 30 validation images of split "
    )
    assert message in text


def test_tune_keeps_to_the_split_that_was_predicted(data, predictions):
    split(data, name="other", val=0.5, test=0.2, seed=3)
    info = stored_json(predictions / "predictions.json")
    info["data_set"]["split"] = "other"
    write_json(predictions / "predictions.json", "predictions", info)
    assert tune(predictions, data=data).chosen_on["split"] == "other"
