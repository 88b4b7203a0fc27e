"""Errors with the names of their images: in a row, in a batch, in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from data_prep.contracts.errors import InputError
from training.batch_size import is_out_of_memory
from training.processes import is_lost_process

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _Unreadable:
    """A row or batch that could not be loaded.

    It travels as a value: an exception that crosses from a worker process becomes many lines.

    Attributes:
        reason: One line that names the images.
    """

    reason: str


class NamedRows(Dataset[Any]):
    """Rows of a data set; the error of one that fails names its image.

    Args:
        rows: Takes a row, or ``(row, seed)``.
        image_ids: The image of each row.
    """

    def __init__(self, rows: Any, image_ids: Sequence[str] | pd.Index) -> None:
        self._rows = rows
        self._image_ids = image_ids

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        """The sample, or `_Unreadable`."""
        row = key[0] if isinstance(key, tuple) else key
        try:
            return self._rows[key]
        except Exception as error:  # noqa: BLE001  whatever it is, the image must be named
            return _Unreadable(
                f"image {self._image_ids[row]}: cannot be loaded ({_first_line(error)})"
            )


@dataclass(frozen=True)
class NamedBatches:
    """Samples to a batch; where that fails, the error names the images.

    Attributes:
        collate: Samples to a batch; each sample has an ``image_id``.
    """

    collate: Callable[[Sequence[Any]], Any]

    def __call__(self, samples: Sequence[Any]) -> Any:
        """The batch, or `_Unreadable`."""
        for sample in samples:
            if isinstance(sample, _Unreadable):
                return sample
        try:
            return self.collate(samples)
        except Exception as error:  # noqa: BLE001
            names = ", ".join(str(getattr(sample, "image_id", "?")) for sample in samples)
            return _Unreadable(f"images {names}: do not make a batch ({_first_line(error)})")


def require_loaded(batch: Any) -> Any:
    """The batch itself.

    Raises:
        InputError: It could not be loaded; the images are named.
    """
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
