"""`cxr train`: train a detector or a classifier on a data set."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

from cxr_compare.data_prep.contracts.errors import TRAIN_PACKAGES, require_packages
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.scripts import console
from cxr_compare.scripts.child_processes import follow_parent, own_rank, run_on_devices
from cxr_compare.scripts.command_line import command_line
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.options import DespiteAudit, Device, Devices, Settings, config_names
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runtime import choose_device, choose_precision, tune_cpu
from cxr_compare.training.processes import Processes

if TYPE_CHECKING:
    from pathlib import Path

    from cxr_compare.serving.run import Run
    from cxr_compare.training.rank import Rank
    from cxr_compare.training.request import Request

_INTERRUPTED = 130


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
    is_child = follow_parent()
    rank = own_rank(devices)
    asked: dict[str, Any] = {
        "config": config,
        "set_": set_,
        "data": data,
        "out": out,
        "despite_audit": despite_audit,
    }
    if rank is None and devices > 1:
        _read(asked, devices)  # refuses what is wrong before anything is started
        words = command_line(train, {**asked, "device": device, "devices": devices})
        if status := run_on_devices(shlex.split(words)[1:], devices):
            raise SystemExit(status)  # what went wrong has been said
        return _trained(data, out, device)
    try:
        with console.silent(rank is not None and rank.rank > 0):
            _train(asked, device, rank)
    except KeyboardInterrupt:
        if rank is not None and rank.rank:
            raise SystemExit(_INTERRUPTED) from None  # the first process reports it
        raise
    if rank is not None and (rank.rank or is_child):
        return None  # type: ignore[return-value]  # the first process, or its parent, shows it
    return _trained(data, out, device)


def _read(asked: dict[str, Any], devices: int) -> Request:
    require_kind(asked["data"], "data set")  # here, so that one of several processes says it
    from cxr_compare.training.request import Request

    return Request.read(
        asked["config"],
        asked["set_"],
        asked["data"],
        asked["out"],
        devices=devices,
        despite_audit=asked["despite_audit"],
    )


def _train(asked: dict[str, Any], device: str, rank: Rank | None) -> None:
    """Train, alone or as one of several processes, of which the first leads, writes and speaks."""
    world_size, node_size = (1, 1) if rank is None else (rank.world_size, rank.local_world_size)
    processes = Processes(rank)
    request = processes.agree(lambda: _read(asked, world_size))
    from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
    from cxr_compare.serving.guard import add_guard
    from cxr_compare.serving.predict_folder import freeze_decision
    from cxr_compare.training.hardware import Hardware
    from cxr_compare.training.run import complete_run
    from cxr_compare.training.start import join_training, start_training

    def choose_hardware() -> Hardware:
        kind = choose_device(device, node_size)
        precision = choose_precision(request.settings.training.precision, kind)
        chosen = Hardware(kind, world_size, precision).with_loaders(request.settings, node_size)
        tune_cpu(workers=chosen.loaders, shared_by=node_size)
        return chosen

    def conclude() -> None:
        """Add what a trained run needs to answer: its guard, and its decision on validation.

        The decision comes last: `CurveRun.has_ended` takes it for the end of the training.
        """
        size = request.settings.data.image_size
        add_guard(request.out, request.dataset, request.split, size, console)
        test_set = LabelledSplit(request.dataset, request.target, request.split)
        freeze_decision(request.out, test_set, console, device=hardware.device)

    hardware = processes.agree(choose_hardware)
    with ExitStack() as held:
        started = processes.first(lambda: start_training(request, hardware, console, held))
        work = processes.agree(
            lambda: started if processes.is_first else join_training(request, console)
        )
        if work is not None:
            processes.together(lambda: complete_run(*work, hardware, rank, console))
        # The others wait: a scheduler may end them all when the first of them ends.
        processes.first(conclude)
    processes.leave()


def _trained(data: Path, out: Path, device: str) -> Run:
    from cxr_compare.serving.run import Run

    run = Run.open(out, device=device)
    run.next_steps = tuple(next_steps(out, data))
    return run
