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

from cxr_compare.data_prep.base.boxes import EDGES, are_scaled
from cxr_compare.data_prep.base.errors import InputError, counted, counted_phrase

BoxForm = Literal["xyxy", "xywh", "cxcywh"]
BoxUnit = Literal["px", "share", "percent", "thousandth"]
FORMS: tuple[BoxForm, ...] = get_args(BoxForm)
UNITS: tuple[BoxUnit, ...] = get_args(BoxUnit)
ROLES_OF_FORMS: dict[BoxForm, tuple[str, str, str, str]] = {
    "xyxy": ("xmin", "ymin", "xmax", "ymax"),
    "xywh": ("xmin", "ymin", "width", "height"),
    "cxcywh": ("xcenter", "ycenter", "width", "height"),
}
"""Roles of the columns of the four numbers of a box, by how it is written."""
STEPS: dict[BoxUnit, float] = {"share": 1.0, "percent": 100.0, "thousandth": 1000.0}
"""Number that means the whole side of the image, by unit."""
MANY = 0.1
"""Share of wrong boxes from which a file was probably misread."""
ENOUGH_COPIES = 20
"""Images whose boxes show by all fitting into the smaller of two sizes that they are of it."""
_CUT_SHARE = 0.01  # share of the side by which a true box may pass the border, and is cut
_CUT_PX = 3.0  # px by which it may
_MOST = 0.9  # share of boxes that must fit another reading before it is suggested
_FEWEST = 10  # in fewer boxes a pattern may be chance
_MUCH_LARGER = 1.5  # sides of a stated size by which lesions would lie in one corner of it
_TEXTS = {
    "xyxy": "corners x1, y1, x2, y2",
    "xywh": "x, y, width and height",
    "cxcywh": "x and y of the centre, width and height",
    "px": "px",
    "share": "shares of the image's sides",
    "percent": "per cent of the image's sides",
    "thousandth": "numbers from 0 to 1000",
}
_PX_OF_FILES = "are these px of the image? If so, correct the stated sizes, or remove them"
NO_BOX = "a box needs x1 < x2 and y1 < y2 inside the image, in px of the original"
"""Form that a box must have."""


@dataclass(frozen=True)
class BoxReading:
    """Form and unit of the boxes of a source, and how the user answers a question about them.

    Attributes:
        form: Meaning of the four numbers.
        unit: Unit of the numbers.
        where: File or folder, for messages.
        stated: True if the file itself says the form, so that boxes that fit are not asked about.
        affirmed: True if the user has answered: nothing more is asked.
        answers: Answer by form or unit, if it is another one than ``columns``.
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
        return f"{_TEXTS[self.form]} in {_TEXTS[self.unit]}"

    def answer(self, value: str) -> str:
        """Return what the user says if the boxes have a form or unit."""
        kind = "form" if value in FORMS else "unit"
        return self.answers.get(value, f"say columns box_{kind}={value}")

    def question(self, form: BoxForm, unit: BoxUnit) -> str:
        """Return the question whether the boxes have another form or unit, with its answer."""
        changed = [value for value in (form, unit) if value not in (self.form, self.unit)]
        names = " in ".join(_TEXTS[value] for value in changed)
        return f"are these {names}? If so, {', and '.join(map(self.answer, changed))}"


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


def _cut(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cut boxes at the border of their image, where its size is known."""
    ends = np.where(np.isnan(sizes), np.inf, sizes)
    return np.clip(corners, 0, np.hstack([ends, ends]))


def cut_boxes(boxes: pd.DataFrame, sizes: np.ndarray) -> tuple[pd.DataFrame, str]:
    """Cut the boxes of a table (``x1, y1, x2, y2`` in px) to their images, and say how many."""
    corners = boxes[EDGES].to_numpy(np.float64)
    cut = _cut(corners, sizes)
    n_cut = int((np.abs(cut - corners) > 0.01).any(axis=1).sum())
    text = f"boxes left the image by at most {_CUT_SHARE:.0%} of a side or {_CUT_PX:g} px: cut"
    note = counted_phrase(n_cut, text) if n_cut else ""
    return boxes.assign(**dict(zip(EDGES, cut.T, strict=True))), note


def box_faults(corners: np.ndarray, sizes: np.ndarray, slack: float = _CUT_SHARE) -> np.ndarray:
    """Return why each box cannot be used; empty texts for boxes that can.

    A box may pass the border of its image by a share of the side, the slack, or by 3 px.
    """
    most = np.fmax(slack * sizes, _CUT_PX)
    cut = _cut(corners, sizes)
    is_outside = (corners < -np.hstack([most, most])).any(axis=1)
    is_outside |= (corners[:, 2:] > sizes + most).any(axis=1)
    is_outside |= ~(cut[:, :2] < cut[:, 2:]).all(axis=1)
    reasons = np.where(is_outside, "box outside the image", "").astype(object)
    reasons[~(corners[:, :2] < corners[:, 2:]).all(axis=1)] = "box of zero or negative size"
    reasons[~np.isfinite(corners).all(axis=1)] = "box with a missing or infinite number"
    return reasons


def scaled_to_files(
    corners: np.ndarray,
    stated: np.ndarray,
    files: np.ndarray,
    is_copy: np.ndarray,
    images: Sequence[str],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Scale boxes to the files that are copies of the stated size, and say so.

    Each box has its image, and both sizes as width and height in px, ``(N, 2)``.
    """
    if not is_copy.any():
        return corners, ()
    row = int(is_copy.argmax())
    text = (
        f"images have boxes of another size than the file (image '{images[row]}': "
        f"{size_text(files[row])}, the labels are of {size_text(stated[row])}): these are taken as "
        "copies that were resized without padding, and their boxes were scaled"
    )
    n_images = len({*np.asarray(images, dtype=object)[is_copy]})
    scaled = np.where(is_copy[:, None], corners * np.tile(files / stated, 2), corners)
    return scaled, (counted_phrase(n_images, text),)


def size_text(size: np.ndarray) -> str:
    """Return width and height in words."""
    width, height = size
    return f"{width:g} x {height:g} px"


def misfit(stated: np.ndarray, file: np.ndarray) -> str:
    """Return why an image is left out whose labels are of another size than its file."""
    return f"labels are of {size_text(stated)}, the image has {size_text(file)}"


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
    files: np.ndarray | None = None,
) -> CheckedBoxes:
    """Convert the true boxes of a source to corners in px, and say which cannot be used.

    `values` are the four numbers of each box, ``(N, 4)``, NaN for what is no number; `sizes` are
    width and height of the image that each box is of, px, ``(N, 2)``, NaN if unknown, and `files`
    those of the image file. `unread` has image and reason of each further box, of which not even
    numbers could be read.

    If a tenth of the boxes cannot be used, or if they are probably in another form or unit, an
    `InputError` asks about that one. The boxes of one image alone are no tenth, unless they are all
    boxes.
    """
    written = corners_of(values, reading.form, reading.unit, sizes)
    corners, notes = sorted_corners(written, reading.form, sizes)
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
        questions = questions_about(values, reading, sizes, files)
        problem = f"{faults[row]} ({count}): {questions}"
    elif not reading.affirmed:
        row, problem = doubt_about_size(corners, reading, sizes, files, images)
        if not problem:
            row, problem = doubt_about(values, reading, sizes)
    if problem:
        numbers = box_text(values[row], reading)
        raise InputError(f"{reading.where}: image '{images[row]}': {numbers}: {problem}")
    return CheckedBoxes(corners, faults, notes)


def box_text(numbers: np.ndarray, reading: BoxReading) -> str:
    """Return the numbers of a box and what they were taken for."""
    return f"box [{', '.join(f'{number:g}' for number in numbers)}], read as {reading.text}"


def sorted_corners(
    written: np.ndarray, form: BoxForm, sizes: np.ndarray, slack: float = _CUT_SHARE
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Sort the corners of boxes that then fit their image, and note how many were not in order."""
    if form == "cxcywh":
        return written, ()
    first, second = written[:, :2], written[:, 2:]
    ordered = np.hstack([np.minimum(first, second), np.maximum(first, second)])
    is_sorted = (first > second).any(axis=1) & (box_faults(ordered, sizes, slack) == "")
    text = "boxes were drawn from another corner than the upper left: corners are sorted"
    notes = (counted_phrase(int(is_sorted.sum()), text),) if is_sorted.any() else ()
    return np.where(is_sorted[:, None], ordered, written), notes


def fitting_readings(
    values: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> list[tuple[BoxForm, BoxUnit]]:
    """Return the other readings by which nearly all boxes would fit, the nearest first."""
    fitting = []
    # Smaller numbers are px of a slightly larger image, not thousandths in one corner.
    are_small = np.nan_to_num(values).max() < min(500, 2 * np.nan_to_num(sizes).max())
    for form, unit in product(FORMS, UNITS):
        n_changes = (form != reading.form) + (unit != reading.unit)
        if n_changes == 0 or (n_changes > 1 and len(values) < _FEWEST):
            continue
        if unit == "thousandth" and are_small:
            continue
        corners = corners_of(values, form, unit, sizes)
        is_tiny = (corners[:, 2:] - corners[:, :2] <= 1.1).all(axis=1)
        fits = (box_faults(corners, sizes) == "") & ~is_tiny
        if fits.mean() >= _MOST:
            fitting.append((n_changes, unit != reading.unit, form, unit))
    return [(form, unit) for *_, form, unit in sorted(fitting, key=lambda other: other[:2])]


def questions_about(
    values: np.ndarray, reading: BoxReading, sizes: np.ndarray, files: np.ndarray | None = None
) -> str:
    """Ask about the nearest other readings of boxes that cannot be used, and say what is needed.

    Boxes that leave the stated `sizes` may be in px of the image `files`.
    """
    questions = []
    if files is not None and reading.unit == "px":
        corners = corners_of(values, reading.form, "px", files)
        is_other = np.isfinite(sizes).all(axis=1) & (sizes != files).any(axis=1)
        if is_other.any() and (box_faults(corners, files) == "").mean() >= _MOST:
            row = int(is_other.argmax())
            questions.append(
                f"the labels state {size_text(sizes[row])}, and the image has "
                f"{size_text(files[row])}: {_PX_OF_FILES}"
            )
    others = [] if reading.affirmed else fitting_readings(values, reading, sizes)[:2]
    questions += [reading.question(*other) for other in others]
    return ". Or ".join([*questions, f"correct them: {NO_BOX}"])


def doubt_about_size(
    corners: np.ndarray,
    reading: BoxReading,
    sizes: np.ndarray,
    files: np.ndarray | None,
    images: Sequence[str],
) -> tuple[int, str]:
    """Ask about boxes on many copies that all lie in the corner which the smaller file fills."""
    if files is None:
        return 0, ""
    is_copy = are_scaled(sizes, files) & (sizes >= _MUCH_LARGER * files).all(axis=1)
    n_images = len({*np.asarray(images, dtype=object)[is_copy]})
    if n_images < ENOUGH_COPIES or (corners[:, 2:] > files + 1)[is_copy].any():
        return 0, ""
    row = int(is_copy.argmax())
    return row, (
        f"the labels state {size_text(sizes[row])}, and all boxes of {n_images} such images fit "
        f"into the {size_text(files[row])} of the image: {_PX_OF_FILES}; if not, "
        f"{reading.answer('px')}"
    )


def doubt_about(values: np.ndarray, reading: BoxReading, sizes: np.ndarray) -> tuple[int, str]:
    """Ask about boxes that can all be used, and are probably meant otherwise: row and question.

    The form comes before the unit: numbers of another form may be small by chance.
    """
    doubts = [_doubt_about_form(values, reading, sizes), _doubt_about_unit(values, reading, sizes)]
    doubts = [(row, question) for row, question in doubts if question]
    if not doubts:
        return 0, ""
    questions = ". Or ".join(question for _, question in doubts)
    return doubts[0][0], f"{questions}; if not, {reading.answer(reading.form)}"


def _doubt_about_form(
    values: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> tuple[int, str]:
    first, second = values[:, :2], values[:, 2:]
    if reading.form == "xyxy":
        doubtful = (first > second).any(axis=1)
        least = {"xywh": MANY, "cxcywh": 0.5}  # a few may be corners of another order
        text = "the first corner is not the upper left"
    else:
        doubtful = ((second > first) & (first > 0)).all(axis=1)
        least = {"xyxy": _MOST} if not (reading.stated or len(values) < _FEWEST) else {}
        text = "the third number exceeds the first, and the fourth the second"
    for form, unit in fitting_readings(values, reading, sizes) if doubtful.any() and least else ():
        if unit == reading.unit and form in least and doubtful.mean() >= least[form]:
            boxes = f"of {counted(int(doubtful.sum()), 'box')} of {len(values):,}"
            return int(doubtful.argmax()), f"{boxes} {text}: {reading.question(form, unit)}"
    return 0, ""


def _doubt_about_unit(
    values: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> tuple[int, str]:
    written = corners_of(values, reading.form, reading.unit, sizes)
    limits = sizes * (0.25 if len(values) < _FEWEST else 0.5)
    for unit, step in STEPS.items() if reading.unit == "px" else ():
        is_within = (np.abs(values) <= 1.1 * step).all(axis=1)
        if unit != "share":  # a lesion may be so small, but not all of them in one corner
            is_corner = (np.abs(written) <= 1.1 * step).all(axis=1)
            is_within &= (limits >= step * np.where(is_corner, 1, 2)[:, None]).all(axis=1)
        if is_within.mean() >= _MOST:
            boxes = counted(int(is_within.sum()), "box", "are")
            question = reading.question(reading.form, unit)
            return int(is_within.argmax()), f"{boxes} within {step:g} px: {question}"
    return 0, ""
