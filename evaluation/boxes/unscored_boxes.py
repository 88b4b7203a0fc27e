"""The unit of boxes without scores, as vision-language models write them: px, or 0 to 1000."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.box_readings import (
    FAR,
    MANY,
    box_faults,
    in_order,
    sorted_corners,
)
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.boxes.read_table import ReadTable

_STEPS = 1000.0
_LEAST = 100.0  # largest coordinate up to which boxes may be per cent
_ALIKE = 0.9  # side of an image in steps, from which px from 0 to 1000 fit as well


def with_evident_unit(
    read: ReadTable, sizes: npt.NDArray[np.float64], answers: Mapping[str, str]
) -> ReadTable:
    """Return boxes in the only unit or order by which they fit their images.

    Whole numbers up to 1000 may be px or coordinates from 0 to 1000. Where boxes in px leave their
    images, they are the latter, or y is written before x. Where both fit, or the size of an image
    is unknown, InputError asks the user. `sizes` has width and height in px of the image of each
    box, NaN if unknown; `answers` says what to do for another form or unit, by its name.
    """
    reading = read.reading
    where = read.where
    if reading.unit != "px" or reading.form != "xyxy" or reading.affirmed or read.rows.empty:
        return read
    corners = read.rows[EDGES].to_numpy(np.float64)
    is_whole = bool((corners % 1 == 0).all()) and corners.min() >= 0
    may_be_steps = is_whole and _LEAST < corners.max() <= _STEPS
    px_or_steps = f"{where}: are these boxes px, or coordinates from 0 to 1000? None exceeds 1000, "
    px_or_steps_answers = f"If px, {answers['px']}; if not, {answers['thousandth']}"
    if np.isnan(sizes).any():
        if may_be_steps:
            reason = "and no sizes of images are known"
            raise InputError(f"{px_or_steps}{reason}. {px_or_steps_answers}")
        return read
    fits = {
        "px": _fits(corners, sizes),
        "yxyx": _fits(in_order(corners, "yxyx"), sizes),
        "thousandth": may_be_steps,
    }
    if fits["px"]:
        if may_be_steps and np.median(sizes) >= _ALIKE * _STEPS:
            raise InputError(f"{px_or_steps}and both fit the images. {px_or_steps_answers}")
        return read
    if fits["yxyx"] and fits["thousandth"]:
        raise InputError(
            f"{where}: are these boxes y1, x1, y2, x2 in px, or x1, y1, x2, y2 from 0 to 1000? "
            f"Both fit the images. If the latter, {answers['thousandth']}; if not, give x before y"
        )
    n_boxes = counted(len(corners), "box")
    if fits["yxyx"]:
        rows = read.rows.assign(**dict(zip(EDGES, in_order(corners, "yxyx").T, strict=True)))
        note = f"{n_boxes} read as y1, x1, y2, x2: with x first they leave their images."
        return replace(read, rows=rows, notes=[*read.notes, note])
    if fits["thousandth"]:
        evident = replace(reading, unit="thousandth", affirmed=True)
        note = f"{n_boxes} read as coordinates from 0 to 1000: as px they leave their images."
        return replace(read, reading=evident, notes=[*read.notes, note])
    return read


def _fits(corners: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> bool:
    """Return True unless a tenth of the boxes leaves the image."""
    faults = box_faults(sorted_corners(corners), sizes, FAR)
    return bool((faults != "").mean() < MANY)
