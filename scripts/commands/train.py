"""`cxr train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cxr_compare.configs.load import dump_config, read_config
from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.base.errors import TRAIN_PACKAGES, InputError, counted, require_packages
from cxr_compare.scripts import console
from cxr_compare.scripts.options import AnyPath, DataFolder, Device, Settings, settings_of
from cxr_compare.serving.run import Run

_FromPython = Annotated[Any, Parameter(parse=False)]


@dataclass
class Runs:
    """Trainings of one call.

    Attributes:
        runs: Those that ended, by name of the configuration.
        failed: Reason by name, of those that did not.
    """

    folder: Path
    runs: dict[str, Run] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """1 where a training failed."""
        return int(bool(self.failed))

    def __str__(self) -> str:
        """Return a line a training."""
        lines = [f"{name}: {run.folder}" for name, run in self.runs.items()]
        lines += [f"{name}: failed, {reason}" for name, reason in self.failed.items()]
        return "\n".join([*lines, f"Next: cxr compare {self.folder} --data DATA --out REPORT"])

    def to_dict(self) -> dict[str, Any]:
        """Return the folders for JSON."""
        folders = {name: str(run.folder) for name, run in self.runs.items()}
        return {"folder": str(self.folder), "runs": folders, "failed": self.failed}


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
    require_packages("train", "train", TRAIN_PACKAGES)
    data, out = Path(data), Path(out)
    names = [str(config)] if Path(config).is_file() else str(config).split(",")
    if len(names) > 1 and not all(name.strip() for name in names):
        raise InputError(f"config: {config} has an empty name between commas; take it out")
    settings = {name.strip(): read_config(name.strip(), settings_of(set_)) for name in names}
    own = {"module": module, "model": model, "augmentation": augmentation}
    options: dict[str, Any] = {
        "device": device,
        "devices": devices,
        "despite_audit": despite_audit,
        "own": {**own, "callbacks": callbacks, "loggers": loggers},
    }
    if len(names) == 1:
        return _train(next(iter(settings.values())), data, out, **options)
    folders = {name: out / Path(name).name.removesuffix(".toml") for name in settings}
    _require_different(len(names), settings, folders)
    _require_trainable(settings, data, devices)
    runs = Runs(out)
    for number, name in enumerate(settings, start=1):
        console.say(f"{number} of {len(names)}: {name}")
        try:
            runs.runs[name] = _train(settings[name], data, folders[name], **options)
        except Exception as error:  # noqa: BLE001 - the others are trained all the same
            text = str(error) if isinstance(error, InputError) else repr(error)
            runs.failed[name] = text.partition("\n")[0]
            console.say(f"{name} failed: {runs.failed[name]}")
    return runs


def _require_different(
    n_names: int, settings: Mapping[str, Config], folders: Mapping[str, Path]
) -> None:
    """Refuse two names of one training, whose runs would be compared as if they were two."""
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


def _require_trainable(settings: Mapping[str, Config], data: Path, devices: int) -> None:
    """Refuse what the data set does not have, before the first is trained."""
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.training.data import ImageData
    from cxr_compare.training.train import find_processes

    if find_processes(devices).total > 1:
        raise InputError("config: processes that share a training train one configuration")
    dataset = DataSet.open(data)
    for name, config in settings.items():
        try:
            ImageData(config, dataset, console)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None


def _train(
    settings: Config,
    data: Path,
    out: Path,
    *,
    device: str,
    devices: int,
    despite_audit: bool,
    own: dict[str, Any],
) -> Run:
    import cv2
    import torch

    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.serving.guard import GUARD_FILE, MIN_IMAGES, MIN_PATIENTS, fit_guard
    from cxr_compare.serving.network import TorchNetwork
    from cxr_compare.serving.predict_data import freeze_decision
    from cxr_compare.serving.run import Run
    from cxr_compare.training.train import process_rank
    from cxr_compare.training.train import train as train_model

    cv2.setNumThreads(1)
    n_gpus = torch.cuda.device_count()
    if (device == "cuda" and not n_gpus) or (device != "cpu" and 0 < n_gpus < devices):
        found = counted(n_gpus, "CUDA device")
        raise InputError(f"device {device}: torch finds {found}; choose cpu, or fewer devices")
    run = train_model(
        settings,
        data,
        out,
        **own,
        progress=console,
        despite_audit=despite_audit,
        accelerator="gpu" if n_gpus and device != "cpu" else "cpu",
        devices=devices,
    )
    if process_rank() > 0:
        raise SystemExit(0)  # a further process of Lightning; the first one goes on alone
    dataset = DataSet.open(data)
    split = settings.data.split
    if not (out / GUARD_FILE).is_file():
        images = dataset.images.set_index("image_id").loc[dataset.image_ids("train", split)]
        store = dataset.make_store(settings.data.image_size, console)
        guard = fit_guard(store, images["patient_id"], images.get("age_years"))
        if guard is None:
            needed = f"{MIN_IMAGES} training images of {MIN_PATIENTS} patients"
            console.say(f"No guard against other images: it takes {needed}")
        else:
            guard.write(out / GUARD_FILE)
            console.say("Guard: the training images tell what is no frontal chest X-ray")
    network = TorchNetwork(out, device, own["model"])
    freeze_decision(network, dataset, dataset.target(run.info.target), split, console)
    return Run(out, run.info.name, network, None)
