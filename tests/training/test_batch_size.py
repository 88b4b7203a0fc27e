"""The batch that fits is found on a copy, and nothing else notices."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cxr_compare.configs.load import find_config, read_config
from cxr_compare.training.batch_size import estimate_memory, largest_share
from cxr_compare.training.hardware import Hardware
from cxr_compare.training.loading import is_out_of_memory


@dataclass
class _Batch:
    x: Tensor

    def to(self, device):
        return self


def _batch(size: int) -> _Batch:
    return _Batch(torch.rand(size, 3, 16, 16))


def _model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 1, 3)
    )


def _losses(model: nn.Module, batch: _Batch) -> dict[str, Tensor]:
    return {"loss": model(batch.x).square().mean()}


def _largest(model: nn.Module, **changes: Any) -> int:
    settings: dict[str, Any] = {"limit": 64, "device": "cpu", **changes}
    return largest_share(model, _batch, _losses, **settings)


def test_more_memory_gives_a_larger_batch_until_the_limit():
    model = _model()
    sizes = [_largest(model, budget=budget) for budget in (0, 10**5, 10**6, 10**7, 10**9)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert 2 <= sizes[2] < sizes[3]
    assert sizes[-1] == 64
    assert _largest(model, budget=10**9, limit=50) == 32
    assert _largest(model, budget=10**9, limit=1) == 1


def test_what_is_reckoned_is_what_autograd_keeps():
    # Saved: the input of each convolution, of the norm and of the rectifier, and dropout's mask.
    class Count:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def __call__(self, size: int) -> int:
            self.sizes.append(size)
            return 300 * size + 50

    count = Count()
    model = nn.Linear(9, 1, bias=False)  # 36 bytes
    need = estimate_memory(model, count, 2, 4)
    assert count.sizes == [2, 4]
    assert need(10) == 5 * 36 + 1.5 * (300 * 10 + 50)
    per_image = _saved_per_image()
    inputs = 3 * 16 * 16 + 8 * 14 * 14  # of the convolutions, at the least
    assert 4 * inputs < per_image < 4 * (inputs + 4 * 8 * 14 * 14 + 12 * 12)


def test_memory_that_runs_out_while_measuring_leaves_no_size():
    def losses(model: nn.Module, batch: _Batch) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("out of memory")

    assert largest_share(_model(), _batch, losses, limit=8, device="cpu", budget=10**9) == 0


def _saved_per_image() -> float:
    from cxr_compare.training.batch_size import saved_bytes

    model = _model().train()
    two, four = (saved_bytes(model, _batch(n), _losses, "fp32") for n in (2, 4))
    return (four - two) / 2


def test_model_gradients_and_random_numbers_stay_as_they_were():
    model = _model().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    _largest(model, budget=10**6)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_lack_of_memory_is_distinguished_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


_GIB = 2**30


@pytest.mark.parametrize(
    ("requested", "device", "devices", "processors", "free", "loaders"),
    [
        pytest.param("auto", "cpu", 1, 16, 8 * _GIB, 0, id="a CPU learns with all of its cores"),
        pytest.param("auto", "cuda", 1, 4, 8 * _GIB, 4, id="one for each core"),
        pytest.param("auto", "cuda", 1, 1, 8 * _GIB, 1, id="never none"),
        pytest.param("auto", "cuda", 1, 64, 8 * _GIB, 8, id="more have nothing to do"),
        pytest.param("auto", "cuda", 4, 16, 8 * _GIB, 4, id="four processes share a machine"),
        pytest.param("auto", "cuda", 1, 16, 2**26, 3, id="what a container has by default"),
        pytest.param("auto", "cuda", 1, 16, 2**23, 0, id="no room for a second batch"),
        pytest.param(5, "cuda", 1, 2, 8 * _GIB, 5, id="as asked"),
        pytest.param(2, "cpu", 1, 2, 8 * _GIB, 2, id="as asked, on a CPU"),
        pytest.param(0, "cuda", 1, 2, 0, 0, id="none, as asked"),
    ],
)
def test_a_gpu_gets_the_loaders_for_which_there_is_room(
    monkeypatch, requested, device, devices, processors, free, loaders
):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr("cxr_compare.training.hardware.cpu_count", lambda: processors)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    changes = [f"training.workers={requested}", "training.batch_size=32", "data.image_size=512"]
    settings = read_config(find_config("chexnet"), changes)
    hardware = Hardware(device, devices, "fp32").with_loaders(settings, devices)
    assert hardware == Hardware(device, devices, "fp32", loaders)


def test_a_system_without_a_folder_of_shared_memory_gets_loaders_too(monkeypatch, tmp_path):
    monkeypatch.setattr("cxr_compare.training.hardware.cpu_count", lambda: 4)
    monkeypatch.setattr("cxr_compare.training.hardware._SHARED_MEMORY", tmp_path / "absent")
    settings = read_config(find_config("chexnet"))
    assert Hardware("cuda", 1, "fp32").with_loaders(settings, 1).loaders == 4


def test_tasks_of_slurm_have_separate_processors(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    monkeypatch.setattr("cxr_compare.training.hardware.cpu_count", lambda: 6)
    settings = read_config(find_config("chexnet"))
    assert Hardware("cuda", 4, "fp32").with_loaders(settings, 4).loaders == 6
