"""What a model costs: parameters, floating-point operations, time for one image."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.processors import processor_name

_WARM_UP = 3


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """All parameters of a model, and those that learn; frozen batch norm has none.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        (8, 8)
    """
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)


def count_flops(model: nn.Module, image_size: int) -> int:
    """Count the floating-point operations of the forward pass of one image, uint8 (1, 1, S, S).

    In convolutions and matrix products, two for each multiply and add; other layers, decoding and
    NMS are not counted.
    """
    # Where Triton is absent, as in a container, torch warns; nothing counted here is written in it.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)  # else it looks for gradients of what a network splits
    with torch.no_grad(), counter:
        model(torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8, device=device))
    for parameter in learning:
        parameter.requires_grad_(True)
    model.train(was_training)
    return int(counter.get_total_flops())


def measure_latency(
    model: nn.Module,
    image_size: int,
    repeats: int = 20,
    *,
    images: Tensor | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> dict[str, Any]:
    """Time a model at batch 1, from pixels in main memory to a result in main memory.

    Three runs warm up and are not counted. The runs cycle through the images, uint8 (N, 1, S, S),
    by default seeded noise of side `image_size`, because decoding boxes takes longer where there
    are more. The model is moved to ``device``; ``bf16`` is autocast. The figures are the median
    with 10th and 90th percentile.
    """
    device = torch.device(device)
    if images is None:
        noise = np.random.default_rng(0).integers(256, size=(1, 1, image_size, image_size))
        images = torch.from_numpy(noise.astype(np.uint8))
    was_training = model.training
    model.to(device).eval()
    times = []
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        for run in range(_WARM_UP + repeats):
            image = images[run % len(images)][None]
            start = time.perf_counter()
            _to_cpu(model(image.to(device)))  # bringing the result back waits for the device
            times.append(time.perf_counter() - start)
    model.train(was_training)
    low, median, high = map(float, np.percentile(1000 * np.array(times[_WARM_UP:]), [10, 50, 90]))
    return {
        "latency_ms": median, "latency_low_ms": low, "latency_high_ms": high,
        "latency_device": describe_device(device),
    }  # fmt: skip


def _to_cpu(output: object) -> None:
    if isinstance(output, Tensor):
        output.cpu()
    elif isinstance(output, dict):
        _to_cpu(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            _to_cpu(part)


def describe_device(device: torch.device) -> str:
    """A device's model name, such as ``AMD EPYC 9654, 2 threads``; else its kind."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    return f"{processor_name()}, {torch.get_num_threads()} threads"


_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what proc(5) calls it


class PeakMemory:
    """Watches the memory from its making on, while a model works on a device.

    On CUDA it is what torch allocated there. On a CPU it is the process's greatest resident
    memory, as Linux counts it; files that are mapped into memory, such as the pixel store, and
    processes that load data beside this one are left out. What the process held before is no part
    of it, but for the model's own weights.

    Example:
        >>> watch = PeakMemory(nn.Linear(2, 2))
        >>> seen = watch.read()
        >>> seen is None or seen >= 24  # four weights and two biases of 4 bytes
        True
    """

    def __init__(self, model: nn.Module, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        tensors = [*model.parameters(), *model.buffers()]
        self._weights = sum(
            t.numel() * t.element_size() for t in tensors if t.device.type == self._device.type
        )
        self._before: tuple[int, int] | None = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device), 0
        elif _give_back_freed() and _forget_peak():
            self._before = _kib("VmRSS"), _kib("RssFile")

    def read(self) -> int | None:
        """Bytes at the greatest so far, the weights among them; None where nothing measures it."""
        if self._before is None:
            return None
        held, mapped = self._before
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - held + self._weights
        grown = _kib("VmHWM") - held - max(_kib("RssFile") - mapped, 0)
        return 1024 * max(grown, 0) + self._weights


def _give_back_freed() -> bool:
    """Hand freed memory back to Linux: what is kept for reuse would hide what is used again."""
    if sys.platform != "linux":
        return False
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return True


def _forget_peak() -> bool:
    """Let the greatest resident memory count from now on."""
    try:
        _FORGET.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:  # a container may forbid it
        return False
    return True


def _kib(name: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
