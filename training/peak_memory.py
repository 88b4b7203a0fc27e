"""The most memory that a model's work took, above what the process held before."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import torch
from torch import nn

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what proc(5) calls it


class PeakMemory:
    """Watches from its making on.

    On CUDA it is what torch allocated there. On a CPU it is the process's greatest resident
    memory, as Linux counts it; files that are mapped into memory, such as the pixel store, and
    processes that load data beside this one are left out. What the process held before is no part
    of it, but for the model's own weights.

    Args:
        model: The model that will work.
        device: Where it will.

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
        """Bytes at the greatest so far, the weights among them; None where nobody tells."""
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
