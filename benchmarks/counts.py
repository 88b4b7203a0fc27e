"""Kernels and waits of a step of training on a GPU, counted on a processor.

    python -m benchmarks.counts
    python -m benchmarks.counts retinanet chexnet:14

prints for each configuration, with its number of findings, the kernels and the waits of one batch:
of a training step and of a validation step, and of the detector's steps with torchvision's loss and
decoding in place of ours.

A kernel is an operator of PyTorch that computes or writes, and calls no other that does; views and
allocations are none. A wait is an operator whose result the processor must read before it goes on:
a number, or the rows that a condition holds for. A number that is converted for an
operator counts, too, which a GPU does not; and it may fuse some kernels or split others.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.detector import PlainRetinaNet
from cxr_compare.configs.load import read_config
from cxr_compare.configs.settings import Config
from cxr_compare.training.data import Batch, collate
from cxr_compare.training.module import ClassifierModule, DetectorModule
from cxr_compare.training.train import build_model

N_IMAGES = 8
HEADER = """\
| configuration | findings | size | loss, boxes by | kernels, step | waits | validation | waits |
|---|---|---|---|---|---|---|---|"""

_FREE = {
    *("_conj", "_has_compatible_shallow_copy_type", "_reshape_alias", "_unsafe_view", "alias"),
    *("as_strided", "can_cast", "chunk", "contiguous", "detach", "detach_", "empty", "empty_like"),
    *("empty_strided", "expand", "expand_as", "flatten", "full", "full_like", "is_floating_point"),
    *("is_nonzero", "item", "lift_fresh", "narrow", "new_empty", "new_empty_strided", "new_full"),
    *("new_zeros", "ones", "ones_like", "permute", "real", "record_stream", "requires_grad_"),
    *("reshape", "resize_", "resolve_conj", "resolve_neg", "result_type", "select", "set_"),
    *("set_data", "slice", "split", "split_with_sizes", "squeeze", "t", "to", "transpose"),
    *("unbind", "unfold", "unsqueeze", "view", "view_as", "zeros", "zeros_like", "numpy_T"),
}
"""Operators that only look at a tensor, allocate one, or call others that then count."""
_WRITES = {"index", "_index_put_impl_"}  # whatever they call
_WAITS = {"_local_scalar_dense", "masked_select", "nms", "nonzero"}


class Count(NamedTuple):
    """Kernels that a GPU would run, and times that the processor would wait for it."""

    kernels: int
    waits: int


def count(function: Callable[[], object]) -> Count:
    """Count the kernels and the waits of a function.

    Examples:
        >>> numbers = torch.ones(3)
        >>> count(lambda: numbers.view(1, 3).add(numbers).mul(numbers))
        Count(kernels=2, waits=0)
        >>> count(lambda: numbers[numbers > 0]).waits, count(numbers.sum().item).waits
        (1, 1)
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    kernels = waits = 0
    for event in profiler.events():
        name = _operator(event)
        called = [_operator(child) for child in event.cpu_children]
        waits += name in _WAITS
        if name in _WRITES:
            kernels += 1
        elif name and name not in _FREE:
            kernels += not any(each and each not in _FREE for each in called)
    return Count(kernels, waits)


def _operator(event: Any) -> str:
    """Return the name of an operator without its library; nothing if the event is none."""
    library, _, name = event.name.partition("::")
    return name if library in ("aten", "torchvision") else ""


def rows(name: str, n_findings: int) -> Iterator[str]:
    """Yield the row of a configuration, and for a detector that with torchvision's methods."""
    config = read_config(name, [])
    with patch("cxr_compare.training.train.start_from", return_value=None):  # nothing is loaded
        network, _ = build_model(config, [f"finding {n}" for n in range(n_findings)])
    module = DetectorModule if config.kind == "detector" else ClassifierModule
    learner = module(network.to(memory_format=torch.channels_last), config.training)
    learner.weight = None
    batch = _batch(config, n_findings)
    settings = f"`{name}` | {n_findings} | {config.data.image_size} px"
    yield f"| {settings} | cxr-compare | {_cells(learner, batch)} |"
    if config.kind == "detector":
        network.__class__ = PlainRetinaNet
        yield f"| {settings} | torchvision | {_cells(learner, batch)} |"


def _cells(learner: Any, batch: Batch) -> str:
    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.stack([*learner.losses(batch).values()]).sum()
        learner.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)

    def validate() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            learner.validate(batch)

    learner.train()
    step()  # the first has no gradient to clear
    counts = [count(step)]
    learner.eval()
    counts.append(count(validate))
    return " | ".join(f"{number:,}" for each in counts for number in each)


def _batch(config: Config, n_findings: int) -> Batch:
    """Return random squares; of detectors each third has no box, one or two."""
    rng = np.random.default_rng(0)
    size = config.data.image_size
    samples = []
    for image in range(N_IMAGES):
        truth: Any = rng.integers(0, 2, n_findings)
        if config.kind == "detector":
            corners = rng.uniform(0, 0.6 * size, (image % 3, 2))
            sides = rng.uniform(0.1 * size, 0.35 * size, (image % 3, 2))
            findings = rng.integers(1, n_findings + 1, image % 3)
            truth = np.column_stack([corners, corners + sides, findings])
        squares = rng.integers(0, 255, (size, size), dtype=np.uint8)
        samples.append((str(image), squares, torch.from_numpy(truth.astype(np.float32))))
    return collate(samples)


def main() -> None:
    """Print a row of each configuration."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__)
    usual = ["retinanet", "retinanet:14", "chexnet"]
    parser.add_argument("configs", nargs="*", default=usual, help="NAME, or NAME:FINDINGS")
    print(HEADER, flush=True)
    for given in parser.parse_args().configs:
        name, _, n_findings = given.partition(":")
        for row in rows(name, int(n_findings or 1)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
