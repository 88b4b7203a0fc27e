"""`cxr import-features`: features of an encoder become a system as those of its probe would."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.read_predictions import stored_decision
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.predict import predict
from cxr_compare.scripts.commands.train import train
from cxr_compare.scripts.commands.tune import tune
from cxr_compare.scripts.runs import load
from cxr_compare.studies.features.import_features import import_features
from tests.scripts.small_sets import cxr, drawn_images, refusal

SIZE = 64


@pytest.fixture(scope="module")
def probe_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small set of drawn images."""
    return drawn_images(tmp_path_factory.mktemp("drawn"), 48, 64, [SIZE], prevalence=0.45)


@pytest.fixture(scope="module")
def run(probe_set, tmp_path_factory) -> Path:
    """The run of a probe on ResNet-18 with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    state = build_classifier("resnet18", image_size=SIZE).state_dict()
    weights = folder / "resnet18.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, weights)
    keys = [f"data.image_size={SIZE}", "model.backbone=resnet18", f"model.weights={weights}"]
    run_command(train, "probe", data=probe_set, out=folder / "run", set_=keys, device="cpu")
    return folder / "run"


@pytest.fixture(scope="module")
def predicted(run, probe_set) -> Predictions:
    """Its predictions of the validation and test images."""
    out = run.parent / "predictions"
    run_command(predict, str(run), data=probe_set, out=out, device="cpu")
    return Predictions.open(out)


@pytest.fixture(scope="module")
def given(run, probe_set, tmp_path_factory) -> dict[str, Path]:
    """Feature files of the network's last maps: pooled, and cell by cell."""
    folder = tmp_path_factory.mktemp("given")
    dataset = DataSet.open(probe_set)
    store = dataset.store(SIZE)
    model = load(run, device="cpu").model.model
    ids = [str(image_id) for image_id in dataset.images["image_id"]]
    squares = torch.from_numpy(np.stack([store.image(image_id) for image_id in ids])[:, None])
    with torch.inference_mode():
        cells = model.features(squares).flatten(2).transpose(1, 2).numpy()  # (N, h * w, C)
    tables = {
        "whole": {"image_id": ids, "v": list(cells.mean(axis=1))},
        "cells": {
            "image_id": ids,
            "v": list(cells.reshape(len(ids), -1)),
            "grid_h": [2] * len(ids),
            "grid_w": [2] * len(ids),
        },
    }
    for name, table in tables.items():
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in tables}


def _imported(file: Path, data: Path, out: Path) -> Predictions:
    return import_features(
        file, data=data, out=out, name="ResNet-18", revision="random", licence="-"
    )


@pytest.fixture(scope="module")
def of_cells(given, probe_set, tmp_path_factory) -> Predictions:
    """Predictions from the features of cells."""
    return _imported(given["cells"], probe_set, tmp_path_factory.mktemp("cells") / "p")


def _scores(system: Predictions) -> pd.Series:
    return system.scores.set_index("image_id")["score"].sort_index()


def test_features_of_cells_give_the_scores_and_maps_of_the_network_s_probe(predicted, of_cells):
    assert np.allclose(_scores(predicted), _scores(of_cells), atol=1e-4)
    own, of_table = (
        np.stack(system.maps.set_index("image_id")["values"].sort_index().tolist())
        for system in (predicted, of_cells)
    )
    assert np.allclose(own, of_table, atol=1e-3)
    pd.testing.assert_frame_equal(
        of_cells.seen.sort_values("image_id", ignore_index=True),
        predicted.seen.sort_values("image_id", ignore_index=True),
    )


def test_features_of_whole_images_give_the_same_scores_and_no_map(
    predicted, given, probe_set, tmp_path
):
    whole = _imported(given["whole"], probe_set, tmp_path / "p")
    assert np.allclose(_scores(predicted), _scores(whole), atol=1e-4)
    assert whole.maps.empty
    tune(tmp_path / "p", data=probe_set)
    assert stored_decision(whole, DataSet.open(probe_set).target().name) is not None


def test_the_report_says_what_the_system_is(predicted, of_cells, probe_set, tmp_path):
    report = compare(
        [f"Network={predicted.folder}", f"Table={of_cells.folder}"],
        data=probe_set,
        out=tmp_path / "report",
        replicates=100,
    )
    figures = report.to_frame()
    rows = figures[(figures["metric"] == "auroc") & (figures["subgroup"] == "all")]
    rows = rows[rows["second"] == ""]
    aurocs = rows.set_index("first")["estimate"]
    assert aurocs["Network"] == pytest.approx(aurocs["Table"], abs=1e-6)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "features of ResNet-18 (revision random" in page
    assert "What the encoder in Table was trained on is unknown" in page


def test_an_interrupted_import_goes_on(given, probe_set, of_cells, tmp_path):
    words = ("import-features", given["cells"], "--data", probe_set, "--out", tmp_path / "p",
             "--name", "ResNet-18", "--revision", "random", "--licence", "MIT")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_compare.studies.features.import_features.write_table", _interrupt)
        assert cxr(*words) == 130
    assert not (tmp_path / "p" / "predictions.json").exists()
    assert cxr(*words) == 0
    assert _scores(Predictions.open(tmp_path / "p")).equals(_scores(of_cells))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--revision"),
        (["--revision", "1"], "--licence"),
        (["--revision", " ", "--licence", "MIT"], "--revision"),
        (["--revision", "1", "--licence", "MIT", "--image-column", "file"], "'file'"),
    ],
)
def test_an_import_says_which_option_is_wrong(given, probe_set, tmp_path, capsys, options, said):
    words = ("import-features", given["whole"], "--data", probe_set, "--out", tmp_path / "f")
    assert said in refusal(capsys, *words, "--name", "R", *options)
    assert not (tmp_path / "f").exists()
