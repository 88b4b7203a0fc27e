"""Conversion of the outputs of detection libraries, or of true boxes, to one table of boxes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_check import require_corners, without_empty_boxes
from cxr_compare.data_prep.contracts.box_classes import class_column, names_finding
from cxr_compare.data_prep.contracts.box_readings import FORMS, ORDERS, BoxForm, BoxOrder
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.box_checks import (
    PYTHON_ANSWERS,
    check_arguments,
    check_scores,
)
from cxr_compare.evaluation.boxes.read_boxes import (
    boxes_in_px,
    index_of_ids,
    is_coco,
    is_detector_output,
    read_boxes,
)
from cxr_compare.evaluation.boxes.read_table import ColumnNames, ReadTable, crowd_flags, texts_of
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice

_COLUMNS = ("image_id", *EDGES, "score", "finding", "crowd")


class BoxArguments(NamedTuple):
    """Predicted boxes, true boxes and image ids (texts) of a box metric, from `box_arguments`."""

    boxes: pd.DataFrame
    truth: pd.DataFrame
    image_ids: pd.Index


@with_known_keywords
def boxes_table(
    outputs: Any,
    image_ids: Iterable[Any] | None = None,
    *,
    box_format: BoxForm | None = None,
    order: BoxOrder = "xyxy",
    image_sizes: Mapping[Any, tuple[float, float]] | pd.DataFrame | None = None,
    in_shares: bool = False,
    scale: float | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Convert the outputs of a detection library, or true boxes, to one table of boxes.

    Args:
        outputs: One of these:

            - a list with a dictionary for each image, with the key ``boxes`` and, if there are any,
              ``scores`` and ``labels``, as torchvision's detectors return it;
            - a list of Ultralytics results, one for each image;
            - a list of `supervision.Detections`, one for each image;
            - COCO results or annotations: a list of dictionaries with ``image_id`` and ``bbox``;
            - a DataFrame with one row for each box and columns of usual names, such as
              ``filename, xmin, ymin, xmax, ymax, confidence`` or ``image_id, x, y, w, h, score``.
              Rows whose edges and score are all empty stand for images without boxes and give no
              box.
        image_ids: Id of each image, in the order of the outputs. None is allowed for COCO results
            and DataFrames, because they name their images, and for Ultralytics results that hold
            the paths of their images; the file names without their endings are then the ids. If
            these paths end with all `image_ids`, they decide and not the order; if they end with
            some, these must be in the order of the outputs.
        box_format: Format of the boxes: ``xyxy`` (two corners), ``xywh`` (left, top, width, height)
            or ``cxcywh`` (centre, width, height). None takes the usual format: ``xywh`` for COCO's
            ``bbox``, the format that a DataFrame's column names or a torchvision ``BoundingBoxes``
            tensor state, and ``xyxy`` for everything else.
        order: Which axis is written first: ``xyxy`` (x before y) or ``yxyx`` (y before x, as in
            ``y1, x1, y2, x2`` or ``y, x, height, width``).
        image_sizes: Width and height of each image in px, as a dictionary by image id or as a
            DataFrame with ``image_id``, ``width`` and ``height``. If sizes are given, boxes that
            reach far outside their images are refused. None if no size is known.
        in_shares: True if the boxes are shares of the image's width and height, in [0, 1]. They are
            converted to px, so `image_sizes` is needed.
        scale: Factor from the px of the boxes to px of the original image, such as 2.0 for boxes of
            an image that was halved. None for boxes in px of the original image.
        class_names: Names of the class numbers, as a sequence from class 0 or as a dictionary by
            number; None keeps the numbers.

    Returns:
        One row for each box, with ``image_id`` and ``x1``, ``y1``, ``x2``, ``y2`` in px of the
        original image. If the outputs have scores, there is a column ``score``; if they have
        classes, ``finding``; if COCO annotations mark crowds, ``crowd``. The order is that of the
        outputs.

    Raises:
        InputError: The outputs are of none of these kinds, their number is not that of `image_ids`,
            a box or a score is invalid, a class has no name, or an image of boxes in shares has no
            size. The message names the output, the image and the value.

    Example:
        >>> import cxr_compare
        >>> outputs = [{"boxes": [[10, 20, 30, 40]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> cxr_compare.boxes_table(outputs, ["a", "b"]).to_dict("records")
        [{'image_id': 'a', 'x1': 10.0, 'y1': 20.0, 'x2': 30.0, 'y2': 40.0, 'score': 0.9}]
    """
    if box_format is not None and box_format not in FORMS:
        formats = ", ".join(FORMS)
        raise InputError(f"box_format: {box_format!r} is unknown; choose {formats}")
    if order not in ORDERS:
        raise InputError(f"order: {order!r} is unknown; choose {', '.join(ORDERS)}")
    where = "boxes" if isinstance(outputs, pd.DataFrame) else "outputs"
    names = ColumnNames(box_form=box_format, box_order=order)
    numbered = None
    if class_names is not None:
        numbered = _names_of_numbers(class_names)
    read = read_boxes(outputs, image_ids, names, where, ReadingAdvice(), numbered)
    if numbered is not None and "finding" in read.rows:
        read.rows["finding"] = _named_classes(read.rows, numbered, where)
    sizes = None if image_sizes is None else _sizes_of(read.rows, image_sizes)
    if in_shares:
        if sizes is None:
            raise InputError(
                "in_shares: shares need the width and height of each image; image_sizes="
            )
        read.reading = replace(read.reading, unit="share")
    return _checked(read, sizes, scale)


def _checked(
    read: ReadTable, sizes: np.ndarray | None = None, scale: float | None = None
) -> pd.DataFrame:
    """Return the checked boxes; warn about predicted boxes that were left out."""
    if "score" in read.rows:
        check_scores(read.rows, read.where)
    if sizes is None:
        sizes = np.full((len(read.rows), 2), np.nan)
    rows, notes = boxes_in_px(read, sizes, scale, PYTHON_ANSWERS)
    if "score" not in rows:
        require_corners(rows, read.where, PYTHON_ANSWERS)
    _warn("; ".join(notes), read.where)
    return rows[[name for name in _COLUMNS if name in rows]]


def box_arguments(
    boxes: Any, truth: Any, image_ids: Any, *, one_class: bool = True, crowds: bool = False
) -> BoxArguments:
    """Convert the arguments of a box metric to two checked tables and an index of image ids.

    A DataFrame that already has the columns ``image_id``, ``x1``, ``y1``, ``x2`` and ``y2`` is
    returned with its ids as texts and otherwise unchanged; all else that `boxes_table` reads is
    converted. With `one_class`, tables of several classes are refused; the column ``finding`` is
    removed then, and where one table lacks it. If no ids are given, the two lists must hold one
    output for each image in the same order, and the positions become the ids. `check_arguments`
    says what else raises InputError.
    """
    arguments = box_tables(boxes, truth, image_ids, one_class=one_class)
    check_arguments(*arguments, crowds=crowds)
    return arguments


def box_tables(boxes: Any, truth: Any, image_ids: Any, *, one_class: bool = True) -> BoxArguments:
    """Convert the arguments of a box metric as `box_arguments` does, but do not check them."""
    ids = _numbers_of_outputs(boxes, truth) if image_ids is None else index_of_ids(image_ids)
    predicted = _as_table(boxes, ids, "boxes")
    true = _as_table(truth, ids, "truth")
    if one_class:
        _require_one_class(predicted, true)
    if one_class or "finding" not in predicted or "finding" not in true:  # nothing to compare
        predicted = predicted.drop(columns="finding", errors="ignore")
        true = true.drop(columns="finding", errors="ignore")
    return BoxArguments(predicted, true, ids)


def _numbers_of_outputs(boxes: Any, truth: Any) -> pd.Index:
    """Return positions as image ids, for two lists that hold one output for each image."""
    for where, value in (("boxes", boxes), ("truth", truth)):
        if not is_detector_output(value) or is_coco(value):
            raise InputError(
                f"image_ids: missing, and {where} is no list with an output for each image; give "
                "the id of every image, with and without boxes"
            )
    if len(boxes) != len(truth):
        raise InputError(
            f"boxes: has {counted(len(boxes), 'output')}, and truth has {len(truth):,}; give one "
            "for each image, in the same order"
        )
    width = len(str(len(boxes)))
    # Names that no file has, for a file that names its image decides over the order.
    return pd.Index([f"output {number:0{width}d}" for number in range(len(boxes))], dtype=TEXT)


def _warn(note: str, where: str) -> None:
    if note:
        warnings.warn(f"{where}: {note}", UserWarning, stacklevel=4)


def _as_table(value: Any, ids: pd.Index, where: str) -> pd.DataFrame:
    is_table = isinstance(value, pd.DataFrame) and value.columns.is_unique
    if is_table and {"image_id", *EDGES} <= set(value.columns):
        if where == "boxes" and all(map(pd.api.types.is_numeric_dtype, value[EDGES].dtypes)):
            value, note = without_empty_boxes(value)
            _warn(note, where)
        if "finding" not in value:
            used = [name for name in ("image_id", *EDGES, "score") if name in value]
            kind = class_column(value.drop(columns=used))
            value = value if kind is None else value.assign(finding=texts_of(value[kind]).array)
        crowds = crowd_flags(value, where)
        if crowds is not None:
            value = value.assign(crowd=crowds)
        has_text_ids = value["image_id"].dtype == TEXT
        return value if has_text_ids else value.assign(image_id=value["image_id"].astype(TEXT))
    return _checked(read_boxes(value, ids, ColumnNames(), where, ReadingAdvice()))


def _require_one_class(boxes: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Refuse boxes of several classes, which a metric of one class would mix."""
    classes: set[str] = set()
    for where, table in (("boxes", boxes), ("truth", truth)):
        named = table["finding"].dropna() if "finding" in table else table["image_id"].iloc[:0]
        if 0 < len(named) < len(table):
            row = table.index[int(table["finding"].isna().to_numpy().argmax())]
            raise InputError(f"{where}: row {row}: its class is missing, others have one; add it")
        kinds = sorted(map(str, named.unique()))
        if len(kinds) > 1:
            raise InputError(
                f"{where}: has boxes of {len(kinds)} classes ({', '.join(kinds[:5])}), and this is "
                "a figure of one class; keep the rows of one finding"
            )
        classes.update(filter(names_finding, kinds))
    if len({*map(finding_name, classes)}) > 1:
        raise InputError(
            f"boxes: boxes and truth are of the classes '{min(classes)}' and '{max(classes)}', and "
            "this is a figure of one class; give both one class, or leave the classes out"
        )


def _names_of_numbers(class_names: Any) -> dict[Any, Any]:
    """Return the names of class numbers by number, without numbers that have no name."""
    names: dict[Any, Any] = {}
    if isinstance(class_names, Mapping | pd.Series):
        names = dict(class_names)
    elif isinstance(class_names, Iterable) and not isinstance(class_names, str):
        names = dict(enumerate(class_names))
    numbers = pd.to_numeric(pd.Series([*names], dtype=object), errors="coerce")
    if not names or numbers.isna().any():
        raise InputError(
            f"class_names: {class_names!r}; give a list of names from class 0, or a dictionary of "
            "names by number"
        )
    return {number: name for number, name in names.items() if not pd.isna(name)}


def _named_classes(table: pd.DataFrame, names: Mapping[int, str], where: str) -> pd.Series:
    texts = dict(zip(texts_of(list(names)), map(str, names.values()), strict=True))
    unknown = ~is_member(table["finding"], [*texts, *texts.values()])
    if unknown.any():
        row = table.iloc[int(unknown.argmax())]
        raise InputError(
            f"{where}: {row['place']}, image '{row['image_id']}': class {row['finding']} has no "
            f"name; {len(texts)} classes are named"
        )
    return table["finding"].map(lambda kind: texts.get(kind, kind)).astype(TEXT)


def _sizes_of(
    table: pd.DataFrame, image_sizes: Mapping[Any, tuple[float, float]] | pd.DataFrame
) -> np.ndarray:
    """Return width and height in px of the image of each row, ``(N, 2)``; NaN where unknown."""
    sizes_of_ids: list[Any]
    if isinstance(image_sizes, pd.DataFrame):
        missing = [c for c in ("image_id", "width", "height") if c not in image_sizes]
        if missing:
            raise InputError(f"image_sizes: column '{missing[0]}' is missing")
        frame = image_sizes[["image_id", "width", "height"]].drop_duplicates()
        ids = frame["image_id"].tolist()
        sizes_of_ids = frame[["width", "height"]].astype(object).to_numpy().tolist()
    elif isinstance(image_sizes, Mapping):
        ids = list(image_sizes)
        sizes_of_ids = list(image_sizes.values())
    else:
        kind = type(image_sizes).__name__
        raise InputError(f"image_sizes: expected a dictionary by image id, got {kind}")
    sides = np.array([_sides(*item) for item in zip(ids, sizes_of_ids, strict=True)]).reshape(-1, 2)
    sized = pd.Index(texts_of(ids))
    if not sized.is_unique:
        twice = sized[sized.duplicated()][0]
        raise InputError(f"image_sizes: image '{twice}' has two sizes; give one")
    rows = positions(table["image_id"], sized)
    sizes = np.full((len(table), 2), np.nan)
    sizes[rows >= 0] = sides[rows[rows >= 0]]
    return sizes


def _sides(image: Any, size: Any) -> tuple[float, float]:
    """Return width and height of an image in px; NaN where a size is missing."""
    try:
        width, height = (np.nan if pd.isna(side) else float(side) for side in size)
    except (TypeError, ValueError):
        width = height = 0.0
    if any(side <= 0 or np.isinf(side) for side in (width, height)):
        raise InputError(
            f"image_sizes: image {image!r} has {size!r}; give its width and height in px (the "
            "shape of an array begins with the height)"
        )
    return width, height
