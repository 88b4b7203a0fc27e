"""The batch that fits is found on a copy, and nothing else notices."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.batch_size import _reckon, largest_share
from training.loading import is_out_of_memory


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
    found = [_largest(model, budget=budget) for budget in (0, 10**5, 10**6, 10**7, 10**9)]
    assert found == sorted(found)
    assert found[0] == 0
    assert 2 <= found[2] < found[3]
    assert found[-1] == 64
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
    need = _reckon(model, count, 2, 4)
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
    from training.batch_size import _saved_bytes

    model = _model().train()
    two, four = (_saved_bytes(model, _batch(n), _losses, "fp32") for n in (2, 4))
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
def test_want_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected
