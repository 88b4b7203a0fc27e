"""How many images a batch may hold, found on a copy of the model before training starts."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from configs.settings import Config
from data_prep.contracts.errors import InputError
from data_prep.contracts.words import Terminal
from training.loading import (
    NamedBatches,
    NamedRows,
    SeededSampler,
    is_out_of_memory,
    require_loaded,
)
from training.task import TrainingTask

_STATES = 5  # gradient, two moments, average, and the copy that a checkpoint makes
_TRANSIENT = 1.5  # gradients of activations, beside what is saved for them
_CUDA_SHARE = 0.9  # of the device: memory falls to pieces in a long training
_MOST = 256  # images: beyond it no device is faster, and learning is slower
_STEPS = 8  # an epoch keeps at least as many
_SHARE = 0.8  # of the free memory: the system and the loaders need some
_BYTES_PER_PIXEL = 24_000  # more than any of the models here needs for an image

Precision = Literal["fp32", "bf16", "fp16"]
_Losses = Callable[[Any, Any], dict[str, Tensor]]
_MakeBatch = Callable[[int], Any]


class Hardware(NamedTuple):
    """What a training computes on: how many devices of which kind, in which precision."""

    device: Literal["cpu", "cuda"]
    devices: int
    precision: Precision


def choose_batch_size(
    settings: Config, task: TrainingTask, hardware: Hardware, terminal: Terminal
) -> Config:
    """Find the batch size where it is ``auto``; else check that a CPU's memory has room for it."""
    batch_size = settings.training.batch_size
    if batch_size == "auto":
        most = max(hardware.devices, min(_MOST, len(task.train) // _STEPS))
        fitting = _largest(settings, task, hardware, most)
        if not fitting:
            raise _too_large(settings, 0)
        terminal.say(
            f"batch size: {fitting} images (memory, {_MOST} or {_STEPS} steps an epoch end it); "
            f"training.learning_rate stays {settings.training.learning_rate:g}"
        )
        return with_batch_size(settings, fitting)
    # A CPU that runs out of memory ends the training without a word. Where the batch is far from
    # that, nothing is measured.
    guess = batch_size * settings.data.image_size**2 * _BYTES_PER_PIXEL
    if hardware.device == "cpu" and guess > _available_memory():
        fitting = _largest(settings, task, hardware, batch_size)
        if 2 * fitting <= batch_size:
            raise _too_large(settings, fitting, "would need more than the memory that is free")
    return settings


def with_batch_size(settings: Config, batch_size: int | str) -> Config:
    """The same configuration with another batch size."""
    training = settings.training.model_copy(update={"batch_size": batch_size})
    return settings.model_copy(update={"training": training})


def too_large(settings: Config, task: TrainingTask, hardware: Hardware) -> InputError:
    """The error of a batch for which memory ran out: what would fit is measured."""
    half = max(hardware.devices, int(settings.training.batch_size) // 2)
    fitting = _largest(settings, task, hardware, half)
    return _too_large(settings, fitting, "do not fit in memory")


def _too_large(settings: Config, fitting: int, what: str = "") -> InputError:
    """The error with the batch that fits (0: none does), and how to learn as before with it."""
    if not fitting:
        return InputError(
            f"training.batch_size: not even one image of {settings.data.image_size} px fits in "
            "memory; choose a smaller data.image_size or a smaller model"
        )
    training = settings.training
    more = -(-int(training.batch_size) // fitting) * training.accumulate
    return InputError(
        f"training.batch_size: {training.batch_size} images {what}, {fitting} fit; choose another "
        f"--out and add --set training.batch_size={fitting} --set training.accumulate={more}, "
        "which learns from as many images a step"
    )


def _largest(settings: Config, task: TrainingTask, hardware: Hardware, most: int) -> int:
    """Images of a whole batch that fits, `most` at most: as many on each device as fit there."""
    share = _largest_share(
        task.model,
        lambda size: first_batch(task, size, settings.training.seed),
        task.training_losses,
        limit=max(1, most // hardware.devices),
        device=hardware.device,
        precision=hardware.precision,
        budget=int(_SHARE * _available_memory() / hardware.devices),
    )
    return share * hardware.devices


def first_batch(task: TrainingTask, size: int, seed: int, weights: Any = None) -> Any:
    """A training batch of any size, read as training reads it."""
    rows = NamedRows(task.train, task.train.image_ids)
    drawn = islice(SeededSampler(len(rows), seed=seed, weights=weights), size)
    return require_loaded(NamedBatches(task.collate)([rows[pair] for pair in drawn]))


def _largest_share(
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

    On CUDA the batch is doubled until a step runs out of memory. A CPU has no such end: its
    system ends the process. There the need is reckoned from what two small batches save for the
    backward pass; `budget` are the bytes that may be used.

    The model, its gradients and the state of the random generators stay as they are.
    """
    cuda = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(cuda):
        trial = copy.deepcopy(model).to(device).train()

        def measured(size: int) -> int:
            return _saved_bytes(trial, make_batch(size).to(device), training_losses, precision)

        def runs(size: int) -> bool:
            return _step_fits(trial, make_batch, size, training_losses, precision)

        if device == "cuda":
            return _double(runs, limit)
        try:
            need = _reckon(trial, measured, min(2, limit), min(4, limit))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return 0
        return _double(lambda size: budget is None or need(size) <= budget, limit)


def _reckon(
    model: nn.Module, saved_bytes: Callable[[int], int], small: int, large: int
) -> Callable[[int], int]:
    """Memory of a training step by batch size, from what two batches save."""
    state = _STATES * sum(p.numel() * p.element_size() for p in model.parameters())
    first = saved_bytes(small)
    image = (saved_bytes(large) - first) / (large - small) if large > small else first / small
    return lambda size: int(state + _TRANSIENT * (first + image * (size - small)))


def _double(fits: Callable[[int], bool], limit: int) -> int:
    # From 2: live batch norm cannot learn from one image whose last features are a single pixel.
    size = 2
    while size <= limit and fits(size):
        size *= 2
    if size > 2:
        return size // 2
    return 1 if limit >= 1 and fits(1) else 0


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
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def _available_memory() -> int:
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
