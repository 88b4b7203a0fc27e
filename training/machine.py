"""The machine of a training: its processes, number format, memory, and a quiet Lightning."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities import rank_zero_only

from cxr_compare.configs.settings import Config, TrainingSettings
from cxr_compare.data_prep.base.errors import InputError, Remedy
from cxr_compare.training.run_folder import RunFolder

Precision = Literal["fp32", "bf16", "fp16"]
LIGHTNING_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_FLAG_LINES = ("flags", "features")  # of /proc/cpuinfo
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, Arm
# Each is harmless here: what it warns of is done on purpose, or is done by Lightning itself.
_EXPECTED = (
    "does not have many workers",  # a CPU loads in the process
    "in eval mode at the start of training",  # frozen norms
    "is not empty",  # an interrupted run goes on
    "The dirpath has changed",  # a run that was moved
    r"isinstance\(treespec, LeafSpec\)",
    r"lr_scheduler.step\(\)",
    "The `srun` command is available",
    "available but not used",
    "You have overridden `transfer_batch_to_device`",
    "`sync_dist=True`",
)


def process_rank() -> int:
    """Return the number of this process among those that train together; the first is 0."""
    rank_zero: Any = rank_zero_only
    return int(rank_zero.rank)


class Processes(NamedTuple):
    """Processes that train together, and the plugin of Lightning for what started them."""

    devices: int
    machines: int
    environment: ClusterEnvironment

    @property
    def total(self) -> int:
        """Number of processes on all machines."""
        return self.devices * self.machines


def find_processes(devices: int) -> Processes:
    """Read from the environment which processes torchrun or srun has started, if they did.

    SLURM's variables of the job step are read: a batch script without srun is one process.
    """
    variables = os.environ
    environment: ClusterEnvironment = LightningEnvironment()
    local, total = devices, devices
    if TorchElasticEnvironment.detect():
        local, total = int(variables["LOCAL_WORLD_SIZE"]), int(variables["WORLD_SIZE"])
        environment = TorchElasticEnvironment()
    elif int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        total = int(variables["SLURM_STEP_NUM_TASKS"])
        local = total // int(variables.get("SLURM_STEP_NUM_NODES", "1"))
        # Lightning refuses tasks without this variable, and its checkpoint in the middle of an
        # epoch, from which it would requeue the job, would not be exact.
        variables.setdefault("SLURM_NTASKS_PER_NODE", str(local))
        environment = SLURMEnvironment(auto_requeue=False)
    if devices < 1 or devices not in (1, local):
        started = f"; {total} processes were started" if total != devices else ""
        raise InputError(f"devices: {devices} cannot be{started}; leave it out")
    if total > 1 and local == total and sys.platform == "linux":
        variables.setdefault("GLOO_SOCKET_IFNAME", "lo")  # needs no name of this machine
    return Processes(local, total // local, environment)


def choose_precision(config: Config, run: RunFolder, *, is_cuda: bool) -> Precision:
    """Return the number format of a new training, or that in which one began."""
    precision: Precision | Literal["auto"] = config.training.precision
    if RunFolder.started_in(run.folder) is not None:
        precision = run.started.precision
    if precision == "fp16" and not is_cuda:
        problem = "training.precision: fp16 is for a GPU, and this is the CPU"
        raise InputError(problem, [Remedy(options={"set_": "training.precision=auto"})])
    if precision != "auto":
        return precision
    if not is_cuda:
        return "bf16" if _has_bf16_instructions() else "fp32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    # Tensor cores of 7.0 and 7.5 compute in fp16 alone; before them, convolutions have none.
    return "fp16" if torch.cuda.get_device_capability() >= (7, 0) else "fp32"


def _has_bf16_instructions() -> bool:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    flags = [line.partition(":")[2] for line in lines if line.lower().startswith(_FLAG_LINES)]
    return bool(flags) and bool(_BF16_FLAGS & set(flags[0].split()))


@contextmanager
def fit_errors(training: TrainingSettings) -> Iterator[None]:
    """Say what to do where memory is short, and end at the first Ctrl-C as other commands do."""
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        fewer = {
            "training.batch_size": str(max(1, training.batch_size // 2)),
            "training.accumulate": str(2 * training.accumulate),
        }
        raise InputError(
            f"training.batch_size: {training.batch_size} images do not fit in memory; choose "
            "another folder",
            [Remedy(options={"set_": fewer})],
        ) from None
    except SystemExit as exit_:  # Lightning ends the program for Ctrl-C
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # Lightning ignores a second Ctrl-C
        # Kernels that are chosen by their speed differ from one prediction to the next.
        torch.backends.cudnn.benchmark = False


def _is_out_of_memory(error: RuntimeError) -> bool:
    texts = ("can't allocate memory", "not enough memory")  # of torch on a CPU
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what Lightning says of a training that goes as it should."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for text in _EXPECTED:
                warnings.filterwarnings("ignore", f".*{text}")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
