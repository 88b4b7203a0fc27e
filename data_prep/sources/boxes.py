"""The one check of boxes, whatever file they come from.

A box that cannot be used never vanishes silently: without it, an image with a lesion would look like one
without. Single wrong boxes leave their image out, with the reason; where a tenth of the boxes is wrong, the
reading of the file is wrong, and the error says in which other form or unit the boxes would fit.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError, counted

Form = Literal["xyxy", "xywh", "cxcywh"]
Unit = Literal["px", "share", "percent"]
_FORMS = {
    "xyxy": "corners x1, y1, x2, y2",
    "xywh": "x, y, width and height",
    "cxcywh": "centre x and y, width and height",
}
_UNITS = {
    "px": "px",
    "share": "shares of the image's sides",
    "percent": "per cent of the image's sides",
}
MANY = 0.1  # share of wrong boxes from which the file was misread
_MOST = 0.9  # share of boxes that must fit another reading before it is suggested
_CUT_PX = 3.0  # a box may pass the border of its image by this much,
_CUT_SHARE = 0.01  # or by this share of the side, and is cut


def corners_of(values: np.ndarray, form: Form, unit: Unit, sizes: np.ndarray) -> np.ndarray:
    """Convert boxes to corners in px.

    Args:
        values: Four numbers a box in the order of `form`, shape ``(N, 4)``.
        form: Meaning of the four numbers.
        unit: Unit of the numbers.
        sizes: Width and height of each box's image, px, ``(N, 2)``; NaN if unknown.

    Example:
        >>> corners_of(np.array([[0.5, 0.5, 0.2, 0.4]]), "cxcywh", "share", np.array([[100.0, 50.0]])).tolist()
        [[40.0, 15.0, 60.0, 35.0]]
    """
    first, second = values[:, :2], values[:, 2:]
    if form == "xyxy":
        corners = np.hstack([np.minimum(first, second), np.maximum(first, second)])
    elif form == "xywh":
        corners = np.hstack([first, first + second])
    else:
        corners = np.hstack([first - second / 2, first + second / 2])
    scale = {"px": 1.0, "share": 1.0, "percent": 0.01}[unit]
    return corners * scale if unit == "px" else corners * scale * np.hstack([sizes, sizes])


def _faults(corners: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes at the border of their image, and return them with the reason why each cannot be used."""
    slack = np.fmax(_CUT_SHARE * sizes, _CUT_PX)
    slack = np.hstack([slack, slack])
    ends = np.where(np.isnan(sizes), np.inf, sizes)
    highest = np.hstack([ends, ends])
    cut = np.where((corners < 0) & (corners >= -slack), 0.0, corners)
    over = (cut > highest) & (cut <= highest + np.nan_to_num(slack, nan=0.0)) & np.isfinite(highest)
    cut = np.where(over, np.hstack([sizes, sizes]), cut)
    reasons = np.full(len(corners), "", dtype=object)
    outside = (cut < 0).any(axis=1) | (cut > highest).any(axis=1)
    for row in np.flatnonzero(outside):
        width, height = sizes[row]
        x1, y1, x2, y2 = corners[row]
        reasons[row] = (
            f"box outside the image: {x1:g}, {y1:g}, {x2:g}, {y2:g} in {width:g} x {height:g} px"
        )
    reasons[~(cut[:, :2] < cut[:, 2:]).all(axis=1) & ~outside] = "box without width or height"
    reasons[~(corners[:, :2] < corners[:, 2:]).all(axis=1)] = "box without width or height"
    reasons[~np.isfinite(corners).all(axis=1)] = "box with a number that is missing or infinite"
    return cut, reasons


def read_boxes(
    values: np.ndarray,
    form: Form,
    unit: Unit,
    sizes: np.ndarray,
    image_ids: np.ndarray,
    where: str,
    n_unread: int = 0,
    first_unread: str = "",
    notes: list[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Convert the boxes of a source to corners in px, and say which cannot be used.

    Args:
        values: Four numbers a box, ``(N, 4)``; NaN for what is no number.
        form: Meaning of the numbers.
        unit: Their unit.
        sizes: Width and height of the image of each box as labelled, px, ``(N, 2)``; NaN if unknown.
        image_ids: Image of each box.
        where: File or folder, for messages.
        n_unread: Number of further annotations that gave no four numbers at all.
        first_unread: What the first of them is.
        notes: Takes a caution about boxes that all fit and may be meant otherwise.

    Returns:
        Corners in px, and for each box the reason why it cannot be used; empty texts for good ones.

    Raises:
        InputError: A tenth or more of the boxes cannot be used.
    """
    total = len(values) + n_unread
    if n_unread and n_unread >= MANY * total:
        raise InputError(
            f"{where}: {first_unread} ({n_unread} of {counted(total, 'box')} cannot be read); correct them"
        )
    if not len(values):
        return np.zeros((0, 4)), np.zeros(0, dtype=object)
    given = corners_of(values, form, unit, sizes)
    corners, reasons = _faults(given, sizes)
    bad = reasons != ""
    n_bad = int(bad.sum()) + n_unread
    several = len(set(image_ids[bad])) > 1 or bad.all()
    others = (
        {}
        if not several and not _suspect(values, form, unit)
        else _other_readings(values, form, unit, sizes)
    )
    if n_bad >= MANY * total and several:
        row = int(bad.argmax())
        text = ", ".join(f"{v:g}" for v in values[row])
        likely = sorted(others, key=lambda o: (o[1] != unit, o[0] != form, o[0] != "xyxy"))[:2]
        ask = " or ".join(f"{_FORMS[f]} in {_UNITS[u]}" for f, u in likely)
        advice = (
            f"are these {ask}? Say so, or convert them"
            if others
            else "are these px of a copy of another size?"
        )
        raise InputError(
            f"{where}: image {image_ids[row]!r}: [{text}] read as {_FORMS[form]} in {_UNITS[unit]}: {reasons[row]}; "
            f"so are {n_bad} of {counted(total, 'box')}: {advice}"
        )
    if _suspect(values, form, unit) and ("xyxy", unit) in others:
        caution = (
            f"{where}: in every box the third number exceeds the first and the fourth the second: are these corners? "
            f"They were read as {_FORMS[form]}"
        )
        if np.isnan(sizes).all():
            raise InputError(caution)
        if notes is not None:
            notes.append(f"WARNING: {caution}")
    if unit == "px" and (np.abs(corners) <= 1.1).all() and len(values) > 1:
        raise InputError(
            f"{where}: all boxes lie within 1 px: are these shares of the image's sides?"
        )
    return corners, reasons


def _other_readings(
    values: np.ndarray, form: Form, unit: Unit, sizes: np.ndarray
) -> dict[tuple[str, str], float]:
    """Return the other readings by which nearly all boxes would lie in their images."""
    fit = {}
    for other in product(_FORMS, _UNITS):
        if other == (form, unit) or (other[1] != "px" and np.isnan(sizes).any()):
            continue
        first, second = values[:, :2], values[:, 2:]
        if other[0] == "xyxy" and not (first < second).all(axis=1).mean() >= _MOST:
            continue
        corners = corners_of(values, other[0], other[1], sizes)  # type: ignore[arg-type]
        tiny = (np.nan_to_num(corners[:, 2:] - corners[:, :2]) < 1.0).all(axis=1).mean() > _MOST
        share = float((_faults(corners, sizes)[1] == "").mean())
        if share >= _MOST and not tiny:
            fit[other] = share
    return fit


def _suspect(values: np.ndarray, form: Form, unit: Unit) -> bool:
    """Return True if widths and heights are probably second corners, though all of them fit."""
    bigger = (values[:, 2:] > values[:, :2]).all() and (values[:, :2] > 0).all()
    return form != "xyxy" and unit != "percent" and len(values) >= 10 and bool(bigger)


def turned(
    corners: np.ndarray, degrees: float, size: tuple[float, float], pivot: str = "centre"
) -> np.ndarray:
    """Return the upright box around a box that was turned clockwise about its centre or first corner.

    Example:
        >>> turned(np.array([100.0, 100, 160, 130]), 90, (200, 240)).round(6).tolist()
        [115.0, 85.0, 145.0, 145.0]
    """
    x1, y1, x2, y2 = corners
    middle = (corners[:2] + corners[2:]) / 2 if pivot == "centre" else corners[:2]
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - middle) @ matrix.T + middle
    limit = np.nan_to_num(np.array(size, dtype=float), nan=np.inf)
    return np.concatenate(
        [np.clip(points.min(axis=0), 0, limit), np.clip(points.max(axis=0), 0, limit)]
    )


def upright(corners: np.ndarray, size: tuple[float, float], orientation: int) -> np.ndarray:
    """Turn boxes of the stored pixels, ``(N, 4)``, as the EXIF orientation turns the image.

    Example:
        >>> upright(np.array([[0.0, 10, 30, 20]]), (100, 50), 6).tolist()
        [[30.0, 0.0, 40.0, 30.0]]
    """
    x1, y1, x2, y2 = corners.T
    width, height = size
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    return np.column_stack([y1, x1, y2, x2] if orientation >= 5 else [x1, y1, x2, y2])


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of pairs of boxes, ``(..., 4)``, broadcast."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(b[..., 2:] - b[..., :2], axis=-1) for b in (boxes, others)]
    whole = areas[0] + areas[1] - shared
    return np.divide(shared, whole, out=np.zeros_like(whole), where=whole > 0)
