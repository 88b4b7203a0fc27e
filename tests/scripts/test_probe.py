"""A probe from the commands: trained, predicted, tuned, compared, exported and asked for images."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.features import Features
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.scripts.child_processes import free_port
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.export import export
from cxr_compare.scripts.commands.import_predictions import import_predictions
from cxr_compare.scripts.commands.predict import predict
from cxr_compare.scripts.commands.train import train
from cxr_compare.scripts.commands.tune import tune
from cxr_compare.scripts.runs import load
from cxr_compare.training.run_folder import RunFolder
from tests.scripts.small_sets import cxr, drawn_images, refusal

SIZE = 64


@pytest.fixture(scope="module")
def probe_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images, enough for an AUROC with an interval."""
    return drawn_images(tmp_path_factory.mktemp("drawn"), 120, 96, [SIZE], prevalence=0.45)


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


def _aurocs(report: Any) -> pd.DataFrame:
    """The AUROC of all test images of each system and each pair."""
    figures = report.to_frame()
    return figures[(figures["metric"] == "auroc") & (figures["subgroup"] == "all")].set_index(
        "system"
    )


def test_a_probe_equals_a_trained_head_within_its_interval(
    probe, predicted, probe_set, weights, tmp_path
):
    head = tmp_path / "head"
    keys = [*_keys(weights), "model.trainable=head", "model.last_stride=32", "training.epochs=12",
            "training.learning_rate=1e-2", "training.batch_size=16",
            "training.weight_decay=0.05", "training.monitor=val_loss"]  # fmt: skip
    run_command(train, "chexnet_quickstart", data=probe_set, out=head, set_=keys, device="cpu")
    run_command(predict, str(head), data=probe_set, out=tmp_path / "p", device="cpu")
    report = compare(
        [f"Probe={predicted.folder}", f"Head={tmp_path / 'p'}"],
        data=probe_set,
        out=tmp_path / "report",
        replicates=200,
    )
    (row,) = _aurocs(report).loc[["Probe - Head"]].itertuples()
    assert row.ci_low < 0 < row.ci_high


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


# Features of a table: those that the probe's own network computes, so that both must agree.
@pytest.fixture(scope="module")
def given(probe, probe_set, tmp_path_factory) -> dict[str, Path]:
    """Feature files of the network's last maps: pooled, and cell by cell."""
    folder = tmp_path_factory.mktemp("given")
    dataset = DataSet.open(probe_set)
    store = dataset.store(SIZE)
    model = load(probe, device="cpu").model.model
    ids = [str(image_id) for image_id in dataset.images["image_id"]]
    squares = torch.from_numpy(np.stack([store.image(image_id) for image_id in ids])[:, None])
    with torch.inference_mode():
        cells = model.features(squares).flatten(2).transpose(1, 2).numpy()  # (N, h * w, C)
    tables = {
        "whole": {"image_id": ids, "v": list(cells.mean(axis=1))},
        "cells": {"image_id": ids, "v": list(cells.reshape(len(ids), -1)),
                  "grid_h": [2] * len(ids), "grid_w": [2] * len(ids)},
    }  # fmt: skip
    for name, table in tables.items():
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in tables}


def _probe_of(file: Path, data: Path, folder: Path) -> Predictions:
    imported = import_predictions(
        file, data=data, out=folder / "features", name="ResNet-18", revision="random", licence="-"
    )
    assert isinstance(imported, Features)
    keys = [f"model.features={folder / 'features'}"]
    run_command(train, "probe", data=data, out=folder / "run", set_=keys, device="cpu")
    run_command(predict, str(folder / "run"), data=data, out=folder / "p", device="cpu")
    return Predictions.open(folder / "p")


@pytest.fixture(scope="module")
def probe_of_cells(given, probe_set, tmp_path_factory) -> Predictions:
    """Predictions of a probe of the features of cells, with its run beside."""
    return _probe_of(given["cells"], probe_set, tmp_path_factory.mktemp("cells"))


def test_given_features_of_a_network_give_the_scores_and_maps_of_its_probe(
    predicted, probe_of_cells
):
    own, of_table = (
        system.scores.set_index("image_id")["score"].sort_index()
        for system in (predicted, probe_of_cells)
    )
    assert np.allclose(own, of_table, atol=1e-4)
    cells, of_given = (
        np.stack(system.maps.set_index("image_id")["values"].sort_index().tolist())
        for system in (predicted, probe_of_cells)
    )
    assert np.allclose(cells, of_given, atol=1e-3)
    assert probe_of_cells.info.encoder["name"] == "ResNet-18"


def test_given_features_of_whole_images_give_the_same_scores_and_no_map(
    predicted, given, probe_set, tmp_path
):
    whole = _probe_of(given["whole"], probe_set, tmp_path)
    own, of_table = (
        system.scores.set_index("image_id")["score"].sort_index() for system in (predicted, whole)
    )
    assert np.allclose(own, of_table, atol=1e-4)
    assert whole.maps.empty
    tune(tmp_path / "p", data=probe_set)
    assert whole.decision(DataSet.open(probe_set).target().name) is not None


def test_a_probe_of_given_features_is_compared_as_a_run(
    predicted, probe_of_cells, probe_set, tmp_path
):
    run = probe_of_cells.folder.parent / "run"
    report = compare(
        [f"Network={predicted.folder}", f"Table={run}"],
        data=probe_set,
        out=tmp_path / "report",
        replicates=100,
    )
    aurocs = _aurocs(report)["estimate"]
    assert aurocs["Network"] == pytest.approx(aurocs["Table"], abs=1e-6)


def test_a_probe_of_given_features_answers_for_no_new_image(
    probe_of_cells, probe_set, tmp_path, capsys
):
    run = probe_of_cells.folder.parent / "run"
    image = DataSet.open(probe_set).image_path(DataSet.open(probe_set).image_ids("test")[0])
    for words in (
        ("predict", run, image),
        ("export", run, tmp_path / "onnx", "--format", "onnx"),
        ("serve", run, "--port", free_port()),
    ):
        line = refusal(capsys, *words)
        assert "cannot answer for new images" in line
        assert "ResNet-18" in line
    assert not (tmp_path / "onnx").exists()


def test_features_that_are_gone_or_changed_are_refused(given, probe_set, tmp_path, capsys):
    _probe_of(given["whole"], probe_set, tmp_path)
    capsys.readouterr()
    (tmp_path / "features").rename(tmp_path / "elsewhere")
    words = ("predict", tmp_path / "run", "--data", probe_set, "--out", tmp_path / "q")
    assert str(tmp_path / "features") in refusal(capsys, *words)
    table = pq.read_table(given["whole"]).to_pandas()
    table["v"] = [value * 2 for value in table["v"]]
    table.to_parquet(tmp_path / "other.parquet")
    options = ["--data", probe_set, "--name", "R", "--revision", "1", "--licence", "MIT"]
    assert cxr("import", tmp_path / "other.parquet", "--out", tmp_path / "features", *options) == 0
    capsys.readouterr()
    assert "other features" in refusal(capsys, *words)


def test_an_interrupted_probe_is_fitted_by_the_same_command(given, probe_set, tmp_path):
    features = tmp_path / "features"
    import_predictions(
        given["whole"], data=probe_set, out=features, name="R", revision="1", licence="MIT"
    )
    words = ("train", "probe", "--data", probe_set, "--out", tmp_path / "run",
             "--set", f"model.features={features}")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_compare.training.probe.fit_layer", _interrupt)
        assert cxr(*words) == 130
    assert not (tmp_path / "run" / "run.json").exists()
    assert cxr(*words) == 0
    assert RunFolder.open(tmp_path / "run").info.features["encoder"]["name"] == "R"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--revision"),
        (["--revision", "1"], "--licence"),
        (["--revision", "1", "--licence", "MIT", "--finding", "x"], "--finding"),
        (["--revision", " ", "--licence", "MIT"], "--revision"),
    ],
)
def test_an_import_of_features_says_which_option_is_wrong(
    given, probe_set, tmp_path, capsys, options, said
):
    words = ("import", given["whole"], "--data", probe_set, "--out", tmp_path / "f", "--name", "R")
    assert said in refusal(capsys, *words, *options)
    assert not (tmp_path / "f").exists()


def test_a_revision_is_refused_for_predictions(probe_set, tmp_path, capsys):
    (tmp_path / "p.csv").write_text("image_id,score\n")
    words = ("import", tmp_path / "p.csv", "--data", probe_set, "--out", tmp_path / "p")
    assert "--revision" in refusal(capsys, *words, "--name", "R", "--revision", "1")


def test_a_probe_is_fitted_by_one_process_and_is_no_curve(probe_set, tmp_path, capsys):
    train_words = ("train", "probe", "--data", probe_set, "--out", tmp_path / "r", "--devices", "2")
    assert "--devices" in refusal(capsys, *train_words)
    # annex studies
    curve_words = ("curve", "--detector", "retinanet_small", "--classifier", "probe",
                   "--data", probe_set, "--out", tmp_path / "c")  # fmt: skip
    assert "--classifier probe" in refusal(capsys, *curve_words)
    # end of annex studies


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
