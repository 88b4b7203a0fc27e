"""How a process uses the machine."""

import pytest
import torch

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts import runtime
from cxr_compare.scripts.runtime import choose_device, tune_cpu
from cxr_compare.training.launch import choose_precision


@pytest.mark.parametrize(
    ("workers", "shared_by", "threads", "environment"),
    [
        pytest.param(0, 1, 6, {}, id="one process keeps torch's own"),
        pytest.param(3, 1, 5, {}, id="loaders leave less"),
        pytest.param(9, 1, 1, {}, id="never none"),
        pytest.param(0, 2, 4, {}, id="two processes share"),
        pytest.param(2, 2, 2, {}, id="two processes with loaders"),
        pytest.param(2, 2, 6, {"OMP_NUM_THREADS": "6"}, id="the user decides"),
    ],
)
def test_torch_gets_the_processors_that_others_leave(
    monkeypatch, workers, shared_by, threads, environment
):
    monkeypatch.setattr("os.environ", environment)
    monkeypatch.setattr("cxr_compare.data_prep.contracts.processors.cpu_count", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        tune_cpu(workers=workers, shared_by=shared_by)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match=r"--device tpu: .*auto, cpu .*cuda$"):
        choose_device("tpu")


def test_fp16_is_for_cuda_alone():
    assert choose_precision("fp16", "cuda") == "fp16"
    with pytest.raises(InputError, match=r"training.precision: fp16 .*auto, fp32 .*bf16$"):
        choose_precision("fp16", "cpu")


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_follows_the_hardware(monkeypatch, fast, chosen):
    monkeypatch.setattr("cxr_compare.training.launch.has_bf16_instructions", lambda: fast)
    assert choose_precision("auto", "cpu") == chosen
    assert choose_precision("fp32", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"


def test_gpu_that_torch_cannot_use_is_reported_once_and_only_where_present(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runtime, "_NVIDIA_NODE", str(tmp_path / "nvidiactl"))
    assert runtime.choose_device("auto") == "cpu"
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"--device cuda: .*cpu$"):
        choose_device("cuda")
    (tmp_path / "nvidiactl").touch()
    for built_for, message in (
        (None, "is built without CUDA; pytorch.org"),
        ("12.8", "nvidia-smi"),
    ):
        monkeypatch.setattr(torch.version, "cuda", built_for)
        assert runtime.choose_device("auto") == "cpu"
        output = capsys.readouterr().err
        assert output.startswith("On the CPU: ")
        assert message in output
        assert len(output.splitlines()) == 1
        assert runtime.choose_device("cpu") == "cpu"  # as asked: nothing to explain
        assert capsys.readouterr().err == ""
        with pytest.raises(InputError, match=r"--device cuda: .*cpu$"):
            runtime.choose_device("cuda")
