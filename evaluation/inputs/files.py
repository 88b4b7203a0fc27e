"""Predictions of any kind: files and folders of other software, and outputs of libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import FORMS, BoxForm, corners_of
from cxr_compare.data_prep.base.boxes import NUMBERS
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import require_there
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import class_column
from cxr_compare.data_prep.base.user_tables import (
    PREDICTIONS,
    is_json_file,
    read_json_file,
    read_text_table,
    refuse_other_kind,
)
from cxr_compare.data_prep.sources.coco import coco_results, is_result
from cxr_compare.data_prep.sources.yolo import result_names, yolo_results
from cxr_compare.evaluation.inputs.frames import read_frame, read_scores, with_named_index
from cxr_compare.evaluation.inputs.rows import Rows, numbers_in, texts_of, with_numbers
from cxr_compare.evaluation.statistics.arrays import as_array


def read_rows(
    value: Any,
    order: pd.Series | None,
    columns: Mapping[str, str],
    where: str,
    name: str = "NAME",
    findings: Sequence[str] = (),
    ids: Sequence[str] = (),
) -> Rows:
    """Read predictions: a file, a folder, a frame, outputs of a library, or scores.

    `order` has the image ids of the truth in its order and with its index; `columns` has names of
    columns by role; `name` is the system in advice; `read_frame` tells of `findings` and `ids`.
    """
    if isinstance(value, str | Path):
        value, where = Path(value), str(value)
        if value.is_dir():
            return _yolo(value)
        require_there(value)
        refuse_other_kind(value)
        if not is_json_file(value):
            value = read_lines(value)
        elif are_rows(value := read_json_file(value)):
            value = pd.DataFrame(value)
        else:
            rows = _coco(value, columns, where)
            if isinstance(value, Mapping) and "score" not in rows.table:
                raise InputError(
                    f"{where}: a COCO file of annotations, whose boxes have no scores; give COCO "
                    "results, or write a score into each annotation"
                )
            return rows
    elif isinstance(value, pd.DataFrame):
        value = with_named_index(value, columns)
    if isinstance(value, pd.DataFrame):
        return read_frame(value, columns, where, name, order, findings, ids)
    if isinstance(value, Mapping) and "annotations" in value:
        return _coco(value, columns, where)
    if is_output(value):
        value = [value]
    if are_outputs(value):
        return read_outputs(value, None if order is None else order.tolist(), where)
    if isinstance(value, list | tuple) and (not value or is_result(value[0])):
        return _coco(value, columns, where)
    _refuse_objects(value, where)
    return read_scores(value, order, where)


def read_lines(path: Path) -> pd.DataFrame:
    """Read a table of predictions; its index has the line of each row, below the header."""
    table = read_text_table(path, ())
    table.index += 2
    return table


def are_outputs(value: Any) -> bool:
    """Return True for a list with an output of a detection library for each image."""
    return isinstance(value, list | tuple) and bool(value) and is_output(value[0])


def is_output(value: Any) -> bool:
    """Return True for the output of a detection library for one image."""
    return _parts(value) is not None


def are_rows(value: Any) -> bool:
    """Return True for a list of dictionaries of one value each, which is a table."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, Mapping) and not is_result(row) for row in value)
        and not any(isinstance(cell, list | Mapping) for row in value for cell in row.values())
    )


def _coco(entries: Any, columns: Mapping[str, str], where: str) -> Rows:
    form = cast("BoxForm", columns.get("box_form", "xywh"))
    return Rows(coco_results(entries, where, form), form, where=where, is_coco=True)


def _yolo(folder: Path) -> Rows:
    results = yolo_results(folder)
    return Rows(
        results.table,
        "cxcywh",
        "share",
        stated=True,
        listed=results.images,
        where=str(folder),
        notes=results.notes,
    )


def classes_named(path: Path) -> set[str]:
    """Return the classes that results name; empty for results that name none."""
    if path.is_dir():
        return set(result_names(path).values())
    if path.suffix.lower() == ".json":
        content = read_json_file(path)
        if are_rows(content):
            table = pd.DataFrame(content)
            kind = class_column(table)
            return set() if kind is None else {str(cell) for cell in table[kind].dropna()}
        return set(coco_results(content, str(path)).get("category_name", ()))
    return set()


def _refuse_objects(value: Any, where: str) -> None:
    """Refuse an object, or a list that begins with more than a number, a text or a row of these."""
    if isinstance(value, Mapping):
        raise _no_output(value, where)
    if not isinstance(value, list | tuple):
        return
    try:
        array = as_array(value[0])
        is_object = array.dtype == object and not pd.api.types.is_scalar(value[0])
    except (TypeError, ValueError):  # of lengths that differ
        is_object, array = True, np.empty(0)
    if is_object or array.ndim > 1:
        raise _no_output(value[0], f"{where}[0]")


def _no_output(output: Any, where: str) -> InputError:
    """Return the error of an object that is no output of a detection library, and no scores."""
    contents = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    return InputError(f"{where}: is a {type(output).__name__}{contents[:200]}; {PREDICTIONS}")


def _parts(output: Any) -> tuple[Any, Any, Any] | None:
    """Return boxes, scores and classes of one image of torchvision, Ultralytics or supervision."""
    if hasattr(output, "xyxy") and hasattr(output, "confidence"):
        names = (getattr(output, "data", None) or {}).get("class_name")
        return output.xyxy, output.confidence, output.class_id if names is None else names
    if hasattr(getattr(output, "boxes", None), "xyxy"):
        classes, names = output.boxes.cls, getattr(output, "names", None)
        if classes is not None and names is not None:
            numbers = texts_of(as_array(classes).reshape(-1))
            by_number = dict(zip(texts_of(names), names.values(), strict=True))
            classes = np.array([by_number.get(number, number) for number in numbers], dtype=object)
        return output.boxes.xyxy, output.boxes.conf, classes
    if isinstance(output, Mapping) and "boxes" in output:
        return output["boxes"], output.get("scores"), output.get("labels")
    return None


def read_outputs(outputs: Sequence[Any], ids: Sequence[str] | None, where: str) -> Rows:
    """Read a list with an output for each image, in the order of the images or of their files."""
    names = _names_of_outputs(outputs, ids, where)
    tables = [
        _output(output, name, number, where)
        for number, (name, output) in enumerate(zip(names, outputs, strict=True))
    ]
    filled = [number for number, table in enumerate(tables) if len(table)] or range(len(tables))
    for column, noun in (("score", "scores"), ("finding", "labels")):
        without = [number for number in filled if column not in tables[number]]
        if without and len(without) < len(filled):
            raise InputError(
                f"{where}[{without[0]}]: has no {noun}, and others have; give all or none"
            )
    table = pd.concat([tables[number] for number in filled], ignore_index=True)
    table = with_numbers(table, numbers_in(table), where)
    return Rows(table, ran=names, where=where)


def _names_of_outputs(outputs: Sequence[Any], ids: Sequence[str] | None, where: str) -> list[str]:
    """Return the image of each output: that of its file, if that is known, or by the order."""
    files = [str(getattr(output, "path", None) or "") for output in outputs]
    have_files = all(files)
    if have_files and ids is None:
        return [Path(file).name for file in files]
    image_ids = [str(name) for name in ids or ()]
    fits = Names(image_ids).fitting(files)[0] if have_files else {}
    images_of = [fits.get(file, []) for file in files]
    names = [images[0] for images in images_of if len(images) == 1]
    if len(set(names)) == len(files):
        return names
    if ids is None or len(ids) != len(outputs):
        images = "unnamed images" if ids is None else f"{len(ids)} images"
        raise InputError(
            f"{where}: {len(outputs)} outputs of {images}; give one output for each image, in one "
            "order, or the boxes as a table with image_id"
        )
    for number, (of_file, image_id) in enumerate(zip(images_of, image_ids, strict=True)):
        if of_file and image_id not in of_file:
            raise InputError(
                f"{where}[{number}]: is of the file {files[number]!r}, not of image '{image_id}'; "
                "give the ids in the order of the outputs"
            )
    return image_ids


def _output(output: Any, name: str, number: int, where: str) -> pd.DataFrame:
    """Return the boxes of one image; refuse what is no output of a detection library."""
    parts = _parts(output)
    at = f"{where}[{number}]"
    if parts is None:
        raise _no_output(output, at)
    boxes, scores, classes = parts
    try:
        corners = as_array(boxes).astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{at}: boxes are no array of numbers") from None
    corners = corners.reshape(0, len(NUMBERS)) if corners.size == 0 else corners
    if corners.ndim != 2 or corners.shape[1] != len(NUMBERS):
        raise InputError(f"{at}: boxes must have the shape (N, 4), got {corners.shape}")
    # A tensor of torchvision may state how its numbers are written.
    form = str(getattr(getattr(boxes, "format", None), "name", "")).lower()
    if form in FORMS:
        unknown = np.full((len(corners), 2), np.nan)
        corners = corners_of(corners, form, "px", unknown)
    table = pd.DataFrame(corners, columns=NUMBERS).assign(image_id=name)
    table["position"] = [f"number {number}, box {box}" for box in range(len(table))]
    for column, noun, values in (("score", "scores", scores), ("finding", "labels", classes)):
        if values is None:
            continue
        cells = as_array(values).reshape(-1)
        if len(cells) != len(table):
            raise InputError(f"{at}: {len(table)} boxes and {len(cells)} {noun}; give one each")
        missing = pd.isna(cells)
        if column == "finding" and missing.any():
            position = table["position"][int(missing.argmax())]
            raise InputError(f"{where}: {position}: the class is missing; fill it in")
        table[column] = texts_of(cells) if column == "finding" else cells
    return table
