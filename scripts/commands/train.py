"""`cxr train`: train a detector or a classifier on a data set."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

from cxr_compare.configs.load import find_config, read_config
from cxr_compare.configs.settings import Config, ProbeConfig
from cxr_compare.data_prep.contracts.errors import TRAIN_PACKAGES, InputError, require_packages
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.scripts import console
from cxr_compare.scripts.child_processes import follow_parent, run_on_devices
from cxr_compare.scripts.command_line import command_line
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.options import DespiteAudit, Device, Devices, Settings, config_names
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runtime import choose_device, tune_cpu

if TYPE_CHECKING:
    from pathlib import Path

    from cxr_compare.serving.run import Run
    from cxr_compare.training.launch import Launch
    from cxr_compare.training.run_folder import RunFolder


@command
def train(
    config: Annotated[str, Argument(completions=config_names)],
    *,
    data: AnyPath,
    out: AnyPath,
    set_: Settings = None,
    despite_audit: DespiteAudit = False,
    device: Device = "auto",
    devices: Devices = 1,
) -> Run:
    """Train a detector or a classifier, or fit a probe.

    The best epoch is kept. If the command is interrupted, run it again: it continues after the last
    complete epoch. A probe (configuration probe) is a classifier of frozen features, whose last
    layer is fitted in seconds.

    Args:
        config: Training configuration: a name that cxr configs lists, or a TOML file.
        data: Data set folder that cxr prepare made.
        out: Run folder to make.
        set_: Replace a key of the configuration, such as training.epochs=20 or
            model.architecture=fcos; cxr configs NAME shows every key.
        despite_audit: Train although the audit (cxr check) found an error in the data set. The
            figures of such a training may be wrong.
        device: cpu computes on the processor, cuda on a GPU. auto takes a GPU if there is one.
        devices: Number of GPUs that share each batch of the training. On a processor it is the
            number of processes that do so.

    Returns:
        The trained run, which can predict images.

    Raises:
        InputError: A key is unknown, the folder holds another training, the audit found an error,
            or an image cannot be read.

    Example:
        cxr train retinanet_small --data out/data --out out/retinanet --set training.epochs=20
    """
    data = as_path(data)
    out = as_path(out)
    require_packages("train", "train", TRAIN_PACKAGES)
    require_kind(data, "data set")
    settings = read_config(find_config(str(config)), set_ or ())
    follow_parent()
    launch = _launched(devices)
    if launch.launcher is None and devices > 1:
        _require_devices(settings, devices)
        call: dict[str, Any] = {"config": config, "set_": set_, "data": data, "out": out}
        call |= {"despite_audit": despite_audit, "device": device, "devices": devices}
        run_on_devices(shlex.split(command_line(train, call))[1:], devices)
        return _trained(data, out, device)
    with console.silent(launch.rank > 0):
        run = _train(settings, data, out, device, launch.n_local, despite_audit=despite_audit)
        if launch.rank == 0:  # the others wait in the launcher
            _conclude(run, settings, data, device)
    if launch.rank > 0 or launch.n_processes == devices > 1:
        return None  # type: ignore[return-value]  # the first process, or its parent, shows it
    return _trained(data, out, device)


def _launched(devices: int) -> Launch:
    """Return the processes that a launcher started, if they agree with ``--devices``."""
    from cxr_compare.training.launch import read_launch

    launch = read_launch()
    if launch.launcher is not None:
        if devices not in (1, launch.n_processes):
            raise InputError(
                f"--devices {devices}: {launch.launcher} has started {launch.n_processes} "
                "processes; leave --devices out"
            )
        return launch
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks not in ("1", str(devices)) and "SLURM_STEP_NUM_TASKS" not in os.environ:
        console.say(
            f"note: this SLURM job has {tasks} tasks, and one of them trains; start it with srun "
            "to use them all"
        )
    return launch


def _require_devices(settings: Config, devices: int) -> None:
    """Refuse devices that a configuration cannot use, before processes are started."""
    if isinstance(settings, ProbeConfig):
        raise InputError("--devices: one process fits a probe; leave it out")
    from cxr_compare.training.train import require_shares

    require_shares(settings.training.batch_size, devices)


def _train(
    settings: Config, data: Path, out: Path, device: str, n_local: int, *, despite_audit: bool
) -> RunFolder:
    """Train, or fit a probe."""
    kind = choose_device(device, n_local)
    if isinstance(settings, ProbeConfig):
        from cxr_compare.training.probe import train_probe

        tune_cpu()
        return train_probe(
            settings, data, out, progress=console, despite_audit=despite_audit, device=kind
        )
    from cxr_compare.training.train import train as train_model

    workers = settings.training.workers
    tune_cpu(workers=0 if workers == "auto" else workers, shared_by=n_local)
    return train_model(
        settings,
        data,
        out,
        progress=console,
        despite_audit=despite_audit,
        accelerator=kind,
    )


def _conclude(run: RunFolder, settings: Config, data: Path, device: str) -> None:
    """Add what a trained run needs to answer: its guard, and its decision on validation.

    The decision comes last: `CurveRun.has_ended` takes it for the end of the training.
    """
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
    from cxr_compare.serving.guard import add_guard
    from cxr_compare.serving.predict_folder import freeze_decision

    dataset = DataSet.open(data)
    target = dataset.target(settings.data.target, option="--set data.target=NAME")
    split = settings.data.split
    add_guard(run.folder, dataset, split, settings.data.image_size, console)
    test_set = LabelledSplit(dataset, target, split)
    freeze_decision(run.folder, test_set, console, device=choose_device(device))


def _trained(data: Path, out: Path, device: str) -> Run:
    from cxr_compare.serving.run import Run

    run = Run.open(out, device=device)
    run.next_steps = tuple(next_steps(out, data))
    return run
