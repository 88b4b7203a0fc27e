"""What a model costs: parameters, floating-point operations, time for one image."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """Time from store pixels in memory to a result, batch 1.

    Attributes:
        median_ms: Median over the repeats, milliseconds.
        low_ms: 10th percentile.
        high_ms: 90th percentile.
        repeats: Number of timed runs.
        device: What it ran on, with its number of threads where that is a processor.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int
    device: str


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count a model's parameters.

    Args:
        model: Any.

    Returns:
        All, and those that learn. Frozen batch norm has none: its numbers are buffers.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        (8, 8)
    """
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)


def count_flops(model: nn.Module, image_size: int) -> int:
    """Count the floating-point operations of one image's forward pass.

    Args:
        model: Reads uint8 (1, 1, S, S).
        image_size: S, px.

    Returns:
        Operations in convolutions and matrix products, two for each multiply and add; other
        layers, decoding and NMS are not counted.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8, device=device))
    model.train(was_training)
    return int(counter.get_total_flops())


def measure_latency(
    model: nn.Module,
    image_size: int,
    repeats: int = 20,
    *,
    images: Tensor | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> Latency:
    """Time a model at batch 1, from pixels in main memory to a result in main memory.

    Three runs warm up and are not counted. The runs cycle through the images, because decoding
    boxes takes longer where there are more.

    Args:
        model: Reads uint8 (1, 1, S, S); moved to ``device``.
        image_size: S, px.
        repeats: Timed runs, at least 1.
        images: Images to take, uint8 (N, 1, S, S); seeded noise by default.
        device: Where to compute.
        precision: ``fp32``, or ``bf16`` for autocast.

    Returns:
        The times and what they were measured on.
    """
    device = torch.device(device)
    if images is None:
        noise = np.random.default_rng(0).integers(256, size=(1, 1, image_size, image_size))
        images = torch.from_numpy(noise.astype(np.uint8))
    was_training = model.training
    model.to(device).eval()
    times = []
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        for run in range(WARM_UP + repeats):
            image = images[run % len(images)][None]
            start = time.perf_counter()
            _to_cpu(model(image.to(device)))  # bringing the result back waits for the device
            times.append(time.perf_counter() - start)
    model.train(was_training)
    low, median, high = np.percentile(1000 * np.array(times[WARM_UP:]), [10, 50, 90])
    return Latency(float(median), float(low), float(high), repeats, describe_device(device))


def _to_cpu(output: object) -> None:
    if isinstance(output, Tensor):
        output.cpu()
    elif isinstance(output, dict):
        _to_cpu(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            _to_cpu(part)


def describe_device(device: torch.device) -> str:
    """Name a device as a reader of a report wants it, such as ``AMD EPYC 9654, 2 threads``.

    Args:
        device: CPU or GPU.

    Returns:
        Its model name; the kind of device where the system does not tell.
    """
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
