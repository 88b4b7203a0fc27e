"""Conversion of numbers and facts in label files of other programs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.views import VIEW_NAMES

_FREE_KEYS = ("patient_id", "study_id", "view", "sex", "age_years")
"""Keys of facts that a label file may state of an image beside its labels."""

_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
LONGEST_SIDE_PX = 1_000_000
"""Longest side of an image that a label file may state, px."""


def as_number(value: Any) -> float | None:
    """Return a JSON value as a finite number; None if it is no finite number.

    Args:
        value: Value from a JSON file.

    Example:
        >>> as_number(3), as_number(" 2.5 "), as_number(True), as_number("nan"), as_number([1])
        (3.0, 2.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def finite_or_nan(values: Iterable[Any]) -> list[float]:
    """Convert values to numbers; a value that is no finite number becomes NaN.

    Args:
        values: Values from a JSON file.

    Returns:
        One float for each value.

    Example:
        >>> finite_or_nan(["2.5", "wide", 3])
        [2.5, nan, 3.0]
    """
    numbers = (as_number(value) for value in values)
    return [math.nan if number is None else number for number in numbers]


def read_plain_facts(entry: dict[str, Any]) -> dict[str, Any]:
    """Return patient, study, view, sex and age from an image's entry in a label file.

    Values of a wrong type are left out.

    Args:
        entry: JSON object of a label file that describes one image.

    Returns:
        Values by name: ``patient_id``, ``study_id``, ``view``, ``sex`` and ``age_years``, as far as
        the entry has them.
    """
    texts = {
        key: str(entry[key]).strip()
        for key in _FREE_KEYS
        if isinstance(entry.get(key), str | int | float)
    }
    facts: dict[str, Any] = {key: texts.get(key) for key in ("patient_id", "study_id")}
    view = texts.get("view", "").upper()
    facts["view"] = VIEW_NAMES.get(view, "other") if view else None
    facts["sex"] = _SEXES.get(texts.get("sex", "").upper())
    facts["age_years"] = as_number(entry.get("age_years"))
    return {key: value for key, value in facts.items() if value not in (None, "")}


def parse_side(value: Any) -> int | None:
    """Return a height or width in px that a label file states; None if it is missing or 0.

    Args:
        value: Value from a label file.

    Raises:
        InputError: No image can have a side of this length.

    Example:
        >>> parse_side("1024"), parse_side(0), parse_side(None)
        (1024, None, None)
    """
    number = as_number(value)
    if number is None or not number.is_integer():
        return None
    if not 0 <= number <= LONGEST_SIDE_PX:
        raise InputError(f"a side of {number:g} px, which no image has")
    return int(number) or None
