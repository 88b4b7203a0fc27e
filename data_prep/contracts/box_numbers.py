"""Numbers of boxes as files of other programs write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import plain_name

_BOX_COLUMNS = (
    "bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes", "predictionstring", "rle",
    "encodedpixels", "polygon", "polygons", "segmentation", "regionshapeattributes",
)  # fmt: skip
_NUMBER = r"-?\d+(?:\.\d*)?(?:e-?\d+)?"
FOUR_NUMBERS = rf"[\[(]\s*{_NUMBER}(?:\s*[,;\s]\s*{_NUMBER}){{3}}\s*[\])]"
"""Pattern of four numbers in brackets, such as ``[10, 20, 30, 40]``."""
_ONLY_BOXES = rf"[\[(]?\s*{FOUR_NUMBERS}(?:[,;\s]*{FOUR_NUMBERS})*\s*[\])]?"


def four_numbers(value: Any) -> tuple[float, ...] | None:
    """Return the four numbers of a box that a JSON file writes; None if they are no four.

    Some programs write an object with ``x``, ``y``, ``width`` and ``height`` in place of a list. A
    member that is no finite number becomes NaN.

    Example:
        >>> four_numbers({"x": 1, "y": 2, "width": 3, "height": 4}), four_numbers(None)
        ((1.0, 2.0, 3.0, 4.0), None)
    """
    if isinstance(value, Mapping) and {"x", "y", "width", "height"} <= value.keys():
        value = [value[key] for key in ("x", "y", "width", "height")]
    if not isinstance(value, list | tuple) or len(value) != len(EDGES):
        return None
    return tuple(finite_or_nan(value))


def finite_or_nan(values: Any) -> list[float]:
    """Convert values to numbers; what is no finite number becomes NaN.

    Example:
        >>> finite_or_nan(["2.5", "wide", 3, True])
        [2.5, nan, 3.0, nan]
    """
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return np.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return np.nan
    return number if np.isfinite(number) else np.nan


def coco_rotation(entry: Any) -> float:
    """Return the clockwise rotation of a COCO entry in degrees, as CVAT writes it; 0 without.

    Example:
        >>> coco_rotation({"attributes": {"rotation": 90.0}}), coco_rotation({})
        (90.0, 0.0)
    """
    attributes = entry.get("attributes")
    value = attributes.get("rotation") if isinstance(attributes, dict) else None
    number = np.nan if isinstance(value, str) else _number(value)
    return 0.0 if np.isnan(number) else number % 360


def are_box_texts(cells: pd.Series) -> pd.Series:
    """Return True for cells that write boxes as one text, such as ``[10, 20, 30, 40]``.

    In a column with a name of boxes, such as ``bbox``, any cell with four numbers is one.

    Example:
        >>> are_box_texts(pd.Series(["[10, 20, 30, 40]", "[]", "[0.14, 0.14]"])).tolist()
        [True, False, False]
        >>> are_box_texts(pd.Series(["mass 0.9 10 20 30 40", ""], name="bbox")).tolist()
        [True, False]
    """
    if plain_name(str(cells.name)) in _BOX_COLUMNS:
        return cells.str.count(r"\d+(?:\.\d+)?") >= len(EDGES)
    return cells.str.strip().str.fullmatch(_ONLY_BOXES)
