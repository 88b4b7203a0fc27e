"""The option --exposure of `cxr compare`: which system has seen the images of which file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.parameters import Argument

if TYPE_CHECKING:
    from cxr_compare.evaluation.groups.exposure import Exposure
    from cxr_compare.evaluation.labelled_images import LabelledImages


def _read_texts(value: str | Iterable[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Return texts NAME=FILE from one of them, several of them, or a mapping.

    Example:
        >>> _read_texts("A=seen.csv"), _read_texts({"A": Path("seen.csv")})
        (('A=seen.csv',), ('A=seen.csv',))
    """
    if isinstance(value, Mapping):
        return tuple(f"{name}={file}" for name, file in value.items())
    return (value,) if isinstance(value, str) else tuple(map(str, value))


Exposures = Annotated[Sequence[str], Argument(read=_read_texts, metavar="NAME=FILE")]
"""Parameter of a command that takes texts NAME=FILE or, from Python, a mapping from the name of a
system to its file.
"""


def read_exposures(
    texts: Sequence[str], truth: LabelledImages, mapping: Path | None
) -> list[Exposure]:
    """Read which test images systems have seen in training, from texts SYSTEM=FILE.

    `mapping` is a table that gives for each image of RSNA the image of NIH from which it was made,
    for files that list NIH's images; ``rsna`` takes RSNA's mapping from the working folder, and
    None means that the files list ids of the data set. Raises InputError if a text has no name or
    no file, a file cannot be read, or `mapping` is given without `texts`.
    """
    if mapping is not None and not texts:
        raise InputError("--mapping: is for --exposure; leave it out")
    if not texts:
        return []
    from cxr_compare.data_prep.sources.patient_lookup import RSNA, find_rsna_mapping
    from cxr_compare.evaluation.sources.exposure_files import read_exposure

    if mapping is not None and str(mapping) == RSNA and not mapping.exists():
        mapping = find_rsna_mapping([Path()])
    exposures = []
    for text in texts:
        name, _, file = text.partition("=")
        if not name or not file:
            raise InputError(f"--exposure {text}: expected NAME=FILE, the name of a system")
        exposures.append(read_exposure(name, Path(file), truth, mapping))
    return exposures
