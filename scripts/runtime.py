"""How this process uses the machine: memory, threads, device, precision."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Literal

from data_prep.contracts.errors import InputError


def own_command(module: str, *arguments: object) -> list[str]:
    """The command that runs one of our modules with this Python.

    Example:
        >>> own_command("scripts.cli", "show", 3)[1:]
        ['-P', '-m', 'scripts.cli', 'show', '3']
    """
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_SPIN_COUNT = "1000"  # about 10 microseconds, instead of milliseconds
_MEMORY_GROUPS = (  # limit and use, of control groups 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, Arm


def tune_cpu(*, workers: int = 0, shared_by: int = 1) -> None:
    """Share the processors between torch and loaders, and keep freed memory for the next batch.

    Call it before torch is imported. Three measured traps:

    - Two pools of threads on the same cores wait for each other, so torch gets what loaders leave.
    - OpenMP's threads wait by spinning for milliseconds; one other busy program on two cores then
      makes training 3 to 8 times slower. A short spin costs nothing on a quiet machine.
    - glibc maps and unmaps batch-sized blocks on every step unless it is set not to; inference
      at batch 32 took double the time.
    """
    _keep_freed_memory()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)  # read when torch loads libgomp
    import cv2
    import torch

    # One thread each: at these sizes more cost more than they give.
    cv2.setNumThreads(1)
    if "OMP_NUM_THREADS" not in os.environ:  # the user's word counts
        torch.set_num_threads(max(1, _usable_cpus() // shared_by - workers))


def _usable_cpus() -> int:
    """Processors that this process may use, which can be fewer than the machine has."""
    from data_prep.contracts.workers import cpu_count

    return cpu_count()


def _keep_freed_memory() -> None:
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


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


def choose_device(name: str = "auto", devices: int = 1) -> Literal["cpu", "cuda"]:
    """The device to compute on."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {name}: choose auto, cpu or cuda")
    if name != "cpu" and torch.cuda.is_available():
        if devices > (found := torch.cuda.device_count()):
            raise InputError(
                f"--devices {devices}: torch finds {found} CUDA devices; ask for {found} at most, "
                "or add --device cpu"
            )
        return "cuda"
    if name == "cuda":
        raise InputError("--device cuda: torch finds no CUDA device; choose cpu")
    return "cpu"


def choose_precision(
    name: Literal["auto", "fp32", "bf16", "fp16"], device: Literal["cpu", "cuda"]
) -> Literal["fp32", "bf16", "fp16"]:
    """The precision to train in."""
    if name == "fp16" and device == "cpu":
        raise InputError(
            "training.precision: fp16 is for CUDA devices, and this is the CPU; choose auto, fp32 "
            "or bf16"
        )
    if name != "auto":
        return name
    return "bf16" if _computes_bf16(device) else "fp32"


def _computes_bf16(device: str) -> bool:
    if device == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return False
    flags = [
        line.partition(":")[2].split()
        for line in info.read_text(encoding="utf-8").splitlines()
        if line.lower().startswith(("flags", "features"))
    ]
    return bool(flags) and bool(_BF16_FLAGS & set(flags[0]))
