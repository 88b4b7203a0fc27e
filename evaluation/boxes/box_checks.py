"""Checks of predicted and true boxes, which refuse input that would give a wrong figure.

The box metrics of `cxr_compare.metrics`, ``cxr compare`` and the reader of
true boxes that are given from Python call these checks. An error message names the table, the row,
the image and the value. Where the values suggest another unit or format, it asks about that one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_check import require_corners, row_text
from cxr_compare.data_prep.contracts.box_numbers import are_box_texts
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import missing_columns
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT

PYTHON_ANSWERS = {
    "xyxy": 'say box_format="xyxy" to cxr_compare.boxes_table',
    "xywh": (
        "give x2 = x1 + width and y2 = y1 + height, or call the columns x, y, width, height "
        '(box_format="xywh" of cxr_compare.boxes_table)'
    ),
    "cxcywh": 'say box_format="cxcywh" to cxr_compare.boxes_table',
    "share": (
        "multiply x by the width and y by the height of the image in px, or say in_shares=True to "
        "cxr_compare.boxes_table"
    ),
    "px": "leave out in_shares=True",
    "percent": "divide them by 100 and say in_shares=True to cxr_compare.boxes_table",
    "thousandth": "divide them by 1000 and say in_shares=True to cxr_compare.boxes_table",
}
"""Answer of a user of Python to a question about boxes, by form or unit."""
_SPREAD = 1.5  # ratio of the spread of predicted and true boxes from which they are asked about
_FEWEST = 10  # boxes on each side, below which their spread says little
_PERCENT = (20.0, 100.0)  # range of the highest score if scores are probably in percent
_ENDING = re.compile(r"\.(?:png|jpe?g|tiff?|bmp|webp|dcm|dicom|npy|txt)$", re.IGNORECASE)


def check_scores(
    table: pd.DataFrame, where: str, *, any_range: bool = False, answer: str = ""
) -> None:
    """Raise InputError unless all scores are numbers in [0, 1], or finite numbers with `any_range`.

    The message asks whether scores outside are logits or per cent; `answer` says what the user does
    if any range is meant, and is empty if that is not possible. An optional column ``place`` says
    where each row is in its file, such as "line 3".
    """
    scores = table["score"].to_numpy(np.float64)
    is_wrong = ~((scores >= 0) & (scores <= 1))
    if any_range:
        is_wrong = ~np.isfinite(scores)
    if not is_wrong.any():
        return
    row = int(is_wrong.argmax())
    outside = scores[is_wrong & np.isfinite(scores)]
    question = ""
    if len(outside):
        question = "; are these logits? Apply a sigmoid, 1 / (1 + exp(-score))"
        if scores[np.isfinite(scores)].min() >= 0 and _PERCENT[0] <= outside.max() <= _PERCENT[1]:
            question = "; are these percent? Divide by 100"
        if answer:
            question += f". If only their ranks count, say {answer}"
    expected = "finite numbers" if any_range else "numbers in [0, 1]"
    raise InputError(
        f"{row_text(table, row, where)}: score={scores[row]}; scores must be {expected} "
        f"({counted(int(is_wrong.sum()), 'row', 'are')} not){question}"
    )


def refuse_box_texts(table: pd.DataFrame, where: str) -> None:
    """Raise InputError if a column that is not read holds boxes, such as ``[10, 20, 30, 40]``."""
    for name, cells in table.select_dtypes(exclude=["number", "bool"]).items():
        are_boxes = are_box_texts(cells.astype(str).rename(str(name))).to_numpy()
        if are_boxes.any():
            raise InputError(
                f"{where}: row {table.index[int(are_boxes.argmax())]}: column '{name}' holds a box "
                "in one cell, which may be corners or sizes; write each box in a row of its own "
                "with the columns x1,y1,x2,y2 or x,y,width,height, or remove the column"
            )


def _spread_ratio(boxes: pd.DataFrame, truth: pd.DataFrame) -> float | None:
    """Return how many times as far predicted boxes reach as true boxes; None if they reach alike.

    The 90th percentile of the far edges and the median of the centres must both differ by a factor
    beyond 1.5: of boxes in the same px, drawn from all RSNA boxes, none of 2,000 draws of 10 did.
    """
    if min(len(boxes), len(truth)) < _FEWEST:
        return None
    predicted = boxes[EDGES].to_numpy(np.float64)
    true = truth[EDGES].to_numpy(np.float64)
    true_centre = np.median(true.mean(axis=1))
    if min(_reach(true), _reach(predicted), true_centre) <= 0:  # outside the image
        return None
    reach = _reach(predicted) / _reach(true)
    centre = np.median(predicted.mean(axis=1)) / true_centre
    if min(reach, centre) > _SPREAD or max(reach, centre) < 1 / _SPREAD:
        return float(reach)
    return None


def _reach(corners: np.ndarray) -> float:
    return float(np.quantile(corners[:, 2:].max(axis=1), 0.9))


def spread_question(boxes: pd.DataFrame, truth: pd.DataFrame, where: str) -> str:
    """Return the question about predicted boxes that are probably in px of a resized image.

    It names the likely factor to px of the true boxes; empty without doubt.
    """
    ratio = _spread_ratio(boxes, truth)
    if ratio is None:
        return ""
    return (
        f"{where}: the boxes reach {ratio:.3g} times as far as the true boxes "
        f"({_reach_text(boxes)} and {_reach_text(truth)} px): are they in px of a resized image "
        f"(factor about {1 / ratio:.2g})?"
    )


def _reach_text(boxes: pd.DataFrame) -> str:
    return f"{_reach(boxes[EDGES].to_numpy(np.float64)):.0f}"


def check_names(names: pd.Series, ids: pd.Series, where: str, places: pd.Series) -> None:
    """Raise InputError if a table calls one image by two names, such as ``a.png`` and ``a``.

    `names`, `ids` and `places` (such as "row 3", for the message) have one value for each row and
    the same index.
    """
    if (names.to_numpy() == ids.to_numpy()).all():
        return
    pairs = pd.DataFrame({"name": names.astype(TEXT), "id": ids.astype(TEXT)}).drop_duplicates()
    second = pairs.duplicated("id")
    if not second.any():
        return
    row = pairs.index[int(second.argmax())]
    image = ids[row]
    name = names[row]
    first = pairs.index[int((pairs["id"] == image).argmax())]
    raise InputError(
        f"{where}: {places[row]} calls image '{image}' {name!r}, and {places[first]} calls it "
        f"{names[first]!r}; keep the boxes of one name, or give both the same"
    )


def near_ids(ids: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Find ids that differ from a known id only in upper or lower case or in the file's ending.

    Of several such known ids the first is given.

    Example:
        >>> near_ids(["A.png", "b", "c"], ["a", "b", "a.dcm"])
        {'A.png': 'a'}
    """
    members = set(known)
    by_key: dict[str, str] = {}
    for name in known:
        by_key.setdefault(_key(name), name)
    unknown = [name for name in ids if name not in members]
    return {name: by_key[_key(name)] for name in unknown if _key(name) in by_key}


def check_arguments(boxes: Any, truth: Any, ids: pd.Index, *, crowds: bool = False) -> None:
    """Check the arguments of a box metric: predicted boxes, true boxes and image ids as texts.

    Boxes of images that are not in `ids` are allowed. But a table is refused if none of its images
    is in `ids`, unless it has images in common with the other table, and the other table has images
    in common with `ids`. An id that equals one of `ids` except for upper or lower case or the
    file's ending is refused as well. So are a missing column, an invalid box or score, an id that
    repeats and, unless the metric knows `crowds`, a true box that is one.
    """
    if not ids.is_unique:
        raise InputError(
            f"image_ids: '{ids[ids.duplicated()][0]}' appears more than once; keep one of each"
        )
    _require_columns(boxes, "boxes", ["image_id", *EDGES, "score"])
    _require_columns(truth, "truth", ["image_id", *EDGES])
    check_scores(boxes, "boxes")
    require_corners(boxes, "boxes", PYTHON_ANSWERS)
    require_corners(truth, "truth", PYTHON_ANSWERS)
    if not crowds and "crowd" in truth and truth["crowd"].eq(True).any():
        first = truth.loc[truth["crowd"].eq(True), "image_id"].iloc[0]
        raise InputError(
            f"truth: image '{first}' has a crowd (iscrowd), of which only box_average_precision "
            "knows what to do; leave the images with crowds out"
        )
    _check_ids(boxes["image_id"].astype(TEXT), truth["image_id"].astype(TEXT), ids.astype(TEXT))


def _require_columns(table: Any, where: str, columns: list[str]) -> None:
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            f"{where}: expected a DataFrame with {', '.join(columns)}, got {type(table).__name__}"
        )
    absent = [column for column in columns if column not in table]
    if absent:
        raise InputError(
            f"{where}: {missing_columns(absent)}; it has "
            f"{', '.join(map(str, table.columns[:20]))}; rename what holds it"
        )
    for column in columns:
        cells = table[column]
        if column != "image_id" and len(cells) and not pd.api.types.is_numeric_dtype(cells):
            numbers = pd.to_numeric(cells, errors="coerce")
            is_wrong = numbers.isna() & cells.notna()
            if is_wrong.any():
                row = int(is_wrong.to_numpy().argmax())
                raise InputError(
                    f"{row_text(table, row, where)}: {column}={cells.iloc[row]!r} is no number"
                )
    missing = table["image_id"].isna().to_numpy()
    if missing.any():
        raise InputError(f"{where}: row {table.index[int(missing.argmax())]}: image_id is missing")


def _check_ids(boxes: pd.Series, truth: pd.Series, image_ids: pd.Index) -> None:
    """Refuse tables whose ids are not in `image_ids`, and images that have two ids."""
    tables = (("boxes", boxes, truth), ("truth", truth, boxes))
    evaluated = list(image_ids)
    for name, own, _ in tables:
        own_ids = set(own)
        for wrong, right in near_ids(own.unique(), evaluated).items():
            if right in own_ids and wrong.lower() == right.lower():
                continue  # two names that differ in case alone are two images
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
    """Refuse `image_ids` that hold one image under two spellings.

    Two ids that differ only in upper and lower case may be two images. They are taken as one image
    if the predicted boxes use one of the ids and the true boxes use the other.
    """
    table = pd.DataFrame({"id": list(image_ids)})
    table["key"] = [_key(name) for name in image_ids]
    twins = table[table.duplicated("key", keep=False)]
    predicted = set(boxes)
    true = set(truth)
    for _, group in twins.groupby("key", sort=False):
        first, second = group["id"].iloc[:2]
        same_ending = first.lower() == second.lower()
        is_first_in_one = (first in predicted) != (first in true)
        is_second_in_other = (second in predicted) == (first in true) and (
            (second in true) == (first in predicted)
        )
        if not same_ending or (is_first_in_one and is_second_in_other):
            raise InputError(
                f"image_ids: '{first}' and '{second}' are one image under two ids; give it one, in "
                "the same case and with or without the file's ending"
            )


def _key(name: str) -> str:
    """Return the image id in lower case and without the file's ending."""
    return _ENDING.sub("", str(name)).casefold()
