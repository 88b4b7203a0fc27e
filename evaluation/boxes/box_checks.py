"""Checks of predicted and true boxes: what would give a figure from wrong input is refused.

The one owner of these checks: the box metrics of `cxr_compare.metrics`, ``cxr import``,
``cxr compare --truth`` and true boxes in memory all call them. A message names the table, the row,
the image and the value, and what would read the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT

MANY = 0.1
"""Share of the boxes from which on an oddity is a misread column, not a single bad row."""
_FAR = 0.1  # of the image's side: a box that reaches so far beyond it is in other pixels
_MOST = 0.9  # share of the boxes that has to fit another reading before that is asked about
_SLACK = 1.0  # px by which whole-number edges may pass the border
_PERCENT = (20.0, 100.0)  # between which the highest of scores in percent lies
_ENDING = re.compile(r"\.(?:png|jpe?g|tiff?|bmp|webp|dcm|dicom|npy|txt)$", re.IGNORECASE)
_WIDTHS = (
    "are these x, y, width and height? Give x2 = x1 + width and y2 = y1 + height, or call the "
    'columns x, y, width, height (box_format="xywh" of cxr_compare.boxes_table)'
)
_SHARES = (
    "are these shares of the image's size? Multiply x by the width and y by the height of the "
    "image in px, or say in_shares=True to cxr_compare.boxes_table"
)


def check_scores(table: pd.DataFrame, where: str) -> None:
    """Refuse scores that are no number in [0, 1].

    Args:
        table: Rows with ``image_id`` and ``score`` and, where a file has lines, ``place``.
        where: File or argument that holds the rows, for the message.

    Raises:
        InputError: A score is NaN or outside [0, 1]; of many below 0 or above 1 the message asks
            whether they are logits or percent.
    """
    scores = table["score"].to_numpy(np.float64)
    wrong = ~((scores >= 0) & (scores <= 1))
    if not wrong.any():
        return
    row = int(wrong.argmax())
    outside = scores[wrong & np.isfinite(scores)]
    question = ""
    if len(outside):
        question = "; are these logits? Apply a sigmoid, 1 / (1 + exp(-score))"
        if scores[np.isfinite(scores)].min() >= 0 and _PERCENT[0] <= outside.max() <= _PERCENT[1]:
            question = "; are these percent? Divide by 100"
    raise InputError(
        f"{_row(table, row, where)}: score={scores[row]}; scores must be numbers in [0, 1] "
        f"({counted(int(wrong.sum()), 'row', 'are')} not){question}"
    )


def check_edges(table: pd.DataFrame, where: str, *, sizes: np.ndarray | None = None) -> None:
    """Refuse boxes whose edges are not ``x1 < x2`` and ``y1 < y2`` in px.

    Args:
        table: Rows with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` and, where a file has lines,
            ``place``.
        where: File or argument that holds the rows, for the message.
        sizes: Width and height of each row's image, px, shape ``(N, 2)``; NaN where unknown.

    Raises:
        InputError: An edge is NaN or infinite; all boxes lie within 1 px, as shares of the image's
            size do; or an edge does not exceed the opposite one. Where many do not, the message
            asks whether ``x2, y2`` are width and height.
    """
    corners = table[EDGES].to_numpy(np.float64)
    if not len(corners):
        return
    finite = np.isfinite(corners).all(axis=1)
    if finite.any() and corners[finite].max() <= 1 and corners[finite].min() >= -1:
        row = int(finite.argmax())
        raise InputError(
            f"{_row(table, row, where)}: {_shown(corners[row])}; all boxes lie within 1 px: "
            f"{_SHARES}, or import YOLO files, which hold shares (cxr import)"
        )
    x1, y1, x2, y2 = corners.T
    good = finite & (x1 < x2) & (y1 < y2)
    if good.all():
        return
    row = int(np.flatnonzero(~good)[0])
    crossed = finite & ((x2 < x1) | (y2 < y1))
    as_sides = _fits(np.column_stack([x1, y1, x1 + x2, y1 + y2]), sizes)
    question = ""
    if crossed.mean() >= MANY and as_sides[finite].mean() >= _MOST:
        question = f" ({counted(int(crossed.sum()), 'row', 'do')} not): {_WIDTHS}"
    elif crossed[row] and (x1 > x2)[finite].all() and (y1 > y2)[finite].all():
        question = "; are x1, y1 and x2, y2 the wrong way round?"
    raise InputError(
        f"{_row(table, row, where)}: {_shown(corners[row])}; a box needs x1 < x2 and y1 < y2 "
        f"inside the image, in pixels of the original{question}"
    )


def check_inside(table: pd.DataFrame, where: str, sizes: np.ndarray, *, sides: str = "") -> None:
    """Refuse boxes of which many lie beyond their images: they are in other units.

    A single box beyond its image is left to be clipped. Boxes of detectors that do not clip reach
    a few px beyond; a tenth of all that reach a tenth of the image's side beyond are of a resized
    image, or have corners in the place of sides.

    Args:
        table: As of `check_edges`, edges in px.
        where: File or argument that holds the rows, for the message.
        sizes: Width and height of each row's image, px, shape ``(N, 2)``; NaN where unknown.
        sides: What says that the source holds sides, such as "COCO's bbox is x, y, width, height";
            empty where the source holds corners.

    Raises:
        InputError: Many boxes lie beyond; the message asks whether they are corners.
    """
    corners = table[EDGES].to_numpy(np.float64)
    if not len(corners):
        return
    x1, y1, x2, y2 = corners.T
    beyond = ((corners[:, 2:] > sizes + _SLACK) | (corners[:, :2] < -_SLACK)).any(axis=1)
    far = (corners[:, 2:] > (1 + _FAR) * sizes).any(axis=1)
    far |= (corners[:, :2] < -_FAR * sizes).any(axis=1)
    as_corners = _fits(np.column_stack([x1, y1, x2 - x1, y2 - y1]), sizes)
    are_corners = bool(sides) and as_corners.mean() >= _MOST and beyond.mean() >= MANY
    if not are_corners and far.mean() < MANY:
        return
    outside = beyond if are_corners else far
    row = int(outside.argmax())
    width, height = sizes[row]
    begun = (
        f"{_row(table, row, where)}: {_shown(corners[row])} reaches beyond the image of "
        f"{width:g} x {height:g} px, as {counted(int(outside.sum()), 'box')} of {len(table):,} "
    )
    command = "does" if outside.sum() == 1 else "do"
    if sides:
        raise InputError(
            f"{begun}{command}: are these corners? {sides}: give width = x2 - x1 and height = y2 - "
            "y1, or a CSV with x1, y1, x2, y2"
        )
    raise InputError(
        f"{begun}{command}: give px of the original image, not of a resized one, and corners x2, y2"
    )


def check_shares(table: pd.DataFrame, where: str) -> None:
    """Refuse pixels in the place of shares of the image's size, as YOLO files hold them.

    Args:
        table: As of `check_edges`, edges in shares of the image's size.
        where: File or folder that holds the rows, for the message.

    Raises:
        InputError: A tenth of the boxes or more reach far beyond 1.
    """
    corners = table[EDGES].to_numpy(np.float64)
    far = ((corners > 1 + _FAR) | (corners < -_FAR)).any(axis=1)
    if len(corners) and far.mean() >= MANY:
        row = int(far.argmax())
        raise InputError(
            f"{_row(table, row, where)}: {_shown(corners[row])} reaches far beyond 1; YOLO lines "
            "are shares of the image's size: are these pixels? Divide x by the width and y by the "
            "height of the image, or give a CSV with x1, y1, x2, y2 in px"
        )


def check_names(names: pd.Series, ids: pd.Series, where: str, places: pd.Series) -> None:
    """Refuse rows that call one image by two names, such as ``a.png`` and ``a``.

    Args:
        names: What each row calls its image.
        ids: Which image that is.
        where: File that holds the rows, for the message.
        places: Row, entry or line of each row.

    Raises:
        InputError: Two names are of one image, whose boxes would count twice.
    """
    if (names.to_numpy() == ids.to_numpy()).all():
        return
    pairs = pd.DataFrame({"name": names.astype(TEXT), "id": ids.astype(TEXT)}).drop_duplicates()
    second = pairs.duplicated("id")
    if not second.any():
        return
    row = pairs.index[int(second.argmax())]
    image, name = ids[row], names[row]
    first = pairs.index[int((pairs["id"] == image).argmax())]
    raise InputError(
        f"{where}: {places[row]} calls image '{image}' {name!r}, and {places[first]} calls it "
        f"{names[first]!r}; keep the boxes of one name, or give both the same"
    )


def near_ids(ids: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Find ids that are a known one but for case or path ending.

    Returns:
        The known id by each such id; ids that are known themselves are left out.

    Example:
        >>> near_ids(["A.png", "b", "c"], ["a", "b"])
        {'A.png': 'a'}
    """
    members = set(known)
    by_key = {_key(name): name for name in members}
    unknown = [name for name in ids if name not in members]
    return {name: by_key[_key(name)] for name in unknown if _key(name) in by_key}


def check_arguments(boxes: Any, truth: Any, image_ids: Iterable[Any]) -> pd.Index:
    """Check the arguments of a box metric: predicted boxes, true boxes and image ids.

    Boxes of images that are not evaluated are allowed, but ids that match nothing at all, or match
    but for case or path ending, are not.

    Returns:
        The image ids as an index.

    Raises:
        InputError: A column is missing, a value is no box or no score, an id repeats, or the ids of
            the three do not fit each other.
    """
    ids = image_ids if isinstance(image_ids, pd.Index) else pd.Index(list(image_ids))
    if not ids.is_unique:
        raise InputError(
            f"image_ids: '{ids[ids.duplicated()][0]}' appears more than once; keep one of each"
        )
    _require_columns(boxes, "boxes", ["image_id", *EDGES, "score"])
    _require_columns(truth, "truth", ["image_id", *EDGES])
    check_scores(boxes, "boxes")
    check_edges(boxes, "boxes")
    check_edges(truth, "truth")
    _check_ids(boxes["image_id"].astype(TEXT), truth["image_id"].astype(TEXT), ids.astype(TEXT))
    return ids


def _require_columns(table: Any, where: str, wanted: list[str]) -> None:
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            f"{where}: expected a DataFrame with {', '.join(wanted)}, got {type(table).__name__}"
        )
    for column in wanted:
        if column not in table:
            raise InputError(
                f"{where}: column '{column}' is missing; it has "
                f"{', '.join(map(str, table.columns[:20]))}; rename the column that holds it"
            )
        cells = table[column]
        if column != "image_id" and len(cells) and not pd.api.types.is_numeric_dtype(cells):
            numbers = pd.to_numeric(cells, errors="coerce")
            wrong = numbers.isna() & cells.notna()
            if wrong.any():
                row = int(wrong.to_numpy().argmax())
                raise InputError(
                    f"{_row(table, row, where)}: {column}={cells.iloc[row]!r} is no number"
                )
    missing = table["image_id"].isna().to_numpy()
    if missing.any():
        raise InputError(f"{where}: row {table.index[int(missing.argmax())]}: image_id is missing")


def _check_ids(boxes: pd.Series, truth: pd.Series, image_ids: pd.Index) -> None:
    """Refuse ids that match nothing, or an image that has two of them."""
    tables = (("boxes", boxes, truth), ("truth", truth, boxes))
    known = set(image_ids)
    for name, own, _ in tables:
        near = near_ids(own.unique(), known)
        held = set(own)
        for wrong, right in near.items():
            if right in held and wrong.lower() == right.lower():
                continue  # of names that differ in case alone both are images
            row = own.index[int((own == wrong).to_numpy().argmax())]
            raise InputError(
                f"{name}: row {row}: image '{wrong}' is not in image_ids, which has '{right}'; "
                "give an image one id, in the same case and with or without the file's ending"
            )
    _check_twins(boxes, truth, image_ids)
    for name, own, other in tables:
        if not len(own) or is_member(own, image_ids).any():
            continue
        if not is_member(own, other).any() or not is_member(other, image_ids).any():
            raise InputError(
                f"{name}: no image of it is in image_ids; the first row has '{own.iloc[0]}', and "
                f"image_ids begins with '{next(iter(image_ids), '')}'; name images alike in boxes, "
                "truth and image_ids"
            )


def _check_twins(boxes: pd.Series, truth: pd.Series, image_ids: pd.Index) -> None:
    """Refuse an image that is in `image_ids` twice, as a union of two spellings makes it.

    Ids that differ in case alone may be two images; they are one where predicted boxes have the one
    and true boxes the other.
    """
    table = pd.DataFrame({"id": list(image_ids)})
    table["key"] = [_key(name) for name in image_ids]
    twins = table[table.duplicated("key", keep=False)]
    found, true = set(boxes), set(truth)
    for _, group in twins.groupby("key", sort=False):
        first, second = group["id"].iloc[:2]
        same_ending = first.lower() == second.lower()
        split = (first in found, first in true) in ((True, False), (False, True))
        split &= (second in found, second in true) == (first in true, first in found)
        if not same_ending or split:
            raise InputError(
                f"image_ids: '{first}' and '{second}' are one image under two ids; give it one, in "
                "the same case and with or without the file's ending"
            )


def _key(name: str) -> str:
    """The image id without case and path ending."""
    return _ENDING.sub("", str(name)).casefold()


def _fits(corners: np.ndarray, sizes: np.ndarray | None) -> np.ndarray:
    """Tell which boxes have x1 < x2 and y1 < y2 and lie in their images, where these are known."""
    fits = (corners[:, :2] < corners[:, 2:]).all(axis=1) & (corners[:, :2] >= -_SLACK).all(axis=1)
    if sizes is not None:
        limit = np.where(np.isnan(sizes), np.inf, sizes) + _SLACK
        fits &= (corners[:, 2:] <= limit).all(axis=1)
    return np.asarray(fits)


def _row(table: pd.DataFrame, row: int, where: str) -> str:
    """Name the table, the row and the image, for a message."""
    place = table["place"].iloc[row] if "place" in table else f"row {table.index[row]}"
    return f"{where}: {place}, image '{table['image_id'].iloc[row]}'"


def _shown(corners: np.ndarray) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(EDGES, corners, strict=True))
