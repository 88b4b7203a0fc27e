"""Predictions of any kind: files and folders of other software, and outputs of libraries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import FORMS, corners_of, four_numbers
from cxr_compare.data_prep.base.boxes import turned_bounds
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import read_text_file
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.user_tables import (
    read_json_file,
    read_text_table,
    refuse_other_kind,
)
from cxr_compare.data_prep.sources.coco import coco_rotation
from cxr_compare.data_prep.sources.yolo import not_yolo, read_class_names
from cxr_compare.evaluation.inputs.frames import read_frame, read_scores
from cxr_compare.evaluation.inputs.rows import (
    NUMBERS,
    Rows,
    crowd_flags,
    numbers_in,
    texts_of,
    with_numbers,
)
from cxr_compare.evaluation.statistics.arrays import as_array

_FEWEST_LINES = 5
_PROOF = 0.1
"""Share of impossible boxes from which the usual order of a YOLO line is not meant."""
_BEYOND = 0.01
"""Share of a side by which a box may leave its image by rounding."""
_NO_PREDICTIONS = ("classes.txt", "requirements.txt", "readme.txt")


def read_rows(
    value: Any,
    order: pd.Series | None,
    columns: Mapping[str, str],
    where: str,
    name: str = "NAME",
) -> Rows:
    """Read predictions: a file, a folder, a frame, outputs of a library, or scores.

    `order` has the image ids of the truth in its order and with its index; `columns` has names of
    columns by role; `name` is the system in advice.
    """
    if isinstance(value, str | Path):
        value, where = Path(value), str(value)
        if value.is_dir():
            return _yolo(value)
        if not value.is_file():
            raise InputError(f"{value}: no such file or folder")
        refuse_other_kind(value)
        if value.read_bytes()[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{"):
            return _coco(read_json_file(value), where)
        value = read_text_table(value, ())
        value.index += 2  # the line of a row, below the header
    if isinstance(value, pd.DataFrame):
        return read_frame(value, columns, where, name)
    if isinstance(value, Mapping) and "annotations" in value:  # a COCO file in memory
        return _coco(value["annotations"], where)
    if is_output(value):
        value = [value]
    if are_outputs(value):
        return read_outputs(value, None if order is None else order.tolist(), where)
    if isinstance(value, list | tuple) and value and is_coco(value[0]):
        return _coco(value, where)
    return read_scores(value, order, where)


def are_outputs(value: Any) -> bool:
    """Return True for a list with an output of a detection library for each image."""
    return isinstance(value, list | tuple) and bool(value) and is_output(value[0])


def is_output(value: Any) -> bool:
    """Return True for the output of a detection library for one image."""
    return _parts(value) is not None


def is_coco(entry: Any) -> bool:
    """Return True for one entry of COCO results or annotations."""
    return isinstance(entry, Mapping) and "bbox" in entry


def _coco(entries: Any, where: str) -> Rows:
    """Read COCO results: a dictionary for each box."""
    if not isinstance(entries, list | tuple) or not all(map(is_coco, entries)):
        raise InputError(
            f"{where}: COCO results are a list of boxes with image_id, bbox, category_id and score"
        )
    boxes = []
    for number, entry in enumerate(entries):
        box = four_numbers(entry["bbox"])
        image = entry.get("image_id")
        if box is None or np.isnan(box).any() or not _is_filled(image):
            raise InputError(f"{where}: entry {number} needs image_id and a bbox of four numbers")
        boxes.append(box)
    table = pd.DataFrame(np.reshape(boxes, (-1, 4)), columns=NUMBERS)
    table["image_id"] = texts_of(entry["image_id"] for entry in entries)
    table["place"] = [f"entry {number}" for number in range(len(entries))]
    for key, column in (("score", "score"), ("category_id", "category")):
        if _all_have(key, entries, where):
            table[column] = [entry[key] for entry in entries]
    for key in ("file_name", "category_name"):
        if entries and all(_is_filled(entry.get(key)) for entry in entries):
            table[key] = texts_of(entry[key] for entry in entries)
    if "category" in table:
        table["category"] = texts_of(table["category"])
    named = next((key for key in ("category_name", "category") if key in table), None)
    if named is not None:
        table["finding"] = table[named]
    if any("iscrowd" in entry for entry in entries):
        flags = pd.Series([entry.get("iscrowd", 0) for entry in entries], dtype=object)
        table["crowd"] = crowd_flags(flags, where)
    rows = Rows(with_numbers(table, numbers_in(table), where), "xywh", where=where, is_coco=True)
    _turn(rows, entries)
    return rows


def _is_filled(value: Any) -> bool:
    is_plain = isinstance(value, str | int | float | np.generic)
    return is_plain and value == value and value != ""  # NaN differs from itself


def _all_have(key: str, entries: Sequence[Mapping[str, Any]], where: str) -> bool:
    """Return True if all entries have a key, False if none has; refuse one that lacks it."""
    filled = [entry.get(key) is not None for entry in entries]
    if any(filled) and not all(filled):
        raise InputError(f"{where}: entry {filled.index(False)} has no {key}, others have")
    return any(filled)


def _turn(rows: Rows, entries: Sequence[Mapping[str, Any]]) -> None:
    """Replace boxes that are turned, as CVAT writes them, by the bounds of the turned ones."""
    for row, entry in enumerate(entries):
        if degrees := coco_rotation(entry.get("attributes")):
            x, y, width, height = rows.table[NUMBERS].iloc[row].to_numpy(np.float64)
            x1, y1, x2, y2 = turned_bounds(np.array([x, y, x + width, y + height]), degrees)
            rows.table.loc[row, NUMBERS] = [x1, y1, x2 - x1, y2 - y1]


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
        _output(output, image, number, where)
        for number, (image, output) in enumerate(zip(names, outputs, strict=True))
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
    named = all(files)
    if named and ids is None:
        return [Path(file).name for file in files]
    known = [str(name) for name in ids or ()]
    fits = Names(known).fitting(files) if named else {}
    found = [fits.get(file, []) for file in files]
    names = [images[0] for images in found if len(images) == 1]
    if len(set(names)) == len(files):
        return names
    if ids is None or len(ids) != len(outputs):
        images = "unnamed images" if ids is None else f"{len(ids)} images"
        raise InputError(
            f"{where}: {len(outputs)} outputs of {images}; give one output for each image, in one "
            "order, or the boxes as a table with image_id"
        )
    for number, (of_file, image) in enumerate(zip(found, known, strict=True)):
        if of_file and image not in of_file:
            raise InputError(
                f"{where}[{number}]: is of the file {files[number]!r}, not of image '{image}'; "
                "give the ids in the order of the outputs"
            )
    return known


def _output(output: Any, image: str, number: int, where: str) -> pd.DataFrame:
    """Return the boxes of one image; refuse what is no output of a detection library."""
    parts = _parts(output)
    at = f"{where}[{number}]"
    if parts is None:
        kind = type(output).__name__
        held = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise InputError(f"{at}: is a {kind}{held}; give an output with boxes for each image")
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
    table = pd.DataFrame(corners, columns=NUMBERS).assign(image_id=image)
    table["place"] = [f"number {number}, box {box}" for box in range(len(table))]
    for column, noun, values in (("score", "scores", scores), ("finding", "labels", classes)):
        if values is None:
            continue
        cells = as_array(values).reshape(-1)
        if len(cells) != len(table):
            raise InputError(f"{at}: {len(table)} boxes and {len(cells)} {noun}; give one each")
        missing = pd.isna(cells)
        if column == "finding" and missing.any():
            place = table["place"][int(missing.argmax())]
            raise InputError(f"{where}: {place}: the class is missing; fill it in")
        table[column] = texts_of(cells) if column == "finding" else cells
    return table


def _yolo(folder: Path) -> Rows:
    """Read a folder of YOLO's text files: class, centre, size and confidence, as shares."""
    labels = folder / "labels" if (folder / "labels").is_dir() else folder
    files = [p for p in sorted(labels.glob("*.txt")) if p.name.lower() not in _NO_PREDICTIONS]
    if not files:
        raise InputError(
            f"{labels}: holds no .txt file of YOLO; give a CSV, JSON or the folder of save_txt=True"
        )
    rows = [row for path in files for row in _lines_of_yolo(path)]
    table = pd.DataFrame(rows, columns=["image_id", "place", "finding", *NUMBERS, "score"])
    scored = table["score"].notna()
    if not scored.any():
        table = table.drop(columns="score")
    elif not scored.all():
        raise InputError(
            f"{labels}: {table['place'][~scored].iloc[0]}: no confidence, and others have one; "
            "write it too (save_conf=True)"
        )
    table = with_numbers(table, [*numbers_in(table), "finding"], str(labels))
    notes = []
    if "score" in table and _is_score_first(table):
        table[["score", *NUMBERS]] = table[[*NUMBERS, "score"]].to_numpy()
        notes.append(
            "Each line is read as class, confidence, centre and size: read as class, centre, size "
            "and confidence, boxes would leave their images."
        )
    names = _yolo_names(folder)
    unnamed = ~table["finding"].isin([0] if names is None else list(names))
    if unnamed.any():
        row = table[unnamed].iloc[0]
        raise InputError(
            f"{labels}: {row['place']}: class {row['finding']:g} has no name; name the classes in "
            "a data.yaml beside the folder"
        )
    table = table.drop(columns="finding") if names is None else table
    if names is not None:
        table["finding"] = table["finding"].map(names)
    listed = [path.stem for path in files]
    return Rows(
        table, "cxcywh", "share", stated=True, listed=listed, where=str(folder), notes=notes
    )


def _is_score_first(table: pd.DataFrame) -> bool:
    """Return True if the confidence stands before the box in all lines, and not behind it.

    A few boxes that leave their images, or a few lines, prove nothing.
    """
    values = table[[*NUMBERS, "score"]].to_numpy(np.float64)
    usual = _are_impossible(values[:, :4], values[:, 4])
    other = _are_impossible(values[:, 1:], values[:, 0])
    return len(table) >= _FEWEST_LINES and usual.mean() > _PROOF and not other.any()


def _are_impossible(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return True for boxes (centre and size as shares) that leave their image, or wrong scores."""
    corners = np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])
    leaves = ((corners < -_BEYOND) | (corners > 1 + _BEYOND)).any(axis=1)
    return leaves | (boxes[:, 2:] <= 0).any(axis=1) | (scores < 0) | (scores > 1)


def classes_named(path: Path) -> set[str]:
    """Return the classes that results name; empty for results that name none."""
    if path.is_dir():
        return set((_yolo_names(path) or {}).values())
    if path.suffix.lower() == ".json":
        entries = read_json_file(path)
        named = isinstance(entries, list) and all(map(is_coco, entries))
        if named and all(_is_filled(entry.get("category_name")) for entry in entries):
            return {str(entry["category_name"]) for entry in entries}
    return set()


def _yolo_names(folder: Path) -> dict[int, str] | None:
    """Return the names of YOLO's classes in a data.yaml of the folder or the one above it."""
    for parent in (folder, folder.parent):
        if (parent / "data.yaml").is_file():
            return read_class_names(parent / "data.yaml")
    return None


def _lines_of_yolo(path: Path) -> Iterator[tuple[Any, ...]]:
    for number, line in enumerate(read_text_file(path).splitlines(), start=1):
        cells = line.split()
        if reason := not_yolo(line):
            raise InputError(f"{path}: line {number}: {reason}")
        if len(cells) not in (0, 5, 6):
            raise InputError(
                f"{path}: line {number}: needs class, cx, cy, width, height and confidence"
            )
        if cells:
            score = cells[5] if len(cells) == 6 else None
            yield path.stem, f"{path.name}, line {number}", *cells[:5], score
