"""`cxr train`: a detector or a classifier, from a data set and a configuration to a run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_prep.contracts.errors import InputError
from data_prep.store.folder_kinds import require_kind
from networks.registry import network_names
from scripts import console
from scripts.configs import config_names
from scripts.next_steps import show_next

if TYPE_CHECKING:
    from configs.settings import ClassifierConfig, DetectorConfig
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.pixel_store import PixelStore
    from scripts.train_run import TrainingTask
    from training.run_folder import RunFolder

    Config = DetectorConfig | ClassifierConfig

_BYTES_PER_PARAMETER = 48  # checkpoint, best weights and final weights, each doubled while written
_TARGET = "--set data.target=NAME"


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="A TOML file, of a model or of a list of them, or the name of one that comes with "
            "the program: 'cxr configs' lists them, 'cxr configs NAME' shows one with every key.",
            autocompletion=config_names,
        ),
    ],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    out: Annotated[Path, typer.Option(help="Run folder to make; of a list, their folder.")],
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
    despite_audit: Annotated[
        bool,
        typer.Option(
            "--despite-audit", help="Go on where the audit found what makes results wrong."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs, or processes on the CPU, that share each batch.")
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print run.json at the end; of a list, all of them.")
    ] = False,
) -> None:
    """Train a detector or a classifier, and keep the weights of its best epoch.

    May be interrupted: the same command goes on behind the last whole epoch. A list of models, such
    as zoo, is trained one after another, each into a folder of its own; one that fails leaves the
    others, and the exit status is then 1.

    Example: cxr train retinanet_small --data out/data --out out/retinanet --set training.epochs=20
    """
    from scripts.train_devices import follow_parent
    from scripts.train_zoo import read_models, train_models

    follow_parent()
    if (models := read_models(config, set_ or [])) is not None:
        train_models(
            models,
            data,
            out,
            resume=resume,
            despite_audit=despite_audit,
            device=device,
            devices=devices,
            as_json=as_json,
        )
        return
    settings = _read(config, set_ or [])
    if settings.training.loggers:
        from training.loggers import require_loggers

        require_loggers(settings.training.loggers)
    from scripts.train_devices import end_with_parent, own_rank, require_shares, run_on_devices

    rank = own_rank() or 0
    require_shares(settings.training.batch_size, devices)
    require_kind(data, "data set")
    from data_prep.store.dataset import DataSet

    dataset = DataSet.open(data)
    nothing_new = own_rank() is not None or (out / "run.json").is_file()
    work = 0.0 if nothing_new else _megapixels(settings, dataset)
    if devices > 1 and own_rank() is None:
        from scripts.runtime import calibrate_for

        calibrate_for(work, device)  # before they share the processors
        sets = [word for override in set_ or [] for word in ("--set", override)]
        words = ["train", config, "--data", data, "--out", out, *sets]
        words += ["--resume" if resume else "--no-resume", "--device", device]
        words += ["--despite-audit"] * despite_audit
        if status := run_on_devices([*map(str, words), "--devices", str(devices)], devices):
            raise SystemExit(status)  # what went wrong has been said
        _emit_run(out, as_json)
        return
    if devices > 1:
        end_with_parent()
    from scripts.runtime import choose_device, tune_cpu

    how = settings.training
    tune_cpu(workers=how.workers, shared_by=devices, megapixels=work, device=device)
    where = choose_device(device, devices)
    if rank:
        _join(settings, dataset, out, where, devices)
        return
    from scripts.train_run import settle_batch, with_known_batch

    target = dataset.target(settings.data.target, option=_TARGET)
    started = _origin(settings, dataset, target)
    settings = with_known_batch(settings, out)
    if _is_done(out, settings, started, resume):
        console.say(f"{out}: this training has ended before")
    else:
        started["despite_audit"] = _audit_errors(dataset, settings.data.split, despite_audit)
        _require_packaged_weights(settings)
        from scripts.train_images import open_store

        store = open_store(dataset, settings.data.image_size)
        task = _build(settings, dataset, target, store)
        from data_prep.contracts.folders import folder_lock, require_free_space
        from scripts.train_run import complete_run
        from training.cost import count_parameters

        require_free_space(out, _BYTES_PER_PARAMETER * count_parameters(task.model)[0])
        settings = settle_batch(settings, task, where, devices)
        with folder_lock(out):
            run = _open_run(out, settings, dataset, task, started)
            complete_run(settings, task, run, where, devices)
    from scripts.predict import freeze_decision
    from scripts.train_images import add_guard

    freeze_decision(out, dataset, target, settings.data.split, device=where)
    add_guard(out, dataset, settings.data.split, settings.data.image_size)
    _say_results(out, data)
    _emit_run(out, as_json)


def _megapixels(settings: Config, dataset: DataSet) -> float:
    """What is trained on in all epochs."""
    images = len(dataset.image_ids("train", settings.data.split))
    return images * settings.training.epochs * settings.data.image_size**2 / 1e6


def _join(
    settings: Config, dataset: DataSet, out: Path, device: Literal["cpu", "cuda"], devices: int
) -> None:
    """Take part in the training that another process of this command leads."""
    from scripts.train_images import open_store
    from scripts.train_run import complete_run, with_known_batch
    from training.run_folder import RunFolder

    while (run := RunFolder.started_in(out)) is None:  # whoever started this one ends it
        time.sleep(0.1)
    if run.is_complete:
        return
    target = dataset.target(settings.data.target, option=_TARGET)
    store = open_store(dataset, settings.data.image_size)
    settings = with_known_batch(settings, out)
    task = _build(settings, dataset, target, store)
    complete_run(settings, task, run, device, devices)


def _read(config: str, overrides: list[str]) -> Config:
    from configs.load import ConfigError, find_config, read_config

    try:
        return read_config(find_config(config), overrides)
    except ConfigError as error:
        raise InputError(str(error)) from None


def _origin(settings: Config, dataset: DataSet, target: Target) -> dict[str, Any]:
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


def _audit_errors(dataset: DataSet, split: str, despite_audit: bool) -> list[str]:
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
    from configs.load import ConfigError, first_difference, parse_config
    from training.run_folder import RunFolder

    run = RunFolder.started_in(out)
    if run is None or not resume:
        RunFolder.require_free(out)
        return False
    try:
        before = parse_config(run.config, str(out / "config.toml"))
    except ConfigError as error:
        raise InputError(str(error)) from None
    if difference := first_difference(before, settings):
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
    from data_prep.augment.augment import build_augmentation

    augmentation = build_augmentation(**settings.augmentation.model_dump(exclude={"mosaic"}))
    if settings.kind == "detector":
        from scripts.train_detector import DetectorTask

        return DetectorTask(settings, dataset, target, store, augmentation)
    from scripts.train_classifier import ClassifierTask

    return ClassifierTask(settings, dataset, target, store, augmentation)


def _open_run(
    out: Path, settings: Config, dataset: DataSet, task: TrainingTask, started: dict[str, Any]
) -> RunFolder:
    import pandas as pd

    from configs.load import dump_config
    from scripts.starting_weights import leak_lines, merge_seen
    from training.run_folder import RunFolder

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


def _emit_run(out: Path, as_json: bool) -> None:
    if as_json:
        from data_prep.contracts.json_files import read_json

        console.emit_json(read_json(out / "run.json", "run"))


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
