"""Search for the largest batch size that fits in memory, before a training starts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from cxr_compare.configs.settings import TrainedConfig
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.training.hardware import Hardware, Precision, available_memory
from cxr_compare.training.loading import BatchLoader, is_out_of_memory, require_loaded
from cxr_compare.training.sampling import SeededSampler
from cxr_compare.training.task import TrainingTask

_N_STATES = 5  # gradient, two moments, average, and the copy that a checkpoint makes
_TRANSIENT = 1.5  # factor for gradients of activations, beside what is saved for them
_CUDA_SHARE = 0.9  # share of the device's memory, because memory is fragmented in a long training

_Losses = Callable[[Any, Any], dict[str, Tensor]]
_MakeBatch = Callable[[int], Any]
_T = TypeVar("_T")


def largest_share(
    model: nn.Module,
    make_batch: _MakeBatch,
    training_losses: _Losses,
    *,
    limit: int,
    device: Literal["cpu", "cuda"],
    precision: Precision = "fp32",
    budget: int | None = None,
) -> int:
    """Find the largest batch, a power of two, whose training step fits in a device's memory.

    If several devices share a batch, this is the share of one device. The memory is estimated from
    what two small batches store for the backward pass. On CUDA, steps are then tried from the
    estimated size on, until one runs out of memory. On a CPU no step is tried, because the system
    kills a process that runs out of memory. The model, its gradients and the state of the random
    generators do not change.

    Args:
        model: Network in training mode.
        make_batch: Function that makes a training batch from its number of images.
        training_losses: Function that computes the losses by name from a model and a batch.
        limit: Largest number of images that is tried.
        device: ``cpu`` or ``cuda``.
        precision: Number format of the computation: ``fp32``, ``bf16`` or ``fp16``.
        budget: Bytes of main memory that may be used; None sets no limit. It is ignored on CUDA.

    Returns:
        Number of images; 0 if not even one image fits.
    """
    cuda = [torch.cuda.current_device()] if device == "cuda" else []
    if cuda:
        budget = int(_CUDA_SHARE * torch.cuda.get_device_properties(cuda[0]).total_memory)
    with torch.random.fork_rng(cuda):
        trial = _unless_out_of_memory(lambda: copy.deepcopy(model).to(device).train())
        if trial is None:  # not even the model fits
            return 0
        trial.to(memory_format=torch.channels_last)  # the memory format of the training

        def measured(size: int) -> int:
            return saved_bytes(trial, make_batch(size).to(device), training_losses, precision)

        def runs(size: int) -> bool:
            return _step_fits(trial, make_batch, size, training_losses, precision)

        estimate = _unless_out_of_memory(
            lambda: estimate_memory(trial, measured, min(2, limit), min(4, limit))
        )
        estimated_size = 0
        if estimate is not None:
            estimated_size = _largest_power_of_two(
                lambda size: budget is None or estimate(size) <= budget, limit
            )
        if not cuda:
            return estimated_size
        return _largest_power_of_two(runs, limit, max(2, estimated_size))


def _unless_out_of_memory(work: Callable[[], _T]) -> _T | None:
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def estimate_memory(
    model: nn.Module, measure: Callable[[int], int], small: int, large: int
) -> Callable[[int], int]:
    """Extrapolate the memory of a training step to any batch size, from two small batches.

    The estimate is the memory of the weights, their gradients and the optimiser's state, plus what
    the forward pass stores, which grows with the number of images.

    Args:
        model: The model that is trained.
        measure: Function that returns, for a number of images, the bytes that the forward pass
            stores for the backward pass.
        small: Number of images of the smaller batch.
        large: Number of images of the larger batch. It may equal `small`.

    Returns:
        A function that takes a number of images and returns the estimated bytes.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    state = _N_STATES * weights
    first = measure(small)
    per_image = first / small
    if large > small:
        per_image = (measure(large) - first) / (large - small)
    return lambda size: int(state + _TRANSIENT * (first + per_image * (size - small)))


def _largest_power_of_two(fits: Callable[[int], bool], limit: int, start: int = 2) -> int:
    """Search the largest power of two that fits, from `start` up or down; 0 if none does."""
    # Not from 1: live batch norm cannot learn from one image whose last features are one pixel.
    size = start
    while size and (size > limit or not fits(size)):
        size //= 2
    while size >= start and 2 * size <= limit and fits(2 * size):
        size *= 2
    return size


def saved_bytes(model: nn.Module, batch: Any, training_losses: _Losses, precision: str) -> int:
    """Count the bytes that the forward pass of a batch stores for the backward pass.

    The weights of the model are not counted.

    Args:
        model: The model, on the device of the batch.
        batch: A training batch, as the task's function `collate` makes it.
        training_losses: Function that computes the losses by name from a model and a batch.
        precision: Number format of the computation: ``fp32``, ``bf16`` or ``fp16``.

    Returns:
        Number of bytes. A storage that several tensors share counts once.
    """
    bytes_by_address: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = []  # kept alive: a freed storage gives its address to the next

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            bytes_by_address[storage.data_ptr()] = storage.nbytes()
            saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        losses = _forward(model, batch, training_losses, precision)
    del losses
    return sum(bytes_by_address.values())


def _step_fits(
    model: nn.Module, make_batch: _MakeBatch, size: int, losses: _Losses, precision: str
) -> bool:
    """Take a training step on CUDA, and return True if it leaves enough memory free."""
    device = next(model.parameters()).device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        # AdamW keeps two moments, the most that an optimiser here keeps.
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-12, fused=True)
        _forward(model, make_batch(size).to(device), losses, precision).backward()
        optimiser.step()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_reserved(device) <= _CUDA_SHARE * total


def _forward(model: nn.Module, batch: Any, losses: _Losses, precision: str) -> Tensor:
    device = next(model.parameters()).device
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    with torch.autocast(device.type, kind, enabled=precision != "fp32"):
        return torch.stack([*losses(model, batch).values()]).sum()


_MOST = 256  # images of a batch: beyond it no device is faster, and learning is slower


_MIN_STEPS = 8  # steps that an epoch has at least


_MEMORY_SHARE = 0.8  # share of the free memory, because the system and the loaders need some


_BYTES_PER_PIXEL = 24_000  # more than any of the models here needs for an image


def choose_batch_size(
    settings: TrainedConfig, task: TrainingTask, hardware: Hardware, progress: Progress
) -> TrainedConfig:
    """Return the configuration of a training with a number of images as its batch size.

    If the configured batch size is ``auto``, the function searches the largest one that fits in
    memory. If it is a number and the training runs on a CPU, the function checks that a batch of
    this size fits in main memory.

    Args:
        settings: Configuration of the training, from its TOML file.
        task: Network, images, losses and metrics of the training.
        hardware: Devices, number format and number of processes that load images.
        progress: Shows messages.

    Returns:
        `settings` itself if its batch size is a number, else a copy with a number.

    Raises:
        InputError: Not even one image for each device fits in memory, or, on a CPU, at most half of
            the configured batch fits.
    """
    batch_size = settings.training.batch_size
    if batch_size == "auto":
        most = max(hardware.devices, min(_MOST, len(task.train) // _MIN_STEPS))
        fitting = largest_batch(settings, task, hardware, most)
        if not fitting:
            raise too_large_error(settings, 0)
        progress.say(
            f"batch size: {fitting} images (memory, {_MOST} or {_MIN_STEPS} steps an epoch end "
            f"it); training.learning_rate stays {settings.training.learning_rate:g}"
        )
        return with_batch_size(settings, fitting)
    # A CPU that runs out of memory ends the training without a word. If the batch is far from
    # that, nothing is measured.
    guess = batch_size * settings.data.image_size**2 * _BYTES_PER_PIXEL
    if hardware.device == "cpu" and guess > available_memory():
        fitting = largest_batch(settings, task, hardware, batch_size)
        if 2 * fitting <= batch_size:
            raise too_large_error(settings, fitting, "would need more than the memory that is free")
    return settings


def with_batch_size(settings: TrainedConfig, batch_size: int | str) -> TrainedConfig:
    """Return a copy of a configuration with another batch size.

    Args:
        settings: Configuration of the training, from its TOML file.
        batch_size: Number of images, or ``auto``, which searches the largest number that fits.

    Returns:
        The copy; `settings` does not change.
    """
    training = settings.training.model_copy(update={"batch_size": batch_size})
    return settings.model_copy(update={"training": training})


def too_large_error(settings: TrainedConfig, fitting: int, problem: str = "") -> InputError:
    """Return the error for a batch that does not fit in memory, which names settings that fit.

    Args:
        settings: Configuration of the training, from its TOML file.
        fitting: Number of images of a batch that fits; 0 if not even one does.
        problem: Verb phrase on what the configured batch does, such as ``needs 9 GB``.
    """
    if not fitting:
        return InputError(
            f"training.batch_size: not even one image of {settings.data.image_size} px fits in "
            "memory; choose a smaller data.image_size or a smaller model"
        )
    training = settings.training
    accumulate = -(-int(training.batch_size) // fitting) * training.accumulate
    return InputError(
        f"training.batch_size: {training.batch_size} images {problem}, {fitting} fit; choose "
        f"another --out and add --set training.batch_size={fitting} --set "
        f"training.accumulate={accumulate}, which learns from as many images a step"
    )


def largest_batch(
    settings: TrainedConfig, task: TrainingTask, hardware: Hardware, most: int
) -> int:
    """Return the largest batch size that fits in memory, with equally many images on each device.

    Args:
        settings: Configuration of the training, from its TOML file.
        task: Network, images, losses and metrics of the training.
        hardware: Devices, number format and number of processes that load images.
        most: Largest batch size that is tried, for all devices together.

    Returns:
        Number of images for all devices together; 0 if not even one image for each fits.
    """
    share = largest_share(
        task.model,
        lambda size: first_batch(task, size, settings.training.seed),
        task.training_losses,
        limit=max(1, most // hardware.devices),
        device=hardware.device,
        precision=hardware.precision,
        budget=int(_MEMORY_SHARE * available_memory() / hardware.devices),
    )
    return share * hardware.devices


def first_batch(task: TrainingTask, size: int, seed: int, weights: Any = None) -> Any:
    """Read the first batch of a training, as the training itself would read it.

    Args:
        task: Network, images, losses and metrics of the training.
        size: Number of images.
        seed: Random seed of the order of the images.
        weights: Weight of each training image in random draws with replacement, shape (number of
            training images,); None draws each image once.

    Returns:
        The batch, as the function `collate` of the task makes it.

    Raises:
        InputError: An image cannot be loaded.
    """
    sampler = SeededSampler(len(task.train), seed=seed, weights=weights)
    return require_loaded(next(iter(BatchLoader(task.train, task.collate, size, sampler))))
