"""How a process uses the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from scripts.machines import runtime
from scripts.machines.calibration import SWITCH, Choice
from scripts.machines.runtime import (
    _settled,
    calibrate_for,
    choose_device,
    choose_precision,
    describe_cpu,
    tune_cpu,
)
from scripts.predict import worth_of_training

CHOICE = Choice(threads=6, spin=1_000, precision="fp32")


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a process on a machine of eight processors that takes `CHOICE`."""
    before = torch.get_num_threads()
    environment = {SWITCH: json.dumps(asdict(CHOICE))}
    monkeypatch.setattr("os.environ", environment)
    monkeypatch.setattr("scripts.machines.runtime._usable_cpus", lambda: 8)
    monkeypatch.setattr("scripts.machines.runtime._torch_is_loaded", lambda: False)
    yield environment
    torch.set_num_threads(before)
    _settled.clear()


@pytest.mark.parametrize(
    ("workers", "shared_by", "threads"),
    [
        pytest.param(0, 1, 6, id="as calibrated"),
        pytest.param(1, 1, 6, id="a loader takes what is left"),
        pytest.param(3, 1, 5, id="loaders leave less"),
        pytest.param(9, 1, 1, id="never none"),
        pytest.param(0, 2, 3, id="two processes share"),
        pytest.param(2, 2, 2, id="two processes with loaders"),
    ],
)
def test_torch_gets_the_processors_that_others_leave(
    calibrated: dict[str, str], workers: int, shared_by: int, threads: int
) -> None:
    tune_cpu(workers=workers, shared_by=shared_by)
    assert torch.get_num_threads() == threads
    assert calibrated["GOMP_SPINCOUNT"] == "1000"
    told = describe_cpu()
    assert (told["threads"], told["spin"]) == (threads, "1000")
    assert told["origins"]["threads"] == told["origins"]["spin"] == "calibration, not kept"


@pytest.mark.parametrize(
    ("own", "threads", "spin", "origin"),
    [
        ({"OMP_NUM_THREADS": "1"}, 2, "1000", {"threads": "OMP_NUM_THREADS"}),
        ({"GOMP_SPINCOUNT": "5"}, 6, "5", {"spin": "GOMP_SPINCOUNT"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, 6, None, {"spin": "OMP_WAIT_POLICY"}),
    ],
)
def test_the_users_own_settings_win(
    calibrated: dict[str, str],
    own: dict[str, str],
    threads: int,
    spin: str | None,
    origin: dict[str, str],
) -> None:
    torch.set_num_threads(2)  # as torch reads it from the environment
    calibrated |= own
    for _ in range(2):  # a second call in the same process settles the same
        tune_cpu()
        assert torch.get_num_threads() == threads
        assert calibrated.get("GOMP_SPINCOUNT") == spin
        assert origin.items() <= describe_cpu()["origins"].items()


def test_a_spin_that_torch_can_no_longer_read_is_not_recorded(
    calibrated: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.machines.runtime._torch_is_loaded", lambda: True)
    tune_cpu()
    told = describe_cpu()
    assert "GOMP_SPINCOUNT" not in calibrated
    assert (told["spin"], told["threads"]) == (None, 6)
    assert told["origins"]["spin"] == "left alone: torch was imported before"


def test_without_a_calibration_all_is_left_alone(calibrated: dict[str, str]) -> None:
    torch.set_num_threads(2)
    calibrated[SWITCH] = "off"
    tune_cpu()
    assert torch.get_num_threads() == 2
    assert "GOMP_SPINCOUNT" not in calibrated
    assert set(describe_cpu()["origins"].values()) == {"left alone"}
    tune_cpu(workers=3)
    assert torch.get_num_threads() == 5  # of eight


@pytest.mark.parametrize(
    ("megapixels", "device", "gpu", "worth"),
    [(14, "cpu", False, False), (16, "auto", False, True), (16, "auto", True, False),
     (16, "cpu", True, True)],
)  # fmt: skip
def test_only_long_work_on_processors_is_worth_a_calibration(
    monkeypatch: pytest.MonkeyPatch, megapixels: float, device: str, gpu: bool, worth: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("scripts.machines.runtime._may_have_gpu", lambda: gpu)
    monkeypatch.setattr(
        "scripts.machines.runtime.settle",
        lambda *, worth: asked.append(worth) or (Choice(), "left alone"),
    )
    calibrate_for(megapixels, device)
    assert asked == [worth]


def test_predicting_is_worth_a_third_of_training_as_many_images(tmp_path: Path) -> None:
    dataset = SimpleNamespace(image_ids=lambda role, split: range({"val": 100, "test": 200}[role]))
    assert worth_of_training(tmp_path, dataset, "default") == 0.0  # no run: reported when opened
    Preprocess(1000, 0.5, 0.25).to_json(tmp_path / "preprocess.json")
    assert worth_of_training(tmp_path, dataset, "default") == 100.0


def test_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="--device tpu: choose auto, cpu or cuda"):
        choose_device("tpu")


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(InputError, match="no CUDA device"):
        choose_device("cuda")


def test_fp16_is_for_cuda_alone() -> None:
    assert choose_precision("fp16", "cuda") == "fp16"
    with pytest.raises(InputError, match="precision: fp16 is for CUDA devices"):
        choose_precision("fp16", "cpu")


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_follows_the_hardware(
    monkeypatch: pytest.MonkeyPatch, fast: bool, chosen: str
) -> None:
    monkeypatch.setattr("scripts.machines.runtime.computes_bf16", lambda: fast)
    assert choose_precision("auto", "cpu") == chosen
    assert choose_precision("fp32", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"


def test_auto_precision_follows_the_calibration(
    monkeypatch: pytest.MonkeyPatch, calibrated: dict[str, str]
) -> None:
    monkeypatch.setattr("scripts.machines.runtime.computes_bf16", lambda: True)
    tune_cpu()
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"


def test_a_gpu_that_torch_cannot_use_is_said_once_and_only_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runtime, "_NVIDIA_NODE", str(tmp_path / "nvidiactl"))
    assert runtime.choose_device("auto") == "cpu"
    assert capsys.readouterr().err == ""
    (tmp_path / "nvidiactl").touch()
    for built_for, says in ((None, "is built without CUDA; pytorch.org"), ("12.8", "nvidia-smi")):
        monkeypatch.setattr(torch.version, "cuda", built_for)
        assert runtime.choose_device("auto") == "cpu"
        told = capsys.readouterr().err
        assert told.startswith("On the CPU: ")
        assert says in told
        assert len(told.splitlines()) == 1
        assert runtime.choose_device("cpu") == "cpu"  # as asked: nothing to explain
        assert capsys.readouterr().err == ""
        with pytest.raises(InputError, match=r"--device cuda: .*choose cpu"):
            runtime.choose_device("cuda")
