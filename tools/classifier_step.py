"""Measurement of a classifier's bf16 training step: time of its operations, and batch sizes.

    python -m tools.classifier_step

The network is DenseNet121 at 224 px, in the step of ``cxr train``. The first table divides the
time of one step among its operations. The second table measures the step with other batch sizes,
each beside the peak speed that the processor reached just before: the speed of a 3 x 3 convolution
of 256 channels in bf16. Other programs must not run at the same time.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_models import Size, classifier_step, classifier_twins, flops, labelled, peak
from benchmarks.worker import Run

_SIDE = 224
_BATCH = 16
_PASSES = 3  # of a training step: forward, and backward by images and by weights
_ROWS = 10  # of the table of operations
_ROUNDS = 3


def build_step(batch: int) -> Run:
    """Set up a training step of DenseNet121 in bf16.

    Args:
        batch: Number of images.

    Returns:
        Function that makes one step and returns the number of images.
    """
    learner, _ = classifier_twins(Size(_SIDE, batch), 0, "cpu")
    images = torch.randint(256, (batch, 1, _SIDE, _SIDE), dtype=torch.uint8)
    return classifier_step(learner, labelled(images, 0), "cpu", "bf16")


def best_rate(run: Run) -> float:
    """Return the largest amount that some work did in a second, of three rounds after a first.

    Args:
        run: The work, which returns its amount.
    """
    run()
    rates = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        amount = run()
        rates.append(float(amount) / (time.perf_counter() - start))
    return max(rates)


def print_operations() -> None:
    """Print the operations that take most of the time of one step, with their share of it."""
    step = build_step(_BATCH)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    operations = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in operations)
    print(f"one step of {_BATCH} images: {total / 1e6:.2f} s")
    for event in operations[:_ROWS]:
        print(f"  {event.self_cpu_time_total / total:6.1%}  {event.key}")


def print_batches() -> None:
    """Print images a second and the share of the peak for several batch sizes."""
    work = _PASSES * flops("classifier", Size(_SIDE, _BATCH)) / 1e9
    convolution = partial(peak, "3x3 convolution", "bf16", "cpu", small=False)
    for batch in (4, 8, _BATCH, 2 * _BATCH):
        limit = best_rate(convolution())
        rate = best_rate(build_step(batch))
        print(
            f"batch {batch}: {rate:.1f} images/s, {rate * work:.0f} of {limit:.0f} GFLOP/s "
            f"({rate * work / limit:.0%})"
        )


if __name__ == "__main__":
    print_operations()
    print_batches()
