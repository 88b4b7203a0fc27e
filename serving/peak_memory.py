"""The peak memory of a model while it computes."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import torch
from torch import nn

_STATUS = Path("/proc/self/status")


_CLEAR_REFS = Path("/proc/self/clear_refs")


_RESET_PEAK = "5"  # written there, it resets the peak: proc(5)


class PeakMemory:
    """Peak memory of a model while it computes on a device, measured from now on.

    On CUDA it is the memory that torch allocated. On a CPU it is the largest resident memory of the
    process, as Linux counts it, without mapped files (such as the stored images) and without
    processes that load data. Memory that the process used before is subtracted, except for the
    model's weights.
    """

    def __init__(self, model: nn.Module, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        tensors = [*model.parameters(), *model.buffers()]
        self._weights = sum(
            t.numel() * t.element_size() for t in tensors if t.device.type == self._device.type
        )
        self._resident_before: int | None = None  # bytes on CUDA, KiB on a CPU; None: unknown
        self._mapped_before = 0  # KiB of mapped files
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._resident_before = torch.cuda.memory_allocated(self._device)
        elif _return_freed_memory() and _reset_peak():
            self._resident_before = _kib("VmRSS")
            self._mapped_before = _kib("RssFile")

    def read(self) -> int | None:
        """Return the peak in bytes, including the weights; None if it cannot be measured."""
        before = self._resident_before
        if before is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - before + self._weights
        newly_mapped = max(_kib("RssFile") - self._mapped_before, 0)
        growth = _kib("VmHWM") - before - newly_mapped
        return 1024 * max(growth, 0) + self._weights


def _return_freed_memory() -> bool:
    """Return freed memory to Linux: memory kept for reuse would hide what is used again."""
    if sys.platform != "linux":
        return False
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return True


def _reset_peak() -> bool:
    """Reset the process's largest resident memory; return False where this is forbidden."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:  # a container may forbid it
        return False
    return True


def _kib(name: str) -> int:
    """Return a value of the process's status, KiB."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
