"""A `torch.utils.data.Dataset` of the user's own, written as images and a table of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.own_parts import own_part, problem_of
from cxr_compare.data_prep.sources.label_values import class_finding, normal_classes
from cxr_compare.evaluation.boxes.boxes_table import boxes_table

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
_COLUMNS = {"finding": "label", "x1": "xmin", "y1": "ymin", "x2": "xmax", "y2": "ymax"}


def write_own_dataset(
    name: str, folder: Path, class_names: Sequence[str], progress: Progress
) -> Path:
    """Write the images of a map-style Dataset as PNG files and their labels as a table.

    Returns the path of the table. `name` is ``MODULE:NAME`` of the Dataset, or of what returns it
    when called without arguments. Without `class_names` the Dataset's attribute ``classes`` counts.
    Equal files that are there stay. Raises InputError if the module cannot be imported, or an item,
    which the message names, is not what docs/own-parts.md says.
    """
    dataset = own_part(name, "prepare")
    try:
        dataset = dataset() if callable(dataset) else dataset
        n_items = len(dataset)
    except Exception as error:
        raise InputError(f"{name}: {problem_of(error)}; give a Dataset with a length") from error
    classes = list(class_names or getattr(dataset, "classes", ()))
    make_folder(folder)
    rows: list[pd.DataFrame] = []
    ids: set[str] = set()
    width = len(str(n_items))
    with progress(f"Images of {name}", n_items) as advance:
        for number in range(n_items):
            where = f"{name}: item {number}"
            pixels, target = _read_item(dataset, number, where)
            if number == 0 and not np.array_equal(pixels, _read_item(dataset, 0, where)[0]):
                raise InputError(
                    f"{where}: is another image each time; leave random changes out, which the "
                    "training draws itself"
                )
            image_id = str(_plain(target.get("image_id", f"{number:0{width}d}")))
            if image_id in ids:
                raise InputError(f"{where}: another one has the image_id {image_id!r}, too")
            ids.add(image_id)
            _write_image(folder / f"{image_id}.png", pixels, folder, where)
            labelled = _labels_of(target, image_id, classes, where)
            rows.append(labelled.assign(file=f"{image_id}.png", patient_id=_patient_of(target)))
            advance(1)
    if not rows:
        raise InputError(f"{name}: has no items")
    table = pd.concat(rows, ignore_index=True)
    path = folder / "labels.csv"
    with atomic_path(path) as temporary:
        table.dropna(axis="columns", how="all").to_csv(temporary, index=False)
    return path


def _read_item(dataset: Any, number: int, where: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Return the pixels, uint8 (H, W), and the target of an item; a bare label becomes a target."""
    try:
        item = dataset[number]
    except Exception as error:
        raise InputError(f"{where}: {problem_of(error)}") from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(f"{where}: is no pair (image, target)")
    pixels = np.asarray(item[0])
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise InputError(
            f"{where}: its image is {pixels.dtype} {pixels.shape}; give grey values, uint8 (H, W)"
        )
    target = item[1]
    return pixels, target if isinstance(target, Mapping) else {"label": target}


def _labels_of(
    target: Mapping[str, Any], image_id: str, classes: Sequence[str], where: str
) -> pd.DataFrame:
    """Return a row for each box, or one for the label or for an image without boxes."""
    if "boxes" not in target:
        if "label" not in target:
            raise InputError(f"{where}: its target has neither boxes nor label")
        return pd.DataFrame({"label": [_class_name(target["label"], classes, where)]})
    if not len(target["boxes"]):
        return pd.DataFrame({"label": ["normal"]})
    if "labels" not in target:
        raise InputError(f"{where}: its target has boxes without labels")
    names = [_class_name(label, classes, where) for label in target["labels"]]
    normal = [name for name in names if class_finding(name, where) in normal_classes()]
    if normal:
        raise InputError(f"{where}: has a box of the class {normal[0]!r}; labels begin at 1")
    try:
        boxes = boxes_table([{"boxes": target["boxes"], "labels": names}], [image_id])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return boxes[list(_COLUMNS)].rename(columns=_COLUMNS)


def _class_name(label: Any, classes: Sequence[str], where: str) -> str:
    """Return a label that is a text, or the name of the class of this number."""
    if isinstance(label, str):
        return label
    try:
        number = float(label)
    except (TypeError, ValueError):
        raise InputError(f"{where}: its label {label!r} is no class number and no text") from None
    if not classes:
        raise InputError(
            f"{where}: class {number:g} has no name; give the Dataset classes = [...], whose "
            "position is the number, or --class-names"
        )
    if not (number.is_integer() and 0 <= number < len(classes)):
        raise InputError(f"{where}: there is no class {number:g} in {', '.join(classes)}")
    return str(classes[int(number)])


def _patient_of(target: Mapping[str, Any]) -> str | None:
    patient = _plain(target.get("patient_id"))
    return None if patient is None else str(patient)


def _plain(value: Any) -> Any:
    """Return the number in a tensor or array of one number, and anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def _write_image(path: Path, pixels: np.ndarray, folder: Path, where: str) -> None:
    """Write a PNG file, unless it is there already."""
    if path.parent != folder or path.name.startswith("."):
        raise InputError(f"{where}: its image_id {path.stem!r} is no name of a file")
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    if path.is_file() and path.read_bytes() == encoded:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
