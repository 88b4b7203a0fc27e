"""`cxr_compare.load`: a run, or an export of one, to be asked about images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_prep.contracts.errors import InputError

if TYPE_CHECKING:
    from serving.run import Run


def load(
    run: str | Path, *, device: str = "auto", precision: Literal["fp32", "bf16"] = "fp32"
) -> Run:
    """Load a run of ``cxr train``, or an export of one, to ask it about single images.

    Args:
        run: Its folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: What a run computes in; its decision was chosen at ``fp32``.

    Raises:
        InputError: The folder holds no complete run or export, or there is no such device.
    """
    if not Path(run).is_dir():  # before torch is imported, which takes seconds
        raise InputError(f"{run}: no such folder; give the folder of a run of cxr train")
    from scripts.machines.runtime import choose_device, tune_cpu

    tune_cpu()
    from serving.run import Run

    return Run.open(run, device=choose_device(device), precision=precision).load()
