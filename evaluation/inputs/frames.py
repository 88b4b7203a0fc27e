"""Predictions in memory: tables by the names of their columns, and scores of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import ROLES_OF_FORMS, BoxForm
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.names import (
    class_column,
    column_names,
    find_column,
    headless_problem,
    image_names,
    missing_columns,
)
from cxr_compare.data_prep.sources.questions import are_box_texts
from cxr_compare.evaluation.inputs.rows import (
    NUMBERS,
    Rows,
    are_blank,
    crowd_flags,
    numbers_in,
    require_filled,
    say,
    texts_of,
    with_numbers,
)
from cxr_compare.evaluation.statistics.arrays import as_array, of_one_column

SIDES = ("image_width", "image_height")
"""Columns of a table of boxes with the size of the image that these are of."""
_VINBIGDATA = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
_NO_FINDING = 14
"""Class of VinBigData that is none."""
_RSNA_NUMBERS = ["score", *NUMBERS]
_VINBIGDATA_NUMBERS = ["finding", *_RSNA_NUMBERS]


def read_scores(value: Any, order: pd.Series | None, where: str) -> Rows:
    """Read one score an image: a Series by rows of the truth or by image ids, an array in order."""
    ids = None if order is None else order.tolist()
    if isinstance(value, pd.Series) and not (order is None and is_unnamed(value.index)):
        ids, value = ids_of_series(value, order, where), value.to_numpy()
    array = flat_array(value, where)
    if ids is None:
        raise InputError(
            f"{where}: has no image ids, and neither a file nor a data set has an order of images; "
            "give a Series with image ids as its index, or a frame image_id, score"
        )
    if len(array) != len(ids):
        raise InputError(
            f"{where}: has the shape {array.shape}, and truth {(len(ids),)}; give one value for "
            "each image, in the order of truth, or a Series with image ids"
        )
    table = pd.DataFrame({"image_id": ids, "score": array})
    return Rows(with_numbers(table, ["score"], where), where=where)


def is_unnamed(index: pd.Index) -> bool:
    """Return True for an index that pandas made, which names no image."""
    return isinstance(index, pd.RangeIndex)


def flat_array(value: Any, where: str) -> np.ndarray:
    """Return one value for each image, shape ``(N,)``; InputError for what is none."""
    if isinstance(value, Mapping) or not hasattr(value, "__len__"):
        kind = type(value).__name__
        raise InputError(f"{where}: is a {kind}; give a Series, an array, a frame or a file")
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise InputError(f"{where}: has masked values; leave these images out, or give NaN")
    try:
        array = of_one_column(as_array(value))
    except (TypeError, ValueError):
        raise InputError(f"{where}: is no array of one value for each image") from None
    if array.ndim != 1:
        raise InputError(f"{where}: has the shape {array.shape}; give one value for each image")
    if np.iscomplexobj(array):
        raise InputError(f"{where}: has complex numbers; give real ones")
    return array


def ids_of_series(value: pd.Series, order: pd.Series | None, where: str) -> list[str]:
    """Return the images of a Series, whose index has rows of the truth or image ids.

    `order` has the image ids of the truth by its rows; its index equals its values if the truth has
    no rows. InputError if both readings are possible and differ.
    """
    if value.index.nlevels > 1:
        raise InputError(
            f"{where}: its index has {value.index.nlevels} levels; give one of image ids"
        )
    missing = value.index.isna()
    if missing.any():
        raise InputError(f"{where}: row {missing.argmax()}: the image id in its index is missing")
    names = value.index.astype(str).tolist()
    if order is None:
        return names
    ids = order.astype(str)
    has_rows = not order.index.equals(pd.Index(order))
    of_rows: list[str] | None = None
    if value.index.equals(pd.RangeIndex(len(order))) and not (has_rows and _is_numbered(order)):
        of_rows = ids.tolist()
    elif has_rows and value.index.is_unique and value.index.isin(order.index).all():
        of_rows = ids.loc[value.index].tolist()
    # A number may have lost the zeros in front of it, or have become a decimal one.
    plain = ids.str.replace(r"\.0$", "", regex=True).str.replace(r"^0+(\d)", r"\1", regex=True)
    by_name = {**dict(zip(plain, ids, strict=True)), **dict(zip(ids, ids, strict=True))}
    by_id = [by_name.get(name, name) for name in names]
    if of_rows is not None and set(by_id) <= set(ids):
        if of_rows != by_id and value.astype(str).nunique() > 1:
            raise InputError(
                f"{where}: is {names[0]} in its index a row of the truth or an image? Give a frame "
                "with image_id"
            )
        return by_id
    if of_rows is not None and len(of_rows) == len(ids):
        return of_rows
    if not has_rows and pd.api.types.is_integer_dtype(value.index) and not set(by_id) & set(ids):
        raise InputError(
            f"{where}: its index is not 0, 1, ..., and truth has none; give both as Series of the "
            "same images, or both as arrays in one order"
        )
    return names


def _is_numbered(order: pd.Series) -> bool:
    return pd.api.types.is_integer_dtype(order.index)


def read_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    where: str,
    name: str = "NAME",
) -> Rows:
    """Read a table of scores or of boxes by the usual names of columns, or by `columns`."""
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    header = [*frame.columns]
    image = columns.get("image") or find_column(header, (*image_names(header), "patientid"))
    strings = find_column(header, ("predictionstring",))
    if image is not None and strings is not None:
        return _prediction_strings(frame, image, strings, where)
    score = columns.get("score", find_column(header, ("score", *column_names("score")))) or None
    form, edges = form_of(header)
    _require_columns(header, columns, image, score, None if form else edges, where, name)
    names: dict[Any, str] = {image: "image_id"}
    if score:
        names[score] = "score"
    if form:
        names |= dict(zip(edges, NUMBERS, strict=True))
        _refuse_twice(header, names, where)
        kind = columns.get("finding", class_column(frame.drop(columns=list(names))))
        names |= {kind: "finding"} if kind else {}
        crowd = find_column(header, ("iscrowd", "crowd"))
        names |= {crowd: "crowd"} if crowd else {}
        names |= _sides_of_images(header)
    elif columns.get("finding", "finding") in header:
        names[columns.get("finding", "finding")] = "finding"
    _refuse_twice(header, names, where)
    table = frame[list(names)].rename(columns=names)
    unused = frame.drop(columns=list(names))
    if not form:
        refuse_box_texts(unused, where)
    ran = None
    if form:  # an image without a box is a row without numbers
        blank = table[numbers_in(table)].apply(are_blank).all(axis=1)
        ran = table["image_id"].dropna().astype(str).tolist() if blank.any() else None
        table = table[~blank]
    require_filled(table["image_id"], where, str(image))
    table = table.assign(image_id=table["image_id"].astype(str))
    table["place"] = [f"row {label}" for label in table.index]
    if "crowd" in table:
        table = table.assign(crowd=crowd_flags(table["crowd"], where))
    if "finding" in table:
        require_filled(table["finding"], where, f"the class in {kind_of(names)}")
        table = table.assign(finding=texts_of(table["finding"]))
    called = {meaning: column for column, meaning in names.items()}
    numbers = [*numbers_in(table), *(side for side in SIDES if side in table)]
    table = with_numbers(table, numbers, where, called)
    read = [f"{of} as {to}" for of, to in names.items() if of != to and to not in NUMBERS]
    note = f"Columns read: {', '.join(read) or 'as named'}"
    left = [str(column) for column in unused]
    note += f"; not used: {', '.join(left[:10])}." if left else "."
    return Rows(
        table,
        form or "xyxy",
        stated=form not in (None, "xyxy"),
        ran=ran,
        where=where,
        notes=[note],
        unused=unused.reset_index(drop=True),
        class_column=kind_of(names) if form else "",
        score_column=score or "score",
    )


def _sides_of_images(header: list[str]) -> dict[Any, str]:
    """Return the columns with the size of the image of a box; empty if one of them is missing."""
    sides = [find_column(header, column_names(side)) for side in SIDES]
    return {} if None in sides else dict(zip(sides, SIDES, strict=True))


def kind_of(names: Mapping[str, str]) -> str:
    """Return the column that is read as the finding of each row."""
    return next((column for column, meaning in names.items() if meaning == "finding"), "")


def form_of(header: list[str]) -> tuple[BoxForm | None, list[str]]:
    """Return how boxes are written, and the columns of their numbers; else those of some."""
    found: dict[str, None] = {}
    for form, roles in ROLES_OF_FORMS.items():
        named = (find_column(header, column_names(role)) for role in roles)
        columns = [column for column in named if column is not None]
        if len(columns) == len(roles):
            return form, columns
        found |= dict.fromkeys(columns)
    return None, list(found)


def _refuse_twice(header: list[str], names: Mapping[str, str], where: str) -> None:
    for column in names:
        if header.count(column) > 1:
            raise InputError(f"{where}: column '{column}' appears twice; keep one")


def refuse_box_texts(table: pd.DataFrame, where: str) -> None:
    """Refuse a column that is not read and holds a box in one cell, such as [10, 20, 30, 40]."""
    for name, cells in table.select_dtypes(exclude=["number", "bool"]).items():
        are_boxes = are_box_texts(cells.astype(str).rename(str(name))).to_numpy()
        if are_boxes.any():
            raise InputError(
                f"{where}: row {table.index[int(are_boxes.argmax())]}: column '{name}' holds a box "
                "in one cell, which may be corners or sizes; write each box in a row of its own "
                "with the columns x1,y1,x2,y2 or x,y,width,height, or remove the column"
            )


def _require_columns(
    header: list[str],
    columns: Mapping[str, str],
    image: str | None,
    score: str | None,
    found: list[str] | None,
    where: str,
    name: str,
) -> None:
    """Refuse a table without a column of images, or without scores and boxes.

    `found` are some columns of a box, None if it has all of them.
    """
    has = f"it has {', '.join(header[:20])}"
    for column in (image, score, columns.get("finding")):
        if column and column not in header:
            raise InputError(f"{where}: has no column '{column}'; {has}")
    if image is None or (score is None and found is not None):
        if problem := headless_problem(header):
            raise InputError(f"{where}: {problem}")
        if image is None:
            raise InputError(
                f"{where}: has no column of image ids; {has}; say {say(name, 'image')}"
            )
        raise InputError(
            f"{where}: has no column of scores, nor four of boxes; {has}; say "
            f"{say(name, 'score')}, or write boxes as x1,y1,x2,y2"
        )
    if found is not None and len(found) > 2:
        missing = missing_columns([edge for edge in EDGES if edge not in header])
        raise InputError(f"{where}: {missing}, or x, y, width and height; {has}")


def _prediction_strings(frame: pd.DataFrame, image: str, strings: str, where: str) -> Rows:
    """Read a Kaggle submission: all boxes of an image in one cell, as of RSNA or VinBigData."""
    require_filled(frame[image], where, image)
    images = frame[image].astype(str)
    cells = [[] if pd.isna(cell) else str(cell).split() for cell in frame[strings]]
    tried = [_RSNA_NUMBERS, _VINBIGDATA_NUMBERS]
    if find_column([image], ("image_id",)):
        tried.reverse()
    fitting = [names for names in tried if not any(len(cell) % len(names) for cell in cells)]
    names = [*fitting, *tried][0]
    rows, seen = [], set()
    for one, label, cell in zip(images, frame.index, cells, strict=True):
        place = f"row {label}"
        if one in seen:
            raise InputError(f"{where}: {place}: image '{one}' has a row already; keep one")
        seen.add(one)
        if len(cell) % len(names):
            raise InputError(
                f"{where}: {place}, image '{one}': {len(cell)} numbers; each box needs "
                f"{' '.join(names)}"
            )
        starts = range(0, len(cell), len(names))
        rows += [(one, place, *cell[at : at + len(names)]) for at in starts]
    table = pd.DataFrame(rows, columns=["image_id", "place", *names])
    table = with_numbers(table, names, where)
    infinite = np.isinf(table[names].to_numpy(np.float64)).any(axis=1)
    if infinite.any():
        row = table[infinite].iloc[0]
        raise InputError(
            f"{where}: {row['place']}, image '{row['image_id']}': a number is infinite"
        )
    if "finding" in names:
        table = _named_classes(table[table["finding"] != _NO_FINDING], where)
    form: BoxForm = "xyxy" if "finding" in names else "xywh"
    note = f"{strings} is read as {' '.join(names)} of each box, {form}."
    return Rows(table, form, "px", True, images.tolist(), (), where, [note])


def _named_classes(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Replace the numbers of VinBigData's classes by their names; refuse other numbers."""
    titles = dict(enumerate(_VINBIGDATA))
    named = table["finding"].map(titles)
    if named.isna().any():
        row = table[named.isna()].iloc[0]
        raise InputError(
            f"{where}: {row['place']}, image '{row['image_id']}': class {row['finding']:g} has no "
            "name; VinBigData has the classes 0 to 14"
        )
    return table.assign(finding=named.astype(str)).reset_index(drop=True)
