"""The reader of boxes in memory: DataFrames, COCO results, and the outputs of detection libraries.

The module imports neither torch nor any detection library. It recognises an output by its
attributes and keys, and turns a tensor on any device into an array with the tensor's own methods.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_check import check_predictions
from cxr_compare.data_prep.contracts.box_numbers import coco_rotation, four_numbers
from cxr_compare.data_prep.contracts.box_readings import FORMS, STEPS, BoxForm, BoxReading
from cxr_compare.data_prep.contracts.boxes import EDGES, turned_bounds
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.answer_texts import BOX_KEY, shares_of
from cxr_compare.evaluation.boxes.box_checks import near_ids
from cxr_compare.evaluation.boxes.read_table import (
    ColumnNames,
    ReadTable,
    crowd_flags,
    file_stem,
    texts_of,
)
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice
from cxr_compare.evaluation.boxes.table_columns import read_frame
from cxr_compare.evaluation.statistics.arrays import as_array

_KINDS = "expected a DataFrame of boxes, a list with an output for each image, or COCO results"


def is_detector_output(value: Any) -> bool:
    """Return True for a list or tuple of a detector's outputs, or of COCO results or annotations.

    Its first item is the output of torchvision, Ultralytics or supervision for one image, or a COCO
    result or annotation.
    """
    if not isinstance(value, list | tuple) or not value:
        return False
    first = value[0]
    is_dict = isinstance(first, Mapping) and bool({"boxes", "bbox", BOX_KEY} & set(first))
    return is_dict or _is_detections(first) or _is_ultralytics(first)


def is_coco(value: Any) -> bool:
    """Return True for a list of COCO results or annotations, with one dictionary for each box.

    Its first item has the key ``bbox``, or ``box_2d`` as vision-language models write it.
    """
    is_dict = is_detector_output(value) and isinstance(value[0], Mapping)
    return is_dict and bool({"bbox", BOX_KEY} & set(value[0]))


def read_boxes(
    value: Any,
    image_ids: Iterable[Any] | None,
    names: ColumnNames,
    where: str,
    advice: ReadingAdvice,
    class_names: Mapping[int, str] | None = None,
) -> ReadTable:
    """Read boxes of any kind in memory, as `boxes_table` describes them.

    `image_ids` is None if the outputs name their images, and `class_names` if the numbers in a
    submission file are those of VinBigData. The rows are corners in their own unit, in the order of
    `value`, with ``score`` and ``finding`` where they have them. Of COCO results there are also
    ``category`` and, if every entry has them, ``category_name`` and ``file_name``. Any other value,
    or a part that cannot be read, raises InputError.
    """
    if isinstance(value, pd.DataFrame):
        return read_frame(value, names, where, advice, of_boxes=True, class_names=class_names)
    if isinstance(value, Mapping) and "annotations" in value:
        value = value["annotations"]
    if isinstance(value, Mapping) and "boxes" not in value:
        raise InputError(
            f"{where}: {_KINDS}, got {type(value).__name__} of {', '.join(map(str, value))}"
        )
    is_single = isinstance(value, Mapping) or _is_detections(value) or _is_ultralytics(value)
    images = [value] if is_single else _as_list(value, where)
    if is_coco(images):
        return read_coco(images, names, where, advice)
    ids = None if image_ids is None else index_of_ids(image_ids)
    if not images and ids is not None and len(ids):
        raise InputError(
            f"{where}: is an empty list, and there {_are(len(ids), 'image')}; give an output "
            "for each image, with empty boxes where nothing was found"
        )
    return _read_outputs(images, _ids_of_outputs(images, ids, where), names, where)


def boxes_in_px(
    read: ReadTable, sizes: np.ndarray, scale: float | None, answers: Mapping[str, str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Convert boxes to px of the original image, and check them; this is the one check of them.

    `sizes` has width and height in px of the image of each box, shape ``(N, 2)``, NaN if unknown;
    `answers` says what to do if the boxes have another form or unit, by its name. Returned are the
    rows with sorted corners and without boxes of zero size, and a note on each change. A box that
    is impossible, or boxes that are probably in another form or unit, raise InputError.
    """
    rows = read.rows
    where = read.where
    corners = rows[EDGES].to_numpy(np.float64)
    if scale is not None:
        if read.in_shares:
            raise InputError(
                f"{where}: scale is of boxes in px, and these are shares of the image; leave it out"
            )
        corners = corners * positive_scale(scale)
    if read.in_shares:
        has_no_size = np.isnan(sizes).any(axis=1)
        if has_no_size.any():
            first = rows.iloc[int(has_no_size.argmax())]
            raise InputError(
                f"{where}: {first['place']}: no size of image '{first['image_id']}' is known, so "
                "shares of it say nothing; give boxes in pixels"
            )
        unit = sizes / STEPS[read.reading.unit]
        corners = corners * np.hstack([unit, unit])
    rows = rows.assign(**dict(zip(EDGES, corners.T, strict=True)))
    reading = replace(read.reading, where=where, answers=answers)
    return check_predictions(rows, reading, sizes)


def positive_scale(scale: float) -> float:
    """Return a scale of boxes as a number; raise InputError unless it is positive and finite."""
    try:
        factor = float(scale)
    except (TypeError, ValueError):
        factor = np.nan
    if not (np.isfinite(factor) and factor > 0):
        raise InputError(f"scale: {scale} is no positive number, such as 2.0")
    return factor


def read_coco(
    entries: list[Any], names: ColumnNames, where: str, advice: ReadingAdvice
) -> ReadTable:
    """Read COCO results or annotations, which have one dictionary for each box."""
    if any(BOX_KEY in entry for entry in entries):
        return _read_answer_entries(entries, where)
    boxes, images = _boxes_and_images(entries, where)
    rows = pd.DataFrame({"image_id": texts_of(images)})
    corners, reading = names.corners(np.reshape(boxes, (-1, 4)), "xywh")
    for row, entry in enumerate(entries):
        if turn := coco_rotation(entry):
            corners[row] = turned_bounds(corners[row], turn)
    rows[EDGES] = corners
    if _all_have("score", entries, where) or not entries:
        rows["score"] = np.array(
            [_score(entry["score"], f"{where}: entry {row}") for row, entry in enumerate(entries)],
            dtype=np.float64,
        )
    places = [f"entry {number}" for number in range(len(entries))]
    for key in ("file_name", "category_name"):
        if entries and all(key in entry for entry in entries):
            rows[key] = texts_of([entry[key] for entry in entries])
    if _all_have("category_id", entries, where):
        rows["category"] = _classes([entry["category_id"] for entry in entries], places, where)
    named = next((key for key in ("category_name", "category") if key in rows), None)
    if named is not None:
        rows["finding"] = rows[named]
    if any("iscrowd" in entry for entry in entries):
        flags = [entry.get("iscrowd", 0) for entry in entries]
        rows["crowd"] = crowd_flags(pd.DataFrame({"iscrowd": flags}), where)
    rows["place"] = pd.Series(places, dtype=TEXT)
    return ReadTable(
        rows,
        reading=reading,
        advice=f", {advice.annotations}",
        class_advice=f", or {advice.annotations}",
        where=where,
    )


def _read_answer_entries(entries: list[Any], where: str) -> ReadTable:
    """Read the boxes of a vision-language model, one dictionary for each: y before x, 0 to 1000."""
    rows = []
    for number, entry in enumerate(entries):
        place = f"entry {number}"
        if BOX_KEY not in entry or pd.isna(entry.get("image_id")):
            raise InputError(f"{where}: {place} needs image_id and {BOX_KEY} of four numbers")
        corners = shares_of(entry[BOX_KEY], f"{where}: {place}")
        rows.append((entry["image_id"], *corners, place))
    table = pd.DataFrame(rows, columns=["image_id", *EDGES, "place"]).astype({"place": TEXT})
    table["image_id"] = texts_of(table["image_id"].tolist())
    if _all_have("label", entries, where):
        labels = [entry["label"] for entry in entries]
        table["finding"] = _classes(labels, table["place"].tolist(), where)
    if _all_have("score", entries, where):
        table["score"] = [
            _score(entry["score"], f"{where}: entry {row}") for row, entry in enumerate(entries)
        ]
    return ReadTable(table, reading=BoxReading(unit="share", stated=True), where=where)


def _classes(values: Collection[Any], places: Sequence[str], where: str) -> pd.Series:
    """Return classes as texts; raise InputError for a missing one."""
    missing = [number for number, value in enumerate(values) if pd.isna(value)]
    if missing:
        raise InputError(f"{where}: {places[missing[0]]}: the class is missing; fill it in")
    return texts_of(values)


def _all_have(key: str, entries: list[Any], where: str) -> bool:
    """Return True if all entries have a key, False if none has; refuse it on some of them."""
    has_key = [key in entry for entry in entries]
    if any(has_key) and not all(has_key):
        raise InputError(f"{where}: entry {has_key.index(False)} has no {key}, others have")
    return any(has_key)


def _score(value: Any, where: str) -> float:
    """Return a score as a number; refuse a list, or a number without bounds."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: score={str(value)[:80]!r} is no number") from None


def _boxes_and_images(entries: list[Any], where: str) -> tuple[list[Any], list[Any]]:
    boxes: list[tuple[float, ...]] = []
    images: list[Any] = []
    for number, entry in enumerate(entries):
        try:
            box = four_numbers(entry["bbox"])
            if box is None or np.isnan(box).any() or pd.isna(entry["image_id"]):
                raise ValueError
            boxes.append(box)
            images.append(entry["image_id"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{where}: entry {number} needs image_id and bbox of four numbers"
            ) from None
    return boxes, images


def _read_outputs(images: list[Any], ids: list[str], names: ColumnNames, where: str) -> ReadTable:
    """Read a list that holds one output for each image."""
    edges, scores, classes, counts = [np.zeros((0, 4))], [], [], []
    for number, output in enumerate(images):
        name = f"{where}[{number}]"
        boxes, own_scores, labels = _parts_of_output(output, name)
        corners = _corners(boxes, names, name)
        counts.append(len(corners))
        edges.append(corners)
        if own_scores is not None:
            own_scores = _one_each(
                _numbers(own_scores, f"{name}: scores"), len(corners), name, "scores"
            )
        if labels is not None:
            labels = _one_each(as_array(labels), len(corners), name, "labels")
        scores.append(own_scores)
        classes.append(labels)
    places = [f"number {n}, box {k}" for n, count in enumerate(counts) for k in range(count)]
    image_ids = np.repeat(np.asarray(ids, dtype=object), counts)
    rows = pd.DataFrame({"image_id": image_ids}).astype(TEXT)
    rows[EDGES] = np.concatenate(edges)
    filled = [n for n, count in enumerate(counts) if count] or range(len(counts))
    for column, values, what in (("score", scores, "scores"), ("finding", classes, "classes")):
        of_filled = [values[n] for n in filled]
        without = [n for n in filled if values[n] is None]
        if without and len(without) < len(of_filled):
            raise InputError(
                f"{where}[{without[0]}]: has no {what}, and others have; give all or none"
            )
        if of_filled and not without:
            cells = np.concatenate(of_filled)
            rows[column] = cells if column == "score" else _classes(cells, places, where)
    if rows.empty and "score" not in rows:
        rows["score"] = np.zeros(0)
    rows["place"] = pd.Series(places, dtype=TEXT)
    _, reading = names.corners(np.zeros((0, 4)), "xyxy")
    return ReadTable(rows, reading=reading, where=where)


def _corners(boxes: Any, names: ColumnNames, where: str) -> np.ndarray:
    edges = _numbers(boxes, f"{where}: boxes")
    edges = edges.reshape(0, 4) if edges.size == 0 else edges
    if edges.ndim != 2 or edges.shape[1] != 4:
        raise InputError(f"{where}: boxes must have the shape (N, 4), got {edges.shape}")
    corners, _ = names.corners(edges, _stated_format(boxes))
    return corners


def _as_list(outputs: Any, where: str) -> list[Any]:
    if isinstance(outputs, str | bytes) or not isinstance(outputs, Iterable):
        raise InputError(f"{where}: {_KINDS}, got {type(outputs).__name__}")
    if isinstance(outputs, pd.Series):  # its index may be in another order than the images
        raise InputError(
            f"{where}: {_KINDS}, got Series; give its values as a list, in the order of the images"
        )
    return list(outputs)


def index_of_ids(image_ids: Any) -> pd.Index:
    """Return image ids as texts; raise InputError for one text, no sequence or a missing id."""
    if isinstance(image_ids, str):
        raise InputError(f"image_ids: {image_ids!r} is one text; give a sequence of image ids")
    if isinstance(image_ids, AbstractSet | pd.DataFrame):
        kind = type(image_ids).__name__
        raise InputError(f"image_ids: a {kind} has no order of ids; give a list, or one column")
    if isinstance(image_ids, pd.Index) and image_ids.dtype == TEXT and not image_ids.hasnans:
        return image_ids
    try:
        names = list(image_ids)
    except TypeError:
        kind = type(image_ids).__name__
        raise InputError(f"image_ids: expected a sequence of image ids, got {kind}") from None
    missing = [number for number, name in enumerate(names) if pd.isna(name)]
    if missing:
        raise InputError(f"image_ids: number {missing[0]} is missing; fill it in")
    return pd.Index([name.item() if hasattr(name, "item") else name for name in names], dtype=TEXT)


def _ids_of_outputs(images: list[Any], ids: pd.Index | None, where: str) -> list[str]:
    files = [getattr(image, "path", None) for image in images]
    if ids is None:
        if not all(isinstance(file, str) for file in files):
            raise InputError(
                "image_ids: missing; give the id of each image, in the order of the outputs"
            )
        ids = pd.Index([file_stem(file) for file in files], dtype=TEXT)
    if len(ids) != len(images):
        raise InputError(
            f"{where}: there {_are(len(images), 'output')} and {len(ids):,} image_ids; give one "
            "output for each image, in the same order"
        )
    if not ids.is_unique:
        raise InputError(
            f"image_ids: '{ids[ids.duplicated()][0]}' appears more than once; give each image once"
        )
    ends = [_ends_of_path(file) if isinstance(file, str) else [] for file in files]
    near = near_ids({end for of_file in ends for end in of_file}, ids)
    near |= dict(zip(ids, ids, strict=True))
    named = [next((near[end] for end in of_file if end in near), None) for of_file in ends]
    if set(named) == set(ids):  # the files name the images, in an order of their own
        return [str(name) for name in named]
    for number, (name, image) in enumerate(zip(named, ids, strict=True)):
        if name not in (None, image):
            raise InputError(
                f"{where}[{number}]: is of file {files[number]!r}, and image_ids has '{image}' in "
                "its position; give the ids in the order of the outputs"
            )
    return [str(name) for name in ids]


def _ends_of_path(file: str) -> list[str]:
    """Return a path without the file's suffix, whole and without ever more folders."""
    *folders, _ = file.replace("\\", "/").split("/")
    parts = [*folders, file_stem(file)]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _is_detections(output: Any) -> bool:
    """Return True for a `supervision.Detections`, or an object with the same attributes."""
    return hasattr(output, "xyxy") and hasattr(output, "confidence")


def _is_ultralytics(output: Any) -> bool:
    """Return True for a result of Ultralytics, or an object with the same attributes."""
    return hasattr(getattr(output, "boxes", None), "xyxy")


def _parts_of_output(output: Any, where: str) -> tuple[Any, Any, Any]:
    """Return boxes, scores and classes of one image from the output of any known library."""
    if _is_detections(output):
        names = (getattr(output, "data", None) or {}).get("class_name")
        return output.xyxy, output.confidence, output.class_id if names is None else names
    if _is_ultralytics(output):
        labels = output.boxes.cls
        names = getattr(output, "names", None)
        if labels is not None and names is not None:
            labels = [names.get(int(label), str(int(label))) for label in as_array(labels).ravel()]
        return output.boxes.xyxy, output.boxes.conf, labels
    if isinstance(output, Mapping):
        if "boxes" not in output:
            keys = ", ".join(map(str, list(output)[:10]))
            raise InputError(f"{where}: has no 'boxes'; it has {keys}")
        return output["boxes"], output.get("scores"), output.get("labels")
    raise InputError(
        f"{where}: expected a dict with boxes, a result of Ultralytics or supervision.Detections, "
        f"got {type(output).__name__}"
    )


def _stated_format(boxes: Any) -> BoxForm:
    """Return the format that a BoundingBoxes tensor states; corners for other values."""
    name = str(getattr(getattr(boxes, "format", None), "name", "")).lower()
    formats: dict[str, BoxForm] = {form: form for form in FORMS}
    return formats.get(name, "xyxy")


def _one_each(values: np.ndarray, count: int, where: str, what: str) -> np.ndarray:
    values = values.reshape(-1)
    if len(values) != count:
        raise InputError(f"{where}: has {count} boxes and {len(values)} {what}; give one for each")
    return values


def _numbers(values: Any, where: str) -> np.ndarray:
    try:
        return as_array(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: are no numbers of one shape ({error})") from None


def _are(count: int, noun: str) -> str:
    return f"is 1 {noun}" if count == 1 else f"are {count:,} {noun}s"
