"""Numbers and facts of an image as label files of other programs write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.views import VIEW_NAMES

_FREE_KEYS = ("patient_id", "study_id", "view", "sex", "age_years")
"""What a label file may say of an image in plain words, beside its labels."""

_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
LONGEST_SIDE_PX = 1_000_000
"""No label file states a longer side of an image than this."""


def as_number(value: Any) -> float | None:
    """A JSON value as a finite number, or None where it is none.

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


def to_edges(values: Iterable[Any]) -> list[float]:
    """Edges or sides of a box as numbers; what is no finite number becomes NaN."""
    numbers = (as_number(value) for value in values)
    return [math.nan if number is None else number for number in numbers]


def plain_facts(entry: dict[str, Any]) -> dict[str, Any]:
    """Take what is known of the free keys; what is no such value counts as not there."""
    words = {
        key: str(entry[key]).strip()
        for key in _FREE_KEYS
        if isinstance(entry.get(key), str | int | float)
    }
    facts: dict[str, Any] = {key: words.get(key) for key in ("patient_id", "study_id")}
    view = words.get("view", "").upper()
    facts["view"] = VIEW_NAMES.get(view, "other") if view else None
    facts["sex"] = _SEXES.get(words.get("sex", "").upper())
    facts["age_years"] = as_number(entry.get("age_years"))
    return {key: value for key, value in facts.items() if value not in (None, "")}


def stated_size(value: Any) -> int | None:
    """A height or width that a label file states, px; None where it states none.

    Raises:
        InputError: It states what no image has.

    Example:
        >>> stated_size("1024"), stated_size(0), stated_size(None)
        (1024, None, None)
    """
    number = as_number(value)
    if number is None or not number.is_integer():
        return None
    if not 0 <= number <= LONGEST_SIDE_PX:
        raise InputError(f"a side of {number:g} px, which no image has")
    return int(number) or None
