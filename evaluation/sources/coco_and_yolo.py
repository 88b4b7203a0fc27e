"""Predictions in COCO results and in YOLO's text files, as they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_numbers import coco_rotation, four_numbers
from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.boxes import EDGES, turned_bounds
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.image_files import ids_of_paths, without_suffix
from cxr_compare.data_prep.sources.markup_files import read_lines
from cxr_compare.data_prep.sources.yolo import read_class_names
from cxr_compare.evaluation.sources.raw_predictions import RawPredictions
from cxr_compare.evaluation.sources.reading_advice import ReadingAdvice

_COCO_BOXES = BoxReading(form="xywh")


def read_coco(
    path: Path, truth: Path | None, advice: ReadingAdvice, image_ids: str = ""
) -> RawPredictions:
    """Read COCO results, a list of ``image_id, category_id, bbox [x, y, width, height], score``.

    ``image_ids`` says what ``image_id`` is: ``id``, an id of the annotation file; ``file_name``,
    the number in the name of the image's file; any other text, that the user says neither.
    """
    results = read_json_file(path)
    if not isinstance(results, list):
        raise InputError(f"{path}: COCO results are a list of boxes; this holds an object")
    table = _coco_table(path, results)
    if truth is not None:
        annotations = read_json_file(truth)
        rows = _with_names(table, path, annotations, truth, image_ids, advice)
        true_boxes = annotations.get("annotations", [])
        crowd_entries = [{**entry, "score": 1} for entry in true_boxes if entry.get("iscrowd")]
        crowd_table = _coco_table(truth, crowd_entries)
        crowds = _with_names(crowd_table, truth, annotations, truth, "id", advice)
        content = path.read_bytes() + truth.read_bytes()
        ran = tuple(_names_of_coco_images(annotations).values())
        return RawPredictions(rows, content, crowds=crowds, reading=_COCO_BOXES, ran=ran)
    names = "category_name" if "category_name" in table else "category"
    rows = table.rename(columns={names: "finding"}).drop(columns="category", errors="ignore")
    if image_ids == "id":
        rows = rows.drop(columns="file_name", errors="ignore")
    return RawPredictions(
        rows,
        path.read_bytes(),
        advice=f", {advice.annotations}",
        class_advice=f", or {advice.annotations}",
        reading=_COCO_BOXES,
    )


def _coco_table(path: Path, entries: list[Any]) -> pd.DataFrame:
    """Read COCO entries as rows with ``image_id``, ``category``, edges, ``score`` and ``place``.

    If every entry has them, there are also ``file_name`` and ``category_name``.
    """
    images: list[str] = []
    categories: list[str] = []
    numbers: list[float] = []
    number = 0
    try:
        for number, entry in enumerate(entries):  # noqa: B007 - the error below uses the number
            x, y, width, height = four_numbers(entry["bbox"]) or ()
            corners = [x, y, x + width, y + height]
            if turn := coco_rotation(entry):
                corners = turned_bounds(np.array(corners), turn).tolist()
            numbers += [*corners, float(entry["score"])]
            images.append(_coco_id(entry["image_id"]))
            categories.append(_coco_id(entry.get("category_id", 1)))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: entry {number} needs image_id, bbox of four numbers, and score ({error!r})"
        ) from None
    table = pd.DataFrame(np.reshape(numbers, (-1, 5)), columns=[*EDGES, "score"])
    places = [f"entry {number}" for number in range(len(table))]
    texts = {"image_id": images, "category": categories, "place": places}
    for key in ("file_name", "category_name"):
        if entries and all(key in entry for entry in entries):
            texts[key] = [str(entry[key]) for entry in entries]
    return table.assign(**{name: pd.Series(cells, dtype=TEXT) for name, cells in texts.items()})


def _coco_id(value: Any) -> str:
    """Return an id as text; 1.0, as pandas and JavaScript write it, is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _names_of_coco_images(annotations: Any) -> dict[str, str]:
    """Return the name of each image of a COCO annotation file, as the labels call it, by its id."""
    ids = [_coco_id(entry["id"]) for entry in annotations["images"]]
    files = [str(entry["file_name"]) for entry in annotations["images"]]
    return dict(zip(ids, ids_of_paths(pd.Series(files, dtype=TEXT)), strict=True))


def _with_names(
    table: pd.DataFrame,
    path: Path,
    annotations: Any,
    truth: Path,
    image_ids: str,
    advice: ReadingAdvice,
) -> pd.DataFrame:
    """Replace COCO's numbers by the image and category names of the annotation file."""
    try:
        images = _names_of_coco_images(annotations)
        categories = {
            _coco_id(entry["id"]): str(entry["name"]) for entry in annotations["categories"]
        }
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{truth}: a COCO annotation file has images (id, file_name) and categories (id, "
            f"name); this lacks {error}"
        ) from None
    require_few_names(categories, truth)
    advice_on_images = ""
    if image_ids != "id" and "file_name" in table:
        images = {name: name for name in images.values()}
        paths = table["file_name"].astype(TEXT).map(without_suffix).astype(TEXT)
        table["image_id"] = paths.where(is_member(paths, list(images)), _last_part(paths))
        advice_on_images = f". {advice.image_ids}"
    elif image_ids != "id":
        by_number = _names_by_number(images.values())
        if image_ids == "file_name":
            images = by_number
        else:
            _ask_if_file_numbers(table, path, images, by_number, truth, advice)
    for column, names, also in (
        ("image_id", images, advice_on_images),
        ("category", categories, ""),
    ):
        is_unknown = ~is_member(table[column], list(names))
        if is_unknown.any():
            first = table[is_unknown].iloc[0]
            raise InputError(
                f"{path}: {first['place']}: {column.removesuffix('_id')} {first[column]} is not in "
                f"{truth}; use the file that the results were made on{also}"
            )
    table["image_id"] = renamed(table["image_id"], images)
    table["finding"] = renamed(table["category"], categories)
    if "category_name" in table:
        differs = table["category_name"].map(finding_name) != table["finding"].map(finding_name)
        if differs.any():
            first = table[differs].iloc[0]
            raise InputError(
                f"{path}: {first['place']}: category {first['category']} is {first['finding']!r} "
                f"in {truth}, and its category_name is {first['category_name']!r}; correct the "
                "number, or remove category_name"
            )
    return table.drop(columns=["category", "file_name", "category_name"], errors="ignore")


def _last_part(paths: pd.Series) -> pd.Series:
    return paths.str.rsplit("/", n=1).str[-1]


def _names_by_number(names: Iterable[str]) -> dict[str, str]:
    """Return the images whose file names are numbers, by the number if it is of one file."""
    table = pd.DataFrame({"name": [*names]}, dtype=TEXT)
    table["number"] = _last_part(table["name"])
    table = table[table["number"].str.fullmatch("[0-9]+")]
    table["number"] = table["number"].str.lstrip("0").replace("", "0")
    table = table[~table["number"].duplicated(keep=False)]
    return dict(zip(table["number"], table["name"], strict=True))


def _ask_if_file_numbers(
    table: pd.DataFrame,
    path: Path,
    by_id: Mapping[str, str],
    by_number: Mapping[str, str],
    truth: Path,
    advice: ReadingAdvice,
) -> None:
    """Ask whether numbers of images are ids or numbers in file names, if they may be both."""
    numbers = table["image_id"].unique()
    differing = [number for number in numbers if by_id.get(number) != by_number.get(number)]
    if not differing or not set(numbers) <= set(by_number):
        return
    number = differing[0]
    of_id = f"'{by_id[number]}' has this id" if number in by_id else "no image has this id"
    raise InputError(
        f"{path}: is image_id {number} the image '{by_number[number]}'? In {truth} {of_id}. "
        f"{advice.image_ids}"
    )


_YAML_SUFFIXES = (".yaml", ".yml")
_NO_PREDICTIONS = ("classes.txt", "requirements.txt", "readme.txt")


def read_yolo(
    folder: Path, class_names: str | Path | Sequence[str] | None, advice: ReadingAdvice
) -> RawPredictions:
    """Read a folder with one ``.txt`` for each image, directly or in ``labels/``."""
    labels = folder / "labels" if (folder / "labels").is_dir() else folder
    files = [
        path for path in sorted(labels.glob("*.txt")) if path.name.lower() not in _NO_PREDICTIONS
    ]
    if not files:
        raise InputError(
            f"{labels}: holds no prediction file (.txt, one an image); give the folder that "
            "Ultralytics' save_txt wrote, or one CSV or JSON file"
        )
    names = _yolo_names(folder, class_names)
    rows = [row for path in files for row in _yolo_rows(path)]
    table = pd.DataFrame(rows, columns=["image_id", "class", *EDGES, "score", "place"])
    table = table.astype({"class": np.int64, **dict.fromkeys([*EDGES, "score"], np.float64)})
    content = b"".join(f"{path.name}\n".encode() + path.read_bytes() for path in files)
    raw = RawPredictions(
        table,
        content,
        reading=BoxReading(form="cxcywh", unit="share"),
        listed=tuple(path.stem for path in files),
    )
    if names is not None:
        unnamed = ~table["class"].isin(list(names))
        if unnamed.any():
            first = table[unnamed].iloc[0]
            raise InputError(
                f"{labels}: {first['place']}: class {first['class']} has no name; {len(names)} "
                "classes are named"
            )
        table["finding"] = table["class"].map(names)
    elif (table["class"] != 0).any():
        first = table[table["class"] != 0].iloc[0]
        raise InputError(
            f"{labels}: {first['place']}: class {first['class']} has no name; {advice.class_names}"
        )
    raw.rows = table.drop(columns="class")
    return raw


def _yolo_names(
    folder: Path, class_names: str | Path | Sequence[str] | None
) -> dict[int, str] | None:
    """Return the names of classes by number; None if they are not given."""
    given = given_class_names(class_names)
    if given is not None:
        return given
    for parent in (folder, folder.parent):
        path = parent / "data.yaml"
        if path.is_file():
            return read_class_names(path)
    return None


def given_class_names(class_names: str | Path | Sequence[str] | None) -> dict[int, str] | None:
    """Return the names of classes that the user gives; None without any."""
    if isinstance(class_names, str | Path) and Path(class_names).suffix.lower() in _YAML_SUFFIXES:
        return read_class_names(Path(class_names))
    if isinstance(class_names, str | Path):
        class_names = [name.strip() for name in str(class_names).split(",")]
    return dict(enumerate(class_names)) if class_names else None


def _yolo_rows(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield ``image, class, x1, y1, x2, y2, score, place`` of each line of a file."""
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            label, x, y, width, height, *scores = (float(cell) for cell in cells)
        except ValueError:
            label = math.nan
            scores = []
        if len(scores) != 1 or not label.is_integer() or label < 0:
            hint = "; write the confidence too (save_conf=True)" if len(cells) == 5 else ""
            raise InputError(
                f"{path}: line {number}: needs class, cx, cy, width, height and confidence{hint}"
            )
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        yield path.stem, int(label), *edges, scores[0], f"{path.name}, line {number}"
