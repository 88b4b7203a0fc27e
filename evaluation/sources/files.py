"""Readers of files with predictions: CSV and other tables, COCO results, and YOLO's text files.

Rows are not checked against images here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.table_files import read_text_table, refuse_other_kind
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.image_files import ids_of_paths, without_suffix
from cxr_compare.data_prep.sources.markup_files import read_lines
from cxr_compare.data_prep.sources.yolo import read_class_names
from cxr_compare.evaluation.boxes.read_boxes import read_coco
from cxr_compare.evaluation.boxes.read_table import ColumnNames, ReadTable, texts_of
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice
from cxr_compare.evaluation.boxes.table_columns import read_frame
from cxr_compare.evaluation.sources.import_options import ImportOptions


def read_source(source: str | Path | pd.DataFrame, options: ImportOptions) -> ReadTable:
    """Read every row of predictions from a DataFrame, YOLO folder, COCO results or CSV file.

    Images and findings (disease signs) are named as in the source. In a submission with a column
    ``PredictionString``, the classes are those of VinBigData if the options name none. An
    InputError names the row or entry of a malformed source.
    """
    names, advice = options.columns, options.advice
    if isinstance(source, pd.DataFrame):
        numbered = given_class_names(options.class_names)
        return read_frame(source, names, advice.frame, advice, class_names=numbered)
    source = Path(source)
    if source.is_dir():
        return _read_yolo(source, options)
    if not source.is_file():
        raise InputError(f"{source}: no such file or folder")
    refuse_other_kind(source)
    if _looks_like_json(source):
        return _read_coco_file(source, options)
    table = read_text_table(source, ())
    if len(table.columns) == 1:
        table = read_text_table(source, (names.image, names.score))
    table.index += 2  # line 1 is the header
    numbered = given_class_names(options.class_names)
    read = read_frame(table, names, str(source), advice, class_names=numbered)
    read.content = source.read_bytes()
    return read


def _looks_like_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")


def _read_coco_file(path: Path, options: ImportOptions) -> ReadTable:
    """Read COCO results, with the names that an annotation file gives to their numbers.

    ``options.columns.image`` says what ``image_id`` is: ``id``, an id of the annotation file;
    ``file_name``, the number in the name of the image's file; any other text, that the user says
    neither.
    """
    results = read_json_file(path)
    if not isinstance(results, list):
        raise InputError(f"{path}: COCO results are a list of boxes; this holds an object")
    names, advice = options.columns, options.advice
    read = read_coco(results, names, str(path), advice)
    read.content = path.read_bytes()
    if options.coco_truth is None:
        return read
    truth = Path(options.coco_truth)
    annotations = read_json_file(truth)
    read.rows = _with_names(read.rows, path, annotations, truth, names.image, advice)
    true_boxes = annotations.get("annotations", [])
    crowds = [{**entry, "score": 1} for entry in true_boxes if entry.get("iscrowd")]
    if crowds:
        of_crowds = read_coco(crowds, ColumnNames(), str(truth), advice).rows
        read.crowds = _with_names(of_crowds, truth, annotations, truth, "id", advice)
    read.content += truth.read_bytes()
    read.ran = [*_names_of_coco_images(annotations).values()]
    read.advice = read.class_advice = ""
    return read


def _names_of_coco_images(annotations: Any) -> dict[str, str]:
    """Return the name of each image of a COCO annotation file, as the labels call it, by its id."""
    ids = texts_of([entry["id"] for entry in annotations["images"]])
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
        numbers = texts_of([entry["id"] for entry in annotations["categories"]])
        titles = [str(entry["name"]) for entry in annotations["categories"]]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{truth}: a COCO annotation file has images (id, file_name) and categories (id, "
            f"name); this lacks {error}"
        ) from None
    categories = dict(zip(numbers, titles, strict=True))
    require_few_names(categories, truth)
    if "category" not in table:
        table["category"] = "1"
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


def _read_yolo(folder: Path, options: ImportOptions) -> ReadTable:
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
    names = _yolo_names(folder, options)
    rows = [row for path in files for row in _yolo_rows(path)]
    table = pd.DataFrame(rows, columns=["image_id", "class", *EDGES, "score", "place"])
    table = table.astype({"class": np.int64, **dict.fromkeys([*EDGES, "score"], np.float64)})
    table[EDGES], reading = options.columns.corners(
        table[EDGES].to_numpy(np.float64), "cxcywh", "share"
    )
    is_unscored = table["score"].isna()
    if is_unscored.any() and not is_unscored.all():
        first = table[is_unscored].iloc[0]
        raise InputError(
            f"{labels}: {first['place']}: no confidence, and others have one; write it too "
            "(save_conf=True)"
        )
    notes: list[str] = []
    if len(table) and is_unscored.all():
        table = table.drop(columns="score")
        notes.append(
            "No box has a confidence: the boxes are decisions without a ranking. Ultralytics "
            "writes confidences with save_conf=True."
        )
    content = b"".join(f"{path.name}\n".encode() + path.read_bytes() for path in files)
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
            f"{labels}: {first['place']}: class {first['class']} has no name; "
            f"{options.advice.class_names}"
        )
    listed = [path.stem for path in files]
    return ReadTable(
        table.drop(columns="class"), content, reading, notes=notes, listed=listed, where=str(folder)
    )


def _yolo_names(folder: Path, options: ImportOptions) -> dict[int, str] | None:
    """Return the names of classes by number; None if they are not given."""
    given = given_class_names(options.class_names)
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
    """Yield image, class, centre, width, height, score and place of each line of a file."""
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            label, *box = (float(cell) for cell in cells)
        except ValueError:
            label = math.nan
            box = []
        score = box.pop() if len(box) == 5 else math.nan
        if len(box) != 4 or not label.is_integer() or label < 0:
            raise InputError(
                f"{path}: line {number}: needs class, cx, cy, width, height and, if boxes have "
                "scores, confidence"
            )
        yield path.stem, int(label), *box, score, f"{path.name}, line {number}"
