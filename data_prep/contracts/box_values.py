"""Checks of the edges of boxes, wherever boxes come from: label files, predictions or Python.

A box that cannot be used is never dropped silently: without its box, a positive image would look
like a negative one. Where many boxes are wrong, the error asks about the unit or the format in
which they seem to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import plain_name
from cxr_compare.data_prep.contracts.errors import InputError, counted

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Format of boxes: ``xyxy``, two corners; ``xywh``, left, top, width and height; or ``cxcywh``,
centre, width and height."""
MANY = 0.1
"""Share of wrong boxes from which a column was probably misread, and not just single rows wrong."""
_FAR = 0.1  # a box is far outside if it passes the border by more than this share of the side
_MOST = 0.9  # share of the boxes that must be valid in another format before it is suggested
_ROUNDING = 0.01  # px by which edges pass the border by rounding
_SLACK = 1.0  # px by which edges may pass the border, since some programs write whole numbers
_CUT_SHARE = 0.01  # share of the side by which a true box may pass the border, and is cut
_CUT_PX = 3.0  # px by which a true box may pass the border, and is cut
_FEWEST_TO_ASK = 10  # in fewer boxes the pattern of `look_like_corners` may be chance
_IN_PX = "give px of the original image, not of a resized one, and corners x2, y2"
_WIDTHS = (
    "are these x, y, width and height? Give x2 = x1 + width and y2 = y1 + height, or call the "
    'columns x, y, width, height (box_format="xywh" of cxr_compare.boxes_table)'
)
_SHARES = (
    "are these shares of the image's size? Multiply x by the width and y by the height of the "
    "image in px, or say in_shares=True to cxr_compare.boxes_table"
)
_CORNERS = "give width = x2 - x1 and height = y2 - y1, or a CSV with x1, y1, x2, y2"


@dataclass(frozen=True)
class BoxReading:
    """Format in which the boxes of a source were read, for questions about boxes that do not fit.

    Attributes:
        form: Format of the boxes in the source.
        sides: Statement that the source gives widths and heights, such as "COCO's bbox is x, y,
            width, height"; empty if it gives corners.
        in_shares: True if the source gives shares of the image's size.
        if_corners: What to do if the widths and heights are corners.
        if_widths: What to do if the second corners are widths and heights.
        where: File of the boxes, for messages; empty for the user's folder.
    """

    form: BoxFormat = "xyxy"
    sides: str = ""
    in_shares: bool = False
    if_corners: str = _CORNERS
    if_widths: str = "Write corners: x2 = x1 + width, y2 = y1 + height"
    where: str = ""


def coco_bbox(value: Any) -> Any:
    """Return the four values of a COCO ``bbox``, which some programs write as an object.

    Args:
        value: A list of four, or an object with ``x``, ``y``, ``width`` and ``height``.

    Returns:
        A list of left edge, upper edge, width and height; None if the value is of neither kind.

    Example:
        >>> coco_bbox({"x": 1, "y": 2, "width": 3, "height": 4}), coco_bbox(None)
        ([1, 2, 3, 4], None)
    """
    if isinstance(value, dict) and {"x", "y", "width", "height"} <= value.keys():
        value = [value[key] for key in ("x", "y", "width", "height")]
    is_four = isinstance(value, list | tuple) and len(value) == 4
    return list(value) if is_four else None


def coco_rotation(entry: Any) -> float:
    """Return the clockwise rotation of a COCO entry in degrees, as CVAT writes it; 0 without.

    Args:
        entry: Annotation or result. CVAT writes the angle to ``attributes.rotation``.

    Example:
        >>> coco_rotation({"attributes": {"rotation": 90.0}}), coco_rotation({})
        (90.0, 0.0)
    """
    attributes = entry.get("attributes")
    value = attributes.get("rotation") if isinstance(attributes, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) % 360 if np.isfinite(value) else 0.0


def cut_to_images(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cut true boxes that pass the border of their image by at most 1 % of a side or 3 px.

    Args:
        corners: Edges ``x1, y1, x2, y2``, px, shape ``(N, 4)``.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.

    Returns:
        The edges, shape ``(N, 4)``. Edges further outside are unchanged.

    Example:
        >>> cut_to_images(np.array([[-2.0, 5, 60, 90]]), np.array([[200.0, 89.0]])).tolist()
        [[0.0, 5.0, 60.0, 89.0]]
    """
    limits = np.hstack([np.zeros_like(sizes), sizes])
    slack = _cut_slack(sizes)
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


def _cut_slack(sizes: np.ndarray) -> np.ndarray:
    """Return the px by which each edge may pass the border, shape ``(N, 4)``."""
    slack = np.fmax(_CUT_SHARE * sizes, _CUT_PX)
    return np.hstack([slack, slack])


def box_faults(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return why each true box cannot be used; empty texts for boxes that can.

    Args:
        corners: Edges ``x1, y1, x2, y2``, px, shape ``(N, 4)``.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.

    Returns:
        Reasons, shape ``(N,)``.

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


def ask_about_boxes(
    table: pd.DataFrame,
    faults: np.ndarray,
    where: str,
    sizes: np.ndarray,
    reading: BoxReading,
    unread: list[tuple[str, str]],
) -> str:
    """Refuse the true boxes of a source if a tenth or more of them cannot be used.

    The boxes of one image alone are no tenth, unless they are all boxes: a wrong row is left out
    with its image, and a misread column is refused.

    Args:
        table: Table of N boxes with the columns ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (px).
        faults: Reasons why boxes cannot be used, as `box_faults` returns them, shape ``(N,)``.
        where: Name of the file or folder that holds the boxes. The message starts with it.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN if unknown.
        reading: Format in which the boxes were read.
        unread: Image and reason of each further box, of which not even edges could be read.

    Returns:
        A caution where all boxes fit but are probably corners; empty in most cases.

    Raises:
        InputError: A tenth or more cannot be used, or all boxes lie within 1 px. Where the values
            suggest another unit or format, the message asks about it.
    """
    is_faulty = faults != ""
    n_faulty = int(is_faulty.sum()) + len(unread)
    n_boxes = len(table) + len(unread)
    images = {*table["image_id"][is_faulty], *(image for image, _ in unread)}
    is_many = n_faulty >= MANY * n_boxes and (len(images) > 1 or n_faulty == n_boxes > 0)
    counts = f"{counted(n_faulty, 'box')} of {n_boxes:,} cannot be used"
    if is_many and len(unread) >= MANY * n_boxes:
        image, reason = unread[0]
        raise InputError(f"{where}: {image}: {reason} ({counts}); correct them")
    corners = table[EDGES].to_numpy(np.float64)
    finite = np.isfinite(corners).all(axis=1)
    rows = table[finite]
    if is_many:
        if reading.form != "xyxy":
            check_inside(
                rows,
                where,
                sizes[finite],
                sides=reading.sides,
                form=reading.form,
                in_shares=reading.in_shares,
                if_corners=reading.if_corners,
            )
        check_edges(
            rows,
            where,
            sizes=sizes[finite],
            if_widths=reading.if_widths,
            may_be_widths=reading.form == "xyxy",
        )
        check_inside(rows, where, sizes[finite])
        row = int(is_faulty.argmax())
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(corners[row])}: {faults[row]} "
            f"({counts}); correct them"
        )
    if not reading.in_shares and len(rows):
        _refuse_shares(rows, where)
    if not look_like_corners(corners, reading.form):
        return ""
    question = (
        f"{row_text(table, 0, where)}: {_edges_text(corners[0])}: each box is wider than its x and "
        f"higher than its y: are these corners? {reading.sides}: {reading.if_corners}"
    )
    if np.isnan(sizes).all():
        raise InputError(question)
    return question


def look_like_corners(corners: np.ndarray, form: BoxFormat = "xywh") -> bool:
    """Return True if boxes that were read as x, y, width and height are probably two corners.

    Of two corners, the second always exceeds the first: x2 > x1 and y2 > y1. If at least ten boxes
    are read as widths and heights, it is rare that every width exceeds its x and every height its
    y.

    Args:
        corners: Edges ``x1, y1, x2, y2`` as they were read, shape ``(N, 4)``.
        form: Format in which they were read; boxes that were read as corners are none of these.
    """
    if form == "xyxy":
        return False
    sides = corners[:, 2:] - corners[:, :2]
    first = corners[:, :2] if form == "xywh" else (corners[:, :2] + corners[:, 2:]) / 2
    is_wider = (sides > first) & (first > 0)
    return len(corners) >= _FEWEST_TO_ASK and bool(is_wider.all())


def are_widths(corners: np.ndarray, sizes: np.ndarray | None) -> bool:
    """Return True if second corners are probably widths and heights.

    A tenth of the boxes end before they begin, and nearly all are valid as widths and heights.

    Args:
        corners: Edges ``x1, y1, x2, y2`` as they were read, shape ``(N, 4)``.
        sizes: Width and height in px of the image of each box, shape ``(N, 2)``; NaN or None if
            unknown.
    """
    finite = np.isfinite(corners).all(axis=1)
    if not finite.any():
        return False
    x1, y1, x2, y2 = corners.T
    crossed = finite & ((x2 < x1) | (y2 < y1))
    as_sides = _fits(np.column_stack([x1, y1, x1 + x2, y1 + y2]), sizes)
    return bool(crossed.mean() >= MANY and as_sides[finite].mean() >= _MOST)


def check_edges(
    table: pd.DataFrame,
    where: str,
    *,
    sizes: np.ndarray | None = None,
    if_widths: str = "",
    may_be_widths: bool = True,
) -> None:
    """Check that all boxes have edges ``x1 < x2`` and ``y1 < y2`` in px.

    Args:
        table: Table with the columns ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` and N rows. An
            optional column ``place`` holds a text for each row that says where it is in its file,
            such as "line 3".
        where: Name of the file or argument that holds the rows. The message starts with it.
        sizes: Width and height in px of the image of each row, shape ``(N, 2)``; NaN where they are
            unknown. With them, the message can ask whether ``x2, y2`` are widths and heights. None
            if no size is known.
        if_widths: What to do if ``x2, y2`` are widths and heights; empty for the usual advice.
        may_be_widths: False if the source gives widths and heights, so that ``x2, y2`` are none.

    Raises:
        InputError: An edge is NaN or infinite, or a box has no positive width and height. If many
            boxes have none, the message asks whether ``x2, y2`` are width and height. Boxes that
            all lie within 1 px are refused as well, because they are shares of the image's size.

    Example:
        >>> table = pd.DataFrame({"image_id": ["a"], "x1": [40], "y1": [5], "x2": [40], "y2": [9]})
        >>> check_edges(table, "boxes")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: boxes: row 0, image 'a': x1=40, y1=5, ...
    """
    corners = table[EDGES].to_numpy(np.float64)
    if not len(corners):
        return
    _refuse_shares(table, where)
    finite = np.isfinite(corners).all(axis=1)
    x1, y1, x2, y2 = corners.T
    good = finite & (x1 < x2) & (y1 < y2)
    if good.all():
        return
    row = int(np.flatnonzero(~good)[0])
    crossed = finite & ((x2 < x1) | (y2 < y1))
    question = ""
    if may_be_widths and are_widths(corners, sizes):
        advice = f"are these widths and heights? {if_widths}" if if_widths else _WIDTHS
        question = f" ({counted(int(crossed.sum()), 'row', 'do')} not): {advice}"
    elif crossed[row] and (x1 > x2)[finite].all() and (y1 > y2)[finite].all():
        question = "; are x1, y1 and x2, y2 the wrong way round?"
    raise InputError(
        f"{row_text(table, row, where)}: {_edges_text(corners[row])}; a box needs x1 < x2 and "
        f"y1 < y2 inside the image, in pixels of the original{question}"
    )


def _refuse_shares(table: pd.DataFrame, where: str) -> None:
    """Refuse boxes in px that nearly all lie within 1 px: they are shares of the image's size."""
    corners = table[EDGES].to_numpy(np.float64)
    has_area = (corners[:, :2] < corners[:, 2:]).all(axis=1)
    is_within = has_area & (np.abs(corners) <= 1 + _FAR).all(axis=1)
    if has_area.any() and is_within.sum() >= _MOST * has_area.sum():
        row = int(is_within.argmax())
        raise InputError(
            f"{row_text(table, row, where)}: {_edges_text(corners[row])}; "
            f"{counted(int(is_within.sum()), 'box', 'are')} within 1 px: "
            f"{_SHARES}, or import YOLO files, which hold shares (cxr import)"
        )


def without_empty_boxes(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Leave out predicted boxes of zero width or height, which detectors make by clipping.

    Args:
        table: Table of predicted boxes with ``image_id``, ``x1``, ``y1``, ``x2`` and ``y2`` (px).

    Returns:
        The boxes with an area, and a note on the others, empty if there are none. If at least a
        tenth of the boxes is empty, the columns were probably misread: all are returned, so that
        `check_edges` refuses them.

    Example:
        >>> boxes = pd.DataFrame({"image_id": [*"abcdefghijk"], "x1": 5, "y1": 5, "x2": 9, "y2": 9})
        >>> boxes.loc[3, "x2"] = 5
        >>> rows, note = without_empty_boxes(boxes)
        >>> len(rows), note
        (10, "1 box without width or height left out (first: row 3, image 'd')")
    """
    x1, y1, x2, y2 = table[EDGES].to_numpy(np.float64).T
    is_empty = ((x1 == x2) & (y1 <= y2)) | ((y1 == y2) & (x1 <= x2))
    if not is_empty.any() or is_empty.mean() >= MANY:
        return table, ""
    boxes = counted(int(is_empty.sum()), "box")
    first = row_text(table, int(is_empty.argmax()), "first")
    return table[~is_empty], f"{boxes} without width or height left out ({first})"


def check_inside(
    table: pd.DataFrame,
    where: str,
    sizes: np.ndarray,
    *,
    sides: str = "",
    form: BoxFormat = "xywh",
    in_shares: bool = False,
    if_corners: str = _CORNERS,
) -> None:
    """Check that the boxes of a table lie inside their images, except for a few.

    A few boxes may pass the border of the image, because some detectors do not clip their boxes;
    they are clipped later. But if at least a tenth of all boxes pass the border by more than a
    tenth of the image's side, the boxes are in pixels of a resized image, or their corners were
    read as widths and heights.

    Args:
        table: Table of N boxes with the columns ``image_id``, ``x1``, ``y1``, ``x2`` and ``y2``
            (px). An optional column ``place`` holds a text for each row that says where it is in
            its file, such as "line 3".
        where: Name of the file or argument that holds the rows. The message starts with it.
        sizes: Width and height in px of the image of each row, shape ``(N, 2)``; NaN where they are
            unknown.
        sides: Statement that the source gives widths and heights, such as "COCO's bbox is x, y,
            width, height"; empty if the source gives corners.
        form: Format of the source if `sides` is given: ``xywh``, or ``cxcywh`` for centres.
        in_shares: True if the source gives shares of the image's size.
        if_corners: What to do if the widths and heights are corners.

    Raises:
        InputError: Many boxes reach far outside their images. If `sides` is given, it is enough
            that a tenth of the boxes pass the border by more than 1 px while nearly all boxes would
            be inside if their widths and heights were corners. The message then asks whether they
            are corners.

    Example:
        >>> table = pd.DataFrame({"image_id": ["a"], "x1": [0], "y1": [0], "x2": [90], "y2": [90]})
        >>> check_inside(table, "boxes", np.array([[100.0, 100.0]]))
    """
    corners = table[EDGES].to_numpy(np.float64)
    if not len(corners):
        return
    x1, y1, x2, y2 = corners.T
    beyond = ((corners[:, 2:] > sizes + _SLACK) | (corners[:, :2] < -_SLACK)).any(axis=1)
    far = (corners[:, 2:] > (1 + _FAR) * sizes).any(axis=1)
    far |= (corners[:, :2] < -_FAR * sizes).any(axis=1)
    first = corners[:, :2] if form == "xywh" else (corners[:, :2] + corners[:, 2:]) / 2
    as_corners = _fits(np.column_stack([first, x2 - x1, y2 - y1]), sizes)
    are_corners = bool(sides) and as_corners.mean() >= _MOST and beyond.mean() >= MANY
    if not are_corners and far.mean() < MANY:
        return
    outside = beyond if are_corners else far
    row = int(outside.argmax())
    width, height = sizes[row]
    unit = np.tile(sizes[row], 2) if in_shares else np.ones(4)
    beginning = (
        f"{row_text(table, row, where)}: {_edges_text(corners[row], unit)} reaches beyond "
        f"the image of {width:g} x {height:g} px, as {counted(int(outside.sum()), 'box')} of "
        f"{len(table):,} "
    )
    verb = "does" if outside.sum() == 1 else "do"
    if are_corners:
        raise InputError(f"{beginning}{verb}: are these corners? {sides}: {if_corners}")
    if in_shares:
        raise InputError(
            f"{beginning}{verb}: are these pixels? Shares of the image's size, 0 to 1, are "
            "expected: divide x by the width and y by the height of the image, or give a CSV with "
            "x1, y1, x2, y2 in px"
        )
    if sides:
        raise InputError(
            f"{beginning}{verb}: are these px of a larger image, or corners? {sides}, in px of the "
            f"original image; for corners {if_corners}"
        )
    raise InputError(f"{beginning}{verb}: {_IN_PX}")


def _fits(corners: np.ndarray, sizes: np.ndarray | None) -> np.ndarray:
    """Return True for boxes with x1 < x2 and y1 < y2 that lie inside their images, ``(N,)``.

    Where the size of the image is unknown, any box with x1 >= 0 and y1 >= 0 is inside.
    """
    fits = (corners[:, :2] < corners[:, 2:]).all(axis=1) & (corners[:, :2] >= -_SLACK).all(axis=1)
    if sizes is not None:
        limit = np.where(np.isnan(sizes), np.inf, sizes) + _SLACK
        fits &= (corners[:, 2:] <= limit).all(axis=1)
    return np.asarray(fits)


def row_text(table: pd.DataFrame, row: int, where: str) -> str:
    """Return the start of a message: the names of the table, the row and the image."""
    place = table["place"].iloc[row] if "place" in table else f"row {table.index[row]}"
    image = f"image '{table['image_id'].iloc[row]}'"
    return f"{where}: {place}, {image}" if place else f"{where}: {image}"


def _edges_text(corners: np.ndarray, unit: np.ndarray | float = 1.0) -> str:
    corners = corners / unit
    return ", ".join(f"{name}={value:g}" for name, value in zip(EDGES, corners, strict=True))


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

    Args:
        cells: Cells of a column as text, under the name of the column.

    Example:
        >>> are_box_texts(pd.Series(["[10, 20, 30, 40]", "[]", "[0.14, 0.14]"])).tolist()
        [True, False, False]
        >>> are_box_texts(pd.Series(["mass 0.9 10 20 30 40", ""], name="bbox")).tolist()
        [True, False]
    """
    if plain_name(str(cells.name)) in _BOX_COLUMNS:
        return cells.str.count(r"\d+(?:\.\d+)?") >= len(EDGES)
    return cells.str.strip().str.fullmatch(_ONLY_BOXES)
