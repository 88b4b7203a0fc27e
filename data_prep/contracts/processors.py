"""The processors of this machine: how many this process may use, and their model."""

import os
import platform
from pathlib import Path

# Files in which a container limits processor time, as quota and period: cgroup 2, then cgroup 1.
_QUOTA_FILES = (
    ("cpu.max",),
    ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
)


def cpu_count(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of processors, at least 1, that this process may use.

    Containers and schedulers may allow fewer processors than the machine has; Linux states the
    limits of a container in the folder `cgroup`.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    for names in _QUOTA_FILES:
        files = [cgroup / name for name in names]
        if all(path.is_file() for path in files):
            quota, period = " ".join(path.read_text() for path in files).split()
            if quota not in ("max", "-1"):
                processors = min(processors, -(-int(quota) // int(period)))
    return max(1, processors)


def processor_name() -> str:
    """Return the model of the processor, such as ``AMD EPYC 9654``, or else its architecture."""
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
