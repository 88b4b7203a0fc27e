"""The processes that share a training on this machine, and its number format."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, Arm


class Launch(NamedTuple):
    """Processes that train together.

    `launcher` started them; None for a single process. `n_local` of them are on this machine.
    `rank` is the number of this one, from 0; the first one writes the folder.
    """

    launcher: Literal["torchrun", "slurm"] | None = None
    n_processes: int = 1
    n_local: int = 1
    rank: int = 0


def read_launch() -> Launch:
    """Read from the environment which processes torchrun or srun has started.

    SLURM's variables of the job step are read, not those of the job: a batch script without
    ``srun`` is one process, even in a job of several tasks.
    """
    variables = os.environ
    n_processes = int(variables.get("WORLD_SIZE", "1"))
    if n_processes > 1 and "RANK" in variables:
        n_local = int(variables.get("LOCAL_WORLD_SIZE", n_processes))
        return Launch("torchrun", n_processes, n_local, int(variables["RANK"]))
    n_processes = int(variables.get("SLURM_STEP_NUM_TASKS", "1"))
    if n_processes > 1 and "SLURM_PROCID" in variables:
        tasks = re.match(r"\d+", variables.get("SLURM_STEP_TASKS_PER_NODE", ""))  # such as 4(x2)
        n_local = int(tasks[0]) if tasks else n_processes
        return Launch("slurm", n_processes, n_local, int(variables["SLURM_PROCID"]))
    return Launch()


def choose_precision(
    name: Literal["auto", "fp32", "bf16", "fp16"], device: Literal["cpu", "cuda"]
) -> Precision:
    """Return the number format in which a training computes.

    ``auto`` takes ``bf16`` if the device has instructions for it, else ``fp16`` on a GPU with
    tensor cores, else ``fp32``. Raises InputError if ``fp16`` was chosen for a CPU.
    """
    if name == "fp16" and device == "cpu":
        raise InputError(
            "training.precision: fp16 is for CUDA devices, and this is the CPU; choose auto, fp32 "
            "or bf16"
        )
    if name != "auto":
        return name
    if device == "cpu":
        return "bf16" if has_bf16_instructions() else "fp32"
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    # Tensor cores of 7.0 and 7.5 compute in fp16 alone; before them convolutions in fp16 have none.
    return "fp16" if torch.cuda.get_device_capability() >= (7, 0) else "fp32"


def has_bf16_instructions() -> bool:
    """Return True if the processor has instructions for bf16."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return False
    flags = [
        line.partition(":")[2].split()
        for line in info.read_text(encoding="utf-8").splitlines()
        if line.lower().startswith(("flags", "features"))
    ]
    return bool(flags) and bool(_BF16_FLAGS & set(flags[0]))
