"""A run and its exports as systems: what each is called, and what it is known to have learned."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.tables import read_table, typed_table
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.evaluation.sources.eligibility import describe_training_data
from cxr_compare.evaluation.sources.read_predictions import training_id
from cxr_compare.scripts import console
from cxr_compare.scripts.from_data_set import runs_inside
from cxr_compare.scripts.given_systems import GivenSystem, read_systems
from cxr_compare.serving.exported_model import ExportedModel
from cxr_compare.serving.predict_folder import copy_seen_images, describe_system
from cxr_compare.training.run_info import RunInfo
from tests.plain_info import export_spec
from tests.stored_json import put_table

FACTS = {"name": "CheXNet", "seed": 3, "created": "today", "best_value": 0.9}
SEEN = pd.DataFrame({"image_id": ["a"], "patient_id": ["p"], "role": ["train"]})


@pytest.fixture
def predicted(tmp_path: Path) -> Callable[[Path], Predictions]:
    """Predictions, of no image, by an export of ``tmp_path/run``."""
    (tmp_path / "run").mkdir()
    put_table(SEEN, tmp_path / "run" / "seen.parquet", "seen")
    RunInfo(**FACTS).write(tmp_path / "run" / "run.json")

    def predict(folder: Path) -> Predictions:
        folder.mkdir(parents=True)
        for name in ("model.onnx", "preprocess.json"):
            (folder / name).write_bytes(b"{}")
        run = RunInfo(**FACTS, folder=str(tmp_path / "run"), inference_id="1234")
        spec = export_spec(precision="int8", run=run)
        model = ExportedModel(folder, spec, Preprocess(size=64, mean=0.5, std=0.25))
        with PredictionWriter(tmp_path / "out", describe_system(model, None)) as writer:
            copy_seen_images(model, writer, console)
        return Predictions.open(tmp_path / "out")

    return predict


def test_an_export_is_named_after_its_run_and_counts_as_the_same_training(predicted, tmp_path):
    system = predicted(tmp_path / "elsewhere")
    assert system.name == "CheXNet (onnx int8)"
    assert training_id(system.info) == "1234" != system.info.inference_id
    assert system.info.run == "run"  # a folder of this machine is no business of others


@pytest.mark.parametrize("folder_kind", ["elsewhere", "run/exports/onnx-int8"])
def test_what_an_export_learned_from_is_read_from_its_run(predicted, tmp_path, folder_kind):
    system = predicted(tmp_path / folder_kind)
    pd.testing.assert_frame_equal(
        read_table(system.folder / "seen.parquet", "seen"), typed_table(SEEN, "seen")
    )
    assert not (tmp_path / folder_kind / "seen.parquet").exists()  # patients are not handed on


CONFIG = """kind = "classifier"
name = "CheXNet"
[data]
image_size = 64
[augmentation]
rotate_degrees = 10.0
[model]
backbone = "densenet121"
weights = "/home/me/secret/start.pth"
[training]
epochs = 3
"""


def test_predictions_contain_the_training_of_their_run_and_no_folder_of_the_machine(
    predicted, tmp_path
):
    (tmp_path / "run" / "config.toml").write_text(CONFIG)
    facts = {**FACTS, "pretrained": "/home/me/secret/start.pth"}
    RunInfo(**facts).write(tmp_path / "run" / "run.json")
    Preprocess(size=64, mean=0.5, std=0.25).write(tmp_path / "run" / "preprocess.json")
    system = predicted(tmp_path / "elsewhere")
    recipe = system.info.recipe
    assert recipe["network"] == "densenet121"
    assert recipe["config"]["augmentation"] == {"rotate_degrees": 10.0}
    assert recipe["config"]["model"]["weights"] == "start.pth"
    assert recipe["preprocess"]["size"] == 64
    assert recipe["run"]["seed"] == 3
    written = (system.folder / "predictions.json").read_text()
    assert str(tmp_path) not in written
    assert "/home" not in written


def test_an_export_whose_run_moved_with_it_finds_it_again(predicted, tmp_path):
    (tmp_path / "run").rename(tmp_path / "moved")
    system = predicted(tmp_path / "moved" / "exports" / "onnx-int8")
    assert (system.folder / "seen.parquet").is_file()


@pytest.mark.parametrize("other", [None, {**FACTS, "created": "yesterday"}])
def test_without_its_run_or_beside_another_what_an_export_learned_from_is_unknown(
    predicted, tmp_path, other, capsys
):
    (tmp_path / "run" / "run.json").unlink()
    if other is not None:
        RunInfo(**other).write(tmp_path / "run" / "run.json")
    system = predicted(tmp_path / "elsewhere")
    assert describe_training_data(system) == "unknown"
    assert "its run is not at hand" in capsys.readouterr().err


def test_opened_predictions_are_a_system_like_their_path(tmp_path):
    opened = Predictions(tmp_path / "a", PredictionsInfo(system="A", kind="scores"))
    expected = read_systems(tmp_path / "a")
    assert read_systems(opened) == read_systems([opened]) == expected
    assert read_systems([opened, str(tmp_path / "a")]) == expected * 2


def test_unfinished_runs_of_a_folder_are_named_and_left_out(tmp_path, capsys):
    (tmp_path / "zoo/small_cnn").mkdir(parents=True)
    RunInfo(**FACTS).write(tmp_path / "zoo/small_cnn/run.json")
    (tmp_path / "zoo/vgg16").mkdir()
    (tmp_path / "zoo/vgg16/config.toml").touch()
    found = runs_inside(GivenSystem(None, [tmp_path / "zoo"]))
    assert [each.paths for each in found] == [[tmp_path / "zoo/small_cnn"]]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'zoo/vgg16'}: ")
