"""What the benchmarks of both networks share: pictures, our optimiser step, and how it is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.bench_measure import Timings
from benchmarks.bench_rows import Row, paired_row, rate
from benchmarks.bench_setting import Setting
from data_prep.images.image import read_image
from data_prep.store.preprocess import letterbox
from training.loop import read_losses
from training.optimisation import Optimisation, build_optimiser

LEARNING_RATE = 1e-5
"""Small: weights that run away would change what a step costs."""


def stack_pictures(setting: Setting, count: int, side: int) -> Tensor:
    """Pictures as the pixel store has them, repeated where there are fewer.

    Args:
        setting: Whose pictures to take.
        count: B.
        side: S, px.

    Returns:
        uint8 (B, 1, S, S).
    """
    paths = [setting.pictures[number % len(setting.pictures)] for number in range(count)]
    read = {path: letterbox(read_image(path).pixels, side)[0] for path in set(paths)}
    return torch.from_numpy(np.stack([read[path] for path in paths])).unsqueeze(1)


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """The precision to compute in: ``fp32``, or ``bf16`` where torch casts to it."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def our_step(
    model: nn.Module,
    losses_of: Callable[[Any, Any], dict[str, Tensor]],
    batch: Any,
    device: str,
    precision: str,
    how: Optimisation,
) -> Callable[[], float]:
    """The step that `cxr train` runs, without Lightning's loop around it.

    Args:
        model: On the device.
        losses_of: ``(model, batch) -> losses``.
        batch: In main memory; has a length and ``to(device)``.
        device: Where to train.
        precision: ``fp32`` or ``bf16``.
        how: Optimiser and clipping.

    Returns:
        One step, pictures in main memory to updated weights; says how many pictures it took.
    """
    optimiser = build_optimiser(model.train(), how)

    def step() -> float:
        moved = batch.to(device)
        with autocast(device, precision):
            losses = losses_of(model, moved)
        read_losses(losses)
        optimiser.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), how.clip or float("inf"))
        optimiser.step()
        norm.item()  # finite or not?
        return float(len(batch))

    return step


def image_rows(
    timings: Timings, pairs: Sequence[tuple[str, str]], title: str, note: str
) -> Iterator[Row]:
    """Images a second of pairs of candidates.

    Args:
        timings: Of all candidates.
        pairs: Ours and what it is held against, by name.
        title: Names what was done; ``{ours}`` and ``{peer}`` stand for the candidates' names.
        note: What the figures do not tell.
    """
    for ours, peer in pairs:
        name = title.format(ours=ours, peer=peer)
        yield paired_row(name, timings, ours, peer, "images/s", rate, note)
