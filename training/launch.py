"""The processes that train together, as torchrun or srun has started them."""

from __future__ import annotations

import os
import re
from typing import Literal, NamedTuple


class Launch(NamedTuple):
    """Processes that train together.

    Attributes:
        launcher: Program that started them; None for a single process.
        n_processes: Number of all processes.
        n_local: Number of the processes on this machine.
        rank: Number of this one, from 0. The first one writes the folder.
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
