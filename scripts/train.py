"""`cxr train`: a detector or a classifier, from a data set and a configuration to a run folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from data_prep.contracts.errors import InputError
from data_prep.store.folder_kinds import require_kind
from networks.registry import network_names
from scripts import console
from scripts.configs import config_names
from scripts.next_steps import show_next
from scripts.options import DespiteAuditOption, DeviceOption, DevicesOption

if TYPE_CHECKING:
    from configs.settings import ClassifierConfig, DetectorConfig
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.pixel_store import PixelStore
    from training.processes import Rank
    from training.run import Hardware
    from training.run_folder import RunFolder
    from training.task import TrainingTask

    Config = DetectorConfig | ClassifierConfig

_BYTES_PER_PARAMETER = 48  # checkpoint, best weights and final weights, each doubled while written
_TARGET = "--set data.target=NAME"
_INTERRUPTED = 130


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="A TOML file, or the name of one that comes with the program: 'cxr configs' lists "
            "them, 'cxr configs NAME' shows one with every key.",
            autocompletion=config_names,
        ),
    ],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace a key of the configuration, such as training.epochs=20. model.backbone "
            f"of a detector: {', '.join(network_names('detector'))}. model.architecture of a "
            f"classifier: {', '.join(network_names('classifier'))}, timm:NAME.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Go on with an interrupted training of this configuration, or refuse its folder.",
        ),
    ] = True,
    despite_audit: DespiteAuditOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json at the end.")] = False,
) -> None:
    """Train a detector or a classifier, and keep the weights of its best epoch.

    May be interrupted: the same command goes on behind the last whole epoch.

    Example: cxr train retinanet_small --data out/data --out out/retinanet --set training.epochs=20
    """
    from scripts.machines.child_processes import follow_parent
    from scripts.machines.devices import own_rank, run_on_devices

    follow_parent()
    rank = own_rank(devices)
    asked = _Asked(config, set_ or [], data, out, resume, despite_audit, device)
    if rank is None and devices > 1:
        asked.opened(devices)  # refuses what is wrong before anything is started
        sets = [word for override in set_ or [] for word in ("--set", override)]
        words = ["train", config, "--data", data, "--out", out, *sets]
        words += ["--resume" if resume else "--no-resume", "--device", device]
        words += ["--despite-audit"] * despite_audit
        if status := run_on_devices([*map(str, words), "--devices", str(devices)], devices):
            raise SystemExit(status)  # what went wrong has been said
    else:
        try:
            with console.silent(rank is not None and rank.rank > 0):
                _train(asked, rank)
        except KeyboardInterrupt:
            if rank is not None and rank.rank:
                raise SystemExit(_INTERRUPTED) from None  # the first one says it
            raise
    if as_json and (rank is None or rank.rank == 0):
        from data_prep.contracts.json_files import read_json

        console.emit_json(read_json(out / "run.json", "run"))


class _Asked(NamedTuple):
    """What one process was asked to train."""

    config: str
    overrides: list[str]
    data: Path
    out: Path
    resume: bool
    despite_audit: bool
    device: str

    def opened(self, processes: int) -> tuple[Config, DataSet]:
        """The configuration and the data set, checked."""
        from scripts.machines.devices import require_shares

        settings = read_settings(self.config, self.overrides)
        if settings.training.loggers:
            from training.loggers import require_loggers

            require_loggers(settings.training.loggers)
        require_shares(settings.training.batch_size, processes)
        require_kind(self.data, "data set")
        from data_prep.store.dataset import DataSet

        return settings, DataSet.open(self.data)


def _train(asked: _Asked, rank: Rank | None) -> None:
    """Train, alone or as one of several processes, of which the first leads, writes and speaks."""
    from scripts.machines.runtime import choose_device, choose_precision, tune_cpu
    from training.processes import Processes

    world_size, node_size = (1, 1) if rank is None else (rank.world_size, rank.local_world_size)
    processes = Processes(rank)
    settings, dataset = processes.agree(lambda: asked.opened(world_size))
    tune_cpu(workers=settings.training.workers, shared_by=node_size)
    from training.run import Hardware, complete_run

    def choose_hardware() -> Hardware:
        device = choose_device(asked.device, node_size)
        return Hardware(device, world_size, choose_precision(settings.training.precision, device))

    hardware = processes.agree(choose_hardware)
    with ExitStack() as held:
        started = processes.first(lambda: _start(asked, settings, dataset, hardware, held))
        task = processes.agree(
            lambda: started if processes.is_first else _joined(asked, settings, dataset)
        )
        if task is not None:
            say, progress = console.say, console.progress
            processes.together(
                lambda: complete_run(*task, hardware, rank, say=say, progress=progress)
            )
        # The others wait: a scheduler may end them all when the first of them ends.
        processes.first(lambda: _conclude(asked, settings, dataset, hardware.device))
    if processes.is_first:
        _say_results(asked.out, asked.data)
    processes.leave()


def _start(
    asked: _Asked,
    settings: Config,
    dataset: DataSet,
    hardware: Hardware,
    held: ExitStack,
) -> tuple[Config, TrainingTask, RunFolder] | None:
    """Make the run folder, and hold it for this command; None where its training has ended."""
    from scripts.machines.devices import require_shares
    from training.run import choose_batch_size, resumed_batch_size

    out, split = asked.out, settings.data.split
    target = dataset.target(settings.data.target, option=_TARGET)
    started = origin(settings, dataset, target)
    settings = resumed_batch_size(settings, out)
    if _is_done(out, settings, started, asked.resume):
        console.say(f"{out}: this training has ended before")
        return None
    require_shares(settings.training.batch_size, hardware.devices)
    started["despite_audit"] = audit_errors(dataset, split, asked.despite_audit)
    _require_packaged_weights(settings)

    store = dataset.make_store(settings.data.image_size, console)
    task = _build(settings, dataset, target, store)
    from data_prep.contracts.folders import folder_lock, require_free_space
    from training.cost import count_parameters

    require_free_space(out, _BYTES_PER_PARAMETER * count_parameters(task.model)[0])
    settings = choose_batch_size(settings, task, hardware, console.say)
    held.enter_context(folder_lock(out))
    return settings, task, _open_run(out, settings, dataset, task, started)


def _joined(
    asked: _Asked, settings: Config, dataset: DataSet
) -> tuple[Config, TrainingTask, RunFolder] | None:
    """The training that the first process has started; None where it has ended."""
    from training.run import resumed_batch_size
    from training.run_folder import RunFolder

    run = RunFolder.started_in(asked.out)
    if run is None:
        raise InputError(
            f"{asked.out}: the first process has made this run, and here it is not; --out must lie "
            "in a folder that all nodes share"
        )
    if run.is_complete:
        return None
    target = dataset.target(settings.data.target, option=_TARGET)
    store = dataset.make_store(settings.data.image_size, console)
    settings = resumed_batch_size(settings, asked.out)
    return settings, _build(settings, dataset, target, store), run


def _conclude(
    asked: _Asked, settings: Config, dataset: DataSet, where: Literal["cpu", "cuda"]
) -> None:
    """Add what a trained run needs to answer: its decision on validation, and its guard."""
    from evaluation.decisions.test_set import TestSet
    from serving.validation import freeze_decision

    target, split = dataset.target(settings.data.target, option=_TARGET), settings.data.split
    freeze_decision(asked.out, TestSet(dataset, target, split), console, device=where)
    add_guard(asked.out, dataset, split, settings.data.image_size)


def read_settings(config: str, overrides: list[str]) -> Config:
    """The configuration of one model, by its file or name, with some keys replaced."""
    from configs.load import find_config, read_config

    return read_config(find_config(config), overrides)


def origin(settings: Config, dataset: DataSet, target: Target) -> dict[str, Any]:
    """What a resumed training must find unchanged."""
    split = settings.data.split
    dataset.split(split)  # refuses a name that it does not have
    return {
        "name": settings.name,
        "model_kind": settings.kind,
        "target": target.name,
        "findings": list(target.any_of),
        "seed": settings.training.seed,
        "data_set": {
            "name": dataset.name,
            "content_id": dataset.ids["content_id"],
            "labels_id": dataset.ids["labels_id"],
            "split": split,
            "split_id": dataset.ids["split_ids"][split],
        },
    }


def audit_errors(dataset: DataSet, split: str, despite_audit: bool) -> list[str]:
    """Errors that the training goes on in spite of; refuses them where nobody said to go on."""
    from data_prep.audit.audit import require_sound

    sound = require_sound(dataset, split, despite_errors=despite_audit)
    if not sound.audited:
        console.say(
            f"note: no audit has looked at split '{split}' (cxr check {dataset.folder}); only "
            "patients and equal images were compared"
        )
    for error in sound.errors:
        console.say(f"warning: trained despite an error of the audit: {error}")
    return list(sound.errors)


def _is_done(out: Path, settings: Config, started: dict[str, Any], resume: bool) -> bool:
    """Whether there is nothing left to train; refuses what cannot be started or resumed."""
    from configs.load import first_difference, parse_config
    from training.run_folder import RunFolder

    run = RunFolder.started_in(out)
    if run is None or not resume:
        RunFolder.require_free(out)
        return False
    before = parse_config(run.config, str(out / "config.toml"))
    if difference := first_difference(_in_batches_of(settings, before), settings):
        raise InputError(
            f"{out}: cannot be resumed with another configuration: {difference}; give the old "
            "value, or choose another --out"
        )
    for key, now in started["data_set"].items():
        was = run.started["data_set"][key]
        if was != now:
            raise InputError(
                f"{out}: cannot be resumed with other data: {key} was '{was}', is now '{now}'; "
                "give the old --data, or choose another --out"
            )
    return run.is_complete


def _in_batches_of(settings: Config, before: Config) -> Config:
    """A run's configuration in other batches, where a step learns from as many images."""
    now, then = settings.training, before.training
    if int(now.batch_size) * now.accumulate != int(then.batch_size) * then.accumulate:
        return before
    batches = {"batch_size": now.batch_size, "accumulate": now.accumulate}
    return before.model_copy(update={"training": then.model_copy(update=batches)})


def _require_packaged_weights(settings: Config) -> None:
    """Refuse weights whose package is not installed, before hours of decoding pixels."""
    from networks.published import find_weights_file
    from networks.registry import NETWORKS, PackagedWeights

    model = settings.model.model_dump()
    name = model["backbone" if settings.kind == "detector" else "architecture"]
    weights = NETWORKS[name].weights if name in NETWORKS else None
    if model["weights"] == "imagenet" and isinstance(weights, PackagedWeights):
        find_weights_file(weights)


def _build(settings: Config, dataset: DataSet, target: Target, store: PixelStore) -> TrainingTask:
    from training.run import build_task

    task = build_task(settings, dataset, target, store)
    for note in task.notes:
        console.say(note)
    return task


def _open_run(
    out: Path, settings: Config, dataset: DataSet, task: TrainingTask, started: dict[str, Any]
) -> RunFolder:
    import pandas as pd

    from configs.load import dump_config
    from training.run_folder import RunFolder
    from training.starting_weights import leak_lines, merge_seen

    if run := RunFolder.started_in(out):
        return run
    used = [
        pd.DataFrame({"image_id": images.image_ids, "role": role})
        for role, images in (("train", task.train), ("val", task.val))
    ]
    patients = dataset.images[["image_id", "patient_id"]]
    seen = pd.concat(used, ignore_index=True).merge(patients, on="image_id", validate="1:1")
    if start := task.start:
        tested = dataset.image_ids("test", started["data_set"]["split"])
        tests = patients[patients["image_id"].isin(tested)]
        for line in leak_lines(seen, start.seen, tests, start.source):
            console.say(line)
        started = {**started, "started_from": start.record()}
        seen = merge_seen(seen, start.seen, start.name)
    return RunFolder.create(out, config=dump_config(settings), seen=seen, started=started)


def _say_results(out: Path, data: Path) -> None:
    from training.run_folder import RunFolder

    info = RunFolder.open(out).info
    monitor, value = info["monitor"], info["best_value"]
    if monitor == "epoch":  # a schedule that ends at its best, or too few images to choose by
        console.say(f"Kept the weights of the last epoch, {info['best_epoch']}")
    else:
        best = f"Best epoch {info['best_epoch']} of {info['epochs']}"
        console.say(f"{best}: {monitor} {value:.3f} on validation")
    console.say(f"Run:      {out}")
    console.say(f"Figures:  {out / 'curves.png'}  {out / 'batch.png'}")
    show_next(out, data)


def add_guard(run: Path, dataset: DataSet, split: str, size: int) -> None:
    """Learn what is no frontal chest X-ray from a run's training images; one that is there stays.

    Args:
        run: Run folder; gets ``guard.json``.
        dataset: What the run was trained on.
        split: Likewise.
        size: Side of the run's images, px.
    """
    from serving.guard import GUARD_NAME, MIN_IMAGES, MIN_PATIENTS, Guard, fit_guard

    path = run / GUARD_NAME
    if path.is_file():
        Guard.read(path)  # refuses a damaged one
        return
    images = dataset.images.set_index("image_id").loc[dataset.image_ids("train", split)]
    guard = fit_guard(
        dataset.make_store(size, console), images["patient_id"], images.get("age_years")
    )
    if guard is None:
        console.say(
            f"No guard against other images: learning it takes {MIN_IMAGES} training images of "
            f"{MIN_PATIENTS} patients"
        )
        return
    guard.write(path)
    console.say(f"Guard: {guard.images} training images tell what is no frontal chest X-ray")
