"""A probe from the commands: trained, predicted, tuned, compared, exported and asked for images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.export import export
from cxr_compare.scripts.commands.predict import predict
from cxr_compare.scripts.commands.train import train
from cxr_compare.scripts.runs import load
from cxr_compare.training.run_folder import RunFolder
from tests.scripts.small_sets import drawn_images, refusal

SIZE = 64


@pytest.fixture(scope="module")
def probe_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small set of drawn images."""
    return drawn_images(tmp_path_factory.mktemp("drawn"), 48, 64, [SIZE], prevalence=0.45)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ResNet-18's random weights, as anybody's encoder is a file."""
    torch.manual_seed(0)
    model = build_classifier("resnet18", image_size=SIZE)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def _keys(weights: Path) -> list[str]:
    return [
        f"data.image_size={SIZE}", "model.backbone=resnet18", f"model.weights={weights}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def probe(probe_set, weights, tmp_path_factory) -> Path:
    """The run of a probe on ResNet-18."""
    out = tmp_path_factory.mktemp("runs") / "probe"
    run_command(train, "probe", data=probe_set, out=out, set_=_keys(weights), device="cpu")
    return out


@pytest.fixture(scope="module")
def predicted(probe, probe_set) -> Predictions:
    """Its predictions of the validation and test images."""
    out = probe.parent / "predictions"
    run_command(predict, str(probe), data=probe_set, out=out, device="cpu")
    return Predictions.open(out)


def test_only_the_last_layer_of_a_probe_is_fitted(probe, weights):
    run = RunFolder.open(probe)
    start = load_file(weights)
    changed = {
        key.split(".")[0]
        for key, value in load_file(probe / "model.safetensors").items()
        if not torch.equal(value, start[key])
    }
    assert changed == {"classifier"}
    assert run.info.trainable_parameters == 513
    assert run.info.pretrained == str(weights)
    history = pd.read_csv(probe / "metrics.csv")
    kept = history[history["kept"] == 1]
    assert kept["penalty"].tolist() == list(run.info.penalties.values())
    assert kept["val_loss"].min() == history["val_loss"].min()
    assert set(run.seen["role"]) == {"train", "val"}


def test_a_probe_has_maps_that_add_up_to_its_scores(probe, predicted):
    bias = load_file(probe / "model.safetensors")["classifier.bias"].item()
    maps = predicted.maps.set_index("image_id")
    scores = predicted.scores.set_index("image_id")["score"]
    sums = maps["values"].map(np.mean).reindex(scores.index) + bias
    assert np.allclose(1 / (1 + np.exp(-sums)), scores, atol=1e-5)


def test_a_probe_answers_for_an_image_and_its_export_agrees(probe, probe_set):
    path = DataSet.open(probe_set).image_path(DataSet.open(probe_set).image_ids("test")[0])
    answer = load(probe, device="cpu").predict(path)
    export(probe, format="onnx")
    exported = load(probe / "exports" / "onnx-fp32").predict(path)
    assert exported.score == pytest.approx(answer.score, abs=1e-4)
    assert exported.decision == answer.decision is not None


def test_the_same_command_again_changes_nothing(probe, probe_set, weights):
    before = (probe / "run.json").read_bytes()
    run_command(train, "probe", data=probe_set, out=probe, set_=_keys(weights), device="cpu")
    assert (probe / "run.json").read_bytes() == before


def test_a_probe_is_fitted_by_one_process_and_is_no_curve(probe_set, tmp_path, capsys):
    train_words = ("train", "probe", "--data", probe_set, "--out", tmp_path / "r", "--devices", "2")
    assert "--devices" in refusal(capsys, *train_words)


def test_a_transformer_of_timm_from_a_local_file_is_probed(probe_set, tmp_path):
    torch.manual_seed(0)
    name = "timm:vit_tiny_patch16_224"
    model = build_classifier(name, image_size=SIZE)
    state = {key.removeprefix("trunk.network."): v for key, v in model.state_dict().items()}
    torch.save(state, tmp_path / "vit.pth")
    keys = [f"data.image_size={SIZE}", f"model.backbone={name}",
            f"model.weights={tmp_path / 'vit.pth'}"]  # fmt: skip
    run_command(train, "probe", data=probe_set, out=tmp_path / "run", set_=keys, device="cpu")
    run_command(predict, str(tmp_path / "run"), data=probe_set, out=tmp_path / "p", device="cpu")
    predictions = Predictions.open(tmp_path / "p")
    assert set(predictions.maps["method"]) == {"token_gradcam"}  # its head reads a class token
    assert set(predictions.maps["grid_h"]) == {SIZE // 16}
