"""Rows of an epoch: drawn by seed, loaded, and named by their images where something fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.worker_processes import begin_worker, worker_context
from cxr_compare.training.processes import is_lost_process

_SMALL = 2**16  # bytes that a pipe takes sooner than shared memory


class SeededSampler(Sampler[tuple[int, int]]):
    """Draw ``(row, seed)`` pairs that depend on nothing but the seed and the epoch.

    A data set that augments with the pair's seed gives the same image again however many
    workers load it, and a training that resumes at an epoch sees what it would have seen.
    Several processes together draw each batch that one would draw, and nothing twice but what
    `ends_with_spare` says.

    Example:
        >>> sampler = SeededSampler(3, seed=0)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> first == list(sampler), sorted(row for row, _ in first)
        (False, [0, 1, 2])
    """

    def __init__(
        self,
        n_rows: int,
        *,
        seed: int,
        weights: np.ndarray | None = None,  # (n_rows,): drawn with replacement; None: each once
        rank: int = 0,
        world_size: int = 1,
        share: int = 1,  # images of a batch that each process gets
    ) -> None:
        if n_rows < 1:
            raise ValueError("Expected at least one row to draw but got none")
        self._n_rows = n_rows
        self._seed = seed
        self._shares = None if weights is None else _shares(weights, n_rows)
        self._rank = rank
        self._world_size = world_size
        self._share = share
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws; Lightning calls this."""
        self._epoch = epoch

    def ends_with_spare(self) -> bool:
        """Whether this process has no image of an epoch's last batch, and draws one of another.

        All processes must take each step. The one row that such a process draws beyond its share
        is in the last batch already, so the loss must leave it out.
        """
        most = -(-self._n_rows // self._world_size)
        own = len(range(self._rank, self._n_rows, self._world_size))
        return own < most and own % self._share == 0

    def __len__(self) -> int:
        return len(range(self._rank, self._n_rows, self._world_size)) + self.ends_with_spare()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Of seed and epoch alone: what makes a resumed training, and one on another number of
        # processes, draw the same.
        rng = np.random.default_rng([self._seed, self._epoch])
        if self._shares is None:
            rows = rng.permutation(self._n_rows)
        else:
            rows = rng.choice(self._n_rows, size=self._n_rows, p=self._shares)
        seeds = rng.integers(2**63, size=self._n_rows)
        end = self._rank + len(self) * self._world_size
        for position in range(self._rank, end, self._world_size):
            drawn = min(position, self._n_rows - 1)  # of a spare: the last one
            yield int(rows[drawn]), int(seeds[drawn])


def _shares(weights: np.ndarray, n_rows: int) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n_rows,):
        raise ValueError(f"Expected {n_rows} weights but got shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise ValueError("Expected finite weights of at least 0, one above 0")
    return values / values.sum()


def balancing_weights(positive: np.ndarray, positive_share: float) -> np.ndarray:
    """Weights that make positives a share of what is drawn; all equal where one kind is absent."""
    if not 0 < positive_share < 1:
        raise ValueError(f"Expected a share between 0 and 1 but got {positive_share}")
    positive = np.asarray(positive, dtype=bool)
    n_positive = int(positive.sum())
    if n_positive in (0, len(positive)):
        return np.ones(len(positive))
    negative_weight = (1 - positive_share) / (len(positive) - n_positive)
    return np.where(positive, positive_share / n_positive, negative_weight)


_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error) for m in _CPU_MESSAGES)


@dataclass(frozen=True)
class _Unreadable:
    """A row or batch that could not be loaded.

    It travels as a value: an exception that crosses from a worker process becomes many lines.
    """

    reason: str  # one line that names the images


class _NamedRows(Dataset[Any]):
    """Rows, by row or (row, seed), and batches of them; what fails names its images."""

    def __init__(self, rows: Any, collate: Callable[[Sequence[Any]], Any]) -> None:
        self._rows, self._collate = rows, collate

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        """The sample, or `_Unreadable`."""
        row = key[0] if isinstance(key, tuple) else key
        try:
            return self._rows[key]
        except Exception as error:  # noqa: BLE001  whatever it is, the image must be named
            image_id = self._rows.image_ids[row]
            return _Unreadable(f"image {image_id}: cannot be loaded ({_first_line(error)})")

    def batch(self, samples: Sequence[Any]) -> Any:
        """The batch of some samples, or `_Unreadable`."""
        for sample in samples:
            if isinstance(sample, _Unreadable):
                return sample
        try:
            return self._collate(samples)
        except Exception as error:  # noqa: BLE001
            names = ", ".join(str(getattr(sample, "image_id", "?")) for sample in samples)
            return _Unreadable(f"images {names}: do not make a batch ({_first_line(error)})")


class BatchLoader(DataLoader[Any]):
    """Batches of rows, the same whichever processes load them; one that fails names its images.

    The processes live until the training ends, and end with this one however it ends.
    """

    def __init__(
        self,
        rows: Any,
        collate: Callable[[Sequence[Any]], Any],
        batch_size: int,
        sampler: Iterable[Any],
        *,
        loaders: int = 0,
        pin: bool = False,
    ) -> None:
        context, begin = start_loaders() if loaders else (None, None)
        named = _NamedRows(rows, collate)
        super().__init__(
            named, batch_size, sampler=sampler, collate_fn=named.batch, num_workers=loaders,
            pin_memory=pin, persistent_workers=loaders > 0, multiprocessing_context=context,
            worker_init_fn=begin,
        )  # fmt: skip
        self.seconds_waiting = 0.0  # of this epoch so far, for batches that were not there

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # The guarantee of bit-exact resuming: nothing is drawn before the first batch is asked for.
        # Lightning makes an iterator before it says which epoch is resumed.
        self.seconds_waiting, began = 0.0, time.perf_counter()
        try:
            for batch in super().__iter__():
                self.seconds_waiting += time.perf_counter() - began
                yield batch
                began = time.perf_counter()
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"training.workers: one of {self.num_workers} processes that load has ended; for "
                "want of memory, or of shared memory (docker run --shm-size)? Fewer need less, and "
                "the same command goes on"
            ) from error


def start_loaders() -> tuple[Any, Any]:
    """Where processes that load start, and how they begin; early, nobody waits for it later."""
    context = worker_context(
        "cxr_compare.data_prep.augment.augment",
        "cxr_compare.classification.dataset",
        "cxr_compare.detection.detector",
        __name__,
    )
    return context, _begin_loader


def _begin_loader(_: int) -> None:
    begin_worker()
    ForkingPickler.register(torch.Tensor, _send)


def _send(tensor: Tensor) -> tuple[Any, ...]:
    """How a tensor goes to the process that learns: a small one needs no open file of its own."""
    if tensor.nbytes > _SMALL:
        return reduce_tensor(tensor)
    return torch.from_numpy, (tensor.numpy(),)


def require_loaded(batch: Any) -> Any:
    """The batch itself; one that could not be loaded is refused, its images named."""
    if isinstance(batch, _Unreadable):
        raise InputError(f"{batch.reason}; look at it with cxr check, or take it out")
    return batch


@contextmanager
def naming(image_ids: Sequence[str], work: str) -> Iterator[None]:
    """Turn whatever goes wrong in a step into a line that names the images.

    Lack of memory and the loss of another process go through: both have nothing to do with these
    images.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or is_lost_process(error):
            raise
        raise InputError(
            f"{work} failed on the images {', '.join(image_ids)} ({_first_line(error)}); look at "
            "these images and their boxes (the checkpoint of the last whole epoch is kept)"
        ) from error


def _first_line(error: BaseException) -> str:
    r"""An exception in one line: its kind and the first line of what it says.

    Example:
        >>> _first_line(ValueError("bad\nworse"))
        'ValueError: bad'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
