"""Conversion of the outputs of detection libraries to one table of boxes.

The module imports neither torch nor any detection library. It recognises an output by its
attributes and keys, and turns a tensor on any device into an array with the tensor's own methods.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_check import (
    check_predictions,
    require_corners,
    without_empty_boxes,
)
from cxr_compare.data_prep.contracts.box_classes import class_column, names_finding
from cxr_compare.data_prep.contracts.box_numbers import coco_rotation, four_numbers
from cxr_compare.data_prep.contracts.box_readings import (
    FORMS,
    ORDERS,
    BoxForm,
    BoxOrder,
    BoxReading,
    corners_of,
    in_order,
)
from cxr_compare.data_prep.contracts.boxes import EDGES, turned_bounds
from cxr_compare.data_prep.contracts.column_names import (
    column_names,
    find_column,
    image_names,
    missing_columns,
)
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.box_checks import PYTHON_ANSWERS, check_scores
from cxr_compare.evaluation.statistics.arrays import as_array

_ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp", ".npy")
_KINDS = "expected a DataFrame of boxes, a list with an output for each image, or COCO results"
_SIDES = {"width": "float64", "height": "float64"}


def is_detector_output(value: Any) -> bool:
    """Return True if a value is a list of a detector's outputs, or of COCO results or annotations.

    Args:
        value: Any value, such as the predictions that a user gives.

    Returns:
        True if the value is a list or tuple whose first item is the output of torchvision,
        Ultralytics or supervision for one image, or a COCO result or annotation; False otherwise.
        `boxes_table` reads such lists.

    Example:
        >>> is_detector_output([{"boxes": []}]), is_detector_output([0.1, 0.9])
        (True, False)
    """
    if not isinstance(value, list | tuple) or not value:
        return False
    first = value[0]
    is_dict = isinstance(first, Mapping) and bool({"boxes", "bbox"} & set(first))
    return is_dict or _is_detections(first) or _is_ultralytics(first)


def is_coco(value: Any) -> bool:
    """Return True if a value is a list of COCO results or annotations.

    Args:
        value: Any value, such as the predictions that a user gives.

    Returns:
        True if the first item of the list is a dictionary with the key ``bbox``; False otherwise.
        Such a list has one dictionary for each box, which names its image.

    Example:
        >>> is_coco([{"image_id": 7, "bbox": [0, 0, 4, 2]}]), is_coco([{"boxes": []}])
        (True, False)
    """
    return is_detector_output(value) and isinstance(value[0], Mapping) and "bbox" in value[0]


class BoxArguments(NamedTuple):
    """Arguments of a box metric, converted to tables by `box_arguments`.

    Attributes:
        boxes: Predicted boxes with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px) and
            ``score``.
        truth: True boxes with the same columns except ``score``.
        image_ids: Ids of all images that are evaluated, as texts.
    """

    boxes: pd.DataFrame
    truth: pd.DataFrame
    image_ids: pd.Index


@dataclass(frozen=True)
class _Output:
    """Boxes of one image, as they are read from the output of a library."""

    where: str  # name of the output in messages
    edges: np.ndarray  # (N, 4) xyxy
    scores: np.ndarray | None  # (N,)
    classes: np.ndarray | None  # (N,), texts


@dataclass(frozen=True)
class _Meaning:
    """Format in which the boxes of an output are read."""

    box_format: BoxForm
    affirmed: bool  # True if the user stated it
    stated: bool = False  # True if names of columns state it


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
            the paths of their images; the file names without their endings are then the ids.
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
    table, meant = _read(outputs, image_ids, box_format, where)
    table[EDGES] = in_order(table[EDGES].to_numpy(np.float64), order)
    if class_names is not None and "finding" in table:
        table["finding"] = _named_classes(table, class_names, where)
    sizes = None if image_sizes is None else _sizes_of(table, image_sizes)
    if in_shares:
        table = _in_px(table, sizes, where)
    if scale is not None:
        table[EDGES] = table[EDGES] * positive_scale(scale)
    return _warned(*_checked(table, meant, where, sizes), where)


def read_outputs(outputs: Any, image_ids: Iterable[Any] | None) -> tuple[pd.DataFrame, str]:
    """Convert outputs as `boxes_table` does, and return a note in place of its warning."""
    table, meant = _read(outputs, image_ids, None, "outputs")
    return _checked(table, meant, "outputs", None)


def _checked(
    table: pd.DataFrame, meant: _Meaning, where: str, sizes: np.ndarray | None
) -> tuple[pd.DataFrame, str]:
    """Check scores and boxes of a table, and return it without its column ``place``.

    The note says which predicted boxes without width or height were left out; else it is empty.
    """
    if "score" in table:
        check_scores(table, where)
    reading = BoxReading(
        form=meant.box_format,
        where=where,
        stated=meant.stated,
        affirmed=meant.affirmed,
        answers=PYTHON_ANSWERS,
    )
    if sizes is None:
        sizes = np.full((len(table), 2), np.nan)
    checked, notes = check_predictions(table, reading, sizes)
    if "score" not in table:
        require_corners(table.assign(**checked[EDGES]), where, PYTHON_ANSWERS)
    return checked.drop(columns="place"), "; ".join(notes)


def box_arguments(
    boxes: Any, truth: Any, image_ids: Any, *, one_class: bool = True
) -> BoxArguments:
    """Convert the arguments of a box metric to two tables and an index of image ids.

    A DataFrame that already has the columns ``image_id``, ``x1``, ``y1``, ``x2`` and ``y2`` is
    returned with its ids as texts and otherwise unchanged. The column ``finding`` is removed unless
    both tables have it. If no ids are given, the two lists must hold one output for each image in
    the same order, and the positions become the ids.

    Args:
        boxes: Predicted boxes, in a form that `boxes_table` reads: a DataFrame, a list of the
            outputs of a detection library with one for each image, or COCO results.
        truth: True boxes, in one of the same forms, without scores.
        image_ids: Ids of all images that are evaluated, or None if `boxes` and `truth` are lists
            that hold one output for each image.
        one_class: If True, a table whose column ``finding`` names several classes is refused.

    Returns:
        The table of predicted boxes, the table of true boxes, and the image ids.

    Raises:
        InputError: `boxes` or `truth` has no form that `boxes_table` reads, a table has several
            classes although `one_class` is True, an image id is missing, or `image_ids` is None
            although `boxes` and `truth` are not two lists of the same length with one output for
            each image.

    Example:
        >>> outputs = [{"boxes": [[0, 0, 4, 2]], "scores": [0.9]}]
        >>> arguments = box_arguments(outputs, [{"boxes": [[0, 0, 4, 2]]}], ["a"])
        >>> arguments.boxes["score"].tolist(), arguments.image_ids.tolist()
        ([0.9], ['a'])
    """
    ids = _numbers_of_outputs(boxes, truth) if image_ids is None else _index_of_ids(image_ids)
    predicted = _as_table(boxes, ids, "boxes")
    true = _as_table(truth, ids, "truth")
    if one_class:
        _require_one_class(predicted, true)
    if "finding" not in predicted or "finding" not in true:  # classes of one table compare nothing
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
            f"boxes: there {_are(len(boxes), 'output')} and {len(truth):,} of truth; give one for "
            "each image, in the same order"
        )
    width = len(str(len(boxes)))
    return pd.Index([f"{number:0{width}d}" for number in range(len(boxes))], dtype=TEXT)


def _index_of_ids(image_ids: Any) -> pd.Index:
    if isinstance(image_ids, str):
        raise InputError(f"image_ids: {image_ids!r} is one text; give a sequence of image ids")
    if isinstance(image_ids, pd.Index) and image_ids.dtype == TEXT:
        return image_ids
    try:
        names = list(image_ids)
    except TypeError:
        kind = type(image_ids).__name__
        raise InputError(f"image_ids: expected a sequence of image ids, got {kind}") from None
    missing = [number for number, name in enumerate(names) if pd.isna(name)]
    if missing:
        raise InputError(f"image_ids: number {missing[0]} is missing; fill it in")
    return pd.Index([_id_text(name) for name in names], dtype=TEXT)


def _warned(table: pd.DataFrame, note: str, where: str) -> pd.DataFrame:
    """Return the table, with a warning if there is a note."""
    if note:
        warnings.warn(f"{where}: {note}", UserWarning, stacklevel=4)
    return table


def _as_table(value: Any, ids: pd.Index, where: str) -> pd.DataFrame:
    if isinstance(value, pd.DataFrame) and {"image_id", *EDGES} <= set(value.columns):
        if where == "boxes" and all(map(pd.api.types.is_numeric_dtype, value[EDGES].dtypes)):
            value = _warned(*without_empty_boxes(value), where)
        if "finding" not in value:
            used = [name for name in ("image_id", *EDGES, "score") if name in value]
            kind = class_column(value.drop(columns=used))
            value = value if kind is None else value.assign(finding=value[kind].astype(str))
        has_text_ids = value["image_id"].dtype == TEXT
        return value if has_text_ids else value.assign(image_id=value["image_id"].astype(TEXT))
    table, meant = _read(value, ids, None, where)
    return _warned(*_checked(table, meant, where, None), where)


def _require_one_class(boxes: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Refuse boxes of several classes, which a metric of one class would mix."""
    classes: set[str] = set()
    for where, table in (("boxes", boxes), ("truth", truth)):
        kinds = sorted(map(str, table["finding"].dropna().unique())) if "finding" in table else []
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


def _read(
    outputs: Any, image_ids: Iterable[Any] | None, box_format: BoxForm | None, where: str
) -> tuple[pd.DataFrame, _Meaning]:
    """Read outputs of any kind into a table of boxes, and return it with the format of the boxes.

    The column ``place`` of the table says where each box is in the outputs, for messages.
    """
    if isinstance(outputs, pd.DataFrame):
        return _read_frame(outputs, box_format, where)
    if isinstance(outputs, Mapping) and "annotations" in outputs:
        outputs = outputs["annotations"]
    if isinstance(outputs, Mapping) and "boxes" not in outputs:
        raise InputError(
            f"{where}: {_KINDS}, got {type(outputs).__name__} of {', '.join(map(str, outputs))}"
        )
    single = isinstance(outputs, Mapping) or _is_detections(outputs) or _is_ultralytics(outputs)
    images = [outputs] if single else _as_list(outputs, where)
    if is_coco(images):
        return _read_coco(images, box_format, where)
    if not images and image_ids is not None:
        ids = _index_of_ids(image_ids)
        if len(ids):
            raise InputError(
                f"{where}: is an empty list, and there {_are(len(ids), 'image')}; give an output "
                "for each image, with empty boxes where nothing was found"
            )
    return _read_images(images, image_ids, box_format, where)


def _as_list(outputs: Any, where: str) -> list[Any]:
    if isinstance(outputs, str | bytes) or not isinstance(outputs, Iterable):
        raise InputError(f"{where}: {_KINDS}, got {type(outputs).__name__}")
    if isinstance(outputs, pd.Series):  # its index may be in another order than the images
        raise InputError(
            f"{where}: {_KINDS}, got Series; give its values as a list, in the order of the images"
        )
    return list(outputs)


def _read_images(
    images: list[Any], image_ids: Iterable[Any] | None, box_format: BoxForm | None, where: str
) -> tuple[pd.DataFrame, _Meaning]:
    """Read a list that holds one output for each image."""
    ids = _ids_of_outputs(images, image_ids, where)
    read = [_read_one(output, f"{where}[{n}]", box_format) for n, output in enumerate(images)]
    counts = [len(output.edges) for output in read]
    filled = [output for output in read if len(output.edges)] or read
    places = [f"number {n}, box {k}" for n, count in enumerate(counts) for k in range(count)]
    table = pd.DataFrame(
        {"image_id": np.repeat(np.asarray(ids, dtype=object), counts), "place": places}
    )
    edges = np.concatenate([np.zeros((0, 4)), *(output.edges for output in read)])
    table = table.assign(**dict(zip(EDGES, edges.T, strict=True)))
    for name, what in (("score", "scores"), ("finding", "classes")):
        have = [getattr(output, what) is not None for output in filled]
        if any(have) and not all(have):
            without = filled[have.index(False)].where
            raise InputError(f"{without}: has no {what}, and others have; give all or none")
        if any(have):
            values = np.concatenate([getattr(output, what) for output in filled])
            table[name] = pd.Series(values, dtype="float64" if name == "score" else TEXT)
    if table.empty and "score" not in table:
        table["score"] = np.zeros(0)
    return _ordered(table), _Meaning(box_format or "xyxy", affirmed=box_format is not None)


def _ids_of_outputs(images: list[Any], image_ids: Iterable[Any] | None, where: str) -> list[str]:
    if image_ids is None:
        files = [getattr(image, "path", None) for image in images]
        if not all(isinstance(file, str) for file in files):
            raise InputError(
                "image_ids: missing; give the id of each image, in the order of the outputs"
            )
        ids = pd.Index([_file_stem(str(file)) for file in files], dtype=TEXT)
    else:
        ids = _index_of_ids(image_ids)
    if len(ids) != len(images):
        raise InputError(
            f"{where}: there {_are(len(images), 'output')} and {len(ids):,} image_ids; give one "
            "output for each image, in the same order"
        )
    if not ids.is_unique:
        raise InputError(
            f"image_ids: '{ids[ids.duplicated()][0]}' appears more than once; give each image once"
        )
    return [str(name) for name in ids]


def _is_detections(output: Any) -> bool:
    """Return True for a `supervision.Detections`, or an object with the same attributes."""
    return hasattr(output, "xyxy") and hasattr(output, "confidence")


def _is_ultralytics(output: Any) -> bool:
    """Return True for a result of Ultralytics, or an object with the same attributes."""
    return hasattr(getattr(output, "boxes", None), "xyxy")


def _read_one(output: Any, where: str, box_format: BoxForm | None) -> _Output:
    """Read the boxes of one image from the output of any known library."""
    names: Mapping[int, str] | None = None
    if _is_detections(output):
        boxes = output.xyxy
        scores = output.confidence
        labels = (getattr(output, "data", None) or {}).get("class_name")
        if labels is None:
            labels = output.class_id
    elif _is_ultralytics(output):
        boxes = output.boxes.xyxy
        scores = output.boxes.conf
        labels = output.boxes.cls
        names = getattr(output, "names", None)
    elif isinstance(output, Mapping):
        if "boxes" not in output:
            keys = ", ".join(map(str, list(output)[:10]))
            raise InputError(f"{where}: has no 'boxes'; it has {keys}")
        boxes = output["boxes"]
        scores = output.get("scores")
        labels = output.get("labels")
        box_format = box_format or _stated_format(boxes)
    else:
        kind = type(output).__name__
        raise InputError(
            f"{where}: expected a dict with boxes, a result of Ultralytics or "
            f"supervision.Detections, got {kind}"
        )
    edges = _numbers(boxes, f"{where}: boxes")
    edges = edges.reshape(0, 4) if edges.size == 0 else edges
    if edges.ndim != 2 or edges.shape[1] != 4:
        raise InputError(f"{where}: boxes must have the shape (N, 4), got {edges.shape}")
    if scores is not None:
        scores = _one_each(_numbers(scores, f"{where}: scores"), len(edges), where, "scores")
    if labels is not None:
        kinds = _one_each(as_array(labels), len(edges), where, "labels")
        labels = np.asarray([_class_text(kind, names) for kind in kinds], dtype=object)
    return _Output(where, _corners(edges, box_format or "xyxy"), scores, labels)


def _stated_format(boxes: Any) -> BoxForm | None:
    """Return the format that a torchvision BoundingBoxes tensor states; None for other values."""
    name = str(getattr(getattr(boxes, "format", None), "name", "")).lower()
    formats: dict[str, BoxForm] = {form: form for form in FORMS}
    return formats.get(name)


def _one_each(values: np.ndarray, count: int, where: str, what: str) -> np.ndarray:
    values = values.reshape(-1)
    if len(values) != count:
        raise InputError(f"{where}: has {count} boxes and {len(values)} {what}; give one for each")
    return values


def _class_text(kind: Any, names: Mapping[int, str] | None) -> str:
    if isinstance(kind, str):
        return kind
    number = int(kind)
    return str(number if names is None or number not in names else names[number])


def _read_coco(
    entries: list[Any], box_format: BoxForm | None, where: str
) -> tuple[pd.DataFrame, _Meaning]:
    """Read COCO results or annotations, which have one dictionary for each box."""
    numbers = []
    for number, entry in enumerate(entries):
        try:
            box = four_numbers(entry["bbox"])
            if box is None or np.isnan(box).any():
                raise ValueError
            numbers.append(box)
            _ = entry["image_id"]
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{where}: entry {number} needs image_id and bbox of four numbers"
            ) from None
    as_format: BoxForm = box_format or "xywh"
    corners = _corners(np.reshape(numbers, (-1, 4)), as_format)
    for row, entry in enumerate(entries):
        if turn := coco_rotation(entry):
            corners[row] = turned_bounds(corners[row], turn)
    table = pd.DataFrame(corners, columns=EDGES)
    table["image_id"] = [_id_text(entry["image_id"]) for entry in entries]
    table["place"] = [f"entry {number}" for number in range(len(entries))]
    has_names = all("category_name" in entry for entry in entries)
    category = "category_name" if has_names else "category_id"
    for name, key in (("score", "score"), ("finding", category), ("crowd", "iscrowd")):
        have = [key in entry for entry in entries]
        if not any(have):
            continue
        if name == "score" and not all(have):
            raise InputError(f"{where}: entry {have.index(False)} has no score, others have")
        values = [entry.get(key, 0) for entry in entries]
        if name == "score":
            table[name] = _numbers(values, f"{where}: score")
        elif name == "crowd":
            table[name] = np.asarray(values).astype(bool)
        else:
            table[name] = pd.Series([_id_text(value) for value in values], dtype=TEXT)
    return _ordered(table), _Meaning(as_format, affirmed=box_format is not None)


def _read_frame(
    frame: pd.DataFrame, box_format: BoxForm | None, where: str
) -> tuple[pd.DataFrame, _Meaning]:
    """Read a DataFrame whose columns have usual names."""
    columns = [str(column) for column in frame.columns]
    frame = frame.set_axis(columns, axis=1)
    image = find_column(columns, image_names(columns))
    if image is None:
        raise InputError(
            f"{where}: no column names the image; it has {', '.join(columns[:20])}: call it "
            "image_id"
        )
    edge_names, implied = edge_columns(columns, where)
    form: BoxForm = box_format or implied
    if frame[image].isna().any():
        row = frame.index[int(frame[image].isna().to_numpy().argmax())]
        raise InputError(f"{where}: row {row}: {image} is missing; fill it in")
    table = pd.DataFrame({"image_id": [_id_text(name) for name in frame[image]]})
    table["place"] = pd.Series([f"row {label}" for label in frame.index], dtype=TEXT)
    edges = [_numeric(frame, name, table, where) for name in edge_names]
    table[EDGES] = _corners(np.column_stack(edges).reshape(-1, 4), form)
    score = "score" if "score" in columns else find_column(columns, column_names("score"))
    if score is not None:
        table["score"] = _numeric(frame, score, table, where)
    numbers = [*EDGES, *(["score"] if score else [])]
    empty = table[numbers].isna().all(axis=1).to_numpy()
    used = [image, *edge_names, *([score] if score else [])]
    finding = class_column(frame[~empty].drop(columns=used))
    if finding is not None:
        table["finding"] = pd.Series([_id_text(kind) for kind in frame[finding]], dtype=TEXT)
    if "crowd" in frame:
        table["crowd"] = frame["crowd"].to_numpy()
    meaning = _Meaning(form, affirmed=box_format is not None, stated=form != "xyxy")
    return _ordered(table[~empty].reset_index(drop=True)), meaning


def edge_columns(columns: list[str], where: str) -> tuple[list[str], BoxForm]:
    """Return the names of the four columns that hold the boxes, and the format of the boxes.

    Args:
        columns: Names of the table's columns.
        where: Name of the table, for messages.

    Raises:
        InputError: No four columns are the edges of boxes.
    """
    if set(EDGES) <= set(columns):
        return EDGES, "xyxy"

    def matches(*roles: str) -> list[str]:
        names = [find_column(columns, column_names(role)) for role in roles]
        return [name for name in names if name is not None]

    readings: list[tuple[BoxForm, list[str]]] = [
        ("xyxy", matches("xmin", "ymin", "xmax", "ymax")),
        ("xywh", matches("xmin", "ymin", "width", "height")),
        ("cxcywh", matches("xcenter", "ycenter", "width", "height")),
    ]
    for form, names in readings:
        if len(names) == 4:
            return names, form
    missing = [edge for edge in EDGES if edge not in columns]
    if len(missing) < len(EDGES):
        raise InputError(
            f"{where}: {missing_columns(missing)}; it has {', '.join(columns[:20])}; rename what "
            "holds it"
        )
    raise InputError(
        f"{where}: no four columns are the edges of boxes; it has {', '.join(columns[:20])}: call "
        "them x1, y1, x2, y2, or x, y, width, height"
    )


def _numeric(frame: pd.DataFrame, column: str, table: pd.DataFrame, where: str) -> np.ndarray:
    cells = frame[column]
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    is_wrong = np.isnan(numbers) & cells.notna().to_numpy()
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise InputError(
            f"{where}: {table['place'][row]}, image '{table['image_id'][row]}': "
            f"{column}={cells.iloc[row]!r} is no number; correct it"
        )
    return numbers


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    names = ("image_id", *EDGES, "score", "finding", "crowd", "place")
    table = table[[name for name in names if name in table]]
    return table.astype({"image_id": TEXT})


def _corners(edges: np.ndarray, form: BoxForm) -> np.ndarray:
    """Convert boxes of any format to corners xyxy, shape ``(N, 4)``."""
    return corners_of(edges, form, "px", np.full((len(edges), 2), np.nan))


def _numbers(values: Any, where: str) -> np.ndarray:
    try:
        return as_array(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: are no numbers of one shape ({error})") from None


def _named_classes(
    table: pd.DataFrame, class_names: Sequence[str] | Mapping[int, str], where: str
) -> pd.Series:
    names = class_names if isinstance(class_names, Mapping) else dict(enumerate(class_names))
    texts = {_id_text(number): str(name) for number, name in names.items()}
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
    if isinstance(image_sizes, pd.DataFrame):
        missing = [c for c in ("image_id", "width", "height") if c not in image_sizes]
        if missing:
            raise InputError(f"image_sizes: column '{missing[0]}' is missing")
        frame = image_sizes.astype(_SIDES)
        ids = frame["image_id"].tolist()
        sides = frame[["width", "height"]].to_numpy()
    else:
        ids = list(image_sizes.keys())
        sides = np.asarray([image_sizes[name] for name in ids], dtype=np.float64).reshape(-1, 2)
    sized = pd.Index([_id_text(name) for name in ids], dtype=TEXT)
    rows = positions(table["image_id"], sized)
    sizes = np.full((len(table), 2), np.nan)
    sizes[rows >= 0] = sides[rows[rows >= 0]]
    return sizes


def _in_px(table: pd.DataFrame, sizes: np.ndarray | None, where: str) -> pd.DataFrame:
    if sizes is None:
        raise InputError("in_shares: shares need the width and height of each image; image_sizes=")
    unsized = np.isnan(sizes).any(axis=1)
    if unsized.any():
        row = table.iloc[int(unsized.argmax())]
        raise InputError(f"{where}: image '{row['image_id']}' has no size in image_sizes")
    px = table[EDGES].to_numpy(np.float64) * sizes[:, [0, 1, 0, 1]]
    return table.assign(**dict(zip(EDGES, px.T, strict=True)))


def positive_scale(scale: float) -> float:
    """Return a scale of boxes as a number; raise InputError unless it is positive and finite."""
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale: {scale} is no positive number, such as 2.0")
    return float(scale)


def _id_text(value: Any) -> str:
    return str(value.item() if hasattr(value, "item") else value)


def _file_stem(path: str) -> str:
    name = path.replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return stem if f".{ending}".lower() in _ENDINGS and dot and stem else name


def _are(count: int, noun: str) -> str:
    return f"is 1 {noun}" if count == 1 else f"are {count:,} {noun}s"
