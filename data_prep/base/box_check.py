"""Forms and units of boxes, and the one way from their four numbers to px of their images.

A box that cannot be used never vanishes silently: without it, an image with a lesion would look
like one without. Where a tenth of the boxes cannot be used, the file was misread: all other forms
and units are tried, and the error asks about those by which the boxes would fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES, are_scaled
from cxr_compare.data_prep.base.errors import InputError, Remedy, counted, counted_phrase

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
ORDERS = ("xyxy", "yxyx")
"""Orders of the axes: x before y, and y before x."""
_MANY = 0.1  # share of wrong boxes from which a file was probably misread
_SLACK = 0.01  # share of the side by which a true box may pass the border
_SLACK_PX = 3.0  # px by which any box may
_ROUNDING = 0.01  # px by which a box passes the border by rounding alone
_BY_CHANCE = 0.01  # chance, above which one asks, that boxes of larger images all fit a smaller one
_ENOUGH_COPIES = 20  # images whose boxes show by fitting a smaller size that they are of it
_MOST = 0.9  # share of boxes that must fit another reading before it is suggested
_FEWEST = 10  # in fewer boxes a pattern may be chance
_MUCH_LARGER = 1.5  # sides by which an image exceeds a corner in which no lesions all lie
_TEXTS = {
    "xyxy": "corners x1, y1, x2, y2",
    "xywh": "x, y, width and height",
    "cxcywh": "x and y of the centre, width and height",
    "px": "px",
    "share": "shares of the image's sides",
    "percent": "per cent of the image's sides",
    "thousandth": "numbers from 0 to 1000",
}
_PX_OF_FILES = Remedy(
    "these are px of the image file", words="correct the stated sizes, or remove them"
)
_NEEDED = "a box needs x1 < x2 and y1 < y2 inside the image, in px of the original"
_COPY = Remedy(
    "these are px of the image at another size",
    words="write that size beside each box as image_width and image_height, or give shares",
)
_COPY_OF_RESULTS = replace(
    _COPY,
    words="divide them by its sides: they are shares then, as image_width and image_height beside "
    "a box are the size of the image itself",
)
_OUTSIDE = "box outside the image"


Doubt: TypeAlias = tuple[int, str, list[Remedy]]
"""Row of a box, what is doubtful about it and others, and the ways on; no text without a doubt."""
_NO_DOUBT: Doubt = (0, "", [])


def in_columns(answers: Mapping[str, str], system: str = "") -> dict[str, Any]:
    """Return the option that says the form or unit of boxes, or of those of a system."""
    return {"columns": {f"{system}.{role}" if system else role: v for role, v in answers.items()}}


@dataclass(frozen=True)
class BoxReading:
    """Form and unit of the boxes of a source, and how the user answers a question about them.

    Attributes:
        form: Meaning of the four numbers.
        unit: Unit of the numbers.
        where: File or folder, for messages.
        stated: True if the file itself says the form, so that boxes that fit are not asked about.
        answered: True if nothing is asked: the user has answered, or each number has a name.
        has_unit: True if the user has said the unit, and the form alone may be asked about.
        may_turn: True if the user may say ``box_order=yxyx``, and has not.
        options: Returns the options of a call that say ``box_form`` or ``box_unit``; none if only
            px will do.
    """

    form: BoxForm = "xyxy"
    unit: BoxUnit = "px"
    where: str = ""
    stated: bool = False
    answered: bool = False
    has_unit: bool = False
    may_turn: bool = False
    options: Callable[[Mapping[str, str]], Mapping[str, Any]] = in_columns

    @property
    def text(self) -> str:
        """Form and unit in words."""
        return f"{_TEXTS[self.form]} in {_TEXTS[self.unit]}"

    def way(self, form: BoxForm, unit: BoxUnit, order: str = "") -> Remedy:
        """Return the way on if the boxes have another form or unit, or y before x."""
        answers = {"box_form": form, "box_unit": unit, "box_order": order}
        as_read = (self.form, self.unit, "")
        changed = {r: value for r, value in answers.items() if value not in as_read}
        names = " in ".join(_TEXTS[value] for value in changed.values() if value != order)
        when = f"these are {names}" if names else "these are as they were read"
        when += ", with y before x" if order else ""
        return Remedy(when, self.options(changed), "give px of the original image")

    def ways(self, form: BoxForm, unit: BoxUnit) -> list[Remedy]:
        """Return the way on as another form or unit, as language models write it in both orders."""
        may_turn = self.may_turn and unit == "thousandth"
        return [self.way(form, unit, order) for order in (("", "yxyx") if may_turn else ("",))]


def corners_of(numbers: np.ndarray, form: BoxForm, unit: BoxUnit, sizes: np.ndarray) -> np.ndarray:
    """Convert numbers of boxes ``(N, 4)`` to corners in px, in the order in which they are written.

    `sizes` are width and height of the image of each box, px, ``(N, 2)``; NaN if unknown.
    """
    first, second = numbers[:, :2], numbers[:, 2:]
    if form == "xywh":
        second = first + second
    elif form == "cxcywh":
        first, second = first - second / 2, first + second / 2
    corners = np.hstack([first, second])
    return corners if unit == "px" else corners * np.hstack([sizes, sizes]) / STEPS[unit]


def numbers_in_form(corners: np.ndarray, form: BoxForm) -> np.ndarray:
    """Return the numbers in a form of boxes that are given as corners, shape ``(N, 4)``."""
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


@dataclass(frozen=True)
class BoxRules:
    """Rules for true boxes, and for those that a system predicts.

    Attributes:
        slack: Share of the side by which a box may pass the border of its image, if not by 3 px.
        predicted: True for predicted boxes. Their images stay, so that a wrong box is refused, and
            one of no size is no box. A detector knows no border where nobody states a size.
        either: True if px may be of the stated size or of the file, whichever the boxes fit. True
            boxes that fit both are asked about.
        cuts: True if boxes are cut at the border.
        stretched: True if a file of another shape is a copy, too, to which boxes are scaled.
        least: Length in px that one side of a box at least has, if it is written in px.
    """

    slack: float = _SLACK
    predicted: bool = False
    either: bool = False
    cuts: bool = True
    stretched: bool = False
    least: float = 0.0


TRUE_BOXES = BoxRules(least=1.0)
PREDICTED_BOXES = BoxRules(0.1, predicted=True, either=True)


@dataclass(frozen=True)
class FittedBoxes:
    """Boxes in px of their images.

    Attributes:
        corners: Edges ``x1, y1, x2, y2`` in px of the image file, shape ``(N, 4)``.
        faults: Why each box cannot be used, shape ``(N,)``; empty texts for boxes that can.
        is_copy: True for boxes that were scaled to a file of another size, shape ``(N,)``.
        notes: What was changed, one sentence each.
    """

    corners: np.ndarray
    faults: np.ndarray
    is_copy: np.ndarray
    notes: list[str]


def fit(
    numbers: np.ndarray,
    reading: BoxReading,
    rows: pd.DataFrame,
    stated: np.ndarray,
    files: np.ndarray,
    rules: BoxRules = TRUE_BOXES,
    unread: Sequence[tuple[str, InputError]] = (),
) -> FittedBoxes:
    """Convert the four numbers of boxes to px of their image files, and say which cannot be used.

    `numbers` are those of each box, ``(N, 4)``, NaN for what is no number. `rows` has the
    ``image_id`` of each, and its ``position`` where messages name one. `stated` is the size that
    each box is of, and `files` that of its file: width and height in px, ``(N, 2)``, NaN if
    unknown. `unread` has the image of each further box, of which not even numbers could be read,
    and why.

    If a tenth of the boxes cannot be used, or if they are probably in another form or unit or of
    another size, an `InputError` asks about that one. True boxes of one image alone are no tenth,
    unless they are all boxes.
    """
    are_measured = bool(np.isfinite(files).all())
    # Where one of both sizes is unknown, nothing speaks against the other.
    files = np.where(np.isfinite(files), files, stated)
    sizes = np.where(np.isfinite(stated), stated, files)
    boxes = _Boxes(numbers, reading, rows, sizes, files, rules, are_measured)
    notes: list[str] = []
    # Px may be of the stated size or of the file: tables seldom say which, so the boxes tell it.
    if rules.either and reading.unit == "px" and boxes.is_other.any():
        boxes, note = boxes.of_fitting_size()
        notes += [note] if rules.predicted or not boxes.is_copy.any() else []  # these are scaled
    # Asked before boxes are scaled and cut, after which those of a wrong form or unit look usable.
    if len(numbers) + len(unread):
        boxes.require_understood(unread)
    corners, is_sorted = boxes.sorted_corners
    if is_sorted.any():
        text = "boxes were drawn from another corner than the upper left: corners are sorted"
        notes.append(counted_phrase(int(is_sorted.sum()), text))
    faults = boxes.faults
    if rules.predicted:
        faults, empty = boxes.without_size()
        notes += empty
    # An image of another shape than stated was cropped or padded, so no factor leads to its px.
    is_copy, is_unlike = boxes.is_copy, boxes.is_other & ~boxes.is_copy
    if is_unlike.any():
        line = boxes.unlike_line(is_unlike)
        if is_unlike.all():
            raise InputError(f"{reading.where}: {line}")
        notes.append(line)
    for row in np.flatnonzero(is_unlike & (faults == "")):
        faults[row] = misfit(boxes.sizes[row], files[row])
    if is_copy.any():
        corners = np.where(is_copy[:, None], corners * np.tile(files / boxes.sizes, 2), corners)
        notes += [] if rules.predicted else [boxes.scaled_line()]
    # Cut last, in px of the file: where a box passes the border is known only there.
    if rules.cuts:
        cut = np.where((faults == "")[:, None], _cut(corners, files), corners)
        n_cut = int((np.abs(cut - corners) > _ROUNDING).any(axis=1).sum())
        corners = cut
        if n_cut:
            notes.append(f"{counted(n_cut, 'box')} reached beyond their image and were clipped")
    return FittedBoxes(corners, faults, is_copy, notes)


def _cut(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cut boxes at the border of their image, where its size is known."""
    return np.clip(corners, 0, np.tile(np.nan_to_num(sizes, nan=np.inf), 2))


def _faults(corners: np.ndarray, sizes: np.ndarray, slack: float = _SLACK) -> np.ndarray:
    """Return why each box cannot be used; empty texts for boxes that can."""
    most = np.fmax(slack * sizes, _SLACK_PX)
    cut = _cut(corners, sizes)
    is_outside = (corners < -np.hstack([most, most])).any(axis=1)
    is_outside |= (corners[:, 2:] > sizes + most).any(axis=1)
    is_outside |= ~(cut[:, :2] < cut[:, 2:]).all(axis=1)
    reasons = np.full(len(corners), "", dtype=object)
    reasons[is_outside] = _OUTSIDE
    reasons[~(corners[:, :2] < corners[:, 2:]).all(axis=1)] = "box of zero or negative size"
    reasons[~np.isfinite(corners).all(axis=1)] = "box with a missing or infinite number"
    return reasons


def size_text(size: np.ndarray) -> str:
    """Return width and height in words."""
    width, height = size
    return f"{width:g} x {height:g} px"


def misfit(stated: np.ndarray, file: np.ndarray) -> str:
    """Return why an image is left out whose labels are of another size than its file."""
    return f"labels are of {size_text(stated)}, the image has {size_text(file)}"


def row_text(rows: pd.DataFrame, row: int, where: str) -> str:
    """Return the start of a message: name of the table, position of a row, and its image."""
    position = f"{rows['position'].iloc[row]}, " if "position" in rows else ""
    return f"{where}: {position}image '{rows['image_id'].iloc[row]}'"


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes of which `fit` says what they are; `sizes` are those that they are taken to be of.

    They `are_measured` if the sizes of all files are known.
    """

    numbers: np.ndarray
    reading: BoxReading
    rows: pd.DataFrame
    sizes: np.ndarray
    files: np.ndarray
    rules: BoxRules
    are_measured: bool

    @cached_property
    def corners(self) -> np.ndarray:
        """Corners in px, in the order in which they are written."""
        return corners_of(self.numbers, self.reading.form, self.reading.unit, self.sizes)

    @cached_property
    def borders(self) -> np.ndarray:
        """Size of the image of each box, which is endless if a detector does not know it."""
        return np.nan_to_num(self.sizes, nan=np.inf) if self.rules.predicted else self.sizes

    @cached_property
    def sorted_corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners, sorted where boxes then fit their image, and True for those that were not."""
        first, second = self.corners[:, :2], self.corners[:, 2:]
        ordered = np.hstack([np.minimum(first, second), np.maximum(first, second)])
        is_sorted = (first > second).any(axis=1) & (self.reading.form != "cxcywh")
        if not is_sorted.any():
            return self.corners, np.zeros(len(first), dtype=bool)
        is_sorted &= _faults(ordered, self.borders, self.rules.slack) == ""
        return np.where(is_sorted[:, None], ordered, self.corners), is_sorted

    @cached_property
    def faults(self) -> np.ndarray:
        """Reason why each box cannot be used; empty texts for boxes that can."""
        corners, _ = self.sorted_corners
        faults = _faults(corners, self.borders, self.rules.slack)
        if self.reading.unit == "px":  # shares are of an image of any size
            is_tiny = (corners[:, 2:] - corners[:, :2] < self.rules.least).all(axis=1)
            faults[is_tiny & (faults == "")] = f"box of less than {self.rules.least:g} px"
        return faults

    @cached_property
    def is_other(self) -> np.ndarray:
        """True for boxes that are of another size than the file."""
        return np.isfinite(self.sizes).all(axis=1) & (self.sizes != self.files).any(axis=1)

    @cached_property
    def is_copy(self) -> np.ndarray:
        """True for boxes whose file is a copy of another size."""
        return self.is_other if self.rules.stretched else are_scaled(self.sizes, self.files)

    @property
    def size_name(self) -> str:
        """Meaning of the size that boxes are taken to be of, if it is not that of the file."""
        is_published = self.rules.either and not self.rules.predicted
        return "size of the published images" if is_published else "size that the labels state"

    def of_fitting_size(self) -> tuple[_Boxes, str]:
        """Return the boxes as px of the files or of the stated sizes, and which of them they fit.

        Predicted boxes that fit both are of the smaller one, as boxes of the larger would not all
        lie in its corner; InputError if they might by chance.
        """
        by_file, other = replace(self, sizes=self.files), self.is_other
        fit_files, fit_stated = (
            (boxes.faults[other] != "").mean() < _MANY for boxes in (by_file, self)
        )
        row = int(other.argmax())
        if fit_files and fit_stated:
            areas = [sizes[other].prod(axis=1).sum() for sizes in (self.files, self.sizes)]
            n_images = self.rows["image_id"][other].nunique()
            by_chance = (min(areas) / max(areas)) ** n_images > _BY_CHANCE
            if by_chance or not self.rules.predicted:
                raise InputError(
                    f"{row_text(self.rows, row, self.reading.where)}: are the boxes px of the "
                    f"image file ({size_text(self.files[row])}), or of the {self.size_name} "
                    f"({size_text(self.sizes[row])})? They fit both; write image_width and "
                    "image_height beside each box, or give shares"
                )
            fit_stated = areas[1] < areas[0]
        chosen = self if fit_stated else by_file
        name = self.size_name if fit_stated else "image files"
        size = size_text(chosen.sizes[row])
        return chosen, f"the boxes are taken as px of the {name} ({size}), into which they fit"

    def require_understood(self, unread: Sequence[tuple[str, InputError]]) -> None:
        """Refuse boxes of which a tenth cannot be used, or which are probably meant otherwise."""
        reading, faults = self.reading, self.faults
        if self.rules.predicted and not reading.answered:
            misfits = _faults(self.sorted_corners[0], self.borders)
            if (misfits != "").mean() >= _MANY and self.other_readings():
                faults = misfits
        wrong = faults != ""
        n_boxes, n_wrong = len(wrong) + len(unread), int(wrong.sum()) + len(unread)
        of_images = {*self.rows["image_id"][wrong], *(image_id for image_id, _ in unread)}
        is_spread = self.rules.predicted or n_wrong == n_boxes or len(of_images) > 1
        are_many = n_wrong >= _MANY * n_boxes and is_spread
        count = f"{counted(n_wrong, 'box')} of {n_boxes:,} cannot be used"
        if are_many and len(unread) >= _MANY * n_boxes:
            image_id, error = unread[0]
            ways = error.remedies or [Remedy(words="correct them")]
            raise InputError(f"{reading.where}: {image_id}: {error.problem} ({count})", ways)
        if are_many:
            row = int(wrong.argmax())
            raise self.refused(row, f"{faults[row]} ({count})", self.other_ways())
        row, doubt, ways = _NO_DOUBT if reading.answered else self.doubt()
        if doubt:
            raise self.refused(row, doubt, ways)

    def without_size(self) -> tuple[np.ndarray, list[str]]:
        """Return predicted boxes of no size as faults, with a note; refuse others that are lost."""
        corners = self.sorted_corners[0]
        faults = _faults(corners, self.borders, np.inf)
        if not self.rules.cuts:
            faults[faults == _OUTSIDE] = ""
        is_empty = (corners[:, :2] <= corners[:, 2:]).all(axis=1) & (faults != "")
        is_empty &= (corners[:, :2] == corners[:, 2:]).any(axis=1)
        is_lost = (faults != "") & ~is_empty
        if is_lost.any():
            row = int(is_lost.argmax())
            raise self.refused(row, f"{faults[row]}; {_NEEDED}")
        if not is_empty.any():
            return faults, []
        first = row_text(self.rows, int(is_empty.argmax()), "first")
        n_empty = counted(int(is_empty.sum()), "box")
        return faults, [f"{n_empty} without width or height left out ({first})"]

    def refused(self, row: int, problem: str, ways: Sequence[Remedy] = ()) -> InputError:
        """Return the error about a box, with its numbers and what they were taken for."""
        names = [f"{edge}=" for edge in EDGES] if self.reading.form == "xyxy" else [""] * 4
        pairs = zip(names, self.numbers[row], strict=True)
        numbers = ", ".join(f"{name}{number:g}" for name, number in pairs)
        if problem.startswith(_OUTSIDE) and np.isfinite(self.sizes[row]).all():
            problem = problem.replace(_OUTSIDE, f"{_OUTSIDE} of {size_text(self.sizes[row])}", 1)
        return InputError(
            f"{row_text(self.rows, row, self.reading.where)}: box [{numbers}], read as "
            f"{self.reading.text}: {problem}",
            ways,
        )

    def unlike_line(self, is_unlike: np.ndarray) -> str:
        """Return what to do about boxes on images of another shape than the labels state."""
        row = int(is_unlike.argmax())
        (width, height), (own_width, own_height) = self.sizes[row], self.files[row]
        images = self.rows["image_id"]
        text = (
            f"images have another shape than the {self.size_name}, and their boxes are not used: "
            f"'{images.iloc[row]}' has {size_text(self.files[row])}, not "
            f"{size_text(self.sizes[row])}; state its own size, and if it was stretched multiply "
            f"x by {own_width:g} / {width:g} and y by {own_height:g} / {height:g}"
        )
        return counted_phrase(images[is_unlike].nunique(), text)

    def scaled_line(self) -> str:
        """Return what was done to boxes on files that are copies of the stated size."""
        row, images = int(self.is_copy.argmax()), self.rows["image_id"]
        text = (
            f"images have boxes of another size than the file (image '{images.iloc[row]}': "
            f"{size_text(self.files[row])}, the labels are of {size_text(self.sizes[row])}): these "
            "are taken as copies that were resized without padding, and their boxes were scaled"
        )
        return counted_phrase(images[self.is_copy].nunique(), text)

    def other_readings(self) -> list[tuple[BoxForm, BoxUnit]]:
        """Return the other readings by which nearly all boxes would fit, the nearest first."""
        reading, fitting = self.reading, []
        numbers = np.where(np.isfinite(self.numbers), self.numbers, np.nan)  # inf - inf would warn
        # Smaller numbers are px of a slightly larger image, not thousandths in one corner.
        most = min(500, 2 * np.nan_to_num(self.sizes).max())
        are_small = np.nan_to_num(self.numbers).max() < most
        for form, unit in product(FORMS, UNITS):
            n_changes = (form != reading.form) + (unit != reading.unit)
            if n_changes == 0 or (n_changes > 1 and len(self.numbers) < _FEWEST):
                continue
            if reading.has_unit and unit != reading.unit:
                continue
            if unit == "thousandth" and are_small:
                continue
            corners = corners_of(numbers, form, unit, self.sizes)
            is_tiny = (corners[:, 2:] - corners[:, :2] <= 1.1).all(axis=1)
            fits = (_faults(corners, self.sizes) == "") & ~is_tiny
            if fits.mean() >= _MOST:
                fitting.append((n_changes, unit != reading.unit, form, unit))
        return [(form, unit) for *_, form, unit in sorted(fitting, key=lambda other: other[:2])]

    def other_ways(self) -> list[Remedy]:
        """Return the nearest other readings of boxes that cannot be used, and what is needed."""
        ways = []
        are_px = self.reading.unit == "px" and not self.rules.predicted
        fit_files = (_faults(self.corners, self.files) == "").mean() >= _MOST
        if are_px and fit_files and self.is_other.any():
            ways.append(_PX_OF_FILES)
        others = [] if self.reading.answered else self.other_readings()[:2]
        turned = replace(self, numbers=self.numbers[:, [1, 0, 3, 2]])
        if self.reading.may_turn and (turned.faults == "").mean() >= _MOST:
            ways.append(self.reading.way(self.reading.form, self.reading.unit, "yxyx"))
        ways += [way for other in others for way in self.reading.ways(*other)]
        if are_px and not self.is_other.any() and (self.faults == _OUTSIDE).any():
            # Numbers up to 1000 are more often px of images of 1024 px.
            units = [unit for _, unit in others]
            at = units.index("thousandth") if "thousandth" in units else len(ways)
            ways.insert(at, _COPY)
        return [*ways, Remedy("none of these" if ways else "", words=f"correct them: {_NEEDED}")]

    def doubt(self) -> Doubt:
        """Ask about boxes that can all be used, and are probably meant otherwise.

        The form comes before the unit: numbers of another form may be small by chance.
        """
        doubts = [self._doubt_about_form()]
        if not self.reading.has_unit:
            stated = self._doubt_about_stated_size()
            if stated[1]:
                return stated
            doubts.append(self._doubt_about_unit())
            if not any(text for _, text, _ in doubts):
                doubts.append(self._doubt_about_size())
        doubts = [doubt_of_rule for doubt_of_rule in doubts if doubt_of_rule[1]]
        if not doubts:
            return _NO_DOUBT
        ways = [way for _, _, of_doubt in doubts for way in of_doubt]
        as_read = Remedy(
            f"they are {self.reading.text}", self.reading.options({"box_form": self.reading.form})
        )
        return doubts[0][0], ", and ".join(text for _, text, _ in doubts), [*ways, as_read]

    def _doubt_about_stated_size(self) -> Doubt:
        """Ask about boxes on many larger sizes that all lie in the corner which the file fills."""
        is_larger = self.is_copy & (self.sizes >= _MUCH_LARGER * self.files).all(axis=1)
        is_within = np.all(self.corners[:, 2:] <= self.files + 1, axis=1)
        n_images = self.rows["image_id"][is_larger].nunique()
        if self.reading.unit != "px" or n_images < _ENOUGH_COPIES or not is_within[is_larger].all():
            return _NO_DOUBT
        row = int(is_larger.argmax())
        as_stated = Remedy("they are of the stated size", self.reading.options({"box_unit": "px"}))
        text = (
            f"the labels state {size_text(self.sizes[row])}, and all boxes of {n_images} such "
            f"images fit into the {size_text(self.files[row])} of the image"
        )
        return row, text, [_PX_OF_FILES, as_stated]

    def _doubt_about_form(self) -> Doubt:
        doubtful, text, forms = self._doubted_forms()
        if not forms:
            return _NO_DOUBT
        boxes = f"of {counted(int(doubtful.sum()), 'box')} of {len(doubtful):,}"
        ways = [self.reading.way(form, self.reading.unit) for form in forms]
        return int(doubtful.argmax()), f"{boxes} {text}", ways

    def _doubted_forms(self) -> tuple[np.ndarray, str, list[BoxForm]]:
        """Return the boxes that the form hardly allows, why, and the other forms that fit."""
        numbers, reading = self.numbers, self.reading
        first, second = numbers[:, :2], numbers[:, 2:]
        if reading.form == "xyxy":
            doubtful = np.any(first > second, axis=1)
            least = {"xywh": _MANY, "cxcywh": 0.5}  # a few may be corners of another order
            text = "the first corner is not the upper left"
        else:
            doubtful = np.all((second > first) & (first > 0), axis=1)
            least = {"xyxy": _MOST} if not (reading.stated or len(numbers) < _FEWEST) else {}
            text = "the third number exceeds the first, and the fourth the second"
        fitting = self.other_readings() if doubtful.any() and least else []
        of_unit = [form for form, unit in fitting if unit == reading.unit and form in least]
        return doubtful, text, [form for form in of_unit if doubtful.mean() >= least[form]]

    @property
    def _of_copy(self) -> Remedy:
        """Way on for boxes of copies; results that state another size are refused."""
        return _COPY_OF_RESULTS if self.rules.predicted else _COPY

    def _doubt_about_unit(self) -> Doubt:
        numbers, reading = self.numbers, self.reading
        limits = self.sizes * (0.25 if len(numbers) < _FEWEST else 0.5)
        for unit, step in STEPS.items() if reading.unit == "px" else ():
            is_within = (np.abs(numbers) <= 1.1 * step).all(axis=1)
            if unit != "share":  # a lesion may be so small, but not all of them in one corner
                is_corner = (np.abs(self.corners) <= 1.1 * step).all(axis=1)
                is_within &= (limits >= step * np.where(is_corner, 1, 2)[:, None]).all(axis=1)
            if is_within.mean() >= _MOST:
                boxes = counted(int(is_within.sum()), "box", "are")
                in_unit = replace(self, reading=replace(reading, unit=unit))
                forms = [*in_unit._doubted_forms()[2], reading.form]
                ways = [way for form in forms for way in reading.ways(form, unit)]
                ways += [self._of_copy] if unit != "share" else []
                return int(is_within.argmax()), f"{boxes} within {step:g} px", ways
        return _NO_DOUBT

    def _doubt_about_size(self) -> Doubt:
        """Ask about boxes that fill the upper left of all images, as px of smaller copies do.

        A chest has two lungs: boxes that begin near its left side do not all end far from its
        right side. Those of the aorta or of a hilus begin as far from one side as they end from
        the other. Of 9,555 boxes of RSNA and 984 of NIH, by finding, no drawn 10 images look so.
        """
        if self.reading.unit != "px" or not self.are_measured:
            return _NO_DOUBT
        n_images = self.rows["image_id"].nunique()
        shares = self.corners / np.tile(self.sizes, 2)
        n_boxes = len(np.unique(shares, axis=0))  # one box on all images says nothing of them
        if min(n_images, n_boxes) < _ENOUGH_COPIES:
            return _NO_DOUBT
        left_margin, (right, lower) = shares[:, 0].min(), shares[:, 2:].max(axis=0)
        if max(right, lower) > 1 / _MUCH_LARGER or left_margin > (1 - right) / 2:
            return _NO_DOUBT
        reach = f"{right:.0%} of the width or {lower:.0%} of the height"
        text = f"no box of {len(shares):,} passes {reach}"
        return int(shares[:, 2].argmax()), text, [self._of_copy]
