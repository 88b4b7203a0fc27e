"""What every command does with a run of any model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm

from cxr_compare.scripts.commands.train import train
from cxr_compare.serving.guard import GUARD_NAME
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import build_app
from cxr_compare.training.run_folder import RunFolder
from tests.architectures.model_cases import EXAMPLE_TOML, MODEL_CASES, ModelCase
from tests.scripts.launched import alone, launched, torchrun
from tests.scripts.small_sets import cxr, drawn_images, interrupted_after, refusal
from tests.serving.conftest import accepting_guard
from tests.serving.web.conftest import Client


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty drawn images at 96 px."""
    return drawn_images(tmp_path_factory.mktemp("cases"), 30, 96, [96], prevalence=0.4)


@pytest.fixture(scope="session")
def image(data: Path) -> Path:
    return next((data.parent / "source").rglob("*.dcm"))


@pytest.fixture(scope="session")
def run_folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a model case, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(name: str) -> Path:
        if not (folder / name).is_dir():
            _train(MODEL_CASES[name], data, folder / name, trained)
            accepting_guard().write(folder / name / GUARD_NAME)  # too few images to learn one
        return folder / name

    return trained


def _write(case: ModelCase, path: Path, run_folder: Callable[[str], Path], **training: Any) -> Path:
    if start := case.model.get("weights"):
        case = replace(case, model=case.model | {"weights": str(run_folder(start))})
    path.write_text(case.toml(ema_decay=0.5, monitor="epoch", **training))
    return path


def _train(case: ModelCase, data: Path, out: Path, run_folder: Callable[[str], Path]) -> None:
    config = _write(case, out.with_suffix(".toml"), run_folder)
    train(str(config), data=data, out=out, device="cpu")


def test_a_training_that_was_interrupted_ends_as_one_that_was_not(case, data, run_folder, tmp_path):
    whole = load_file(run_folder(case.name) / "model.safetensors")
    with interrupted_after(epoch=1):
        _train(case, data, tmp_path / "halves", run_folder)
    assert not (tmp_path / "halves/run.json").exists()
    _train(case, data, tmp_path / "halves", run_folder)
    halves = load_file(tmp_path / "halves/model.safetensors")
    # Features that are kept were computed beside other images, which moves their last bits.
    apart = 1e-5 if "trainable" in case.model else 0.0
    torch.testing.assert_close(halves, whole, rtol=apart, atol=apart)


def test_a_run_measures_its_memory_guards_and_answers_for_an_image(
    case, run_folder, image, tmp_path
):
    run = Run.open(run_folder(case.name), device="cpu").load()
    assert run.guard is not None
    assert run.model.cost()["peak_memory_bytes"] > 0
    assert 0 <= run.predict(image).score <= 1
    assert cxr("predict", run_folder(case.name), image, "--out", tmp_path, "--device", "cpu") == 0
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "form", ["onnx", pytest.param("openvino", marks=pytest.mark.long)]
)  # fmt: skip
def test_an_export_answers_as_its_run_or_is_refused_in_one_line(
    case, run_folder, tmp_path, capsys, form
):
    arguments = ["export", run_folder(case.name), tmp_path / "export", "--format", form]
    if not case.refused:
        assert cxr(*arguments) == 0  # it is held against the run
        return
    assert cxr(*arguments) == 2
    assert case.refused in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "export").exists()


@pytest.mark.release
def test_compare_evaluates_the_runs_of_all_models(data, run_folder, tmp_path):
    runs = [f"{name}={run_folder(name)}" for name in MODEL_CASES]
    arguments = ["--data", data, "--out", tmp_path / "report", "--replicates", "100"]
    assert cxr("compare", *runs, *arguments) == 0
    evaluated = pd.read_csv(tmp_path / "report/figures.csv")["first"]
    assert set(MODEL_CASES) <= set(evaluated)


@pytest.mark.release
def test_a_server_answers_by_the_runs_of_all_models(image, run_folder):
    runs = [Run.open(run_folder(name), name=name, device="cpu").load() for name in MODEL_CASES]
    settings = ServeSettings(allowed_hosts=("testserver",))
    with Client(build_app(runs, settings)) as client:
        upload = {"files": {"file": (image.name, image.read_bytes())}}
        answer = client.post("/v1/analyze", params={"include": ["overlay"]}, **upload)
    assert [system["system"] for system in answer.json()["systems"]] == list(MODEL_CASES)


def test_a_detector_of_the_user_is_trained_from_its_configuration(data, tmp_path):
    (tmp_path / "centernet.toml").write_text(EXAMPLE_TOML)
    arguments = [tmp_path / "centernet.toml", "--data", data, "--out", tmp_path / "run"]
    assert cxr("train", *arguments, "--device", "cpu") == 0
    assert RunFolder.open(tmp_path / "run").info.model_kind == "detector"


def test_a_misspelt_architecture_or_key_is_met_with_a_suggestion(data, tmp_path, capsys):
    arguments = ["train", "retinanet_quickstart", "--data", data, "--out", tmp_path / "run"]
    line = refusal(capsys, *arguments, "--set", "model.architecture=rt_der")
    assert "'rt_detr'" in line
    line = refusal(
        capsys, *arguments, "--set", "model.architecture=rt_detr", "--set", "model.querys=3"
    )
    assert "did you mean" in line


@pytest.mark.long
def test_two_processes_learn_what_one_learns(case, data, run_folder, tmp_path):
    case = replace(case, model=case.model | dict(case.alone))
    layers = case.build().train().modules()
    if any(isinstance(layer, _BatchNorm) and layer.training for layer in layers):
        pytest.skip("on a CPU a batch norm measures the images of its own process")
    how = {"optimiser": "sgd", "learning_rate": 1e-4, "epochs": 1}
    config = _write(case, tmp_path / "case.toml", run_folder, **how)
    arguments = ["train", config, "--data", data, "--device", "cpu", "--out"]
    alone([*arguments, tmp_path / "one"], tmp_path)
    with launched([*arguments, tmp_path / "two"], torchrun(2), tmp_path) as two:
        assert two.wait() == [0, 0], two.outputs()
    one, both = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert both["train_loss"].tolist() == pytest.approx(one["train_loss"].tolist(), rel=1e-2)
