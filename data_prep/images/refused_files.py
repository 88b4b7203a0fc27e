"""Refusal of image files: limits on their size, and messages about errors of decoding libraries.

Sizes are checked before memory is allocated. Messages have no values from the file.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_FILE_BYTES

_MAX_SIDE = 10_000  # px; the largest radiography plates have about 5,000
MAX_PIXELS = 100_000_000
"""Largest number of pixels of an image."""
DECODER_CRASHED = "the decoder crashed or ran out of memory on this file"
"""Problem of a file that ends each process that decodes it."""


class TooLargeError(InputError):
    """Error about a file or an image that is larger than the limits or does not fit into memory."""


def require_size(path: Path, width: int, height: int) -> None:
    """Refuse the size that the header of an image states, before the pixels are decoded."""
    if min(width, height) < 1:
        raise InputError(f"{path}: its header says {width} x {height} px; not an image")
    if max(width, height) > _MAX_SIDE or width * height > MAX_PIXELS:
        raise TooLargeError(
            f"{path}: {width} x {height} px is larger than the limit of {_MAX_SIDE:,} px a side "
            f"and {MAX_PIXELS / 10**6:g} megapixels; make it smaller"
        )


def require_file(path: Path) -> int:
    """Return the size of a file in bytes; refuse a missing, an empty and a too large one."""
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


def decode_error(path: Path, error: Exception) -> InputError:
    """Return an ``InputError`` about an image file that a library could not decode."""
    reason = plain_reason(error)
    if re.search("truncat|remature|[Nn]ot enough|[Ee]nd of file", reason):
        return InputError(f"{path}: is cut short ({reason})")
    return InputError(f"{path}: cannot be decoded ({reason}); it is cut short or damaged")


def plain_reason(problem: BaseException | warnings.WarningMessage) -> str:
    """Return the message of an exception or warning in one line, without quoted values.

    Decoding libraries quote values that they cannot read, and in a DICOM header such a value can be
    the name of a patient.

    Example:
        >>> plain_reason(ValueError("bad value 'DOE^JANE'"))
        "bad value '...'"
    """
    source = problem.message if isinstance(problem, warnings.WarningMessage) else problem
    if isinstance(source, RecursionError):
        return "its sequences are nested too deeply"
    if "'NoneType' object" in str(source):
        return "gives no image"
    lines = str(source).strip().splitlines() or [type(source).__name__]
    line = lines[-1].strip() if lines[0].endswith(":") else lines[0]
    # From the first quote to the last: what is quoted may have quotes in it, as O'Neil has.
    quoted = r"(?<!\w)b?['\"](?:.*['\"](?!\w)|.*$)"
    return textwrap.shorten(re.sub(quoted, "'...'", line), 160, placeholder=" ...")
