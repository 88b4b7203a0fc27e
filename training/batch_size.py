"""How many images a batch may hold, found on a copy of the model before training starts."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.training.loading import is_out_of_memory

_STATES = 5  # gradient, two moments, average, and the copy that a checkpoint makes
_TRANSIENT = 1.5  # gradients of activations, beside what is saved for them
_LARGEST_BATCH = 256  # images that ``auto`` may find
_MOST_LOADERS = 8  # of a device, see docs/results.md
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where batches pass between processes
_CUDA_SHARE = 0.9  # of the device: memory falls to pieces in a long training

Precision = Literal["fp32", "bf16", "fp16"]
_Losses = Callable[[Any, Any], dict[str, Tensor]]
_MakeBatch = Callable[[int], Any]
_T = TypeVar("_T")


class Hardware(NamedTuple):
    """What a training computes on: how many devices of which kind, in which precision."""

    device: Literal["cpu", "cuda"]
    devices: int
    precision: Precision
    loaders: int = 0  # processes that load for a device; with 0 the one that learns does

    def with_loaders(self, settings: Config, shared_by: int) -> Hardware:
        """The same with ``training.workers`` as a number, in one of the processes of a machine.

        ``auto``: none on a CPU, all of whose cores learn; for a GPU one a core of its share, as far
        as shared memory has room for two batches of each.
        """
        how = settings.training
        if how.workers != "auto" or self.device == "cpu":
            return self._replace(loaders=0 if how.workers == "auto" else how.workers)
        own = min(cpu_count(), int(os.environ.get("SLURM_CPUS_PER_TASK", 0)))  # nobody shares them
        cores = max(1, own, cpu_count() // shared_by)
        images = _LARGEST_BATCH if how.batch_size == "auto" else int(how.batch_size)
        loaders = min(cores, _MOST_LOADERS)
        if _SHARED_MEMORY.is_dir():  # Windows has none, and passes batches through its page file
            batches = shared_by * 2 * -(-images // self.devices) * settings.data.image_size**2
            room = shutil.disk_usage(_SHARED_MEMORY).free // batches - 1  # one loads for validation
            loaders = max(0, min(loaders, room))
        return self._replace(loaders=loaders)


def largest_share(
    model: nn.Module,
    make_batch: _MakeBatch,
    training_losses: _Losses,
    *,
    limit: int,
    device: Literal["cpu", "cuda"],
    precision: Precision = "fp32",
    budget: int | None = None,
) -> int:
    """The largest power of two of images that a training step can take; 0: not even one fits.

    The need is reckoned from what two small batches save for the backward pass; `budget` are the
    bytes of main memory that may be used. On CUDA steps are taken, from the reckoned size on, until
    one runs out of memory. A CPU has no such end: its system ends the process.

    The model, its gradients and the state of the random generators stay as they are.
    """
    cuda = [torch.cuda.current_device()] if device == "cuda" else []
    if cuda:
        budget = int(_CUDA_SHARE * torch.cuda.get_device_properties(cuda[0]).total_memory)
    with torch.random.fork_rng(cuda):
        trial = _unless_out_of_memory(lambda: copy.deepcopy(model).to(device).train())
        if trial is None:  # not even by itself
            return 0
        trial.to(memory_format=torch.channels_last)  # as it is trained

        def measured(size: int) -> int:
            return _saved_bytes(trial, make_batch(size).to(device), training_losses, precision)

        def runs(size: int) -> bool:
            return _step_fits(trial, make_batch, size, training_losses, precision)

        need = _unless_out_of_memory(lambda: _reckon(trial, measured, min(2, limit), min(4, limit)))
        reckoned = 0
        if need is not None:
            reckoned = _search(lambda size: budget is None or need(size) <= budget, limit)
        return _search(runs, limit, max(2, reckoned)) if cuda else reckoned


def _unless_out_of_memory(work: Callable[[], _T]) -> _T | None:
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _reckon(
    model: nn.Module, saved_bytes: Callable[[int], int], small: int, large: int
) -> Callable[[int], int]:
    """Memory of a training step by batch size, from what two batches save."""
    state = _STATES * sum(p.numel() * p.element_size() for p in model.parameters())
    first = saved_bytes(small)
    image = (saved_bytes(large) - first) / (large - small) if large > small else first / small
    return lambda size: int(state + _TRANSIENT * (first + image * (size - small)))


def _search(fits: Callable[[int], bool], limit: int, start: int = 2) -> int:
    """The largest power of two that fits, tried from `start` up or down; 0: none does."""
    # Not from 1: live batch norm cannot learn from one image whose last features are one pixel.
    size = start
    while size and (size > limit or not fits(size)):
        size //= 2
    while size >= start and 2 * size <= limit and fits(2 * size):
        size *= 2
    return size


def _saved_bytes(model: nn.Module, batch: Any, training_losses: _Losses, precision: str) -> int:
    seen: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = []  # a storage that is freed gives its address to the next

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        losses = _forward(model, batch, training_losses, precision)
    del losses
    return sum(seen.values())


def _step_fits(
    model: nn.Module, make_batch: _MakeBatch, size: int, losses: _Losses, precision: str
) -> bool:
    device = next(model.parameters()).device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        # Two moments: the most that an optimiser here keeps.
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-12, fused=True)
        _forward(model, make_batch(size).to(device), losses, precision).backward()
        optimiser.step()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_reserved(device) <= _CUDA_SHARE * total


def _forward(model: nn.Module, batch: Any, losses: _Losses, precision: str) -> Tensor:
    device = next(model.parameters()).device
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    with torch.autocast(device.type, kind, enabled=precision != "fp32"):
        return torch.stack([*losses(model, batch).values()]).sum()


_MEMORY_GROUPS = (  # limit and use, of control groups 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int:
    """Bytes that this process may still take: what is free, and what its container grants."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            free = 1024 * int(lines["MemAvailable"].split()[0])
    for limit, used in _MEMORY_GROUPS:
        try:
            granted = int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):  # no such group, or "max"
            continue
        free = min(free, max(granted, 0))
    return free
