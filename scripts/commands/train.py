"""`cxr train`: train a detector or a classifier on a data set."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cxr_compare.configs.load import is_backbone, keys_of_backbone, read_named_config
from cxr_compare.configs.settings import Config, DetectorConfig, ProbeConfig
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
    from cxr_compare.serving.run import Run
    from cxr_compare.training.launch import Launch
    from cxr_compare.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainedRuns:
    """Trainings of several configurations, one run each.

    `runs` has the run, and `failed` the reason, by name of the configuration or network.
    """

    folder: Path
    runs: Mapping[str, Run]
    failed: Mapping[str, str]
    next_steps: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """0 if all were trained, 1 if one failed."""
        return 1 if self.failed else 0

    def __str__(self) -> str:
        lines = [f"{name}: trained, {run.folder}" for name, run in self.runs.items()]
        lines += [f"{name}: failed, {reason}" for name, reason in self.failed.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the folder of each run and the reasons of failures, for JSON."""
        folders = {name: str(run.folder) for name, run in self.runs.items()}
        return {"folder": str(self.folder), "runs": folders, "failed": dict(self.failed)}


def _read_names(value: str | Path | Sequence[str]) -> list[str]:
    """Return the names of configurations, which commas separate unless they are part of a path."""
    given = [value] if isinstance(value, str | Path) else value
    if not isinstance(given, Sequence) or not all(isinstance(one, str | Path) for one in given):
        raise InputError(
            f"config: expected the name of a configuration, got a {type(value).__name__}"
        )
    texts = [str(text) for text in given]
    parts = [[text] if Path(text).is_file() else text.split(",") for text in texts]
    names = [name.strip() for part in parts for name in part]
    if not all(names) or not names:
        raise ValueError("write names of configurations with a comma between them")
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"names {repeated} twice; keep one")
    return names


def _words_of_names(value: str | Path | Sequence[str]) -> list[str]:
    return [",".join(map(str, value))] if isinstance(value, list | tuple) else [str(value)]


Configurations = Annotated[
    str | Sequence[str],
    Argument(read=_read_names, write=_words_of_names, completions=config_names),
]


@command
def train(
    config: Configurations,
    *,
    data: AnyPath,
    out: AnyPath,
    set_: Settings = None,
    despite_audit: DespiteAudit = False,
    device: Device = "auto",
    devices: Devices = 1,
) -> Run | TrainedRuns:
    """Train a detector, a classifier or several, or fit a probe.

    The best epoch is kept. If the command is interrupted, run it again: it continues after the last
    complete epoch. A probe (configuration probe) is a classifier of frozen features, whose last
    layer is fitted in seconds.

    Args:
        config: Training configuration: a name that cxr configs lists, or a TOML file. The name of a
            network, such as resnet50 (docs/models.md), is the configuration chexnet with this
            network. Several names with commas between them are trained one after another, each into
            a folder of its own in --out; if one fails, the others are trained all the same.
        data: Data set folder that cxr prepare made.
        out: Run folder to make. For several configurations the folder of their runs.
        set_: Replace a key of the configuration, such as training.epochs=20 or
            model.architecture=fcos; cxr configs NAME shows every key.
        despite_audit: Train although the audit (cxr check) found an error in the data set. The
            figures of such a training may be wrong.
        device: cpu computes on the processor, cuda on a GPU. auto takes a GPU if there is one.
        devices: Number of GPUs that share each batch of the training. On a processor it is the
            number of processes that do so.

    Returns:
        The trained run, which can predict images; of several configurations their runs.

    Raises:
        InputError: A key is unknown, the folder holds another training, the audit found an error,
            or an image cannot be read.

    Example:
        cxr train retinanet_small --data out/data --out out/retinanet --set training.epochs=20

        cxr train small_cnn,vgg16,resnet50,chexnet --data out/data --out out/zoo
    """
    data = as_path(data)
    out = as_path(out)
    require_packages("train", "train", TRAIN_PACKAGES)
    require_kind(data, "data set")
    options = {"set_": set_, "despite_audit": despite_audit, "device": device, "devices": devices}
    if len(config) > 1:
        return _train_each(config, data, out, options)
    settings = read_named_config(config[0], set_ or ())
    if is_backbone(config[0]):
        _say_keys(config[0], set_ or ())
    follow_parent()
    launch = _launched(devices)
    if launch.launcher is None and devices > 1:
        _require_devices(settings, devices)
        call: dict[str, Any] = {"config": config, "data": data, "out": out, **options}
        run_on_devices(shlex.split(command_line(train, call))[1:], devices)
        return _trained(data, out, device)
    with console.silent(launch.rank > 0):
        run = _train(settings, data, out, device, launch.n_local, despite_audit=despite_audit)
        if launch.rank == 0:  # the others wait in the launcher
            _conclude(run, settings, data, device)
    if launch.rank > 0 or launch.n_processes == devices > 1:
        return None  # type: ignore[return-value]  # the first process, or its parent, shows it
    return _trained(data, out, device)


def _train_each(
    names: Sequence[str], data: Path, out: Path, options: Mapping[str, Any]
) -> TrainedRuns:
    """Train several configurations one after another; one that fails leaves the others."""
    if _launched(options["devices"]).launcher is not None:
        raise InputError(f"train {','.join(names)}: under torchrun or srun train one configuration")
    folders = {
        name: out / Path(name).name.removesuffix(".toml").replace(":", "-") for name in names
    }
    if len(set(folders.values())) < len(folders):
        raise InputError(f"train {','.join(names)}: two files have one name; rename one")
    # All that a configuration alone can say is said before the first is trained.
    configs = [read_named_config(name, options["set_"] or ()) for name in names]
    _require_questions(configs, data)
    shown = {**options, "progress": not console.is_silent()}
    runs: dict[str, Run] = {}
    failed: dict[str, str] = {}
    for number, (name, folder) in enumerate(folders.items(), start=1):
        console.say(f"{number} of {len(names)}: {name}")
        try:
            run = train(name, data=data, out=folder, **shown)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other networks are still trained
            reason = str(error) if isinstance(error, InputError) else repr(error)
            if isinstance(error, SystemExit):  # of processes that share the training
                reason = f"exit status {error.code}; its first process has said why"
            failed[name] = reason.partition("\n")[0]
            console.say(f"{name} failed: {failed[name]}")
            continue
        runs[name] = cast("Run", run)
    report = f"cxr compare {shlex.quote(str(out))} --data {shlex.quote(str(data))} --out report"
    return TrainedRuns(out, runs, failed, (report,) if len(runs) > 1 else ())


def _require_questions(configs: Sequence[Config], data: Path) -> None:
    """Refuse a split or a target that the data set does not have, before anything is trained."""
    from cxr_compare.data_prep.dataset import DataSet

    dataset = DataSet.open(data)
    for config in configs:
        dataset.target(config.data.target, option="--set data.target=NAME")
        dataset.split(config.data.split)


def _say_keys(name: str, overrides: Any) -> None:
    keys = keys_of_backbone(name, overrides)
    values = ", ".join(f"{key}={value}" for key, value in keys.items())
    console.say(f"{name}: the configuration chexnet with {values}")


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
    if isinstance(settings, DetectorConfig):
        from cxr_compare.serving.view_choice import choose_views

        views = settings.training.tta
        choose_views(run.folder, test_set, views, console, device=choose_device(device))
    freeze_decision(run.folder, test_set, console, device=choose_device(device))


def _trained(data: Path, out: Path, device: str) -> Run:
    from cxr_compare.serving.run import Run

    run = Run.open(out, device=device)
    run.next_steps = tuple(next_steps(out, data))
    return run
