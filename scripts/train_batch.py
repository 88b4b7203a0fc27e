"""The batch of `cxr train`: found on request, checked against the memory, named when too large."""

from __future__ import annotations

import gc
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from configs.schema import ConfigError, parse_config
from configs.settings import ClassifierConfig, DetectorConfig
from data_prep.contracts.errors import InputError
from scripts import console
from scripts.runtime import available_memory, choose_precision
from scripts.train_task import Trainee
from training.batch_size import largest_batch
from training.loading import NamedBatches, NamedRows, require_loaded
from training.run_folder import RunFolder
from training.sampling import SeededSampler

if TYPE_CHECKING:
    from collections.abc import Callable

Config = DetectorConfig | ClassifierConfig

_MOST = 256  # images: beyond it no device is faster, and learning is slower
_STEPS = 8  # an epoch keeps at least as many
_SHARE = 0.8  # of the free memory: the system and the loaders need some
_BYTES_PER_PIXEL = 24_000  # more than any of the models here needs for an image


def with_known_batch(settings: Config, out: Path) -> Config:
    """Where a batch size was found before, take it: a run is resumed as it began.

    Args:
        settings: As asked for; ``auto`` is replaced where the run has been started.
        out: The run folder.

    Raises:
        InputError: The folder's configuration cannot be read.
    """
    run = RunFolder.started_in(out)
    if settings.training.batch_size != "auto" or run is None:
        return settings
    try:
        before = parse_config(run.config, str(out / "config.toml"))
    except ConfigError as error:
        raise InputError(str(error)) from None
    return with_batch(settings, before.training.batch_size)


def with_batch(settings: Config, batch_size: int | str) -> Config:
    """The same configuration with another batch size."""
    training = settings.training.model_copy(update={"batch_size": batch_size})
    return settings.model_copy(update={"training": training})


def settle_batch(
    settings: Config, trainee: Trainee, device: Literal["cpu", "cuda"], devices: int
) -> Config:
    """Find the batch size where it is ``auto``; else check that a CPU's memory has room for it.

    Args:
        settings: The whole configuration.
        trainee: Its model stays as it is.
        device: Where to train.
        devices: How many share a batch.

    Raises:
        InputError: The batch does not fit; says which does.
    """
    batch_size = settings.training.batch_size
    if batch_size == "auto":
        most = max(devices, min(_MOST, len(trainee.train) // _STEPS))
        found = _largest(settings, trainee, device, devices, most)
        if not found:
            raise InputError(_nothing_fits(settings))
        console.say(
            f"batch size: {found} images (memory, {_MOST} or {_STEPS} steps an epoch end it); "
            f"training.learning_rate stays {settings.training.learning_rate:g}"
        )
        return with_batch(settings, found)
    # A CPU that runs out of memory ends the training without a word. Where the batch is far from
    # that, nothing is measured.
    guess = batch_size * settings.data.image_size**2 * _BYTES_PER_PIXEL
    if device == "cpu" and guess > available_memory():
        found = _largest(settings, trainee, device, devices, batch_size)
        if 2 * found <= batch_size:
            raise too_large(settings, found, "would need more than the memory that is free")
    return settings


def too_large(settings: Config, found: int, what: str) -> InputError:
    """The line that says which batch fits, and how to learn as before with it.

    Args:
        settings: The whole configuration.
        found: Images that fit; 0 where none does.
        what: What is wrong with the batch.
    """
    if not found:
        return InputError(_nothing_fits(settings))
    training = settings.training
    more = -(-int(training.batch_size) // found) * training.accumulate
    return InputError(
        f"training.batch_size: {training.batch_size} images {what}, {found} fit; choose another "
        f"--out and add --set training.batch_size={found} --set training.accumulate={more}, which "
        "learns from as many images a step"
    )


def fitting_batch(
    settings: Config,
    trainee: Trainee,
    device: Literal["cpu", "cuda"],
    devices: int,
) -> int:
    """The batch that fits where half of the configured one is the most; 0 where none does."""
    trainee.model.zero_grad(set_to_none=True)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    half = max(devices, int(settings.training.batch_size) // 2)
    return _largest(settings, trainee, device, devices, half)


def _largest(
    settings: Config,
    trainee: Trainee,
    device: Literal["cpu", "cuda"],
    devices: int,
    most: int,
) -> int:
    """Images of a whole batch: as many on each device as fit there."""
    each = largest_batch(
        trainee.model,
        first_batch_of(trainee, settings.training.seed),
        trainee.training_losses,
        limit=max(1, most // devices),
        device=device,
        precision=choose_precision(settings.training.precision, device),
        budget=int(_SHARE * available_memory() / devices),
    )
    return each * devices


def first_batch_of(trainee: Trainee, seed: int) -> Callable[[int], Any]:
    """Training batches of any size, read as training reads them."""
    rows = NamedRows(trainee.train, trainee.train.image_ids)
    sampler = SeededSampler(len(trainee.train), seed=seed)
    collate = NamedBatches(trainee.collate)

    def make(size: int) -> Any:
        return require_loaded(collate([rows[pair] for pair in islice(sampler, size)]))

    return make


def _nothing_fits(settings: Config) -> str:
    return (
        f"training.batch_size: not even one image of {settings.data.image_size} px fits in memory; "
        "choose a smaller data.image_size or a smaller model"
    )
