"""What the verbs do, for Python: `cxr_compare` names these functions beside the pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from data_prep.contracts.errors import InputError
from scripts import console

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet
    from serving.answer import LoadedRun


class InFolder(Protocol):
    """What lies in a folder: predictions, or a run."""

    @property
    def folder(self) -> Path:
        """Where it lies."""


Source = str | Path | InFolder
"""A folder of predictions or of a run, or what was opened from one."""


def load(
    run: str | Path, *, device: str = "auto", precision: Literal["fp32", "bf16"] = "fp32"
) -> LoadedRun:
    """Load a run of ``cxr train`` to ask it about single images.

    Args:
        run: Its folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: What it computes in; its decision was chosen at ``fp32``.

    Raises:
        InputError: The folder holds no complete run, or there is no such device.
    """
    if not Path(run).is_dir():  # before torch is imported, which takes seconds
        raise InputError(f"{run}: no such folder; give the folder of a run of cxr train")
    from scripts.machines.runtime import choose_device, tune_cpu

    tune_cpu()
    from serving.answer import LoadedRun  # imports torch, which reads the settings then

    return LoadedRun.open(Path(run), device=choose_device(device), precision=precision)


def train(
    config: str | Path,
    data: str | Path | DataSet,
    out: str | Path,
    *,
    resume: bool = True,
    despite_audit: bool = False,
    device: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> LoadedRun:
    """Train a detector or a classifier, as ``cxr train`` does, and load it.

    A training that was interrupted goes on; one that has ended before is only loaded.

    Args:
        config: A TOML file of one model, or the name of a configuration that comes with the
            program.
        data: A prepared data set.
        out: Run folder to make.
        resume: Whether to go on with what lies there, or to refuse it.
        despite_audit: Whether to go on where the audit found what makes results wrong.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: Whether to say what is going on, on stderr.
        **settings: Keys of the configuration, by section: ``training={"epochs": 20}``, or as in
            ``--set``: ``**{"training.epochs": 20}``.

    Returns:
        The run.

    Raises:
        InputError: As ``cxr train`` refuses: an unknown key, a folder of another training, ...
    """
    from data_prep.store.dataset import DataSet
    from scripts.train import train as run_training

    overrides = list(_overrides(settings))
    folder = data.folder if isinstance(data, DataSet) else Path(data)
    with console.silent(not progress):
        run_training(
            str(config),
            folder,
            Path(out),
            set_=overrides,
            resume=resume,
            despite_audit=despite_audit,
            device=device,
        )
    return load(out, device=device)


def _overrides(settings: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Settings as ``--set`` takes them.

    Example:
        >>> list(_overrides({"training": {"epochs": 2}, "model.weights": "none"}))
        ['training.epochs=2', 'model.weights="none"']
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{section}{key}.")
        else:
            shown = str(value) if isinstance(value, Path) else value
            yield f"{section}{key}={json.dumps(shown)}"
