"""Patients of images, which are found in the names of image files."""

from __future__ import annotations

import re

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT


def patients_from_names(names: pd.Series, pattern: str | None, name_space: str) -> pd.Series:
    r"""Return the patient of each image, which is found in its file name.

    Args:
        names: File names of images.
        pattern: Regular expression whose first group is the patient number. If the group has a
            name, as in ``(?P<nih>...)``, that name is the prefix of the patient ids. None finds no
            patient.
        name_space: Prefix of the patient ids if the pattern names no prefix. It names the origin,
            so that equal numbers of different hospitals stay different patients.

    Returns:
        Ids ``prefix:patient``, one for each file name, in the same order; missing if the pattern
        does not match.

    Raises:
        InputError: The pattern is no regular expression, or has no group.

    Example:
        >>> names = pd.Series(["00019124_092.png", "x.png"])
        >>> patients_from_names(names, r"(?P<nih>\d{8})_", "ward").tolist()
        ['nih:00019124', nan]
    """
    if pattern is None:
        return pd.Series(index=names.index, dtype=TEXT)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--patient-pattern {pattern!r}: {error}") from None
    if compiled.groups < 1:
        raise InputError(f"--patient-pattern {pattern!r}: put brackets around the patient's part")
    space = next(iter(compiled.groupindex), name_space)
    matches = names.map(compiled.search)
    patients = matches.map(lambda match: match[1] if match else None)
    return space + ":" + patients.astype(TEXT)
