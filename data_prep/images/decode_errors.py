"""Messages about errors of decoding libraries, without values from the file."""

from __future__ import annotations

import re
import textwrap
import warnings
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError

DECODER_CRASHED = "the decoder crashed or ran out of memory on this file"
"""Problem of a file that ends each process that decodes it."""


def decode_error(path: Path, error: Exception) -> InputError:
    """Return an ``InputError`` about an image file that a library could not decode.

    Example:
        >>> print(decode_error(Path("a.png"), OSError("Truncated file")))
        a.png: cannot be decoded (Truncated file); it is cut short or damaged
    """
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
