"""Loading of batches in this process or in others. Error messages name the images that failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader, Dataset

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.worker_processes import begin_worker, worker_context
from cxr_compare.training.processes import is_lost_process

_SMALL = 2**16  # bytes that a pipe carries sooner than shared memory


_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception means that memory ran out, on a CPU or a GPU.

    Args:
        error: The exception that was raised.

    Example:
        >>> is_out_of_memory(MemoryError())
        True
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error) for m in _CPU_MESSAGES)


@dataclass(frozen=True)
class Unreadable:
    """A row or a batch of a data set that could not be loaded, with the reason.

    It is returned as a value, because the message of an exception from a worker process would have
    many lines.

    Attributes:
        reason: One line that names the images and what went wrong.
    """

    reason: str


class NamedRows(Dataset[Any]):
    """Rows of a data set, and batches of them, whose errors name the ids of the images.

    A row is requested by its number, or by ``(row, seed)``, where the seed determines the random
    augmentation.

    Args:
        rows: A data set with an attribute `image_ids`, the id of each row.
        collate: Function that joins samples into a batch.
    """

    def __init__(self, rows: Any, collate: Callable[[Sequence[Any]], Any]) -> None:
        self._rows = rows
        self._collate = collate

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        """Load one row of the data set.

        Args:
            key: Number of the row, or ``(row, seed)``, where the seed determines the augmentation.

        Returns:
            The sample of the data set, or an `Unreadable` with the reason if it cannot be loaded.
        """
        row = key[0] if isinstance(key, tuple) else key
        try:
            return self._rows[key]
        except Exception as error:  # noqa: BLE001  whatever it is, the image must be named
            image_id = self._rows.image_ids[row]
            return Unreadable(f"image {image_id}: cannot be loaded ({_first_line(error)})")

    def batch(self, samples: Sequence[Any]) -> Any:
        """Join samples into a batch.

        Args:
            samples: Samples of the data set, from `__getitem__`. Some may be an `Unreadable`.

        Returns:
            The batch; or an `Unreadable` with the reason if a sample is one or if they cannot be
            joined.
        """
        for sample in samples:
            if isinstance(sample, Unreadable):
                return sample
        try:
            return self._collate(samples)
        except Exception as error:  # noqa: BLE001
            names = ", ".join(str(getattr(sample, "image_id", "?")) for sample in samples)
            return Unreadable(f"images {names}: do not make a batch ({_first_line(error)})")


class BatchLoader(DataLoader[Any]):
    """Loader of training batches, whose content does not depend on the number of loading processes.

    If a batch fails, the message names its images. The loading processes live until the training
    ends, and always end together with this process.

    Args:
        rows: A data set with an attribute `image_ids`, the id of each row.
        collate: Function that joins samples into a batch.
        batch_size: Number of images of a batch.
        sampler: Sampler that yields row numbers, or pairs ``(row, seed of the augmentation)``, in
            order.
        loaders: Number of processes that load; 0 loads in this process.
        pin: True puts batches into page-locked memory, from which a GPU copies faster.
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
        context, begin = None, None
        if loaders:
            context, begin = start_loaders()
        named_rows = NamedRows(rows, collate)
        super().__init__(
            named_rows,
            batch_size,
            sampler=sampler,
            collate_fn=named_rows.batch,
            num_workers=loaders,
            pin_memory=pin,
            persistent_workers=loaders > 0,
            multiprocessing_context=context,
            worker_init_fn=begin,
        )
        self.seconds_waiting = 0.0  # in this epoch so far, for batches that were not loaded yet

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # The guarantee of bit-exact resuming: nothing is drawn before the first batch is asked for.
        # Lightning makes an iterator before it says which epoch is resumed.
        self.seconds_waiting = 0.0
        began = time.perf_counter()
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
    """Return the context in which loading processes start, and the function that each calls first.

    An early call starts the server of these processes while other work continues.

    Returns:
        The context of `multiprocessing`, and the function that each loading process calls first
        with its number.
    """
    context = worker_context(
        "cxr_compare.data_prep.store.decode",
        "cxr_compare.training.augment",
        "cxr_compare.training.datasets",
        __name__,
    )
    return context, _begin_loader


def _begin_loader(_: int) -> None:
    begin_worker()
    ForkingPickler.register(torch.Tensor, _send)


def _send(tensor: Tensor) -> tuple[Any, ...]:
    """Send a small tensor to the training process by value: it needs no open file."""
    if tensor.nbytes > _SMALL:
        return reduce_tensor(tensor)
    return torch.from_numpy, (tensor.numpy(),)


def require_loaded(batch: Any) -> Any:
    """Return a batch; raise an error that names its images if it could not be loaded.

    Args:
        batch: A batch, or an `Unreadable` with the reason.

    Returns:
        The batch itself.

    Raises:
        InputError: The batch could not be loaded; the message names its images.
    """
    if isinstance(batch, Unreadable):
        raise InputError(f"{batch.reason}; look at it with cxr check, or take it out")
    return batch


@contextmanager
def errors_name_images(image_ids: Sequence[str], work: str) -> Iterator[None]:
    """Turn any error within a ``with`` block into one line that names the images.

    Errors that do not depend on the images stay unchanged: lack of memory, and the loss of another
    process.

    Args:
        image_ids: Ids of the images that the block works on.
        work: Name of the work, for the message, such as ``epoch 1: learning``.

    Raises:
        InputError: The block failed for another reason than lack of memory or a lost process.

    Example:
        >>> try:
        ...     with errors_name_images(["a"], "epoch 1: learning"):
        ...         raise ValueError("bad")
        ... except InputError as error:
        ...     str(error).partition(";")[0]
        'epoch 1: learning failed on the images a (ValueError: bad)'
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
    """Return the kind of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
