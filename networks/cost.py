"""The cost of a model: parameters, floating-point operations, and time for one image."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.processors import processor_name
from cxr_compare.networks.store_model import evaluation_mode

_WARM_UP = 3  # runs before the first timed one


class ParameterCounts(NamedTuple):
    """Numbers of the parameters of a model: all, and those that the optimiser changes.

    Frozen batch norms have no parameters at all.
    """

    total: int
    trainable: int


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the parameters of a model, and those that learn."""
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return ParameterCounts(total, trainable)


def count_flops(model: nn.Module, image_size: int) -> int:
    """Count the floating-point operations of the forward pass of one image, uint8 (1, 1, S, S).

    Each multiplication and each addition in convolutions and matrix products counts as one
    operation. Other layers, decoding and non-maximum suppression are not counted.

    S is `image_size`, px. The mode of the model is restored.
    """
    # Where Triton is absent, as in a container, torch warns; nothing counted here is written in it.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)  # else the counter looks for gradients where a network splits
    with evaluation_mode(model), torch.no_grad(), counter:
        model(torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8, device=device))
    for parameter in learning:
        parameter.requires_grad_(True)
    return int(counter.get_total_flops())


def measure_latency(
    model: nn.Module,
    image_size: int,
    repeats: int = 20,
    *,
    images: Tensor | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> dict[str, Any]:
    """Measure the time for one image, from pixels in main memory to a result in main memory.

    Three runs warm up and are not counted. If there are several images, the runs use them in turn,
    because decoding takes longer if there are more boxes.

    The model moves to the device. Images are uint8 (N, 1, S, S) with S = `image_size`; None takes
    one image of noise. `precision` is ``fp32``, or ``bf16`` by autocast. The result has the median
    ``latency_ms``, the 10th percentile ``latency_low_ms`` and the 90th percentile
    ``latency_high_ms``, all in milliseconds, and the name of the device, ``latency_device``.
    """
    device = torch.device(device)
    if images is None:
        noise = np.random.default_rng(0).integers(256, size=(1, 1, image_size, image_size))
        images = torch.from_numpy(noise.astype(np.uint8))
    model.to(device)
    times = []
    with (
        evaluation_mode(model),
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        for run in range(_WARM_UP + repeats):
            image = images[run % len(images)][None]
            start = time.perf_counter()
            _to_cpu(model(image.to(device)))  # bringing the result back waits for the device
            times.append(time.perf_counter() - start)
    low, median, high = map(float, np.percentile(1000 * np.array(times[_WARM_UP:]), [10, 50, 90]))
    return {
        "latency_ms": median,
        "latency_low_ms": low,
        "latency_high_ms": high,
        "latency_device": describe_device(device),
    }


def _to_cpu(output: object) -> None:
    """Copy every tensor of a nested output to main memory."""
    if isinstance(output, Tensor):
        output.cpu()
    elif isinstance(output, dict):
        _to_cpu(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            _to_cpu(part)


def describe_device(device: torch.device) -> str:
    """Return the model name of a device, such as ``AMD EPYC 9654, 2 threads``, or its kind."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    return f"{processor_name()}, {counted(torch.get_num_threads(), 'thread')}"
