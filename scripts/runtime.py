"""Memory, threads and device of this process."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.scripts.console import say
from cxr_compare.serving.backends import open_model, require_torch
from cxr_compare.serving.export_spec import is_export
from cxr_compare.training.launch import read_launch

if TYPE_CHECKING:
    from cxr_compare.serving.predictor import Predictor

# of glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NVIDIA_NODE = "/dev/nvidiactl"
_GPU_NODES = (_NVIDIA_NODE, "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, either under WSL


def tune_cpu(*, workers: int = 0, shared_by: int = 1) -> None:
    """Set the number of threads of this process, and keep freed memory for later use.

    Two pools of threads on the same processors slow each other down. torch therefore gets the
    processors that the other processes leave. ``OMP_NUM_THREADS`` overrides this number.

    `workers` load images for each process that computes; `shared_by` is the number of processes
    that compute on this machine.
    """
    _keep_freed_memory()
    import cv2

    # One thread each: at these sizes more cost more than they give.
    cv2.setNumThreads(1)
    if "OMP_NUM_THREADS" not in os.environ and (workers or shared_by > 1):
        import torch

        from cxr_compare.data_prep.contracts.processors import cpu_count

        torch.set_num_threads(max(1, cpu_count() // shared_by - workers))


def runs_on_gpu(device: str) -> bool:
    """Return True if torch would compute on a GPU for ``auto``, ``cpu`` or ``cuda``.

    torch is imported only if the machine may have a GPU.
    """
    may_have_one = any(Path(node).exists() for node in _GPU_NODES)
    if device == "cpu" or not may_have_one or find_spec("torch") is None:
        return False
    return choose_device(device) == "cuda"


def _keep_freed_memory() -> None:
    """Keep freed memory for the next batch: by itself, glibc maps large blocks anew each time."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


def choose_device(name: str = "auto", devices: int = 1) -> Literal["cpu", "cuda"]:
    """Choose the device: ``auto`` takes a GPU if there is one.

    Raises InputError if the name is unknown, or there are fewer GPUs than `devices`.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {name}: choose auto, cpu or cuda")
    why = _why_no_gpu(torch)
    if name != "cpu" and torch.cuda.is_available() and why is None:
        if devices > (found := torch.cuda.device_count()):
            advice = f"ask for {found} at most, or add --device cpu"
            if read_launch().launcher == "slurm":
                advice = "let each task see all: --gpus-per-node in place of --gpus-per-task"
            raise InputError(
                f"--devices {devices}: torch finds {counted(found, 'CUDA device')}; {advice}"
            )
        return "cuda"
    if name == "cuda":
        raise InputError(f"--device cuda: {why or 'torch finds no CUDA device'}; choose cpu")
    if name == "auto" and why:
        say(f"On the CPU: {why}")
    return "cpu"


def load_model(folder: Path, device: str = "auto") -> Predictor:
    """Load the network of a training (run) or an export, and set the number of threads for it.

    `device` is ``auto``, ``cpu`` or ``cuda``; an export ignores it. Raises InputError if the folder
    is damaged, there is no such device, or packages are missing.
    """
    if is_export(folder):
        return open_model(folder)
    require_torch(folder)
    tune_cpu()
    return open_model(folder, device=choose_device(device))


def _why_no_gpu(torch: ModuleType) -> str | None:
    """Return why torch does not use the GPU of this machine; None if it does or there is none."""
    if torch.cuda.is_available():
        return _too_old(torch)
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


def _too_old(torch: ModuleType) -> str | None:
    """Return why the GPU cannot run this torch; None if it can."""
    major, minor = torch.cuda.get_device_capability()
    built_for = re.findall(r"sm_(\d+)", " ".join(torch.cuda.get_arch_list()))
    oldest = min(map(int, built_for), default=0)
    if 10 * major + minor >= oldest:
        return None
    return (
        f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}, and torch "
        f"{torch.__version__} is built for {oldest / 10} and newer; "
        "pytorch.org/get-started/previous-versions has builds for it"
    )
