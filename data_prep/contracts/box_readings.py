"""Forms and units in which boxes are written, and questions about those that are probably others.

A form is what the four numbers of a box mean: corners, or one corner or the centre with the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Literal, get_args

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import counted

BoxForm = Literal["xyxy", "xywh", "cxcywh"]
"""Meaning of a box's four numbers: ``xyxy``, two corners; ``xywh``, left, top, width and height; or
``cxcywh``, centre, width and height."""
BoxUnit = Literal["px", "share", "percent", "thousandth"]
"""Unit of these numbers: px, shares of the image's sides (0 to 1), per cent or thousandths."""
STEPS: dict[BoxUnit, float] = {"share": 1.0, "percent": 100.0, "thousandth": 1000.0}
"""Number that means the whole side of the image, by unit."""
BoxOrder = Literal["xyxy", "yxyx"]
"""Order of the axes: x before y, or y before x."""
FORMS: tuple[BoxForm, ...] = get_args(BoxForm)
UNITS: tuple[BoxUnit, ...] = get_args(BoxUnit)
ORDERS: tuple[BoxOrder, ...] = get_args(BoxOrder)
MANY = 0.1
"""Share of wrong boxes from which a column was probably misread, and not just single rows wrong."""
_FORM_TEXTS = {
    "xyxy": "corners x1, y1, x2, y2",
    "xywh": "x, y, width and height",
    "cxcywh": "x and y of the centre, width and height",
}
_UNIT_TEXTS = {
    "px": "px",
    "share": "shares of the image's size",
    "percent": "per cent of it",
    "thousandth": "coordinates from 0 to 1000",
}
_FORM_QUESTIONS = {"xyxy": "corners", "xywh": "widths and heights", "cxcywh": "centres"}
_UNIT_QUESTIONS = {
    "px": "pixels",
    "share": "shares of the image's size",
    "percent": "per cent",
    "thousandth": "coordinates from 0 to 1000",
}
_LEAST_STEPS = 100.0  # largest number up to which boxes are rather per cent than thousandths
_MOST = 0.9  # share of the boxes that must fit another reading before it is suggested
CUT_SHARE = 0.01
"""Share of the side by which a true box may pass the border, and is cut."""
_CUT_PX = 3.0  # px by which a true box may pass the border, and is cut
_CORNER = (0.25, 0.5)
"""Share of both sides of an image within which all boxes are rather in another unit, for fewer and
for at least 10 boxes: of 10,539 true boxes of RSNA and NIH, 1 and 504 lie in this corner."""
FAR = 0.1
"""Share of the side by which a predicted box passes the border if it is far outside."""
_ROUNDING = 0.01  # px by which edges pass the border by rounding
_FEWEST = 10  # in fewer boxes the pattern of corners may be chance
_TOGETHER = 0.7  # correlation of the first and second numbers from which they are two corners
_APART = 0.5  # correlation below which the second numbers are sizes


@dataclass(frozen=True)
class BoxReading:
    """Form and unit of the boxes of a source, and how the user answers a question about them.

    Attributes:
        where: File or folder of the boxes, for messages.
        stated: True if the source names each number, such as the columns x, y, width and height: it
            is asked about only if boxes leave their images.
        affirmed: True if the user said what the numbers are: nothing is asked.
        answers: What to do if the boxes have another form or unit, by its name. The default is
            ``say --columns box_form=NAME`` or ``box_unit=NAME``.
    """

    form: BoxForm = "xyxy"
    unit: BoxUnit = "px"
    where: str = ""
    stated: bool = False
    affirmed: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Form and unit in words."""
        return f"{_FORM_TEXTS[self.form]} in {_UNIT_TEXTS[self.unit]}"

    def question(self, form: BoxForm, unit: BoxUnit) -> str:
        """Return the question whether the boxes have another form or unit, with its answer."""
        names = []
        answers = []
        for kind, value, own, texts in (
            ("form", form, self.form, _FORM_QUESTIONS),
            ("unit", unit, self.unit, _UNIT_QUESTIONS),
        ):
            if value != own:
                names.append(texts[value])
                answers.append(self.answers.get(value, f"say --columns box_{kind}={value}"))
        return f"are these {' in '.join(names)}? If so, {', and '.join(answers)}"


def corners_of(values: np.ndarray, form: BoxForm, unit: BoxUnit, sizes: np.ndarray) -> np.ndarray:
    """Convert boxes ``(N, 4)`` to corners in px, in the order in which they are written.

    `sizes` are the width and height in px of the image of each box, ``(N, 2)``; NaN if unknown.

    Example:
        >>> size = np.array([[100.0, 50.0]])
        >>> corners_of(np.array([[0.5, 0.5, 0.2, 0.4]]), "cxcywh", "share", size).tolist()
        [[40.0, 15.0, 60.0, 35.0]]
    """
    first, second = values[:, :2], values[:, 2:]
    if form == "xywh":
        second = first + second
    elif form == "cxcywh":
        first, second = first - second / 2, first + second / 2
    corners = np.hstack([first, second])
    if unit == "px":
        return corners
    return corners * np.hstack([sizes, sizes]) / STEPS[unit]


def in_order(corners: np.ndarray, order: BoxOrder) -> np.ndarray:
    """Return boxes with x before y, shape ``(N, 4)``, from boxes of any form in an order of axes.

    Example:
        >>> in_order(np.array([[1, 2, 3, 4]]), "yxyx").tolist()
        [[2, 1, 4, 3]]
    """
    return corners if order == "xyxy" else corners[:, [1, 0, 3, 2]]


def values_of(corners: np.ndarray, form: BoxForm) -> np.ndarray:
    """Return the four numbers in a form of boxes that are given as corners, shape ``(N, 4)``."""
    first, second = corners[:, :2], corners[:, 2:]
    if form == "xywh":
        return np.hstack([first, second - first])
    if form == "cxcywh":
        return np.hstack([(first + second) / 2, second - first])
    return corners


def sorted_corners(corners: np.ndarray) -> np.ndarray:
    """Return corners with the upper left one first, shape ``(N, 4)``; NaN stays."""
    first, second = corners[:, :2], corners[:, 2:]
    return np.hstack([np.minimum(first, second), np.maximum(first, second)])


def cut_to_images(corners: np.ndarray, sizes: np.ndarray, slack: float = CUT_SHARE) -> np.ndarray:
    """Cut boxes that pass the border of their image by at most a share of a side, or 3 px.

    Example:
        >>> cut_to_images(np.array([[-2.0, 5, 60, 90]]), np.array([[200.0, 89.0]])).tolist()
        [[0.0, 5.0, 60.0, 89.0]]
    """
    limits = np.hstack([np.zeros_like(sizes), sizes])
    most = np.fmax(slack * sizes, _CUT_PX)
    most = np.hstack([most, most])
    low = np.where((corners < 0) & (corners >= -most), 0.0, corners)
    over = corners - limits
    is_high = (over > 0) & (over <= most) & np.array([False, False, True, True])
    cut: np.ndarray = np.where(is_high, limits, low)
    return cut


def cut_boxes(boxes: pd.DataFrame, sizes: np.ndarray) -> tuple[pd.DataFrame, str]:
    """Cut the boxes of a table (``x1, y1, x2, y2`` in px) to their images, as `cut_to_images` does.

    `sizes` are as for `corners_of`. The second value is a sentence with the number of boxes that
    were cut by more than rounding; "" if there are none.
    """
    corners = boxes[EDGES].to_numpy(np.float64)
    cut = cut_to_images(corners, sizes)
    n_cut = int((np.abs(cut - corners) > _ROUNDING).any(axis=1).sum())
    note = ""
    if n_cut:
        note = (
            f"{counted(n_cut, 'box')} left the image by at most {CUT_SHARE:.0%} of a side or "
            f"{_CUT_PX:g} px, and {'was' if n_cut == 1 else 'were'} cut at its border"
        )
    return boxes.assign(**dict(zip(EDGES, cut.T, strict=True))), note


def box_faults(corners: np.ndarray, sizes: np.ndarray, slack: float = CUT_SHARE) -> np.ndarray:
    """Return why each box cannot be used; empty texts for boxes that can.

    The corners ``x1, y1, x2, y2``, ``(N, 4)``, are in px, and `sizes` as for `corners_of`. `slack`
    is the share of the image's sides by which a box may pass its border.

    Example:
        >>> corners = np.array([[1.0, 1, 5, 5], [1, 1, 1, 5], [1, 1, 500, 5]])
        >>> box_faults(corners, np.full((3, 2), 100.0)).tolist()
        ['', 'box of zero or negative size', 'box outside the image: reaches 500 of 100 px']
    """
    corners = np.where(np.isfinite(corners), corners, np.nan)
    cut = cut_to_images(corners, sizes, slack)
    is_odd = np.isnan(corners).any(axis=1)
    is_empty = ~(corners[:, :2] < corners[:, 2:]).all(axis=1)
    beyond = cut[:, 2:] - sizes
    is_outside = (cut < 0).any(axis=1) | (beyond > 0).any(axis=1)
    is_outside |= ~(cut[:, :2] < cut[:, 2:]).all(axis=1)
    side = np.where(np.nan_to_num(beyond[:, 0]) > np.nan_to_num(beyond[:, 1]), 0, 1)
    rows = np.arange(len(corners))
    outside = [
        f"box outside the image: reaches {reach:g} of {limit:g} px"
        if reach > limit
        else "box outside the image"
        for reach, limit in zip(corners[rows, 2 + side], sizes[rows, side], strict=True)
    ]
    reasons = np.where(is_outside, outside, "").astype(object)
    reasons[is_empty] = "box of zero or negative size"
    reasons[is_odd] = "box with a missing or infinite number"
    return reasons


def with_sorted(
    corners: np.ndarray, form: BoxForm, sizes: np.ndarray, slack: float = CUT_SHARE
) -> tuple[np.ndarray, int]:
    """Sort the corners of boxes that then fit their image, and return the number of these boxes."""
    if form == "cxcywh":
        return corners, 0
    ordered = sorted_corners(corners)
    is_backwards = (corners[:, :2] > corners[:, 2:]).any(axis=1)
    fits = is_backwards & (box_faults(ordered, sizes, slack) == "")
    return np.where(fits[:, None], ordered, corners), int(fits.sum())


def fitting_readings(
    values: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> list[tuple[BoxForm, BoxUnit]]:
    """Return the other readings by which nearly all boxes would fit, the nearest first."""
    fitting = []
    for form, unit in product(FORMS, UNITS):
        n_changes = (form != reading.form) + (unit != reading.unit)
        if n_changes == 0 or (n_changes > 1 and len(values) < _FEWEST):
            continue
        if unit != "px" and np.isnan(sizes).all():
            continue
        if unit == "thousandth" and not _may_be_steps(values, sizes):
            continue
        corners = corners_of(values, form, unit, sizes)
        sides = np.nan_to_num(corners[:, 2:] - corners[:, :2])
        is_tiny = (sides <= 1.1).all(axis=1).mean() > _MOST
        if not is_tiny and (box_faults(corners, sizes) == "").mean() >= _MOST:
            fitting.append((form, unit))
    return sorted(fitting, key=partial(_distance, reading))


def _may_be_steps(values: np.ndarray, sizes: np.ndarray) -> bool:
    """Return True if numbers up to 1000 reach so far that all boxes are not in one corner."""
    reach = np.nanmax(values)
    return bool(reach <= STEPS["thousandth"]) and bool(
        reach > STEPS["thousandth"] / 2 or reach > max(_LEAST_STEPS, 2 * np.nanmax(sizes))
    )


def _distance(reading: BoxReading, other: tuple[BoxForm, BoxUnit]) -> tuple[int, bool]:
    """Return in how much another reading differs; other forms are nearer than other units."""
    form, unit = other
    return (form != reading.form) + (unit != reading.unit), unit != reading.unit


def questions_about(reading: BoxReading, fitting: list[tuple[BoxForm, BoxUnit]]) -> str:
    """Ask about the nearest of the other readings, two if they are as near."""
    first = _distance(reading, fitting[0])
    nearest = [other for other in fitting if _distance(reading, other) == first]
    return ". Or ".join(reading.question(*other) for other in nearest[:2])


def doubt_about(
    values: np.ndarray, written: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> tuple[int, str]:
    """Ask about boxes that can all be used, and are probably meant otherwise.

    Returned are the row of an example, and the question; "" without doubt.
    """
    if reading.affirmed:
        return 0, ""
    answer = reading.answers.get(reading.form, f"say --columns box_form={reading.form}")
    is_within = (np.abs(written) <= 1 + FAR).all(axis=1)
    if reading.unit == "px" and is_within.mean() >= _MOST:
        question = reading.question(reading.form, "share")
        verb = "lies" if is_within.sum() == 1 else "lie"
        boxes = f"{counted(int(is_within.sum()), 'box')} {verb}"
        return int(is_within.argmax()), f"{boxes} within 1 px: {question}"
    for unit in ("percent", "thousandth") if reading.unit == "px" else ():
        is_within = (np.abs(written) <= STEPS[unit]).all(axis=1)
        is_within &= (sizes * _CORNER[len(values) >= _FEWEST] >= STEPS[unit]).all(axis=1)
        if is_within.mean() >= _MOST:
            boxes = counted(int(is_within.sum()), "box", "are")
            return int(is_within.argmax()), (
                f"{boxes} within {STEPS[unit]:g} px of the upper left corner: "
                f"{reading.question(reading.form, unit)}; if not, {answer}"
            )
    others = fitting_readings(values, reading, sizes)
    if reading.form == "xyxy":
        is_backwards = (written[:, :2] > written[:, 2:]).any(axis=1)
        is_doubtful = is_backwards.mean() >= MANY and ("xywh", reading.unit) in others
        if not is_doubtful or _are_two_corners(values):
            return 0, ""
        question = reading.question("xywh", reading.unit)
        boxes = counted(int(is_backwards.sum()), "box")
        text = f"of {boxes} of {len(values):,} the first corner is not the upper left"
        return int(is_backwards.argmax()), f"{text}: {question}"
    if reading.stated or len(values) < _FEWEST or ("xyxy", reading.unit) not in others:
        return 0, ""
    is_larger = ((values[:, 2:] > values[:, :2]) & (values[:, :2] > 0)).all(axis=1)
    if is_larger.mean() < _MOST or _are_sizes(values):
        return 0, ""
    return int(is_larger.argmax()), (
        "in nearly every box the third number exceeds the first, and the fourth the second: "
        f"{reading.question('xyxy', reading.unit)}; if not, {answer}"
    )


def _correlations(values: np.ndarray) -> list[float]:
    """Return how the second numbers of boxes follow the first, in x and y; NaN if nothing shows it.

    Two corners of a box move together. A width says nothing about where its box begins.
    """
    pairs = sorted_corners(values)
    found = []
    for axis in range(2):
        first, second = pairs[:, axis], pairs[:, axis + 2]
        if len(values) < _FEWEST // 2 or np.ptp(first) == 0:
            found.append(np.nan)
        elif np.ptp(second) == 0:
            found.append(0.0)
        else:
            found.append(float(np.corrcoef(first, second)[0, 1]))
    return found


def _are_two_corners(values: np.ndarray) -> bool:
    return all(correlation >= _TOGETHER for correlation in _correlations(values))


def _are_sizes(values: np.ndarray) -> bool:
    return any(correlation < _APART for correlation in _correlations(values))
