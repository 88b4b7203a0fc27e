"""Forms and units of boxes, and the one check of boxes, whatever file they come from.

A box that cannot be used never vanishes silently: without it, an image with a lesion would look
like one without. Where a tenth of the boxes cannot be used, the file was misread: all other forms
and units are tried, and the error asks about those by which the boxes would fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, counted, counted_phrase

BoxForm = Literal["xyxy", "xywh", "cxcywh"]
BoxUnit = Literal["px", "share", "percent", "thousandth"]
FORMS: tuple[BoxForm, ...] = get_args(BoxForm)
UNITS: tuple[BoxUnit, ...] = get_args(BoxUnit)
STEPS: dict[BoxUnit, float] = {"share": 1.0, "percent": 100.0, "thousandth": 1000.0}
"""Number that means the whole side of the image, by unit."""
MANY = 0.1
"""Share of wrong boxes from which a file was probably misread."""
CUT_SHARE = 0.01
"""Share of the side by which a true box may pass the border, and is cut."""
_CUT_PX = 3.0  # px by which it may
_MOST = 0.9  # share of boxes that must fit another reading before it is suggested
_FEWEST = 10  # in fewer boxes a pattern may be chance
_CORNER = (0.25, 0.5)  # share of the sides in which all of few and of many boxes never lie
_TEXTS = {
    "xyxy": ("corners x1, y1, x2, y2", "corners"),
    "xywh": ("x, y, width and height", "widths and heights"),
    "cxcywh": ("x and y of the centre, width and height", "centres"),
    "px": ("px", "pixels"),
    "share": ("shares of the image's size", "shares of the image's size"),
    "percent": ("per cent of it", "per cent"),
    "thousandth": ("coordinates from 0 to 1000", "coordinates from 0 to 1000"),
}


@dataclass(frozen=True)
class BoxReading:
    """Form and unit of the boxes of a source, and how the user answers a question about them.

    Attributes:
        form: Meaning of the four numbers.
        unit: Unit of the numbers.
        where: File or folder, for messages.
        stated: True if the file itself says the form, so that boxes that fit are not asked about.
        affirmed: True if the user has answered: nothing more is asked.
        answers: Answer by form or unit, if it is another one than ``--columns``.
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
        return f"{_TEXTS[self.form][0]} in {_TEXTS[self.unit][0]}"

    def question(self, form: BoxForm, unit: BoxUnit) -> str:
        """Return the question whether the boxes have another form or unit, with its answer."""
        pairs = (("form", form, self.form), ("unit", unit, self.unit))
        other = [(kind, value) for kind, value, own in pairs if value != own]
        names = " in ".join(_TEXTS[value][1] for _, value in other)
        answers = ", and ".join(
            self.answers.get(value, f"say --columns box_{kind}={value}") for kind, value in other
        )
        return f"are these {names}? If so, {answers}"


def corners_of(values: np.ndarray, form: BoxForm, unit: BoxUnit, sizes: np.ndarray) -> np.ndarray:
    """Convert boxes ``(N, 4)`` to corners in px, in the order in which they are written.

    `sizes` are width and height of the image of each box, px, ``(N, 2)``; NaN if unknown.
    """
    first, second = values[:, :2], values[:, 2:]
    if form == "xywh":
        second = first + second
    elif form == "cxcywh":
        first, second = first - second / 2, first + second / 2
    corners = np.hstack([first, second])
    return corners if unit == "px" else corners * np.hstack([sizes, sizes]) / STEPS[unit]


def values_of(corners: np.ndarray, form: BoxForm) -> np.ndarray:
    """Return the four numbers in a form of boxes that are given as corners, shape ``(N, 4)``."""
    first, second = corners[:, :2], corners[:, 2:]
    if form == "xyxy":
        return corners
    return np.hstack([first if form == "xywh" else (first + second) / 2, second - first])


def sorted_corners(corners: np.ndarray) -> np.ndarray:
    """Return corners with the upper left one first, shape ``(N, 4)``; NaN stays."""
    first, second = corners[:, :2], corners[:, 2:]
    return np.hstack([np.minimum(first, second), np.maximum(first, second)])


def finite_or_nan(values: Any) -> list[float]:
    """Convert values to numbers; what is no finite number becomes NaN."""
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return np.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return np.nan
    return number if np.isfinite(number) else np.nan


def four_numbers(value: Any) -> tuple[float, ...] | None:
    """Return the four numbers of a box that a JSON file writes; None if they are no four."""
    if isinstance(value, Mapping) and {"x", "y", "width", "height"} <= value.keys():
        value = [value[key] for key in ("x", "y", "width", "height")]
    if not isinstance(value, list | tuple) or len(value) != len(EDGES):
        return None
    return tuple(finite_or_nan(value))


def cut_to_images(corners: np.ndarray, sizes: np.ndarray, slack: float = CUT_SHARE) -> np.ndarray:
    """Cut boxes that pass the border of their image by at most a share of a side, or 3 px."""
    most = np.fmax(slack * sizes, _CUT_PX)
    low = np.where((corners < 0) & (corners >= -np.hstack([most, most])), 0.0, corners)
    first, second = low[:, :2], low[:, 2:]
    second = np.where((second > sizes) & (second - sizes <= most), sizes, second)
    return np.hstack([first, second])


def cut_boxes(boxes: pd.DataFrame, sizes: np.ndarray) -> tuple[pd.DataFrame, str]:
    """Cut the boxes of a table (``x1, y1, x2, y2`` in px) to their images, and say how many."""
    corners = boxes[EDGES].to_numpy(np.float64)
    cut = cut_to_images(corners, sizes)
    n_cut = int((np.abs(cut - corners) > _CUT_PX / 300).any(axis=1).sum())
    text = f"boxes left the image by at most {CUT_SHARE:.0%} of a side or {_CUT_PX:g} px: cut"
    note = counted_phrase(n_cut, text) if n_cut else ""
    return boxes.assign(**dict(zip(EDGES, cut.T, strict=True))), note


def box_faults(corners: np.ndarray, sizes: np.ndarray, slack: float = CUT_SHARE) -> np.ndarray:
    """Return why each box cannot be used; empty texts for boxes that can."""
    corners = np.where(np.isfinite(corners), corners, np.nan)
    cut = cut_to_images(corners, sizes, slack)
    ends = np.where(np.isnan(sizes), np.inf, sizes)
    is_outside = (cut < 0).any(axis=1) | (cut[:, 2:] > ends).any(axis=1)
    is_outside |= ~(cut[:, :2] < cut[:, 2:]).all(axis=1)
    reasons = np.where(is_outside, "box outside the image", "").astype(object)
    for row in np.flatnonzero((cut[:, 2:] > ends).any(axis=1)):
        side = int(np.argmax(cut[row, 2:] - ends[row]))
        reach = f"reaches {corners[row, 2 + side]:g} of {sizes[row, side]:g} px"
        reasons[row] = f"box outside the image: {reach}"
    reasons[~(corners[:, :2] < corners[:, 2:]).all(axis=1)] = "box of zero or negative size"
    reasons[np.isnan(corners).any(axis=1)] = "box with a missing or infinite number"
    return reasons


@dataclass(frozen=True)
class CheckedBoxes:
    """True boxes of a source after the check.

    Attributes:
        corners: Edges ``x1, y1, x2, y2`` in px, shape ``(N, 4)``.
        faults: Why each box cannot be used, shape ``(N,)``; empty texts for boxes that can.
        notes: What was changed, one sentence each.
    """

    corners: np.ndarray
    faults: np.ndarray
    notes: tuple[str, ...] = ()


def check_boxes(
    values: np.ndarray,
    reading: BoxReading,
    sizes: np.ndarray,
    images: Sequence[str],
    unread: Sequence[tuple[str, str]] = (),
) -> CheckedBoxes:
    """Convert the true boxes of a source to corners in px, and say which cannot be used.

    `values` are the four numbers of each box, ``(N, 4)``, NaN for what is no number; `sizes` are
    width and height of the image of each box, px, ``(N, 2)``, NaN if unknown. `unread` has image
    and reason of each further box, of which not even numbers could be read.

    If a tenth of the boxes cannot be used, or if they are probably in another form or unit, an
    `InputError` asks about that one. The boxes of one image alone are no tenth, unless they are all
    boxes.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    written = corners_of(values, reading.form, reading.unit, sizes)
    corners, n_sorted = with_sorted(written, reading.form, sizes)
    faults = box_faults(corners, sizes)
    wrong = faults != ""
    n_boxes = len(values) + len(unread)
    n_wrong = int(wrong.sum()) + len(unread)
    of_images = {*np.asarray(images, dtype=object)[wrong], *(image for image, _ in unread)}
    are_many = n_wrong >= MANY * n_boxes and (n_wrong == n_boxes > 0 or len(of_images) > 1)
    count = f"{counted(n_wrong, 'box')} of {n_boxes:,} cannot be used"
    if are_many and len(unread) >= MANY * n_boxes:
        image, reason = unread[0]
        raise InputError(f"{reading.where}: {image}: {reason} ({count}); correct them")
    if not len(values):
        return CheckedBoxes(corners, faults)
    row, problem = int(wrong.argmax()), ""
    if are_many:
        fitting = [] if reading.affirmed else fitting_readings(values, reading, sizes)
        question = questions_about(reading, fitting) or advice_on(written)
        problem = f"{faults[row]} ({count}): {question}"
    elif not reading.affirmed:
        row, problem = doubt_about(values, written, reading, sizes)
    if problem:
        numbers = ", ".join(f"{number:g}" for number in values[row])
        raise InputError(
            f"{reading.where}: image '{images[row]}': box [{numbers}], read as {reading.text}: "
            f"{problem}"
        )
    text = "boxes were drawn from another corner than the upper left: corners are sorted"
    notes = (counted_phrase(n_sorted, text),) if n_sorted else ()
    return CheckedBoxes(corners, faults, notes)


def with_sorted(
    written: np.ndarray, form: BoxForm, sizes: np.ndarray, slack: float = CUT_SHARE
) -> tuple[np.ndarray, int]:
    """Sort the corners of boxes that then fit their image, and return the number of these boxes."""
    if form == "cxcywh":
        return written, 0
    ordered = sorted_corners(written)
    is_backwards = (written != ordered).any(axis=1) & ~np.isnan(written).any(axis=1)
    is_sorted = is_backwards & (box_faults(ordered, sizes, slack) == "")
    return np.where(is_sorted[:, None], ordered, written), int(is_sorted.sum())


def advice_on(written: np.ndarray) -> str:
    """Return what to do with boxes that fit their images by no other reading."""
    if (box_faults(written, np.full((len(written), 2), np.nan)) == "").mean() >= _MOST:
        return "are these px of a larger image that was resized? Give px of the original"
    return "correct them; a box needs x1 < x2 and y1 < y2"


def fitting_readings(
    values: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> list[tuple[BoxForm, BoxUnit]]:
    """Return the other readings by which nearly all boxes would fit, the nearest first."""
    fitting = []
    for form, unit in product(FORMS, UNITS):
        n_changes = (form != reading.form) + (unit != reading.unit)
        if n_changes == 0 or (n_changes > 1 and len(values) < _FEWEST):
            continue
        if unit == "thousandth" and not _may_be_steps(values, sizes):
            continue
        corners = corners_of(values, form, unit, sizes)
        sides = np.nan_to_num(corners[:, 2:] - corners[:, :2])
        is_tiny = (sides <= 1.1).all(axis=1).mean() > _MOST
        if not is_tiny and (box_faults(corners, sizes) == "").mean() >= _MOST:
            fitting.append((n_changes, unit != reading.unit, form, unit))
    return [(form, unit) for *_, form, unit in sorted(fitting, key=lambda other: other[:2])]


def _may_be_steps(values: np.ndarray, sizes: np.ndarray) -> bool:
    """Return True if numbers up to 1000 reach so far that all boxes are not in one corner."""
    reach = float(np.max(np.nan_to_num(values)))
    least = max(STEPS["percent"], 2 * float(np.max(np.nan_to_num(sizes))))
    return reach <= STEPS["thousandth"] and (reach > STEPS["thousandth"] / 2 or reach > least)


def questions_about(reading: BoxReading, fitting: list[tuple[BoxForm, BoxUnit]]) -> str:
    """Ask about the nearest of the other readings, two if they are as near; "" without any."""
    changes = [(form != reading.form, unit != reading.unit) for form, unit in fitting]
    nearest = [
        other for other, change in zip(fitting, changes, strict=True) if change == changes[0]
    ]
    return ". Or ".join(reading.question(*other) for other in nearest[:2])


def doubt_about(
    values: np.ndarray, written: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> tuple[int, str]:
    """Ask about boxes that can all be used, and are probably meant otherwise: row and question."""
    answer = reading.answers.get(reading.form, f"say --columns box_form={reading.form}")
    within: list[tuple[BoxUnit, np.ndarray]] = []
    if reading.unit == "px":
        within = [("share", (np.abs(written) <= 1.1).all(axis=1))]
        for unit in ("percent", "thousandth"):  # all in one corner of a larger image
            limits = sizes * _CORNER[len(values) >= _FEWEST]
            is_within = (np.abs(written) <= STEPS[unit]).all(axis=1)
            within.append((unit, is_within & (limits >= STEPS[unit]).all(axis=1)))
    for unit, is_within in within:
        if is_within.mean() >= _MOST:
            boxes = counted(int(is_within.sum()), "box", "are")
            question = f"{reading.question(reading.form, unit)}; if not, {answer}"
            return int(is_within.argmax()), f"{boxes} within {STEPS[unit]:g} px: {question}"
    others = fitting_readings(values, reading, sizes)
    if reading.form == "xyxy":
        doubtful = (written[:, :2] > written[:, 2:]).any(axis=1)
        other, least = ("xywh", reading.unit), MANY
        text = "the first corner is not the upper left"
    else:
        doubtful = ((values[:, 2:] > values[:, :2]) & (values[:, :2] > 0)).all(axis=1)
        other, least = ("xyxy", reading.unit), _MOST
        text = "the third number exceeds the first, and the fourth the second"
        if reading.stated or len(values) < _FEWEST:
            return 0, ""
    if doubtful.mean() < least or other not in others:
        return 0, ""
    boxes = f"of {counted(int(doubtful.sum()), 'box')} of {len(values):,}"
    return int(doubtful.argmax()), f"{boxes} {text}: {reading.question(*other)}; if not, {answer}"
