"""How this process uses the machine: memory, threads, device, precision."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data_prep.contracts.errors import InputError
from scripts.console import say
from scripts.machines.calibration import Choice, computes_bf16, settle


def own_command(module: str, *arguments: object) -> list[str]:
    """The command that runs one of our modules with this Python.

    Example:
        >>> own_command("scripts.cli", "show", 3)[1:]
        ['-P', '-m', 'scripts.cli', 'show', '3']
    """
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_MEMORY_GROUPS = (  # limit and use, of control groups 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
_WORTH_MEGAPIXELS = 15  # of training: half a minute on two processors
_NVIDIA_NODE = "/dev/nvidiactl"
_GPU_NODES = (_NVIDIA_NODE, "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, either under WSL


class _CpuSettings(NamedTuple):
    """How this process uses the processors, and where each setting comes from."""

    threads: int
    spin: str | None
    keep_memory: bool
    precision: Literal["fp32", "bf16"] | None
    origins: dict[str, str]


_settled: list[_CpuSettings] = []  # the last that this process took


def tune_cpu(
    *, workers: int = 0, shared_by: int = 1, megapixels: float = 0.0, device: str = "auto"
) -> None:
    """Take what a calibration chose for this machine, and share the processors.

    Call it before torch is imported, which reads how long waiting threads spin. What the user has
    set (``OMP_NUM_THREADS``, ``GOMP_SPINCOUNT``, ``OMP_WAIT_POLICY``) always counts. Two pools of
    threads on the same cores wait for each other, so torch gets what loaders leave.

    Args:
        workers: Processes that load, for each of those that share the processors.
        shared_by: Processes that share them.
        megapixels: To be trained on, in all epochs; where they are many, a machine that was never
            measured is measured first. Prediction takes a third of the time of training.
        device: Where to compute; a GPU needs no calibration.
    """
    choice, origin = calibrate_for(megapixels, device)
    origins = dict.fromkeys(("threads", "spin", "keep_memory", "precision"), origin)
    if choice.keep_memory:
        keep_freed_memory()
    own_spin = str(choice.spin)  # which an earlier call, or the parent process, may have set
    users = [
        name
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
        if os.environ.get(name, own_spin) != own_spin
    ]
    if users:
        origins["spin"] = users[0]
    elif choice.spin and "GOMP_SPINCOUNT" not in os.environ:
        if _torch_is_loaded():  # as in a notebook: it has read what was set before
            origins["spin"] = "left alone: torch was imported before"
        else:
            os.environ["GOMP_SPINCOUNT"] = own_spin
    import cv2
    import torch

    # One thread each: at these sizes more cost more than they give.
    cv2.setNumThreads(1)
    if "OMP_NUM_THREADS" in os.environ:
        origins["threads"] = "OMP_NUM_THREADS"
    elif choice.threads or workers or shared_by > 1:
        cpus = _usable_cpus()
        best = min(choice.threads or cpus, cpus)
        torch.set_num_threads(max(1, min(best // shared_by, cpus // shared_by - workers)))
    spin = os.environ.get("GOMP_SPINCOUNT")
    _settled[:] = [
        _CpuSettings(torch.get_num_threads(), spin, choice.keep_memory, choice.precision, origins)
    ]


def calibrate_for(megapixels: float, device: str) -> tuple[Choice, str]:
    """The choice for this machine, which is measured where the work is worth it; see `tune_cpu`."""
    worth = megapixels >= _WORTH_MEGAPIXELS and not (device != "cpu" and _may_have_gpu())
    return settle(worth=worth)


def _torch_is_loaded() -> bool:
    return "torch" in sys.modules


def _may_have_gpu() -> bool:
    """Whether there is a GPU, as far as can be known without torch."""
    return any(Path(node).exists() for node in _GPU_NODES)


def runs_on_gpu(device: str) -> bool:
    """Whether torch would compute on a GPU; imports it only where there may be one."""
    return device != "cpu" and _may_have_gpu() and choose_device(device) == "cuda"


def _usable_cpus() -> int:
    """Processors that this process may use, which can be fewer than the machine has."""
    from data_prep.contracts.workers import cpu_count

    return cpu_count()


def keep_freed_memory() -> None:
    """Keep freed memory for the next batch: by itself, glibc maps large blocks anew each time."""
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
        raise InputError(
            f"--device cuda: {_why_no_gpu() or 'torch finds no CUDA device'}; choose cpu"
        )
    if name == "auto" and (why := _why_no_gpu()):
        say(f"On the CPU: {why}")
    return "cpu"


def _why_no_gpu() -> str | None:
    """Why torch uses no GPU though an NVIDIA GPU seems to be there; None where none is."""
    import torch

    if not (Path(_NVIDIA_NODE).exists() or shutil.which("nvidia-smi")):
        return None
    if torch.version.cuda is None:
        return (
            f"an NVIDIA GPU seems to be here, but torch {torch.__version__} is built without CUDA; "
            "pytorch.org/get-started/locally names the pip command for one that uses it"
        )
    return (
        f"torch {torch.__version__} is built for CUDA {torch.version.cuda} and finds no GPU that "
        "it can use; nvidia-smi says whether the driver is too old"
    )


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
    if device == "cpu":
        chosen = _settled[0].precision if _settled else None
        return chosen or ("bf16" if computes_bf16() else "fp32")
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def describe_cpu() -> dict[str, Any]:
    """What `tune_cpu` settled, and where it comes from, for the record of a run."""
    return _settled[0]._asdict() if _settled else {}
