"""Checks of predicted and true boxes, which refuse input that would give a wrong figure.

The box metrics of `cxr_compare.metrics`, ``cxr import``, ``cxr compare --truth`` and the reader of
true boxes that are given from Python call these checks. An error message names the table, the row,
the image and the value. Where the values suggest another unit or format, it asks about that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
    """Check that all scores are numbers in [0, 1], or in any range.

    Args:
        table: Table with the columns ``image_id`` and ``score``. An optional column ``place`` holds
            a text for each row that says where it is in its file, such as "line 3".
        where: Name of the file or argument that holds the rows. The message starts with it.
        any_range: True allows all finite scores, of which only the ranks count.
        answer: How the user says that; empty if it is not possible.

    Raises:
        InputError: A score is NaN or outside [0, 1]. If scores are outside, the message asks
            whether they are logits or percent.

    Example:
        >>> table = pd.DataFrame({"image_id": ["a"], "score": [85.0]})
        >>> check_scores(table, "boxes")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: boxes: row 0, image 'a': score=85.0; ...
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
    """Refuse a table with a column of whole boxes, which would be left out.

    Args:
        table: Columns that are not read. Its index numbers the rows in the message.
        where: Name of the file or argument. The message starts with it.

    Raises:
        InputError: A cell writes a box, such as ``[10, 20, 30, 40]``.

    Example:
        >>> refuse_box_texts(pd.DataFrame({"bbox": ["[10, 20, 30, 40]"]}), "truth")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: truth: row 0: column 'bbox' holds ...
    """
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

    Args:
        boxes: Predicted boxes with ``x1``, ``y1``, ``x2`` and ``y2`` (px).
        truth: True boxes with the same columns.
        where: Name of the file or argument that holds the predicted boxes.

    Returns:
        The question, with the likely factor to px of the true boxes; empty without doubt.
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
    """Check that a table calls no image by two names, such as ``a.png`` and ``a``.

    Args:
        names: Name of the image in each row of the table, shape ``(N,)``.
        ids: Id of the image in each row, shape ``(N,)``, with the index of `names`.
        where: Name of the file that holds the rows. The message starts with it.
        places: Text for each row that says where it is in its file, such as "row 3" or "line 3",
            shape ``(N,)``, with the index of `names`.

    Raises:
        InputError: Two different names belong to the same image id.

    Example:
        >>> names, ids = pd.Series(["a.png", "a"]), pd.Series(["a", "a"])
        >>> check_names(names, ids, "boxes.csv", pd.Series(["row 0", "row 1"]))
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: boxes.csv: row 1 calls image 'a' 'a', ...
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


def near_ids(ids: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Find ids that differ from a known id only in upper or lower case or in the file's ending.

    Args:
        ids: Image ids to look up, such as those of a table of boxes.
        known: Image ids that exist.

    Returns:
        A dictionary from each of `ids` that resembles a known id to this known id. Ids that equal a
        known id, or resemble none, are left out.

    Example:
        >>> near_ids(["A.png", "b", "c"], ["a", "b"])
        {'A.png': 'a'}
    """
    members = set(known)
    by_key = {_key(name): name for name in members}
    unknown = [name for name in ids if name not in members]
    return {name: by_key[_key(name)] for name in unknown if _key(name) in by_key}


def check_arguments(boxes: Any, truth: Any, ids: pd.Index, *, crowds: bool = False) -> None:
    """Check the arguments of a box metric: predicted boxes, true boxes and image ids as texts.

    Boxes of images that are not in `ids` are allowed. But a table is refused if none of its images
    is in `ids`, unless it has images in common with the other table, and the other table has images
    in common with `ids`. An id that equals one of `ids` except for upper or lower case or the
    file's ending is refused as well.

    Args:
        boxes: DataFrame of predicted boxes with the columns ``image_id``, ``x1``, ``y1``, ``x2``,
            ``y2`` (original px) and ``score`` (in [0, 1]).
        truth: DataFrame of true boxes with the same columns except ``score``.
        ids: Ids of all images that are evaluated, each once.
        crowds: True if the metric knows COCO's crowds (column ``crowd`` of `truth`).

    Raises:
        InputError: A true box is a crowd and `crowds` is False, a table is no DataFrame, a column
            is missing, a box or a score is invalid, an id repeats, no image of a table is among the
            ids, or a table spells the id of an image in another way.
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
    evaluated = set(image_ids)
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
