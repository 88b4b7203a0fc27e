"""The one check of boxes, wherever they come from: label files, tables, predictions or Python.

A box that cannot be used never vanishes silently: without its box, an image with a lesion would
look like one without. Where a tenth of the boxes cannot be used, the file was misread: all other
forms and units are tried, and the error asks about those by which the boxes would fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import plain_name
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase

BoxForm = Literal["xyxy", "xywh", "cxcywh"]
"""Meaning of a box's four numbers: ``xyxy``, two corners; ``xywh``, left, top, width and height; or
``cxcywh``, centre, width and height."""
BoxUnit = Literal["px", "share", "percent"]
"""Unit of these numbers: px, shares of the image's sides (0 to 1), or per cent of them."""
FORMS: tuple[BoxForm, ...] = get_args(BoxForm)
UNITS: tuple[BoxUnit, ...] = get_args(BoxUnit)
MANY = 0.1
"""Share of wrong boxes from which a column was probably misread, and not just single rows wrong."""
_FORM_TEXTS = {
    "xyxy": "corners x1, y1, x2, y2",
    "xywh": "x, y, width and height",
    "cxcywh": "x and y of the centre, width and height",
}
_UNIT_TEXTS = {"px": "px", "share": "shares of the image's size", "percent": "per cent of it"}
_FORM_QUESTIONS = {"xyxy": "corners", "xywh": "widths and heights", "cxcywh": "centres"}
_UNIT_QUESTIONS = {"px": "pixels", "share": "shares of the image's size", "percent": "per cent"}
_MOST = 0.9  # share of the boxes that must fit another reading before it is suggested
_CUT_SHARE = 0.01  # share of the side by which a true box may pass the border, and is cut
_CUT_PX = 3.0  # px by which a true box may pass the border, and is cut
_FAR = 0.1  # a predicted box is far outside if it passes the border by more than this share
_ROUNDING = 0.01  # px by which edges pass the border by rounding
_FEWEST = 10  # in fewer boxes the pattern of corners may be chance
_TOGETHER = 0.7  # correlation of the first and second numbers from which they are two corners
_APART = 0.5  # correlation below which the second numbers are sizes


@dataclass(frozen=True)
class BoxReading:
    """How the boxes of a source are read, and how the user answers a question about that.

    Attributes:
        form: Meaning of the four numbers.
        unit: Their unit.
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
    """Convert boxes to corners in px, in the order in which they are written.

    Args:
        values: Four numbers of each box, shape ``(N, 4)``.
        form: Meaning of the numbers.
        unit: Their unit.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.

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
    return corners * np.hstack([sizes, sizes]) * (0.01 if unit == "percent" else 1.0)


def values_of(corners: np.ndarray, form: BoxForm) -> np.ndarray:
    """Return the four numbers in a form of boxes that are given as corners, shape ``(N, 4)``."""
    first, second = corners[:, :2], corners[:, 2:]
    if form == "xywh":
        return np.hstack([first, second - first])
    if form == "cxcywh":
        return np.hstack([(first + second) / 2, second - first])
    return corners


def reread(
    corners: np.ndarray, reading: BoxReading, form: BoxForm | None, unit: BoxUnit | None
) -> tuple[np.ndarray, BoxReading]:
    """Return corners and their reading as the user says that the boxes are written.

    Args:
        corners: Edges as they were read in the form of `reading`, in the unit of the source,
            shape ``(N, 4)``.
        reading: How they were read.
        form: Form that the user states; None without.
        unit: Unit that the user states; None without.
    """
    if form is None and unit is None:
        return corners, reading
    new_form = form or reading.form
    values = values_of(corners, reading.form)
    unknown = np.full((len(values), 2), np.nan)
    affirmed = replace(reading, form=new_form, unit=unit or reading.unit, affirmed=True)
    return corners_of(values, new_form, "px", unknown), affirmed


def sorted_corners(corners: np.ndarray) -> np.ndarray:
    """Return corners with the upper left one first, shape ``(N, 4)``; NaN stays."""
    first, second = corners[:, :2], corners[:, 2:]
    return np.hstack([np.minimum(first, second), np.maximum(first, second)])


def cut_to_images(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cut true boxes that pass the border of their image by at most 1 % of a side or 3 px.

    Example:
        >>> cut_to_images(np.array([[-2.0, 5, 60, 90]]), np.array([[200.0, 89.0]])).tolist()
        [[0.0, 5.0, 60.0, 89.0]]
    """
    limits = np.hstack([np.zeros_like(sizes), sizes])
    slack = np.fmax(_CUT_SHARE * sizes, _CUT_PX)
    slack = np.hstack([slack, slack])
    low = np.where((corners < 0) & (corners >= -slack), 0.0, corners)
    over = corners - limits
    is_high = (over > 0) & (over <= slack) & np.array([False, False, True, True])
    cut: np.ndarray = np.where(is_high, limits, low)
    return cut


def cut_boxes(boxes: pd.DataFrame, sizes: np.ndarray) -> tuple[pd.DataFrame, str]:
    """Cut the boxes of a table to their images, as `cut_to_images` does.

    Args:
        boxes: Table of N boxes with ``x1, y1, x2, y2`` (px).
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.

    Returns:
        The table, and a sentence with the number of boxes that were cut by more than rounding;
        empty if there are none.
    """
    corners = boxes[EDGES].to_numpy(np.float64)
    cut = cut_to_images(corners, sizes)
    n_cut = int((np.abs(cut - corners) > _ROUNDING).any(axis=1).sum())
    note = ""
    if n_cut:
        note = (
            f"{counted(n_cut, 'box')} left the image by at most {_CUT_SHARE:.0%} of a side or "
            f"{_CUT_PX:g} px, and {'was' if n_cut == 1 else 'were'} cut at its border"
        )
    return boxes.assign(**dict(zip(EDGES, cut.T, strict=True))), note


def box_faults(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return why each true box cannot be used; empty texts for boxes that can.

    Args:
        corners: Edges ``x1, y1, x2, y2``, px, shape ``(N, 4)``.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.

    Example:
        >>> corners = np.array([[1.0, 1, 5, 5], [1, 1, 1, 5], [1, 1, 500, 5]])
        >>> box_faults(corners, np.full((3, 2), 100.0)).tolist()
        ['', 'box of zero or negative size', 'box outside the image: reaches 500 of 100 px']
    """
    corners = np.where(np.isfinite(corners), corners, np.nan)
    cut = cut_to_images(corners, sizes)
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

    Corners in any order are sorted. Below a tenth, wrong boxes are single mistakes. The boxes of
    one image alone are no tenth, unless they are all boxes.

    Args:
        values: Four numbers of each box, shape ``(N, 4)``; NaN for what is no number.
        reading: How they are read.
        sizes: Width and height of the image of each box, px, shape ``(N, 2)``; NaN if unknown.
        images: Id of the image of each box.
        unread: Image and reason of each further box, of which not even numbers could be read.

    Raises:
        InputError: A tenth or more of the boxes cannot be used, or they are probably in another
            form or unit. The message asks about that one.
    """
    where = reading.where
    values = np.where(np.isfinite(values), values, np.nan)
    written = corners_of(values, reading.form, reading.unit, sizes)
    corners, n_sorted = _with_sorted(written, reading.form, sizes)
    faults = box_faults(corners, sizes)
    is_faulty = faults != ""
    n_boxes = len(values) + len(unread)
    n_faulty = int(is_faulty.sum()) + len(unread)
    wrong_images = {*np.asarray(images, dtype=object)[is_faulty], *(image for image, _ in unread)}
    is_many = n_faulty >= MANY * n_boxes and (len(wrong_images) > 1 or n_faulty == n_boxes > 0)
    counts = f"{counted(n_faulty, 'box')} of {n_boxes:,} cannot be used"
    if is_many and len(unread) >= MANY * n_boxes:
        image, reason = unread[0]
        raise InputError(f"{where}: {image}: {reason} ({counts}); correct them")
    if not len(values):
        return CheckedBoxes(corners, faults)
    if is_many:
        row = int(is_faulty.argmax())
        question = _other_reading(values, reading, sizes) or "correct them"
        raise InputError(
            f"{_row_text(values, reading, images, row)}: {faults[row]} ({counts}): {question}"
        )
    row, question = _doubt(values, written, reading, sizes)
    if question:
        raise InputError(f"{_row_text(values, reading, images, row)}: {question}")
    notes = []
    if n_sorted:
        text = "boxes were drawn from another corner than the upper left: corners are sorted"
        notes.append(counted_phrase(n_sorted, text))
    return CheckedBoxes(corners, faults, tuple(notes))


def _with_sorted(corners: np.ndarray, form: BoxForm, sizes: np.ndarray) -> tuple[np.ndarray, int]:
    """Sort the corners of boxes that then fit their image, and return the number of these boxes."""
    if form == "cxcywh":
        return corners, 0
    ordered = sorted_corners(corners)
    is_backwards = (corners[:, :2] > corners[:, 2:]).any(axis=1)
    fits = is_backwards & (box_faults(ordered, sizes) == "")
    return np.where(fits[:, None], ordered, corners), int(fits.sum())


def _row_text(values: np.ndarray, reading: BoxReading, images: Sequence[str], row: int) -> str:
    numbers = ", ".join(f"{value:g}" for value in values[row])
    return (
        f"{reading.where}: image {images[row]!r}: box [{numbers}], read as "
        f"{_FORM_TEXTS[reading.form]} in {_UNIT_TEXTS[reading.unit]}"
    )


def _other_reading(values: np.ndarray, reading: BoxReading, sizes: np.ndarray) -> str:
    """Ask about the readings by which nearly all boxes would lie in their images; "" without."""
    if reading.affirmed:
        return ""
    fitting = _fitting_readings(values, reading, sizes)
    if fitting:
        return _questions(reading, fitting)
    corners = corners_of(values, reading.form, reading.unit, sizes)
    if (box_faults(corners, np.full_like(sizes, np.nan)) == "").mean() >= _MOST:
        return "are these px of a larger image? Give px of the original image"
    return ""


def _fitting_readings(
    values: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> list[tuple[BoxForm, BoxUnit]]:
    """Return the other readings by which nearly all boxes would fit, the nearest first."""
    fitting = []
    for form, unit in product(FORMS, UNITS):
        if (form, unit) == (reading.form, reading.unit):
            continue
        if unit != "px" and np.isnan(sizes).all():
            continue
        corners = corners_of(values, form, unit, sizes)
        sides = np.nan_to_num(corners[:, 2:] - corners[:, :2])
        is_tiny = (sides <= 1.1).all(axis=1).mean() > _MOST
        if not is_tiny and (box_faults(corners, sizes) == "").mean() >= _MOST:
            fitting.append((form, unit))
    return sorted(fitting, key=partial(_distance, reading))


def _distance(reading: BoxReading, other: tuple[BoxForm, BoxUnit]) -> tuple[int, bool]:
    """Return in how much another reading differs; other forms are nearer than other units."""
    form, unit = other
    return (form != reading.form) + (unit != reading.unit), unit != reading.unit


def _questions(reading: BoxReading, fitting: list[tuple[BoxForm, BoxUnit]]) -> str:
    """Ask about the nearest of the other readings, two if they are as near."""
    first = _distance(reading, fitting[0])
    nearest = [other for other in fitting if _distance(reading, other) == first]
    return ". Or ".join(reading.question(*other) for other in nearest[:2])


def _doubt(
    values: np.ndarray, written: np.ndarray, reading: BoxReading, sizes: np.ndarray
) -> tuple[int, str]:
    """Ask about boxes that can all be used, and are probably meant otherwise.

    Returns:
        Row of an example, and the question; "" without doubt.
    """
    if reading.affirmed:
        return 0, ""
    is_within = (np.abs(written) <= 1 + _FAR).all(axis=1)
    if reading.unit == "px" and is_within.mean() >= _MOST:
        verb = "lies" if is_within.sum() == 1 else "lie"
        question = reading.question(reading.form, "share")
        boxes = counted(int(is_within.sum()), "box", verb)
        return int(is_within.argmax()), f"{boxes} within 1 px: {question}"
    others = _fitting_readings(values, reading, sizes)
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
    answer = reading.answers.get(reading.form, f"say --columns box_form={reading.form}")
    return int(is_larger.argmax()), (
        "in nearly every box the third number exceeds the first, and the fourth the second: "
        f"{reading.question('xyxy', reading.unit)}; if not, {answer}"
    )


def _correlations(values: np.ndarray) -> list[float]:
    """Return how the second numbers of boxes follow the first, in x and y; NaN if they are equal.

    Two corners of a box move together. A width says nothing about where its box begins.
    """
    pairs = sorted_corners(values)
    found = []
    for axis in range(2):
        first, second = pairs[:, axis], pairs[:, axis + 2]
        varies = len(values) > 2 and np.ptp(first) > 0 and np.ptp(second) > 0
        found.append(float(np.corrcoef(first, second)[0, 1]) if varies else np.nan)
    return found


def _are_two_corners(values: np.ndarray) -> bool:
    return len(values) >= _FEWEST // 2 and all(
        correlation >= _TOGETHER for correlation in _correlations(values)
    )


def _are_sizes(values: np.ndarray) -> bool:
    return any(correlation < _APART for correlation in _correlations(values))


def check_predictions(
    table: pd.DataFrame, reading: BoxReading, sizes: np.ndarray
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Check predicted boxes, which may pass the border of their image: they are clipped later.

    Args:
        table: Table of N boxes with ``image_id`` and the edges ``x1, y1, x2, y2`` (px) as they were
            read. An optional column ``place`` says where each row is in its file.
        reading: How the boxes were read. `reading.unit` says what they were before.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.

    Returns:
        The table with sorted corners and without boxes of zero size, which detectors make by
        clipping; and notes on both.

    Raises:
        InputError: An edge is NaN or infinite, or a tenth of the boxes has no size, lies far
            outside the image, or seems to be in another form or unit.
    """
    where = reading.where
    written = table[EDGES].to_numpy(np.float64)
    _require_finite(table, where)
    if not len(table):
        return table, ()
    values = values_of(written, reading.form)
    if reading.unit == "px":
        row, question = _doubt(values, written, reading, sizes)
        if question:
            edges = _edges_text(written[row])
            raise InputError(f"{row_text(table, row, where)}: {edges}: {question}")
    wide = sizes * (1 + _FAR)
    corners, n_sorted = _with_sorted(written, reading.form, wide)
    is_empty = ~(corners[:, :2] < corners[:, 2:]).all(axis=1)
    is_far = (corners[:, 2:] > wide).any(axis=1) | (corners[:, :2] < -_FAR * sizes).any(axis=1)
    is_out = ((corners[:, 2:] > sizes + 1) | (corners[:, :2] < -1)).any(axis=1)
    is_many = max(is_empty.mean(), is_far.mean()) >= MANY
    question = ""
    if (is_empty | is_far | is_out).mean() >= MANY:
        unscaled = values if reading.unit == "px" else _unscaled(values, sizes, reading.unit)
        fitting = [] if reading.affirmed else _fitting_readings(unscaled, reading, sizes)
        if fitting:
            question = _questions(reading, fitting)
        elif is_many and is_far.any():
            question = "are these px of a larger, resized image? Give px of the original image"
        elif is_many:
            question = "a box needs x1 < x2 and y1 < y2"
    if question:
        is_wrong: np.ndarray = np.logical_or(is_empty, is_far if is_many else is_out)  # (N,)
        row = int(is_wrong.argmax())
        fault = "has no area" if is_empty[row] else "leaves the image"
        if np.isfinite(sizes[row]).all():
            fault += " of {:g} x {:g} px".format(*sizes[row])
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(written[row])}: {fault}, as do "
            f"{counted(int(is_wrong.sum()), 'box')} of {len(table):,}: {question}"
        )
    notes = []
    if n_sorted:
        text = "corners were in another order, and are sorted"
        notes.append(f"{where}: of {counted(n_sorted, 'box')} {text}")
    checked = table.assign(**dict(zip(EDGES, corners.T, strict=True)))
    kept, note = without_empty_boxes(checked, where)
    return kept, (*notes, *([note] if note else []))


def without_empty_boxes(table: pd.DataFrame, where: str) -> tuple[pd.DataFrame, str]:
    """Leave out predicted boxes of zero width or height, which detectors make by clipping.

    Returns:
        The boxes with an area, and a note on the others, empty if there are none. If a tenth of the
        boxes is empty, the columns were probably misread: all are returned.

    Example:
        >>> boxes = pd.DataFrame({"image_id": [*"abcdefghijk"], "x1": 5, "y1": 5, "x2": 9, "y2": 9})
        >>> boxes.loc[3, "x2"] = 5
        >>> rows, note = without_empty_boxes(boxes, "boxes")
        >>> len(rows), note
        (10, "boxes: 1 box without width or height left out (first: row 3, image 'd')")
    """
    x1, y1, x2, y2 = table[EDGES].to_numpy(np.float64).T
    is_empty = ((x1 == x2) & (y1 <= y2)) | ((y1 == y2) & (x1 <= x2))
    if not is_empty.any() or is_empty.mean() >= MANY:
        return table, ""
    boxes = counted(int(is_empty.sum()), "box")
    first = row_text(table, int(is_empty.argmax()), "first")
    return table[~is_empty], f"{where}: {boxes} without width or height left out ({first})"


def require_corners(
    table: pd.DataFrame, where: str, answers: Mapping[str, str] | None = None
) -> None:
    """Check that all boxes of a table are corners in px with ``x1 < x2`` and ``y1 < y2``.

    Args:
        table: Table of N boxes with ``image_id`` and the edges ``x1, y1, x2, y2``. An optional
            column ``place`` says where each row is in its file.
        where: Name of the file or argument that holds the rows. The message starts with it.
        answers: What to do if the boxes have another form or unit, by its name.

    Example:
        >>> table = pd.DataFrame({"image_id": ["a"], "x1": [40], "y1": [5], "x2": [40], "y2": [9]})
        >>> require_corners(table, "boxes")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: boxes: row 0, image 'a': x1=40, y1=5, ...
    """
    _require_finite(table, where)
    corners = table[EDGES].to_numpy(np.float64)
    if not len(corners):
        return
    unknown = np.full((len(corners), 2), np.nan)
    reading = BoxReading(where=where, answers=answers or {})
    _, question = _doubt(corners, corners, reading, unknown)
    is_wrong = ~(corners[:, :2] < corners[:, 2:]).all(axis=1)
    if question or is_wrong.any():
        row = int(is_wrong.argmax())
        end = f"; {question}" if question else ""
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(corners[row])}; a box needs x1 < x2 and "
            f"y1 < y2 inside the image, in pixels of the original{end}"
        )


def _require_finite(table: pd.DataFrame, where: str) -> None:
    corners = table[EDGES].to_numpy(np.float64)
    is_odd = ~np.isfinite(corners).all(axis=1)
    if is_odd.any():
        row = int(is_odd.argmax())
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(corners[row])}; a box needs x1 < x2 and "
            "y1 < y2 inside the image, in pixels of the original"
        )


def _unscaled(values: np.ndarray, sizes: np.ndarray, unit: BoxUnit) -> np.ndarray:
    """Return values in px as the file states them, in shares or per cent of the image's sides."""
    return values / np.hstack([sizes, sizes]) * (100.0 if unit == "percent" else 1.0)


def row_text(table: pd.DataFrame, row: int, where: str) -> str:
    """Return the start of a message: the names of the table, the row and the image."""
    place = table["place"].iloc[row] if "place" in table else f"row {table.index[row]}"
    image = f"image '{table['image_id'].iloc[row]}'"
    return f"{where}: {place}, {image}" if place else f"{where}: {image}"


def _edges_text(corners: np.ndarray) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(EDGES, corners, strict=True))


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


_BOX_COLUMNS = (
    "bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes", "predictionstring", "rle",
    "encodedpixels", "polygon", "polygons", "segmentation", "regionshapeattributes",
)  # fmt: skip
_NUMBER = r"-?\d+(?:\.\d*)?(?:e-?\d+)?"
_FOUR_NUMBERS = rf"[\[(]\s*{_NUMBER}(?:\s*[,;\s]\s*{_NUMBER}){{3}}\s*[\])]"
_ONLY_BOXES = rf"[\[(]?\s*{_FOUR_NUMBERS}(?:[,;\s]*{_FOUR_NUMBERS})*\s*[\])]?"


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
