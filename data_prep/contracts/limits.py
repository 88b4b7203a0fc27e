"""Limits on the size of input from outside."""

from collections.abc import Sized
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError

MAX_FILE_BYTES = 1 << 29
"""Size in bytes of the largest image file, and the most that a deflated DICOM may inflate to."""
MAX_JSON_BYTES = 1 << 31
"""Size in bytes of the largest JSON file: ten million boxes in the format COCO."""
MAX_XML_BYTES = 1 << 26
"""Size in bytes of the largest XML file: half a million boxes."""
MAX_YAML_BYTES = 1 << 20
"""Size in bytes of the largest YAML file, which names classes."""
MAX_DEPTH = 200
"""Largest number of lists and objects within one another, which the parser of JSON has, too."""
MAX_NAMES = 10_000
"""Largest number of classes that a data set names."""


def require_few_names(names: Sized, source: Path | str) -> None:
    """Raise InputError if more classes are named than `MAX_NAMES`."""
    if len(names) > MAX_NAMES:
        raise InputError(
            f"{source}: names {len(names):,} classes, the limit is {MAX_NAMES:,}; name classes of "
            "findings, not single images or boxes"
        )


def require_depth(depth: int, source: Path | str) -> None:
    """Raise InputError if lists, objects or elements are nested more deeply than `MAX_DEPTH`."""
    if depth > MAX_DEPTH:
        raise InputError(f"{source}: nested too deeply, the limit is {MAX_DEPTH} levels")
