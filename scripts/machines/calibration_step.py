"""A process that times short pieces of training with given settings, for `calibration`.

How long waiting threads spin is read once, when torch loads its OpenMP library, and freed memory
is kept or not from the first large block on: each pair of these needs a process of its own. It
reads orders from stdin, a line of JSON each, and answers with seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial

import torch
from torch import Tensor, nn

from scripts.machines.runtime import keep_freed_memory

_TIMED, _ENOUGH = 3, 0.1  # runs at most, and seconds behind which there is no further one
_BATCH, _SIDE, _GROWTH = 8, 128, 16
_LARGE = 16, 64, 112, 112  # float32 of 51 MB: glibc maps every block beyond 32 MB anew


class _Layer(nn.Sequential):
    """A layer of DenseNet: small convolutions with batch norm, whose output joins its input."""

    def __init__(self, channels: int) -> None:
        width = 4 * _GROWTH
        super().__init__(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, _GROWTH, 3, padding=1, bias=False),
        )

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, super().forward(images)], dim=1)


def _network() -> nn.Module:
    """Many small layers, as the networks of the quickstart have: threads meet often."""
    channels = 32
    layers: list[nn.Module] = [
        nn.Conv2d(1, channels, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    for depth in (6, 8):
        for _ in range(depth):
            layers.append(_Layer(channels))
            channels += _GROWTH
        layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
        channels //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


@cache
def _work(kind: str, precision: str) -> Callable[[], object]:
    """A training step, or one layer on blocks of memory that are large."""
    torch.manual_seed(0)
    if kind not in ("step", "large"):
        raise ValueError(f"work must be step or large, got {kind!r}")
    if kind == "large":
        layer = nn.Conv2d(_LARGE[1], _LARGE[1], 3, padding=1, bias=False)
        return partial(_apply, layer, torch.randn(_LARGE))
    network = _network().to(memory_format=torch.channels_last)
    images = torch.randn(_BATCH, 1, _SIDE, _SIDE).to(memory_format=torch.channels_last)
    return partial(_step, network, images, precision)


def _apply(layer: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        torch.relu(layer(images))


def _step(network: nn.Module, images: Tensor, precision: str) -> None:
    network.zero_grad(set_to_none=True)
    as_told = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    with as_told:
        scores = network(images)
    nn.functional.softplus(scores.float()).mean().backward()


def serve(
    work_of: Callable[[str, str], Callable[[], object]] = _work, *, most: int = _TIMED
) -> None:
    """Answer orders until stdin ends, with the work that a kind and a precision name.

    Args:
        work_of: Gives the work.
        most: How often it is repeated for an answer.
    """
    if "--keep-memory" in sys.argv:
        keep_freed_memory()
    default = torch.get_num_threads()
    for line in sys.stdin:
        order = json.loads(line)
        torch.set_num_threads(order["threads"] or default)
        run = work_of(order["work"], order["precision"])
        start, count = time.perf_counter(), 0
        while count < most and time.perf_counter() - start < _ENOUGH:
            run()
            count += 1
        sys.stdout.write(f"{(time.perf_counter() - start) / count}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
