"""`cxr train`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cxr_compare.commands import console
from cxr_compare.commands.options import AnyPath, DataFolder, Device, Settings
from cxr_compare.data_prep.base.errors import InputError, Remedy, counted, require_extra

if TYPE_CHECKING:
    from cxr_compare.configs.settings import Config
    from cxr_compare.serving.run import Run
    from cxr_compare.training.request import Request
else:
    Run = Any  # the help needs no pandas
_FromPython = Annotated[Any, Parameter(parse=False)]


@dataclass
class Runs:
    """Trainings of one call.

    Attributes:
        data: Data set from which they learned.
        runs: Those that ended, by name of the configuration.
        failed: Reason by name, of those that did not.
    """

    folder: Path
    data: Path
    runs: dict[str, Run] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """1 where a training failed."""
        return int(bool(self.failed))

    def __str__(self) -> str:
        """Return what each training kept, or why it failed."""
        lines = [str(run) for run in self.runs.values()]
        lines += [f"{name}: failed, {reason}" for name, reason in self.failed.items()]
        lines += [_next(self.folder, self.data, self.runs.values())] if self.runs else []
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the folders for JSON."""
        folders = {name: str(run.folder) for name, run in self.runs.items()}
        return {"folder": str(self.folder), "runs": folders, "failed": self.failed}


def _next(folder: Path, data: Path, runs: Iterable[Run]) -> str:
    """Return the command that evaluates the runs of a folder; of classes each is a target."""
    call = ["cxr", "compare", str(folder), "--data", str(data), "--out", "REPORT"]
    findings = dict.fromkeys(
        finding for run in runs if run.network.info.classes for finding in run.network.info.findings
    )
    call += ["--target", ",".join(findings)] if findings else []
    return f"Next: {shlex.join(call)}"


def train(
    config: Annotated[str, Parameter(help="Configuration, file or network; commas between many.")],
    *,
    data: DataFolder,
    out: AnyPath,
    set_: Settings = None,
    device: Device = "auto",
    devices: int = 1,
    despite_audit: bool = False,
    module: _FromPython = None,
    model: _FromPython = None,
    augmentation: _FromPython = None,
    callbacks: _FromPython = (),
    loggers: _FromPython = (),
) -> Run | Runs:
    """Train a detector or a classifier, with a guard and its validation scores.

    A training that was stopped goes on with the same command, at its last whole epoch. Under
    torchrun or srun the processes train together.

    Args:
        out: Folder of the run; of several configurations, the folder of their runs.
        devices: GPUs, or processes on a CPU, that share each batch.
        despite_audit: Train although the audit found an error.
        module: Subclass of training.module.DetectorModule or ClassifierModule, from Python.
        model: Builds a network in place of the configuration's, from Python.
        augmentation: Transform of albumentations, or a Compose of them, in place of the
            configuration's changes, from Python.
        callbacks: Callbacks of Lightning, from Python.
        loggers: Loggers of Lightning, from Python.
    """
    from cxr_compare.configs.load import read_config
    from cxr_compare.training.request import Request

    require_extra("train", "train")
    data, out = Path(data), Path(out)
    names = [str(config)] if Path(config).is_file() else str(config).split(",")
    if len(names) > 1 and not all(name.strip() for name in names):
        raise InputError(f"config: {config} has an empty name between commas; take it out")
    settings = {name.strip(): read_config(name.strip(), set_) for name in names}
    own_parts = {"module": module, "model": model, "augmentation": augmentation}
    parts = tuple(name for name, part in own_parts.items() if part is not None)
    options = {**own_parts, "callbacks": callbacks, "loggers": loggers}

    def request_of(config: Config, folder: Path) -> Request:
        return Request.check(config, data, folder, parts, despite_audit=despite_audit)

    if len(names) == 1:
        (only,) = settings.values()
        run = _train(request_of(only, out), device, devices, options)
        console.say(_next(out, data, [run]))
        return run
    folders = {name: out / Path(name).name.removesuffix(".toml") for name in settings}
    _require_different(len(names), settings, folders)
    requests = {}
    for name, folder in folders.items():
        try:
            requests[name] = request_of(settings[name], folder)
        except InputError as error:
            raise InputError(f"{name}: {error.problem}", error.remedies) from None
    _require_one_process(devices)
    runs = Runs(out, data)
    for number, (name, request) in enumerate(requests.items(), start=1):
        console.say(f"{number} of {len(names)}: {name}")
        try:
            runs.runs[name] = _train(request, device, devices, options)
        except Exception as error:  # noqa: BLE001 - the others are trained all the same
            text = str(error) if isinstance(error, InputError) else repr(error)
            runs.failed[name] = text.partition("\n")[0]
            console.say(f"{name} failed: {runs.failed[name]}")
    return runs


def _require_different(
    n_names: int, settings: Mapping[str, Config], folders: Mapping[str, Path]
) -> None:
    """Refuse two names of one training, whose runs would be compared as if they were two."""
    from cxr_compare.configs.load import dump_config

    if n_names > len(settings) or len({*folders.values()}) < len(settings):
        raise InputError(f"config: {', '.join(settings)}: two have one name; keep or rename one")
    seen: dict[str, str] = {}
    for name, config in settings.items():
        text = dump_config(config.model_copy(update={"name": ""}))
        if text in seen:
            raise InputError(
                f"config: {seen[text]} and {name} are the same training but for their name; keep "
                "one, or look at the keys that set gives"
            )
        seen[text] = name


def _require_one_process(devices: int) -> None:
    """Refuse several configurations in processes that share a training."""
    from cxr_compare.training.machine import find_processes

    if find_processes(devices).total > 1:
        raise InputError("config: processes that share a training train one configuration")


def _train(request: Request, device: str, devices: int, options: Mapping[str, Any]) -> Run:
    import cv2
    import torch

    from cxr_compare.data_prep.base.files import folder_lock
    from cxr_compare.serving.guard import GUARD_FILE, MIN_IMAGES, MIN_PATIENTS, fit_guard
    from cxr_compare.serving.network import TorchNetwork
    from cxr_compare.serving.predict_data import freeze_decision
    from cxr_compare.serving.run import Run
    from cxr_compare.training.machine import process_rank
    from cxr_compare.training.train import train as train_model

    cv2.setNumThreads(1)
    n_gpus = torch.cuda.device_count()
    if (device == "cuda" and not n_gpus) or (device != "cpu" and 0 < n_gpus < devices):
        devices_asked, devices_there = counted(devices, "device"), counted(n_gpus, "CUDA device")
        ways = [Remedy("processors shall train", {"device": "cpu"}, verb="write")]
        if n_gpus:
            ways.append(Remedy("GPUs shall train", {"devices": str(n_gpus)}, verb="write"))
        raise InputError(f"device {device}, {devices_asked}: torch finds {devices_there}", ways)
    run = train_model(
        request,
        **options,
        progress=console,
        is_cuda=n_gpus > 0 and device != "cpu",
        devices=devices,
    )
    if process_rank() > 0:
        raise SystemExit(0)  # a further process of Lightning; the first one goes on alone
    dataset, data, out = request.dataset, request.config.data, run.folder
    with folder_lock(out):
        if not run.has(GUARD_FILE):
            ids = dataset.image_ids("train", data.split)
            images = dataset.images.set_index("image_id").loc[ids]
            store = dataset.make_store(data.image_size, console)
            guard = fit_guard(store, images["patient_id"], images.get("age_years"))
            if guard is None:
                needed = f"{MIN_IMAGES} training images of {MIN_PATIENTS} patients"
                console.say(f"No guard against other images: it takes {needed}")
            else:
                guard.write(out / GUARD_FILE)
                run.name_files(GUARD_FILE)
        network = TorchNetwork(out, device, options["model"])
        freeze_decision(network, dataset, request.target, data.split, console)
        network.files = run.info.files
    return Run(run.info.name, network, None)
