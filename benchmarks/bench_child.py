"""What a benchmark measures in a process of its own: ``python -m benchmarks.bench_child DATA``.

Prints one JSON object: seconds by part, and the greatest memory that the process held.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def check_tables(folder: Path) -> dict[str, float]:
    """Read a data set with all its rules, validate its tables again, split it, audit it.

    Args:
        folder: A data set; nothing is written to it.

    Returns:
        Seconds by part.
    """
    from data_prep.audit.audit import audit
    from data_prep.contracts.tables import read_table, validate_table
    from data_prep.formats.source import no_roles
    from data_prep.splits.add_split import SplitRule, draw_split
    from data_prep.store.dataset import DataSet

    times = [time.perf_counter()]
    dataset = DataSet.open(folder)
    decode = read_table(folder / "decode.parquet", "decode")
    frames = {"decode": decode, "split": dataset.split()}
    for name in ("images", "findings", "boxes", "box_coverage"):
        frames[name] = getattr(dataset, name)
    times.append(time.perf_counter())
    for name, frame in frames.items():
        validate_table(frame, name)
    times.append(time.perf_counter())
    draw_split(dataset.images, dataset.findings, decode, no_roles(), SplitRule())
    times.append(time.perf_counter())
    del decode, frames
    audit(dataset)
    times.append(time.perf_counter())
    spans = zip(("read", "validate", "split", "audit"), times[:-1], times[1:], strict=True)
    return {name: end - start for name, start, end in spans}


def peak_gib() -> float:
    """The greatest memory that this process has held, GiB.

    ``getrusage`` would also count what the parent held when it started this process.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib) / 2**20


def main() -> None:
    """Check the data set that is named and print what that took."""
    seconds = check_tables(Path(sys.argv[1]))
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_gib": peak_gib()}))


if __name__ == "__main__":
    main()
