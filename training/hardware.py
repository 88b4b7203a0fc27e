"""The hardware of a training: devices, precision, loading processes and free memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.contracts.processors import cpu_count

_MOST_LOADERS = 8  # loading processes for each device, see docs/results.md


_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where batches pass between processes


Precision = Literal["fp32", "bf16", "fp16"]


class Hardware(NamedTuple):
    """Devices, number format and loading processes of a training.

    Attributes:
        device: ``cpu`` or ``cuda``.
        devices: Number of GPUs, or of processes on CPUs, that share each batch.
        precision: Number format of the computation: ``fp32``, ``bf16`` or ``fp16``.
        loaders: Number of processes that load images for each device; 0 loads them in the training
            process.
    """

    device: Literal["cpu", "cuda"]
    devices: int
    precision: Precision
    loaders: int = 0

    def with_loaders(self, settings: Config, shared_by: int) -> Hardware:
        """Return the same hardware, with the number of loading processes from a configuration.

        The value ``auto`` means 0 on a CPU, where all cores compute. For a GPU it means one process
        for each core of the GPU's share, at most 8, if shared memory has room for two batches of
        each process.

        Args:
            settings: Configuration, of which the key ``training.workers`` is used.
            shared_by: Number of training processes on this machine.

        Returns:
            A copy with the number of loading processes.
        """
        training = settings.training
        if training.workers != "auto" or self.device == "cpu":
            return self._replace(loaders=0 if training.workers == "auto" else training.workers)
        # SLURM gives these to this process alone.
        own_cores = min(cpu_count(), int(os.environ.get("SLURM_CPUS_PER_TASK", 0)))
        cores = max(1, own_cores, cpu_count() // shared_by)
        loaders = min(cores, _MOST_LOADERS)
        if _SHARED_MEMORY.is_dir():  # Windows has none, and passes batches through its page file
            pixels_per_loader = (
                2 * -(-training.batch_size // self.devices) * settings.data.image_size**2
            )
            free = shutil.disk_usage(_SHARED_MEMORY).free
            # One process loads validation images.
            room = free // (shared_by * pixels_per_loader) - 1
            loaders = max(0, min(loaders, room))
        return self._replace(loaders=loaders)
