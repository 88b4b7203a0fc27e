"""Limits on the size of files and images, which are checked before memory is allocated."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_FILE_BYTES

_MAX_SIDE = 10_000  # px; the largest radiography plates have about 5,000
MAX_PIXELS = 100_000_000
"""Largest number of pixels of an image."""


class TooLargeError(InputError):
    """Error about a file or an image that is larger than the limits or does not fit into memory."""


def require_size(path: Path, width: int, height: int) -> None:
    """Refuse the size that the header of an image states, before the pixels are decoded.

    Example:
        >>> require_size(Path("a.png"), 1024, 1024)
    """
    if min(width, height) < 1:
        raise InputError(f"{path}: its header says {width} x {height} px; not an image")
    if max(width, height) > _MAX_SIDE or width * height > MAX_PIXELS:
        raise TooLargeError(
            f"{path}: {width} x {height} px is larger than the limit of {_MAX_SIDE:,} px a side "
            f"and {MAX_PIXELS / 10**6:g} megapixels; make it smaller"
        )


def require_file(path: Path) -> int:
    """Return the size of a file in bytes; refuse a missing, an empty and a too large one.

    Example:
        >>> require_file(Path("no-such-file.png"))
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: no-such-file.png: no such ...
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    if not path.is_file():
        raise InputError(f"{path}: is not a file")
    if size == 0:
        raise InputError(f"{path}: is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise TooLargeError(
            f"{path}: {size / 2**20:,.0f} MiB is larger than the limit of "
            f"{MAX_FILE_BYTES / 2**20:,.0f} MiB"
        )
    return size
