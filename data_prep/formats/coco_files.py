"""The JSON of COCO files: where they lie, their ids, boxes and polygons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.contracts.errors import InputError
from data_prep.formats.label_files import to_edges


def read_json_file(path: Path) -> Any:
    """Read any JSON file in UTF-8.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be COCO") from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as JSON ({reason})") from None


def id_text(value: Any) -> str | None:
    """An id as text; None where it is none.

    Example:
        >>> id_text(7), id_text(7.0), id_text("7"), id_text([7])
        ('7', '7', '7', None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and value != "" else None


def box_edges(given: Any) -> tuple[float, ...] | None:
    """x1, y1, x2, y2 of a ``bbox``, NaN for what is no number; None where it is no bbox.

    Example:
        >>> box_edges([10, 20, 5, 5]), box_edges([])
        ((10.0, 20.0, 15.0, 25.0), None)
    """
    if not isinstance(given, list) or len(given) != 4:
        return None
    x, y, width, height = to_edges(given)
    return (x, y, x + width, y + height)


def polygon_edges(segmentation: Any) -> tuple[float, ...] | None:
    """The box around the polygons of an annotation; None for a mask, or none.

    Example:
        >>> polygon_edges([[1, 5, 4, 2, 3, 9]]), polygon_edges({"counts": "..."})
        ((1.0, 2.0, 4.0, 9.0), None)
    """
    if not isinstance(segmentation, list) or not segmentation:
        return None
    xs: list[float] = []
    ys: list[float] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        xs += to_edges(polygon[::2])
        ys += to_edges(polygon[1::2])
    corners = np.array([xs, ys])  # numpy, for a NaN must not get lost on the way
    return (*corners.min(axis=1).tolist(), *corners.max(axis=1).tolist())
