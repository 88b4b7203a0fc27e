"""How a process uses the machine."""

from __future__ import annotations

import pytest
import torch

from data_prep.contracts.errors import InputError
from scripts.runtime import choose_device, choose_precision, tune_cpu


def test_torch_gets_the_processors_that_loaders_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("scripts.runtime._usable_cpus", lambda: 4)
    try:
        tune_cpu(workers=3)
        assert torch.get_num_threads() == 1
        tune_cpu(workers=9)
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        tune_cpu()
        assert torch.get_num_threads() == 1  # the user's word counts
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_waiting_threads_spin_briefly_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], expected: str | None
) -> None:
    environment = {"OMP_NUM_THREADS": "1", **own}
    monkeypatch.setattr("os.environ", environment)
    tune_cpu()
    assert environment.get("GOMP_SPINCOUNT") == expected


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
    monkeypatch.setattr("scripts.runtime._computes_bf16", lambda device: fast)
    assert choose_precision("auto", "cpu") == chosen
    assert choose_precision("fp32", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"
